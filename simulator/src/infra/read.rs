//! Resources of a snapshot become a description.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::evaluate::Evaluator;
use super::expression::Expression;
use super::snapshot::{Resource, Snapshot};
use super::{
    AccessPolicy, App, AssignedRole, EventHub, EventHubs, Hub, HubRoute, Infra, InfraError, Secret, SecretValue,
};
use crate::entra::{Assignment, ManagedIdentity, Role};
use crate::iot_hub::{RouteSource, Sku};

const IDENTITIES: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";
const NO_HUB: &str =
    "; one that uses an existing hub says nothing of its policies and routes: take one that makes its own";

/// The rights of a policy (<https://learn.microsoft.com/rest/api/iothub/iot-hub-resource/get#accessrights>).
pub(super) const RIGHTS: [&str; 4] = ["RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"];

/// A snapshot and the values of its expressions.
struct Reading {
    snapshot: Snapshot,
    evaluator: Evaluator,
}

impl Infra {
    /// Reads the file that `bicep snapshot` wrote.
    ///
    /// # Errors
    /// If it cannot be read, or says something that the simulator does not know: the message tells what.
    pub fn read(path: &Path) -> Result<Self, InfraError> {
        let snapshot = Snapshot::read(path)?;
        let evaluator = Evaluator::new(snapshot.of(IDENTITIES).map(|identity| identity.id.clone()));
        let reading = Reading { snapshot, evaluator };
        let namespace = reading.namespace()?;
        Ok(Self {
            hub: reading.hub(&namespace)?,
            namespace,
            app: reading.app()?,
            secrets: reading.secrets()?,
            identities: reading.evaluator.identities(),
            assignments: reading.assignments()?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HubProperties {
    #[serde(default)]
    disable_local_auth: bool,
    authorization_policies: Vec<PolicyProperties>,
    #[serde(default)]
    event_hub_endpoints: BTreeMap<String, BuiltInProperties>,
    routing: RoutingProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyProperties {
    key_name: String,
    rights: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BuiltInProperties {
    partition_count: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoutingProperties {
    #[serde(default)]
    endpoints: EndpointProperties,
    #[serde(default)]
    routes: Vec<RouteProperties>,
    fallback_route: Option<RouteProperties>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointProperties {
    #[serde(default)]
    event_hubs: Vec<EventHubEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventHubEndpoint {
    name: String,
    #[serde(default)]
    endpoint_uri: String,
    #[serde(default)]
    entity_path: String,
    #[serde(default)]
    authentication_type: String,
    #[serde(default)]
    identity: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteProperties {
    #[serde(default)]
    name: String,
    source: String,
    #[serde(default)]
    condition: String,
    endpoint_names: Vec<String>,
    is_enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SkuProperties {
    name: String,
    capacity: u32,
}

/// The endpoint that every hub has.
const BUILT_IN: &str = "events";

impl Reading {
    fn text(&self, resource: &Resource, value: &str) -> Result<String, InfraError> {
        self.evaluator.text(value).map_err(|source| InfraError::Evaluate { resource: resource.id.clone(), source })
    }

    /// A user-assigned identity of the snapshot.
    fn identity(&self, resource: &Resource, id: &str) -> Result<ManagedIdentity, InfraError> {
        let found = self.evaluator.identities().into_iter().find(|one| one.resource_id.eq_ignore_ascii_case(id));
        found.ok_or_else(|| resource.wrong(format!("there is no identity {id} in the snapshot")))
    }

    /// The user-assigned identities that a resource has.
    fn identities_of(&self, resource: &Resource) -> Result<Vec<ManagedIdentity>, InfraError> {
        let kind = resource.identity["type"].as_str().unwrap_or_default();
        if kind.contains("SystemAssigned") {
            return Err(resource.wrong("system-assigned identities are not simulated"));
        }
        let ids = resource.identity["userAssignedIdentities"].as_object();
        ids.into_iter().flatten().map(|(id, _)| self.identity(resource, &self.text(resource, id)?)).collect()
    }

    fn hub(&self, namespace: &EventHubs) -> Result<Hub, InfraError> {
        let resource = self.snapshot.one("Microsoft.Devices/IotHubs", NO_HUB)?;
        let properties: HubProperties = resource.part(&resource.properties)?;
        if properties.disable_local_auth {
            return Err(resource.wrong("a hub without shared access policies is not simulated: devices need them"));
        }
        let sku: SkuProperties = resource.part(&resource.sku)?;
        let size: Sku = sku.name.parse().map_err(|_| resource.wrong(format!("the size {} is not known", sku.name)))?;
        let policies = properties.authorization_policies.iter().map(|policy| self.policy(resource, policy));
        let own = self.identities_of(resource)?;
        let mut routes = Vec::new();
        for route in properties.routing.routes.iter().filter(|route| route.is_enabled) {
            for endpoint in &route.endpoint_names {
                routes.push(self.route(resource, route, endpoint, &properties.routing.endpoints, &own, namespace)?);
            }
        }
        Ok(Hub {
            resource_id: resource.id.clone(),
            host_name: format!("{}.azure-devices.net", resource.name),
            sku: (size, sku.capacity),
            policies: policies.collect::<Result<_, _>>()?,
            routes,
            fallback: properties.routing.fallback_route.is_some_and(|route| route.is_enabled),
            partitions: properties.event_hub_endpoints.get(BUILT_IN).map_or(4, |built_in| built_in.partition_count),
        })
    }

    fn policy(&self, resource: &Resource, policy: &PolicyProperties) -> Result<AccessPolicy, InfraError> {
        let name = self.text(resource, &policy.key_name)?;
        let rights = self.text(resource, &policy.rights)?;
        let rights: BTreeSet<String> = rights.split(',').map(|right| right.trim().to_owned()).collect();
        match rights.iter().find(|right| !RIGHTS.contains(&right.as_str())) {
            Some(right) => Err(resource.wrong(format!("policy {name}: the right {right} is not known"))),
            None => Ok(AccessPolicy { name, rights }),
        }
    }

    fn route(
        &self,
        resource: &Resource,
        route: &RouteProperties,
        endpoint: &str,
        endpoints: &EndpointProperties,
        own: &[ManagedIdentity],
        namespace: &EventHubs,
    ) -> Result<HubRoute, InfraError> {
        let name = self.text(resource, &route.name)?;
        let condition = self.text(resource, &route.condition)?;
        let source = match self.text(resource, &route.source)?.as_str() {
            "DeviceMessages" => RouteSource::DeviceMessages,
            "DeviceLifecycleEvents" => RouteSource::DeviceLifecycleEvents,
            "TwinChangeEvents" => RouteSource::TwinChangeEvents,
            other => return Err(resource.wrong(format!("route {name}: the source {other} is not simulated"))),
        };
        let endpoint = self.text(resource, endpoint)?;
        if endpoint == BUILT_IN {
            return Ok(HubRoute { name, source, condition, event_hub: None, sender: None });
        }
        let wrong = |why: String| resource.wrong(format!("endpoint {endpoint}: {why}"));
        let mut found = None;
        for one in &endpoints.event_hubs {
            if self.text(resource, &one.name)? == endpoint {
                found = Some(one);
            }
        }
        let endpoint = found.ok_or_else(|| wrong("it is no Event Hub of the hub's routing".to_owned()))?;
        let host = self.text(resource, &endpoint.endpoint_uri)?;
        if !host.trim_start_matches("sb://").trim_end_matches('/').eq_ignore_ascii_case(&namespace.host_name) {
            return Err(wrong(format!("{host} is not the namespace {}", namespace.host_name)));
        }
        if endpoint.authentication_type != "identityBased" {
            return Err(wrong("endpoints with keys are not simulated: make it identityBased".to_owned()));
        }
        let id = endpoint.identity.get("userAssignedIdentity");
        let id = id.ok_or_else(|| wrong("it names no user-assigned identity".to_owned()))?;
        let identity = self.identity(resource, &self.text(resource, id)?)?;
        if !own.contains(&identity) {
            return Err(wrong(format!("the hub does not have the identity {}", identity.resource_id)));
        }
        let event_hub = Some(self.text(resource, &endpoint.entity_path)?);
        Ok(HubRoute { name, source, condition, event_hub, sender: Some(identity.principal_id) })
    }

    fn namespace(&self) -> Result<EventHubs, InfraError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct HubProperties {
            partition_count: usize,
        }
        let resource = self.snapshot.one("Microsoft.EventHub/namespaces", "")?;
        let mut event_hubs = Vec::new();
        for hub in self.snapshot.of("Microsoft.EventHub/namespaces/eventhubs") {
            let HubProperties { partition_count } = hub.part(&hub.properties)?;
            let groups = self.snapshot.of("Microsoft.EventHub/namespaces/eventhubs/consumergroups");
            let groups = groups.filter_map(|group| last(&group.id).filter(|_| is_child(&group.id, &hub.id)));
            let name = last(&hub.id).ok_or_else(|| hub.wrong("it has no name"))?.to_owned();
            let consumer_groups = groups.map(str::to_owned).collect();
            event_hubs.push(EventHub { name, partitions: partition_count, consumer_groups });
        }
        Ok(EventHubs {
            resource_id: resource.id.clone(),
            host_name: format!("{}.servicebus.windows.net", resource.name),
            takes_keys: !resource.flag("disableLocalAuth")?,
            event_hubs,
        })
    }

    fn app(&self) -> Result<App, InfraError> {
        let resource = self.snapshot.one("Microsoft.Web/sites", "")?;
        let mut settings = BTreeMap::new();
        let own = |config: &&Resource| {
            is_child(&config.id, &resource.id)
                && last(&config.id).is_some_and(|name| name.eq_ignore_ascii_case("appsettings"))
        };
        for config in self.snapshot.of("Microsoft.Web/sites/config").filter(own) {
            let given: BTreeMap<String, String> = config.part(&config.properties)?;
            for (name, value) in given {
                settings.insert(name, self.text(config, &value)?);
            }
        }
        let inner = &resource.properties["siteConfig"]["appSettings"];
        if !inner.is_null() && inner.as_array().is_none_or(|settings| !settings.is_empty()) {
            return Err(resource.wrong("siteConfig.appSettings is not simulated: use a resource config/appsettings"));
        }
        let identities = self.identities_of(resource)?;
        let reader = resource.properties["keyVaultReferenceIdentity"].as_str();
        let reader = reader.map(|id| self.identity(resource, &self.text(resource, id)?)).transpose()?;
        if let Some(stranger) = reader.as_ref().filter(|reader| !identities.contains(reader)) {
            let id = &stranger.resource_id;
            return Err(resource.wrong(format!("keyVaultReferenceIdentity is none of the app's identities: {id}")));
        }
        Ok(App { settings, identities, vault_reader: reader.map(|reader| reader.principal_id) })
    }

    fn secrets(&self) -> Result<Vec<Secret>, InfraError> {
        let secret = |resource: &Resource| {
            let value = resource.properties["value"].as_str().unwrap_or_default();
            let vault = resource.id.rsplit_once("/secrets/");
            let (vault_id, name) = vault.ok_or_else(|| resource.wrong("its id names no vault"))?;
            let value = secret_value(value).ok_or_else(|| {
                resource.wrong("the value is neither a parameter nor the primaryKey of a policy of the hub")
            })?;
            let vaults = self.snapshot.of("Microsoft.KeyVault/vaults");
            let vault = vaults.into_iter().find(|vault| vault.id.eq_ignore_ascii_case(vault_id));
            let vault = vault
                .ok_or_else(|| resource.wrong("its vault is not in the snapshot: who may read it is not known"))?;
            if !vault.flag("enableRbacAuthorization")? {
                return Err(vault.wrong("access policies of vaults are not simulated: set enableRbacAuthorization"));
            }
            Ok(Secret { vault_id: vault_id.to_owned(), name: name.to_owned(), value })
        };
        self.snapshot.of("Microsoft.KeyVault/vaults/secrets").map(secret).collect()
    }

    fn assignments(&self) -> Result<Vec<AssignedRole>, InfraError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Properties {
            principal_id: String,
            role_definition_id: String,
            #[serde(default)]
            description: String,
        }
        let assigned = |resource: &Resource| {
            if !resource.properties["condition"].is_null() {
                return Err(resource.wrong("conditions of role assignments are not simulated"));
            }
            let properties: Properties = resource.part(&resource.properties)?;
            let definition = self.text(resource, &properties.role_definition_id)?;
            let role = Role::find(&definition).ok_or_else(|| {
                resource.wrong(format!("the role {definition} is not known: teach it in simulator/src/entra/roles.rs"))
            })?;
            let principal = self.text(resource, &properties.principal_id)?;
            let holder = self.evaluator.identities().into_iter().find(|one| one.principal_id == principal);
            let holder = holder.ok_or_else(|| resource.wrong("its principal is no identity of the snapshot"))?;
            Ok(AssignedRole {
                assignment: Assignment { scope: self.scope(resource)?, role, principal },
                identity: last(&holder.resource_id).unwrap_or_default().to_owned(),
                description: properties.description,
            })
        };
        self.snapshot.of("Microsoft.Authorization/roleAssignments").map(assigned).collect()
    }

    /// What a role assignment is for: what its id says before the provider, or the first argument of `extensionResourceId`.
    fn scope(&self, resource: &Resource) -> Result<String, InfraError> {
        const PROVIDER: &str = "/providers/microsoft.authorization/roleassignments/";
        if let Ok(Expression::Call(function, arguments)) = Expression::read(&resource.id)
            && function.eq_ignore_ascii_case("extensionResourceId")
            && let Some(Expression::Text(scope)) = arguments.first()
        {
            return Ok(scope.clone());
        }
        let at = resource.id.to_ascii_lowercase().rfind(PROVIDER);
        at.map(|at| resource.id[..at].to_owned()).ok_or_else(|| resource.wrong("its id does not say what it is for"))
    }
}

/// `[parameters('name')]`, or `[listKeys('{hub}/IotHubKeys/{policy}', …).primaryKey]`.
fn secret_value(value: &str) -> Option<SecretValue> {
    match Expression::read(value).ok()? {
        Expression::Call(function, arguments) if function.eq_ignore_ascii_case("parameters") => {
            match arguments.as_slice() {
                [Expression::Text(name)] => Some(SecretValue::Parameter(name.clone())),
                _ => None,
            }
        }
        Expression::Member(object, member) if member == "primaryKey" => match *object {
            Expression::Call(function, arguments) if function.eq_ignore_ascii_case("listKeys") => {
                match arguments.first() {
                    Some(Expression::Text(id)) => {
                        let (_, policy) = id.rsplit_once("/IotHubKeys/")?;
                        Some(SecretValue::PolicyKey(policy.to_owned()))
                    }
                    _ => None,
                }
            }
            _ => None,
        },
        _ => None,
    }
}

fn last(id: &str) -> Option<&str> {
    id.rsplit('/').next().filter(|name| !name.is_empty())
}

fn is_child(id: &str, parent: &str) -> bool {
    let (id, parent) = (id.to_ascii_lowercase(), parent.to_ascii_lowercase());
    id.strip_prefix(&parent).is_some_and(|rest| rest.starts_with('/'))
}
