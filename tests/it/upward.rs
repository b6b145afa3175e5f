//! Promises U1 to U5.

use std::time::Duration;

use serde_json::json;
use simulator::iot_hub::Fault;

use crate::support::*;

#[tokio::test]
async fn u1_a_delivered_uplink_is_in_the_hub_byte_for_byte_and_in_the_twin() {
    let world = world().await;
    // Insignificant white space and the order of members must survive.
    let up = uplink("probe-0001", 1, &json!({"temperature": 21.5})).to_string().replace(',', " ,\n ");
    let answer = post_with(&world, up.clone(), |request| request).await;
    assert_eq!((answer.status, answer.outcome()), (200, "delivered"), "{answer:?}");
    let telemetry = telemetry(&world);
    assert_eq!(telemetry.len(), 1);
    assert_eq!(telemetry[0].event.body, up);
    assert_eq!(text(telemetry[0].event.system.get("content-type")).as_deref(), Some("application/json"));
    assert_eq!(text(telemetry[0].event.properties.get("messageType")).as_deref(), Some("uplink_message"));
    assert_eq!(reported(&world, "probe-0001")["decodedPayload"]["temperature"], 21.5);
}

#[tokio::test]
async fn u1_an_uplink_of_an_outage_is_parked_and_delivered_once_the_hub_is_back() {
    let world = world().await;
    assert_eq!(post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await.outcome(), "delivered");
    world.iot_hub.set_fault(Fault::Refuse);
    let answer = post(&world, &uplink("probe-0001", 2, &json!({"n": 2}))).await;
    assert_eq!((answer.status, answer.outcome()), (200, "parked"), "{answer:?}");
    assert_eq!(events(&world, "parked-uplinks").len(), 1);
    world.iot_hub.set_fault(Fault::None);
    expect("the parked uplink in the hub", || telemetry(&world).len() == 2).await;
    expect("the parked uplink in the twin", || reported(&world, "probe-0001")["decodedPayload"]["n"] == 2).await;
    expect("the parking place empty", || world.functions.lag("parked-uplinks", "parked-uplinks") == 0).await;
}

#[tokio::test]
async fn u1_neither_delivered_nor_parked_is_answered_503() {
    let world = world().await;
    world.iot_hub.set_fault(Fault::Refuse);
    world.event_hubs.set_fault(simulator::event_hubs::Fault::Refuse);
    let answer = post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.took < Duration::from_secs(4), "{answer:?}");
}

#[tokio::test]
async fn u2_a_webhook_is_answered_within_four_seconds_when_the_hub_accepts_and_says_nothing() {
    let world = world().await;
    world.iot_hub.set_fault(Fault::Silent);
    let up = uplink("probe-0001", 1, &json!({"n": 1}));
    let answer = post(&world, &up).await;
    assert_eq!((answer.status, answer.outcome()), (200, "parked"), "{answer:?}");
    assert!(answer.took < Duration::from_secs(4), "{answer:?}");
}

#[tokio::test]
async fn u3_an_uplink_of_a_disabled_device_is_dead_lettered_with_its_reason() {
    let world = world().await;
    service(&world).create_device("probe-0001", &json!({})).await.expect("the device is made");
    service(&world).set_enabled("probe-0001", false).await.expect("the device is disabled");
    let answer = post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await;
    assert_eq!((answer.status, answer.outcome()), (200, "dead_lettered"), "{answer:?}");
    let letters = events(&world, "dead-letters");
    assert_eq!(letters.len(), 1);
    let reason = text(letters[0].event.properties.get("reason")).unwrap_or_default();
    assert!(reason.contains("disabled"), "{reason}");
    assert!(telemetry(&world).is_empty());
}

#[tokio::test]
async fn u3_a_message_too_large_in_any_form_is_dead_lettered() {
    let world = world().await;
    let up = uplink("probe-0001", 1, &json!({"blob": "x".repeat(400 * 1024)}));
    let answer = post(&world, &up).await;
    assert_eq!((answer.status, answer.outcome()), (200, "dead_lettered"), "{answer:?}");
    assert_eq!(events(&world, "dead-letters")[0].event.body, up.to_string());
}

