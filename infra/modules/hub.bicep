// The IoT Hub with its routes. Not deployed where an existing hub is used: routes, endpoints and policies are
// properties of the hub, and a template would overwrite its owner's (existing-hub.sh adds ours there).

@description('Region.')
param location string

@description('Name of the IoT Hub.')
@minLength(3)
@maxLength(50)
param name string

@description('Size of the hub.')
param sku string

@description('Units of that size.')
param units int

@description('Whether telemetry that no route takes goes to the built-in endpoint.')
param enableFallbackRoute bool

@description('Name of the shared access policy of the bridge.')
param policyName string

@description('Resource id of the identity with which the hub sends to Event Hubs. Its role must be assigned before.')
param identityId string

@description('Name of the Event Hubs namespace.')
param eventHubsName string

@description('Name of the Log Analytics workspace.')
param workspaceName string

@description('The endpoint of both routes: the free size allows no second one.')
var endpoint = 'stack-events'

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' = {
  name: name
  location: location
  sku: {
    name: sku
    capacity: units
  }
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    minTlsVersion: '1.2'
    publicNetworkAccess: 'Enabled'
    // Devices can't sign in with Entra ID, and the bridge speaks as the devices.
    disableLocalAuth: false
    // The list is complete: the policies that a hub is born with, which may do everything, are not there.
    authorizationPolicies: [
      {
        keyName: policyName
        // Registry and twins are reached with the app's identity. Without keys here the hub makes new ones, it
        // seems at each deployment (hashicorp/terraform-provider-azurerm issue 7445); the app gets them in the same.
        rights: 'DeviceConnect'
      }
    ]
    eventHubEndpoints: {
      // The built-in endpoint, where telemetry goes. Its partition count can't be changed later; the free size has two at most.
      events: {
        retentionTimeInDays: 1
        partitionCount: sku == 'F1' ? 2 : 4
      }
    }
    routing: {
      endpoints: {
        eventHubs: [
          {
            name: endpoint
            endpointUri: 'sb://${eventHubsName}.servicebus.windows.net'
            entityPath: 'stack-events'
            authenticationType: 'identityBased'
            identity: {
              userAssignedIdentity: identityId
            }
            subscriptionId: subscription().subscriptionId
            resourceGroup: resourceGroup().name
          }
        ]
      }
      routes: [
        {
          name: 'device-lifecycle'
          source: 'DeviceLifecycleEvents'
          condition: 'true'
          endpointNames: [
            endpoint
          ]
          isEnabled: true
        }
        {
          name: 'twin-changes'
          source: 'TwinChangeEvents'
          // What The Things Industries' own template asks for. Leaves out our own reported patches, one per uplink.
          condition: 'IS_OBJECT($body.properties.desired) OR IS_OBJECT($body.tags)'
          endpointNames: [
            endpoint
          ]
          isEnabled: true
        }
      ]
      // Said in either case: what a hub does when it is absent changed with the API's versions.
      fallbackRoute: {
        name: '$fallback'
        source: 'DeviceMessages'
        condition: 'true'
        endpointNames: [
          'events'
        ]
        isEnabled: enableFallbackRoute
      }
    }
  }
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' existing = {
  name: workspaceName
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'workspace'
  scope: hub
  properties: {
    workspaceId: workspace.id
    // Not Connections nor the twin operations: the bridge opens a session for each uplink, and each would write
    // several lines. The metrics count them.
    logs: [
      {
        category: 'Routes'
        enabled: true
      }
      {
        category: 'DeviceIdentityOperations'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}
