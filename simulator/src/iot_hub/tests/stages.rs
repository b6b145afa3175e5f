//! Rules at every stage of the hub, on real sockets.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use mqtt_proto::QoS;
use mqtt_proto::v3::{ConnectReturnCode, Packet, SubscribeReturnCode};
use serde_json::{Value, json};

use super::world::{FAR_FUTURE, HOST, PATIENCE, World, connect, fleet_token, key};
use crate::eventually::eventually;
use crate::faults::{Action, Rule, Stage};
use crate::iot_hub::BUILT_IN_EVENTS;
use crate::iot_hub::sas::mint;
use crate::iot_hub::topic::TWIN_ANSWERS;

/// Long enough for a loopback answer, short enough to wait for none.
const A_WHILE: Duration = Duration::from_millis(200);
const DELAY_MS: u64 = 80;

fn once(stage: Stage, action: Action) -> Rule {
    let delay_ms = (action == Action::Delay).then_some(DELAY_MS);
    Rule { times: Some(1), delay_ms, ..Rule::new(stage, action) }
}

async fn world() -> World {
    let world = World::start().await;
    world.create("d1").await;
    world
}

/// Whether this takes as long as the delay of a rule.
async fn is_delayed(exchange: impl Future<Output = ()>) -> bool {
    let start = Instant::now();
    exchange.await;
    start.elapsed() >= Duration::from_millis(DELAY_MS)
}

#[tokio::test]
async fn sockets_are_closed_ignored_aborted_and_delayed_once_each() {
    let world = world().await;
    for stage in [Stage::Tcp, Stage::Tls] {
        world.fault(once(stage, Action::Refuse));
        let error = world.tls_error().await;
        assert_eq!(error.contains("HandshakeFailure"), stage == Stage::Tls, "{stage:?}: {error}");
        assert!(world.socket().await.is_some(), "{stage:?}");
        world.fault(once(stage, Action::Drop));
        assert!(tokio::time::timeout(A_WHILE, world.socket()).await.is_err(), "{stage:?}");
        world.fault(once(stage, Action::Delay));
        assert!(is_delayed(async { assert!(world.socket().await.is_some()) }).await, "{stage:?}");
    }
}

#[tokio::test]
async fn a_connect_is_closed_ignored_and_delayed_without_a_session() {
    let world = world().await;
    let packet = || connect("d1", &fleet_token());
    world.fault(once(Stage::Connect, Action::Close));
    world.dial(packet()).await.is_closed().await;
    world.fault(once(Stage::Connect, Action::Drop));
    world.dial(packet()).await.hears_nothing_for(A_WHILE).await;
    assert_eq!(world.hub.counters().connects, 0);
    world.fault(once(Stage::Connect, Action::Delay));
    assert!(is_delayed(async { drop(world.device("d1").await) }).await);
}

#[tokio::test]
async fn a_connack_is_refused_throttled_lost_and_delayed() {
    let world = world().await;
    let packet = || connect("d1", &fleet_token());
    for (action, code) in
        [(Action::Refuse, ConnectReturnCode::NotAuthorized), (Action::Throttle, ConnectReturnCode::ServerUnavailable)]
    {
        world.fault(once(Stage::Connack, action));
        let (mut device, connack) = world.connect(packet()).await;
        assert_eq!((connack.code, connack.session_present), (code, false));
        device.is_closed().await;
    }
    let counters = world.hub.counters();
    assert_eq!((counters.connects, counters.connects_refused), (0, 1), "no session is opened");
    world.fault(once(Stage::Connack, Action::Close));
    world.dial(packet()).await.is_closed().await;
    world.fault(once(Stage::Connack, Action::Drop));
    let mut mute = world.dial(packet()).await;
    let opened = eventually(PATIENCE, || world.hub.counters().connects == 2).await;
    assert!(opened, "the hub believes that these are open");
    mute.hears_nothing_for(A_WHILE).await;
    mute.telemetry("", b"the session is there").await;
    world.fault(once(Stage::Connack, Action::Delay));
    assert!(is_delayed(async { drop(world.device("d1").await) }).await);
}

#[tokio::test]
async fn a_suback_is_refused_lost_and_delayed() {
    let world = world().await;
    let mut device = world.device("d1").await;
    world.fault(once(Stage::Suback, Action::Refuse));
    let suback = device.subscribe(&[(TWIN_ANSWERS, QoS::Level0)]).await;
    assert_eq!(suback.topics, [SubscribeReturnCode::Failure]);
    world.fault(once(Stage::Suback, Action::Delay));
    assert!(is_delayed(async { drop(device.subscribe(&[(TWIN_ANSWERS, QoS::Level0)]).await) }).await);
    world.fault(once(Stage::Suback, Action::Drop));
    device.send_subscribe(&[("t/1", QoS::Level0)]).await;
    device.hears_nothing_for(A_WHILE).await;
    world.fault(once(Stage::Suback, Action::Close));
    device.send_subscribe(&[("t/2", QoS::Level0)]).await;
    device.is_closed().await;
}

