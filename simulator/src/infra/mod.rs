//! What a template makes of Azure, read from its evaluated form (`bicep snapshot`).
//!
//! | module | idea |
//! |---|---|
//! | `snapshot` | the file: resources with their ids, names and properties |
//! | `expression` | the expressions that only the platform can evaluate |
//! | `evaluate` | their values here: minted ids, names by Azure's rules |
//! | `read` | resources become the description below |
//!
//! Read are: one IoT Hub with its policies and routes, one Event Hubs namespace, user-assigned identities, role assignments, Key Vault
//! secrets, and one Function app with its settings. Everything else of a template is left aside.

mod evaluate;
mod expression;
mod read;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::entra::{Access, Assignment, ManagedIdentity};
use crate::happenings::Happenings;
use crate::iot_hub::{RouteSource, Sku, Tier, TierError};

pub use evaluate::EvaluateError;
pub use snapshot::InfraError;

/// What a template makes of Azure.
#[derive(Clone, Debug)]
pub struct Infra {
    /// The IoT Hub.
    pub hub: Hub,
    /// The Event Hubs namespace.
    pub namespace: EventHubs,
    /// The Function app.
    pub app: App,
    /// The secrets of all vaults.
    pub secrets: Vec<Secret>,
    /// The user-assigned identities, each with ids that were made up for it.
    pub identities: Vec<ManagedIdentity>,
    assignments: Vec<AssignedRole>,
}

/// An IoT Hub.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Its resource id.
    pub resource_id: String,
    /// Its host name.
    pub host_name: String,
    /// Its size, and how many units of it.
    pub sku: (Sku, u32),
    /// Its shared access policies.
    pub policies: Vec<AccessPolicy>,
    /// Its routes that are enabled.
    pub routes: Vec<HubRoute>,
    /// Whether telemetry that no route takes goes to the built-in endpoint.
    pub fallback: bool,
    /// Partitions of the built-in endpoint.
    pub partitions: usize,
}

/// A shared access policy of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPolicy {
    /// Its name.
    pub name: String,
    /// Its rights by their names, such as `DeviceConnect`.
    pub rights: BTreeSet<String>,
}

/// A message route of a hub to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRoute {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub source: RouteSource,
    /// Which of that.
    pub condition: String,
    /// The Event Hub; `None` for the built-in endpoint.
    pub event_hub: Option<String>,
    /// Principal id of the identity that the hub sends with.
    pub sender: Option<String>,
}

/// An Event Hubs namespace.
#[derive(Clone, Debug)]
pub struct EventHubs {
    /// Its resource id.
    pub resource_id: String,
    /// Its host name.
    pub host_name: String,
    /// Whether shared access signatures open anything.
    pub takes_keys: bool,
    /// The Event Hubs.
    pub event_hubs: Vec<EventHub>,
}

/// An Event Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHub {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// Its consumer groups beside `$Default`.
    pub consumer_groups: Vec<String>,
}

/// A Function app.
#[derive(Clone, Debug)]
pub struct App {
    /// Its settings. References to Key Vault are texts here.
    pub settings: BTreeMap<String, String>,
    /// Its identities.
    pub identities: Vec<ManagedIdentity>,
    /// The principal id of the identity that reads its references to Key Vault.
    pub vault_reader: Option<String>,
}

/// A secret of a Key Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Resource id of its vault.
    pub vault_id: String,
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub value: SecretValue,
}

/// What a secret stands for; its value is nobody's business but the simulator's, which makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretValue {
    /// A secure parameter of the template.
    Parameter(String),
    /// The key of a shared access policy of the hub.
    PolicyKey(String),
}

/// A role assignment of the template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedRole {
    /// Who may do what where.
    pub assignment: Assignment,
    /// The name of the identity that has it.
    pub identity: String,
    /// Why, in the template's words.
    pub description: String,
}

impl AssignedRole {
    /// The resource that it holds for, without the resource group: `eventhubs/dead-letters`, or `IotHubs/name`.
    #[must_use]
    pub fn place(&self) -> &str {
        let scope = &self.assignment.scope;
        let last = scope.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
        &scope[last..]
    }
}

impl Infra {
    /// The size of the hub.
    ///
    /// # Errors
    /// If no hub of that size has so many units.
    pub fn tier(&self) -> Result<Tier, TierError> {
        let (sku, units) = self.hub.sku;
        Tier::new(sku, units)
    }

    /// The role assignments.
    #[must_use]
    pub fn assignments(&self) -> &[AssignedRole] {
        &self.assignments
    }

    /// The same without one role assignment.
    #[must_use]
    pub fn without(&self, assigned: &AssignedRole) -> Self {
        let assignments = self.assignments.iter().filter(|one| *one != assigned).cloned().collect();
        Self { assignments, ..self.clone() }
    }

    /// The same without one right of a shared access policy of the hub.
    #[must_use]
    pub fn without_policy_right(&self, policy: &str, right: &str) -> Self {
        let mut other = self.clone();
        for policy in other.hub.policies.iter_mut().filter(|one| one.name == policy) {
            policy.rights.remove(right);
        }
        other
    }

    /// What identities may do at a resource by the template, and by these assignments beside it.
    pub(crate) fn access(&self, resource_id: &str, others: &[Assignment], happenings: &Happenings) -> Access {
        let assignments = self.assignments.iter().map(|assigned| &assigned.assignment).chain(others).cloned();
        Access::by_roles(resource_id, assignments.collect::<Arc<[_]>>(), happenings.clone())
    }
}
