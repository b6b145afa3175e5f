//! Sessions that the hub refuses, and what the registry says of them.

use rumqttc::mqttbytes::v4::ConnectReturnCode::{NotAuthorized, ServiceUnavailable};
use serde_json::Value;

use super::scripted::{Peer, ScriptedHub};
use super::*;
use crate::failure::Class;
use crate::ids::DevicePrefix;
use crate::iot_hub::HubError;

const IDENTITY: &str = r#"{"deviceId":"eui-1","etag":"MQ==","generationId":"6","status":"enabled"}"#;
const DISABLED: &str = r#"{"deviceId":"eui-1","etag":"MQ==","generationId":"6","status":"disabled"}"#;
const TWIN: &str = r#"{"deviceId":"eui-1","etag":"AAAAAAAAAAE=","tags":{},"properties":{}}"#;
const UNKNOWN: &str = r#"{"Message":"ErrorCode:DeviceNotFound;unknown","ExceptionMessage":""}"#;

async fn refuse(hub: &ScriptedHub) {
    let (mut peer, _) = hub.accept().await;
    peer.connack(NotAuthorized).await;
}

async fn deliver(mut peer: Peer, flight: JoinHandle<Landing>) {
    let sent = peer.publishes().await;
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(flight).await));
}

#[tokio::test]
async fn an_unknown_device_is_created_and_tagged() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", message("m1"));
    refuse(&hub).await;
    let asked = hub.answer_call(404, "", UNKNOWN).await;
    assert_eq!(asked.line, "GET /devices/eui-1?api-version=2021-04-12");
    assert!(asked.head.contains("authorization: sharedaccesssignature sr=sim.azure-devices.net&"));
    let created = hub.answer_call(200, "", IDENTITY).await;
    assert_eq!(created.line, "PUT /devices/eui-1?api-version=2021-04-12");
    assert!(!created.head.contains("if-match"), "create only");
    let tagged = hub.answer_call(200, "", TWIN).await;
    assert_eq!(tagged.line, "PATCH /twins/eui-1?api-version=2021-04-12");
    let mut tags: Value = serde_json::from_str(&tagged.body).expect("JSON");
    let stack = tags["tags"]["stack"].as_object_mut().expect("an object");
    assert!(stack.remove("createdAt").is_some_and(|at| at.is_string()));
    assert_eq!(tags, serde_json::json!({"tags": {"stack": {"applicationId": "barn"}}}));
    // The hub may need a moment to know it.
    refuse(&hub).await;
    deliver(hub.welcome().await, flight).await;
}

#[tokio::test]
async fn with_a_prefix_the_device_is_another_one_at_the_hub_only() {
    let hub = ScriptedHub::start().await;
    let prefix = DevicePrefix::parse("lorawan-").expect("valid");
    let client = hub.client_with(|config| config.device_prefix = prefix);
    let flight = fly(&client, "eui-1", message("m1"));
    let (mut peer, connect) = hub.accept().await;
    assert_eq!(connect.client_id, "lorawan-eui-1");
    let user = connect.login.expect("a login").username;
    assert_eq!(user, "sim.azure-devices.net/lorawan-eui-1/?api-version=2021-04-12");
    peer.connack(NotAuthorized).await;
    assert_eq!(hub.answer_call(404, "", UNKNOWN).await.line, "GET /devices/lorawan-eui-1?api-version=2021-04-12");
    let created = hub.answer_call(200, "", IDENTITY).await;
    assert_eq!(created.line, "PUT /devices/lorawan-eui-1?api-version=2021-04-12");
    let identity: Value = serde_json::from_str(&created.body).expect("JSON");
    assert_eq!(identity["deviceId"], "lorawan-eui-1");
    assert_eq!(hub.answer_call(200, "", TWIN).await.line, "PATCH /twins/lorawan-eui-1?api-version=2021-04-12");
    let mut peer = hub.welcome().await;
    let sent = peer.publishes().await;
    assert!(sent[0].topic.starts_with("devices/lorawan-eui-1/messages/events/"), "{}", sent[0].topic);
    peer.puback(&sent[0]).await;
    assert!(is_sent(&landed(flight).await));
}

