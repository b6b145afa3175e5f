use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{World, connect};
use crate::happenings::{Happening, Happenings, Kind};

async fn told_world() -> (World, Happenings) {
    let happenings = Happenings::new();
    let world = World::start_with(|options| options.happenings = happenings.clone()).await;
    (world, happenings)
}

fn told(happenings: &Happenings, kind: Kind) -> Vec<Arc<Happening>> {
    happenings.after(0).happenings.into_iter().filter(|one| one.kind == kind).collect()
}

/// The member of each detail.
fn details(happenings: &Happenings, kind: Kind, member: &str) -> Vec<Value> {
    told(happenings, kind).iter().map(|one| one.detail[member].clone()).collect()
}

#[tokio::test]
async fn the_hub_tells_what_devices_do() {
    let (world, happenings) = told_world().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    device.telemetry("%24.ct=application%2Fjson&room=r1", br#"{"t":21}"#).await;
    device.patch(&json!({"t": 21})).await;
    device.patch(&json!({"a.b": 1})).await;
    world.connect(connect("d1", "SharedAccessSignature sr=x&sig=c2VjcmV0&se=1")).await;

    assert_eq!(details(&happenings, Kind::Identity, "what"), ["created"]);
    assert_eq!(details(&happenings, Kind::Connection, "what"), ["connected", "refused"]);
    let telemetry = told(&happenings, Kind::Telemetry);
    assert_eq!(telemetry[0].device.as_deref(), Some("d1"));
    let detail = json!({
        "bytes": 8,
        "body": r#"{"t":21}"#,
        "system": {"content-type": "application/json"},
        "properties": {"room": "r1"},
    });
    assert_eq!(telemetry[0].detail, detail);
    assert_eq!(details(&happenings, Kind::Twin, "accepted"), [true, false]);
    assert!(!format!("{:?}", happenings.after(0)).contains("c2VjcmV0"), "a token is no one's business");
}

#[tokio::test]
async fn the_hub_tells_what_services_do() {
    let (world, happenings) = told_world().await;
    world.create("d1").await;
    world.patch_twin("d1", json!({"tags": {"a": 1}})).await;
    world.patch_twin("d1", json!({"properties": {"desired": {"on": true}}})).await;
    let (status, _) = world.call(Method::DELETE, "/devices/d1", "*", Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(details(&happenings, Kind::Identity, "what"), ["created", "deleted"]);
    let desired = told(&happenings, Kind::Desired);
    assert_eq!((desired.len(), &desired[0].detail["version"]), (1, &json!(2)), "{desired:?}");
}

#[tokio::test]
async fn a_device_that_is_taken_over_is_disconnected_and_may_come_back() {
    let (world, happenings) = told_world().await;
    world.create("d1").await;
    assert!(!world.hub.take_over("d1"), "nothing to take over");
    let mut device = world.device("d1").await;
    assert!(world.hub.take_over("d1"));
    device.is_closed().await;
    world.device("d1").await.telemetry("", b"x").await;
    assert_eq!(world.hub.counters().takeovers, 1);
    assert!(details(&happenings, Kind::Connection, "what").contains(&json!("end")));
}

#[tokio::test]
async fn a_device_that_is_disabled_is_disconnected_and_the_end_of_its_connection_is_told_once() {
    let disabled = json!({"deviceId": "d1", "status": "disabled"});
    for by_service in [true, false] {
        let (world, happenings) = told_world().await;
        world.create("d1").await;
        let mut device = world.device("d1").await;
        if by_service {
            let (_, identity) = world.call(Method::PUT, "/devices/d1", "*", disabled.clone()).await;
            assert_eq!(identity["connectionState"], "Disconnected");
        } else {
            assert!(world.hub.set_device_enabled("d1", false));
        }
        device.is_closed().await;
        assert_eq!(world.hub.twin("d1").expect("it is there")["connectionState"], "Disconnected");
        world.hub.shutdown().await; // its sessions have ended with it
        assert_eq!(details(&happenings, Kind::Connection, "what"), ["connected", "end"]);
    }
}
