//! CONNECT: names, times, and what a connection may do.

use std::time::Duration;

use mqtt_proto::QoS;
use mqtt_proto::v3::{ConnectReturnCode, Packet};

use super::world::{FAR_FUTURE, HOST, World, connect, fleet_token, key};
use crate::iot_hub::BUILT_IN_EVENTS;
use crate::iot_hub::sas::mint;

async fn world() -> World {
    let world = World::start().await;
    world.create("d1").await;
    world
}

#[tokio::test]
async fn without_an_api_version_a_device_sends_telemetry_but_has_no_twin() {
    let world = world().await;
    for username in [format!("{HOST}/d1"), format!("{HOST}/d1/?DeviceClientType=x")] {
        let mut packet = connect("d1", &fleet_token());
        packet.username = Some(username.into());
        let (mut device, connack) = world.connect(packet).await;
        assert_eq!(connack.code, ConnectReturnCode::Accepted);
        device.telemetry("", b"x").await;
        device.watch_twin().await;
        assert_eq!(device.twin("GET/?$rid=1", b"").await.0, "$iothub/twin/res/400/?$rid=1");
        assert_eq!(device.patch(&serde_json::json!({"a": 1})).await.0, "$iothub/twin/res/400/?$rid=p");
    }
}

#[tokio::test]
async fn a_module_and_another_client_id_are_refused() {
    let world = world().await;
    for (client_id, username) in
        [("d1/m", format!("{HOST}/d1/m/?api-version=1")), ("D1", format!("{HOST}/d1/?api-version=1"))]
    {
        let mut packet = connect(client_id, &fleet_token());
        packet.username = Some(username.into());
        let (_, connack) = world.connect(packet).await;
        assert_eq!(connack.code, ConnectReturnCode::NotAuthorized, "{client_id}");
    }
}

#[tokio::test]
async fn the_hubs_clock_decides_whether_a_token_has_expired() {
    let world = world().await;
    let in_an_hour = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp() + 3600).expect("it is after 1970");
    let token = mint(&format!("{HOST}/devices"), &key("device"), in_an_hour, Some("device"));
    let (mut device, _) = world.connect(connect("d1", &token)).await;
    device.telemetry("", b"x").await;
    world.hub.skew_clock(3600);
    device.is_closed().await;
    let (_, connack) = world.connect(connect("d1", &token)).await;
    assert_eq!(connack.code, ConnectReturnCode::NotAuthorized);
    world.hub.skew_clock(0);
    let (_, connack) = world.connect(connect("d1", &token)).await;
    assert_eq!(connack.code, ConnectReturnCode::Accepted);
    let service = mint(HOST, &key("service"), FAR_FUTURE, Some("service"));
    assert!(world.hub.check_service_token(&service, "/messages/devicebound").is_ok());
    world.hub.skew_clock(100 * 366 * 86_400);
    assert!(world.hub.check_service_token(&service, "/messages/devicebound").is_err());
}

#[tokio::test]
async fn a_socket_without_connect_is_closed_after_a_minute() {
    let world = world().await;
    let mut socket = world.socket().await.expect("the hub accepts");
    // Lets the hub finish its side of the handshake: what is sent afterwards is read behind the wait for CONNECT.
    world.device("d1").await.telemetry("", b"x").await;
    pass(Duration::from_secs(61)).await;
    let next = tokio::time::timeout(Duration::from_secs(10), futures::StreamExt::next(&mut socket)).await;
    assert!(matches!(next.expect("the hub closes"), None | Some(Err(_))));
}

#[tokio::test]
async fn without_a_keep_alive_the_hubs_own_ceiling_holds() {
    let world = world().await;
    for keep_alive in [0, u16::MAX] {
        let mut packet = connect("d1", &fleet_token());
        packet.keep_alive = keep_alive;
        let (mut device, _) = world.connect(packet).await;
        device.telemetry("", b"x").await;
        pass(Duration::from_secs(1760)).await;
        device.send(Packet::Pingreq).await;
        assert_eq!(device.receive().await, Packet::Pingresp);
        pass(Duration::from_secs(1768)).await;
        device.is_closed().await;
    }
}

/// Moves the runtime's timers on. The clock stands still only meanwhile: sockets do not know of it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn flags_of_a_packet_become_properties_and_quality_2_closes_behind_its_message() {
    let world = world().await;
    let mut device = world.device("d1").await;
    let mut publish = device.publish("devices/d1/messages/events/", QoS::Level1, b"x");
    (publish.dup, publish.retain) = (true, true);
    device.send(publish.into()).await;
    assert!(matches!(device.receive().await, Packet::Puback(_)));
    let event = &world.events(BUILT_IN_EVENTS, 1).await[0].event;
    assert_eq!((&event.properties["mqtt-dup"], &event.properties["mqtt-retain"]), (&"true".into(), &"true".into()));

    let publish = device.publish("devices/d1/messages/events/", QoS::Level2, b"second");
    device.send(publish.into()).await;
    device.is_closed().await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 2);
}
