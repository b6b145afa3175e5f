//! The downlink queue: push, replace and list (`TheThingsNetwork/lorawan-stack pkg/applicationserver/applicationserver.go`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::auth::{self, authorise};
use super::downlink_item as item;
use super::error::{ApiError, Code};
use super::registry::Server;
use super::world::World;
use super::{Shared, ids, messages, webhook_registry};

/// Most items of the queue of a session (`pkg/networkserver`, default of the configuration).
const QUEUE_CAPACITY: usize = 10_000;

/// How items join the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Push,
    Replace,
}

impl Operation {
    fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "push" => Ok(Self::Push),
            "replace" => Ok(Self::Replace),
            _ => Err(ApiError::plain(Code::NotFound, "Not Found")),
        }
    }
}

/// `POST /as/applications/{application}/devices/{device}/down/{operation}`.
pub(super) async fn operate(
    State(shared): State<Arc<Shared>>,
    Path((application, device, operation)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let operation = Operation::parse(&operation)?;
    authorise(&shared, &headers, &application, &[auth::TRAFFIC_DOWN_WRITE])?;
    run(&shared, &application, &device, operation, &body, false).await?;
    Ok(Json(json!({})))
}

/// `POST /as/applications/{application}/webhooks/{webhook}/devices/{device}/down/{operation}`: the address in `X-Downlink-*`.
pub(super) async fn operate_by_webhook(
    State(shared): State<Arc<Shared>>,
    Path((application, webhook, device, operation)): Path<(String, String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let operation = Operation::parse(&operation)?;
    authorise(&shared, &headers, &application, &[auth::TRAFFIC_DOWN_WRITE])?;
    let is_paused = webhook_registry::find(&shared.world(), &webhook)?["paused"] == json!(true);
    if is_paused {
        return Ok(StatusCode::NOT_ACCEPTABLE.into_response());
    }
    run(&shared, &application, &device, operation, &body, true).await?;
    Ok(StatusCode::OK.into_response())
}

async fn run(
    shared: &Shared,
    application: &str,
    device: &str,
    operation: Operation,
    body: &[u8],
    keep_empty: bool,
) -> Result<(), ApiError> {
    let body: Value = serde_json::from_slice(body).map_err(|_| ApiError::unreadable())?;
    let items = match &body["downlinks"] {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().map(|item| item::clean(item, keep_empty)).collect::<Result<Vec<_>, _>>()?,
        _ => return Err(ApiError::unreadable()),
    };
    let (messages, result) = enqueue(&mut shared.world(), application, device, operation, items);
    // The caller learns the result only after the webhook was called.
    for message in messages {
        shared.publish(&message).await;
    }
    result
}

/// Queues all items or none. Returns the messages about them, too.
fn enqueue(
    world: &mut World,
    application: &str,
    device: &str,
    operation: Operation,
    mut items: Vec<Value>,
) -> (Vec<Value>, Result<(), ApiError>) {
    for item in &mut items {
        // The server's own id comes first.
        let own = json!(format!("as:downlink:{}", ids::ulid()));
        item["correlation_ids"].as_array_mut().into_iter().for_each(|ids| ids.insert(0, own.clone()));
    }
    let Some(known) = world.registries.application.get(device) else {
        return (Vec::new(), Err(Server::Application.not_found(application, device, false)));
    };
    for item in &mut items {
        if let Err(error) = item::encode(item, known).and_then(|()| item::prepare_retry(item)) {
            return (Vec::new(), Err(error));
        }
    }
    let result = check_and_store(world, application, device, operation, &items);
    let end_device_ids = world.end_device_ids(application, device);
    let message = |item: &Value| match &result {
        Ok(()) => messages::about_downlink(&end_device_ids, "downlink_queued", item.clone()),
        Err(error) => messages::downlink_failed(&end_device_ids, item.clone(), error),
    };
    (items.iter().map(message).collect(), result)
}

/// A failure from here on also becomes a `downlink_failed`.
fn check_and_store(
    world: &mut World,
    application: &str,
    device: &str,
    operation: Operation,
    items: &[Value],
) -> Result<(), ApiError> {
    items.iter().try_for_each(item::check_port)?;
    let session = world.sessions.get_mut(device).ok_or_else(|| {
        let text = "no device session; check device activation";
        ApiError::new(Code::FailedPrecondition, "pkg/applicationserver", "no_device_session", text)
    })?;
    let network = world.registries.network.get(device);
    let network = network.ok_or_else(|| Server::Network.not_found(application, device, false))?;
    items.iter().try_for_each(|item| item::check_queueable(item, network))?;
    let kept = if operation == Operation::Push { session.queue.len() } else { 0 };
    if kept + items.len() > QUEUE_CAPACITY {
        let text = "downlink queue capacity exceeded";
        return Err(ApiError::new(Code::ResourceExhausted, "pkg/networkserver", "downlink_queue_capacity", text));
    }
    session.queue.truncate(kept);
    items.iter().for_each(|item| session.enqueue(item.clone()));
    world.counters.downlinks_queued += items.len() as u64;
    Ok(())
}

/// `GET /as/applications/{application}/devices/{device}/down`.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path((application, device)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorise(&shared, &headers, &application, &[auth::TRAFFIC_READ])?;
    let world = shared.world();
    let known = world.registries.application.get(&device);
    let known = known.ok_or_else(|| Server::Application.not_found(&application, &device, true))?;
    let queue = world.sessions.get(&device).map(|session| &session.queue);
    let items: Vec<Value> = queue.into_iter().flatten().map(|item| item::as_decoded(item, known)).collect();
    Ok(Json(if items.is_empty() { json!({}) } else { json!({"downlinks": items}) }))
}
