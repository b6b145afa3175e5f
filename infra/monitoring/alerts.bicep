// The alerts. Each says in its description what it means and what to do, for somebody who is woken by it.

@description('Region of the log search alert rules: that of the workspace.')
param location string

@description('The names of the rules begin with this, so that two deployments can share a resource group.')
@minLength(1)
@maxLength(40)
param namePrefix string

@description('The Log Analytics workspace of Application Insights, to which IoT Hub, Event Hubs and the app send their metrics too.')
param workspaceId string

@description('The IoT hub.')
param iotHubId string

@description('Tier of the hub: with the units it decides the daily quota.')
@allowed(['F1', 'S1', 'S2', 'S3'])
param iotHubSku string

@description('Units of the hub.')
@minValue(1)
@maxValue(200)
param iotHubUnits int

@description('The Event Hubs namespace.')
param eventHubsNamespaceId string

@description('Who gets a mail for each alert. Empty: alerts show in the portal only.')
param alertEmail string = ''

@description('No webhook for this long means that nothing flows. A fleet that reports twice a day needs a day (P1D).')
@allowed(['PT30M', 'PT1H', 'PT2H', 'PT4H', 'PT6H', 'P1D', 'P2D'])
param nothingFlowsWindow string = 'PT2H'

@description('Seconds that EventHubForwarder may be behind.')
@minValue(1)
param forwarderLagSeconds int = 300

@description('Uplinks by which the parking Event Hub may grow within half an hour.')
@minValue(1)
param parkedGrowth int = 100

@description('Part of the hub\'s daily quota that may be used, in percent.')
@minValue(1)
@maxValue(99)
param quotaPercent int = 80

// https://azure.microsoft.com/pricing/details/iot-hub/
@description('Messages a day that a unit of each size takes.')
var messagesPerDayAndUnit = { F1: 8000, S1: 400000, S2: 6000000, S3: 300000000 }

@description('Messages a day that the hub takes.')
var dailyQuota = messagesPerDayAndUnit[iotHubSku] * iotHubUnits

@description('A log search alert.')
type rule = {
  @description('End of the name of the resource.')
  name: string
  @description('What is wrong, in a few words.')
  title: string
  @description('What it means and what to do.')
  description: string
  @description('The query.')
  query: string
  @description('0 is the worst, 4 the least.')
  severity: int
  @description('The time that it looks at. Two days are the most: https://learn.microsoft.com/azure/azure-monitor/alerts/alerts-create-log-alert-rule')
  window: string
  @description('How often it looks.')
  every: string
  @description('The column to measure: its maximum, per dimension. Without it the rows are counted.')
  column: string?
  @description('The column whose values are looked at one by one.')
  dimension: string?
  @description('It fires at more than this; without it, at fewer than one row.')
  above: int?
  @description('Whether only a person closes the alert, because what it tells of does not mend itself.')
  stays: bool?
}

