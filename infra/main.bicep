// The bridge between an application of The Things Stack and an Azure IoT Hub, with all that it needs, in one
// resource group. Deploying it again changes nothing that was not changed here.

targetScope = 'resourceGroup'

metadata name = 'tts-iot-hub'
metadata description = 'Connects The Things Stack to Azure IoT Hub.'

@description('Region of all resources.')
param location string = resourceGroup().location

@description('End of the names of all resources, so that they are unique in the world: at most 11 letters and digits, which become lower-case; not sb or mgmt, with which an Event Hubs namespace may not end. Empty: made from the id of the resource group.')
@maxLength(11)
param nameSuffix string = ''

@description('Address of the cluster of The Things Stack, such as https://eu1.cloud.thethings.network.')
@minLength(1)
param stackClusterAddress string

@description('Address of the Identity Server where it is another one: The Things Stack Cloud and Sandbox have theirs in the cluster eu1. Empty: the cluster itself.')
param stackIdentityAddress string = ''

@description('Id of the application in The Things Stack.')
@minLength(3)
@maxLength(36)
param stackApplicationId string

@description('API key of that application, with the rights to view and edit devices, edit device keys, read traffic and write downlinks.')
@secure()
@minLength(1)
param stackApiKey string

@description('Whether telemetry that no route of the hub takes goes to the built-in endpoint. Without it, and without a route for telemetry, telemetry is dropped.')
param enableFallbackRoute bool = true

@description('Size of the IoT Hub: F1 is free and takes 8000 messages of 0.5 KB a day, S1 takes 400 000 of 4 KB per unit. F1 can\'t become another size later. With an existing hub: its size.')
@allowed([
  'F1'
  'S1'
  'S2'
  'S3'
])
param iotHubSku string = 'S1'

@description('Units of that size: F1 takes one whatever stands here, S3 ten at most. With an existing hub: its units.')
@minValue(1)
@maxValue(200)
param iotHubUnits int = 1

@description('Value that the header X-Webhook-Secret of a webhook must carry, besides the function key. Empty: the function key alone.')
@secure()
param webhookSecret string = ''

@description('A second value that is accepted while webhookSecret is being changed. Empty: none.')
@secure()
param webhookSecretPrevious string = ''

@description('Instances that are always there for the webhook. 0: an idle app starts when a webhook comes, which can take longer than the 5 seconds that The Things Stack waits; editions that do not repeat webhooks then lose that message. 1: no cold start, for about 5 USD a month (512 MB at a list price of about 0.000004 USD per GB and second; check it).')
@minValue(0)
@maxValue(10)
param alwaysReadyHttpInstances int = 0

@description('The most instances that each function may have. One carries more than an S1 hub takes; each further one knows nothing of the others\' sessions.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 1

@description('Address of the package to install. Empty: install nothing, the package is deployed by other means.')
param packageUri string = 'https://github.com/tts-iot-hub/tts-iot-hub/releases/download/v0.1.0/tts-iot-hub-linux-x64.zip'

@description('Whether the alert rules are made. They cost about 11 USD a month at list price; docs/costs.md. False in a later deployment makes none, and removes none that are there: delete those by hand.')
param enableAlerts bool = true

@description('No webhook for this long raises the alert that nothing flows. A fleet that reports twice a day needs P1D.')
@allowed([
  'PT30M'
  'PT1H'
  'PT2H'
  'PT4H'
  'PT6H'
  'P1D'
  'P2D'
])
param nothingFlowsWindow string = 'PT2H'

@description('Address to which the alerts are mailed. Empty: they show in the portal only.')
param alertEmail string = ''

@description('Name of an existing IoT Hub to use in place of a new one; nothing in it is changed. existing-hub.sh adds the policy, endpoint and routes, and deploys this template. Also for a hub that this template made and that has got routes or policies since. Empty: a new hub.')
param existingIotHubName string = ''

@description('Resource group of the existing IoT Hub. Empty: this one.')
param existingIotHubResourceGroup string = ''

@description('Only with an existing IoT Hub: devices of The Things Stack get ids that begin with this, and the bridge touches no other device. Empty: none.')
param deviceIdPrefix string = ''

@description('Further settings of the bridge, by the names in the README, such as {"TELEMETRY_BODY": "compact"}. No secrets: these are plain values.')
param furtherSettings { *: string } = {}

@description('The suffix as it was given, in lower case.')
var givenSuffix = toLower(nameSuffix)

@description('Where something else than a letter or digit stands in it.')
var otherCharacters = filter(
  range(0, length(givenSuffix)),
  at => !contains('abcdefghijklmnopqrstuvwxyz0123456789', substring(givenSuffix, at, 1))
)

// A namespace must not end with -sb or -mgmt:
// https://learn.microsoft.com/azure/service-bus-messaging/service-bus-quickstart-portal, which tells it of all under servicebus.windows.net
@description('End of the names of all resources.')
var suffix = empty(nameSuffix)
  ? take(uniqueString(resourceGroup().id), 8)
  : !empty(otherCharacters) || contains(['sb', 'mgmt'], givenSuffix)
      ? fail('nameSuffix: letters and digits only, and neither sb nor mgmt')
      : givenSuffix

@description('Name of what needs no other one.')
var base = 'tts-iot-hub-${suffix}'

@description('Names of the resources.')
var names = {
  app: base
  eventHubs: base
  hub: base
  monitoring: base
  // No dashes are allowed.
  storage: 'ttsiothub${suffix}'
  vault: base
  policy: 'tts-iot-hub'
  packageContainer: 'app-package'
}

// https://learn.microsoft.com/azure/azure-resource-manager/management/azure-subscription-service-limits#azure-iot-hub-limits
@description('Units of the hub.')
var units = iotHubSku == 'F1'
  ? 1
  : iotHubSku == 'S3' && iotHubUnits > 10
      ? fail('iotHubUnits: a hub of the size S3 takes ten units at most')
      : iotHubUnits

@description('Whether the template makes the hub, and so owns it.')
var isHubOurs = empty(existingIotHubName)

@description('Name of the hub.')
var hubName = isHubOurs ? names.hub : existingIotHubName

@description('Resource group of the hub.')
var hubResourceGroup = isHubOurs || empty(existingIotHubResourceGroup)
  ? resourceGroup().name
  : existingIotHubResourceGroup

// Two identities, so that the app can't send as the hub nor the hub read as the app.
resource appIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${base}-app'
  location: location
}

