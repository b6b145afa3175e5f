use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use mqtt_proto::v3::{Connect, ConnectReturnCode, Packet, Publish, Subscribe, SubscribeReturnCode};
use mqtt_proto::{Pid, QoS, QosPid};
use serde_json::{Value, json};

use super::world::{FAR_FUTURE, HOST, World, connect, fleet_token, key};
use crate::event_hubs::PropertyValue;
use crate::iot_hub::BUILT_IN_EVENTS;
use crate::iot_hub::sas::mint;
use crate::iot_hub::topic::TWIN_ANSWERS;

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("it is JSON")
}

#[tokio::test]
async fn telemetry_arrives_byte_for_byte_before_its_puback() {
    let world = World::start().await;
    let device = world.create("d1").await;
    let body = b"{\"b\": 1,\n \"a\":\t2.0 }\xff";
    let bag = "%24.mid=m.1&$.ct=application%2Fjson&%24.ce=utf-8&fPort=5&k%20y=v%26/";
    world.device("d1").await.telemetry(bag, body).await;
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 1, "PUBACK comes after the message is stored");

    let stored = world.events(BUILT_IN_EVENTS, 1).await;
    let event = &stored[0].event;
    assert_eq!(&event.body[..], body);
    assert_eq!(event.system["message-id"], "m.1".into());
    assert_eq!(event.system["content-type"], "application/json".into());
    assert_eq!(event.properties["k y"], "v&".into());
    assert_eq!(event.properties["fPort"], "5".into());
    assert_eq!(event.annotations["iothub-connection-device-id"], "d1".into());
    assert_eq!(event.annotations["iothub-message-source"], "Telemetry".into());
    let generation = device["generationId"].as_str().expect("it is a text");
    assert_eq!(event.annotations["iothub-connection-auth-generation-id"], generation.into());
    let PropertyValue::String(method) = &event.annotations["iothub-connection-auth-method"] else { panic!("a text") };
    assert!(method.contains(r#""scope":"hub""#), "{method}");
    assert_eq!(event.partition_key.as_deref(), Some("d1"));
}

#[tokio::test]
async fn a_device_key_opens_the_door_and_shows_in_the_auth_method() {
    let world = World::start().await;
    let device = world.create("d1").await;
    let secondary = device["authentication"]["symmetricKey"]["secondaryKey"].as_str().expect("it was minted");
    let secondary = BASE64_STANDARD.decode(secondary).expect("it is base64");
    let token = mint(&format!("{HOST}/devices/d1"), &secondary, FAR_FUTURE, None);
    let (mut session, connack) = world.connect(connect("d1", &token)).await;
    assert_eq!(connack.code, ConnectReturnCode::Accepted);
    session.telemetry("", b"x").await;
    let event = &world.events(BUILT_IN_EVENTS, 1).await[0].event;
    let PropertyValue::String(method) = &event.annotations["iothub-connection-auth-method"] else { panic!("a text") };
    assert!(method.contains(r#""scope":"device""#), "{method}");
}

#[tokio::test]
async fn a_connection_that_may_not_be_is_answered_5_and_closed() {
    let world = World::start().await;
    world.create("d1").await;
    world.create("off").await;
    assert!(world.hub.set_device_enabled("off", false));
    let fleet = format!("{HOST}/devices");
    let refused = [
        connect("d1", &mint(&fleet, b"wrong key", FAR_FUTURE, Some("device"))),
        connect("d1", &mint(&fleet, &key("device"), 1_700_000_000, Some("device"))),
        connect("d1", &mint(&fleet, &key("service"), FAR_FUTURE, Some("service"))),
        connect("unknown", &fleet_token()),
        connect("off", &fleet_token()),
        Connect::new("d1".into(), 60),
    ];
    let count = refused.len() as u64;
    for packet in refused {
        let (mut device, connack) = world.connect(packet).await;
        assert_eq!((connack.code, connack.session_present), (ConnectReturnCode::NotAuthorized, false));
        device.is_closed().await;
    }
    assert_eq!((world.hub.counters().connects, world.hub.counters().connects_refused), (0, count));
}

#[tokio::test]
async fn a_new_connection_takes_over_and_the_old_socket_closes() {
    let world = World::start().await;
    world.create("d1").await;
    world.create("d2").await;
    let mut first = world.device("d1").await;
    let mut other = world.device("d2").await;
    let mut second = world.device("d1").await;
    first.is_closed().await;
    second.telemetry("", b"second").await;
    other.telemetry("", b"other").await;
    assert_eq!(world.hub.counters().takeovers, 1);
    assert_eq!(world.hub.twin("d1").expect("it is there")["connectionState"], "Connected");
}

#[tokio::test]
async fn what_is_sent_behind_connect_is_handled_after_connack() {
    let world = World::start().await;
    world.create("d1").await;
    let mut socket = world.socket().await.expect("the hub accepts");
    let publish = |topic: &str, pid| Publish::new(pid, topic.try_into().expect("a topic"), "{}".into());
    let pid = |n: u16| Pid::try_from(n).expect("it is not 0");
    let subscribe = Subscribe::new(pid(1), vec![(TWIN_ANSWERS.try_into().expect("a filter"), QoS::Level0)]);
    let flight: [Packet; 5] = [
        connect("d1", &fleet_token()).into(),
        subscribe.into(),
        publish("devices/d1/messages/events/", QosPid::Level1(pid(2))).into(),
        publish("$iothub/twin/PATCH/properties/reported/?$rid=7", QosPid::Level1(pid(3))).into(),
        Packet::Disconnect,
    ];
    for packet in flight {
        socket.feed(packet).await.expect("the packets are valid");
    }
    socket.flush().await.expect("the socket takes them");
    let mut answers = Vec::new();
    while let Some(Ok(packet)) = socket.next().await {
        answers.push(match packet {
            Packet::Publish(publish) => publish.topic_name.to_string(),
            packet => format!("{:?}", packet.get_type()),
        });
    }
    assert_eq!(answers, ["Connack", "Suback", "Puback", "Puback", "$iothub/twin/res/204/?$rid=7&$version=2"]);
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 1);
}

#[tokio::test]
async fn a_kept_session_is_present_again_with_its_subscriptions() {
    let world = World::start().await;
    world.create("d1").await;
    let kept = || {
        let mut packet = connect("d1", &fleet_token());
        packet.clean_session = false;
        packet
    };
    let (mut first, connack) = world.connect(kept()).await;
    assert!(!connack.session_present);
    first.watch_twin().await;
    first.send(Packet::Disconnect).await;
    first.is_closed().await;
    let (mut second, connack) = world.connect(kept()).await;
    assert!(connack.session_present);
    assert_eq!(second.patch(&json!({"a": 1})).await.0, "$iothub/twin/res/204/?$rid=p&$version=2");
    let (_, connack) = world.connect(connect("d1", &fleet_token())).await;
    assert!(!connack.session_present, "a clean session discards what was kept");
    let (_, connack) = world.connect(kept()).await;
    assert!(!connack.session_present);
}

#[tokio::test]
async fn a_device_that_breaks_the_protocol_is_closed() {
    let world = World::start().await;
    world.create("d1").await;
    let large = vec![b'x'; 256 * 1024 + 1];
    for (topic, qos, body) in [
        ("devices/d2/messages/events/", QoS::Level1, &b"x"[..]),
        ("tele/d1", QoS::Level0, b"x"),
        ("devices/d1/messages/events/", QoS::Level1, &large),
    ] {
        let mut device = world.device("d1").await;
        let publish = device.publish(topic, qos, body);
        device.send(publish.into()).await;
        device.is_closed().await;
    }
    let mut device = world.device("d1").await;
    device.send(connect("d1", &fleet_token()).into()).await;
    device.is_closed().await;
    let mut socket = world.socket().await.expect("the hub accepts");
    socket.send(Packet::Pingreq).await.expect("the socket takes it");
    assert!(matches!(socket.next().await, None | Some(Err(_))), "the first packet must be CONNECT");
    assert_eq!(world.event_count(BUILT_IN_EVENTS), 0);
}

#[tokio::test]
async fn a_message_of_the_largest_size_is_taken() {
    let world = World::start().await;
    world.create("d1").await;
    let body = vec![b'x'; 256 * 1024];
    world.device("d1").await.telemetry("", &body).await;
    assert_eq!(&world.events(BUILT_IN_EVENTS, 1).await[0].event.body[..], body);
}

#[tokio::test]
async fn a_subscription_gets_at_most_quality_1_and_the_sixth_fails() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    let filters = ["a", "b", "c", "d", "e", "f"].map(|filter| (filter, QoS::Level2));
    let suback = device.subscribe(&filters).await;
    let mut expected = vec![SubscribeReturnCode::MaxLevel1; 5];
    expected.push(SubscribeReturnCode::Failure);
    assert_eq!(suback.topics, expected);
    device.send(Packet::Pingreq).await;
    assert_eq!(device.receive().await, Packet::Pingresp);
}

#[tokio::test]
async fn a_silent_device_is_closed_after_one_and_a_half_keep_alives() {
    let world = World::start().await;
    world.create("d1").await;
    let mut packet = connect("d1", &fleet_token());
    packet.keep_alive = 1;
    let (mut device, _) = world.connect(packet).await;
    let before = tokio::time::Instant::now();
    device.is_closed().await;
    let waited = before.elapsed().as_secs_f64();
    assert!((1.4..9.0).contains(&waited), "{waited}");
}

#[tokio::test]
async fn a_device_reads_its_twin_without_tags_and_metadata() {
    let world = World::start().await;
    world.create("d1").await;
    world.patch_twin("d1", json!({"tags": {"secret": true}, "properties": {"desired": {"interval": 600}}})).await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    for body in [&b""[..], b" "] {
        let (topic, twin) = device.twin("GET/?$rid=4f", body).await;
        assert_eq!(topic, "$iothub/twin/res/200/?$rid=4f");
        let expected = json!({"desired": {"interval": 600, "$version": 2}, "reported": {"$version": 1}});
        assert_eq!(json_of(&twin), expected);
    }
    assert_eq!(world.hub.counters().twins_read, 2);
}

#[tokio::test]
async fn a_patch_merges_and_one_with_a_bad_key_is_refused_whole() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    let patch = json!({"battery": 87, "gone": 1, "at": {"lat": 1.0}});
    assert_eq!(device.patch(&patch).await, ("$iothub/twin/res/204/?$rid=p&$version=2".into(), "".into()));
    let (topic, error) = device.patch(&json!({"battery": 1, "gateway.id": "x"})).await;
    assert_eq!(topic, "$iothub/twin/res/400/?$rid=p");
    assert_eq!(json_of(&error)["errorCode"], 400_004);
    let (topic, _) = device.twin("PATCH/properties/reported/?$rid=q", b"not json").await;
    assert_eq!(topic, "$iothub/twin/res/400/?$rid=q");
    device.patch(&json!({"gone": null})).await;

    let twin = world.hub.twin("d1").expect("it is there");
    let reported = &twin["properties"]["reported"];
    assert_eq!(
        (&reported["battery"], &reported["at"], &reported["$version"]),
        (&json!(87), &json!({"lat": 1.0}), &json!(3))
    );
    assert_eq!(reported.get("gone"), None);
    let counters = world.hub.counters();
    assert_eq!((counters.twins_patched, counters.twins_refused), (2, 2));
}

