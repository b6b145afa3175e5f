//! Cloud-to-device messages, from the hub's door to the device.

use futures::FutureExt as _;
use http::{Method, StatusCode};
use mqtt_proto::QoS;
use mqtt_proto::v3::{Connect, Packet, Publish};
use serde_json::{Value, json};

use super::world::{Device, World, connect, fleet_token};
use crate::iot_hub::error::Code;
use crate::iot_hub::{Ack, CloudMessage, devicebound};

const FILTER: &str = "devices/d1/messages/devicebound/#";

async fn world() -> World {
    let world = World::start().await;
    world.create("d1").await;
    world
}

/// A CONNECT that keeps its session.
fn kept() -> Connect {
    let mut packet = connect("d1", &fleet_token());
    packet.clean_session = false;
    packet
}

async fn subscribed(world: &World, qos: QoS) -> Device {
    let (mut device, _) = world.connect(kept()).await;
    device.subscribe(&[(FILTER, qos)]).await;
    device
}

fn message(id: &str, ack: Ack) -> CloudMessage {
    CloudMessage { message_id: Some(id.into()), ack, body: id.to_owned().into(), ..CloudMessage::default() }
}

fn send(world: &World, message: CloudMessage) {
    let sent = world.hub.send_to_device("d1", message).now_or_never();
    sent.expect("without a tier nothing waits").expect("the hub takes it");
}

async fn published(device: &mut Device) -> Publish {
    match device.receive().await {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?} is no message"),
    }
}

async fn acknowledge(device: &mut Device, publish: &Publish) {
    device.send(Packet::Puback(publish.qos_pid.pid().expect("it has quality 1"))).await;
    device.send(Packet::Pingreq).await;
    assert_eq!(device.receive().await, Packet::Pingresp);
}

/// The next outcomes: message and status.
async fn outcomes(world: &World) -> Vec<(String, &'static str)> {
    let feedback = tokio::time::timeout(std::time::Duration::from_secs(10), world.hub.feedback()).await;
    feedback.expect("there is one").into_iter().map(|one| (one.original_message_id, one.status)).collect()
}

async fn waiting(world: &World) -> Value {
    let (_, device) = world.call(Method::GET, "/devices/d1", "", Value::Null).await;
    let twin = world.hub.twin("d1").expect("it is there");
    assert_eq!(device["cloudToDeviceMessageCount"], twin["cloudToDeviceMessageCount"]);
    device["cloudToDeviceMessageCount"].clone()
}

#[tokio::test]
async fn a_message_arrives_with_its_properties_and_its_puback_completes_it() {
    let world = world().await;
    let mut device = subscribed(&world, QoS::Level1).await;
    let properties = vec![("unit".to_owned(), Some("°C".to_owned())), ("null".to_owned(), None)];
    send(&world, CloudMessage { properties, ..message("m1", Ack::Full) });
    let publish = published(&mut device).await;
    let to = "%2Fdevices%2Fd1%2Fmessages%2Fdevicebound";
    let bag = format!("%24.mid=m1&%24.to={to}&iothub-ack=full&unit=%C2%B0C&null");
    assert_eq!(&publish.topic_name[..], format!("devices/d1/messages/devicebound/{bag}"));
    assert_eq!(&publish.payload[..], b"m1");
    assert_eq!(waiting(&world).await, 1, "it stays until it is acknowledged");
    acknowledge(&mut device, &publish).await;
    assert_eq!(waiting(&world).await, 0);
    assert_eq!(outcomes(&world).await, [("m1".to_owned(), "Success")]);
    assert_eq!((world.hub.counters().c2d_accepted, world.hub.counters().c2d_completed), (1, 1));
}

#[tokio::test]
async fn a_message_of_quality_0_is_complete_when_it_is_sent() {
    let world = world().await;
    let mut device = subscribed(&world, QoS::Level0).await;
    send(&world, message("m1", Ack::Positive));
    assert_eq!(published(&mut device).await.qos_pid, mqtt_proto::QosPid::Level0);
    assert_eq!(outcomes(&world).await, [("m1".to_owned(), "Success")]);
}

#[tokio::test]
async fn messages_wait_for_a_device_that_never_connected_and_come_in_order() {
    let world = world().await;
    for id in ["m1", "m2", "m3"] {
        send(&world, message(id, Ack::None));
    }
    let mut device = subscribed(&world, QoS::Level1).await;
    for id in ["m1", "m2", "m3"] {
        assert_eq!(&published(&mut device).await.payload[..], id.as_bytes());
    }
}

#[tokio::test]
async fn a_message_that_nobody_completes_is_delivered_again() {
    let world = world().await;
    let mut device = subscribed(&world, QoS::Level1).await;
    send(&world, message("m1", Ack::Full));
    let first = published(&mut device).await;
    world.hub.skew_clock(61);
    let second = published(&mut device).await;
    assert_eq!(second.payload, first.payload);
    acknowledge(&mut device, &first).await;
    assert_eq!(waiting(&world).await, 1, "its first lock is lost");
    acknowledge(&mut device, &second).await;
    assert_eq!(waiting(&world).await, 0);
}