resource hubIdentity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${base}-hub'
  location: location
}

module monitoring 'modules/monitoring.bicep' = {
  params: {
    location: location
    name: names.monitoring
    appIdentityId: appIdentity.id
    appPrincipalId: appIdentity.properties.principalId
  }
}

module storage 'modules/storage.bicep' = {
  params: {
    location: location
    name: names.storage
    packageContainer: names.packageContainer
    appIdentityId: appIdentity.id
    appPrincipalId: appIdentity.properties.principalId
  }
}

module eventHubs 'modules/event-hubs.bicep' = {
  params: {
    location: location
    name: names.eventHubs
    appIdentityId: appIdentity.id
    appPrincipalId: appIdentity.properties.principalId
    hubIdentityId: hubIdentity.id
    hubPrincipalId: hubIdentity.properties.principalId
    workspaceName: names.monitoring
  }
  dependsOn: [
    monitoring
  ]
}

module hub 'modules/hub.bicep' = if (isHubOurs) {
  params: {
    location: location
    name: names.hub
    sku: iotHubSku
    units: units
    enableFallbackRoute: enableFallbackRoute
    policyName: names.policy
    identityId: hubIdentity.id
    eventHubsName: names.eventHubs
    workspaceName: names.monitoring
  }
  dependsOn: [
    // The hub tries its endpoint when it is made: its identity must be allowed to send by then.
    eventHubs
    // A new role takes minutes until it is known everywhere, and the hub takes minutes to be made: all roles that can be
    // assigned before it are, so that the app finds them in force when it starts.
    monitoring
    secrets
    storage
  ]
}

module hubRoles 'modules/hub-roles.bicep' = {
  scope: resourceGroup(hubResourceGroup)
  params: {
    hubName: hubName
    appIdentityId: appIdentity.id
    appPrincipalId: appIdentity.properties.principalId
  }
  dependsOn: [
    hub
  ]
}

module secrets 'modules/secrets.bicep' = {
  params: {
    location: location
    name: names.vault
    appIdentityId: appIdentity.id
    appPrincipalId: appIdentity.properties.principalId
    stackApiKey: stackApiKey
    webhookSecret: webhookSecret
    hasWebhookSecret: !empty(webhookSecret)
    webhookSecretPrevious: webhookSecretPrevious
    hasWebhookSecretPrevious: !empty(webhookSecretPrevious)
    workspaceName: names.monitoring
  }
  dependsOn: [
    monitoring
  ]
}

module policyKey 'modules/policy-key.bicep' = {
  params: {
    vaultName: names.vault
    hubName: hubName
    hubResourceGroup: hubResourceGroup
    policyName: names.policy
  }
  dependsOn: [
    hub
    secrets
  ]
}

@description('An app setting that is a secret: a reference, in which {0} is the name of the secret.')
var secretReference = '@Microsoft.KeyVault(VaultName=${names.vault};SecretName={0})'

