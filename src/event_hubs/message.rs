//! Builds the AMQP message of an event.

use azure_core_amqp::AmqpSymbol;
use azure_core_amqp::builder::AmqpMessageBuilder;
use azure_core_amqp::message::{AmqpAnnotations, AmqpMessageProperties};
use azure_messaging_eventhubs::models::{AmqpMessage, AmqpSimpleValue};
use bytes::Bytes;

/// The annotation by which Event Hubs chooses the partition.
const PARTITION_KEY: &str = "x-opt-partition-key";
/// Longest partition key that Event Hubs takes
/// (<https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>).
const MAX_PARTITION_KEY_BYTES: usize = 128;

/// An event being built: JSON, as everything that the bridge sends.
pub(super) struct EventBuilder(AmqpMessageBuilder);

impl EventBuilder {
    pub(super) fn new(body: &Bytes) -> Self {
        let json = AmqpMessageProperties { content_type: Some("application/json".into()), ..Default::default() };
        Self(AmqpMessage::builder().with_properties(json).add_message_body_binary(body.to_vec()))
    }

    pub(super) fn partition_key(self, key: &str) -> Self {
        let mut annotations = AmqpAnnotations::new();
        annotations.insert(AmqpSymbol::from(PARTITION_KEY), cut(key, MAX_PARTITION_KEY_BYTES));
        Self(self.0.with_message_annotations(annotations))
    }

    pub(super) fn property(self, name: &str, value: impl Into<AmqpSimpleValue>) -> Self {
        Self(self.0.add_application_property(name.to_owned(), value))
    }

    pub(super) fn optional(self, name: &str, value: Option<String>) -> Self {
        match value {
            Some(value) => self.property(name, value),
            None => self,
        }
    }

    pub(super) fn build(self) -> AmqpMessage {
        self.0.build()
    }
}

/// The size of an event as Event Hubs counts it; 0 if it cannot be encoded, which sending it will tell.
pub(super) fn encoded_bytes(message: &AmqpMessage) -> usize {
    AmqpMessage::serialize(message).map_or(0, |encoded| encoded.len())
}

/// The beginning of a text, at most so many bytes of it.
pub(super) fn cut(text: &str, max_bytes: usize) -> String {
    text[..text.floor_char_boundary(max_bytes)].to_owned()
}
