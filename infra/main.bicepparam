// For `az deployment group create --parameters infra/main.bicepparam` and for `azd up`: values and secrets come
// from the environment, so that no secret is in a file or in a command's arguments.
using 'main.bicep'

param nameSuffix = readEnvironmentVariable('NAME_SUFFIX', '')
param stackClusterAddress = readEnvironmentVariable('STACK_CLUSTER_ADDRESS')
param stackIdentityAddress = readEnvironmentVariable('STACK_IDENTITY_ADDRESS', '')
param stackApplicationId = readEnvironmentVariable('STACK_APPLICATION_ID')
param stackApiKey = readEnvironmentVariable('STACK_API_KEY')
param webhookSecret = readEnvironmentVariable('WEBHOOK_SECRET', '')
param webhookSecretPrevious = readEnvironmentVariable('WEBHOOK_SECRET_PREVIOUS', '')
param enableFallbackRoute = bool(readEnvironmentVariable('ENABLE_FALLBACK_ROUTE', 'true'))
param iotHubSku = readEnvironmentVariable('IOTHUB_SKU', 'S1')
param iotHubUnits = int(readEnvironmentVariable('IOTHUB_UNITS', '1'))
param alwaysReadyHttpInstances = int(readEnvironmentVariable('ALWAYS_READY_HTTP_INSTANCES', '0'))
param maximumInstanceCount = int(readEnvironmentVariable('MAXIMUM_INSTANCE_COUNT', '1'))
param enableAlerts = bool(readEnvironmentVariable('ENABLE_ALERTS', 'true'))
param nothingFlowsWindow = readEnvironmentVariable('NOTHING_FLOWS_WINDOW', 'PT2H')
param alertEmail = readEnvironmentVariable('ALERT_EMAIL', '')
param existingIotHubName = readEnvironmentVariable('EXISTING_IOT_HUB_NAME', '')
param existingIotHubResourceGroup = readEnvironmentVariable('EXISTING_IOT_HUB_RESOURCE_GROUP', '')
param deviceIdPrefix = readEnvironmentVariable('DEVICE_ID_PREFIX', '')
// A JSON object, such as {"TELEMETRY_BODY": "compact"}.
param furtherSettings = json(readEnvironmentVariable('FURTHER_SETTINGS', '{}'))

// The package that was built here is deployed afterwards. Give PACKAGE_URI to install a released one.
param packageUri = readEnvironmentVariable('PACKAGE_URI', '')
