//! The topics of a device session (`MicrosoftDocs/azure-docs articles/iot/iot-mqtt-connect-to-iot-hub.md`).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{MAX_MESSAGE_BYTES, Telemetry, TwinCall};

/// Everything but RFC 3986's unreserved characters is escaped, as Microsoft's SDKs do.
pub(super) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Longest topic of MQTT: its length is two bytes.
const MAX_TOPIC_BYTES: usize = u16::MAX as usize;

/// Where the answers to twin requests arrive.
pub(super) const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
const TWIN_ANSWER: &str = "$iothub/twin/res/";

/// Content type and encoding that let routes query the body (`…/iot-hub-devguide-routing-query-syntax.md`).
const CONTENT_TYPE: &str = "application/json";
const CONTENT_ENCODING: &str = "utf-8";

/// An application property with a meaning: the device's own time (`…/iot-hub-devguide-messages-construct.md`).
const CREATION_TIME: &str = "iothub-creation-time-utc";

impl Telemetry {
    /// The size as the hub counts it: body, values of system properties, names and values of application properties.
    #[must_use]
    pub fn size(&self) -> usize {
        let system = self.message_id.len() + CONTENT_TYPE.len() + CONTENT_ENCODING.len();
        self.body.len()
            + system
            + self.application_properties().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    /// Whether the hub takes a message of this size.
    pub(super) fn fits(&self, identity: &str) -> bool {
        self.size() <= MAX_MESSAGE_BYTES && telemetry_topic(identity, self).len() <= MAX_TOPIC_BYTES
    }

    fn application_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let time = self.creation_time.as_deref().map(|time| (CREATION_TIME, time));
        time.into_iter().chain(self.properties.iter().map(|(name, value)| (*name, value.as_str())))
    }
}

/// `devices/{identity}/messages/events/{property bag}`.
pub(super) fn telemetry_topic(identity: &str, message: &Telemetry) -> String {
    let system = [("$.mid", message.message_id.as_str()), ("$.ct", CONTENT_TYPE), ("$.ce", CONTENT_ENCODING)];
    let mut topic = format!("devices/{identity}/messages/events/");
    for (i, (name, value)) in system.into_iter().chain(message.application_properties()).enumerate() {
        if i > 0 {
            topic.push('&');
        }
        topic.extend(utf8_percent_encode(name, ESCAPED));
        topic.push('=');
        topic.extend(utf8_percent_encode(value, ESCAPED));
    }
    topic
}

/// The topic of a twin request; `rid` comes back in the answer.
pub(super) fn twin_topic(call: &TwinCall, rid: u32) -> String {
    match call {
        TwinCall::Read => format!("$iothub/twin/GET/?$rid={rid:x}"),
        TwinCall::Patch { if_version: None, .. } => format!("$iothub/twin/PATCH/properties/reported/?$rid={rid:x}"),
        TwinCall::Patch { if_version: Some(version), .. } => {
            format!("$iothub/twin/PATCH/properties/reported/?$rid={rid:x}&$version={version}")
        }
    }
}

/// What the topic of a twin's answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TwinStatus {
    pub(super) status: u16,
    pub(super) rid: u32,
    pub(super) version: Option<u64>,
}

/// Whether the topic is that of a twin's answer, readable or not.
pub(super) fn is_twin_answer(topic: &str) -> bool {
    topic.starts_with(TWIN_ANSWER)
}

