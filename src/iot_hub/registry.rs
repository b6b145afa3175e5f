//! The service API: identities and twins (`Azure/azure-iot-hub-python service.json`, api-version 2021-04-12).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, HeaderValue, IF_MATCH};
use reqwest::{Certificate, Method, Response, StatusCode};
use rustls_pki_types::CertificateDer;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};

use super::error::{class_of, clean_code, code_of};
use super::pace::{Bucket, Pace};
use super::sas::Tokens;
use super::{HubError, Identity, Twin};
use crate::config::{HubConfig, ServiceAuth};
use crate::failure::Class;
use crate::ids::{DeviceId, DevicePrefix};
use crate::managed_identity::{IdentityError, ManagedIdentity};

/// Version of the service API.
const API_VERSION: &str = "2021-04-12";

/// The hub queues calls above its rate instead of refusing them: a call may take long and still succeed.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Time for a connection to the service API.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a call waits for its slot in the tier's rate before it is refused unsent.
const PACE_PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer that is read: a twin has at most 72 KB of values, and metadata for each.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Scope of tokens for the service API (`Azure/azure-iot-hub-python azure-iot-hub/azure/iot/hub/auth.py`).
const SCOPE: &str = "https://iothubs.azure.net/.default";

enum Auth {
    Policy(Tokens),
    Identity(ManagedIdentity),
}

/// A client of the service API of one hub.
pub(super) struct Registry {
    client: reqwest::Client,
    base: String,
    prefix: DevicePrefix,
    auth: Auth,
}

/// One call of the API, as errors name it.
struct Call<'a> {
    name: &'static str,
    method: Method,
    collection: &'static str,
    id: &'a DeviceId,
    if_match: Option<&'a str>,
    body: Option<Value>,
}

