//! The calls that create, read, list, update and delete end devices, on each of the four servers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::{self, authorise};
use super::error::{ApiError, Code};
use super::field_mask::{self, Access, touches};
use super::registry::Server;
use super::{Shared, device_rules, ids};

/// Most devices in one answer (`api/ttn/lorawan/v3/end_device_services.proto`).
const MAX_LIST: usize = 1000;
/// The fields that need a right of their own.
const KEY_FIELDS: [&str; 2] = ["root_keys", "session.keys"];

/// What stands behind the `?` of a read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ReadQuery {
    #[serde(default)]
    field_mask: String,
    limit: Option<usize>,
    page: Option<usize>,
}

impl ReadQuery {
    fn paths(&self) -> Vec<String> {
        self.field_mask.split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect()
    }
}

type Ids = Path<(String, String)>;
type App = State<Arc<Shared>>;

/// `GET`, `PUT` and `DELETE` of one device on one server.
pub(super) fn device(server: Server) -> MethodRouter<Arc<Shared>> {
    get(move |app: App, ids: Ids, query: Query<ReadQuery>, headers: HeaderMap| async move {
        read(server, &app.0, &ids.0, &query.0, &headers)
    })
    .put(move |app: App, ids: Ids, headers: HeaderMap, body: Bytes| async move {
        write(server, &app.0, &ids.0, &headers, &body)
    })
    .delete(move |app: App, ids: Ids, headers: HeaderMap| async move { delete(server, &app.0, &ids.0, &headers) })
}

/// `GET` and `POST` of the devices of an application on the Identity Server.
pub(super) fn collection() -> MethodRouter<Arc<Shared>> {
    get(list).post(create)
}

/// A device as an answer: ids and times, and what the mask asks for.
fn masked(device: &Value, paths: &[String]) -> Value {
    let mut answer = json!({
        "ids": device["ids"],
        "created_at": device["created_at"],
        "updated_at": device["updated_at"],
    });
    for path in paths {
        if let Some(value) = field_mask::get(device, path).filter(|value| !value.is_null()) {
            field_mask::set(&mut answer, path, Some(value.clone()));
        }
    }
    answer
}

fn read_rights(paths: &[String]) -> Vec<&'static str> {
    let mut rights = vec![auth::DEVICES_READ];
    if KEY_FIELDS.iter().any(|field| touches(paths, field)) {
        rights.push(auth::DEVICES_READ_KEYS);
    }
    rights
}

fn read(
    server: Server,
    shared: &Shared,
    (application, id): &(String, String),
    query: &ReadQuery,
    headers: &HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let paths = query.paths();
    authorise(shared, headers, application, &read_rights(&paths))?;
    field_mask::check(server, Access::Read, &paths)?;
    let world = shared.world();
    let device = world.registries.of(server).get(id).ok_or_else(|| server.not_found(application, id, true))?;
    Ok(Json(masked(device, &paths)))
}

async fn list(
    State(shared): App,
    Path(application): Path<String>,
    Query(query): Query<ReadQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let paths = query.paths();
    authorise(&shared, &headers, &application, &read_rights(&paths))?;
    field_mask::check(Server::Identity, Access::Read, &paths)?;
    if query.limit.is_some_and(|limit| limit > MAX_LIST) {
        return Err(ApiError::validation("limit", "value must be less than or equal to 1000"));
    }
    let limit = query.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let skip = query.page.unwrap_or(1).saturating_sub(1).saturating_mul(limit);
    let world = shared.world();
    let devices = &world.registries.identity;
    let answers: Vec<Value> = devices.values().skip(skip).take(limit).map(|device| masked(device, &paths)).collect();
    let total = [(HeaderName::from_static("x-total-count"), devices.len().to_string())];
    Ok((total, Json(json!({"end_devices": answers}))).into_response())
}

/// The device of a body, and the mask beside it.
fn parse(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let mut body: Value = serde_json::from_slice(body).map_err(|_| ApiError::unreadable())?;
    let paths = match &body["field_mask"]["paths"] {
        Value::Null => Vec::new(),
        paths => Vec::deserialize(paths).map_err(|_| ApiError::unreadable())?,
    };
    Ok((device_rules::canonical(body["end_device"].take())?, paths))
}

