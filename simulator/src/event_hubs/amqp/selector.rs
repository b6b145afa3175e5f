//! Where a consumer wants to begin: the selector filter of its source.

use crate::event_hubs::{EventHub, StoredEvent};

/// A place to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the oldest event.
    Oldest,
    /// With the first event that is sent from now on.
    Latest,
    /// Behind this value, or with it.
    At { key: Key, value: i64, inclusive: bool },
}

/// What a value in a selector counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Offset,
    SequenceNumber,
    /// Milliseconds since 1970.
    EnqueuedTime,
}

impl Start {
    /// Parses `amqp.annotation.x-opt-offset > '…'` and its kind; `None` if it is no selector of Event Hubs.
    pub(super) fn parse(selector: &str) -> Option<Self> {
        let rest = selector.trim().strip_prefix("amqp.annotation.x-opt-")?;
        let (key, rest) = rest.split_once('>')?;
        let (inclusive, value) = match rest.strip_prefix('=') {
            Some(value) => (true, value),
            None => (false, rest),
        };
        let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        let key = match key.trim() {
            "offset" if value == "@latest" => return Some(Self::Latest),
            "offset" if value == "-1" => return Some(Self::Oldest),
            "offset" => Key::Offset,
            "sequence-number" => Key::SequenceNumber,
            "enqueued-time" => Key::EnqueuedTime,
            _ => return None,
        };
        Some(Self::At { key, value: value.parse().ok()?, inclusive })
    }

    /// The sequence number of the first event to deliver.
    pub(super) fn sequence_number(self, hub: &EventHub, partition: usize) -> i64 {
        match self {
            Self::Oldest => hub.state(partition).begin,
            Self::Latest => hub.end(partition),
            Self::At { key, value, inclusive } => {
                let wanted = |stored: &StoredEvent| {
                    let found = match key {
                        Key::Offset => stored.offset,
                        Key::SequenceNumber => stored.sequence_number,
                        Key::EnqueuedTime => milliseconds(stored),
                    };
                    found > value || (inclusive && found == value)
                };
                hub.find(partition, wanted)
            }
        }
    }
}

/// When an event arrived, as the annotation `x-opt-enqueued-time` says it.
pub(super) fn milliseconds(stored: &StoredEvent) -> i64 {
    super::message::milliseconds(stored.enqueued_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_hubs::{Event, Namespace};

    #[test]
    fn selectors_of_the_client_libraries_are_understood() {
        let at = |key, value, inclusive| Some(Start::At { key, value, inclusive });
        for (selector, start) in [
            ("amqp.annotation.x-opt-offset > '-1'", Some(Start::Oldest)),
            ("amqp.annotation.x-opt-offset > '@latest'", Some(Start::Latest)),
            ("amqp.annotation.x-opt-offset >= '64'", at(Key::Offset, 64, true)),
            ("amqp.annotation.x-opt-sequence-number > '5'", at(Key::SequenceNumber, 5, false)),
            ("amqp.annotation.x-opt-enqueued-time > '1700000000000'", at(Key::EnqueuedTime, 1_700_000_000_000, false)),
            ("amqp.annotation.x-opt-offset > 5", None),
            ("amqp.annotation.x-opt-partition-key > '5'", None),
            ("", None),
        ] {
            assert_eq!(Start::parse(selector), start, "{selector}");
        }
    }

    #[test]
    fn a_selector_leads_to_the_first_event_behind_it() {
        let namespace = Namespace::new(&[("h", 1)]);
        let hub = namespace.hub("h").expect("it was just made");
        for _ in 0..3 {
            hub.append_to(0, Event::default());
        }
        let from = |selector: &str| Start::parse(selector).map(|start| start.sequence_number(&hub, 0));
        assert_eq!(from("amqp.annotation.x-opt-offset > '-1'"), Some(0));
        assert_eq!(from("amqp.annotation.x-opt-offset > '@latest'"), Some(3));
        assert_eq!(from("amqp.annotation.x-opt-sequence-number > '0'"), Some(1));
        assert_eq!(from("amqp.annotation.x-opt-sequence-number >= '1'"), Some(1));
        let second = hub.read(0, 1, 1)[0].offset;
        assert_eq!(from(&format!("amqp.annotation.x-opt-offset > '{second}'")), Some(2));
        assert_eq!(from("amqp.annotation.x-opt-enqueued-time > '0'"), Some(0));
        assert_eq!(from("amqp.annotation.x-opt-sequence-number > '99'"), Some(3));
    }
}