#[tokio::test]
async fn a_message_is_lost_before_it_is_stored_at_publish_and_after_it_at_puback() {
    for (stage, action, stored) in [
        (Stage::Publish, Action::Close, 0),
        (Stage::Publish, Action::Drop, 0),
        (Stage::Puback, Action::Close, 1),
        (Stage::Puback, Action::Drop, 1),
    ] {
        let world = world().await;
        let mut device = world.device("d1").await;
        world.fault(Rule { device: Some("d1".into()), ..once(stage, action) });
        device.send_telemetry("", b"x").await;
        if action == Action::Close {
            device.is_closed().await;
        } else {
            device.hears_nothing_for(A_WHILE).await;
            device.telemetry("", b"the next").await;
        }
        let expected = stored + usize::from(action == Action::Drop);
        assert_eq!(world.event_count(BUILT_IN_EVENTS), expected, "{stage:?} {action:?}");
        world.fault(once(stage, Action::Delay));
        let mut device = world.device("d1").await;
        assert!(is_delayed(device.telemetry("", b"late")).await, "{stage:?}");
    }
}

#[tokio::test]
async fn a_twin_request_is_throttled_and_refused_without_its_work_and_its_answer_lost_after_it() {
    let world = world().await;
    let mut device = world.device("d1").await;
    device.watch_twin().await;
    for (action, status, number) in [(Action::Throttle, 429, 429_001), (Action::Refuse, 503, 503_001)] {
        world.fault(once(Stage::TwinAnswer, action));
        let (topic, body) = device.patch(&json!({"a": 1})).await;
        assert_eq!(topic, format!("$iothub/twin/res/{status}/?$rid=p"));
        let body: Value = serde_json::from_slice(&body).expect("it is JSON");
        assert_eq!(body["errorCode"], number);
    }
    world.fault(once(Stage::TwinAnswer, Action::Throttle));
    assert_eq!(device.twin("GET/?$rid=g", b"").await.0, "$iothub/twin/res/429/?$rid=g");
    assert_eq!(world.hub.counters().twins_patched, 0);
    world.fault(once(Stage::TwinAnswer, Action::Delay));
    assert!(is_delayed(async { drop(device.patch(&json!({"a": 2})).await) }).await);
    world.fault(once(Stage::TwinAnswer, Action::Drop));
    device.send_patch(&json!({"a": 3})).await;
    device.hears_nothing_for(A_WHILE).await;
    world.fault(once(Stage::TwinAnswer, Action::Close));
    device.send_patch(&json!({"a": 4})).await;
    device.is_closed().await;
    assert_eq!(world.hub.counters().twins_patched, 3);
}

#[tokio::test]
async fn a_delayed_disconnect_keeps_the_socket_open_for_a_while() {
    let world = world().await;
    let mut device = world.device("d1").await;
    world.fault(once(Stage::Disconnect, Action::Delay));
    assert!(
        is_delayed(async {
            device.send(Packet::Disconnect).await;
            device.is_closed().await;
        })
        .await
    );
}

#[tokio::test]
async fn what_ends_a_connection_does_not_wait_for_a_packet_that_is_being_handled() {
    let world = world().await;
    let mut device = world.device("d1").await;
    world.fault(Rule { delay_ms: Some(600_000), ..once(Stage::Puback, Action::Delay) });
    device.send_telemetry("", b"x").await;
    world.events(BUILT_IN_EVENTS, 1).await;
    world.hub.skew_clock(100 * 366 * 86_400); // the token has expired
    device.is_closed().await;
}

#[tokio::test]
async fn a_service_call_is_throttled_and_refused_without_its_work_and_its_answer_lost_after_it() {
    let world = world().await;
    let token = mint(HOST, &key("owner"), FAR_FUTURE, Some("owner"));
    world.fault(once(Stage::Rest, Action::Throttle));
    let answer = world.request(Method::GET, "/devices/d1", &token).send().await.expect("the hub answers");
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["connection"], "close");
    assert!(!answer.headers().contains_key("retry-after"));
    world.fault(once(Stage::Rest, Action::Refuse));
    let answer = world.request(Method::GET, "/devices/d1", &token).send().await.expect("the hub answers");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.fault(once(Stage::Rest, Action::Delay));
    assert!(is_delayed(async { drop(world.create("d2").await) }).await);

    let put = |id: &str| {
        let request = world.request(Method::PUT, &format!("/devices/{id}"), &token);
        request.json(&json!({"deviceId": id}))
    };
    let for_device = |id: &str, action| Rule { device: Some(id.into()), ..Rule::new(Stage::Rest, action) };
    world.fault(for_device("d3", Action::Drop));
    let mut unanswered = tokio::spawn(put("d3").send());
    assert!(eventually(PATIENCE, || world.hub.device_ids().len() == 3).await, "the work is done");
    assert!(tokio::time::timeout(A_WHILE, &mut unanswered).await.is_err());
    unanswered.abort();
    world.fault(for_device("d4", Action::Close));
    assert!(put("d4").send().await.is_err_and(|error| !error.is_timeout()));
    assert_eq!(world.hub.device_ids(), ["d1", "d2", "d3", "d4"], "the work was done");
}

#[tokio::test]
async fn faults_of_one_device_leave_another_alone() {
    let world = world().await;
    world.create("d2").await;
    world.fault(Rule { device: Some("d1".into()), ..Rule::new(Stage::Publish, Action::Close) });
    let (mut struck, mut other) = (world.device("d1").await, world.device("d2").await);
    struck.send_telemetry("", b"x").await;
    struck.is_closed().await;
    other.telemetry("", b"x").await;
}
