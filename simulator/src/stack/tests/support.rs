//! A client of the API and a receiver of webhooks.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::stack::{Stack, StackOptions, Webhook};

pub(super) const APP: &str = "greenhouse";
pub(super) const KEY: &str = "NNSXS.SIMULATEDKEY.SIMULATEDSECRET";

/// A request as the receiver saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

/// A receiver that answers 200 and an outcome.
#[derive(Clone, Default)]
pub(super) struct Receiver {
    seen: Arc<Mutex<Vec<Seen>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Receiver {
    /// Starts it. Returns its address.
    pub(super) async fn start() -> (Self, String) {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(record).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, format!("http://{address}"))
    }

    pub(super) fn answer_with(&self, status: StatusCode) {
        *self.status.lock().expect("no test panics here") = status;
    }

    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().expect("no test panics here"))
    }

    /// The kinds of the messages seen since the last look.
    pub(super) fn take_kinds(&self) -> Vec<&'static str> {
        self.take().iter().filter_map(|seen| crate::stack::messages::kind(&seen.json())).collect()
    }
}

async fn record(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    receiver.seen.lock().expect("no test panics here").push(Seen { uri: uri.to_string(), headers, body });
    let status = *receiver.status.lock().expect("no test panics here");
    (status, r#"{"outcome":"delivered"}"#)
}

/// The servers, a client with their key, and a receiver.
pub(super) struct Bench {
    pub(super) stack: Stack,
    pub(super) receiver: Receiver,
    pub(super) webhook_url: String,
    client: reqwest::Client,
}

impl Bench {
    pub(super) async fn start() -> Self {
        Self::with(StackOptions::default()).await
    }

    pub(super) async fn with(options: StackOptions) -> Self {
        let stack = Stack::start(options).await.expect("the servers start");
        let (receiver, webhook_url) = Receiver::start().await;
        stack.set_webhook(&Webhook::new(format!("{webhook_url}/hook")));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { stack, receiver, webhook_url, client }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}/api/v3{path}", self.stack.base_url()))
    }

    /// Calls with the right key. Returns status and body.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, path).bearer_auth(KEY);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// Registers an OTAA device in the four steps; each must succeed.
    pub(super) async fn register(&self, id: &str) {
        let ids = json!({"device_id": id, "dev_eui": "70b3d57e00000901", "join_eui": "70B3D57EFFFF0001"});
        let (status, body) = self
            .call(Method::POST, &format!("/applications/{APP}/devices"), Some(json!({"end_device": {"ids": ids}})))
            .await;
        assert_eq!(status, 200, "{body}");
        for (server, mut device, paths) in [
            (
                "js",
                json!({"root_keys": {"app_key": {"key": "00112233445566778899aabbccddeeff"}}}),
                vec!["root_keys.app_key.key"],
            ),
            (
                "ns",
                json!({
                    "supports_join": true,
                    "lorawan_version": "1.0.3",
                    "lorawan_phy_version": "1.0.3-a",
                    "frequency_plan_id": "EU_863_870_TTN",
                }),
                vec!["supports_join", "lorawan_version", "lorawan_phy_version", "frequency_plan_id"],
            ),
            ("as", json!({"formatters": {"down_formatter": "JAVASCRIPT"}}), vec!["formatters.down_formatter"]),
        ] {
            device["ids"] = ids.clone();
            let body = json!({"end_device": device, "field_mask": {"paths": paths}});
            let path = format!("/{server}/applications/{APP}/devices/{id}");
            let (status, body) = self.call(Method::PUT, &path, Some(body)).await;
            assert_eq!(status, 200, "{server}: {body}");
        }
    }

    pub(super) async fn push(&self, device: &str, item: Value) -> (u16, Value) {
        let path = format!("/as/applications/{APP}/devices/{device}/down/push");
        self.call(Method::POST, &path, Some(json!({"downlinks": [item]}))).await
    }
}

pub(super) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.expect("a JSON body"))
}

/// `namespace:name` of an error.
pub(super) fn name(body: &Value) -> String {
    let details = &body["details"][0];
    let text = |field: &str| details[field].as_str().unwrap_or_default().to_owned();
    format!("{}:{}", text("namespace"), text("name"))
}
