// The workbook: each question with its query, in the order in which one asks them.

@description('Region of the workbook.')
param location string

@description('Its title in the portal.')
param displayName string = 'The Things Stack to IoT Hub'

@description('The Log Analytics workspace of Application Insights, to which IoT Hub, Event Hubs and the app send their metrics too.')
param workspaceId string

@description('Tier of the hub: its rates, quota and price follow from it.')
@allowed(['F1', 'S1', 'S2', 'S3'])
param iotHubSku string

@description('Units of the hub.')
@minValue(1)
@maxValue(200)
param iotHubUnits int

@description('Queries that know the size of the hub. They say S1 with one unit; a test holds both lines to the files.')
var ofThisSize = [
  loadTextContent('queries/hub-rates.kql')
  loadTextContent('queries/hub-quota.kql')
  loadTextContent('queries/cost.kql')
]

@description('The same with the size of this hub.')
var sized = map(
  ofThisSize,
  query =>
    replace(
      replace(query, 'let sku = "S1";', 'let sku = "${iotHubSku}";'),
      'let units = 1;',
      'let units = ${iotHubUnits};'
    )
)

@description('One query, as it is shown.')
type panel = {
  @description('What stands above it.')
  title: string
  @description('The query.')
  query: string
  @description('How the portal draws it: timechart, table, …')
  chart: string
}

@description('Panels that answer one question.')
type section = {
  @description('The question.')
  title: string
  @description('What answers it.')
  panels: panel[]
}

@description('What the workbook shows, from top to bottom.')
var sections section[] = [
  {
    title: 'Is it flowing?'
    panels: [
      { title: 'Webhooks per outcome', query: loadTextContent('queries/webhooks.kql'), chart: 'timechart' }
      { title: 'Webhooks taken, by type', query: loadTextContent('queries/webhooks-by-type.kql'), chart: 'timechart' }
      {
        title: 'Time that a webhook took (ms)'
        query: loadTextContent('queries/webhook-latency.kql')
        chart: 'timechart'
      }
      { title: 'The newest webhooks', query: loadTextContent('queries/webhooks-taken.kql'), chart: 'table' }
      {
        title: 'Events of IoT Hub, by what became of them'
        query: loadTextContent('queries/hub-events.kql')
        chart: 'timechart'
      }
    ]
  }
  {
    title: 'How far behind is the forwarder?'
    panels: [
      {
        title: 'Age of the oldest event of a batch (s), deliveries of a batch'
        query: loadTextContent('queries/forwarder-lag.kql')
        chart: 'timechart'
      }
      {
        title: 'Partitions that are held up, and why'
        query: loadTextContent('queries/forwarder-stuck.kql')
        chart: 'table'
      }
    ]
  }
  {
    title: 'What is parked or dead-lettered?'
    panels: [
      { title: 'Parked now', query: loadTextContent('queries/parked-now.kql'), chart: 'table' }
      {
        title: 'Parked, less what left the parking Event Hub'
        query: loadTextContent('queries/parked-growth.kql')
        chart: 'table'
      }
      {
        title: 'Parked for more than three days'
        query: loadTextContent('queries/parked-too-long.kql')
        chart: 'table'
      }
      { title: 'Dead letters', query: loadTextContent('queries/dead-letters.kql'), chart: 'table' }
      {
        title: 'Dead letters of three days and more, whatever the time range'
        query: loadTextContent('queries/dead-letters-about-to-go.kql')
        chart: 'table'
      }
    ]
  }
  {
    title: 'What fails?'
    panels: [
      { title: 'Failures by reason', query: loadTextContent('queries/failures.kql'), chart: 'table' }
      { title: 'Webhooks refused', query: loadTextContent('queries/webhooks-refused.kql'), chart: 'table' }
      { title: 'Webhooks answered 5xx', query: loadTextContent('queries/webhooks-failed.kql'), chart: 'table' }
      { title: 'Starts of the handler', query: loadTextContent('queries/handler-starts.kql'), chart: 'table' }
      { title: 'Wrong settings', query: loadTextContent('queries/settings-wrong.kql'), chart: 'table' }
      { title: 'Unresolved Key Vault references', query: loadTextContent('queries/key-vault.kql'), chart: 'table' }
    ]
  }
  {
    title: 'Which devices are quiet?'
    panels: [
      {
        title: 'Seen in the last 14 days, but not in the last 24 hours, whatever the time range'
        query: loadTextContent('queries/quiet-devices.kql')
        chart: 'table'
      }
    ]
  }
  {
    title: 'How near to the hub\'s limits?'
    panels: [
      { title: 'Of the rates that the hub takes, in percent', query: sized[0], chart: 'timechart' }
      { title: 'Of the daily quota, in percent', query: sized[1], chart: 'table' }
    ]
  }
  {
    title: 'What does it cost?'
    panels: [
      {
        title: 'Quantities, and what they come to at list price (USD, one region, no free grants)'
        query: sized[2]
        chart: 'table'
      }
    ]
  }
]

// The workbook's own format: item types 1 text, 3 query, 9 parameters (https://github.com/microsoft/Application-Insights-Workbooks).
@description('The parameter at the top that all queries take their time from.')
var timeRange = {
  type: 9
  name: 'time range'
  content: {
    version: 'KqlParameterItem/1.0'
    style: 'pills'
    parameters: [
      {
        id: guid('time range')
        version: 'KqlParameterItem/1.0'
        name: 'TimeRange'
        label: 'Time range'
        type: 4
        isRequired: true
        value: { durationMs: 86400000 }
        typeSettings: {
          allowCustom: true
          selectableValues: map([1, 4, 24, 168, 720], hours => { durationMs: hours * 3600000 })
        }
      }
    ]
  }
}

@description('An item for the title of each section.')
var headings = [for section in sections: { type: 1, name: section.title, content: { json: '## ${section.title}' } }]

@description('All items: of each section its heading, then its panels.')
var items = flatten(map(
  range(0, length(sections)),
  index =>
    concat(
      [headings[index]],
      map(sections[index].panels, panel => {
        type: 3
        name: panel.title
        content: {
          version: 'KqlItem/1.0'
          title: panel.title
          query: panel.query
          size: 0
          queryType: 0
          resourceType: 'microsoft.operationalinsights/workspaces'
          crossComponentResources: [workspaceId]
          timeContextFromParameter: 'TimeRange'
          visualization: panel.chart
          noDataMessage: 'None.'
        }
      })
    )
))

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  // A workbook's name is a GUID.
  name: guid(resourceGroup().id, workspaceId, 'tts-iot-hub')
  location: location
  kind: 'shared'
  properties: {
    displayName: displayName
    category: 'workbook'
    sourceId: workspaceId
    serializedData: string({
      version: 'Notebook/1.0'
      items: concat([timeRange], items)
      fallbackResourceIds: [workspaceId]
    })
  }
}

@description('The workbook, to be linked to.')
output id string = workbook.id
