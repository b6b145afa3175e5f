//! The service API (`Azure/azure-iot-hub-python service.json`).

mod devicebound;
mod handlers;
mod listener;
mod metering;
mod registry;
mod rights;

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::HttpBody as _;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use http::header::{AUTHORIZATION, CONNECTION};
use http::{HeaderValue, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;

use super::error::{Code, HubError};
use super::fault::Fault;
use super::hub::Hub;
use super::limits::Operation;
use crate::faults::{Fate, Stage, Strike, play};

use crate::entra::{Access, Entra, IOT_HUBS};
pub(super) use listener::{Door, SocketListener};

/// The versions that live hubs take.
const API_VERSIONS: [&str; 5] = ["2018-06-30", "2020-05-31-preview", "2020-09-30", "2021-04-12", "2024-03-31"];

/// Largest body: a bulk call whose devices have the fullest twins, with room for how JSON writes them.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Whose bearer tokens are taken, and what those may do whom they name.
#[derive(Clone)]
pub(super) struct Bearers {
    pub(super) entra: Entra,
    pub(super) access: Access,
}

/// The routes of the service API.
pub(super) fn router(hub: Arc<Hub>, bearers: Bearers) -> Router {
    use handlers::{delete_device, get_device, get_twin, list_devices, patch_twin, put_device, put_twin};
    use registry::{change_devices, device_statistics, query_devices, service_statistics};
    Router::new()
        .route("/devices", get(list_devices).post(change_devices))
        // So Node's `azure-iothub` asks for the list.
        .route("/devices/", get(list_devices))
        .route("/devices/{id}", get(get_device).put(put_device).delete(delete_device).post(query_devices))
        .route("/statistics/devices", get(device_statistics))
        .route("/statistics/service", get(service_statistics))
        .route("/twins/{id}", get(get_twin).patch(patch_twin).put(put_twin))
        .merge(devicebound::router())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(hub.clone(), guard))
        .layer(Extension(bearers))
        .with_state(hub)
}

/// What every call must pass: the fault of the moment, the token, the API version, the limits of the tier.
async fn guard(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(door): ConnectInfo<Door>,
    request: Request,
    next: Next,
) -> Response {
    if hub.fault.now() == Fault::Silent {
        drop(request);
        return silence(&door).await;
    }
    let strike = hub.faults.at(Stage::Rest, device_of(request.uri().path()).as_deref());
    match strike {
        Some(Strike::Throttle) => {
            return HubError::new(Code::ThrottlingException, "too many calls; wait 10 seconds").into_response();
        }
        Some(Strike::Refuse) => {
            return HubError::new(Code::ServiceUnavailable, "the service is unavailable").into_response();
        }
        _ => {}
    }
    let answer = match check(&hub, &request) {
        Ok(()) => serve(&hub, request, next).await,
        Err(error) => {
            drop(request);
            error.into_response()
        }
    };
    match play(strike).await {
        Fate::GoesOn => return answer,
        Fate::Silence => {}
        Fate::Closed => door.close(),
    }
    silence(&door).await
}

/// Says nothing until the socket must close. The caller has dropped the request: while somebody may still ask for its body, the
/// server does not look at the socket, and would not see that it is closed.
async fn silence(door: &Door) -> Response {
    door.closed().await;
    // This reaches nobody, but makes the server write to the socket.
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

/// Serves a call once the tier lets it in, and bills it.
async fn serve(hub: &Hub, request: Request, next: Next) -> Response {
    let Some(operation) = metering::operation(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let sent = request.body().size_hint().exact().unwrap_or_default();
    let amount = if operation == Operation::Method { sent } else { 1 };
    if let Err(excess) = hub.admit(operation, amount).await {
        return HubError::from(excess).into_response();
    }
    let answer = next.run(request).await;
    metering::bill(hub, operation, sent, &answer);
    answer
}

/// The device that a path names.
fn device_of(path: &str) -> Option<Cow<'_, str>> {
    let mut parts = path.split('/').skip(1);
    match (parts.next()?, parts.next()?) {
        ("devices" | "twins", id) => percent_decode_str(id).decode_utf8().ok(),
        _ => None,
    }
}

fn check(hub: &Hub, request: &Request) -> Result<(), HubError> {
    let token = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let refused = |reason: &dyn std::fmt::Display| {
        tracing::debug!(%path, %reason, "a service call is refused");
        HubError::new(Code::IotHubUnauthorizedAccess, "Unauthorized")
    };
    let method = request.method();
    match (token.strip_prefix("Bearer "), request.extensions().get::<Bearers>()) {
        (Some(bearer), Some(Bearers { entra, access })) => {
            let claims = entra.check(bearer, IOT_HUBS).map_err(|error| refused(&error))?;
            access
                .check(&claims.sub, rights::actions_for(method, &path), "")
                .map_err(|denied| HubError::new(Code::IotHubUnauthorized, denied.refusal(method.as_str(), &path)))?;
        }
        _ => {
            hub.authorise_service(token, rights::right_for(method, &path), &path).map_err(|error| refused(&error))?;
        }
    }
    match api_version(request.uri()) {
        Some(version) if API_VERSIONS.contains(&version) => Ok(()),
        Some(_) => Err(HubError::new(Code::ArgumentInvalid, "this api-version is not supported")),
        None => Err(HubError::new(Code::ArgumentInvalid, "api-version is missing")),
    }
}

fn api_version(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("api-version="))
}

impl IntoResponse for HubError {
    fn into_response(self) -> Response {
        let (status, body) = (self.code.status(), Json(self.rest_body(OffsetDateTime::now_utc())));
        let mut response = (status, [("iothub-errorcode", self.code.name())], body).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS {
            // A throttled caller is told nothing of when to come back
            // (`mwalser/terraform-provider-iothub CONCEPT.md`).
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttled_caller_is_sent_away_without_a_word_of_when_to_come_back() {
        for code in [Code::ThrottlingException, Code::ThrottleBacklogLimitExceeded, Code::ThrottlingBacklogTimeout] {
            let response = HubError::new(code, "wait 10 seconds").into_response();
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()["connection"], "close");
            assert_eq!(response.headers()["iothub-errorcode"], code.name());
            assert!(!response.headers().contains_key("retry-after"));
        }
        let other = HubError::new(Code::ServiceUnavailable, "").into_response();
        assert!(!other.headers().contains_key("connection"));
    }
}
