//! What a message becomes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::config::{TelemetryBody, UplinkConfig};
use crate::event_hubs::Open;
use crate::iot_hub::MAX_MESSAGE_BYTES;
use crate::message_type::MessageType;
use crate::stack::ApplicationUp;
use crate::uplink_delivery::scripted::{config, message};
use crate::uplink_delivery::{Decision, Ignored, UplinkPlan, plan};

const AT: &str = "2026-02-03T04:05:06.789012345Z";
const OURS: &str = "iothub:probe-0017:desired:12";

fn up(body: &Value) -> ApplicationUp {
    ApplicationUp::parse(body.to_string().into(), None).expect("a message")
}

fn decide(key: &str, content: Value, config: &UplinkConfig) -> Decision {
    plan(&up(&message(key, content, AT)), config)
}

fn planned(key: &str, content: Value) -> UplinkPlan {
    planned_with(key, content, &config())
}

fn planned_with(key: &str, content: Value, config: &UplinkConfig) -> UplinkPlan {
    match decide(key, content, config) {
        Decision::Deliver(plan) => *plan,
        Decision::Ignore(why) => panic!("ignored: {why}"),
    }
}

#[test]
fn every_type_reports_what_its_users_look_for() {
    let downlink = |more: Value| {
        let mut downlink = json!({"f_port": 15, "correlation_ids": ["as:downlink:01", OURS]});
        downlink.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        downlink
    };
    let error =
        json!({"namespace": "pkg/ns", "name": "too_long", "message_format": "{n} is too long", "attributes": {"n": 7}});
    let reported = |state: &str, more: Value| {
        let mut all =
            json!({"version": 12, "state": state, "at": AT, "fPort": 15, "fCnt": null, "attempt": null, "error": null});
        all.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        Some(json!({"downlink": all}))
    };
    let table = [
        (
            "uplink_message",
            json!({"f_cnt": 7, "decoded_payload": {"t": 25.5, "door": null}}),
            Some(json!({"decodedPayload": {"t": 25.5, "door": null}, "lastSeenAt": AT})),
        ),
        ("uplink_message", json!({"f_cnt": 7}), Some(json!({"lastSeenAt": AT}))),
        ("uplink_message", json!({"f_cnt": 7, "decoded_payload": [1]}), Some(json!({"lastSeenAt": AT}))),
        ("uplink_normalized", json!({"normalized_payload": {"air": {}}}), None),
        ("join_accept", json!({"session_key_id": "AZ=="}), Some(json!({"joinedAt": AT}))),
        (
            "location_solved",
            json!({"service": "wifi", "location": {"latitude": 47.5, "accuracy": 24}}),
            Some(json!({
                "location": {"wifi": {
                    "latitude": 47.5, "longitude": 0, "altitude": null, "accuracy": 24, "source": null,
                }},
                "updatedAt": {"location": {"wifi": AT}},
            })),
        ),
        ("location_solved", json!({"service": "wifi"}), None),
        (
            "service_data",
            json!({"service": "dm-v1", "data": {"pending": []}}),
            Some(json!({"serviceData": {"dm-v1": {"pending": []}}, "updatedAt": {"serviceData": {"dm-v1": AT}}})),
        ),
        ("downlink_queued", downlink(json!({})), reported("queued", json!({}))),
        (
            "downlink_sent",
            downlink(json!({"session_key_id": "AZ==", "confirmed_retry": {"attempt": 1}})),
            reported("sent", json!({"fCnt": 0, "attempt": 1})),
        ),
        (
            "downlink_nack",
            downlink(json!({"f_cnt": 3, "confirmed_retry": {"attempt": 2}})),
            reported("not_acknowledged", json!({"fCnt": 3, "attempt": 1})),
        ),
        ("downlink_ack", downlink(json!({"f_cnt": 3})), reported("acknowledged", json!({"fCnt": 3}))),
        (
            "downlink_failed",
            json!({"downlink": downlink(json!({})), "error": error}),
            reported("failed", json!({"error": {"name": "pkg/ns:too_long", "message": "7 is too long"}})),
        ),
        ("downlink_ack", json!({"f_port": 1, "correlation_ids": ["iothub:other-device:desired:1"]}), None),
        ("downlink_queue_invalidated", json!({"downlinks": [], "last_f_cnt_down": 12}), None),
    ];
    for (key, content, expected) in table {
        let reported = planned(key, content.clone()).reported.map(|reported| Value::Object(reported.patch));
        assert_eq!(reported, expected, "{key} {content}");
    }
}

#[test]
fn a_message_without_a_time_reports_nothing_until_it_is_completed() {
    let mut body = message("uplink_message", json!({"f_cnt": 7}), AT);
    body.as_object_mut().expect("an object").remove("received_at");
    let Decision::Deliver(plan) = plan(&up(&body), &config()) else { panic!("not ignored") };
    assert_eq!((plan.reported, plan.telemetry.is_some()), (None, true));
}

