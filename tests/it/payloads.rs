//! Payloads end in the twin by the documented rule, and in the telemetry as they came.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use simulator::fixtures;
use simulator::world::World;
use tts_iot_hub::iot_hub::twin::{fit_reported, merge};

use crate::support::*;

/// Sends the payloads of one device one after another and holds its twin against the rule.
async fn expect_fitted(world: &World, device: &str, payloads: &[Map<String, Value>]) {
    let mut expected = Map::new();
    for (number, payload) in payloads.iter().enumerate() {
        let up = uplink(device, number as u32 + 2, &Value::Object(payload.clone()));
        let answer = post(world, &up).await;
        assert_eq!((answer.status, answer.outcome()), (200, "delivered"), "{device}: {answer:?}");
        let patch = json!({"decodedPayload": payload});
        merge(&mut expected, &fit_reported(patch.as_object().expect("an object").clone()).patch);
        assert!(telemetry(world).iter().any(|stored| stored.event.body == up.to_string()), "{device}: byte-equal");
    }
    assert_eq!(reported(world, device)["decodedPayload"], expected["decodedPayload"], "{device}");
}

#[tokio::test]
async fn every_nasty_payload_ends_in_the_twin_without_a_refused_patch() {
    let world = world().await;
    for (number, fixture) in fixtures::nasty().iter().enumerate() {
        let up: Value = serde_json::from_str(fixture.body).expect("a fixture is JSON");
        match up["uplink_message"]["decoded_payload"].as_object() {
            Some(payload) => expect_fitted(&world, &format!("nasty-{number}"), std::slice::from_ref(payload)).await,
            None => {
                let answer = post_with(&world, fixture.body, |request| request).await;
                assert_eq!(answer.outcome(), "delivered", "{}: {answer:?}", fixture.name);
            }
        }
    }
    let counters = world.iot_hub.counters();
    assert_eq!(counters.twins_refused, 0);
    assert!(events(&world, "dead-letters").is_empty());
}

#[tokio::test]
async fn every_fixture_of_the_eleven_types_is_delivered() {
    let world = world().await;
    for fixture in fixtures::webhooks() {
        let answer = post_with(&world, fixture.body, |request| request).await;
        assert_eq!((answer.status, answer.outcome()), (200, "delivered"), "{}: {answer:?}", fixture.name);
    }
    assert_eq!(world.iot_hub.counters().twins_refused, 0);
}

/// The corpus is the caller's: `PAYLOADS` names an NDJSON file with a member `decoded_payload` per line.
#[tokio::test]
async fn the_payloads_of_a_corpus_end_in_the_twin_last_value_per_key() {
    let Some(path) = std::env::var_os("PAYLOADS") else {
        eprintln!("PAYLOADS names no corpus: nothing to play");
        return;
    };
    let text = std::fs::read_to_string(path).expect("the corpus can be read");
    let mut by_codec: BTreeMap<String, Vec<Map<String, Value>>> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        let payload = line["decoded_payload"].as_object().expect("an object").clone();
        by_codec.entry(line["codec"].to_string()).or_default().push(payload);
    }
    // A device per codec: more identities than an S1 hub makes in a minute.
    let world = world_with(&[("IOTHUB_SKU", "S3")]).await;
    for (number, payloads) in by_codec.values().enumerate() {
        expect_fitted(&world, &format!("codec-{number}"), payloads).await;
    }
    assert_eq!(world.iot_hub.counters().twins_refused, 0);
}
