using '../main.bicep'

// A hub that somebody else owns, in a resource group of its own.
param nameSuffix = 'example'
param stackClusterAddress = 'https://eu1.cloud.thethings.network'
param stackApplicationId = 'my-application'
param stackApiKey = 'NNSXS.EXAMPLE.EXAMPLE'
param existingIotHubName = 'acme-fleet'
param existingIotHubResourceGroup = 'acme-iot'
param iotHubSku = 'S2'
param deviceIdPrefix = 'lorawan-'
