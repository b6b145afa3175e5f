//! What the hub and the Event Hubs are to be.

use super::minted::random_key;
use super::{DEAD_LETTERS, LOCAL_USER, PARKED_UPLINKS, STACK_EVENTS, StartError};
use crate::entra::{Access, Assignment, ManagedIdentity, Role};
use crate::event_hubs::Namespace;
use crate::happenings::Happenings;
use crate::infra::{AccessPolicy, HubRoute, Infra};
use crate::iot_hub::{BUILT_IN_EVENTS, Policy, Rights, Route, RouteSource};

/// Partitions of every Event Hub, unless a template says otherwise.
const PARTITIONS: usize = 4;

/// Names, policies, routes, Event Hubs, and who may do what.
pub(super) struct Plan {
    pub(super) hub_host: String,
    pub(super) namespace_host: String,
    pub(super) policies: Vec<Policy>,
    pub(super) routes: Vec<Route>,
    pub(super) fallback: bool,
    pub(super) events: Namespace,
    pub(super) hub_access: Access,
    /// The identities of the app.
    pub(super) identities: Vec<ManagedIdentity>,
}

impl Plan {
    /// What the bridge needs, and no roles.
    pub(super) fn plain(consumer_groups: &[String]) -> Self {
        let hubs = [STACK_EVENTS, PARKED_UPLINKS, DEAD_LETTERS].map(|name| (name, PARTITIONS));
        Self {
            hub_host: "sim.azure-devices.net".to_owned(),
            namespace_host: "sim.servicebus.windows.net".to_owned(),
            policies: policies(),
            routes: routes(),
            fallback: true,
            events: Namespace::new(&hubs)
                .with_built_in_endpoint(BUILT_IN_EVENTS, PARTITIONS)
                .with_consumer_groups(consumer_groups),
            hub_access: Access::default(),
            identities: Vec::new(),
        }
    }

    /// What a template says, and nothing else.
    pub(super) fn of(infra: &Infra, happenings: &Happenings) -> Result<Self, StartError> {
        let Infra { hub, namespace, app, .. } = infra;
        if let Some(taken) = namespace.event_hubs.iter().find(|hub| hub.name.eq_ignore_ascii_case(BUILT_IN_EVENTS)) {
            return Err(format!(
                "the template has an Event Hub {}: here the hub's built-in endpoint is called so",
                taken.name
            )
            .into());
        }
        let hubs = namespace.event_hubs.iter().map(|hub| (hub.name.as_str(), hub.partitions));
        let events = Namespace::new(&hubs.collect::<Vec<_>>()).with_built_in_endpoint(BUILT_IN_EVENTS, hub.partitions);
        let groups =
            namespace.event_hubs.iter().flat_map(|hub| hub.consumer_groups.iter().map(|group| (&hub.name, group)));
        let events = groups.fold(events, |events, (hub, group)| events.with_consumer_group_of(hub, group));
        let person = [
            of_local_user("IoT Hub Data Contributor", "4fc6c259-987e-4a07-842e-c321cc9d413f", &hub.resource_id)?,
            of_local_user(
                "Azure Event Hubs Data Owner",
                "f526a384-b230-433a-b45c-95f59c4a2dec",
                &namespace.resource_id,
            )?,
        ];
        let access = |resource_id: &str| infra.access(resource_id, &person, happenings);
        Ok(Self {
            hub_host: hub.host_name.clone(),
            namespace_host: namespace.host_name.clone(),
            policies: hub.policies.iter().map(policy_of).collect(),
            routes: hub.routes.iter().cloned().map(route_of).collect(),
            fallback: hub.fallback,
            events: events.guarded_by(access(&namespace.resource_id), namespace.takes_keys),
            hub_access: access(&hub.resource_id),
            identities: app.identities.clone(),
        })
    }
}

fn of_local_user(name: &str, definition: &str, scope: &str) -> Result<Assignment, StartError> {
    let role = Role::find(definition).ok_or_else(|| format!("the role {name} is not known"))?;
    Ok(Assignment { scope: scope.to_owned(), role, principal: LOCAL_USER.to_owned() })
}

fn policy_of(policy: &AccessPolicy) -> Policy {
    let has = |right: &str| policy.rights.contains(right);
    let rights = Rights {
        registry_read: has("RegistryRead"),
        registry_write: has("RegistryWrite"),
        service_connect: has("ServiceConnect"),
        device_connect: has("DeviceConnect"),
    };
    Policy { name: policy.name.clone(), key: random_key(32), rights }
}

fn route_of(HubRoute { name, source, condition, event_hub, sender }: HubRoute) -> Route {
    let event_hub = event_hub.unwrap_or_else(|| BUILT_IN_EVENTS.to_owned());
    Route { name, source, condition, event_hub, sender }
}

fn policies() -> Vec<Policy> {
    let none = Rights { registry_read: false, registry_write: false, service_connect: false, device_connect: false };
    let all = Rights { registry_read: true, registry_write: true, service_connect: true, device_connect: true };
    let policy = |name: &str, rights| Policy { name: name.to_owned(), key: random_key(32), rights };
    vec![
        policy("iothubowner", all),
        policy("service", Rights { service_connect: true, ..none }),
        policy("device", Rights { device_connect: true, ..none }),
        policy("registryRead", Rights { registry_read: true, ..none }),
        policy("registryReadWrite", Rights { registry_read: true, registry_write: true, ..none }),
        policy("tts-bridge", Rights { registry_read: true, ..all }),
    ]
}

/// The routes that the bridge needs.
fn routes() -> Vec<Route> {
    let route = |name: &str, source, condition: &str| Route {
        name: name.to_owned(),
        source,
        condition: condition.to_owned(),
        event_hub: STACK_EVENTS.to_owned(),
        sender: None,
    };
    vec![
        route("device-lifecycle", RouteSource::DeviceLifecycleEvents, "true"),
        route(
            "twin-changes",
            RouteSource::TwinChangeEvents,
            "IS_OBJECT($body.properties.desired) OR IS_OBJECT($body.tags)",
        ),
    ]
}
