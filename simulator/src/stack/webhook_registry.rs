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
/// Longest name of a header (same).
const MAX_HEADER_NAME_CHARS: usize = 64;
/// Longest value of a header (same).
const MAX_HEADER_CHARS: usize = 4096;

/// The fields that can be set, besides the message types.
const FIELDS: [&str; 8] =
    ["base_url", "downlink_api_key", "field_mask", "format", "headers", "paused", "template_fields", "template_ids"];
/// The fields that can only be read, besides `ids`.
const READ_ONLY: [&str; 3] = ["created_at", "health_status", "updated_at"];
/// What an answer holds without being asked, also where something else is asked for.
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
    for path in ["ids", "created_at", "updated_at"].iter().chain(&DEFAULT_FIELDS).chain(paths) {
        if let Some(value) = field_mask::get(webhook, path).and_then(without_zero) {
            field_mask::set(&mut answer, path, Some(value));
        }
    }
    answer
}

/// Zero values are left out of an answer; a message that is there stays, even as `{}` (`pkg/jsonpb/ttn.go`).
fn without_zero(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Object(members) => {
            let kept = members.iter().filter_map(|(name, value)| Some((name.clone(), without_zero(value)?)));
            Some(Value::Object(kept.collect()))
        }
        other => Some(other.clone()),
    }
}

impl ReadQuery {
    /// The paths, if they can be read.
    fn paths(&self) -> Result<Vec<&str>, ApiError> {
        let asked: Vec<&str> = self.field_mask.split(',').filter(|path| !path.is_empty()).collect();
        let is_known = |path: &&str| is_field(path) || READ_ONLY.contains(&root(path));
        let forbidden: Vec<&str> = asked.iter().copied().filter(|path| !is_known(path)).collect();
        if forbidden.is_empty() { Ok(asked) } else { Err(forbidden_paths(&forbidden)) }
    }
}

fn root(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

/// Whether the path is one that can be set.
fn is_field(path: &str) -> bool {
    let root = root(path);
    FIELDS.contains(&root) || MESSAGE_TYPES.contains(&root) || root == "ids"
}

fn forbidden_paths(paths: &[&str]) -> ApiError {
    let namespace = "pkg/rpcmiddleware/validator";
    let error = ApiError::new(Code::InvalidArgument, namespace, "field_mask_paths", "forbidden path(s) in field mask");
    error.with("forbidden_paths", paths)
}

async fn read(
    State(shared): App,
    Path((application, id)): Path<(String, String)>,
    Query(query): Query<ReadQuery>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorise(&shared, &headers, &application, &[auth::TRAFFIC_READ])?;
    let paths = query.paths()?;
    let world = shared.world();
    // Here the store itself speaks (`pkg/applicationserver/io/web/redis/registry.go`).
    let missing = || ApiError::new(Code::NotFound, "pkg/redis", "not_found", "entity not found");
    Ok(Json(answer(world.webhooks.get(&id).ok_or_else(missing)?, &paths)))
}

async fn list(
    State(shared): App,
    Path(application): Path<String>,
    Query(query): Query<ReadQuery>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorise(&shared, &headers, &application, &[auth::TRAFFIC_READ])?;
    let paths = query.paths()?;
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
    // One that is not there is no error (`pkg/applicationserver/io/web/redis/registry.go`).
    shared.world().webhooks.remove(&id);
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
    let forbidden: Vec<&str> = paths.iter().map(String::as_str).filter(|path| !is_field(path)).collect();
    if !forbidden.is_empty() {
        return Err(forbidden_paths(&forbidden));
    }
    // An empty one is none (`api/ttn/lorawan/v3/applicationserver_web.proto`: `uri`).
    if webhook["base_url"].as_str().is_some_and(|url| !url.is_empty() && !is_uri(url)) {
        return Err(ApiError::validation("base_url", "value must be a valid URI"));
    }
    let too_long = |value: &Value, limit: usize| value.as_str().is_some_and(|text| text.chars().count() > limit);
    if MESSAGE_TYPES.iter().any(|kind| too_long(&webhook[kind]["path"], MAX_PATH_CHARS)) {
        return Err(ApiError::validation("path", "value length must be at most 64 runes"));
    }
    let headers = webhook["headers"].as_object();
    if headers.is_some_and(|headers| headers.len() > MAX_HEADERS) {
        return Err(ApiError::validation("headers", "value must contain no more than 50 pair(s)"));
    }
    if headers.into_iter().flatten().any(|(name, _)| name.chars().count() > MAX_HEADER_NAME_CHARS) {
        return Err(ApiError::validation("headers", "key length must be at most 64 runes"));
    }
    if headers.into_iter().flatten().any(|(_, value)| too_long(value, MAX_HEADER_CHARS)) {
        return Err(ApiError::validation("headers", "value length must be at most 4096 runes"));
    }
    Ok(())
}

/// Go's parser lets the braces of a template pass (`net/url`); it must only be an address.
fn is_uri(text: &str) -> bool {
    url::Url::parse(&text.replace(['{', '}'], "")).is_ok()
}
