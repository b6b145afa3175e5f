//! The Event Hubs and consumer groups of one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::store::EventHub;
#[cfg(doc)]
use super::store::RETAINED_BYTES;
use crate::entra::{Access, Denied, actions};

/// The consumer group that every Event Hub has.
pub const DEFAULT_CONSUMER_GROUP: &str = "$Default";

/// What someone wants to do with an Event Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Send events.
    Send,
    /// Receive them.
    Listen,
}

impl Claim {
    /// As the service calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Send => "Send",
            Self::Listen => "Listen",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Send => actions::EVENTS_SEND,
            Self::Listen => actions::EVENTS_RECEIVE,
        }
    }
}

/// Why an identity may not do something with an Event Hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// It lacks a role.
    #[error(transparent)]
    Role(#[from] Denied),
    /// No role opens this one (<https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-azure-ad-rbac>: the built-in endpoint
    /// takes shared access signatures and connection strings only).
    #[error(
        "the built-in endpoint of a hub admits no identity: use a shared access policy of the hub with ServiceConnect"
    )]
    BuiltInEndpoint,
}

/// The Event Hubs of one namespace, and the endpoint of the hub that speaks like one of them.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// By their names in lower case: names of entities are case-insensitive.
    hubs: BTreeMap<String, Arc<EventHub>>,
    /// Of all Event Hubs beside the one that is always there; in lower case.
    consumer_groups: BTreeSet<String>,
    /// Of single Event Hubs: hub and group in lower case.
    own_groups: BTreeSet<(String, String)>,
    /// In lower case.
    built_in: Option<String>,
    access: Access,
    takes_keys: bool,
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Namespace {
    /// A namespace with these Event Hubs and their partition counts.
    #[must_use]
    pub fn new(hubs: &[(&str, usize)]) -> Self {
        let hubs = hubs
            .iter()
            .map(|(name, partitions)| (name.to_ascii_lowercase(), Arc::new(EventHub::new(name, *partitions))));
        Self {
            hubs: hubs.collect(),
            consumer_groups: BTreeSet::new(),
            own_groups: BTreeSet::new(),
            built_in: None,
            access: Access::default(),
            takes_keys: true,
        }
    }

    /// Adds the built-in endpoint of an IoT Hub. It is read like an Event Hub, but it is none of this namespace: no role opens it,
    /// and `disableLocalAuth` does not close it.
    #[must_use]
    pub fn with_built_in_endpoint(mut self, name: &str, partitions: usize) -> Self {
        let key = name.to_ascii_lowercase();
        self.hubs.insert(key.clone(), Arc::new(EventHub::new(name, partitions)));
        Self { built_in: Some(key), ..self }
    }

    /// Lets every Event Hub have these consumer groups beside [`DEFAULT_CONSUMER_GROUP`].
    #[must_use]
    pub fn with_consumer_groups<S: AsRef<str>>(mut self, groups: &[S]) -> Self {
        self.consumer_groups.extend(groups.iter().map(|group| group.as_ref().to_ascii_lowercase()));
        self
    }

    /// Lets every partition keep its newest events up to this many bytes, in place of [`RETAINED_BYTES`]; one event at least.
    #[must_use]
    pub fn with_retention(self, bytes: u64) -> Self {
        for hub in self.hubs() {
            hub.retain(bytes);
        }
        self
    }

    /// Lets one Event Hub have a consumer group beside those that all have.
    #[must_use]
    pub fn with_consumer_group_of(mut self, event_hub: &str, group: &str) -> Self {
        self.own_groups.insert((event_hub.to_ascii_lowercase(), group.to_ascii_lowercase()));
        self
    }

    /// Lets identities do what their roles allow and nothing else. Without `keys` shared access signatures open nothing
    /// (`disableLocalAuth`).
    #[must_use]
    pub fn guarded_by(self, access: Access, keys: bool) -> Self {
        Self { access, takes_keys: keys, ..self }
    }

    /// The name of the built-in endpoint.
    #[must_use]
    pub fn built_in_endpoint(&self) -> Option<&str> {
        self.built_in.as_deref()
    }

    /// Whether shared access signatures of the namespace open anything.
    #[must_use]
    pub fn takes_keys(&self) -> bool {
        self.takes_keys
    }

    /// Whether roles count here.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        self.access.is_guarded()
    }

    /// Whether an identity may send to an Event Hub, or listen at it, as this consumer group.
    ///
    /// # Errors
    /// What is missing.
    pub fn permits(&self, principal: &str, claim: Claim, event_hub: &str, group: Option<&str>) -> Result<(), Barred> {
        self.must_be_own(event_hub)?;
        let group = group.map(|group| format!("/consumergroups/{group}")).unwrap_or_default();
        Ok(self.access.allows(principal, &[claim.action()], &format!("eventhubs/{event_hub}{group}"))?)
    }

    /// Whether an identity may ask `$management` about an Event Hub: who may send or listen may
    /// (<https://learn.microsoft.com/azure/event-hubs/authorize-access-azure-active-directory>).
    ///
    /// # Errors
    /// What is missing.
    pub fn permits_reading_of(&self, principal: &str, event_hub: &str) -> Result<(), Barred> {
        self.must_be_own(event_hub)?;
        let either = [Claim::Listen, Claim::Send].map(Claim::action);
        Ok(self.access.allows_either(principal, either, &format!("eventhubs/{event_hub}"))?)
    }

    fn must_be_own(&self, event_hub: &str) -> Result<(), Barred> {
        let is_built_in = self.built_in.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(event_hub));
        if is_built_in { Err(Barred::BuiltInEndpoint) } else { Ok(()) }
    }

    /// Tells the happenings that someone was refused for lack of a role. What finds that out is asked often, and tells nobody itself.
    pub(crate) fn tell(&self, why: Option<&Barred>) {
        if let Some(Barred::Role(denied)) = why {
            self.access.tell(denied);
        }
    }

    /// Whether an Event Hub has this consumer group.
    #[must_use]
    pub fn has_consumer_group(&self, event_hub: &str, group: &str) -> bool {
        let own = (event_hub.to_ascii_lowercase(), group.to_ascii_lowercase());
        group.eq_ignore_ascii_case(DEFAULT_CONSUMER_GROUP)
            || self.consumer_groups.contains(&own.1)
            || self.own_groups.contains(&own)
    }

    /// The Event Hub of this name, in any case.
    #[must_use]
    pub fn hub(&self, name: &str) -> Option<Arc<EventHub>> {
        self.hubs.get(&name.to_ascii_lowercase()).cloned()
    }

    /// All of them.
    pub fn hubs(&self) -> impl Iterator<Item = &Arc<EventHub>> {
        self.hubs.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_hub_is_found_by_its_name_in_any_case_and_keeps_the_case_it_was_given() {
        let namespace = Namespace::new(&[("Dead-Letters", 1)]);
        for name in ["Dead-Letters", "dead-letters", "DEAD-LETTERS"] {
            assert_eq!(namespace.hub(name).expect("it was just made").name(), "Dead-Letters", "{name}");
        }
        assert!(namespace.hub("dead").is_none());
    }

    #[test]
    fn no_identity_is_let_in_at_the_built_in_endpoint_whatever_roles_it_has() {
        let namespace = Namespace::new(&[("h", 1)]).with_built_in_endpoint("Built-In", 2);
        assert_eq!(namespace.hub("built-in").expect("it is there").partition_count(), 2);
        for claim in [Claim::Listen, Claim::Send] {
            assert_eq!(namespace.permits("anyone", claim, "h", None), Ok(()));
            assert_eq!(namespace.permits("anyone", claim, "BUILT-IN", None), Err(Barred::BuiltInEndpoint));
        }
        assert_eq!(namespace.permits_reading_of("anyone", "built-in"), Err(Barred::BuiltInEndpoint));
    }

    #[test]
    fn consumer_groups_are_known_by_name_in_any_case() {
        let namespace = Namespace::new(&[("h", 1), ("i", 1)]).with_consumer_groups(&["Archive"]);
        let namespace = namespace.with_consumer_group_of("I", "Own");
        for (hub, group, known) in [
            ("h", "$default", true),
            ("h", "$Default", true),
            ("h", "archive", true),
            ("h", "other", false),
            ("h", "own", false),
            ("i", "OWN", true),
        ] {
            assert_eq!(namespace.has_consumer_group(hub, group), known, "{hub} {group}");
        }
    }
}
