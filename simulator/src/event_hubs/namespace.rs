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

/// The Event Hubs of one namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// By their names in lower case: names of entities are case-insensitive.
    hubs: BTreeMap<String, Arc<EventHub>>,
    /// Of all Event Hubs beside the one that is always there; in lower case.
    consumer_groups: BTreeSet<String>,
    /// Of single Event Hubs: hub and group in lower case.
    own_groups: BTreeSet<(String, String)>,
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
            access: Access::default(),
            takes_keys: true,
        }
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

    /// Whether shared access signatures open anything.
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
    pub fn permits(&self, principal: &str, claim: Claim, event_hub: &str, group: Option<&str>) -> Result<(), Denied> {
        let group = group.map(|group| format!("/consumergroups/{group}")).unwrap_or_default();
        self.access.check(principal, &[claim.action()], &format!("eventhubs/{event_hub}{group}"))
    }

    /// Whether an identity may ask `$management` about an Event Hub: who may send or listen may
    /// (<https://learn.microsoft.com/azure/event-hubs/authorize-access-azure-active-directory>).
    ///
    /// # Errors
    /// What is missing.
    pub fn permits_reading_of(&self, principal: &str, event_hub: &str) -> Result<(), Denied> {
        let either = [Claim::Listen, Claim::Send].map(Claim::action);
        self.access.check_either(principal, either, &format!("eventhubs/{event_hub}"))
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
