//! The `azureiothub` package, of which only the submitting of events is public
//! (`TheThingsIndustries/lorawan-stack-docs doc/data/api/ttn.lorawan.v3/services/AzureIoTHubService.yml`).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::auth::authorise;
use super::error::{ApiError, Code};
use super::{Shared, ids};

/// `POST /as/applications/{application}/packages/azureiothub/events`.
/// Which right it needs is not published; any right for the application will do here.
pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    Path(application): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    if !shared.world().has_package {
        return Err(ApiError::plain(Code::NotFound, "Not Found"));
    }
    authorise(&shared, &headers, &application, &[])?;
    let body: Value = serde_json::from_slice(&body).map_err(|_| ApiError::unreadable())?;
    let events = body["events"].as_array().filter(|events| !events.is_empty());
    let events = events.ok_or_else(|| ApiError::validation("events", "value must contain at least 1 item(s)"))?;
    for event in events {
        let required = ["end_device_ids", "body", "properties"].into_iter().find(|field| !event[*field].is_object());
        if let Some(field) = required {
            return Err(ApiError::validation(field, "value is required"));
        }
        if !event["end_device_ids"]["device_id"].as_str().is_some_and(ids::is_stack_id) {
            return Err(ApiError::validation("device_id", "value does not match the pattern of an id"));
        }
    }
    shared.world().events.extend_from_slice(events);
    Ok(Json(json!({})))
}