async fn create(
    State(shared): App,
    Path(application): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    authorise(&shared, &headers, &application, &[auth::DEVICES_WRITE])?;
    let (mut device, _) = parse(&body)?;
    let id = device["ids"]["device_id"].as_str().unwrap_or_default().to_owned();
    device["ids"] = device_rules::identifiers(&device, &application, &id)?;
    device_rules::check(Server::Identity, &device, &device, None, &[])?;
    if ids::is_forbidden(&id) {
        let text = "the ID `{id}` can not be registered";
        let error = ApiError::new(Code::InvalidArgument, "pkg/identityserver/blocklist", "forbidden_id", text);
        return Err(error.with("id", id));
    }
    let mut world = shared.world();
    if world.registries.identity.contains_key(&id) {
        let text = "ID already taken, choose a different one and try again";
        return Err(ApiError::new(Code::AlreadyExists, "pkg/util/store", "id_taken", text));
    }
    let euis = |device: &Value| (device["ids"]["join_eui"].clone(), device["ids"]["dev_eui"].clone());
    let wanted = euis(&device);
    let has_both = wanted.0.is_string() && wanted.1.is_string();
    if let Some(owner) = world.registries.identity.values().find(|other| has_both && euis(other) == wanted) {
        return Err(euis_taken(owner));
    }
    let device = field_mask::kept(Server::Identity, &device);
    let stored = world.registries.put(Server::Identity, &id, device);
    world.note_registration(&id);
    Ok(Json(stored))
}

/// `pkg/identityserver/end_device_registry.go`.
fn euis_taken(owner: &Value) -> ApiError {
    ApiError::new(
        Code::AlreadyExists,
        "pkg/identityserver",
        "end_device_euis_taken",
        "an end device with JoinEUI `{join_eui}` and DevEUI `{dev_eui}` is already registered as `{device_id}` in application `{application_id}`",
    )
    .with("join_eui", owner["ids"]["join_eui"].clone())
    .with("dev_eui", owner["ids"]["dev_eui"].clone())
    .with("device_id", owner["ids"]["device_id"].clone())
    .with("application_id", owner["ids"]["application_ids"]["application_id"].clone())
}

fn write(
    server: Server,
    shared: &Shared,
    (application, id): &(String, String),
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Json<Value>, ApiError> {
    let (mut device, paths) = parse(body)?;
    let mut rights = vec![auth::DEVICES_WRITE];
    if KEY_FIELDS.iter().any(|field| touches(&paths, field)) {
        rights.push(auth::DEVICES_WRITE_KEYS);
    }
    authorise(shared, headers, application, &rights)?;
    field_mask::check(server, Access::Write, &paths)?;
    device["ids"] = device_rules::identifiers(&device, application, id)?;

    let mut world = shared.world();
    let old = world.registries.of(server).get(id).cloned();
    if server == Server::Identity && old.is_none() {
        return Err(server.not_found(application, id, true));
    }
    let mut merged = old.clone().unwrap_or_else(|| json!({"ids": device["ids"]}));
    field_mask::copy(&device, &mut merged, &paths);
    if old.is_some() {
        keeps_euis(server, &device, &merged)?;
    }
    device_rules::check(server, &device, &merged, old.as_ref(), &paths)?;
    let stored = world.registries.put(server, id, merged);
    if server == Server::Application && touches(&paths, "session.dev_addr") {
        world.activate_by_personalisation(id, &stored);
    }
    world.note_registration(id);
    Ok(Json(masked(&stored, &paths)))
}

/// The EUIs of a stored device cannot be changed; the Identity Server passes over an attempt.
fn keeps_euis(server: Server, new: &Value, stored: &Value) -> Result<(), ApiError> {
    let namespace = match server {
        Server::Identity => return Ok(()),
        Server::Join => "pkg/joinserver/redis",
        Server::Network => "pkg/networkserver/redis",
        Server::Application => "pkg/applicationserver/redis",
    };
    for eui in ["dev_eui", "join_eui"] {
        let (new, stored) = (&new["ids"][eui], &stored["ids"][eui]);
        if new.is_string() && stored.is_string() && new != stored {
            let text = "read-only field `{field}`";
            let error = ApiError::new(Code::InvalidArgument, namespace, "read_only_field", text);
            return Err(error.with("field", format!("ids.{eui}")));
        }
    }
    Ok(())
}

fn delete(
    server: Server,
    shared: &Shared,
    (application, id): &(String, String),
    headers: &HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorise(shared, headers, application, &[auth::DEVICES_WRITE])?;
    let mut world = shared.world();
    world.registries.of_mut(server).remove(id).ok_or_else(|| server.not_found(application, id, false))?;
    world.note_deletion(server, id);
    Ok(Json(json!({})))
}