impl Registry {
    pub(super) fn new(config: &HubConfig, roots: &[CertificateDer<'static>]) -> Result<Self, HubError> {
        let failed = |error: &dyn std::fmt::Display| HubError::Setup(format!("the client of the service API: {error}"));
        let roots: Result<Vec<_>, _> = roots.iter().map(|root| Certificate::from_der(root)).collect();
        let client = reqwest::Client::builder()
            .tls_certs_only(roots.map_err(|error| failed(&error))?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .https_only(true)
            .connect_timeout(CONNECT_LIMIT)
            .timeout(REQUEST_LIMIT)
            .build()
            .map_err(|error| failed(&error))?;
        let auth = match &config.service_auth {
            ServiceAuth::Policy => {
                Auth::Policy(Tokens::for_service(&config.hostname, &config.policy_name, Arc::clone(&config.policy_key)))
            }
            ServiceAuth::ManagedIdentity { client_id } => {
                Auth::Identity(ManagedIdentity::new(client_id.as_deref(), SCOPE)?)
            }
        };
        let base = format!("https://{}:{}", config.dial_host, config.https_port);
        Ok(Self { client, base, prefix: config.device_prefix.clone(), auth })
    }

    pub(super) async fn identity(&self, pace: &Pace, id: &DeviceId) -> Result<Option<Identity>, HubError> {
        let call =
            Call { name: "read identity", method: Method::GET, collection: "devices", id, if_match: None, body: None };
        or_none(self.call(&pace.identities, call).await)?.map(|body| parse_identity(id, &body)).transpose()
    }

    /// Creates an identity and never touches one that exists; whether it was created.
    pub(super) async fn create_identity(&self, pace: &Pace, id: &DeviceId) -> Result<bool, HubError> {
        let body =
            json!({"deviceId": self.prefix.identity_of(id), "status": "enabled", "authentication": {"type": "sas"}});
        // Without If-Match the hub creates only.
        let call = Call {
            name: "create identity",
            method: Method::PUT,
            collection: "devices",
            id,
            if_match: None,
            body: Some(body),
        };
        match self.call(&pace.identities, call).await {
            Ok(_) => Ok(true),
            Err(HubError::Service { status: 409, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn delete_identity(&self, pace: &Pace, id: &DeviceId, etag: &str) -> Result<(), HubError> {
        let if_match = Some(etag);
        let call =
            Call { name: "delete identity", method: Method::DELETE, collection: "devices", id, if_match, body: None };
        or_none(self.call(&pace.identities, call).await).map(drop)
    }

    pub(super) async fn twin(&self, pace: &Pace, id: &DeviceId) -> Result<Option<Twin>, HubError> {
        let call = Call { name: "read twin", method: Method::GET, collection: "twins", id, if_match: None, body: None };
        or_none(self.call(&pace.twin_reads, call).await)?.map(|body| parse_twin(id, &body)).transpose()
    }

    pub(super) async fn patch_tags(
        &self,
        pace: &Pace,
        id: &DeviceId,
        tags: &Value,
        if_match: Option<&str>,
    ) -> Result<Twin, HubError> {
        let body = Some(json!({ "tags": tags }));
        let call = Call { name: "patch tags", method: Method::PATCH, collection: "twins", id, if_match, body };
        let answer = self.call(&pace.twin_writes, call).await?;
        parse_twin(id, &answer)
    }

    async fn call(&self, rate: &Bucket, call: Call<'_>) -> Result<Bytes, HubError> {
        let Call { name, id, .. } = call;
        let remedy = missing_right(&self.auth, call.collection, &call.method);
        let now = Instant::now();
        let slot = rate.reserve(now, now + PACE_PATIENCE);
        sleep_until(slot.ok_or_else(|| HubError::Paced { device: id.clone(), what: name })?).await;
        let lost = |error: reqwest::Error| HubError::unreachable(id, name, with_causes(&error));
        let response = self.request(call).await?.send().await.map_err(lost)?;
        let status = response.status();
        let code = response.headers().get("iothub-errorcode").and_then(|code| Some(clean_code(code.to_str().ok()?)));
        let too_long = || HubError::Garbled { device: id.clone(), what: "answer of bounded length" };
        let body = bounded(response).await.map_err(lost)?.ok_or_else(too_long)?;
        if status.is_success() {
            rate.granted();
            return Ok(body);
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            rate.refused(Instant::now());
        }
        let code = code.unwrap_or_else(|| code_of(&body));
        if let (StatusCode::UNAUTHORIZED, Auth::Policy(tokens)) = (status, &self.auth) {
            tokens.forget();
        }
        let (device, status) = (id.clone(), status.as_u16());
        if class_of(status, &code) == Class::Denied {
            return Err(HubError::Forbidden { device, call: name, status, code, remedy });
        }
        Err(HubError::Service { device, call: name, status, code })
    }

    async fn request(&self, call: Call<'_>) -> Result<reqwest::RequestBuilder, HubError> {
        // Neither an id of The Things Stack nor the prefix needs escaping in a URL.
        let identity = self.prefix.identity_of(call.id);
        let url = format!("{}/{}/{identity}?api-version={API_VERSION}", self.base, call.collection);
        let mut request = self.client.request(call.method, url).header(AUTHORIZATION, self.authorization().await?);
        if let Some(etag) = call.if_match {
            request = request.header(IF_MATCH, format!("\"{etag}\""));
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        Ok(request)
    }

    async fn authorization(&self) -> Result<HeaderValue, HubError> {
        let text = match &self.auth {
            Auth::Policy(tokens) => tokens.token(SystemTime::now()).expose_secret().to_owned(),
            Auth::Identity(identity) => format!("Bearer {}", identity.token().await?.token.secret()),
        };
        let unusable = |_| IdentityError::Unavailable("its token fits no header".to_owned());
        let mut value = HeaderValue::from_str(&text).map_err(unusable)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// What to do about a refused call: the role of an identity
/// (`MicrosoftDocs/azure-docs articles/iot-hub/authenticate-authorize-azure-ad.md`), or the right of a policy
/// (`articles/iot-hub/authenticate-authorize-sas.md`). The hub gives one answer to a missing right and a wrong key.
fn missing_right(auth: &Auth, collection: &str, method: &Method) -> &'static str {
    match (auth, collection, *method == Method::GET) {
        (Auth::Identity(_), "devices", _) => {
            "the app's identity needs the role IoT Hub Registry Contributor on the hub"
        }
        (Auth::Identity(_), ..) => "the app's identity needs the role IoT Hub Twin Contributor on the hub",
        (Auth::Policy(_), "devices", true) => {
            "the shared access policy needs the right RegistryRead, and its key has to be the one of the settings"
        }
        (Auth::Policy(_), "devices", false) => {
            "the shared access policy needs the right RegistryWrite, and its key has to be the one of the settings"
        }
        (Auth::Policy(_), ..) => {
            "the shared access policy needs the right ServiceConnect, and its key has to be the one of the settings"
        }
    }
}

/// The text of an error of `reqwest` is only its outermost cause.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The body, `None` if it is too long.
async fn bounded(mut response: Response) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

fn or_none(result: Result<Bytes, HubError>) -> Result<Option<Bytes>, HubError> {
    match result {
        Err(error) if error.is_missing() => Ok(None),
        other => other.map(Some),
    }
}

/// Etags come with and without quotes.
fn bare(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

pub(super) fn parse_identity(id: &DeviceId, body: &[u8]) -> Result<Identity, HubError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        etag: String,
        #[serde(default)]
        generation_id: String,
        status: String,
    }
    let wire: Wire =
        serde_json::from_slice(body).map_err(|_| HubError::Garbled { device: id.clone(), what: "identity" })?;
    Ok(Identity { etag: bare(&wire.etag), generation_id: wire.generation_id, enabled: wire.status == "enabled" })
}

pub(super) fn parse_twin(id: &DeviceId, body: &[u8]) -> Result<Twin, HubError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Properties {
        desired: Map<String, Value>,
        reported: Map<String, Value>,
    }
    #[derive(Deserialize)]
    struct Wire {
        etag: String,
        #[serde(default)]
        tags: Map<String, Value>,
        #[serde(default)]
        properties: Properties,
    }
    let wire: Wire =
        serde_json::from_slice(body).map_err(|_| HubError::Garbled { device: id.clone(), what: "twin" })?;
    let (desired, desired_version) = section(wire.properties.desired);
    let (reported, reported_version) = section(wire.properties.reported);
    let etag = bare(&wire.etag);
    Ok(Twin { etag, tags: wire.tags, desired, desired_version, reported, reported_version })
}

/// A section without the hub's own entries, and its version.
fn section(mut values: Map<String, Value>) -> (Map<String, Value>, u64) {
    values.remove("$metadata");
    let version = values.remove("$version").and_then(|version| version.as_u64()).unwrap_or_default();
    (values, version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PolicyKey;

    #[tokio::test]
    async fn a_refused_call_names_the_role_or_the_right_that_is_missing() {
        let key = Arc::new(PolicyKey::new(b"0123456789abcdef".to_vec().into_boxed_slice()));
        let policy = Auth::Policy(Tokens::for_service("h", "p", key));
        let identity = Auth::Identity(ManagedIdentity::silent(SCOPE));
        for (auth, collection, method, named) in [
            (&policy, "devices", Method::GET, "right RegistryRead,"),
            (&policy, "devices", Method::PUT, "right RegistryWrite,"),
            (&policy, "devices", Method::DELETE, "right RegistryWrite,"),
            (&policy, "twins", Method::GET, "right ServiceConnect,"),
            (&policy, "twins", Method::PATCH, "right ServiceConnect,"),
            (&identity, "devices", Method::GET, "role IoT Hub Registry Contributor"),
            (&identity, "devices", Method::DELETE, "role IoT Hub Registry Contributor"),
            (&identity, "twins", Method::GET, "role IoT Hub Twin Contributor"),
            (&identity, "twins", Method::PATCH, "role IoT Hub Twin Contributor"),
        ] {
            let told = missing_right(auth, collection, &method);
            assert!(told.contains(named), "{method} {collection}: {told}");
        }
    }
}
