//! One function per call.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::hub::Hub;
use crate::iot_hub::identity::IdentityRequest;
use crate::iot_hub::registry::IfMatch;
use crate::iot_hub::twin::{ServiceWrite, parse_document};

type Answer = Result<Response, HubError>;
type SharedHub = State<Arc<Hub>>;

#[derive(Deserialize)]
pub(super) struct Top {
    top: Option<String>,
}

pub(super) async fn list_devices(State(hub): SharedHub, Query(top): Query<Top>) -> Json<Vec<Value>> {
    Json(hub.identities(top.top.and_then(|top| top.parse().ok())))
}

pub(super) async fn get_device(State(hub): SharedHub, Path(id): Path<String>) -> Answer {
    hub.identity(&id).map(document)
}

pub(super) async fn put_device(
    State(hub): SharedHub,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let request = IdentityRequest::parse(&id, &body)?;
    hub.put_identity(&id, request, if_match(&headers)?.as_ref()).map(document)
}

pub(super) async fn delete_device(State(hub): SharedHub, Path(id): Path<String>, headers: HeaderMap) -> Answer {
    hub.delete_identity(&id, if_match(&headers)?.as_ref())?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn get_twin(State(hub): SharedHub, Path(id): Path<String>) -> Answer {
    hub.twin(&id).map(document)
}

pub(super) async fn patch_twin(
    State(hub): SharedHub,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    hub.patch_twin(&id, twin_write(&body)?, if_match(&headers)?.as_ref()).map(document)
}

pub(super) async fn put_twin(State(hub): SharedHub, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    hub.replace_twin(&id, twin_write(&body)?, if_match(&headers)?.as_ref()).map(document)
}

fn twin_write(body: &[u8]) -> Result<ServiceWrite, HubError> {
    Ok(ServiceWrite::parse(&parse_document(body)?)?)
}

fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, HubError> {
    let Some(header) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = header.to_str().map_err(|_| HubError::new(Code::ArgumentInvalid, "If-Match is no text"))?;
    Ok(Some(IfMatch::parse(text)))
}

/// A document with its etag as a header too.
fn document(document: Value) -> Response {
    let etag = document["etag"].as_str().map(|etag| [(ETAG, format!("\"{etag}\""))]);
    (etag, Json(document)).into_response()
}
