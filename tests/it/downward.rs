//! Promises D1 to D4.

use serde_json::{Value, json};
use simulator::stack::Fault;

use crate::support::*;

async fn registered(world: &simulator::world::World, id: &str, number: u32) {
    service(world).create_device(id, &lorawan_tags(number)).await.expect("the device is made");
    expect("the registration told in the twin", || {
        twin(world, id)["tags"]["stack"]["registration"]["state"] == "registered"
    })
    .await;
}

fn marker(world: &simulator::world::World, id: &str) -> Value {
    twin(world, id)["tags"]["stack"]["downlink"].clone()
}

#[tokio::test]
async fn d1_an_outage_of_the_stack_loses_nothing_and_blocks_until_it_is_over() {
    let world = world().await;
    world.stack.set_fault(Fault::Unavailable);
    for number in 1..=3 {
        service(&world).create_device(&format!("meter-000{number}"), &lorawan_tags(number)).await.expect("made");
    }
    expect("the host retries", || world.functions.counters().retries >= 1).await;
    assert_eq!(world.stack.counters().registered, 0);
    assert!(events(&world, "dead-letters").is_empty());
    world.stack.set_fault(Fault::None);
    expect("all devices registered", || world.stack.counters().registered == 3).await;
}

#[tokio::test]
async fn d1_a_poison_event_is_dead_lettered_with_its_reason_and_its_batch_goes_on() {
    let world = world().await;
    let mut poison = lorawan_tags(1);
    poison["lorawan"]["devEui"] = "no EUI".into();
    service(&world).create_device("meter-poison", &poison).await.expect("made");
    service(&world).create_device("Not_A_Stack_Id", &lorawan_tags(2)).await.expect("made");
    registered(&world, "meter-0003", 3).await;
    expect("the poison events dead-lettered", || {
        let letters = events(&world, "dead-letters");
        let reasons: Vec<_> = letters.iter().filter_map(|stored| text(stored.event.properties.get("reason"))).collect();
        reasons.iter().any(|reason| reason.contains("devEui"))
            && reasons.iter().any(|reason| reason.contains("Not_A_Stack_Id"))
    })
    .await;
    expect("the failure told in the twin", || {
        twin(&world, "meter-poison")["tags"]["stack"]["registration"]["state"] == "failed"
    })
    .await;
    assert_eq!(world.stack.counters().registered, 1);
}

#[tokio::test]
async fn d2_a_desired_state_leads_to_one_downlink_and_its_outcome_comes_back() {
    let world = world().await;
    registered(&world, "valve-0001", 1).await;
    assert!(world.stack.join("valve-0001").await.is_success());
    let raw = json!({"rawDownlink": {"fPort": 15, "framePayload": "BEEF", "confirmed": true}});
    service(&world).patch_desired("valve-0001", &raw).await.expect("patched");
    expect("the downlink queued", || world.stack.queue("valve-0001").len() == 1).await;
    let queued = &world.stack.queue("valve-0001")[0];
    assert_eq!(
        (&queued["f_port"], &queued["frm_payload"], &queued["confirmed"]),
        (&json!(15), &json!("vu8="), &json!(true))
    );
    let version = twin(&world, "valve-0001")["properties"]["desired"]["$version"].clone();
    let ids = queued["correlation_ids"].to_string();
    assert!(ids.contains(&format!("iothub:valve-0001:desired:{version}")), "{ids}");
    expect("the queueing reported", || reported(&world, "valve-0001")["downlink"]["state"] == "queued").await;

    // A portal saves the whole twin again: no valve may open for that.
    service(&world).patch_desired("valve-0001", &raw).await.expect("patched");
    assert!(world.functions.wait_idle(PATIENCE).await);
    assert_eq!(world.stack.queue("valve-0001").len(), 1);

    world.stack.transmit("valve-0001").await;
    expect("the outcome reported", || reported(&world, "valve-0001")["downlink"]["state"] == "acknowledged").await;
    assert_eq!(reported(&world, "valve-0001")["downlink"]["version"], version);

    // To send the same again: null and back.
    service(&world).patch_desired("valve-0001", &json!({"rawDownlink": null})).await.expect("patched");
    assert!(world.functions.wait_idle(PATIENCE).await);
    service(&world).patch_desired("valve-0001", &raw).await.expect("patched");
    expect("the downlink queued again", || world.stack.queue("valve-0001").len() == 1).await;
}

