//! The faults that a device orders by the properties of a message.

use futures::StreamExt as _;
use mqtt_proto::QoS;
use mqtt_proto::v3::ConnectReturnCode;

use super::world::{Device, World, connect, fleet_token};
use crate::iot_hub::BUILT_IN_EVENTS;

/// A world, and a device that has ordered a fault of 60 seconds and lost its connection.
async fn fallen(kind: &str) -> World {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    order(&mut device, kind, 0).await;
    device.is_closed().await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 0, "the order itself is not stored");
    assert_eq!(world.hub.counters().faults_injected, 1);
    world
}

async fn order(device: &mut Device, kind: &str, delay: u32) {
    let bag = format!(
        "AzIoTHub_FaultOperationType={kind}&AzIoTHub_FaultOperationCloseReason=boom\
         &AzIoTHub_FaultOperationDelayInSecs={delay}&AzIoTHub_FaultOperationDurationInSecs=60"
    );
    device.send_telemetry(&bag, b"x").await;
}

async fn answer_to_connect(world: &World) -> ConnectReturnCode {
    world.connect(connect("d1", &fleet_token())).await.1.code
}

/// The fault is over once the clock says so.
async fn recovers(world: &World) {
    world.hub.skew_clock(61);
    world.device("d1").await.telemetry("", b"x").await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 1);
}

#[tokio::test]
async fn a_killed_socket_stays_dead_for_the_duration() {
    let world = fallen("KillTcp").await;
    let mut socket = world.socket().await.expect("the hub accepts");
    futures::SinkExt::send(&mut socket, connect("d1", &fleet_token()).into()).await.expect("the socket takes it");
    assert!(matches!(socket.next().await, None | Some(Err(_))), "no CONNACK");
    recovers(&world).await;
}

#[tokio::test]
async fn a_shut_down_session_is_answered_3_for_the_duration() {
    let world = fallen("ShutDownMqtt").await;
    assert_eq!(answer_to_connect(&world).await, ConnectReturnCode::ServerUnavailable);
    recovers(&world).await;
}

#[tokio::test]
async fn a_failed_authentication_is_answered_5_for_the_duration() {
    let world = fallen("InvokeAuthError").await;
    assert_eq!(answer_to_connect(&world).await, ConnectReturnCode::NotAuthorized);
    recovers(&world).await;
}

#[tokio::test]
async fn a_throttled_device_has_its_twin_answered_429_and_its_telemetry_not_at_all() {
    let world = fallen("InvokeThrottling").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    assert_eq!(device.twin("GET/?$rid=1", b"").await.0, "$iothub/twin/res/429/?$rid=1");
    device.send_telemetry("", b"x").await;
    device.is_closed().await;
    recovers(&world).await;
}

#[tokio::test]
async fn a_device_without_quota_connects_and_has_its_socket_reset_on_telemetry() {
    let world = fallen("InvokeMaxMessageQuota").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    assert_eq!(device.twin("GET/?$rid=1", b"").await.0, "$iothub/twin/res/200/?$rid=1");
    device.send_telemetry("", b"x").await;
    device.is_reset().await;
    recovers(&world).await;
}

#[tokio::test]
async fn a_fault_begins_after_its_delay_and_hits_only_its_device() {
    let world = World::start().await;
    world.create("d1").await;
    world.create("d2").await;
    let (mut device, mut other) = (world.device("d1").await, world.device("d2").await);
    order(&mut device, "KillTcp", 30).await;
    device.telemetry("", b"still fine").await;
    world.hub.skew_clock(31);
    device.is_closed().await;
    other.telemetry("", b"fine").await;
}

#[tokio::test]
async fn a_fault_for_amqp_is_a_message_like_any_other() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.subscribe(&[("a", QoS::Level0)]).await;
    device.telemetry("AzIoTHub_FaultOperationType=KillAmqpConnection", b"x").await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 1);
}
