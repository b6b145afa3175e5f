// Where logs and metrics go: one Log Analytics workspace, and Application Insights on it.

import { roleIds } from 'roles.bicep'

@description('Region.')
param location string

@description('Name of the Log Analytics workspace and of Application Insights.')
param name string

@description('Resource id of the identity of the Function app.')
param appIdentityId string

@description('Object id of the service principal of that identity.')
param appPrincipalId string

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' = {
  name: name
  location: location
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    // 31 days are in the price of ingestion.
    retentionInDays: 31
    features: {
      // Who may read a resource may read its logs; nobody else gets in by the workspace's keys.
      enableLogAccessUsingOnlyResourcePermissions: true
      disableLocalAuth: true
    }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: name
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    // Without it, whoever reads the connection string could write telemetry, and so quieten or raise alerts.
    DisableLocalAuth: true
  }
}

resource publish 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(insights.id, appIdentityId, roleIds.monitoringMetricsPublisher)
  scope: insights
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId(
      'Microsoft.Authorization/roleDefinitions',
      roleIds.monitoringMetricsPublisher
    )
    description: 'Platform: the Functions host writes logs and metrics.'
  }
}
