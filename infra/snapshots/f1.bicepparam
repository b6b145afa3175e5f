using '../main.bicep'

// To try it: the free size of the hub, another cluster's Identity Server, no built-in endpoint.
param nameSuffix = 'example'
param stackClusterAddress = 'https://nam1.cloud.thethings.network'
param stackIdentityAddress = 'https://eu1.cloud.thethings.network'
param stackApplicationId = 'my-application'
param stackApiKey = 'NNSXS.EXAMPLE.EXAMPLE'
param iotHubSku = 'F1'
// It takes one.
param iotHubUnits = 3
param enableFallbackRoute = false
param packageUri = ''
