// The Key Vault with the secrets of the bridge, and nothing else; policy-key.bicep adds the one that comes from the hub.

import { roleIds } from 'roles.bicep'

@description('Region.')
param location string

@description('Name of the Key Vault.')
@minLength(3)
@maxLength(24)
param name string

@description('Resource id of the identity of the Function app.')
param appIdentityId string

@description('Object id of the service principal of that identity.')
param appPrincipalId string

@description('API key of the application in The Things Stack.')
@secure()
param stackApiKey string

@description('Value of the header X-Webhook-Secret.')
@secure()
param webhookSecret string

@description('Whether there is one. A condition on the secret itself would make what is deployed a secret, too.')
param hasWebhookSecret bool

@description('The value of that header that was valid before.')
@secure()
param webhookSecretPrevious string

@description('Whether there is one.')
param hasWebhookSecretPrevious bool

@description('Name of the Log Analytics workspace.')
param workspaceName string

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' = {
  name: name
  location: location
  properties: {
    tenantId: subscription().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    // The shortest; and no purge protection. Every secret can be had again from where it came, and whoever
    // removes the bridge wants its name free at once.
    softDeleteRetentionInDays: 7
    publicNetworkAccess: 'Enabled'
  }
}

resource apiKey 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = {
  parent: vault
  name: 'stack-api-key'
  properties: {
    value: stackApiKey
    contentType: 'API key of The Things Stack'
  }
}

resource webhook 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = if (hasWebhookSecret) {
  parent: vault
  name: 'webhook-secret'
  properties: {
    value: webhookSecret
    contentType: 'Value of the header X-Webhook-Secret'
  }
}

resource webhookPrevious 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = if (hasWebhookSecretPrevious) {
  parent: vault
  name: 'webhook-secret-previous'
  properties: {
    value: webhookSecretPrevious
    contentType: 'Value of the header X-Webhook-Secret that was valid before'
  }
}

resource read 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, appIdentityId, roleIds.keyVaultSecretsUser)
  scope: vault
  properties: {
    principalId: appPrincipalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roleIds.keyVaultSecretsUser)
    description: 'Key Vault references in the app settings are resolved.'
  }
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' existing = {
  name: workspaceName
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'workspace'
  scope: vault
  properties: {
    workspaceId: workspace.id
    logs: [
      {
        // Who read or set which secret.
        category: 'AuditEvent'
        enabled: true
      }
    ]
  }
}
