//! Webhooks and the rights of the API key, from servers of several versions.

use super::*;
use crate::ids::WebhookId;
use crate::message_type::MessageType;

const HOOK: &str = "GET /api/v3/as/webhooks/cold-store/tts-iot-hub";

fn hook() -> WebhookId {
    WebhookId::parse("tts-iot-hub").expect("a valid id")
}

fn unknown_field() -> Value {
    let name = "field_mask_paths";
    json!({"code": 3, "message": "error", "details": [{"namespace": "pkg/rpcmiddleware/validator", "name": name}]})
}

#[tokio::test]
async fn an_older_server_is_asked_for_less_and_what_was_not_looked_at_is_named() {
    const NEW: [&str; 3] = ["field_mask", "paused", "health_status"];
    const NEW_TYPES: [&str; 3] = ["uplink_normalized", "downlink_queue_invalidated", "service_data"];
    for (refusals, types, unread) in [(0, 11, vec![]), (1, 11, NEW.to_vec()), (2, 8, [NEW, NEW_TYPES].concat())] {
        let (server, stack) = start().await;
        (0..refusals).for_each(|_| server.answer(HOOK, 400, unknown_field()));
        server.answer(HOOK, 200, json!({"base_url": "https://h/x", "join_accept": {}}));
        let found = stack.webhook(&hook()).await.expect("read");
        assert_eq!((found.types.len(), &found.unread), (types, &unread), "{refusals} refusals");
        let webhook = found.webhook.expect("there");
        assert!(webhook.base_url == "https://h/x" && webhook.paths.contains_key(&MessageType::JoinAccept));
        let kinds = found.types.iter().map(|kind| kind.key());
        assert!(kinds.clone().all(|kind| !unread.contains(&kind)), "{unread:?}");
    }
}

#[tokio::test]
async fn a_webhook_that_is_missing_on_an_older_server_is_missing_and_a_mask_refused_for_good_is_an_error() {
    let (server, stack) = start().await;
    let missing = json!({"code": 5, "message": "error", "details": [{"namespace": "pkg/redis", "name": "not_found"}]});
    server.answer(HOOK, 400, unknown_field());
    server.answer(HOOK, 404, missing);
    let found = stack.webhook(&hook()).await.expect("read");
    assert!(found.webhook.is_none() && found.unread == ["field_mask", "paused", "health_status"]);
    let (server, stack) = start().await;
    server.answer(HOOK, 400, unknown_field());
    assert!(stack.webhook(&hook()).await.is_err());
    assert_eq!(server.lines().len(), 3, "asked for ever less, and then no more");
}

#[tokio::test]
async fn the_rights_of_a_key_are_those_for_the_application_whoever_it_belongs_to() {
    const INFO: &str = "GET /api/v3/auth_info";
    const RIGHTS: &str = "GET /api/v3/applications/cold-store/rights";
    let of = |entity: Value| json!({"api_key": {"api_key": {"rights": ["RIGHT_USER_ALL"]}, "entity_ids": entity}});
    let own = json!({"application_ids": {"application_id": "cold-store"}});
    for (entity, owner, asks) in [
        (own, Some("cold-store"), false),
        (json!({"application_ids": {"application_id": "barn"}}), Some("barn"), true),
        (json!({"user_ids": {"user_id": "jo"}}), None, true),
        (json!({"organization_ids": {"organization_id": "acme"}}), None, true),
    ] {
        let (server, stack) = start().await;
        server.answer(INFO, 200, of(entity));
        server.answer(RIGHTS, 200, json!({"rights": ["RIGHT_APPLICATION_TRAFFIC_READ"]}));
        let key = stack.key_info().await.expect("told");
        assert_eq!((key.application.as_deref(), server.lines().contains(&RIGHTS.to_owned())), (owner, asks));
        assert_eq!(key.has("RIGHT_APPLICATION_TRAFFIC_READ"), asks);
    }
}

#[tokio::test]
async fn a_key_that_the_identity_server_refuses_is_told_with_the_server_and_its_setting() {
    let (server, stack) = start().await;
    let unknown = json!({"code": 16, "details": [{"namespace": "pkg/identityserver", "name": "api_key_not_found"}]});
    server.answer("GET /api/v3/auth_info", 401, unknown);
    let error = stack.key_info().await.expect_err("refused");
    assert_eq!(error.class(), Class::Denied);
    let told = error.to_string();
    assert!(told.contains("Identity Server 127.0.0.1:") && told.contains("(STACK_IDENTITY_URL)"), "{told}");
}
