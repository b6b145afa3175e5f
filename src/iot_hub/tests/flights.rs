//! What a flight looks like on the wire, and what becomes of it when the hub misbehaves.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet, Publish};
use serde_json::json;
use tokio::time::Instant;

use super::scripted::{Peer, ScriptedHub};
use super::*;
use crate::config::Pipeline;
use crate::failure::Class;
use crate::iot_hub::session::TWIN_PATIENCE;
use crate::iot_hub::{HubError, MAX_MESSAGE_BYTES, TwinAnswer};

const SHORT: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_flight_is_one_write_behind_connack() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", both("m1", 1));
    let (mut peer, connect) = hub.accept().await;
    assert_eq!((connect.client_id.as_str(), connect.clean_session), ("eui-1", false));
    let login = connect.login.expect("a login");
    assert_eq!(login.username, "sim.azure-devices.net/eui-1/?api-version=2021-04-12");
    assert!(login.password.starts_with("SharedAccessSignature sr=sim.azure-devices.net%2Fdevices&sig="));
    assert!(login.password.ends_with("&skn=bridge"));
    assert!(peer.is_quiet().await);

    peer.connack(ConnectReturnCode::Success).await;
    let packets = peer.read().await;
    let [Packet::Subscribe(subscribe), Packet::Publish(message), Packet::Publish(request)] = &packets[..] else {
        panic!("{packets:?}");
    };
    assert_eq!(subscribe.filters[0].path, "$iothub/twin/res/#");
    assert_eq!(message.topic, "devices/eui-1/messages/events/%24.mid=m1&%24.ct=application%2Fjson&%24.ce=utf-8");
    assert_eq!((message.qos, message.retain, &message.payload[..]), (QoS::AtLeastOnce, false, &b"{}"[..]));
    assert!(request.topic.starts_with("$iothub/twin/PATCH/properties/reported/?$rid="));
    assert_eq!(&request.payload[..], br#"{"value":1}"#);
    peer.puback(message).await;
    peer.answer_twin(request, 204, Some(7), "").await;
    let landing = landed(flight).await;
    assert!(is_sent(&landing));
    assert!(matches!(landing.twin, Some(Ok(TwinAnswer::Patched { version: 7 }))));
}

#[tokio::test]
async fn with_pipeline_connect_everything_is_one_write() {
    let hub = ScriptedHub::start().await;
    let client = hub.client_with(|config| config.pipeline = Pipeline::Connect);
    let flight = fly(&client, "eui-1", both("m1", 1));
    let (mut peer, _) = hub.accept().await;
    assert!(peer.has_more(), "it comes with CONNECT");
    let packets = peer.publishes().await;
    peer.connack(ConnectReturnCode::Success).await;
    peer.answer_twin(&packets[1], 204, Some(2), "").await;
    peer.puback(&packets[0]).await;
    let landing = landed(flight).await;
    assert!(is_sent(&landing) && matches!(landing.twin, Some(Ok(_))));
}

#[tokio::test]
async fn each_part_of_a_flight_has_its_own_fate() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let flight = fly(&client, "eui-1", both("m1", 1));
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    peer.answer_twin(&sent[1], 400, None, r#"{"errorCode":400004,"message":"x"}"#).await;
    peer.puback(&sent[0]).await;
    let landing = landed(flight).await;
    assert!(is_sent(&landing));
    let error = landing.twin.expect("asked for").expect_err("refused");
    assert_eq!(error, HubError::Twin { device: device("eui-1").id, status: 400, code: "400004".to_owned() });
    assert_eq!(error.class(), Class::Poison);

    let flight = fly_for(&client, "eui-1", both("m2", 2), SHORT);
    let sent = peer.publishes().await;
    peer.answer_twin(&sent[1], 204, Some(3), "").await;
    let landing = landed(flight).await;
    assert!(matches!(landing.twin, Some(Ok(_))));
    assert!(matches!(landing.telemetry, Some(Err(HubError::Timeout { what: "PUBACK", .. }))));
}

#[tokio::test]
async fn a_read_gives_the_reported_properties_and_their_version() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let flight = fly(&client, "eui-1", twin(TwinCall::Read));
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    assert!(sent[0].topic.starts_with("$iothub/twin/GET/?$rid="));
    peer.answer_twin(&sent[0], 200, None, r#"{"desired":{"$version":1},"reported":{"a":1,"$version":4}}"#).await;
    let expected = TwinAnswer::Read { reported: reported(json!({"a": 1})), version: 4 };
    assert_eq!(landed(flight).await.twin.expect("asked for").expect("read"), expected);

    let flight = fly(&client, "eui-1", twin(TwinCall::Patch { reported: Map::new(), if_version: Some(4) }));
    let sent = peer.publishes().await;
    assert!(sent[0].topic.ends_with("&$version=4"));
    peer.answer_twin(&sent[0], 412, None, "").await;
    assert!(landed(flight).await.twin.expect("asked for").expect_err("stale").is_stale());
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_with_the_same_message_id() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", both("m1", 1));
    let mut peer = hub.welcome().await;
    let first = peer.publishes().await;
    peer.answer_twin(&first[1], 204, Some(2), "").await;
    assert!(peer.is_quiet().await);
    drop(peer);
    let mut peer = hub.welcome().await;
    let second = peer.publishes().await;
    assert_eq!(second.len(), 1, "the patch was answered");
    assert_eq!(second[0].topic, first[0].topic);
    peer.puback(&second[0]).await;
    assert!(is_sent(&landed(flight).await));
}

