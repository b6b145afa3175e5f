using '../main.bicep'

// A larger fleet on an edition that does not repeat webhooks.
param nameSuffix = 'example'
param stackClusterAddress = 'https://stack.example.com'
param stackApplicationId = 'my-application'
param stackApiKey = 'NNSXS.EXAMPLE.EXAMPLE'
param iotHubSku = 'S1'
param iotHubUnits = 4
param alwaysReadyHttpInstances = 1
param maximumInstanceCount = 2
param furtherSettings = {
  TELEMETRY_BODY: 'compact'
}
param alertEmail = 'operator@example.com'
