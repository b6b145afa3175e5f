//! The will of a device: a message that the hub sends in its name when the connection dies without DISCONNECT
//! (`MicrosoftDocs/azure-docs articles/iot/iot-mqtt-connect-to-iot-hub.md`).

use bytes::Bytes;
use mqtt_proto::v3::LastWill;

use super::property_bag::Bag;
use super::topic::Topic;

/// A telemetry message in store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Will {
    pub(super) bag: Bag,
    pub(super) body: Bytes,
    pub(super) retain: bool,
}

impl Will {
    /// The will of a CONNECT. `None` if its topic is not where this device sends telemetry.
    pub(super) fn new(will: &LastWill, device_id: &str) -> Option<Self> {
        match Topic::parse(&will.topic_name, device_id)? {
            Topic::Telemetry(bag) => Some(Self { bag, body: will.message.clone(), retain: will.retain }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_proto::QoS;

    use super::*;

    #[test]
    fn a_will_goes_where_the_devices_telemetry_goes() {
        let will = |topic: &str| {
            let topic_name = topic.try_into().expect("it is a topic");
            let will = LastWill { qos: QoS::Level1, retain: false, topic_name, message: "bye".into() };
            Will::new(&will, "d1").map(|will| will.bag)
        };
        assert_eq!(will("devices/d1/messages/events/"), Some(vec![]));
        assert_eq!(will("devices/d1/messages/events/a=b"), Some(vec![("a".into(), Some("b".into()))]));
        for topic in ["devices/d2/messages/events/", "$iothub/twin/GET/?$rid=1", "last/words"] {
            assert_eq!(will(topic), None, "{topic}");
        }
    }
}
