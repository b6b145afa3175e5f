// The built-in roles that are assigned here, by their ids
// (https://learn.microsoft.com/azure/role-based-access-control/built-in-roles).
// Each assignment stands beside the resource that it opens; who needs it, and why, is in docs/security.md.

@export()
@description('Ids of built-in roles.')
var roleIds = {
  eventHubsDataReceiver: 'a638d3c7-ab3a-418d-83e6-5f17a39d4fde'
  eventHubsDataSender: '2b629674-e913-4c01-ae53-ef4638d8f975'
  iotHubRegistryContributor: '4ea46cd5-c1b2-4a8e-910b-273211f9ce47'
  iotHubTwinContributor: '494bdba2-168f-4f31-a0a1-191d2f7c028c'
  keyVaultSecretsUser: '4633458b-17de-408a-b874-0445c86b69e6'
  monitoringMetricsPublisher: '3913510d-42f4-4e42-8a64-420c390055eb'
  storageBlobDataOwner: 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
}