#[tokio::test]
async fn a_patch_whose_answer_was_lost_is_made_again() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", twin(patch(1)));
    let mut peer = hub.welcome().await;
    peer.publishes().await;
    drop(peer);
    let mut peer = hub.welcome().await;
    let again = peer.publishes().await;
    assert_eq!(&again[0].payload[..], br#"{"value":1}"#);
    peer.answer_twin(&again[0], 204, Some(2), "").await;
    assert!(matches!(landed(flight).await.twin, Some(Ok(_))));
}

#[tokio::test]
async fn a_retry_that_cannot_finish_is_not_begun() {
    let hub = ScriptedHub::start().await;
    let start = Instant::now();
    let flight = fly_for(&hub.client(), "eui-1", message("m1"), Duration::from_secs(2));
    let mut peer = hub.welcome().await;
    peer.publishes().await;
    tokio::time::sleep_until(start + Duration::from_millis(1800)).await;
    drop(peer);
    let error = landed(flight).await.telemetry.expect("asked for").expect_err("lost");
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert_eq!(error.class(), Class::Retry);
    assert!(hub.is_left_alone().await);
}

#[tokio::test]
async fn a_silent_hub_is_left_by_the_deadline() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    for step in 0..3 {
        let start = Instant::now();
        let flight = fly_for(&client, "eui-1", both("m1", 1), SHORT);
        let silent = async {
            match step {
                0 => drop((hub.accept_tcp().await, tokio::time::sleep(Duration::from_secs(60)).await)),
                1 => drop((hub.accept().await, tokio::time::sleep(Duration::from_secs(60)).await)),
                _ => drop((hub.welcome().await, tokio::time::sleep(Duration::from_secs(60)).await)),
            }
        };
        let landing = tokio::select! { landing = landed(flight) => landing, () = silent => panic!("too late") };
        assert!(start.elapsed() < SHORT * 2, "step {step}: {:?}", start.elapsed());
        assert_eq!(landing.telemetry.expect("asked for").expect_err("silent").class(), Class::Retry);
        assert_eq!(landing.twin.expect("asked for").expect_err("silent").class(), Class::Retry);
    }
}

#[tokio::test]
async fn a_second_uplink_within_the_linger_rides_on_the_same_session() {
    let hub = ScriptedHub::start().await;
    let client = hub.client_with(|config| config.session_linger = Duration::from_millis(400));
    let first = fly(&client, "eui-1", both("m1", 1));
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    peer.puback(&sent[0]).await;
    peer.answer_twin(&sent[1], 204, Some(2), "").await;
    assert!(is_sent(&landed(first).await));

    let second = fly(&client, "eui-1", both("m2", 2));
    let packets = peer.read().await;
    let [Packet::Publish(sent), Packet::Publish(request)] = &packets[..] else { panic!("{packets:?}") };
    peer.puback(sent).await;
    peer.answer_twin(request, 204, Some(3), "").await;
    assert!(is_sent(&landed(second).await));
    assert_eq!(peer.read().await, [Packet::Disconnect]);
    assert!(peer.has_ended().await);

    let third = fly(&client, "eui-1", message("m3"));
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(third).await));
}

#[tokio::test]
async fn what_arrives_while_a_session_opens_leaves_with_its_first_write() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let first = fly(&client, "eui-1", message("m1"));
    let (mut peer, _) = hub.accept().await;
    let second = fly(&client, "eui-1", message("m2"));
    assert!(peer.is_quiet().await);
    peer.connack(ConnectReturnCode::Success).await;
    let sent = peer.publishes().await;
    assert!(sent[0].topic.contains("=m1&") && sent[1].topic.contains("=m2&"));
    peer.puback(&sent[1]).await;
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(first).await) && is_sent(&landed(second).await));
}

#[tokio::test]
async fn two_devices_do_not_wait_for_each_other() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let slow = fly(&client, "eui-1", message("m1"));
    let (_silent, _) = hub.accept().await;
    let fast = fly(&client, "eui-2", message("m2"));
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(fast).await));
    assert!(!slow.is_finished());
}

#[tokio::test]
async fn a_session_stays_usable_when_a_caller_gives_up() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let first = fly_for(&client, "eui-1", message("m1"), SHORT);
    let mut peer = hub.welcome().await;
    let late = peer.publishes().await;
    assert!(landed(first).await.telemetry.expect("asked for").is_err());
    peer.puback(&late[0]).await;

    let second = fly(&client, "eui-1", message("m2"));
    let sent = peer.publishes().await;
    assert_ne!(sent[0].pkid, late[0].pkid);
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(second).await));
}