#[tokio::test]
async fn an_identity_that_someone_else_created_meanwhile_is_not_tagged() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", message("m1"));
    refuse(&hub).await;
    hub.answer_call(404, "", UNKNOWN).await;
    hub.answer_call(409, "iothub-errorcode: DeviceAlreadyExists\r\n", "").await;
    hub.answer_call(200, "", IDENTITY).await;
    deliver(hub.welcome().await, flight).await;
}

#[tokio::test]
async fn a_disabled_device_is_poison() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", both("m1", 1));
    refuse(&hub).await;
    hub.answer_call(200, "", DISABLED).await;
    let landing = landed(flight).await;
    for error in [landing.telemetry.expect("asked for").err(), landing.twin.expect("asked for").err()] {
        let error = error.expect("disabled");
        assert!(matches!(error, HubError::Disabled { .. }));
        assert_eq!(error.class(), Class::Poison);
    }
}

#[tokio::test]
async fn a_refusal_that_the_registry_cannot_explain_is_no_registry_storm() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let flight = fly(&client, "eui-1", message("m1"));
    refuse(&hub).await;
    hub.answer_call(200, "", IDENTITY).await;
    refuse(&hub).await;
    let error = landed(flight).await.telemetry.expect("asked for").expect_err("denied");
    assert_eq!((matches!(error, HubError::Denied { .. }), error.class()), (true, Class::Denied));

    for id in ["eui-1", "eui-2"] {
        let flight = fly(&client, id, message("m2"));
        refuse(&hub).await;
        let error = landed(flight).await.telemetry.expect("asked for").expect_err("denied");
        assert_eq!(error.class(), Class::Denied);
    }
    assert!(hub.is_not_asked().await);

    // A session that is accepted shows that the token is good again.
    let flight = fly(&client, "eui-3", message("m3"));
    deliver(hub.welcome().await, flight).await;
    let flight = fly(&client, "eui-2", message("m4"));
    refuse(&hub).await;
    hub.answer_call(200, "", DISABLED).await;
    assert_eq!(landed(flight).await.telemetry.expect("asked for").expect_err("disabled").class(), Class::Poison);
}

#[tokio::test]
async fn a_registry_that_refuses_us_decides_the_flight() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    for (status, class) in [(401, Class::Denied), (503, Class::Retry), (429, Class::Throttled)] {
        let flight = fly(&client, "eui-1", message("m1"));
        refuse(&hub).await;
        hub.answer_call(status, "", "").await;
        let error = landed(flight).await.telemetry.expect("asked for").expect_err("refused");
        assert_eq!(error.class(), class, "{error}");
        assert_eq!(error.to_string().contains("needs the right RegistryRead"), class == Class::Denied, "{error}");
    }
}

#[tokio::test]
async fn a_device_that_may_not_be_created_or_tagged_names_the_right_for_that() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let flight = fly(&client, "eui-1", message("m1"));
    refuse(&hub).await;
    hub.answer_call(404, "", UNKNOWN).await;
    hub.answer_call(403, "iothub-errorcode: IotHubUnauthorizedAccess\r\n", "").await;
    let error = landed(flight).await.telemetry.expect("asked for").expect_err("refused");
    assert!(error.to_string().contains("needs the right RegistryWrite"), "{error}");
    let id = device("eui-1").id;
    let (read, _) = tokio::join!(client.twin(&id), hub.answer_call(401, "", ""));
    assert!(read.expect_err("refused").to_string().contains("needs the right ServiceConnect"));
}

#[tokio::test]
async fn a_hub_that_is_unavailable_is_tried_again() {
    let hub = ScriptedHub::start().await;
    let flight = fly(&hub.client(), "eui-1", message("m1"));
    let (mut peer, _) = hub.accept().await;
    peer.connack(ServiceUnavailable).await;
    deliver(hub.welcome().await, flight).await;
}
