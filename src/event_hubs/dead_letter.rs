//! A dead letter as an event.

use azure_messaging_eventhubs::models::AmqpMessage;
use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::DeadLetter;
use super::message::{EventBuilder, cut};

/// Longest reason that is kept: it may quote what somebody else wrote.
const MAX_REASON_BYTES: usize = 1024;
/// Longest value of a property of the original event that is kept.
const MAX_PROPERTY_BYTES: usize = 1024;
/// Most properties of the original event that are kept.
const MAX_PROPERTIES: usize = 64;
/// Where the size is given of a body that is too large.
const OMITTED: &str = "bodyOmittedBytes";
/// Properties of the letter itself, which no property of the original event replaces.
const OWN: [&str; 5] = ["function", "reason", "deviceId", "deadLetteredAt", OMITTED];

impl DeadLetter {
    /// The letter with its body.
    pub(super) fn to_message(&self, now: OffsetDateTime) -> AmqpMessage {
        self.event(&self.body, now).build()
    }

    /// The letter without its body, which is too large.
    pub(super) fn to_message_without_body(&self, now: OffsetDateTime) -> AmqpMessage {
        let bytes = i64::try_from(self.body.len()).unwrap_or(i64::MAX);
        self.event(&Bytes::new(), now).property(OMITTED, bytes).build()
    }

    /// The reason as it is kept.
    pub(super) fn cut_reason(&self) -> String {
        cut(&self.reason, MAX_REASON_BYTES)
    }

    fn event(&self, body: &Bytes, now: OffsetDateTime) -> EventBuilder {
        let mut event = EventBuilder::new(body);
        let given = self.properties.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
        for (name, value) in given.take(MAX_PROPERTIES) {
            event = match value {
                Value::Null => event,
                Value::Bool(bool) => event.property(name, *bool),
                Value::String(text) => event.property(name, cut(text, MAX_PROPERTY_BYTES)),
                Value::Number(number) => match number.as_i64() {
                    Some(number) => event.property(name, number),
                    None => event.property(name, number.to_string()),
                },
                Value::Array(_) | Value::Object(_) => event.property(name, cut(&value.to_string(), MAX_PROPERTY_BYTES)),
            };
        }
        // RFC 3339 cannot say years beyond 9999 only.
        let now = now.format(&Rfc3339).unwrap_or_else(|_| now.unix_timestamp().to_string());
        let event = event
            .property("function", self.function)
            .property("reason", self.cut_reason())
            .property("deadLetteredAt", now);
        match &self.device_id {
            Some(id) => event.partition_key(id).property("deviceId", id.as_str()),
            None => event,
        }
    }
}