module app 'modules/app.bicep' = {
  params: {
    location: location
    name: names.app
    identityId: appIdentity.id
    identityClientId: appIdentity.properties.clientId
    storageName: names.storage
    packageContainer: names.packageContainer
    insightsName: names.monitoring
    vaultName: names.vault
    workspaceName: names.monitoring
    alwaysReadyHttpInstances: alwaysReadyHttpInstances
    maximumInstanceCount: maximumInstanceCount
    packageUri: packageUri
    bridgeSettings: {
      ...furtherSettings
      STACK_BASE_URL: stackClusterAddress
      ...(empty(stackIdentityAddress) ? {} : { STACK_IDENTITY_URL: stackIdentityAddress })
      STACK_APPLICATION_ID: stackApplicationId
      STACK_API_KEY: format(secretReference, 'stack-api-key')
      ...(empty(webhookSecret) ? {} : { WEBHOOK_SECRET: format(secretReference, 'webhook-secret') })
      ...(empty(webhookSecretPrevious)
        ? {}
        : { WEBHOOK_SECRET_PREVIOUS: format(secretReference, 'webhook-secret-previous') })
      IOTHUB_HOSTNAME: '${hubName}.azure-devices.net'
      IOTHUB_POLICY_NAME: names.policy
      IOTHUB_POLICY_KEY: format(secretReference, 'iothub-policy-key')
      IOTHUB_CREDENTIAL: 'managedidentity'
      IOTHUB_CLIENT_ID: appIdentity.properties.clientId
      IOTHUB_SKU: iotHubSku
      IOTHUB_UNITS: string(units)
      ...(empty(deviceIdPrefix) ? {} : { DEVICE_ID_PREFIX: deviceIdPrefix })
      StackEvents__fullyQualifiedNamespace: '${names.eventHubs}.servicebus.windows.net'
      StackEvents__credential: 'managedidentity'
      StackEvents__clientId: appIdentity.properties.clientId
      LOG_FORMAT: 'json'
    }
  }
  dependsOn: [
    // With their roles: the app reads its secrets and its package when it starts.
    eventHubs
    hubRoles
    monitoring
    policyKey
    secrets
    storage
  ]
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' existing = {
  name: names.monitoring
}

resource usedHub 'Microsoft.Devices/IotHubs@2023-06-30' existing = {
  name: hubName
  scope: resourceGroup(hubResourceGroup)
}

resource eventHubsNamespace 'Microsoft.EventHub/namespaces@2024-01-01' existing = {
  name: names.eventHubs
}

module alerts 'monitoring/alerts.bicep' = if (enableAlerts) {
  params: {
    location: location
    namePrefix: base
    workspaceId: workspace.id
    iotHubId: usedHub.id
    iotHubSku: iotHubSku
    iotHubUnits: units
    eventHubsNamespaceId: eventHubsNamespace.id
    alertEmail: alertEmail
    nothingFlowsWindow: nothingFlowsWindow
  }
  dependsOn: [
    eventHubs
    hub
    monitoring
  ]
}

module workbook 'monitoring/workbook.bicep' = {
  params: {
    location: location
    displayName: 'The Things Stack to IoT Hub (${base})'
    workspaceId: workspace.id
    iotHubSku: iotHubSku
    iotHubUnits: units
  }
  dependsOn: [
    monitoring
  ]
}

@description('Base URL of the webhook in The Things Stack; {/devID} is filled there.')
output webhookUrl string = 'https://${app.outputs.hostName}/api/uplink{/devID}'

@description('Host name of the IoT Hub.')
output iotHubHostName string = '${hubName}.azure-devices.net'

@description('Name of the Function app.')
output functionAppName string = names.app

@description('Resource id of the identity with which IoT Hub sends to Event Hubs.')
output hubIdentityId string = hubIdentity.id

@description('Where IoT Hub sends events for the bridge.')
output stackEventsEndpoint string = 'sb://${names.eventHubs}.servicebus.windows.net'

@description('What is left to do: the command that sets up the webhook. STACK_API_KEY must be in the environment, and WEBHOOK_SECRET if there is one. On The Things Stack Cloud and Sandbox outside eu1 STACK_IDENTITY_URL must be the address of eu1; it is there if stackIdentityAddress was given.')
output nextStep string = 'FUNCTION_KEY=$(az functionapp function keys list --resource-group ${resourceGroup().name} --name ${names.app} --function-name UplinkIngress --query default --output tsv) STACK_BASE_URL=${stackClusterAddress} ${empty(stackIdentityAddress) ? '' : 'STACK_IDENTITY_URL=${stackIdentityAddress} '}STACK_APPLICATION_ID=${stackApplicationId} tts-iot-hub webhook install --url https://${app.outputs.hostName}/api/uplink'
