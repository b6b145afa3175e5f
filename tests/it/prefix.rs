//! A hub that others use too: behind a prefix stand the bridge's devices, and no others.

use serde_json::json;
use simulator::stack::LocalDevice;

use crate::support::*;

#[tokio::test]
async fn with_a_prefix_the_bridge_speaks_as_its_own_devices_only_both_ways() {
    let world = world_with(&[("DEVICE_ID_PREFIX", "lorawan-")]).await;

    // Another's device, with an id that The Things Stack can have, and a wish that would be ours.
    service(&world).create_device("probe-0001", &lorawan_tags(9)).await.expect("made");
    let foreign = twin(&world, "probe-0001");
    let up = uplink("probe-0001", 1, &json!({"n": 1}));
    assert_eq!(post(&world, &up).await.outcome(), "delivered");
    let event = &telemetry(&world)[0].event;
    assert_eq!(text(event.annotations.get("iothub-connection-device-id")).as_deref(), Some("lorawan-probe-0001"));
    assert_eq!(text(event.properties.get("deviceId")).as_deref(), Some("probe-0001"));
    assert!(text(event.system.get("message-id")).is_some_and(|id| id.starts_with("probe-0001.")));
    assert_eq!(reported(&world, "lorawan-probe-0001")["decodedPayload"], json!({"n": 1}));

    // A device of ours is registered under its bare id, and its downlink goes out and comes back.
    service(&world).create_device("lorawan-valve-0001", &lorawan_tags(1)).await.expect("made");
    expect("the registration told in the twin", || {
        twin(&world, "lorawan-valve-0001")["tags"]["stack"]["registration"]["state"] == "registered"
    })
    .await;
    assert!(world.stack.join("valve-0001").await.is_success());
    let raw = json!({"rawDownlink": {"fPort": 15, "framePayload": "BEEF"}});
    service(&world).patch_desired("lorawan-valve-0001", &raw).await.expect("patched");
    expect("the downlink queued", || world.stack.queue("valve-0001").len() == 1).await;
    let version = twin(&world, "lorawan-valve-0001")["properties"]["desired"]["$version"].clone();
    let ids = world.stack.queue("valve-0001")[0]["correlation_ids"].to_string();
    assert!(ids.contains(&format!("iothub:valve-0001:desired:{version}")), "{ids}");
    expect("the queueing reported", || reported(&world, "lorawan-valve-0001")["downlink"]["state"] == "queued").await;

    // What is not ours was neither registered nor touched, nor held against anyone.
    assert!(world.functions.wait_idle(PATIENCE).await);
    assert_eq!(world.stack.counters().registered, 1);
    assert_eq!(twin(&world, "probe-0001"), foreign);
    assert!(events(&world, "dead-letters").is_empty() && events(&world, "parked-uplinks").is_empty());

    // Nor is a device of that bare id in The Things Stack deleted with the hub's.
    world.stack.register_local(&LocalDevice::otaa("probe-0001", 77)).expect("another DevEUI");
    service(&world).delete_device("probe-0001").await.expect("deleted");
    service(&world).delete_device("lorawan-valve-0001").await.expect("deleted");
    expect("the deletion of ours carried over", || world.stack.counters().deleted == 1).await;
    assert!(world.functions.wait_idle(PATIENCE).await);
    assert_eq!(world.stack.counters().deleted, 1);
    assert!(world.stack.devices().is_complete("probe-0001") && !world.stack.devices().is_complete("valve-0001"));
}
