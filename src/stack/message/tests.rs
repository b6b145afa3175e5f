use proptest::prelude::*;
use serde_json::json;
use time::macros::datetime;

use super::*;

fn parse(body: &Value) -> ApplicationUp {
    parse_at(body, None).expect("a well-formed message")
}

fn parse_at(body: &Value, device_in_url: Option<&str>) -> Result<ApplicationUp, MalformedMessage> {
    ApplicationUp::parse(body.to_string().into(), device_in_url)
}

fn ids() -> Value {
    json!({
        "device_id": "probe-0017",
        "application_ids": {"application_id": "cold-store"},
        "dev_eui": "A1B2C3D4E5F60718",
        "join_eui": "0000000000000000",
    })
}

#[test]
fn the_ids_of_a_message_are_parsed() {
    let up = parse(&json!({"end_device_ids": ids(), "uplink_message": {}}));
    assert_eq!(up.device.id.as_str(), "probe-0017");
    assert_eq!(up.device.dev_eui.map(|eui| eui.to_string()).as_deref(), Some("A1B2C3D4E5F60718"));
    assert_eq!(up.device.join_eui.map(|eui| eui.to_string()).as_deref(), Some("0000000000000000"));
    assert_eq!(up.application_id.as_ref().map(ApplicationId::as_str), Some("cold-store"));
    assert_eq!(up.kind, Some(MessageType::UplinkMessage));
}

#[test]
fn a_body_that_a_field_mask_emptied_gets_its_device_from_the_url() {
    let up = parse_at(&json!({}), Some("probe-0017")).expect("a device");
    assert_eq!((up.device.id.as_str(), up.kind, up.is_empty()), ("probe-0017", None, true));
    let same = parse_at(&json!({"end_device_ids": ids()}), Some("probe-0017"));
    assert!(same.is_ok());
}

#[test]
fn a_message_of_a_type_from_the_future_is_no_error() {
    let up = parse(&json!({"end_device_ids": ids(), "uplink_dreamt": {"f_port": 1}}));
    assert_eq!((up.kind, up.is_empty()), (None, false));
}

