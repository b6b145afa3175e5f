use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::World;
use crate::iot_hub::{BUILT_IN_EVENTS, Fault};

/// Long enough for a loopback answer, short enough to wait for none.
const A_WHILE: Duration = Duration::from_millis(300);

async fn world() -> World {
    let world = World::start().await;
    world.create("d1").await;
    world
}

#[tokio::test]
async fn a_lost_puback_leaves_the_message_stored() {
    let world = world().await;
    let mut device = world.device("d1").await;
    world.hub.set_fault(Fault::LosePuback);
    device.send_telemetry("", b"x").await;
    device.is_closed().await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 1);
}

#[tokio::test]
async fn a_close_before_the_puback_leaves_nothing() {
    let world = world().await;
    let mut device = world.device("d1").await;
    world.hub.set_fault(Fault::CloseBeforePuback);
    device.send_telemetry("", b"x").await;
    device.is_closed().await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 0);
    world.hub.set_fault(Fault::None);
    world.device("d1").await.telemetry("", b"x").await;
}

#[tokio::test]
async fn a_throttled_twin_is_answered_429() {
    let world = world().await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    world.hub.set_fault(Fault::ThrottleTwin);
    let (topic, body) = device.patch(&json!({"a": 1})).await;
    assert_eq!(topic, "$iothub/twin/res/429/?$rid=p");
    let body: Value = serde_json::from_slice(&body).expect("it is JSON");
    assert_eq!(body["errorCode"], 429_001);
    assert_eq!(device.twin("GET/?$rid=g", b"").await.0, "$iothub/twin/res/429/?$rid=g");
    assert_eq!(world.hub.counters().twins_patched, 0);
}

#[tokio::test]
async fn an_unavailable_service_answers_503_and_devices_go_on() {
    let world = world().await;
    world.hub.set_fault(Fault::ServiceUnavailable);
    let (status, _) = world.call(Method::GET, "/devices/d1", "", Value::Null).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    world.device("d1").await.telemetry("", b"x").await;
}

#[tokio::test]
async fn a_refusing_hub_closes_open_sockets_and_new_ones() {
    let world = world().await;
    let mut device = world.device("d1").await;
    world.hub.set_fault(Fault::Refuse);
    device.is_closed().await;
    assert!(world.socket().await.is_none());
    let request = world.request(Method::GET, "/devices/d1", "").send().await;
    assert!(request.is_err());
    world.hub.set_fault(Fault::None);
    world.device("d1").await.telemetry("", b"x").await;
}

#[tokio::test]
async fn a_silent_hub_says_nothing_and_forgets_what_it_heard() {
    let world = world().await;
    let mut device = world.device("d1").await;
    world.hub.set_fault(Fault::Silent);
    device.send_telemetry("", b"lost").await;
    assert!(tokio::time::timeout(A_WHILE, device.receive()).await.is_err());
    assert!(tokio::time::timeout(A_WHILE, world.socket()).await.is_err());
    let request = world.request(Method::GET, "/devices/d1", "").timeout(A_WHILE).send().await;
    assert!(request.is_err_and(|error| error.is_timeout()));
    world.hub.set_fault(Fault::None);
    device.telemetry("", b"heard").await;
    let events = world.events(BUILT_IN_EVENTS, 1).await;
    assert_eq!(events.iter().map(|stored| &stored.event.body[..]).collect::<Vec<_>>(), [b"heard"]);
}

#[tokio::test]
async fn a_shut_down_hub_frees_its_ports() {
    let world = world().await;
    let mut device = world.device("d1").await;
    let (mqtt, https) = (world.hub.mqtt_addr(), world.hub.https_addr());
    world.hub.shutdown().await;
    device.is_closed().await;
    for address in [mqtt, https] {
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "{address}");
    }
    assert_eq!(world.hub.device_ids(), ["d1"], "what it knows stays readable");
}
