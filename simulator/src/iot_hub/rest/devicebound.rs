//! What services ask of one device: method calls, and to forget its cloud-to-device messages.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::json;

use crate::iot_hub::error::HubError;
use crate::iot_hub::hub::Hub;
use crate::iot_hub::methods::MethodRequest;

pub(super) fn router() -> Router<Arc<Hub>> {
    Router::new().route("/twins/{id}/methods", post(call_method)).route("/devices/{id}/commands", delete(purge))
}

async fn call_method(State(hub): State<Arc<Hub>>, Path(id): Path<String>, body: Bytes) -> Result<Response, HubError> {
    let request = MethodRequest::parse(&body)?;
    let answer = hub.call_method(&id, &request).await?;
    Ok(Json(json!({"status": answer.status, "payload": answer.payload})).into_response())
}

async fn purge(State(hub): State<Arc<Hub>>, Path(id): Path<String>) -> Result<Response, HubError> {
    let count = hub.purge(&id)?;
    Ok(Json(json!({"deviceId": id, "totalMessagesPurged": count, "moduleId": null})).into_response())
}