#[test]
fn what_is_no_message_is_refused_with_a_sentence_that_repeats_nothing_of_it() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, url, sentence) in [
        (&b"s3cret"[..], None, "no readable JSON"),
        (b"", None, "no readable JSON"),
        (b"{\"s3cret\":\"\xff\"}", None, "no readable JSON"),
        (b"{\"a\":{\"s3cret\":1,\"s3cret\":2}}", None, "a key stands twice"),
        (b"{} {\"s3cret\":1}", None, "no readable JSON"),
        (b"[\"s3cret\"]", None, "no object"),
        (deep.as_bytes(), None, "recursion limit"),
        (b"{\"end_device_ids\":[\"s3cret\"]}", None, "`end_device_ids` has the wrong JSON type"),
        (b"{\"end_device_ids\":{\"device_id\":7}}", None, "`device_id` has the wrong JSON type"),
        (b"{\"uplink_message\":\"s3cret\"}", Some("abc"), "`uplink_message` has the wrong JSON type"),
        (b"{\"uplink_message\":{},\"join_accept\":{}}", Some("abc"), "both `uplink_message` and `join_accept`"),
        (b"{\"uplink_message\":{\"s3cret\":1}}", None, "neither the body nor the URL names the device"),
        (b"{\"end_device_ids\":{\"device_id\":\"A.B\"}}", None, "`A.B` is not a valid end device id"),
        (b"{\"end_device_ids\":{\"device_id\":\"abc\",\"dev_eui\":\"7\"}}", None, "`7` is not a valid EUI"),
        (b"{\"end_device_ids\":{\"device_id\":\"abc\"}}", Some("abd"), "device `abc` and the URL about `abd`"),
        (b"{}", Some("a/../b"), "is not a valid end device id"),
    ] {
        let error = ApplicationUp::parse(Bytes::copy_from_slice(body), url).expect_err(sentence).to_string();
        assert!(error.contains(sentence) && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn zeros_are_absent_and_long_numbers_are_strings() {
    let of = |key: &str, content: Value| {
        let up = parse(&json!({"end_device_ids": ids(), key: content}));
        (up.f_port(), up.f_cnt())
    };
    assert_eq!(of("uplink_message", json!({})), (Some(0), Some(0)));
    assert_eq!(of("uplink_normalized", json!({"f_port": 2, "f_cnt": "4711"})), (Some(2), Some(4711)));
    assert_eq!(of("downlink_queued", json!({"f_port": 15})), (Some(15), None));
    assert_eq!(of("downlink_sent", json!({"f_port": 15, "session_key_id": "AZ=="})), (Some(15), Some(0)));
    assert_eq!(of("downlink_failed", json!({"downlink": {"f_port": 15, "f_cnt": 9}})), (Some(15), Some(9)));
    assert_eq!(of("join_accept", json!({"session_key_id": "AZ=="})), (None, None));
}

#[test]
fn correlation_ids_are_found_on_the_message_and_on_its_downlink() {
    let up = parse(&json!({
        "end_device_ids": ids(),
        "correlation_ids": ["a", 1, "b"],
        "downlink_failed": {"downlink": {"correlation_ids": ["c"]}},
    }));
    assert_eq!(up.correlation_ids().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_plain_session_key_is_taken_out_wherever_it_stands_and_nothing_else_is_touched() {
    let body = |key: Value| {
        json!({
            "end_device_ids": ids(),
            "join_accept": {
                "app_s_key": key,
                "invalidated_downlinks": [{"session_key_id": "AZ==", "app_s_key": key, "f_port": 1}],
            },
        })
    };
    let up = parse(&body(json!({"key": "00112233445566778899AABBCCDDEEFF", "kek_label": "k"})));
    let written: Value = serde_json::from_slice(&up.raw).expect("JSON");
    assert_eq!(written, body(json!({"kek_label": "k"})));
    assert_eq!(Value::Object(up.message), written);

    let enveloped = format!(" {}", body(json!({"kek_label": "k", "encrypted_key": "AQ=="})));
    let up = ApplicationUp::parse(enveloped.clone().into(), None).expect("a message");
    assert_eq!(up.raw, enveloped, "byte for byte");
}

#[test]
fn a_message_keeps_its_id_when_its_session_key_is_taken_out() {
    let up = parse(&json!({"end_device_ids": ids(), "uplink_message": {"app_s_key": {"key": "00"}}}));
    let again = ApplicationUp::parse(up.raw.clone(), None).expect("a message");
    assert_eq!(again.message_id(), up.message_id());
}

#[test]
fn a_message_id_names_device_type_and_content() {
    let up = parse(&json!({"end_device_ids": {"device_id": "probe-0017"}, "uplink_message": {"f_cnt": 1}}));
    let canonical = r#"{"end_device_ids":{"device_id":"probe-0017"},"uplink_message":{"f_cnt":1}}"#;
    let hash: String = Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(up.message_id(), format!("probe-0017.uplink_message.{}", &hash[..32]));
    let elsewhere = parse_at(&json!({"uplink_message": {}}), Some("abc")).expect("a message");
    assert_ne!(elsewhere.message_id(), parse_at(&json!({"uplink_message": {}}), Some("abd")).expect("ok").message_id());
}

#[test]
fn what_a_field_mask_left_out_is_filled_in_and_a_foreign_application_refused() {
    let ours = ApplicationId::parse("cold-store").expect("a valid id");
    let mut up = parse_at(&json!({"uplink_message": {}}), Some("abc")).expect("a message");
    up.complete(&ours, datetime!(2026-02-03 04:05:06.5 UTC)).expect("ours");
    assert_eq!(up.received_at.as_deref(), Some("2026-02-03T04:05:06.5Z"));
    assert_eq!((up.application_id.as_ref(), up.arrival()), (Some(&ours), Some("2026-02-03T04:05:06.5Z")));

    let mut up = parse(&json!({"end_device_ids": ids(), "uplink_message": {}}));
    let other = ApplicationId::parse("warm-store").expect("a valid id");
    assert!(up.complete(&other, OffsetDateTime::UNIX_EPOCH).is_err());
}

fn completed(content: &Value, top: &Value, arrived_at: OffsetDateTime) -> ApplicationUp {
    let mut body = json!({"end_device_ids": ids(), "uplink_message": content});
    let (Value::Object(body_members), Value::Object(top)) = (&mut body, top.clone()) else { panic!("objects") };
    body_members.extend(top);
    let mut up = parse(&body);
    up.complete(&ApplicationId::parse("cold-store").expect("a valid id"), arrived_at).expect("ours");
    up
}

#[test]
fn equal_messages_are_one_only_if_something_besides_their_values_says_so() {
    let (first, then) = (datetime!(2026-02-03 04:05:06.123456789 UTC), datetime!(2026-02-03 04:15:06 UTC));
    let reading = json!({"t": 20});
    let counted = json!({"session_key_id": "AZ==", "f_cnt": 7, "decoded_payload": reading});
    for (content, top, is_one) in [
        (json!({"decoded_payload": reading}), json!({}), false),
        (json!({"decoded_payload": reading}), json!({"received_at": "yesterday"}), false),
        (json!({"decoded_payload": reading}), json!({"correlation_ids": []}), false),
        (json!({"f_cnt": 7, "decoded_payload": reading}), json!({}), false),
        (json!({"session_key_id": "AZ==", "decoded_payload": reading}), json!({}), false),
        (counted, json!({}), true),
        (json!({"decoded_payload": reading}), json!({"correlation_ids": ["as:up:1"]}), true),
        (json!({"decoded_payload": reading}), json!({"received_at": "2026-02-03T04:05:06Z"}), true),
    ] {
        let id = |arrived_at| completed(&content, &top, arrived_at).message_id();
        assert_eq!(id(first), id(first), "{content} {top}");
        assert_eq!(id(first) == id(then), is_one, "{content} {top}");
    }
}

#[test]
fn a_message_that_is_completed_again_with_its_arrival_keeps_id_and_time() {
    let up = completed(&json!({}), &json!({}), datetime!(2026-02-03 04:05:06.123456789 UTC));
    let arrival = up.arrival().and_then(parse_time).expect("a time");
    let again = completed(&json!({}), &json!({}), arrival);
    assert_eq!((again.message_id(), &again.received_at), (up.message_id(), &up.received_at));
    let timed = completed(&json!({}), &json!({"received_at": "2026-02-03T04:05:06Z"}), OffsetDateTime::UNIX_EPOCH);
    assert_eq!(timed.arrival(), None);
}

#[test]
fn a_creation_time_is_as_fine_as_the_hub_counts() {
    for (at, expected) in [
        ("2026-02-03T04:05:06.789012345Z", Some("2026-02-03T04:05:06.7890123Z")),
        ("2026-02-03T04:05:06.789Z", Some("2026-02-03T04:05:06.789Z")),
        ("2026-02-03T04:05:06Z", Some("2026-02-03T04:05:06Z")),
        ("yesterday", None),
    ] {
        let up = parse(&json!({"end_device_ids": ids(), "received_at": at}));
        assert_eq!(up.creation_time().as_deref(), expected);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

/// Another text of the same JSON: keys turned round, white space everywhere.
fn other_text(value: &Value, space: &str) -> String {
    match value {
        Value::Object(object) => {
            let mut members: Vec<_> = object
                .iter()
                .map(|(key, value)| format!("{}{space}:{space}{}", json!(key), other_text(value, space)))
                .collect();
            members.reverse();
            format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| other_text(item, space)).collect();
            format!("[{space}{}]", items.join(&format!(",{space}")))
        }
        scalar => scalar.to_string(),
    }
}

proptest! {
    #[test]
    fn neither_the_order_of_keys_nor_white_space_changes_a_message_id(data in any_json(), space in "[ \n\t]{0,3}") {
        let body = json!({"end_device_ids": ids(), "service_data": {"service": "s", "data": data}});
        let one = parse(&body);
        let other = ApplicationUp::parse(other_text(&body, &space).into(), None).expect("the same message");
        prop_assert_eq!(one.message_id(), other.message_id());
    }

    #[test]
    fn different_messages_have_different_ids(a in any_json(), b in any_json()) {
        let id = |data: &Value| parse(&json!({"end_device_ids": ids(), "service_data": {"data": data}})).message_id();
        prop_assert_eq!(a == b, id(&a) == id(&b));
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200), url in prop::option::of(".*")) {
        let _ = ApplicationUp::parse(body.into(), url.as_deref());
    }
}
