//! The compact form of a message: one gateway in place of all that heard it.

use bytes::Bytes;
use serde_json::Value;

use crate::stack::ApplicationUp;

const GATEWAYS: &str = "rx_metadata";

/// The message without the metadata of all gateways but the best; `None` if no more than one heard it.
pub(super) fn compact(up: &ApplicationUp) -> Option<Bytes> {
    let kind = up.kind?.key();
    let best = best_gateway(up.content()?.get(GATEWAYS)?.as_array().filter(|gateways| gateways.len() > 1)?)?;
    let mut message = up.message.clone();
    *message.get_mut(kind)?.get_mut(GATEWAYS)? = Value::Array(vec![best.clone()]);
    serde_json::to_vec(&message).ok().map(Bytes::from)
}

/// The one with the highest signal-to-noise ratio, then the highest signal strength; the first of equals.
///
/// An absent ratio is 0 dB. An absent strength is unknown, for nothing is received at 0 dBm: such an entry
/// (some come by way of Packet Broker) is the best only among its like.
fn best_gateway(gateways: &[Value]) -> Option<&Value> {
    let number = |gateway: &Value, key: &str| gateway.get(key).and_then(Value::as_f64).unwrap_or_default();
    let rank = |gateway: &Value| {
        let (snr, rssi) = (number(gateway, "snr"), number(gateway, "rssi"));
        (rssi < 0.0, snr, rssi)
    };
    gateways.iter().reduce(|best, next| if rank(next) > rank(best) { next } else { best })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn up(gateways: &Value, key: &str) -> ApplicationUp {
        let body = json!({
            "end_device_ids": {"device_id": "probe-0017"},
            key: {"f_cnt": 7, "decoded_payload": {"rx_metadata": [1, 2]}, "rx_metadata": gateways},
        });
        ApplicationUp::parse(body.to_string().into(), None).expect("a message")
    }

    #[test]
    fn the_best_gateway_is_the_one_that_heard_best() {
        let gateway = |id: &str, snr: Option<f64>, rssi: Option<i64>| json!({"id": id, "snr": snr, "rssi": rssi});
        for (gateways, best) in [
            (vec![gateway("a", Some(7.25), Some(-97)), gateway("b", Some(-6.5), Some(-60))], "a"),
            (vec![gateway("a", Some(5.0), Some(-97)), gateway("b", Some(5.0), Some(-96))], "b"),
            (vec![gateway("a", Some(5.0), Some(-97)), gateway("b", Some(5.0), Some(-97))], "a"),
            (vec![gateway("a", Some(-3.0), Some(-97)), gateway("b", None, Some(-99))], "b"),
            (vec![gateway("a", None, None), gateway("b", Some(-20.0), Some(-120))], "b"),
            (vec![gateway("a", None, None), gateway("b", None, None)], "a"),
        ] {
            assert_eq!(best_gateway(&gateways).map(|gateway| &gateway["id"]), Some(&json!(best)), "{gateways:?}");
        }
    }

    #[test]
    fn a_message_that_one_gateway_heard_has_no_other_form() {
        for gateways in [json!([]), json!([{"snr": 1}]), json!(null), json!("odd"), json!({"snr": 1})] {
            assert_eq!(compact(&up(&gateways, "uplink_message")), None, "{gateways}");
        }
    }

    proptest! {
        #[test]
        fn the_compact_form_keeps_everything_but_gateways(
            heard in prop::collection::vec((any::<i16>(), -150..=10_i64), 2..6),
            key in prop::sample::select(vec!["uplink_message", "uplink_normalized"]),
        ) {
            let gateways: Vec<_> = heard.iter().map(|(snr, rssi)| json!({"snr": snr, "rssi": rssi})).collect();
            let up = up(&json!(gateways), key);
            let compact = compact(&up).expect("several gateways");
            let mut written: Value = serde_json::from_slice(&compact).expect("JSON");
            let kept = written[key][GATEWAYS].take();
            prop_assert!(kept.as_array().is_some_and(|kept| kept.len() == 1 && gateways.contains(&kept[0])));
            written[key][GATEWAYS] = json!(gateways);
            prop_assert_eq!(written, Value::Object(up.message));
        }
    }
}
