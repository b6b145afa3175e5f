use std::time::Duration;

use http::Method;
use serde_json::json;

use super::world::{FAR_FUTURE, HOST, World, key};
use crate::iot_hub::sas::mint;
use crate::iot_hub::{BUILT_IN_EVENTS, Fault};

/// Long enough for a loopback answer, short enough to wait for none.
const A_WHILE: Duration = Duration::from_millis(300);

async fn world() -> World {
    let world = World::start().await;
    world.create("d1").await;
    world
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
async fn calls_that_a_silent_hub_holds_end_with_their_sockets() {
    let world = world().await;
    world.hub.set_fault(Fault::Silent);
    let token = mint(HOST, &key("owner"), FAR_FUTURE, Some("owner"));
    let call = world.request(Method::PATCH, "/twins/d1", &token).json(&json!({"tags": {"a": "x".repeat(2048)}})).send();
    tokio::pin!(call);
    assert!(tokio::time::timeout(A_WHILE, &mut call).await.is_err(), "it has an open socket, and no answer");
    world.hub.set_fault(Fault::Refuse);
    assert!(call.await.is_err_and(|error| !error.is_timeout()));
    assert_eq!(world.hub.twin("d1").expect("it is there").get("tags"), None);
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
