use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::world::{STACK_EVENTS, World};
use crate::event_hubs::{Event, PropertyValue};
use crate::iot_hub::{BUILT_IN_EVENTS, Delivery, Route, RouteSource};

/// Every twin change, reported ones too.
async fn world_with_echoes() -> World {
    World::start_with(|options| {
        options.routes = vec![Route {
            name: "all".into(),
            source: RouteSource::TwinChangeEvents,
            condition: String::new(),
            event_hub: STACK_EVENTS.into(),
            sender: None,
        }];
    })
    .await
}

fn body(event: &Event) -> Value {
    serde_json::from_slice(&event.body).expect("it is JSON")
}

fn text<'a>(map: &'a BTreeMap<String, PropertyValue>, name: &str) -> &'a str {
    match map.get(name) {
        Some(PropertyValue::String(text)) => text,
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_creation_and_a_deletion_are_told() {
    let world = World::start().await;
    world.create("d1").await;
    world.call(Method::DELETE, "/devices/d1", "*", Value::Null).await;
    let events = world.events(STACK_EVENTS, 2).await;
    let created = &events[0].event;
    assert_eq!(text(&created.system, "content-type"), "application/json");
    assert_eq!(text(&created.system, "content-encoding"), "utf-8");
    assert!(!text(&created.system, "correlation-id").is_empty());
    assert_eq!(created.system["user-id"], PropertyValue::Binary(b"sim".to_vec()));
    assert_eq!(text(&created.properties, "hubName"), "sim");
    assert_eq!(text(&created.properties, "deviceId"), "d1");
    assert_eq!(text(&created.properties, "opType"), "createDeviceIdentity");
    assert_eq!(text(&created.properties, "iothub-message-schema"), "deviceLifecycleNotification");
    assert!(text(&created.properties, "operationTimestamp").ends_with('Z'));
    assert_eq!(text(&created.annotations, "iothub-connection-device-id"), "d1");
    assert_eq!(text(&created.annotations, "iothub-message-source"), "deviceLifecycleEvents");
    assert!(matches!(created.annotations["iothub-enqueuedtime"], PropertyValue::Timestamp(_)));
    assert_eq!(created.partition_key.as_deref(), Some("d1"));

    let twin = body(created);
    let keys: Vec<_> = twin.as_object().expect("it is an object").keys().cloned().collect();
    assert_eq!(keys, ["deviceId", "etag", "properties", "version"], "a plain create has no tags");
    assert_eq!((&twin["etag"], &twin["version"]), (&json!("AAAAAAAAAAE="), &json!(2)));
    assert_eq!(text(&events[1].event.properties, "opType"), "deleteDeviceIdentity");
}

#[tokio::test]
async fn service_patches_are_told_and_reported_ones_pass_the_products_route_by() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    device.patch(&json!({"battery": 87})).await;
    world.patch_twin("d1", json!({"tags": {"lorawan": {"x": 1}}})).await;
    world.patch_twin("d1", json!({"properties": {"desired": {"decodedPayload": {"on": true}}}})).await;
    let events = world.events(STACK_EVENTS, 3).await;
    assert_eq!(events.len(), 3, "the echo of the device's own patch is not among them");
    let tags = &events[1].event;
    assert_eq!(text(&tags.properties, "opType"), "updateTwin");
    assert_eq!(text(&tags.properties, "iothub-message-schema"), "twinChangeNotification");
    assert_eq!(text(&tags.annotations, "iothub-message-source"), "twinChangeEvents");
    assert_eq!(body(tags), json!({"version": 4, "tags": {"lorawan": {"x": 1}}}));
    let desired = &body(&events[2].event)["properties"]["desired"];
    assert_eq!((&desired["decodedPayload"], &desired["$version"]), (&json!({"on": true}), &json!(2)));
    assert_eq!(desired["$metadata"]["decodedPayload"]["on"]["$lastUpdatedVersion"], 2);
}

#[tokio::test]
async fn a_reported_patch_has_its_echo() {
    let world = world_with_echoes().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    device.patch(&json!({"battery": 87, "gone": null})).await;
    let event = &world.events(STACK_EVENTS, 1).await[0].event;
    assert_eq!(text(&event.properties, "opType"), "updateTwin");
    let twin = body(event);
    assert_eq!(twin["version"], 3);
    let reported = &twin["properties"]["reported"];
    assert_eq!((&reported["battery"], &reported["gone"]), (&json!(87), &Value::Null));
    assert!(reported["$metadata"]["battery"]["$lastUpdated"].is_string());
    assert_eq!(reported["$metadata"]["battery"].get("$lastUpdatedVersion"), None);
}