#[test]
fn a_telemetry_message_is_the_body_byte_for_byte_with_properties_to_route_by() {
    let body = message("uplink_message", json!({"f_port": 2, "rx_metadata": [{"rssi": -1}, {"rssi": -2}]}), AT);
    let text = serde_json::to_string_pretty(&body).expect("JSON");
    let up = ApplicationUp::parse(text.clone().into(), None).expect("a message");
    let Decision::Deliver(plan) = plan(&up, &config()) else { panic!("not ignored") };
    let telemetry = plan.telemetry.expect("telemetry").expect("small enough");
    assert_eq!(telemetry.body, text);
    assert_eq!(telemetry.message_id, up.message_id());
    assert_eq!(telemetry.creation_time.as_deref(), Some("2026-02-03T04:05:06.7890123Z"));
    let mut properties = telemetry.properties;
    properties.sort();
    let expected = [
        ("applicationId", "cold-store"),
        ("devEui", "A1B2C3D4E5F60718"),
        ("deviceId", "probe-0017"),
        ("fCnt", "0"),
        ("fPort", "2"),
        ("messageType", "uplink_message"),
    ];
    assert_eq!(properties, expected.map(|(name, value)| (name, value.to_owned())));
}

#[test]
fn a_simulated_message_says_so() {
    let mut body = message("uplink_message", json!({}), AT);
    body["simulated"] = json!(true);
    let Decision::Deliver(plan) = plan(&up(&body), &config()) else { panic!("not ignored") };
    let telemetry = plan.telemetry.expect("telemetry").expect("small enough");
    assert!(telemetry.properties.contains(&("simulated", "true".to_owned())));
}

#[test]
fn a_compact_body_has_one_gateway() {
    let config = UplinkConfig { telemetry_body: TelemetryBody::Compact, ..config() };
    let content = json!({"rx_metadata": [{"rssi": -90}, {"rssi": -80}]});
    let telemetry = planned_with("uplink_message", content, &config).telemetry.expect("telemetry").expect("small");
    let body: Value = serde_json::from_slice(&telemetry.body).expect("JSON");
    assert_eq!(body["uplink_message"]["rx_metadata"], json!([{"rssi": -80}]));
}

#[test]
fn a_body_that_the_hub_does_not_take_goes_in_compact_form_and_what_is_still_too_large_never() {
    let gateways = |text: usize| json!({"rx_metadata": [{"rssi": -90, "x": "x".repeat(text)}, {"rssi": -80}]});
    let large = planned("uplink_message", gateways(MAX_MESSAGE_BYTES)).telemetry.expect("telemetry");
    assert!(large.expect("fits in compact form").body.len() < 1000);

    let hopeless = json!({"decoded_payload": {"x": "x".repeat(MAX_MESSAGE_BYTES)}});
    let plan = planned("uplink_message", hopeless);
    assert!(plan.telemetry.clone().is_some_and(|telemetry| telemetry.is_err()));
    assert!(plan.open().telemetry && plan.open().twin, "the twin is not to blame");
}

#[test]
fn a_downlink_that_waits_is_looked_for_when_a_session_begins_whatever_the_filters_say() {
    let nothing = UplinkConfig { telemetry_messages: BTreeSet::new(), twin_messages: BTreeSet::new(), ..config() };
    let only_waiting = Open { telemetry: false, twin: false, waiting_downlink: true };
    assert_eq!(planned_with("join_accept", json!({}), &nothing).open(), only_waiting);
    assert_eq!(planned_with("uplink_message", json!({}), &nothing).open(), only_waiting);
    assert_eq!(planned_with("uplink_message", json!({"f_cnt": 1}), &nothing).open(), only_waiting);
    assert!(!planned("uplink_message", json!({"f_cnt": 2})).check_waiting_downlink);
    assert!(!planned("uplink_normalized", json!({})).check_waiting_downlink);
}

#[test]
fn what_is_filtered_or_unknown_is_ignored_with_its_reason() {
    let uplinks = BTreeSet::from([MessageType::UplinkMessage]);
    let config = UplinkConfig { telemetry_messages: uplinks.clone(), twin_messages: uplinks, ..config() };
    let filtered = decide("service_data", json!({"data": {}}), &config);
    assert_eq!(filtered, Decision::Ignore(Ignored::Filtered(MessageType::ServiceData)));
    assert_eq!(decide("uplink_dreamt", json!({}), &config), Decision::Ignore(Ignored::UnknownType));
    let empty = ApplicationUp::parse("{}".into(), Some("probe-0017")).expect("a message");
    assert_eq!(plan(&empty, &config), Decision::Ignore(Ignored::Empty));
}
