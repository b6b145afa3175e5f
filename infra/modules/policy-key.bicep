// The key of the bridge's policy, from the hub into the Key Vault. A file of its own because it must wait for the hub, and
// the rest of the vault must not.

@description('Name of the Key Vault.')
param vaultName string

@description('Name of the IoT Hub.')
param hubName string

@description('Resource group of the IoT Hub.')
param hubResourceGroup string

@description('Name of the shared access policy of the bridge.')
param policyName string

resource vault 'Microsoft.KeyVault/vaults@2025-05-01' existing = {
  name: vaultName
}

resource hub 'Microsoft.Devices/IotHubs@2023-06-30' existing = {
  name: hubName
  scope: resourceGroup(hubResourceGroup)
}

resource policyKey 'Microsoft.KeyVault/vaults/secrets@2025-05-01' = {
  parent: vault
  name: 'iothub-policy-key'
  properties: {
    value: listKeys('${hub.id}/IotHubKeys/${policyName}', '2023-06-30').primaryKey
    contentType: 'Primary key of the policy ${policyName} of the IoT Hub'
  }
}