@description('All log search alerts.')
var rules rule[] = [
  {
    name: 'nothing-flows'
    title: 'Nothing flows'
    description: 'No webhook of The Things Stack was taken for a while. Look at the webhook in the Console (suspended? wrong URL or key?), at the app (stopped?), and whether gateways are connected. If the fleet simply reports seldom, lengthen nothingFlowsWindow.'
    query: loadTextContent('queries/webhooks-taken.kql')
    severity: 1
    window: nothingFlowsWindow
    every: 'PT15M'
  }
  {
    name: 'webhooks-failed'
    title: 'Webhooks answered 5xx'
    description: 'The Things Stack got 500 or 503 and loses the message unless its edition tries again. 503: neither IoT Hub nor Event Hubs took it, see the query failures for the reason and the health of both services. 500: the handler was down, see the alerts on restarts and settings.'
    query: loadTextContent('queries/webhooks-failed.kql')
    severity: 1
    window: 'PT15M'
    every: 'PT5M'
    column: 'webhooks'
    dimension: 'ResultCode'
    above: 0
  }
  {
    name: 'webhooks-refused'
    title: 'Webhooks refused'
    description: 'The handler refused webhooks as the reason says: 401 wrong WEBHOOK_SECRET, 403 another application, 413 or 415 the webhook\'s field mask or format, 503 nothing took it. Mend the webhook in the Console: The Things Stack suspends one that keeps failing.'
    query: loadTextContent('queries/webhooks-refused.kql')
    severity: 2
    window: 'PT15M'
    every: 'PT5M'
    column: 'webhooks'
    dimension: 'status'
    above: 5
  }
  {
    name: 'forwarder-behind'
    title: 'The forwarder is behind'
    description: 'Registrations and downlinks wait: EventHubForwarder handles events that are older than they should be. Mostly The Things Stack is away or refuses the API key; the query forwarder-stuck shows what is open. Nothing is lost within seven days, and it catches up by itself.'
    query: loadTextContent('queries/forwarder-lag.kql')
    severity: 2
    window: 'PT15M'
    every: 'PT5M'
    column: 'lag_s'
    above: forwarderLagSeconds
  }
  {
    name: 'parked-too-long'
    title: 'Uplinks are parked for more than three days'
    description: 'Parked uplinks could not be delivered for three days; on the sixth day they become dead letters. The query parked-now shows the reason: mend it (hub disabled, quota used up every day, policy key rotated), and they are delivered by themselves.'
    query: loadTextContent('queries/parked-too-long.kql')
    severity: 1
    window: 'PT30M'
    every: 'PT15M'
    above: 0
  }
  {
    name: 'parked-piling-up'
    title: 'Parked uplinks pile up'
    description: 'More uplinks are parked than leave the parking Event Hub: IoT Hub is away, throttles, or its quota is used up. They are delivered once it takes messages again. Look at the hub\'s health, the query hub-rates and the size of the hub.'
    query: loadTextContent('queries/parked-growth.kql')
    severity: 2
    window: 'PT30M'
    every: 'PT15M'
    column: 'growth'
    above: parkedGrowth
  }
  {
    name: 'dead-lettered'
    title: 'Something was dead-lettered'
    description: 'A message or event can never be delivered as it is; its reason is in the query dead-letters. Mend the cause (enable the device, correct its tags), so that those to come are delivered. The message itself stays in the Event Hub dead-letters for seven days: read it there with any Event Hubs client, as somebody with the role Azure Event Hubs Data Receiver on that Event Hub, and send again what is still wanted. Close the alert by hand when that is done.'
    query: loadTextContent('queries/dead-letters-new.kql')
    severity: 2
    // Longer than it looks back, for rows that come in late: the query takes each by when it came in.
    window: 'PT1H'
    every: 'PT15M'
    above: 0
    stays: true
  }
  {
    name: 'dead-letters-of-yesterday'
    title: 'Dead letters of yesterday'
    description: 'A reminder: dead letters were written one to two days ago and go after seven. Look whether they were dealt with; those of three days and more are in the query dead-letters-about-to-go, because an alert can look back two days only.'
    query: loadTextContent('queries/dead-letters-of-yesterday.kql')
    severity: 3
    window: 'P2D'
    every: 'P1D'
    above: 0
    stays: true
  }
  {
    name: 'handler-restarts'
    title: 'The handler keeps restarting'
    description: 'The handler started three times or more within half an hour at one instance; after the third exit the Functions host stops the instance. Look at the lines before each start in AppTraces and AppExceptions (out of memory, timeout of a batch, a defect), and go back to the version before if this followed a deployment.'
    query: loadTextContent('queries/handler-starts.kql')
    severity: 1
    window: 'PT30M'
    every: 'PT15M'
    column: 'starts'
    dimension: 'instance'
    above: 2
  }
  {
    name: 'settings-wrong'
    title: 'The settings are wrong'
    description: 'The handler refuses to start until its settings are mended; nothing flows. The lines in AppTraces after this one name each setting with its remedy. Mend them in the app\'s environment variables; the app restarts by itself.'
    query: loadTextContent('queries/settings-wrong.kql')
    severity: 0
    window: 'PT15M'
    every: 'PT5M'
    above: 0
  }
  {
    name: 'key-vault'
    title: 'A Key Vault reference is unresolved'
    description: 'A secret did not reach the app, so the handler refuses to start. Give the app\'s identity the role Key Vault Secrets User on the vault, check that the secret exists, is enabled and not expired and that the vault\'s firewall lets the app in, then restart the app.'
    query: loadTextContent('queries/key-vault.kql')
    severity: 0
    window: 'PT15M'
    every: 'PT5M'
    above: 0
  }
]