#[tokio::test]
async fn a_replaced_twin_is_told_whole() {
    let world = world_with_echoes().await;
    world.create("d1").await;
    let document = json!({"tags": {"a": 1}, "properties": {"desired": {"x": 1}}});
    world.call(Method::PUT, "/twins/d1", "*", document).await;
    let event = &world.events(STACK_EVENTS, 1).await[0].event;
    assert_eq!(text(&event.properties, "opType"), "replaceTwin");
    let twin = body(event);
    assert_eq!((&twin["deviceId"], &twin["tags"], &twin["version"]), (&json!("d1"), &json!({"a": 1}), &json!(3)));
    assert_eq!(twin["properties"]["desired"]["x"], 1);
    assert_eq!(twin["properties"]["reported"]["$version"], 1);
}

#[tokio::test]
async fn events_of_one_device_keep_the_order_of_its_writes() {
    let world = world_with_echoes().await;
    world.create("d1").await;
    let writes = (1..=20).map(|n| world.patch_twin("d1", json!({"tags": {"n": n}})));
    futures::future::join_all(writes).await;
    let events = world.events(STACK_EVENTS, 20).await;
    let versions: Vec<_> = events.iter().map(|stored| body(&stored.event)["version"].as_u64()).collect();
    assert!(versions.is_sorted(), "{versions:?}");
}

#[tokio::test]
async fn a_forged_property_does_not_make_telemetry_a_hub_event() {
    let world = World::start().await;
    world.create("d1").await;
    let bag =
        "opType=deleteDeviceIdentity&iothub-message-source=deviceLifecycleEvents&$.ct=application%2Fjson&$.ce=utf-8";
    world.device("d1").await.telemetry(bag, br#"{"tags":{}}"#).await;
    let event = &world.events(BUILT_IN_EVENTS, 1).await[0].event;
    assert_eq!(text(&event.annotations, "iothub-message-source"), "Telemetry");
    assert_eq!(world.event_count(STACK_EVENTS), 1, "the creation alone");
}

#[tokio::test]
async fn events_can_be_told_twice() {
    let world = World::start().await;
    world.hub.set_delivery(Delivery::Twice);
    world.create("d1").await;
    world.device("d1").await.telemetry("", b"x").await;
    let events = world.events(STACK_EVENTS, 2).await;
    assert_eq!(events[0].event, events[1].event);
    assert_eq!(world.events(BUILT_IN_EVENTS, 2).await.len(), 2);
}

#[tokio::test]
async fn several_changes_of_a_twin_can_become_one_event() {
    let world = world_with_echoes().await;
    world.create("d1").await;
    world.hub.set_delivery(Delivery::MergeTwinChanges);
    world.patch_twin("d1", json!({"tags": {"a": 1, "b": 1}})).await;
    world.patch_twin("d1", json!({"tags": {"b": null}})).await;
    world.patch_twin("d1", json!({"properties": {"desired": {"on": true}}})).await;
    assert_eq!(world.event_count(STACK_EVENTS), 0);
    world.hub.set_delivery(Delivery::Once);
    let events = world.events(STACK_EVENTS, 1).await;
    assert_eq!(events.len(), 1);
    let merged = body(&events[0].event);
    assert_eq!((&merged["version"], &merged["tags"]), (&json!(5), &json!({"a": 1, "b": null})));
    assert_eq!(merged["properties"]["desired"]["on"], true);
}

#[tokio::test]
async fn a_condition_can_ask_for_the_twin_after_the_change() {
    let world = World::start_with(|options| {
        let route = |source| Route {
            name: format!("{source:?}"),
            source,
            condition: "$twin.tags.site = 'barn'".into(),
            event_hub: STACK_EVENTS.into(),
            sender: None,
        };
        options.routes = vec![route(RouteSource::TwinChangeEvents), route(RouteSource::DeviceMessages)];
    })
    .await;
    world.create("d1").await;
    world.device("d1").await.telemetry("", b"outside").await;
    assert_eq!(world.events(BUILT_IN_EVENTS, 1).await.len(), 1);
    world.patch_twin("d1", json!({"tags": {"site": "barn"}})).await;
    world.device("d1").await.telemetry("", b"inside").await;
    let events = world.events(STACK_EVENTS, 2).await;
    assert_eq!(body(&events[0].event)["tags"], json!({"site": "barn"}));
    assert_eq!(&*events[1].event.body, b"inside");
}
