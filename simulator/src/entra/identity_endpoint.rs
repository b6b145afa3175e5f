//! The token endpoint that App Service and Azure Functions give an app with managed identities
//! (<https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>).
//!
//! `GET {IDENTITY_ENDPOINT}?api-version=2019-08-01&resource=…&client_id=…` with the header `X-IDENTITY-HEADER`. Of the ways to name
//! an identity all three are there; an app that names none means its system-assigned one.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use rand::Rng as _;
use serde::Deserialize;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Entra;

const API_VERSION: &str = "2019-08-01";
const HEADER: &str = "x-identity-header";
const PATH: &str = "/msi/token";
/// Tokens of managed identities hold for a day
/// (<https://learn.microsoft.com/azure/app-service/overview-managed-identity#how-it-works>: the back end caches for 24 hours).
const LIFETIME: Duration = Duration::hours(24);

/// A managed identity that an app has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Its resource id; empty for the system-assigned one.
    pub resource_id: String,
    /// The id by which apps choose it.
    pub client_id: String,
    /// The id that roles are assigned to.
    pub principal_id: String,
}

/// A running endpoint. It ends when dropped.
pub struct IdentityEndpoint {
    addr: SocketAddr,
    secret: String,
    _stop_on_drop: DropGuard,
}

impl fmt::Debug for IdentityEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityEndpoint").field("addr", &self.addr).finish_non_exhaustive()
    }
}

struct Shared {
    entra: Entra,
    identities: Vec<ManagedIdentity>,
    secret: String,
}

impl IdentityEndpoint {
    /// Serves these identities on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(entra: Entra, identities: Vec<ManagedIdentity>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let secret = format!("{:032X}", rand::rng().random::<u128>());
        let shared = Arc::new(Shared { entra, identities, secret: secret.clone() });
        let router = Router::new().route(PATH, get(token)).with_state(shared);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped).await {
                tracing::error!(%error, "the identity endpoint stopped");
            }
        });
        Ok(Self { addr, secret, _stop_on_drop: stop.drop_guard() })
    }

    /// What the platform puts into the environment of the app. These are no app settings.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("IDENTITY_ENDPOINT", format!("http://{}{PATH}", self.addr)), ("IDENTITY_HEADER", self.secret.clone())]
    }
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "api-version")]
    api_version: Option<String>,
    resource: Option<String>,
    client_id: Option<String>,
    /// `object_id` is an old name of it.
    #[serde(alias = "object_id")]
    principal_id: Option<String>,
    /// `msi_res_id` is another name of it.
    #[serde(alias = "msi_res_id")]
    mi_res_id: Option<String>,
}

impl Asked {
    fn means(&self, identity: &ManagedIdentity) -> bool {
        let is = |asked: &Option<String>, own: &str| asked.as_deref().map(|asked| asked.eq_ignore_ascii_case(own));
        is(&self.client_id, &identity.client_id)
            .or(is(&self.principal_id, &identity.principal_id))
            .or(is(&self.mi_res_id, &identity.resource_id))
            .unwrap_or(identity.resource_id.is_empty())
    }
}

/// The shape of the platform's refusals (seen in logs of `ManagedIdentityCredential`).
fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"statusCode": status.as_u16(), "message": message}))).into_response()
}

