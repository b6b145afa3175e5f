//! A whole host in a test: what the tests have in common.

mod attached;
mod process;
mod scale;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{FunctionsHost, HostOptions, StartError, app::App};
use crate::event_hubs::{Event, Namespace};

/// Long enough for a busy machine, short against the limits that must not be met.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A function app in a folder that is removed with it.
pub(super) struct AppFolder(pub(super) PathBuf);

impl AppFolder {
    pub(super) fn new(host: Value, functions: &[(&str, Value)]) -> Self {
        let root = std::env::temp_dir().join(format!("functions-host-test-{}", Uuid::new_v4()));
        std::fs::create_dir_all(&root).expect("a folder can be made");
        std::fs::write(root.join("host.json"), host.to_string()).expect("a file can be written");
        for (name, function) in functions {
            std::fs::create_dir(root.join(name)).expect("a folder can be made");
            std::fs::write(root.join(name).join("function.json"), function.to_string()).expect("a file can be written");
        }
        Self(root)
    }
}

impl AppFolder {
    /// Writes a program into the folder.
    pub(super) fn script(&self, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.0.join("handler.sh");
        std::fs::write(&path, text).expect("a file can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
        path
    }
}

impl Drop for AppFolder {
    fn drop(&mut self) {
        // What is left in the temporary folder harms nobody.
        let _: std::io::Result<()> = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn is_alive(pid: u32) -> bool {
    // A process that ended but was not waited for still has its folder, with an empty command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn host_json(timeout: &str, arguments: &[&str]) -> Value {
    json!({
        "version": "2.0",
        "functionTimeout": timeout,
        "customHandler": {
            "description": {"defaultExecutablePath": "bin/handler", "arguments": arguments},
            "enableProxyingHttpRequest": true
        },
        "extensions": {"eventHubs": {"maxEventBatchSize": 2}}
    })
}

fn uplink() -> (&'static str, Value) {
    let trigger = json!({
        "type": "httpTrigger", "direction": "in", "name": "req", "methods": ["post"], "route": "uplink/{device?}"
    });
    ("UplinkIngress", json!({"bindings": [trigger, {"type": "http", "direction": "out", "name": "res"}]}))
}

fn forwarder(max_retries: i32) -> (&'static str, Value) {
    let trigger = json!({
        "type": "eventHubTrigger", "direction": "in", "name": "events", "eventHubName": "%HUB%",
        "consumerGroup": "forwarder", "connection": "StackEvents", "cardinality": "many", "dataType": "binary"
    });
    let retry = json!({"strategy": "fixedDelay", "maxRetryCount": max_retries, "delayInterval": "00:00:00.05"});
    ("EventHubForwarder", json!({"bindings": [trigger], "retry": retry}))
}

fn options(app: &AppFolder, namespace: &Namespace) -> HostOptions {
    let mut options = HostOptions::new(&app.0, namespace.clone());
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    options.settings = BTreeMap::from([
        setting("HUB", "stack-events"),
        setting("StackEvents__fullyQualifiedNamespace", "simulated.servicebus.windows.net"),
    ]);
    options
}

fn namespace_with(events: usize) -> Namespace {
    let namespace = Namespace::new(&[("stack-events", 1)]);
    let hub = namespace.hub("stack-events").expect("it was just made");
    for number in 0..events {
        hub.append(Event { body: format!("{{\"n\":{number}}}").into(), ..Event::default() });
    }
    namespace
}

/// What a scripted handler was asked, and what it answers.
#[derive(Clone, Default)]
struct Script {
    calls: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<VecDeque<(StatusCode, &'static str)>>>,
}

impl Script {
    fn calls(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.calls.lock().expect("no test panics here").clone()
    }

    fn answer(&self, answers: &[(StatusCode, &'static str)]) {
        self.answers.lock().expect("no test panics here").extend(answers);
    }

    /// Serves on a port of the system's choice.
    async fn serve(&self) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let router = Router::new().fallback(scripted).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.expect("it can serve") });
        port
    }
}

async fn scripted(State(script): State<Script>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/" {
        return StatusCode::NOT_FOUND.into_response();
    }
    let body = body.collect().await.expect("the host sends whole bodies").to_bytes();
    script.calls.lock().expect("no test panics here").push((head.uri.to_string(), head.headers, body));
    let answer = script.answers.lock().expect("no test panics here").pop_front();
    let (status, body) = answer.unwrap_or((StatusCode::OK, "{}"));
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn metadata(body: &Bytes) -> Value {
    serde_json::from_slice::<Value>(body).expect("envelopes are JSON")["Metadata"].take()
}

#[tokio::test]
async fn an_app_that_cannot_work_is_refused_with_the_reason() {
    let fine = host_json("00:00:30", &[]);
    let mut no_proxy = fine.clone();
    no_proxy["customHandler"]["enableProxyingHttpRequest"] = json!(false);
    let mut no_connection = forwarder(-1);
    no_connection.1["bindings"][0]["connection"] = json!("Nowhere");
    let mut no_type = forwarder(-1);
    no_type.1["bindings"][0]["dataType"] = json!("stream");
    for (host, functions, reason) in [
        (json!({"version": "2.0"}), vec![uplink()], "customHandler"),
        (fine.clone(), vec![], "no folder with a function.json"),
        (no_proxy, vec![uplink()], "enableProxyingHttpRequest"),
        (host_json("5 minutes", &[]), vec![uplink()], "functionTimeout"),
        (fine.clone(), vec![no_connection], "connection 'Nowhere'"),
        (fine.clone(), vec![no_type], "dataType binary"),
        (fine.clone(), vec![forwarder(-2)], "maxRetryCount -2"),
        (fine.clone(), vec![uplink()], "bin/handler"),
        (fine, vec![forwarder(-1)], "no Event Hub 'stack-events'"),
    ] {
        let app = AppFolder::new(host, &functions);
        let Err(error) = FunctionsHost::start(options(&app, &Namespace::new(&[]))).await else {
            panic!("the app is refused for {reason}");
        };
        assert!(error.to_string().contains(reason), "{error}");
        if reason == "bin/handler" {
            assert!(matches!(error, StartError::Executable { .. }));
        }
    }
}

#[test]
fn the_app_of_this_repository_is_understood() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let settings = BTreeMap::from([("StackEvents__credential".to_owned(), "managedidentity".to_owned())]);
    let app = App::read(&root, &settings).expect("the project's own app is fine");
    assert!(app.functions.iter().any(|function| function.is_http()));
    assert!(app.functions.iter().any(|function| !function.is_http()));
}