#[tokio::test]
async fn a_patch_on_a_stale_version_is_refused() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    let (topic, _) = device.twin("PATCH/properties/reported/?$rid=1&$version=1", b"{\"a\":1}").await;
    assert_eq!(topic, "$iothub/twin/res/204/?$rid=1&$version=2");
    let (topic, error) = device.twin("PATCH/properties/reported/?$rid=2&$version=1", b"{\"a\":2}").await;
    assert_eq!(topic, "$iothub/twin/res/412/?$rid=2");
    assert_eq!(json_of(&error)["errorCode"], 412_001);
    assert_eq!(world.hub.twin("d1").expect("it is there")["properties"]["reported"]["a"], 1);
}

#[tokio::test]
async fn without_its_subscription_a_patch_is_done_and_its_answer_lost() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    let publish = device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", QoS::Level1, b"{\"a\":1}");
    device.send(publish.into()).await;
    assert!(matches!(device.receive().await, Packet::Puback(_)));
    device.send(Packet::Pingreq).await;
    assert_eq!(device.receive().await, Packet::Pingresp);
    assert_eq!(world.hub.twin("d1").expect("it is there")["properties"]["reported"]["a"], 1);
}

#[tokio::test]
async fn a_watching_device_hears_of_desired_changes_only() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    world.patch_twin("d1", json!({"tags": {"a": 1}})).await;
    world.patch_twin("d1", json!({"properties": {"desired": {"x": 1, "gone": null}}})).await;
    let (topic, body) = device.hears().await;
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    assert_eq!(json_of(&body), json!({"x": 1, "gone": null, "$version": 2}));
}

#[tokio::test]
async fn answers_have_the_quality_of_the_subscription() {
    let world = World::start().await;
    world.create("d1").await;
    let mut device = world.device("d1").await;
    device.subscribe(&[(TWIN_ANSWERS, QoS::Level1)]).await;
    let get = device.publish("$iothub/twin/GET/?$rid=1", QoS::Level0, b"");
    device.send(get.into()).await;
    let Packet::Publish(answer) = device.receive().await else { panic!("it is the answer") };
    device.send(Packet::Puback(answer.qos_pid.pid().expect("it has quality 1"))).await;
    device.telemetry("", b"still open").await;
}

#[tokio::test]
async fn a_device_that_is_disabled_or_deleted_is_disconnected() {
    let world = World::start().await;
    world.create("d1").await;
    world.create("d2").await;
    let (mut first, mut second) = (world.device("d1").await, world.device("d2").await);
    world.hub.set_device_enabled("d1", false);
    first.is_closed().await;
    world.call(http::Method::DELETE, "/devices/d2", "*", Value::Null).await;
    second.is_closed().await;
    assert_eq!(world.hub.device_ids(), ["d1"]);
}
