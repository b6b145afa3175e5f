//! The service API (`Azure/azure-iot-hub-python service.json`).

mod handlers;
mod listener;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::AUTHORIZATION;
use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;

use super::error::{Code, HubError};
use super::fault::Fault;
use super::hub::Hub;
use super::sas::Right;

pub(super) use listener::SocketListener;

/// The versions that live hubs take.
const API_VERSIONS: [&str; 5] = ["2018-06-30", "2020-05-31-preview", "2020-09-30", "2021-04-12", "2024-03-31"];

/// The routes of the service API.
pub(super) fn router(hub: Arc<Hub>) -> Router {
    use handlers::{delete_device, get_device, get_twin, list_devices, patch_twin, put_device, put_twin};
    Router::new()
        .route("/devices", get(list_devices))
        .route("/devices/{id}", get(get_device).put(put_device).delete(delete_device))
        .route("/twins/{id}", get(get_twin).patch(patch_twin).put(put_twin))
        .layer(from_fn_with_state(hub.clone(), guard))
        .with_state(hub)
}

/// What every call must pass: the fault of the moment, the token, the API version.
async fn guard(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    match hub.fault.now() {
        Fault::Silent => return std::future::pending().await,
        Fault::ServiceUnavailable => {
            return HubError::new(Code::ServiceUnavailable, "the service is unavailable").into_response();
        }
        _ => {}
    }
    match check(&hub, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(hub: &Hub, request: &Request) -> Result<(), HubError> {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
    hub.authorise_service(token, right_for(request.method(), &path), &path).map_err(|error| {
        tracing::debug!(%path, reason = %error, "a service call is refused");
        HubError::new(Code::IotHubUnauthorizedAccess, "Unauthorized")
    })?;
    match api_version(request.uri()) {
        Some(version) if API_VERSIONS.contains(&version) => Ok(()),
        Some(_) => Err(HubError::new(Code::ArgumentInvalid, "this api-version is not supported")),
        None => Err(HubError::new(Code::ArgumentInvalid, "api-version is missing")),
    }
}

/// The rights matrix (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-dev-guide-sas.md`).
fn right_for(method: &Method, path: &str) -> Right {
    match *method {
        _ if path.starts_with("/twins") => Right::ServiceConnect,
        Method::GET => Right::RegistryRead,
        _ => Right::RegistryWrite,
    }
}

fn api_version(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("api-version="))
}

impl IntoResponse for HubError {
    fn into_response(self) -> Response {
        let body = Json(self.rest_body(OffsetDateTime::now_utc()));
        (self.code.status(), [("iothub-errorcode", self.code.name())], body).into_response()
    }
}
