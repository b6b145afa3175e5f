//! What a link address names.

use crate::amqp::path;

/// A part of an Event Hub: the hub itself, one partition of it, or a partition as a consumer group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entity {
    pub(super) hub: String,
    pub(super) group: Option<String>,
    pub(super) partition: Option<String>,
}

/// What a link may be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// The management node.
    Management,
    /// A part of an Event Hub.
    Entity(Entity),
}

impl Address {
    /// The node of an address; `None` if no node looks like that.
    pub(super) fn parse(address: &str) -> Option<Self> {
        let segments: Vec<&str> = path(address).split('/').collect();
        let entity = |hub: &str, group: Option<&str>, partition: Option<&str>| {
            let (group, partition) = (group.map(str::to_owned), partition.map(str::to_owned));
            (!hub.is_empty()).then(|| Self::Entity(Entity { hub: hub.to_owned(), group, partition }))
        };
        match segments.as_slice() {
            [node] | [_, node] if node.eq_ignore_ascii_case("$management") => Some(Self::Management),
            [hub] => entity(hub, None, None),
            [hub, word, id] if word.eq_ignore_ascii_case("partitions") => entity(hub, None, Some(id)),
            [hub, groups, group, word, id]
                if groups.eq_ignore_ascii_case("consumergroups") && word.eq_ignore_ascii_case("partitions") =>
            {
                entity(hub, Some(group), Some(id))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_node_with_or_without_scheme_and_host() {
        let entity = |group: Option<&str>, partition: Option<&str>| {
            let (group, partition) = (group.map(str::to_owned), partition.map(str::to_owned));
            Some(Address::Entity(Entity { hub: "h".into(), group, partition }))
        };
        for (address, node) in [
            ("$management", Some(Address::Management)),
            ("amqps://127.0.0.1:5672/h/$management", Some(Address::Management)),
            ("h", entity(None, None)),
            ("sb://host:1/h", entity(None, None)),
            ("amqps://host/h/Partitions/3", entity(None, Some("3"))),
            ("/h/ConsumerGroups/$Default/Partitions/3/", entity(Some("$Default"), Some("3"))),
            ("", None),
            ("amqps://host", None),
            ("h/ConsumerGroups/g", None),
            ("a/b/c/d", None),
        ] {
            assert_eq!(Address::parse(address), node, "{address}");
        }
    }
}
