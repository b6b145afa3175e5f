// The Event Hubs between IoT Hub and the bridge, and who may send to and read from each of them.

import { roleIds } from 'roles.bicep'

@description('Region.')
param location string

@description('Name of the namespace.')
@minLength(6)
@maxLength(50)
param name string

@description('Resource id of the identity of the Function app.')
param appIdentityId string

@description('Object id of the service principal of that identity.')
param appPrincipalId string

@description('Resource id of the identity with which IoT Hub sends.')
param hubIdentityId string

@description('Object id of the service principal of that identity.')
param hubPrincipalId string

@description('Name of the Log Analytics workspace.')
param workspaceName string

@description('Seven days are the most that the tier Standard keeps: the longest outage that loses nothing.')
var retention = {
  cleanupPolicy: 'Delete'
  retentionTimeInHours: 168
}

resource namespace 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: name
  location: location
  sku: {
    // Basic keeps events for a day and has no consumer groups.
    name: 'Standard'
    tier: 'Standard'
    // One throughput unit takes 1 MB or 1000 events a second: more than a hub of the size S1 routes.
    capacity: 1
  }
  properties: {
    // No keys: who may send and read is in the role assignments below, and nowhere else.
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
  }

  // A partition count can't be changed later in the tier Standard.
  resource stackEvents 'eventhubs' = {
    name: 'stack-events'
    properties: {
      // IoT Hub sends all events of a device to one partition, which keeps their order. While The Things Stack
      // refuses one batch for long, its partition waits: with four, three quarters of the fleet go on. Four
      // instances at most can share the work; one carries more than the hub's limit of twin updates.
      partitionCount: 4
      retentionDescription: retention
    }

    resource forwarder 'consumergroups' = {
      name: 'forwarder'
    }
  }

  resource parkedUplinks 'eventhubs' = {
    name: 'parked-uplinks'
    properties: {
      // As above: parked uplinks go to partitions by device, and catching up is bound by the hub's limits
      // long before four readers are.
      partitionCount: 4
      retentionDescription: retention
    }

    resource reader 'consumergroups' = {
      name: 'parked-uplinks'
    }
  }

  resource deadLetters 'eventhubs' = {
    name: 'dead-letters'
    properties: {
      // Rare, and read by people who want them in the order in which they came.
      partitionCount: 1
      retentionDescription: retention
    }
  }
}

// One event hub each, never the namespace: the app must not be able to forge events of the hub.
resource appReceivesStackEvents 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(namespace::stackEvents.id, appIdentityId, roleIds.eventHubsDataReceiver)
  scope: namespace::stackEvents
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.eventHubsDataReceiver)
    description: 'EventHubForwarder is triggered by events of the hub.'
  }
}

resource appReceivesParkedUplinks 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(namespace::parkedUplinks.id, appIdentityId, roleIds.eventHubsDataReceiver)
  scope: namespace::parkedUplinks
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.eventHubsDataReceiver)
    description: 'ParkedUplinks is triggered by parked uplinks.'
  }
}

resource appSendsParkedUplinks 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(namespace::parkedUplinks.id, appIdentityId, roleIds.eventHubsDataSender)
  scope: namespace::parkedUplinks
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.eventHubsDataSender)
    description: 'UplinkIngress parks what the hub does not take now.'
  }
}

resource appSendsDeadLetters 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(namespace::deadLetters.id, appIdentityId, roleIds.eventHubsDataSender)
  scope: namespace::deadLetters
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.eventHubsDataSender)
    description: 'All three functions keep here what can never succeed.'
  }
}

resource hubSendsStackEvents 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(namespace::stackEvents.id, hubIdentityId, roleIds.eventHubsDataSender)
  scope: namespace::stackEvents
  properties: {
    principalId: hubPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.eventHubsDataSender)
    description: 'IoT Hub routes lifecycle events and twin changes here.'
  }
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' existing = {
  name: workspaceName
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'workspace'
  scope: namespace
  properties: {
    workspaceId: workspace.id
    logs: [
      {
        // Changes to the namespace itself: a few lines in its life.
        category: 'OperationalLogs'
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
