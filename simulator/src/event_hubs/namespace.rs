//! The Event Hubs and consumer groups of one namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::store::EventHub;
#[cfg(doc)]
use super::store::RETAINED_BYTES;

/// The consumer group that every Event Hub has.
pub const DEFAULT_CONSUMER_GROUP: &str = "$Default";

/// The Event Hubs of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// By their names in lower case: names of entities are case-insensitive.
    hubs: BTreeMap<String, Arc<EventHub>>,
    /// Beside the one that is always there; in lower case.
    consumer_groups: BTreeSet<String>,
}

impl Namespace {
    /// A namespace with these Event Hubs and their partition counts.
    #[must_use]
    pub fn new(hubs: &[(&str, usize)]) -> Self {
        let hubs = hubs
            .iter()
            .map(|(name, partitions)| (name.to_ascii_lowercase(), Arc::new(EventHub::new(name, *partitions))));
        Self { hubs: hubs.collect(), consumer_groups: BTreeSet::new() }
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

    /// Whether the Event Hubs have this consumer group.
    #[must_use]
    pub fn has_consumer_group(&self, group: &str) -> bool {
        group.eq_ignore_ascii_case(DEFAULT_CONSUMER_GROUP) || self.consumer_groups.contains(&group.to_ascii_lowercase())
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
        let namespace = Namespace::new(&[("h", 1)]).with_consumer_groups(&["Archive"]);
        for (group, known) in [("$default", true), ("$Default", true), ("archive", true), ("other", false)] {
            assert_eq!(namespace.has_consumer_group(group), known, "{group}");
        }
    }
}
