//! The will of a device.

use mqtt_proto::QoS;
use mqtt_proto::v3::{Connect, ConnectReturnCode, LastWill, Packet};

use super::world::{PATIENCE, World, connect, fleet_token};
use crate::eventually::eventually;
use crate::faults::{Action, Rule, Stage};
use crate::iot_hub::BUILT_IN_EVENTS;

fn with_will(topic: &str) -> Connect {
    let mut packet = connect("d1", &fleet_token());
    let topic_name = topic.try_into().expect("it is a topic");
    packet.last_will = Some(LastWill { qos: QoS::Level1, retain: false, topic_name, message: "gone".into() });
    packet
}

async fn world() -> World {
    let world = World::start().await;
    world.create("d1").await;
    world
}

const TOPIC: &str = "devices/d1/messages/events/%24.ct=text%2Fplain&a=b";

#[tokio::test]
async fn a_will_arrives_as_telemetry_when_the_socket_dies() {
    let world = world().await;
    let (device, _) = world.connect(with_will(TOPIC)).await;
    drop(device);
    let event = &world.events(BUILT_IN_EVENTS, 1).await[0].event;
    assert_eq!(&event.body[..], b"gone");
    assert_eq!(event.system["content-type"], "text/plain".into());
    assert_eq!((&event.properties["a"], &event.properties["iothub-MessageType"]), (&"b".into(), &"Will".into()));
    assert_eq!(world.hub.counters().wills, 1);
}

#[tokio::test]
async fn a_device_that_says_goodbye_leaves_no_will() {
    let world = world().await;
    let (mut device, _) = world.connect(with_will(TOPIC)).await;
    device.send(Packet::Disconnect).await;
    device.is_closed().await;
    assert_eq!((world.event_count(BUILT_IN_EVENTS), world.hub.counters().wills), (0, 0));
}

#[tokio::test]
async fn a_goodbye_discards_the_will_also_if_the_connection_breaks_before_it_has_taken_effect() {
    let world = world().await;
    let (mut device, _) = world.connect(with_will(TOPIC)).await;
    world.fault(Rule { delay_ms: Some(600_000), ..Rule::new(Stage::Disconnect, Action::Delay) });
    device.send(Packet::Disconnect).await;
    assert!(eventually(PATIENCE, || world.faults.list()[0].2 == 1).await, "the goodbye has arrived");
    assert!(world.hub.take_over("d1"));
    device.is_closed().await;
    let is_offline = || world.hub.twin("d1").is_some_and(|twin| twin["connectionState"] == "Disconnected");
    assert!(eventually(PATIENCE, is_offline).await);
    assert_eq!((world.event_count(BUILT_IN_EVENTS), world.hub.counters().wills), (0, 0));
}

#[tokio::test]
async fn silence_a_takeover_and_the_end_of_the_token_lead_to_the_will() {
    let world = world().await;
    let mut silent = with_will(TOPIC);
    silent.keep_alive = 1;
    let (mut device, _) = world.connect(silent).await;
    device.is_closed().await;
    world.events(BUILT_IN_EVENTS, 1).await;

    let (mut taken_over, _) = world.connect(with_will(TOPIC)).await;
    let (mut device, _) = world.connect(with_will(TOPIC)).await;
    taken_over.is_closed().await;
    world.events(BUILT_IN_EVENTS, 2).await;

    world.hub.skew_clock(100 * 366 * 86_400);
    device.is_closed().await;
    world.events(BUILT_IN_EVENTS, 3).await;
}

#[tokio::test]
async fn a_will_for_another_topic_is_refused() {
    let world = world().await;
    for topic in ["devices/d2/messages/events/", "last/words"] {
        let (mut device, connack) = world.connect(with_will(topic)).await;
        assert_eq!(connack.code, ConnectReturnCode::NotAuthorized, "{topic}");
        device.is_closed().await;
    }
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 0);
}