#[tokio::test]
async fn d2_decoded_payload_and_raw_options_form_one_downlink() {
    let world = world().await;
    registered(&world, "valve-0001", 1).await;
    assert!(world.stack.join("valve-0001").await.is_success());
    let desired = json!({"decodedPayload": {"valve": "open"}, "rawDownlink": {"confirmed": true, "operation": "replace", "fPort": null, "framePayload": null}});
    service(&world).patch_desired("valve-0001", &desired).await.expect("patched");
    expect("a downlink queued or refused with a reason", || {
        !world.stack.queue("valve-0001").is_empty() || marker(&world, "valve-0001")["state"] == "failed"
    })
    .await;
    // Without a formatter and without a port, The Things Stack refuses: the reason is told in the twin.
    assert_eq!(marker(&world, "valve-0001")["state"], "failed");
    assert!(
        marker(&world, "valve-0001")["error"].to_string().contains("no_f_port"),
        "{}",
        marker(&world, "valve-0001")
    );
    assert_eq!(events(&world, "dead-letters").len(), 1);
}

#[tokio::test]
async fn d3_our_own_echoes_never_become_calls() {
    let world = world().await;
    // Created by the bridge, its twin patched by the bridge, its tags written by the bridge.
    assert_eq!(post(&world, &uplink("probe-0001", 1, &json!({"n": 1}))).await.outcome(), "delivered");
    assert_eq!(post(&world, &uplink("probe-0001", 2, &json!({"n": 2}))).await.outcome(), "delivered");
    registered(&world, "meter-0001", 1).await;
    assert!(world.functions.wait_idle(PATIENCE).await);
    let counters = world.stack.counters();
    assert_eq!((counters.registered, counters.deleted, counters.downlinks_queued), (1, 0, 0));
    let log = world.functions.invocation_log("EventHubForwarder").join(" ");
    assert!(log.contains("ignored.echo"), "{log}");
    assert!(events(&world, "dead-letters").is_empty());
    assert_eq!(world.functions.counters().retries, 0);
}

#[tokio::test]
async fn d3_telemetry_that_pretends_to_be_an_event_is_not_believed() {
    let world = world().await;
    registered(&world, "meter-0001", 1).await;
    let mut forged = simulator::event_hubs::Event { body: "{}".into(), ..Default::default() };
    forged.properties.insert("opType".into(), "deleteDeviceIdentity".into());
    forged.properties.insert("deviceId".into(), "meter-0001".into());
    forged.properties.insert("iothub-message-source".into(), "deviceLifecycleEvents".into());
    forged.annotations.insert("iothub-message-source".into(), "Telemetry".into());
    forged.annotations.insert("iothub-connection-device-id".into(), "meter-0001".into());
    world.events.hub("stack-events").expect("it exists").append(forged);
    assert!(world.functions.wait_idle(PATIENCE).await);
    assert_eq!(world.stack.counters().deleted, 0);
}

#[tokio::test]
async fn d4_a_desired_change_before_the_first_join_is_applied_on_the_join() {
    let world = world().await;
    registered(&world, "valve-0001", 1).await;
    let raw = json!({"rawDownlink": {"fPort": 15, "framePayload": "01"}});
    service(&world).patch_desired("valve-0001", &raw).await.expect("patched");
    expect("the downlink waits", || marker(&world, "valve-0001")["state"] == "waiting").await;
    assert!(world.stack.join("valve-0001").await.is_success());
    expect("the downlink pushed", || marker(&world, "valve-0001")["state"] == "pushed").await;
    assert_eq!(world.stack.queue("valve-0001").len(), 1);
}

#[tokio::test]
async fn a_device_deleted_in_the_hub_is_deleted_in_the_stack_unless_told_otherwise() {
    for (sync, deleted) in [("true", 1), ("false", 0)] {
        let world = world_with(&[("SYNC_DELETE", sync)]).await;
        registered(&world, "meter-0001", 1).await;
        service(&world).delete_device("meter-0001").await.expect("deleted");
        if deleted == 1 {
            expect("the device gone", || world.stack.counters().deleted == 1).await;
        }
        assert!(world.functions.wait_idle(PATIENCE).await);
        assert_eq!(world.stack.counters().deleted, deleted);
    }
}

#[tokio::test]
async fn with_target_package_events_are_posted_as_they_are() {
    let world = world_with(&[("STACK_EVENTS_TARGET", "package")]).await;
    service(&world).create_device("meter-0001", &lorawan_tags(1)).await.expect("made");
    expect("both events posted", || world.stack.events().len() >= 2).await;
    let posted = world.stack.events();
    assert!(posted.iter().all(|event| event["end_device_ids"]["device_id"] == "meter-0001"), "{posted:?}");
    assert!(posted.iter().any(|event| event["properties"]["opType"] == "createDeviceIdentity"), "{posted:?}");
    assert_eq!(world.stack.counters().registered, 0);
}
