//! The service API: what is sent, and what its answers mean.

use serde_json::json;

use super::scripted::ScriptedHub;
use super::*;
use crate::failure::Class;
use crate::iot_hub::{HubError, Identity, Share, Twin};

#[tokio::test]
async fn an_identity_is_read_and_deleted_by_its_quoted_etag() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let id = device("eui-1").id;
    let body = r#"{"deviceId":"eui-1","etag":"\"MQ==\"","generationId":"6","status":"disabled","x":1}"#;
    let (read, _) = tokio::join!(client.identity(&id), hub.answer_call(200, "", body));
    let expected = Identity { etag: "MQ==".to_owned(), generation_id: "6".to_owned(), enabled: false };
    assert_eq!(read, Ok(Some(expected)));

    let (deleted, request) = tokio::join!(client.delete_identity(&id, "MQ=="), hub.answer_call(204, "", ""));
    assert_eq!(deleted, Ok(()));
    assert_eq!(request.line, "DELETE /devices/eui-1?api-version=2021-04-12");
    assert!(request.head.contains("if-match: \"mq==\""));

    let (gone, _) = tokio::join!(client.delete_identity(&id, "MQ=="), hub.answer_call(404, "", ""));
    assert_eq!(gone, Ok(()));
    let code = "iothub-errorcode: PreconditionFailed\r\n";
    let (stale, _) = tokio::join!(client.delete_identity(&id, "MQ=="), hub.answer_call(412, code, ""));
    let stale = stale.expect_err("stale");
    assert!(stale.is_stale() && stale.to_string().ends_with("412 PreconditionFailed"), "{stale}");
}

#[tokio::test]
async fn a_twin_is_read_without_what_the_hub_adds() {
    let hub = ScriptedHub::start().await;
    let client = hub.client().with_share(Share::EventHubForwarder);
    let id = device("eui-1").id;
    let body = json!({"etag": "AAAAAAAAAAE=", "version": 9, "tags": {"t": 1}, "properties": {
        "desired": {"d": {"x": null}, "$version": 3, "$metadata": {}},
        "reported": {"r": [1], "$version": 4, "$metadata": {}},
    }});
    let body = body.to_string();
    let (read, _) = tokio::join!(client.twin(&id), hub.answer_call(200, "", &body));
    let expected = Twin {
        etag: "AAAAAAAAAAE=".to_owned(),
        tags: reported(json!({"t": 1})),
        desired: reported(json!({"d": {"x": null}})),
        desired_version: 3,
        reported: reported(json!({"r": [1]})),
        reported_version: 4,
    };
    assert_eq!(read, Ok(Some(expected)));
    let (none, _) = tokio::join!(client.twin(&id), hub.answer_call(404, "", ""));
    assert_eq!(none, Ok(None));
    let (garbled, _) = tokio::join!(client.twin(&id), hub.answer_call(200, "", "<html>"));
    assert_eq!(garbled, Err(HubError::Garbled { device: id, what: "twin" }));
}

#[tokio::test]
async fn tags_are_merged_under_the_callers_etag() {
    let hub = ScriptedHub::start().await;
    let client = hub.client();
    let id = device("eui-1").id;
    let tags = json!({"stack": {"state": "ready"}});
    let twin = r#"{"etag":"AAAAAAAAAAI=","tags":{"stack":{"state":"ready"}},"properties":{}}"#;
    let patch = client.patch_tags(&id, &tags, Some("AAAAAAAAAAE="));
    let (patched, request) = tokio::join!(patch, hub.answer_call(200, "", twin));
    assert_eq!(patched.map(|twin| twin.etag), Ok("AAAAAAAAAAI=".to_owned()));
    assert_eq!(request.body, r#"{"tags":{"stack":{"state":"ready"}}}"#);
    assert!(request.head.contains("if-match: \"aaaaaaaaaae=\""));

    let body = r#"{"errorCode":403002,"message":"quota"}"#;
    let (quota, _) = tokio::join!(client.patch_tags(&id, &tags, None), hub.answer_call(403, "", body));
    assert_eq!(quota.expect_err("quota").class(), Class::Throttled);
    let (missing, _) = tokio::join!(client.patch_tags(&id, &tags, None), hub.answer_call(404, "", ""));
    assert!(missing.expect_err("missing").is_missing());
}

#[tokio::test]
async fn a_dead_service_api_is_tried_later() {
    let hub = ScriptedHub::start().await;
    let client = hub.client_with(|config| config.https_port = 1);
    let error = client.twin(&device("eui-1").id).await.expect_err("nobody listens");
    assert_eq!(error.class(), Class::Retry);
    assert!(!format!("{error} {error:?} {client:?}").contains("Signature"));
}
