//! A device-to-cloud message, from the published packet to the event
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-messages-construct.md`).

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::property_bag::Bag;
use crate::event_hubs::{Event, PropertyValue};

/// Largest message: body, values of system properties, names and values of application properties.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Longest message id, in characters.
const MAX_MESSAGE_ID_CHARS: usize = 128;

/// What proved who the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CredentialScope {
    /// A shared access policy.
    Hub,
    /// The device's own key.
    Device,
}

/// Who sends, as the hub knows it from the connection.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) device_id: String,
    pub(super) generation_id: String,
    pub(super) scope: CredentialScope,
}

impl Sender {
    /// The value of `iothub-connection-auth-method`.
    fn auth_method(&self) -> String {
        let scope = match self.scope {
            CredentialScope::Hub => "hub",
            CredentialScope::Device => "device",
        };
        json!({"scope": scope, "type": "sas", "issuer": "iothub", "acceptingIpFilterRule": null}).to_string()
    }
}

/// Why a message ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the message has {0} bytes, more than {MAX_MESSAGE_BYTES}")]
    TooLarge(usize),
    #[error("the message id is too long or has a character that is not allowed")]
    MessageId,
}

/// What the packet says of a message beside topic and body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Its RETAIN flag, which the hub honours no further.
    pub(super) retain: bool,
    /// Its DUP flag.
    pub(super) duplicate: bool,
    /// Whether it is a will.
    pub(super) will: bool,
}

impl Marks {
    /// The properties that tell (`MicrosoftDocs/azure-docs articles/iot/iot-mqtt-connect-to-iot-hub.md`; `mqtt-dup` is from the
    /// settings of the MQTT gateway in `Azure/iotedge`).
    fn put(self, event: &mut Event) {
        let marks = [
            (self.retain, "mqtt-retain", "true"),
            (self.duplicate, "mqtt-dup", "true"),
            (self.will, "iothub-MessageType", "Will"),
        ];
        for (_, name, value) in marks.into_iter().filter(|(is_set, ..)| *is_set) {
            event.properties.insert(name.to_owned(), value.into());
        }
    }
}

/// Where a property of the bag goes.
enum Place {
    /// AMQP properties section.
    System(&'static str),
    /// Application properties, by a name of the hub's.
    Application(&'static str),
    /// Message annotations.
    Annotation(&'static str),
    /// The hub keeps it to itself: events have no name for it.
    Nowhere,
}

/// The system properties of a bag
/// (`Azure/iotedge edge-hub/core/src/Microsoft.Azure.Devices.Edge.Hub.Core/SystemProperties.cs`).
fn place(key: &str) -> Option<Place> {
    Some(match key {
        "$.mid" => Place::System("message-id"),
        "$.cid" => Place::System("correlation-id"),
        "$.uid" => Place::System("user-id"),
        "$.ct" => Place::System("content-type"),
        "$.ce" => Place::System("content-encoding"),
        "$.to" => Place::System("to"),
        "$.exp" => Place::System("absolute-expiry-time"),
        "$.ctime" => Place::Application("iothub-creation-time-utc"),
        "$.schema" => Place::Application("iothub-message-schema"),
        "$.ifid" => Place::Annotation("iothub-interface-id"),
        "$.sub" => Place::Annotation("dt-subject"),
        "$.on" | "$.cdid" | "$.cmid" | "$.diagid" | "$.diagctx" => Place::Nowhere,
        _ => return None,
    })
}

/// What the limit and the meter count: body, values of system properties, names and values of application properties.
pub(super) fn size(bag: &Bag, body: &[u8]) -> usize {
    let property = |(key, value): &(String, Option<String>)| {
        let value_bytes = value.as_ref().map_or(0, String::len);
        match place(key) {
            Some(Place::Nowhere) => 0,
            Some(_) => value_bytes,
            None => key.len() + value_bytes,
        }
    };
    body.len() + bag.iter().map(property).sum::<usize>()
}

/// Makes the event of a published message.
pub(super) fn event(
    bag: Bag,
    body: Bytes,
    marks: Marks,
    sender: &Sender,
    now: OffsetDateTime,
) -> Result<Event, Refused> {
    let bytes = size(&bag, &body);
    if bytes > MAX_MESSAGE_BYTES {
        return Err(Refused::TooLarge(bytes));
    }
    let mut event = Event { body, partition_key: Some(sender.device_id.clone()), ..Event::default() };
    for (key, value) in bag {
        match place(&key) {
            Some(Place::Nowhere) => {}
            Some(place) => put(&mut event, &place, value.unwrap_or_default())?,
            None => {
                event.properties.insert(key, value.map_or(PropertyValue::Null, PropertyValue::String));
            }
        }
    }
    marks.put(&mut event);
    event.annotations.extend(annotations(sender, now));
    Ok(event)
}

fn put(event: &mut Event, place: &Place, value: String) -> Result<(), Refused> {
    match *place {
        Place::System("message-id") if !is_message_id(&value) => return Err(Refused::MessageId),
        Place::System(name @ "user-id") => {
            event.system.insert(name.to_owned(), PropertyValue::Binary(value.into_bytes()));
        }
        Place::System(name @ "absolute-expiry-time") => {
            // A time that cannot be read says nothing; telemetry does not expire anyway.
            if let Ok(at) = OffsetDateTime::parse(&value, &Rfc3339) {
                event.system.insert(name.to_owned(), PropertyValue::Timestamp(at));
            }
        }
        Place::System(name) => {
            event.system.insert(name.to_owned(), value.into());
        }
        Place::Application(name) => {
            event.properties.insert(name.to_owned(), value.into());
        }
        Place::Annotation(name) => {
            event.annotations.insert(name.to_owned(), value.into());
        }
        Place::Nowhere => {}
    }
    Ok(())
}

/// What the hub adds, and no device can forge.
fn annotations(sender: &Sender, now: OffsetDateTime) -> BTreeMap<String, PropertyValue> {
    [
        ("iothub-connection-device-id", sender.device_id.clone().into()),
        ("iothub-connection-auth-method", sender.auth_method().into()),
        ("iothub-connection-auth-generation-id", sender.generation_id.clone().into()),
        ("iothub-enqueuedtime", PropertyValue::Timestamp(now)),
        ("iothub-message-source", "Telemetry".into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Whether the hub takes this message id: up to 128 of the characters that it allows.
pub(super) fn is_message_id(id: &str) -> bool {
    id.len() <= MAX_MESSAGE_ID_CHARS
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-:.+%_#*?!(),=@;$'".contains(&b))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 09:00 UTC);

    fn sender(scope: CredentialScope) -> Sender {
        Sender { device_id: "d1".into(), generation_id: "g1".into(), scope }
    }

    fn bag(pairs: &[(&str, &str)]) -> Bag {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect()
    }

    fn made(pairs: &[(&str, &str)], body: &[u8]) -> Result<Event, Refused> {
        event(bag(pairs), Bytes::copy_from_slice(body), Marks::default(), &sender(CredentialScope::Hub), NOW)
    }

    #[test]
    fn every_property_goes_to_its_place() {
        let pairs =
            [("$.mid", "m1"), ("$.cid", "c1"), ("$.uid", "u1"), ("$.ct", "application/json"), ("$.ce", "utf-8")];
        let more = [("$.ctime", "2026-03-01T08:00:00Z"), ("$.sub", "part"), ("fPort", "5"), ("$.odd", "x")];
        let event = made(&[&pairs[..], &more[..]].concat(), b"{}").expect("it is fine");
        let system: BTreeMap<String, PropertyValue> = [
            ("message-id", "m1".into()),
            ("correlation-id", "c1".into()),
            ("user-id", PropertyValue::Binary(b"u1".to_vec())),
            ("content-type", "application/json".into()),
            ("content-encoding", "utf-8".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        assert_eq!(event.system, system);
        let properties: BTreeMap<String, PropertyValue> =
            [("iothub-creation-time-utc", "2026-03-01T08:00:00Z"), ("fPort", "5"), ("$.odd", "x")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into();
        assert_eq!(event.properties, properties);
        assert_eq!(event.annotations["dt-subject"], "part".into());
        assert_eq!(event.partition_key.as_deref(), Some("d1"));
    }

    #[test]
    fn what_has_no_name_in_events_goes_nowhere_and_weighs_nothing() {
        let body = vec![b'x'; MAX_MESSAGE_BYTES];
        let pairs = [("$.on", "out"), ("$.cdid", "d2"), ("$.cmid", "m"), ("$.diagid", "1"), ("$.diagctx", "c")];
        let event = made(&pairs, &body).expect("it is fine");
        assert!(event.properties.is_empty() && event.system.is_empty());
        assert_eq!(event.annotations["iothub-connection-device-id"], "d1".into());
    }

    #[test]
    fn flags_become_properties() {
        let marks = Marks { retain: true, duplicate: true, will: true };
        let event = event(vec![], Bytes::new(), marks, &sender(CredentialScope::Hub), NOW).expect("it is fine");
        let expected = [("iothub-MessageType", "Will"), ("mqtt-dup", "true"), ("mqtt-retain", "true")];
        let expected = expected.map(|(name, value)| (name.to_owned(), PropertyValue::from(value)));
        assert_eq!(event.properties, expected.into());
    }

    #[test]
    fn the_hubs_own_annotations_cannot_be_forged() {
        let event = made(&[("iothub-message-source", "twinChangeEvents")], b"").expect("it is fine");
        assert_eq!(event.annotations["iothub-message-source"], "Telemetry".into());
        assert_eq!(event.annotations["iothub-connection-device-id"], "d1".into());
        assert_eq!(event.annotations["iothub-connection-auth-generation-id"], "g1".into());
        assert_eq!(event.annotations["iothub-enqueuedtime"], PropertyValue::Timestamp(NOW));
    }

    #[test]
    fn the_auth_method_tells_policies_from_device_keys() {
        let hub = r#"{"acceptingIpFilterRule":null,"issuer":"iothub","scope":"hub","type":"sas"}"#;
        assert_eq!(sender(CredentialScope::Hub).auth_method(), hub);
        assert_eq!(sender(CredentialScope::Device).auth_method(), hub.replace("\"hub\",", "\"device\","));
    }

    #[test]
    fn the_limit_counts_body_values_and_application_names() {
        let body = vec![b'x'; MAX_MESSAGE_BYTES - 6];
        assert!(made(&[("$.mid", "abc"), ("k", "v1")], &body).is_ok());
        let too_large = Refused::TooLarge(MAX_MESSAGE_BYTES + 1);
        assert_eq!(made(&[("$.mid", "abcd"), ("k", "v1")], &body).err(), Some(too_large));
    }

    #[test]
    fn a_message_id_is_checked() {
        assert!(made(&[("$.mid", "dev.up-1:2+3#;$'")], b"").is_ok());
        for id in ["a b", "ä", &"x".repeat(129)] {
            assert_eq!(made(&[("$.mid", id)], b"").err(), Some(Refused::MessageId), "{id}");
        }
    }
}
