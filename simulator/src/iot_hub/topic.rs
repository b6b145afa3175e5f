//! The topics that a device may publish to
//! (`MicrosoftDocs/azure-docs articles/iot/iot-mqtt-connect-to-iot-hub.md`).

use super::property_bag::{self, Bag};

/// Where the answers to twin requests are asked for.
pub(super) const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
/// Where changes of desired properties are asked for.
pub(super) const DESIRED_CHANGES: &str = "$iothub/twin/PATCH/properties/desired/#";

/// What a published topic asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Topic<'a> {
    /// A device-to-cloud message with these properties.
    Telemetry(Bag),
    /// Read the twin.
    ReadTwin { rid: &'a str },
    /// Merge into the reported properties. Without a request id nobody can be answered.
    PatchTwin { rid: Option<&'a str>, if_version: Option<&'a str> },
    /// The answer to a method call.
    MethodAnswer { status: i32, rid: &'a str },
}

impl<'a> Topic<'a> {
    /// Parses what this device published to. `None`: the hub closes the connection.
    pub(super) fn parse(topic: &'a str, device_id: &str) -> Option<Self> {
        if let Some(query) = topic.strip_prefix("$iothub/twin/GET/") {
            return Some(Self::ReadTwin { rid: parameter(query, "$rid")? });
        }
        if let Some(query) = topic.strip_prefix("$iothub/twin/PATCH/properties/reported/") {
            return Some(Self::PatchTwin { rid: parameter(query, "$rid"), if_version: parameter(query, "$version") });
        }
        if let Some(answer) = topic.strip_prefix("$iothub/methods/res/") {
            let (status, query) = answer.split_once('/')?;
            return Some(Self::MethodAnswer { status: status.parse().ok()?, rid: parameter(query, "$rid")? });
        }
        let rest = topic.strip_prefix("devices/")?.strip_prefix(device_id)?.strip_prefix("/messages/events")?;
        let bag = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
        property_bag::parse(bag).map(Self::Telemetry)
    }
}

/// A parameter as it was sent: a request id goes back byte for byte.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.strip_prefix('?')?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The topic of an answer to a twin request.
pub(super) fn twin_answer(status: u16, rid: &str, version: Option<u64>) -> String {
    let version = version.map(|version| format!("&$version={version}")).unwrap_or_default();
    format!("$iothub/twin/res/{status}/?$rid={rid}{version}")
}

/// The filter that asks for cloud-to-device messages.
pub(super) fn messages_filter(device_id: &str) -> String {
    format!("devices/{device_id}/messages/devicebound/#")
}

/// The topic of a change of desired properties.
pub(super) fn desired_change(version: u64) -> String {
    format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_a_device_are_understood() {
        let patch = |rid, if_version| Some(Topic::PatchTwin { rid, if_version });
        for (topic, expected) in [
            ("devices/d1/messages/events", Some(Topic::Telemetry(vec![]))),
            ("devices/d1/messages/events/", Some(Topic::Telemetry(vec![]))),
            ("devices/d1/messages/events/a=b/", Some(Topic::Telemetry(vec![("a".into(), Some("b".into()))]))),
            ("$iothub/twin/GET/?$rid=4%20f", Some(Topic::ReadTwin { rid: "4%20f" })),
            ("$iothub/twin/PATCH/properties/reported/?$rid=7", patch(Some("7"), None)),
            ("$iothub/twin/PATCH/properties/reported/?$rid=7&$version=3", patch(Some("7"), Some("3"))),
            ("$iothub/twin/PATCH/properties/reported/", patch(None, None)),
            ("$iothub/methods/res/-1/?$rid=2a", Some(Topic::MethodAnswer { status: -1, rid: "2a" })),
        ] {
            assert_eq!(Topic::parse(topic, "d1"), expected, "{topic}");
        }
    }

    #[test]
    fn any_other_topic_is_refused() {
        for topic in [
            "",
            "devices/d2/messages/events/",
            "devices/d12/messages/events/",
            "devices/d1/messages/eventsx",
            "devices/d1/messages/events/a=%ff",
            "$iothub/twin/GET/",
            "$iothub/twin/PATCH/properties/desired/?$rid=1",
            "$iothub/methods/res/200/",
            "$iothub/methods/res/ok/?$rid=1",
            "$iothub/methods/POST/m/?$rid=1",
            "tele/d1",
        ] {
            assert_eq!(Topic::parse(topic, "d1"), None, "{topic}");
        }
    }
}
