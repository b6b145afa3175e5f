// What the bridge may do in the hub with its identity. In the resource group of the hub, which may be another one.

import { roleIds } from 'roles.bicep'

@description('Name of the IoT Hub.')
param hubName string

@description('Resource id of the identity of the Function app.')
param appIdentityId string

@description('Object id of the service principal of that identity.')
param appPrincipalId string

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' existing = {
  name: hubName
}

resource registry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hub.id, appIdentityId, roleIds.iotHubRegistryContributor)
  scope: hub
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(
      'Microsoft.Authorization/roleDefinitions',
      roleIds.iotHubRegistryContributor
    )
    description: 'Devices that IoT Hub does not know are created.'
  }
}

resource twins 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(hub.id, appIdentityId, roleIds.iotHubTwinContributor)
  scope: hub
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.iotHubTwinContributor)
    description: 'Twins are read, and tags.stack is written.'
  }
}