#[tokio::test]
async fn u4_the_same_webhook_twice_has_one_effect_and_one_id() {
    let world = world().await;
    let up = uplink("probe-0001", 1, &json!({"n": 1}));
    assert_eq!(post(&world, &up).await.outcome(), "delivered");
    let again = post(&world, &up).await;
    assert_eq!((again.status, again.outcome()), (200, "duplicate"), "{again:?}");
    assert_eq!(telemetry(&world).len(), 1);
}

#[tokio::test]
async fn u4_three_measurements_of_one_uplink_are_three_messages_with_three_ids() {
    let world = world().await;
    let at = now();
    for measurement in [json!({"air": {"temperature": 1}}), json!({"air": {"temperature": 2}}), json!({"battery": 3})] {
        let mut up = uplink("probe-0001", 1, &json!({}));
        up["received_at"] = at.clone().into();
        let mut message = up["uplink_message"].take();
        message["normalized_payload"] = measurement;
        message.as_object_mut().expect("an object").remove("decoded_payload");
        let fields = up.as_object_mut().expect("an object");
        fields.remove("uplink_message");
        fields.insert("uplink_normalized".to_owned(), message);
        assert_eq!(post(&world, &up).await.outcome(), "delivered");
    }
    assert_eq!(telemetry(&world).len(), 3);
    assert_eq!(message_ids(&world).len(), 3);
}

#[tokio::test]
async fn u5_a_late_uplink_sends_its_telemetry_and_leaves_a_newer_twin_alone() {
    let world = world().await;
    let mut late = uplink("probe-0001", 1, &json!({"n": "old"}));
    late["received_at"] = "2026-01-01T00:00:00.000000001Z".into();
    assert_eq!(post(&world, &uplink("probe-0001", 2, &json!({"n": "new"}))).await.outcome(), "delivered");
    assert_eq!(post(&world, &late).await.outcome(), "delivered");
    assert_eq!(telemetry(&world).len(), 2);
    assert_eq!(reported(&world, "probe-0001")["decodedPayload"]["n"], "new");
}

#[tokio::test]
async fn filters_choose_what_becomes_telemetry_and_what_updates_the_twin() {
    let world = world_with(&[("TELEMETRY_MESSAGES", "join_accept"), ("TWIN_MESSAGES", "uplink_message")]).await;
    assert_eq!(post(&world, &uplink("probe-0001", 2, &json!({"n": 1}))).await.outcome(), "delivered");
    assert!(telemetry(&world).is_empty());
    assert_eq!(reported(&world, "probe-0001")["decodedPayload"]["n"], 1);
}

#[tokio::test]
async fn a_compact_body_keeps_the_best_gateway_only() {
    let world = world_with(&[("TELEMETRY_BODY", "compact")]).await;
    let mut up = uplink("probe-0001", 2, &json!({"n": 1}));
    let gateway = |id: &str, snr: f64| json!({"gateway_ids": {"gateway_id": id}, "snr": snr, "rssi": -100});
    up["uplink_message"]["rx_metadata"] = json!([gateway("far", -7.5), gateway("near", 9.25), gateway("mid", 2.0)]);
    assert_eq!(post(&world, &up).await.outcome(), "delivered");
    let body: serde_json::Value = serde_json::from_slice(&telemetry(&world)[0].event.body).expect("JSON");
    let gateways = body["uplink_message"]["rx_metadata"].as_array().expect("an array");
    assert_eq!(gateways.len(), 1);
    assert_eq!(gateways[0]["gateway_ids"]["gateway_id"], "near");
}

#[tokio::test]
async fn a_device_that_the_hub_does_not_know_is_created_with_the_tags_of_its_fleet() {
    let world = world().await;
    assert_eq!(post(&world, &uplink("probe-0001", 2, &json!({"n": 1}))).await.outcome(), "delivered");
    let tags = &twin(&world, "probe-0001")["tags"]["stack"];
    assert_eq!(tags["applicationId"], simulator::world::APPLICATION_ID);
    assert_eq!(tags["devEui"], "70B3D57ED0000001");
    assert_eq!(world.iot_hub.counters().devices_created, 1);
}