#[tokio::test]
async fn a_kept_session_gets_on_reconnect_what_it_had_not_acknowledged_and_what_came_meanwhile() {
    let world = world().await;
    let mut first = subscribed(&world, QoS::Level1).await;
    send(&world, message("m1", Ack::None));
    published(&mut first).await;
    first.send(Packet::Disconnect).await;
    first.is_closed().await;
    send(&world, message("m2", Ack::None));
    let (mut second, connack) = world.connect(kept()).await;
    assert!(connack.session_present);
    for id in ["m1", "m2"] {
        assert_eq!(&published(&mut second).await.payload[..], id.as_bytes(), "without a SUBSCRIBE");
    }
}

#[tokio::test]
async fn a_takeover_gives_the_new_connection_what_the_old_one_held() {
    let world = world().await;
    let mut first = subscribed(&world, QoS::Level1).await;
    send(&world, message("m1", Ack::None));
    published(&mut first).await;
    let (mut second, _) = world.connect(kept()).await;
    assert_eq!(&published(&mut second).await.payload[..], b"m1");
}

#[tokio::test]
async fn a_clean_session_discards_what_waits() {
    let world = world().await;
    send(&world, message("m1", Ack::Negative));
    world.device("d1").await;
    assert_eq!(waiting(&world).await, 0);
    assert_eq!(outcomes(&world).await, [("m1".to_owned(), "Purged")]);
}

#[tokio::test]
async fn a_message_expires_unread_and_its_sender_hears_of_it() {
    let world = world().await;
    send(&world, message("default", Ack::Negative));
    let soon = time::OffsetDateTime::now_utc() + time::Duration::minutes(5);
    send(&world, CloudMessage { expires_at: Some(soon), ..message("soon", Ack::Full) });
    send(&world, CloudMessage { expires_at: Some(soon), ..message("unasked", Ack::Positive) });
    world.hub.skew_clock(301);
    assert_eq!(outcomes(&world).await, [("soon".to_owned(), "Expired")]);
    world.hub.skew_clock(3601);
    assert_eq!(outcomes(&world).await, [("default".to_owned(), "Expired")]);
    assert_eq!((waiting(&world).await, world.hub.counters().c2d_expired), (json!(0), 3));
}

#[tokio::test]
async fn a_purge_empties_the_queue_and_says_how_many_there_were() {
    let world = world().await;
    send(&world, message("m1", Ack::Full));
    send(&world, message("m2", Ack::Positive));
    let (status, answer) = world.call(Method::DELETE, "/devices/d1/commands", "", Value::Null).await;
    let expected = json!({"deviceId": "d1", "totalMessagesPurged": 2, "moduleId": null});
    assert_eq!((status, answer), (StatusCode::OK, expected));
    assert_eq!(outcomes(&world).await, [("m1".to_owned(), "Purged")]);
    let (status, _) = world.call(Method::DELETE, "/devices/none/commands", "", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_deleted_device_leaves_no_message_without_an_outcome() {
    let world = world().await;
    let _device = subscribed(&world, QoS::Level1).await;
    send(&world, message("m1", Ack::Full));
    let (status, _) = world.call(Method::DELETE, "/devices/d1", "stale", Value::Null).await;
    assert_eq!((status, waiting(&world).await), (StatusCode::PRECONDITION_FAILED, json!(1)));
    let (status, _) = world.call(Method::DELETE, "/devices/d1", "*", Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(outcomes(&world).await, [("m1".to_owned(), "Purged")]);
}

#[tokio::test]
async fn a_full_queue_and_an_unknown_device_take_nothing() {
    let world = world().await;
    (0..50).for_each(|_| send(&world, CloudMessage::default()));
    for (id, code) in [("d1", Code::DeviceMaximumQueueDepthExceeded), ("none", Code::DeviceNotFound)] {
        let refused = world.hub.send_to_device(id, CloudMessage::default()).await.map_err(|error| error.code);
        assert_eq!(refused, Err(code));
    }
    assert_eq!(waiting(&world).await, 50);
}

#[tokio::test]
async fn a_message_that_fits_a_topic_only_without_an_id_is_refused() {
    let world = world().await;
    let of = |length: usize| CloudMessage {
        properties: vec![("k".into(), Some("v".repeat(length)))],
        ..CloudMessage::default()
    };
    let fixed = devicebound::topic("d1", &of(0)).len();
    let id = "%24.mid=&".len() + uuid::Uuid::nil().to_string().len();
    let longest = devicebound::MAX_TOPIC_BYTES - fixed - id;
    let refused = world.hub.send_to_device("d1", of(longest + 1)).await.map_err(|error| error.code);
    assert_eq!(refused, Err(Code::MessageTooLarge));
    let mut device = subscribed(&world, QoS::Level1).await;
    send(&world, of(longest));
    let publish = published(&mut device).await;
    assert_eq!(publish.topic_name.len(), devicebound::MAX_TOPIC_BYTES);
    acknowledge(&mut device, &publish).await;
}
