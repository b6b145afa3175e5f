using '../main.bicep'

param nameSuffix = 'example'
param stackClusterAddress = 'https://eu1.cloud.thethings.network'
param stackApplicationId = 'my-application'
param stackApiKey = 'NNSXS.EXAMPLE.EXAMPLE'
