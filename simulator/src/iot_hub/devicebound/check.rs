//! Which messages the hub takes.

use super::CloudMessage;
use super::address::topic;
use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::telemetry::is_message_id;

/// Largest message: body, values of system properties, names and values of application properties
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-quotas-throttling.md`).
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Longest topic of MQTT.
pub(in crate::iot_hub) const MAX_TOPIC_BYTES: usize = 65_535;

/// Refuses a message that is too large or cannot be delivered, and gives one without an id its id. Returns its size as it came,
/// in bytes.
pub(in crate::iot_hub) fn accept(device_id: &str, message: &mut CloudMessage) -> Result<usize, HubError> {
    let bytes = size(message);
    if bytes > MAX_MESSAGE_BYTES {
        let text = format!("the message has {bytes} bytes, more than {MAX_MESSAGE_BYTES}");
        return Err(HubError::new(Code::MessageTooLarge, text));
    }
    if message.message_id.as_deref().is_some_and(|id| !is_message_id(id)) {
        return Err(HubError::new(Code::ArgumentInvalid, "the message id is too long or has a forbidden character"));
    }
    if message.properties.iter().any(|(name, _)| name.is_empty()) {
        return Err(HubError::new(Code::ArgumentInvalid, "a property has no name"));
    }
    // Before its topic is looked at: the id is part of it.
    message.message_id.get_or_insert_with(|| uuid::Uuid::new_v4().to_string());
    if topic(device_id, message).len() > MAX_TOPIC_BYTES {
        return Err(HubError::new(Code::MessageTooLarge, "the properties do not fit a topic of MQTT"));
    }
    Ok(bytes)
}

fn size(message: &CloudMessage) -> usize {
    let CloudMessage { message_id, correlation_id, user_id, content_type, content_encoding, properties, body, .. } =
        message;
    let system = [message_id, correlation_id, user_id, content_type, content_encoding];
    let system: usize = system.into_iter().flatten().map(String::len).sum();
    let properties = properties.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len));
    body.len() + system + properties.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(message: &CloudMessage) -> Option<Code> {
        accept("d1", &mut message.clone()).err().map(|error| error.code)
    }

    #[test]
    fn the_limit_counts_body_values_and_application_names() {
        let of = |length| CloudMessage {
            message_id: Some("m1".into()),
            properties: vec![("k".into(), Some("v".into())), ("n".into(), None)],
            body: vec![0; length].into(),
            ..CloudMessage::default()
        };
        assert_eq!(code(&of(MAX_MESSAGE_BYTES - 5)), None);
        assert_eq!(code(&of(MAX_MESSAGE_BYTES - 4)), Some(Code::MessageTooLarge));
    }

    #[test]
    fn a_message_without_an_id_gets_one_that_does_not_count() {
        let mut message = CloudMessage { body: vec![0; MAX_MESSAGE_BYTES].into(), ..CloudMessage::default() };
        assert_eq!(accept("d1", &mut message), Ok(MAX_MESSAGE_BYTES));
        assert!(message.message_id.is_some_and(|id| is_message_id(&id)));
    }

    #[test]
    fn what_cannot_be_delivered_is_refused() {
        let properties = vec![("k".to_owned(), Some("ä".repeat(12_000)))];
        let wide = CloudMessage { properties, ..CloudMessage::default() };
        assert_eq!(code(&wide), Some(Code::MessageTooLarge), "percent-encoded it is longer than a topic may be");
        let unnamed = CloudMessage { properties: vec![(String::new(), None)], ..CloudMessage::default() };
        assert_eq!(code(&unnamed), Some(Code::ArgumentInvalid));
        let odd_id = CloudMessage { message_id: Some("a b".into()), ..CloudMessage::default() };
        assert_eq!(code(&odd_id), Some(Code::ArgumentInvalid));
    }
}