#[tokio::test]
async fn two_patches_of_one_device_are_never_under_way_at_once() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let first = fly(&client, "eui-1", twin(patch(1)));
    let mut peer = hub.welcome().await;
    let one = peer.publishes().await;
    let second = fly(&client, "eui-1", both("m2", 2));
    let message = peer.publishes().await;
    assert!(message.len() == 1 && message[0].topic.starts_with("devices/"), "telemetry does not wait, the patch does");
    peer.puback(&message[0]).await;
    assert!(peer.is_quiet().await);
    peer.answer_twin(&one[0], 204, Some(2), "").await;
    let two = peer.publishes().await;
    assert_eq!(&two[0].payload[..], br#"{"value":2}"#);
    peer.answer_twin(&two[0], 204, Some(3), "").await;
    assert!(matches!(landed(first).await.twin, Some(Ok(TwinAnswer::Patched { version: 2 }))));
    assert!(matches!(landed(second).await.twin, Some(Ok(TwinAnswer::Patched { version: 3 }))));
}

#[tokio::test]
async fn a_session_stays_for_the_patch_whose_caller_gave_up() {
    let hub = ScriptedHub::start().await;
    let client = hub.client_with(|config| config.session_linger = Duration::ZERO);
    let first = fly_for(&client, "eui-1", twin(patch(1)), SHORT);
    let mut peer = hub.welcome().await;
    let one = last_publish(&mut peer).await;
    assert!(matches!(landed(first).await.twin, Some(Err(HubError::Timeout { .. }))));
    assert!(peer.is_quiet().await, "no DISCONNECT");

    let second = fly(&client, "eui-1", twin(patch(2)));
    assert!(peer.is_quiet().await && hub.is_left_alone().await, "the second patch waits for the first");
    peer.answer_twin(&one, 204, Some(2), "").await;
    let two = last_publish(&mut peer).await;
    assert_eq!(&two.payload[..], br#"{"value":2}"#);
    peer.answer_twin(&two, 204, Some(3), "").await;
    assert!(matches!(landed(second).await.twin, Some(Ok(TwinAnswer::Patched { version: 3 }))));
    assert_eq!(peer.read().await, [Packet::Disconnect]);
}

#[tokio::test]
async fn a_patch_that_is_never_answered_holds_its_session_no_longer_than_the_patience() {
    let hub = ScriptedHub::start().await;
    let client = hub.client_with(|config| config.session_linger = Duration::ZERO);
    let flight = fly_for(&client, "eui-1", twin(patch(1)), SHORT);
    let mut peer = hub.welcome().await;
    last_publish(&mut peer).await;
    let sent = Instant::now();
    landed(flight).await;
    assert_eq!(peer.read().await, [Packet::Disconnect]);
    assert!(sent.elapsed() < TWIN_PATIENCE + SHORT, "{:?}", sent.elapsed());
}

#[tokio::test]
async fn close_does_not_wait_for_an_answer_that_nobody_asks_for() {
    let hub = ScriptedHub::start().await;
    let client = hub.client_with(|config| config.session_linger = Duration::ZERO);
    let flight = fly_for(&client, "eui-1", twin(patch(1)), SHORT);
    let mut peer = hub.welcome().await;
    last_publish(&mut peer).await;
    landed(flight).await;
    let start = Instant::now();
    client.close().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(peer.read().await, [Packet::Disconnect]);
}

/// The last PUBLISH of one read.
async fn last_publish(peer: &mut Peer) -> Publish {
    peer.publishes().await.pop().expect("a PUBLISH")
}

#[tokio::test]
async fn a_message_for_another_client_of_the_device_stays_unacknowledged() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", message("m1"));
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    let mut command = Publish::new("devices/eui-1/messages/devicebound/x=y", QoS::AtLeastOnce, "open");
    command.pkid = 9;
    peer.send(Packet::Publish(command)).await;
    assert!(peer.is_quiet().await);
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(flight).await));
}

#[tokio::test]
async fn garbage_ends_the_session_and_not_the_flight() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", message("m1"));
    let mut peer = hub.welcome().await;
    peer.publishes().await;
    peer.write(&[0xff; 64]).await;
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(flight).await));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_sent_and_its_patch_is() {
    let hub = ScriptedHub::start().await;
    let mut flight = both("m1", 1);
    flight.telemetry.as_mut().expect("given").body = Bytes::from(vec![b' '; MAX_MESSAGE_BYTES]);
    let flight = fly(&hub.client(), "eui-1", flight);
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    assert_eq!(sent.len(), 1);
    peer.answer_twin(&sent[0], 204, Some(2), "").await;
    let landing = landed(flight).await;
    assert_eq!(landing.telemetry.expect("asked for").expect_err("too large").class(), Class::Poison);
    assert!(matches!(landing.twin, Some(Ok(_))));
}

#[tokio::test]
async fn close_ends_a_lingering_session_in_order_and_takes_no_more_flights() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let flight = fly(&client, "eui-1", message("m1"));
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    peer.puback(&sent[0]).await;
    landed(flight).await;
    let start = Instant::now();
    client.close().await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(peer.read().await, [Packet::Disconnect]);
    let refused = landed(fly(&client, "eui-1", message("m2"))).await;
    assert!(matches!(refused.telemetry, Some(Err(HubError::Closed))));
}
