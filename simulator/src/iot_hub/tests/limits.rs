//! Tiers and the meter, on real sockets. How long calls wait is tested beside the limits.

use http::{Method, StatusCode};
use mqtt_proto::v3::ConnectReturnCode;
use mqtt_proto::{QoS, v3::Packet};
use serde_json::{Value, json};

use super::world::{FAR_FUTURE, HOST, World, connect, fleet_token, key};
use crate::iot_hub::limits::{Billable, Operation};
use crate::iot_hub::sas::mint;
use crate::iot_hub::{BUILT_IN_EVENTS, Billed, Route, RouteSource, Sku, Tier};

async fn world(sku: Sku) -> World {
    let tier = Tier::new(sku, 1).expect("there is such a tier");
    let world = World::start_with(|options| options.limits = Some(tier)).await;
    world.create("d1").await;
    world
}

/// Fills a queue: what comes next is refused.
fn fill_up(world: &World, operation: Operation) {
    world.hub.hub.fill_up(operation);
}

#[tokio::test]
async fn telemetry_beyond_the_backlog_closes_the_connection() {
    let world = world(Sku::S1).await;
    let mut device = world.device("d1").await;
    device.telemetry("", b"x").await;
    fill_up(&world, Operation::D2cSend);
    device.send_telemetry("", b"x").await;
    device.is_closed().await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 1);
}

#[tokio::test]
async fn a_connect_beyond_the_backlog_is_answered_3() {
    let world = world(Sku::S1).await;
    fill_up(&world, Operation::Connect);
    let (mut device, connack) = world.connect(connect("d1", &fleet_token())).await;
    assert_eq!(connack.code, ConnectReturnCode::ServerUnavailable);
    device.is_closed().await;
}

#[tokio::test]
async fn twin_requests_beyond_the_backlog_are_answered_429() {
    let world = world(Sku::S1).await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    fill_up(&world, Operation::TwinUpdate);
    let (topic, body) = device.patch(&json!({"a": 1})).await;
    let body: Value = serde_json::from_slice(&body).expect("it is JSON");
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$iothub/twin/res/429/?$rid=p", &json!(429_001)));
    assert_eq!(device.twin("GET/?$rid=g", b"").await.0, "$iothub/twin/res/200/?$rid=g");
    let (status, _) = world.call(Method::PATCH, "/twins/d1", "", json!({"tags": {"a": 1}})).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "devices and services share the rate");
}

#[tokio::test]
async fn service_calls_beyond_the_backlog_are_answered_429_and_the_connection_ends() {
    let world = world(Sku::S1).await;
    fill_up(&world, Operation::Identity);
    let token = mint(HOST, &key("owner"), FAR_FUTURE, Some("owner"));
    let answer = world.request(Method::GET, "/devices/d1", &token).send().await.expect("the hub answers");
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["iothub-errorcode"], "ThrottlingException");
    assert_eq!(answer.headers()["connection"], "close");
    assert!(!answer.headers().contains_key("retry-after"));
    assert_eq!(world.call(Method::GET, "/twins/d1", "", Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_used_up_day_resets_the_socket_at_the_first_message_and_refuses_what_is_billed() {
    let world = world(Sku::F1).await;
    world.hub.hub.bill(Billable::D2c, 8_000 * 512);
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    let (topic, body) = device.patch(&json!({"a": 1})).await;
    let body: Value = serde_json::from_slice(&body).expect("it is JSON");
    assert_eq!((topic.as_str(), &body["errorCode"]), ("$iothub/twin/res/403/?$rid=p", &json!(403_002)));
    device.send_telemetry("", b"x").await;
    device.is_reset().await;
    let (status, body) = world.call(Method::GET, "/twins/d1", "", Value::Null).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body["Message"].as_str().is_some_and(|text| text.starts_with("ErrorCode:IotHubQuotaExceeded;")), "{body}");
    assert_eq!(world.call(Method::GET, "/devices/d1", "", Value::Null).await.0, StatusCode::OK, "identities are free");
}

#[tokio::test]
async fn what_is_done_is_billed_by_kind_and_what_fails_is_not() {
    let world = World::start_with(|options| {
        options.routes.push(Route {
            name: "copy".into(),
            source: RouteSource::DeviceMessages,
            condition: "true".into(),
            event_hub: super::world::STACK_EVENTS.into(),
            sender: None,
        });
        options.routes.push(Route {
            name: "another copy".into(),
            source: RouteSource::DeviceMessages,
            condition: "true".into(),
            event_hub: BUILT_IN_EVENTS.into(),
            sender: None,
        });
    })
    .await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    device.telemetry("", &[b'x'; 4096]).await;
    device.telemetry("k=v", &[b'x'; 4096]).await;
    device.patch(&json!({"a": 1})).await;
    device.patch(&json!("no object")).await;
    device.twin("GET/?$rid=g", b"").await;
    world.patch_twin("d1", json!({"properties": {"desired": {"b": 1}}})).await;
    assert!(device.hears().await.0.starts_with("$iothub/twin/PATCH/properties/desired/"));
    world.call(Method::GET, "/twins/d1", "", Value::Null).await;
    world.call(Method::GET, "/twins/nobody", "", Value::Null).await;
    device.subscribe(&[("t", QoS::Level0)]).await;
    device.send(Packet::Pingreq).await;
    assert_eq!(device.receive().await, Packet::Pingresp);
    let expected = Billed {
        d2c: 3, // one message of one block, one of two; copies are free
        twin_read: 2,
        twin_update: 2,
        desired_notification: 1,
        total: 8,
        today: 8,
        ..Billed::default()
    };
    assert_eq!(world.hub.billed(), expected);
}

#[tokio::test]
async fn the_twins_of_a_bulk_call_are_limited_and_billed_as_twins() {
    let world = world(Sku::F1).await;
    let write = |id: &str| json!({"id": id, "importMode": "updateTwin", "tags": {"text": "x".repeat(600)}});
    let bulk = async |devices: Value| world.call(Method::POST, "/devices", "", devices).await.0;
    let create = json!({"id": "d2", "importMode": "create"});
    assert_eq!(bulk(json!([write("d1"), write("nobody"), create])).await, StatusCode::BAD_REQUEST);
    let billed = world.hub.billed();
    assert_eq!((billed.twin_update, billed.total), (2, 2), "two blocks of 512 bytes for the one that was written");

    fill_up(&world, Operation::TwinUpdate);
    assert_eq!(bulk(json!([write("d1")])).await, StatusCode::TOO_MANY_REQUESTS);
    world.hub.hub.bill(Billable::D2c, 8_000 * 512);
    assert_eq!(bulk(json!([write("d1")])).await, StatusCode::FORBIDDEN);
    assert_eq!(bulk(json!([{"id": "d3", "importMode": "create"}])).await, StatusCode::OK, "identities are free");
}
