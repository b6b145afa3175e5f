//! Direct methods.

use http::{Method, StatusCode};
use mqtt_proto::QoS;
use mqtt_proto::v3::Packet;
use serde_json::{Value, json};

use super::world::{Device, FAR_FUTURE, HOST, World, key};
use crate::iot_hub::methods::METHOD_CALLS;
use crate::iot_hub::sas::mint;

async fn world() -> World {
    let world = World::start().await;
    world.create("d1").await;
    world
}

async fn call(world: &World, body: Value) -> (StatusCode, Value) {
    world.call(Method::POST, "/twins/d1/methods", "", body).await
}

/// Answers the next call and returns its name and payload.
async fn answer(device: &mut Device, status: i32, body: &[u8]) -> (String, Vec<u8>) {
    let (topic, payload) = device.hears().await;
    let (name, rid) = topic
        .strip_prefix("$iothub/methods/POST/")
        .and_then(|rest| rest.split_once("/?$rid="))
        .expect("it is a method call");
    let publish = device.publish(&format!("$iothub/methods/res/{status}/?$rid={rid}"), QoS::Level0, body);
    device.send(publish.into()).await;
    (name.to_owned(), payload.to_vec())
}

/// What the gateway says: a text inside the usual shape.
fn gateway_error(body: &Value) -> Value {
    assert_eq!(body["ExceptionMessage"], "");
    serde_json::from_str(body["Message"].as_str().expect("it is a text")).expect("it is JSON")
}

#[tokio::test]
async fn a_call_reaches_the_device_and_its_answer_the_caller() {
    let world = world().await;
    let mut device = world.device("d1").await;
    device.subscribe(&[(METHOD_CALLS, QoS::Level1)]).await;
    let body = json!({"methodName": "reboot", "payload": {"delay": 5}, "responseTimeoutInSeconds": 5});
    let ((status, answered), heard) = tokio::join!(call(&world, body), answer(&mut device, 201, b"{\"ok\":true}"));
    assert_eq!((status, answered), (StatusCode::OK, json!({"status": 201, "payload": {"ok": true}})));
    assert_eq!(heard, ("reboot".to_owned(), b"{\"delay\":5}".to_vec()));
    assert_eq!(world.hub.counters().methods_called, 1);
}

#[tokio::test]
async fn a_device_that_is_offline_or_does_not_listen_is_not_online() {
    let world = world().await;
    let mut connection = None;
    for _ in 0..2 {
        let (status, body) = call(&world, json!({"methodName": "m"})).await;
        let error = gateway_error(&body);
        assert_eq!((status, &error["errorCode"]), (StatusCode::NOT_FOUND, &json!(404_103)));
        assert!(error["trackingId"].is_string() && error["message"].is_string() && error["timestampUtc"].is_string());
        // The second time it is connected, but has not subscribed.
        connection = Some(world.device("d1").await);
    }
    drop(connection);
    let (status, error) = world.call(Method::POST, "/twins/none/methods", "", json!({"methodName": "m"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(error["Message"].as_str().is_some_and(|text| text.starts_with("ErrorCode:DeviceNotFound")), "{error}");
}

#[tokio::test]
async fn a_call_waits_for_the_device_to_subscribe() {
    let world = world().await;
    let body = json!({"methodName": "m", "connectTimeoutInSeconds": 10});
    let device = async {
        let mut device = world.device("d1").await;
        device.subscribe(&[(METHOD_CALLS, QoS::Level0)]).await;
        answer(&mut device, 200, b"").await
    };
    let ((status, answered), _) = tokio::join!(call(&world, body), device);
    assert_eq!((status, answered), (StatusCode::OK, json!({"status": 200, "payload": null})));
}

#[tokio::test]
async fn a_call_that_is_never_answered_ends_with_its_time_or_the_connection() {
    let world = world().await;
    let mut device = world.device("d1").await;
    device.subscribe(&[(METHOD_CALLS, QoS::Level0)]).await;
    let timeout = (StatusCode::GATEWAY_TIMEOUT, json!(504_101));
    let body = || json!({"methodName": "m", "responseTimeoutInSeconds": 5});
    let (status, error) = call(&world, body()).await;
    assert_eq!((status, gateway_error(&error)["errorCode"].clone()), timeout);
    device.hears().await;
    let leaves = async {
        device.hears().await;
        device.send(Packet::Disconnect).await;
    };
    let started = tokio::time::Instant::now();
    let ((status, error), ()) = tokio::join!(call(&world, body()), leaves);
    assert_eq!((status, gateway_error(&error)["errorCode"].clone()), timeout);
    assert!(started.elapsed().as_secs() < 5, "the end of the connection ends the wait");
}

#[tokio::test]
async fn a_bad_call_is_refused_and_a_bad_answer_ends_the_connection() {
    let world = world().await;
    let (status, _) = call(&world, json!({"methodName": "m", "responseTimeoutInSeconds": 4})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let registry = mint(HOST, &key("registryReadWrite"), FAR_FUTURE, Some("registryReadWrite"));
    let refused = world.request(Method::POST, "/twins/d1/methods", &registry).json(&json!({"methodName": "m"})).send();
    assert_eq!(refused.await.expect("the hub answers").status(), StatusCode::UNAUTHORIZED);

    let mut device = world.device("d1").await;
    device.subscribe(&[(METHOD_CALLS, QoS::Level0)]).await;
    let ((status, _), _) = tokio::join!(call(&world, json!({"methodName": "m"})), answer(&mut device, 200, b"no JSON"));
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    device.is_closed().await;
}

#[tokio::test]
async fn an_answer_is_billed_if_somebody_waits_for_it() {
    let world = world().await;
    let mut device = world.device("d1").await;
    device.subscribe(&[(METHOD_CALLS, QoS::Level0)]).await;
    let unasked = device.publish("$iothub/methods/res/200/?$rid=1", QoS::Level1, b"{}");
    let pid = unasked.qos_pid.pid().expect("it has quality 1");
    device.send(unasked.into()).await;
    assert_eq!(device.receive().await, Packet::Puback(pid));
    assert_eq!(world.hub.billed().method, 0);
    tokio::join!(call(&world, json!({"methodName": "m"})), answer(&mut device, 200, b"{}"));
    device.send(Packet::Pingreq).await;
    assert_eq!(device.receive().await, Packet::Pingresp, "the answer has been handled");
    assert_eq!(world.hub.billed().method, 2, "the call and its answer");
}
