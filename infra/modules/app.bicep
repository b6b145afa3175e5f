// The Function app: its plan, its settings and, if asked for, its package.

@description('Region.')
param location string

@description('Name of the Function app and of its plan.')
@maxLength(60)
param name string

@description('Resource id of the identity of the app.')
param identityId string

@description('Client id of the identity of the app.')
param identityClientId string

@description('Name of the storage account.')
param storageName string

@description('Container that holds the deployment package.')
param packageContainer string

@description('Name of Application Insights.')
param insightsName string

@description('Name of the Key Vault.')
param vaultName string

@description('Name of the Log Analytics workspace.')
param workspaceName string

@description('Settings of the bridge.')
param bridgeSettings { *: string }

@description('Instances that are always there for the webhook.')
param alwaysReadyHttpInstances int

@description('The most instances of each function.')
param maximumInstanceCount int

@description('Address of the package to install. Empty: none.')
param packageUri string

resource storage 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: storageName
}

resource insights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: insightsName
}

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' existing = {
  name: vaultName

  resource policyKey 'secrets' existing = {
    name: 'iothub-policy-key'
  }
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: name
  location: location
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    clientAffinityEnabled: false
    publicNetworkAccess: 'Enabled'
    keyVaultReferenceIdentity: identityId
    siteConfig: {
      // No ftpsState: Flex Consumption has no FTP, and does not want to be told
      // (Azure-Samples/azure-functions-flex-consumption-samples README.md, deprecated properties).
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      http20Enabled: true
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${storage.properties.primaryEndpoints.blob}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'custom'
        version: '1.0'
      }
      scaleAndConcurrency: {
        // The smallest. A thousand device sessions at once take less than 64 MB; the rest is the host's.
        instanceMemoryMB: 512
        maximumInstanceCount: maximumInstanceCount
        triggers: {
          http: {
            // The most there is. One instance carries more sessions a second than an S1 hub takes, and every
            // further one has a pool, a dedupe window and a pace of its own. host.json says the same to the host.
            perInstanceConcurrency: 1000
          }
        }
        alwaysReady: alwaysReadyHttpInstances == 0
          ? []
          : [
              {
                name: 'http'
                instanceCount: alwaysReadyHttpInstances
              }
            ]
      }
    }
  }

  // Deployments sign in with Entra ID; a password for them would be one secret more.
  resource noPublishingPassword 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: {
      allow: false
    }
  }

  resource noFtpPassword 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: {
      allow: false
    }
  }

  // The list is complete: a setting that is not here is removed when the template is deployed again.
  resource settings 'config' = {
    name: 'appsettings'
    properties: {
      ...bridgeSettings
      // A deployment writes all secrets anew, and may give the policy of the hub a new key. References without a
      // version are looked up once a day, or when a setting changes: this one does, by the version of the secret
      // (https://learn.microsoft.com/azure/app-service/app-service-key-vault-references#rotation).
      SECRETS_VERSION: last(split(vault::policyKey.properties.secretUriWithVersion, '/'))
      AzureWebJobsStorage__accountName: storage.name
      AzureWebJobsStorage__credential: 'managedidentity'
      AzureWebJobsStorage__clientId: identityClientId
      APPLICATIONINSIGHTS_CONNECTION_STRING: insights.properties.ConnectionString
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
    }
  }
}

resource package 'Microsoft.Web/sites/extensions@2025-03-01' = if (!empty(packageUri)) {
  parent: app
  name: 'onedeploy'
  // https://learn.microsoft.com/azure/azure-functions/functions-infrastructure-as-code has it; the type lacks it.
  #disable-next-line BCP187
  properties: {
    packageUri: packageUri
    remoteBuild: false
  }
  dependsOn: [
    app::settings
  ]
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' existing = {
  name: workspaceName
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'workspace'
  scope: app
  properties: {
    workspaceId: workspace.id
    // No logs: Application Insights has them already.
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

@description('Host name of the Function app.')
output hostName string = app.properties.defaultHostName