resource actionGroup 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(alertEmail)) {
  name: '${namePrefix}-alerts'
  location: 'global'
  properties: {
    groupShortName: 'tts-iot-hub'
    enabled: true
    emailReceivers: [{ name: 'email', emailAddress: alertEmail, useCommonAlertSchema: true }]
  }
}

@description('Whom all alerts tell.')
var actionGroups = empty(alertEmail) ? [] : [actionGroup.id]

resource logAlerts 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for rule in rules: {
    name: '${namePrefix}-${rule.name}'
    location: location
    kind: 'LogAlert'
    properties: {
      displayName: rule.title
      description: rule.description
      severity: rule.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: rule.every
      windowSize: rule.window
      autoMitigate: !(rule.?stays ?? false)
      // A new workspace may not have its tables yet; the queries are checked before they come here (check/run).
      skipQueryValidation: true
      criteria: {
        allOf: [
          {
            query: rule.query
            timeAggregation: contains(rule, 'column') ? 'Maximum' : 'Count'
            metricMeasureColumn: rule.?column
            dimensions: contains(rule, 'dimension')
              ? [{ name: rule.dimension!, operator: 'Include', values: ['*'] }]
              : []
            operator: contains(rule, 'above') ? 'GreaterThan' : 'LessThan'
            threshold: rule.?above ?? 1
            failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
          }
        ]
      }
      actions: { actionGroups: actionGroups }
    }
  }
]

@description('Metric alerts: what the platform itself measures.')
var metrics = [
  {
    name: 'hub-quota'
    title: 'The hub\'s daily quota is nearly used up'
    description: 'IoT Hub refuses every message once its daily quota is used up, until midnight UTC; until then uplinks are parked. Add units or take the next tier, or save messages: TELEMETRY_BODY=compact, fewer TWIN_MESSAGES.'
    severity: 1
    scope: iotHubId
    namespace: 'Microsoft.Devices/IotHubs'
    metric: 'dailyMessageQuotaUsed'
    aggregation: 'Maximum'
    above: dailyQuota * quotaPercent / 100
  }
  {
    name: 'hub-throttled'
    title: 'IoT Hub throttles'
    description: 'IoT Hub refused messages because more came than its size takes in a second. The bridge slows down and parks what does not fit; if it lasts, add units or take the next tier.'
    severity: 2
    scope: iotHubId
    namespace: 'Microsoft.Devices/IotHubs'
    metric: 'd2c.telemetry.ingress.sendThrottle'
    aggregation: 'Total'
    above: 0
  }
  {
    name: 'event-hubs-throttled'
    title: 'Event Hubs throttles'
    description: 'The Event Hubs namespace refused requests because its throughput units do not suffice: events and parked uplinks wait, and a webhook may get 503. Add throughput units or switch auto-inflate on.'
    severity: 2
    scope: eventHubsNamespaceId
    namespace: 'Microsoft.EventHub/namespaces'
    metric: 'ThrottledRequests'
    aggregation: 'Total'
    above: 0
  }
]

resource metricAlerts 'Microsoft.Insights/metricAlerts@2026-01-01' = [
  for metric in metrics: {
    name: '${namePrefix}-${metric.name}'
    location: 'global'
    properties: {
      description: '${metric.title}. ${metric.description}'
      severity: metric.severity
      enabled: true
      scopes: [metric.scope]
      evaluationFrequency: 'PT5M'
      windowSize: 'PT15M'
      autoMitigate: true
      criteria: {
        'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
        allOf: [
          {
            name: metric.name
            criterionType: 'StaticThresholdCriterion'
            metricNamespace: metric.namespace
            metricName: metric.metric
            timeAggregation: metric.aggregation
            operator: 'GreaterThan'
            threshold: metric.above
          }
        ]
      }
      actions: [for id in actionGroups: { actionGroupId: id }]
    }
  }
]
