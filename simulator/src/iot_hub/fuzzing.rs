//! The parsers of what comes from outside, for fuzz targets: whatever they are given, they come back.

use bytes::{Bytes, BytesMut};
use mqtt_proto::v3::Packet;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::codec::Decoder as _;

use super::codec::MqttCodec;
use super::query::{PageRequest, Query, run};
use super::routing;
use super::telemetry::{self, CredentialScope, Marks, Sender};
use super::topic::Topic;

/// The MQTT packets that a stream of bytes holds, up to the first that is none. The bytes come in pieces of `piece` bytes.
#[must_use]
pub fn packets(stream: &[u8], piece: usize) -> Vec<Packet> {
    let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
    for piece in stream.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match MqttCodec.decode(&mut buffer) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(_) => return packets,
            }
        }
    }
    packets
}

/// Makes an event of a message with this property bag in its topic. `None` if the hub refuses it, else how many properties
/// of the application it has.
#[must_use]
pub fn property_bag(bag: &str) -> Option<usize> {
    let topic = format!("devices/d1/messages/events/{bag}");
    let Some(Topic::Telemetry(bag)) = Topic::parse(&topic, "d1") else { return None };
    let sender = Sender { device_id: "d1".into(), generation_id: "g1".into(), scope: CredentialScope::Device };
    let event = telemetry::event(bag, Bytes::new(), Marks::default(), &sender, OffsetDateTime::UNIX_EPOCH).ok()?;
    Some(event.properties.len())
}

/// Parses a route condition and evaluates it for a message with this body. `None` if it is no condition.
#[must_use]
pub fn route_condition(condition: &str, body: &[u8]) -> Option<bool> {
    let twin = serde_json::from_slice(body).unwrap_or_default();
    routing::try_condition(condition, body, &twin)
}

/// Parses a query and asks it of one twin. `None` if it is no query, else how many rows there are.
#[must_use]
pub fn query(query: &str, twin: &[u8]) -> Option<usize> {
    let twin: Value = serde_json::from_slice(twin).unwrap_or_default();
    let query = Query::parse(query).ok()?;
    let twins = |after: Option<&str>, _| if after.is_none() { vec![twin.clone()] } else { Vec::new() };
    run(&query, &PageRequest::default(), twins).ok().map(|page| page.rows.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &[u8] = br#"{"deviceId":"d1","tags":{"a":1},"a":[1,{"b":"c"}]}"#;

    /// Texts made of the words of both languages.
    fn words() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            "[a-z0-9'\"()\\[\\],.$ =<>!*/%+|?-]{0,3}",
            proptest::sample::select(vec![
                "SELECT ",
                "* ",
                "FROM devices ",
                "WHERE ",
                "COUNT()",
                "GROUP BY ",
                " AS n",
                "TOP 3 ",
                "NOT ",
                " AND ",
                " OR ",
                " IN [",
                "tags.a",
                "$body.a[1].b",
                "$twin.tags.a",
                "is_defined(",
                "substring('ä', 1, ",
                "power(2, ",
                ") ",
                "1e9",
                " = ",
                " || ",
                " ?? ",
            ])
            .prop_map(str::to_owned),
        ];
        proptest::collection::vec(word, 0..24).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn whatever_is_asked_there_is_an_answer(text in prop_oneof![words(), any::<String>()]) {
            let _ = route_condition(&text, DOCUMENT);
            let _ = query(&text, DOCUMENT);
            let _ = query(&format!("SELECT * FROM devices WHERE {text}"), DOCUMENT);
        }
    }

    #[test]
    fn packets_do_not_depend_on_how_the_bytes_come() {
        let stream = [&[0xc0, 0][..], &[0x32, 7, 0, 1, b'a', 0, 9, b'x', b'y'], &[0xe0, 0]].concat();
        let whole = packets(&stream, stream.len());
        assert_eq!(whole.len(), 3);
        assert_eq!(packets(&stream, 1), whole);
        assert!(packets(&[0xf0, 0], 2).is_empty());
    }

    #[test]
    fn a_bag_becomes_properties_or_is_refused() {
        assert_eq!(property_bag("a=1&b&%24.mid=m"), Some(2));
        assert_eq!((property_bag("%ff"), property_bag("$.mid=a%20b")), (None, None));
    }

    #[test]
    fn what_is_of_the_languages_is_answered() {
        assert_eq!(route_condition("$body.a[1].b = 'c'", DOCUMENT), Some(true));
        assert_eq!(query("SELECT * FROM devices WHERE tags.a = 1", DOCUMENT), Some(1));
        assert_eq!((route_condition("=", DOCUMENT), query("=", DOCUMENT)), (None, None));
    }
}
