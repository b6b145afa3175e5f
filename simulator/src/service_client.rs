//! What an operator's tool does against the service API of the hub: identities and twins, by a policy or as a person.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::entra::{Entra, IOT_HUBS};
use crate::iot_hub::Policy;
use crate::world::{LOCAL_USER, StartError, World};

/// The version of the service API that the current Swagger describes.
const API_VERSION: &str = "2021-04-12";

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the service API.
#[derive(Clone, Debug)]
pub struct ServiceClient {
    http: reqwest::Client,
    base: String,
    hub_host: String,
    credential: Credential,
}

/// By what right.
#[derive(Clone, Debug)]
enum Credential {
    /// With the key of a policy.
    Policy(Policy),
    /// As a person with roles.
    Person(Entra),
}

/// How long a token holds.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

impl ServiceClient {
    /// A client with the rights of this policy of the world's hub.
    ///
    /// # Errors
    /// If there is no such policy, or the certificate of the authority cannot be read.
    pub fn new(world: &World, policy: &str) -> Result<Self, StartError> {
        let policy = world.policy(policy).ok_or("there is no such policy")?.clone();
        Self::by(world, Credential::Policy(policy))
    }

    /// A client that may do all: by the policy `iothubowner`, or, where a template made the hub's policies, as [`LOCAL_USER`].
    ///
    /// # Errors
    /// If the certificate of the authority cannot be read.
    pub fn operator(world: &World) -> Result<Self, StartError> {
        match world.policy("iothubowner") {
            Some(policy) => Self::by(world, Credential::Policy(policy.clone())),
            None => Self::by(world, Credential::Person(world.entra.clone())),
        }
    }

    fn by(world: &World, credential: Credential) -> Result<Self, StartError> {
        let ca = reqwest::Certificate::from_pem(&std::fs::read(world.ca_file())?)?;
        let http = reqwest::Client::builder().tls_certs_only([ca]).timeout(TIMEOUT).build()?;
        let base = format!("https://localhost:{}", world.iot_hub.https_addr().port());
        Ok(Self { http, base, hub_host: world.hub_host().to_owned(), credential })
    }

    fn authorization(&self) -> Result<String, StartError> {
        let expiry = SystemTime::now().duration_since(UNIX_EPOCH)? + TOKEN_LIFETIME;
        Ok(match &self.credential {
            Credential::Policy(policy) => policy.token(&self.hub_host, expiry.as_secs()),
            Credential::Person(entra) => {
                format!("Bearer {}", entra.mint(IOT_HUBS, LOCAL_USER, TOKEN_LIFETIME.try_into()?)?)
            }
        })
    }

    /// Creates an identity with these tags, as the portal does: identity first, tags in a second step.
    ///
    /// # Errors
    /// If the hub refuses.
    pub async fn create_device(&self, id: &str, tags: &Value) -> Result<(), StartError> {
        let identity = json!({"deviceId": id, "status": "enabled", "authentication": {"type": "sas"}});
        self.call(reqwest::Method::PUT, &format!("/devices/{id}"), None, Some(&identity)).await?;
        self.patch_twin(id, &json!({"tags": tags})).await
    }

    /// Enables or disables a device.
    ///
    /// # Errors
    /// If the hub refuses.
    pub async fn set_enabled(&self, id: &str, enabled: bool) -> Result<(), StartError> {
        let path = format!("/devices/{id}");
        let mut identity = self.call(reqwest::Method::GET, &path, None, None).await?;
        identity["status"] = if enabled { "enabled" } else { "disabled" }.into();
        self.call(reqwest::Method::PUT, &path, Some("\"*\""), Some(&identity)).await.map(drop)
    }

    /// Deletes an identity.
    ///
    /// # Errors
    /// If the hub refuses.
    pub async fn delete_device(&self, id: &str) -> Result<(), StartError> {
        self.call(reqwest::Method::DELETE, &format!("/devices/{id}"), Some("\"*\""), None).await.map(drop)
    }

    /// Merges into a twin.
    ///
    /// # Errors
    /// If the hub refuses.
    pub async fn patch_twin(&self, id: &str, patch: &Value) -> Result<(), StartError> {
        self.call(reqwest::Method::PATCH, &format!("/twins/{id}"), None, Some(patch)).await.map(drop)
    }

    /// Merges into the desired properties.
    ///
    /// # Errors
    /// If the hub refuses.
    pub async fn patch_desired(&self, id: &str, desired: &Value) -> Result<(), StartError> {
        self.patch_twin(id, &json!({"properties": {"desired": desired}})).await
    }

    async fn call(
        &self,
        method: reqwest::Method,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value, StartError> {
        let url = format!("{}{path}?api-version={API_VERSION}", self.base);
        let mut request = self.http.request(method.clone(), url).header("Authorization", self.authorization()?);
        if let Some(etag) = if_match {
            request = request.header("If-Match", etag);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            return Err(format!("{method} {path}: {status}: {text}").into());
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
