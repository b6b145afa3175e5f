//! One world per test, and a sender of webhooks.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use simulator::event_hubs::{PropertyValue, StoredEvent};
use simulator::eventually::eventually;
use simulator::infra::Infra;
use simulator::iot_hub::BUILT_IN_EVENTS;
use simulator::service_client::ServiceClient;
use simulator::world::{APPLICATION_ID, EventHubsOptions, Handler, Ports, World, WorldOptions};

/// How long something may take to show at the other end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const ROOT_KEY: &str = "5EC4E700112233445566778899AABBCC";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn handler() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tts-iot-hub"))
}

pub(crate) async fn world() -> World {
    world_with(&[]).await
}

pub(crate) async fn world_with(settings: &[(&str, &str)]) -> World {
    start(Handler::Program(handler()), settings).await
}

pub(crate) async fn start(handler: Handler, settings: &[(&str, &str)]) -> World {
    start_as(handler, settings, None, Box::new(|_| {})).await
}

/// A world that a template made.
pub(crate) async fn start_as(
    handler: Handler,
    settings: &[(&str, &str)],
    infra: Option<Infra>,
    log: Box<dyn Fn(&str) + Send + Sync>,
) -> World {
    let settings: BTreeMap<_, _> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = WorldOptions {
        ports: Ports::default(),
        event_hubs: EventHubsOptions::default(),
        infra,
        app_root: root().to_owned(),
        handler,
        settings,
        limits: None,
        without_stack_rights: Vec::new(),
        log,
    };
    World::start(options).await.expect("the world starts")
}

pub(crate) fn service(world: &World) -> ServiceClient {
    ServiceClient::operator(world).expect("it is let in")
}

pub(crate) async fn expect(what: &str, condition: impl FnMut() -> bool) {
    assert!(eventually(PATIENCE, condition).await, "in vain waited for: {what}");
}

/// An uplink whose payload is this.
pub(crate) fn uplink(device: &str, f_cnt: u32, payload: &Value) -> Value {
    json!({
        "end_device_ids": {"device_id": device, "application_ids": {"application_id": APPLICATION_ID}, "dev_eui": "70B3D57ED0000001"},
        "received_at": now(),
        "uplink_message": {
            "session_key_id": "AZDA/+4RIjNEVWZ3iJkAqg==",
            "f_port": 2,
            "f_cnt": f_cnt,
            "frm_payload": "AQ==",
            "decoded_payload": payload,
            "received_at": now(),
        },
    })
}

pub(crate) fn now() -> String {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::now_utc().format(format).expect("a time can be written")
}

/// What the bridge answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn outcome(&self) -> &str {
        self.body["outcome"].as_str().unwrap_or("none")
    }
}

/// Posts a body as a webhook does; `change` may spoil the request.
pub(crate) async fn post_with(
    world: &World,
    body: impl Into<reqwest::Body>,
    change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
) -> Answer {
    let (url, headers) = world.webhook();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
    let mut request = client.post(url).header("Content-Type", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let begin = std::time::Instant::now();
    let answer = change(request).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.json().await.unwrap_or(Value::Null);
    Answer { status, body, took: begin.elapsed() }
}

pub(crate) async fn post(world: &World, up: &Value) -> Answer {
    post_with(world, up.to_string(), |request| request).await
}

/// The telemetry at the built-in endpoint.
pub(crate) fn telemetry(world: &World) -> Vec<std::sync::Arc<StoredEvent>> {
    events(world, BUILT_IN_EVENTS)
}

pub(crate) fn events(world: &World, hub: &str) -> Vec<std::sync::Arc<StoredEvent>> {
    world.events.hub(hub).expect("the Event Hub exists").all()
}

pub(crate) fn message_ids(world: &World) -> HashSet<String> {
    telemetry(world).iter().filter_map(|stored| text(stored.event.system.get("message-id"))).collect()
}

pub(crate) fn text(value: Option<&PropertyValue>) -> Option<String> {
    match value {
        Some(PropertyValue::String(text)) => Some(text.clone()),
        _ => None,
    }
}

pub(crate) fn twin(world: &World, id: &str) -> Value {
    world.iot_hub.twin(id).unwrap_or_default()
}

pub(crate) fn reported(world: &World, id: &str) -> Value {
    twin(world, id)["properties"]["reported"].clone()
}

/// Tags of a device to register.
pub(crate) fn lorawan_tags(number: u32) -> Value {
    json!({"lorawan": {
        "devEui": format!("70B3D57ED9{number:06X}"),
        "joinEui": "0000000000000001",
        "lorawanVersion": "1.0.3",
        "regionalParametersVersion": "1.0.3-a",
        "appKey": ROOT_KEY,
        "frequencyPlanId": "EU_863_870_TTN",
    }})
}
