//! The topic of a delivery.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Ack, CloudMessage};
use crate::iot_hub::twin::timestamp;

/// What stays as it is in a bag; `$` becomes `%24`, as Microsoft's SDKs write it too.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The topic of a message: system properties, then application properties; `k` alone is null, `k=` is empty
/// (`MicrosoftDocs/azure-docs articles/iot/iot-mqtt-connect-to-iot-hub.md`).
pub(in crate::iot_hub) fn topic(device_id: &str, message: &CloudMessage) -> String {
    let address = format!("devices/{device_id}/messages/devicebound/");
    let CloudMessage { message_id, correlation_id, user_id, content_type, content_encoding, .. } = message;
    let system = [
        ("$.mid", message_id.clone()),
        ("$.to", Some(format!("/devices/{device_id}/messages/devicebound"))),
        ("$.cid", correlation_id.clone()),
        ("$.uid", user_id.clone()),
        ("$.exp", message.expires_at.map(timestamp)),
        ("$.ct", content_type.clone()),
        ("$.ce", content_encoding.clone()),
        ("iothub-ack", (message.ack != Ack::None).then(|| message.ack.name().to_owned())),
    ];
    let system = system.into_iter().filter_map(|(name, value)| Some(pair(name, Some(&value?))));
    let properties = message.properties.iter().map(|(name, value)| pair(name, value.as_deref()));
    let bag: Vec<_> = system.chain(properties).collect();
    address + &bag.join("&")
}

fn pair(name: &str, value: Option<&str>) -> String {
    let name = utf8_percent_encode(name, KEPT);
    match value {
        Some(value) => format!("{name}={}", utf8_percent_encode(value, KEPT)),
        None => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::iot_hub::property_bag;

    #[test]
    fn every_property_is_in_the_topic() {
        let message = CloudMessage {
            message_id: Some("m 1".into()),
            correlation_id: Some("c/1".into()),
            user_id: Some("me".into()),
            content_type: Some("text/plain".into()),
            content_encoding: Some("utf-8".into()),
            expires_at: Some(datetime!(2026-03-01 09:00:00.5 UTC)),
            ack: Ack::Full,
            properties: vec![
                ("k y".into(), Some("v&=".into())),
                ("empty".into(), Some(String::new())),
                ("null".into(), None),
            ],
            body: "x".into(),
        };
        let expected = "devices/d1/messages/devicebound/%24.mid=m%201&%24.to=%2Fdevices%2Fd1%2Fmessages%2Fdevicebound\
                        &%24.cid=c%2F1&%24.uid=me&%24.exp=2026-03-01T09%3A00%3A00.5Z&%24.ct=text%2Fplain&%24.ce=utf-8\
                        &iothub-ack=full&k%20y=v%26%3D&empty=&null";
        assert_eq!(topic("d1", &message), expected);
    }

    #[test]
    fn an_absent_property_is_not_in_the_topic_and_the_bag_can_be_read_again() {
        let properties = vec![("+/#".to_owned(), Some("ä\0".to_owned()))];
        let topic = topic("d1", &CloudMessage { properties: properties.clone(), ..CloudMessage::default() });
        let bag = topic.strip_prefix("devices/d1/messages/devicebound/").and_then(property_bag::parse);
        let to = ("$.to".to_owned(), Some("/devices/d1/messages/devicebound".to_owned()));
        assert_eq!(bag, Some([vec![to], properties].concat()));
    }
}