async fn token(State(shared): State<Arc<Shared>>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    let shown = headers.get(HEADER).and_then(|value| value.to_str().ok());
    if shown != Some(shared.secret.as_str()) {
        return refuse(StatusCode::UNAUTHORIZED, "the header X-IDENTITY-HEADER is missing or wrong");
    }
    if asked.api_version.as_deref() != Some(API_VERSION) {
        return refuse(StatusCode::BAD_REQUEST, "the api-version must be 2019-08-01");
    }
    let Some(resource) = asked.resource.as_deref().filter(|resource| !resource.is_empty()) else {
        return refuse(StatusCode::BAD_REQUEST, "resource is missing");
    };
    let Some(identity) = shared.identities.iter().find(|identity| asked.means(identity)) else {
        let message =
            "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
        return refuse(StatusCode::BAD_REQUEST, message);
    };
    match shared.entra.mint(resource, &identity.principal_id, LIFETIME) {
        Ok(token) => Json(json!({
            "access_token": token,
            "client_id": identity.client_id,
            // A text: `Azure/azure-sdk-for-rust sdk/identity/azure_identity` and others read it as one.
            "expires_on": (OffsetDateTime::now_utc() + LIFETIME).unix_timestamp().to_string(),
            "resource": resource,
            "token_type": "Bearer",
        }))
        .into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::entra::{EVENT_HUBS, IOT_HUBS};

    fn identity(resource_id: &str, client_id: &str, principal_id: &str) -> ManagedIdentity {
        let [resource_id, client_id, principal_id] = [resource_id, client_id, principal_id].map(str::to_owned);
        ManagedIdentity { resource_id, client_id, principal_id }
    }

    async fn ask(endpoint: &IdentityEndpoint, query: &str, secret: Option<&str>) -> (u16, Value) {
        let [(_, url), (_, own)] = endpoint.environment();
        let request = reqwest::Client::new().get(format!("{url}?{query}")).header("metadata", "true");
        let answer = request.header("X-IDENTITY-HEADER", secret.unwrap_or(&own)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    #[tokio::test]
    async fn an_app_gets_tokens_in_the_name_of_each_of_its_identities() {
        let entra = Entra::new();
        let identities = vec![identity("/ids/app", "c-1", "p-1"), identity("", "c-0", "p-0")];
        let endpoint = IdentityEndpoint::start(entra.clone(), identities).await.expect("it starts");
        for (name, client, principal) in
            [("&client_id=c-1", "c-1", "p-1"), ("&msi_res_id=/ids/APP", "c-1", "p-1"), ("", "c-0", "p-0")]
        {
            let query = format!("api-version=2019-08-01&resource={IOT_HUBS}{name}");
            let (status, body) = ask(&endpoint, &query, None).await;
            assert_eq!((status, &body["client_id"]), (200, &json!(client)), "{body}");
            assert_eq!((&body["resource"], &body["token_type"]), (&json!(IOT_HUBS), &json!("Bearer")));
            let expires: i64 = body["expires_on"].as_str().expect("a text").parse().expect("Unix seconds");
            let claims = entra.check(body["access_token"].as_str().expect("a token"), IOT_HUBS).expect("it is good");
            assert_eq!(claims.sub, principal);
            assert!((claims.exp - expires).abs() <= 1);
            entra.check(body["access_token"].as_str().expect("a token"), EVENT_HUBS).expect_err("another service");
        }
    }

    #[tokio::test]
    async fn who_asks_wrongly_gets_no_token_and_is_told_why() {
        let endpoint = IdentityEndpoint::start(Entra::new(), vec![identity("/ids/app", "c-1", "p-1")]).await;
        let endpoint = endpoint.expect("it starts");
        let [_, (_, own)] = endpoint.environment();
        assert!(!format!("{endpoint:?}").contains(&own), "its secret is shown");
        let version = "api-version=2019-08-01";
        for (query, secret, status, message) in [
            (format!("{version}&resource=r&client_id=c-1"), Some("wrong"), 401, "X-IDENTITY-HEADER"),
            (format!("{version}&resource=r&client_id=c-2"), None, 400, "No User Assigned"),
            (format!("{version}&resource=r"), None, 400, "No User Assigned"),
            (format!("{version}&client_id=c-1"), None, 400, "resource is missing"),
            ("api-version=2017-09-01&resource=r&client_id=c-1".to_owned(), None, 400, "api-version"),
        ] {
            let (answered, body) = ask(&endpoint, &query, secret).await;
            assert_eq!((answered, &body["statusCode"]), (status, &json!(status)), "{query}");
            let text = body["message"].as_str().expect("a message");
            assert!(text.contains(message) && body["access_token"].is_null(), "{body}");
        }
    }
}
