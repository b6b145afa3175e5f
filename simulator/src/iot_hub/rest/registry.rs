//! Calls on many devices: bulk, query, statistics.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::iot_hub::bulk;
use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::hub::Hub;
use crate::iot_hub::limits::Operation;
use crate::iot_hub::query::{self, PageRequest, Query};

type SharedHub = State<Arc<Hub>>;

/// How many rows a page may have, and where the next page begins.
const MAX_ITEM_COUNT: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";
const ITEM_TYPE: &str = "x-ms-item-type";

/// `POST /devices`: 200 if all went well, else 400 with the same object.
pub(super) async fn change_devices(State(hub): SharedHub, body: Bytes) -> Result<Response, HubError> {
    let calls = bulk::parse(&body)?;
    for operation in [Operation::Identity, Operation::TwinUpdate] {
        let count = calls.iter().filter(|call| call.operation() == operation).count();
        if count > 0 {
            hub.admit(operation, count as u64).await?;
        }
    }
    let failures = hub.bulk(calls);
    let status = if failures.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let mut response = (status, Json(bulk::result(&failures))).into_response();
    if !failures.is_empty() {
        let name = HeaderValue::from_static(Code::BulkRegistryOperationFailure.name());
        response.headers_mut().insert("iothub-errorcode", name);
    }
    Ok(response)
}

#[derive(Deserialize)]
struct Asked {
    query: String,
}

/// `POST /devices/query`. The path is that of a device of this name, which has no `POST`.
pub(super) async fn query_devices(
    State(hub): SharedHub,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HubError> {
    if id != "query" {
        return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| HubError::new(Code::IotHubFormatError, format!("the body is no query: {error}")))?;
    let query = Query::parse(&asked.query)?;
    let page = query::run(&query, &page_request(&headers)?, |id, count| hub.twins_after(id, count))?;
    let mut response = ([(ITEM_TYPE, page.item_type.name())], Json(page.rows)).into_response();
    if let Some(token) = page.continuation.and_then(|token| HeaderValue::try_from(token).ok()) {
        response.headers_mut().insert(CONTINUATION, token);
    }
    Ok(response)
}

fn page_request(headers: &HeaderMap) -> Result<PageRequest, HubError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    let rows = text(MAX_ITEM_COUNT).map(str::parse).transpose();
    let rows = rows.map_err(|_| HubError::new(Code::ArgumentInvalid, format!("{MAX_ITEM_COUNT} is no number")))?;
    Ok(PageRequest { rows, continuation: text(CONTINUATION).map(str::to_owned) })
}

/// `GET /statistics/devices`
pub(super) async fn device_statistics(State(hub): SharedHub) -> Json<Value> {
    let census = hub.census();
    Json(json!({
        "totalDeviceCount": census.total,
        "enabledDeviceCount": census.enabled,
        "disabledDeviceCount": census.total - census.enabled,
    }))
}

/// `GET /statistics/service`
pub(super) async fn service_statistics(State(hub): SharedHub) -> Json<Value> {
    Json(json!({"connectedDeviceCount": hub.census().connected}))
}
