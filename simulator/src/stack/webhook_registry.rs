//! The calls that set webhooks up (`TheThingsNetwork/lorawan-stack pkg/applicationserver/io/web/grpc_webhooks.go`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{self, authorise};
use super::error::{ApiError, Code};
use super::messages::MESSAGE_TYPES;
use super::world::World;
use super::{Shared, field_mask, ids, timestamp};

/// Longest path of a message type (`api/ttn/lorawan/v3/applicationserver_web.proto`).
const MAX_PATH_CHARS: usize = 64;
/// Most headers (same).
const MAX_HEADERS: usize = 50;
/// Longest value of a header (same).
const MAX_HEADER_CHARS: usize = 4096;

/// The fields that can be set, besides the message types.
const FIELDS: [&str; 8] =
    ["base_url", "downlink_api_key", "field_mask", "format", "headers", "paused", "template_fields", "template_ids"];
/// What an answer holds without being asked.
const DEFAULT_FIELDS: [&str; 2] = ["base_url", "format"];
const SET_RIGHTS: [&str; 3] = [auth::SETTINGS_BASIC, auth::TRAFFIC_READ, auth::TRAFFIC_DOWN_WRITE];

/// What stands behind the `?` of a read.
#[derive(Debug, Default, Deserialize)]
struct ReadQuery {
    #[serde(default)]
    field_mask: String,
}

type App = State<Arc<Shared>>;

/// `GET` and `POST` of the webhooks of an application.
pub(super) fn collection() -> MethodRouter<Arc<Shared>> {
    get(list).post(|app: App, Path(application): Path<String>, headers: HeaderMap, body: Bytes| async move {
        set(&app.0, &application, None, &headers, &body)
    })
}

/// `GET`, `PUT` and `DELETE` of one webhook.
pub(super) fn webhook() -> MethodRouter<Arc<Shared>> {
    get(read)
        .put(|app: App, Path((application, id)): Path<(String, String)>, headers: HeaderMap, body: Bytes| async move {
            set(&app.0, &application, Some(id), &headers, &body)
        })
        .delete(delete)
}

/// The webhook of this id.
pub(super) fn find<'w>(world: &'w World, id: &str) -> Result<&'w Value, ApiError> {
    world.webhooks.get(id).ok_or_else(|| {
        let namespace = "pkg/applicationserver/io/web";
        ApiError::new(Code::NotFound, namespace, "webhook_not_found", "webhook not found")
    })
}

fn answer(webhook: &Value, paths: &[&str]) -> Value {
    let mut answer = json!({});
    for path in ["ids", "created_at", "updated_at"].iter().chain(paths) {
        if let Some(value) = field_mask::get(webhook, path).filter(|value| !value.is_null()) {
            field_mask::set(&mut answer, path, Some(value.clone()));
        }
    }
    answer
}

impl ReadQuery {
    fn paths(&self) -> Vec<&str> {
        let asked: Vec<&str> = self.field_mask.split(',').filter(|path| !path.is_empty()).collect();
        if asked.is_empty() { DEFAULT_FIELDS.to_vec() } else { asked }
    }
}

async fn read(
    State(shared): App,
    Path((application, id)): Path<(String, String)>,
    Query(query): Query<ReadQuery>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorise(&shared, &headers, &application, &[auth::TRAFFIC_READ])?;
    let world = shared.world();
    Ok(Json(answer(find(&world, &id)?, &query.paths())))
}

async fn list(
    State(shared): App,
    Path(application): Path<String>,
    Query(query): Query<ReadQuery>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorise(&shared, &headers, &application, &[auth::TRAFFIC_READ])?;
    let paths = query.paths();
    let world = shared.world();
    let webhooks: Vec<Value> = world.webhooks.values().map(|webhook| answer(webhook, &paths)).collect();
    Ok(Json(if webhooks.is_empty() { json!({}) } else { json!({"webhooks": webhooks}) }))
}

async fn delete(
    State(shared): App,
    Path((application, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorise(&shared, &headers, &application, &SET_RIGHTS)?;
    let mut world = shared.world();
    find(&world, &id)?;
    world.webhooks.remove(&id);
    Ok(Json(json!({})))
}

fn set(
    shared: &Shared,
    application: &str,
    id: Option<String>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Json<Value>, ApiError> {
    authorise(shared, headers, application, &SET_RIGHTS)?;
    let body: Value = serde_json::from_slice(body).map_err(|_| ApiError::unreadable())?;
    let new = &body["webhook"];
    let paths: Vec<String> =
        Option::deserialize(&body["field_mask"]["paths"]).map_err(|_| ApiError::unreadable())?.unwrap_or_default();
    let id = id.or_else(|| new["ids"]["webhook_id"].as_str().map(str::to_owned)).unwrap_or_default();
    check(&id, new, &paths)?;
    let mut world = shared.world();
    let now = json!(timestamp::now());
    let mut webhook = world.webhooks.get(&id).cloned().unwrap_or_else(|| json!({"created_at": now}));
    webhook["ids"] = json!({"application_ids": {"application_id": application}, "webhook_id": id});
    webhook["updated_at"] = now;
    field_mask::copy(new, &mut webhook, &paths);
    let stored = answer(&webhook, &paths.iter().map(String::as_str).collect::<Vec<_>>());
    world.webhooks.insert(id, webhook);
    Ok(Json(stored))
}

fn check(id: &str, webhook: &Value, paths: &[String]) -> Result<(), ApiError> {
    if !ids::is_stack_id(id) {
        return Err(ApiError::validation("webhook_id", "value does not match the pattern of an id"));
    }
    let is_known = |path: &str| {
        let root = path.split('.').next().unwrap_or_default();
        FIELDS.contains(&root) || MESSAGE_TYPES.contains(&root) || root == "ids"
    };
    let forbidden: Vec<&str> = paths.iter().map(String::as_str).filter(|path| !is_known(path)).collect();
    if !forbidden.is_empty() {
        let namespace = "pkg/rpcmiddleware/validator";
        let text = "forbidden path(s) in field mask";
        let error = ApiError::new(Code::InvalidArgument, namespace, "field_mask_paths", text);
        return Err(error.with("forbidden_paths", forbidden));
    }
    let too_long = |value: &Value, limit: usize| value.as_str().is_some_and(|text| text.chars().count() > limit);
    if MESSAGE_TYPES.iter().any(|kind| too_long(&webhook[kind]["path"], MAX_PATH_CHARS)) {
        return Err(ApiError::validation("path", "value length must be at most 64 runes"));
    }
    let headers = webhook["headers"].as_object();
    if headers.is_some_and(|headers| headers.len() > MAX_HEADERS) {
        return Err(ApiError::validation("headers", "value must contain no more than 50 pair(s)"));
    }
    if headers.into_iter().flatten().any(|(_, value)| too_long(value, MAX_HEADER_CHARS)) {
        return Err(ApiError::validation("headers", "value length must be at most 4096 runes"));
    }
    Ok(())
}