/// Reads `$iothub/twin/res/{status}/?$rid={rid}[&$version={version}]`.
pub(super) fn twin_status(topic: &str) -> Option<TwinStatus> {
    let (status, query) = topic.strip_prefix(TWIN_ANSWER)?.split_once('/')?;
    let query = query.strip_prefix('?').unwrap_or(query);
    let field = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    let status = status.parse().ok()?;
    let rid = u32::from_str_radix(field("$rid")?.1, 16).ok()?;
    Some(TwinStatus { status, rid, version: field("$version").and_then(|(_, text)| text.parse().ok()) })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;

    const DEVICE: &str = "eui-1";

    fn telemetry() -> Telemetry {
        Telemetry {
            body: Bytes::from_static(b"{}"),
            message_id: "m 1".to_owned(),
            creation_time: Some("2026-03-01T08:00:00Z".to_owned()),
            properties: vec![("kind", "v&=/+#\u{fc}".to_owned())],
        }
    }

    #[test]
    fn the_property_bag_is_escaped_as_microsofts_sdks_do() {
        assert_eq!(
            telemetry_topic(DEVICE, &telemetry()),
            "devices/eui-1/messages/events/%24.mid=m%201&%24.ct=application%2Fjson&%24.ce=utf-8\
             &iothub-creation-time-utc=2026-03-01T08%3A00%3A00Z&kind=v%26%3D%2F%2B%23%C3%BC"
        );
    }

    #[test]
    fn a_message_is_measured_as_the_hub_does() {
        let names_and_values = "iothub-creation-time-utc".len() + 20 + "kind".len() + 8;
        assert_eq!(telemetry().size(), 2 + 3 + "application/json".len() + "utf-8".len() + names_and_values);
        let mut message = telemetry();
        message.body = Bytes::from(vec![b' '; MAX_MESSAGE_BYTES - (telemetry().size() - 2)]);
        assert_eq!(message.size(), MAX_MESSAGE_BYTES);
        assert!(message.fits(DEVICE));
        message.properties.push(("a", String::new()));
        assert!(!message.fits(DEVICE));
    }

    #[test]
    fn a_topic_too_long_for_mqtt_does_not_fit() {
        let mut message = telemetry();
        message.properties.push(("a", " ".repeat(MAX_TOPIC_BYTES / 3)));
        assert!(!message.fits(DEVICE));
    }

    #[test]
    fn twin_requests_have_their_topics() {
        let patch = |if_version| TwinCall::Patch { reported: Map::new(), if_version };
        assert_eq!(twin_topic(&TwinCall::Read, 10), "$iothub/twin/GET/?$rid=a");
        assert_eq!(twin_topic(&patch(None), 1), "$iothub/twin/PATCH/properties/reported/?$rid=1");
        assert_eq!(twin_topic(&patch(Some(7)), 1), "$iothub/twin/PATCH/properties/reported/?$rid=1&$version=7");
    }

    #[test]
    fn the_topic_of_an_answer_is_read() {
        let read = |status, rid, version| Some(TwinStatus { status, rid, version });
        assert_eq!(twin_status("$iothub/twin/res/204/?$rid=a&$version=12"), read(204, 10, Some(12)));
        assert_eq!(twin_status("$iothub/twin/res/200/?$rid=1"), read(200, 1, None));
        assert_eq!(twin_status("$iothub/twin/res/429/?$version=x&$rid=ff"), read(429, 255, None));
        for bad in [
            "",
            "$iothub/twin/res/",
            "$iothub/twin/res/200",
            "$iothub/twin/res/x/?$rid=1",
            "$iothub/twin/res/200/?rid=1",
        ] {
            assert_eq!(twin_status(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_topic_panics(topic in "(\\$iothub/twin/res/)?.{0,64}") {
            let _ = twin_status(&topic);
        }

        #[test]
        fn a_property_bag_never_breaks_out(value in ".{0,40}") {
            let mut message = telemetry();
            message.properties = vec![("k", value.clone())];
            let topic = telemetry_topic(DEVICE, &message);
            let bag = topic.strip_prefix("devices/eui-1/messages/events/").expect("prefix");
            let pairs: Vec<_> = url::form_urlencoded::parse(bag.as_bytes()).collect();
            prop_assert_eq!(pairs.len(), 5);
            prop_assert_eq!(pairs[4].1.as_ref(), value.as_str());
            prop_assert!(!bag.contains(['+', '#', '/', ' ']));
        }
    }
}
