//! Whoever lacks a right is told which: in the webhook's answer, in what is parked, in the log.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use simulator::world::{Handler, World};

use crate::support::*;

/// Where the handler logs to; gone with the world.
fn log_of(world: &World) -> PathBuf {
    world.ca_file().with_file_name("handler.log")
}

/// A world whose handler has this policy's rights only.
async fn world_with_policy(name: &str) -> (World, tokio::process::Child) {
    let world = start(Handler::ByHand, &[]).await;
    let policy = world.policy(name).expect("it exists");
    let mut settings = world.settings.clone();
    settings.insert("IOTHUB_POLICY_NAME".to_owned(), policy.name.clone());
    settings.insert("IOTHUB_POLICY_KEY".to_owned(), STANDARD.encode(&policy.key));
    let child = tokio::process::Command::new(handler())
        .arg("serve")
        .env_clear()
        .envs(settings)
        .stdout(std::fs::File::create(log_of(&world)).expect("a file"))
        .kill_on_drop(true)
        .spawn()
        .expect("the handler starts");
    (world, child)
}

#[tokio::test]
async fn a_policy_without_registry_read_is_told_so_in_the_answer_and_in_what_is_parked() {
    let (world, _child) = world_with_policy("device").await;
    let answer = post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await;
    let reason = answer.body["reason"].as_str().unwrap_or_default();
    assert_eq!(answer.outcome(), "parked", "{answer:?}");
    assert!(reason.contains("needs the right RegistryRead"), "{answer:?}");
    let parked = &events(&world, "parked-uplinks")[0];
    let failure = text(parked.event.properties.get("firstFailure")).expect("a reason");
    assert!(failure.contains("needs the right RegistryRead"), "{failure}");
}

#[tokio::test]
async fn a_policy_without_service_connect_is_told_so_in_the_log_of_the_forwarder() {
    let (world, _child) = world_with_policy("device").await;
    service(&world).create_device("meter-0001", &lorawan_tags(1)).await.expect("made");
    let log = log_of(&world);
    expect("the missing right in the log", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("needs the right ServiceConnect"))
    })
    .await;
}
