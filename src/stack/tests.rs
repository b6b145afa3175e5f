//! The client against a server that answers by script.

mod answers;
mod webhooks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};
use url::Url;

use super::error::refused;
use super::{Downlink, QueueOperation, Registration, Stack, StackError};
use crate::config::{EventsTarget, StackConfig};
use crate::failure::Class;
use crate::ids::{ApplicationId, DeviceId};

const APP: &str = "/api/v3/applications/cold-store";
const IS_DEVICE: &str = "/api/v3/applications/cold-store/devices/probe-0017";

#[derive(Clone, Debug)]
struct Call {
    line: String,
    body: Value,
    headers: HeaderMap,
}

type Script = HashMap<String, Vec<(u16, &'static [(&'static str, &'static str)], Value)>>;

#[derive(Default)]
struct Server {
    script: Mutex<Script>,
    calls: Mutex<Vec<Call>>,
}

impl Server {
    fn answer(&self, line: &str, status: u16, body: Value) {
        self.answer_with(line, status, &[], body);
    }

    /// The last answer of a line is given again and again; an unscripted call is answered 200 `{}`.
    fn answer_with(&self, line: &str, status: u16, headers: &'static [(&'static str, &'static str)], body: Value) {
        self.script.lock().expect("no panic").entry(line.to_owned()).or_default().push((status, headers, body));
    }

    fn lines(&self) -> Vec<String> {
        self.calls.lock().expect("no panic").iter().map(|call| call.line.clone()).collect()
    }

    fn call(&self, line: &str) -> Call {
        let calls = self.calls.lock().expect("no panic");
        calls.iter().find(|call| call.line == line).cloned().unwrap_or_else(|| panic!("no call {line}"))
    }
}

async fn serve(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let line = format!("{method} {}", uri.path());
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    server.calls.lock().expect("no panic").push(Call { line: line.clone(), body, headers });
    let mut script = server.script.lock().expect("no panic");
    let answer = match script.get_mut(&line) {
        Some(answers) if answers.len() > 1 => answers.remove(0),
        Some(answers) => answers[0].clone(),
        None => (200, &[] as &[_], json!({})),
    };
    let status = StatusCode::from_u16(answer.0).expect("a status");
    let mut response = (status, answer.2.to_string()).into_response();
    for (name, value) in answer.1 {
        response.headers_mut().insert(*name, value.parse().expect("a header value"));
    }
    response
}

async fn start() -> (Arc<Server>, Stack) {
    let server = Arc::new(Server::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(serve).with_state(Arc::clone(&server));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (server, Stack::new(&config(&format!("http://{address}/api/v3/"))).expect("a client"))
}

fn config(base: &str) -> StackConfig {
    let base: Url = base.parse().expect("an address");
    StackConfig {
        base_url: base.clone(),
        identity_url: base,
        application_id: ApplicationId::parse("cold-store").expect("a valid id"),
        api_key: "NNSXS.KEYID.TOPSECRET".into(),
        events_target: EventsTarget::Api,
        sync_delete: true,
        keep_root_keys: false,
    }
}

fn probe() -> DeviceId {
    DeviceId::parse("probe-0017").expect("a valid id")
}

fn registration(patch: Value, keys_are_known: bool) -> Registration {
    let mut tags = json!({
        "devEui": "A1B2C3D4E5F60718", "joinEui": "0102030405060708", "lorawanVersion": "1.0.3",
        "regionalParametersVersion": "1.0.3-a", "appKey": "00112233445566778899AABBCCDDEEFF",
        "frequencyPlanId": "EU_863_870_TTN",
    });
    for (name, value) in patch.as_object().expect("an object") {
        tags[name] = value.clone();
    }
    Registration::from_tags(probe(), &tags, keys_are_known).expect("valid tags")
}

fn error(code: i64, namespace: &str, name: &str) -> Value {
    json!({
        "code": code,
        "message": format!("error:{namespace}:{name} (device `cold-store.other-7` is here)"),
        "details": [{
            "@type": "type.googleapis.com/ttn.lorawan.v3.ErrorDetails",
            "namespace": namespace, "name": name, "attributes": {"device_id": "other-7"}, "code": code,
        }],
    })
}

fn on(server: &str) -> String {
    format!("/api/v3/{server}/applications/cold-store/devices/probe-0017")
}

#[tokio::test]
async fn a_device_is_registered_on_the_four_servers_in_their_order() {
    let (server, stack) = start().await;
    stack.register(&registration(json!({}), false)).await.expect("registered");
    let expected = [
        format!("POST {APP}/devices"),
        format!("PUT {}", on("js")),
        format!("PUT {}", on("ns")),
        format!("PUT {}", on("as")),
    ];
    assert_eq!(server.lines(), expected);

    let identity = &server.call(&expected[0]);
    assert_eq!(identity.body["end_device"]["ids"]["dev_eui"], "A1B2C3D4E5F60718");
    assert_eq!(identity.body["end_device"]["network_server_address"], "127.0.0.1", "a bare host");
    assert_eq!(identity.headers["authorization"], "Bearer NNSXS.KEYID.TOPSECRET");
    assert!(identity.headers["user-agent"].to_str().expect("text").starts_with("tts-iot-hub/"));

    let join = server.call(&expected[1]).body;
    assert_eq!(join["end_device"]["root_keys"], json!({"app_key": {"key": "00112233445566778899AABBCCDDEEFF"}}));
    assert!(!join["field_mask"].to_string().contains("nwk_key"));
    let network = server.call(&expected[2]).body;
    assert_eq!(network["end_device"]["lorawan_version"], "1.0.3");
    assert_eq!(network["end_device"]["lorawan_phy_version"], "1.0.3-a");
    let application = server.call(&expected[3]).body;
    assert_eq!(application["end_device"].get("formatters"), None, "the default of the application stays in force");
}

#[tokio::test]
async fn a_device_of_the_repository_gets_its_formatters() {
    let (server, stack) = start().await;
    let ids = json!({"versionIdentifiers": {"brandId": "acme", "modelId": "probe-x", "firmwareVersion": "3.4"}});
    stack.register(&registration(ids, false)).await.expect("registered");
    let body = server.call(&format!("PUT {}", on("as"))).body;
    assert_eq!(body["end_device"]["formatters"]["down_formatter"], "FORMATTER_REPOSITORY");
    assert_eq!(body["end_device"]["version_ids"]["firmware_version"], "3.4");
}

#[tokio::test]
async fn a_half_done_registration_is_completed() {
    for (name, namespace) in [("id_taken", "pkg/util/store"), ("end_device_euis_taken", "pkg/identityserver")] {
        let (server, stack) = start().await;
        server.answer(&format!("POST {APP}/devices"), 409, error(6, namespace, name));
        let ids =
            json!({"ids": {"device_id": "probe-0017", "dev_eui": "A1B2C3D4E5F60718", "join_eui": "0102030405060708"}});
        server.answer(&format!("GET {IS_DEVICE}"), 200, ids);
        stack.register(&registration(json!({}), false)).await.expect("completed");
        assert_eq!(server.lines().len(), 5, "{name}");
    }
}

#[tokio::test]
async fn a_conflict_is_final_and_names_no_stranger() {
    let other = json!({"ids": {"dev_eui": "00000000000000AA", "join_eui": "0102030405060708"}});
    let gone = error(5, "pkg/identityserver/store", "end_device_not_found");
    for (status, known, expected) in [(200, other, "another DevEUI"), (404, gone, "already registered for another")] {
        let (server, stack) = start().await;
        server.answer(&format!("POST {APP}/devices"), 409, error(6, "pkg/identityserver", "end_device_euis_taken"));
        server.answer(&format!("GET {IS_DEVICE}"), status, known);
        let error = stack.register(&registration(json!({}), false)).await.expect_err("a conflict");
        assert_eq!(error.class(), Class::Poison);
        let text = error.to_string();
        assert!(text.contains(expected) && !text.contains("other-7"), "{text}");
        assert!(server.lines().iter().all(|line| !line.starts_with("DELETE") && !line.starts_with("PUT")));
    }
}

#[tokio::test]
async fn a_refused_registration_is_undone_and_an_interrupted_one_is_not() {
    for (status, body, undone) in [
        (400, error(3, "pkg/networkserver", "unknown_frequency_plan"), true),
        (503, json!({"code": 14, "message": "unavailable"}), false),
    ] {
        let (server, stack) = start().await;
        server.answer(&format!("PUT {}", on("ns")), status, body);
        stack.register(&registration(json!({}), false)).await.expect_err("refused");
        let deleted = server.lines().iter().filter(|line| line.starts_with("DELETE")).count();
        assert_eq!(deleted, if undone { 4 } else { 0 });
    }
}

#[tokio::test]
async fn a_change_without_keys_leaves_the_join_server_alone_and_creates_nothing() {
    let (server, stack) = start().await;
    let change = || registration(json!({"appKey": null}), true);
    server.answer(&format!("GET {IS_DEVICE}"), 404, error(5, "pkg/identityserver/store", "end_device_not_found"));
    let error = stack.register(&change()).await.expect_err("not there");
    assert!(error.to_string().contains("give appKey"), "{error}");

    let (server, stack) = start().await;
    let ids = json!({"ids": {"dev_eui": "A1B2C3D4E5F60718", "join_eui": "0102030405060708"}});
    server.answer(&format!("GET {IS_DEVICE}"), 200, ids);
    stack.register(&change()).await.expect("changed");
    let lines = server.lines();
    assert!(!lines.contains(&format!("PUT {}", on("js"))) && !lines.contains(&format!("POST {APP}/devices")));
}

#[tokio::test]
async fn a_device_is_deleted_in_reverse_order_and_may_be_gone() {
    let (server, stack) = start().await;
    server.answer(&format!("DELETE {}", on("js")), 404, error(5, "pkg/joinserver", "device_not_found"));
    stack.delete(&probe()).await.expect("deleted");
    let servers = [on("as"), on("ns"), on("js"), IS_DEVICE.to_owned()];
    assert_eq!(server.lines(), servers.map(|path| format!("DELETE {path}")));

    server.answer(&format!("DELETE {}", on("as")), 404, json!({"code": 5, "message": "Not Found"}));
    let error = stack.delete(&probe()).await.expect_err("a wrong address");
    assert_eq!(error.class(), Class::Denied);
    assert!(error.to_string().contains("check STACK_BASE_URL"), "{error}");
}

#[tokio::test]
async fn a_downlink_is_queued_as_the_api_wants_it() {
    let (server, stack) = start().await;
    let mut downlink = Downlink {
        f_port: Some(15),
        frm_payload: Some(vec![0xBE, 0xEF]),
        decoded_payload: None,
        confirmed: true,
        correlation_id: "iothub:probe-0017:desired:12".to_owned(),
    };
    stack.queue_downlink(&probe(), QueueOperation::Replace, &downlink).await.expect("queued");
    let body = server.call(&format!("POST {}/down/replace", on("as"))).body;
    let expected = json!({"downlinks": [{
        "f_port": 15, "frm_payload": "vu8=", "confirmed": true, "priority": "NORMAL",
        "correlation_ids": ["iothub:probe-0017:desired:12"],
    }]});
    assert_eq!(body, expected);

    downlink.frm_payload = None;
    downlink.f_port = None;
    downlink.decoded_payload = Some(Map::from_iter([("interval".to_owned(), json!(10))]));
    stack.queue_downlink(&probe(), QueueOperation::Push, &downlink).await.expect("queued");
    let body = server.call(&format!("POST {}/down/push", on("as"))).body;
    assert_eq!(body["downlinks"][0]["decoded_payload"], json!({"interval": 10}));
    assert_eq!(body["downlinks"][0].get("f_port"), None);
}

#[tokio::test]
async fn a_downlink_is_found_in_the_queue_by_its_correlation_id() {
    let (server, stack) = start().await;
    let line = format!("GET {}/down", on("as"));
    server.answer(
        &line,
        200,
        json!({"downlinks": [{"correlation_ids": ["as:downlink:1", "iothub:probe-0017:desired:12"]}]}),
    );
    server.answer(&line, 400, error(9, "pkg/applicationserver", "no_device_session"));
    server.answer(&line, 200, json!({}));
    for expected in [true, false, false] {
        let found = stack.is_queued(&probe(), "iothub:probe-0017:desired:12").await.expect("an answer");
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_call_refused_for_its_rate_is_made_again_after_the_wait_that_the_server_asks_for() {
    let (server, stack) = start().await;
    let line = format!("GET {}/down", on("as"));
    let limited = || error(8, "pkg/ratelimit", "rate_limit_exceeded");
    server.answer_with(&line, 429, &[("x-rate-limit-retry", "0")], limited());
    server.answer(&line, 200, json!({}));
    let began = std::time::Instant::now();
    stack.is_queued(&probe(), "x").await.expect("an answer");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "`0` means less than a second");

    server.answer_with(&line, 429, &[("x-rate-limit-retry", "600")], limited());
    server.script.lock().expect("no panic").get_mut(&line).expect("scripted").remove(0);
    let error = stack.is_queued(&probe(), "x").await.expect_err("too long a wait");
    assert_eq!(error.class(), Class::Throttled);
    assert_eq!(error.rate_limit_wait(), Some(std::time::Duration::from_secs(600)));
}

#[tokio::test]
async fn events_for_the_package_are_posted_one_by_one() {
    let (server, stack) = start().await;
    let event = |n: u32| stack.package_event(&probe(), &json!({"version": n}), &json!({"opType": "updateTwin"}));
    stack.submit_events(vec![event(1), event(2)]).await.expect("taken");
    let line = "POST /api/v3/as/applications/cold-store/packages/azureiothub/events";
    assert_eq!(server.lines(), [line, line]);
    let body = server.call(line).body;
    assert_eq!(body["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(body["events"][0]["end_device_ids"]["application_ids"]["application_id"], "cold-store");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, stack) = start().await;
    let line = format!("GET {}/down", on("as"));
    server.answer_with(&line, 302, &[("location", "/elsewhere")], json!({}));
    let error = stack.is_queued(&probe(), "x").await.expect_err("a redirect");
    assert_eq!(error.class(), Class::Denied);
    assert_eq!(server.lines(), [line]);
}

#[tokio::test]
async fn a_server_that_is_down_is_an_outage_and_no_error_shows_the_key() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let stack = Stack::new(&config(&format!("http://{address}/api/v3/"))).expect("a client");
    let error = stack.delete(&probe()).await.expect_err("nobody listens");
    assert!(error.class() == Class::Retry && error.is_outage());
    for text in [error.to_string(), format!("{error:?}"), format!("{stack:?}")] {
        assert!(!text.contains("TOPSECRET"), "{text}");
    }
}

#[test]
fn errors_are_classed_by_name_and_only_then_by_status() {
    use Class::{Denied, Poison, Retry, Throttled};
    let named = |status, code, namespace: &str, name: &str| refused(status, &error(code, namespace, name));
    let bare = |status| refused(status, &json!({"code": 5, "message": "Not Found"}));
    let cases: [(StackError, Class, bool); 24] = [
        (named(400, 3, "pkg/auth", "token"), Denied, true),
        (named(401, 16, "pkg/identityserver", "api_key_not_found"), Denied, true),
        (named(403, 7, "pkg/auth/rights", "insufficient_application_rights"), Denied, true),
        (bare(404), Denied, true),
        (bare(501), Denied, true),
        (named(404, 5, "pkg/applicationserver", "device_not_found"), Poison, false),
        (named(400, 9, "pkg/applicationserver", "no_device_session"), Poison, false),
        (named(400, 3, "pkg/applicationserver", "no_payload"), Poison, false),
        (named(409, 10, "pkg/applicationserver", "rebuild"), Retry, false),
        (named(404, 5, "pkg/applicationserver", "unknown_session"), Retry, false),
        (named(409, 10, "pkg/messageprocessors/javascript", "output_errors"), Poison, false),
        (named(500, 2, "pkg/messageprocessors/javascript", "output"), Poison, false),
        (named(409, 10, "pkg/scripting/javascript", "runtime"), Poison, false),
        (named(504, 4, "pkg/scripting/javascript", "script_timeout"), Retry, false),
        (named(429, 8, "pkg/networkserver", "downlink_queue_capacity"), Retry, false),
        (named(429, 8, "pkg/ratelimit", "rate_limit_exceeded"), Throttled, true),
        (bare(429), Throttled, true),
        (named(400, 3, "pkg/networkserver", "application_downlink_too_long"), Poison, false),
        (named(400, 3, "pkg/identityserver/blocklist", "forbidden_id"), Poison, false),
        (named(409, 6, "pkg/somewhere", "something"), Poison, false),
        (named(500, 2, "pkg/somewhere", "something"), Retry, false),
        (named(503, 14, "pkg/somewhere", "something"), Retry, true),
        (bare(502), Retry, true),
        (bare(413), Poison, false),
    ];
    for (error, class, outage) in cases {
        assert_eq!((error.class(), error.is_outage()), (class, outage), "{error}");
    }
}

#[test]
fn an_error_repeats_no_key_and_is_not_long() {
    let message =
        format!("error:pkg/x:validation (invalid key 00112233445566778899aabbccddeeff: {})", "long ".repeat(200));
    let error = refused(
        400,
        &json!({"code": 3, "message": message, "details": [{"namespace": "pkg/x", "name": "validation"}]}),
    );
    let text = error.to_string();
    assert!(text.contains("invalid key removed") && text.chars().count() < 500, "{text}");
    assert_eq!(error.name(), Some("pkg/x:validation"));
}
