//! One call to the API: where it goes, how it identifies itself, what bounds it.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use url::Url;

use super::error::{Refusal, StackError};
use crate::config::StackConfig;
use crate::ids::{ApplicationId, WebhookId};

/// A server that takes longer to accept a connection is taken for down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One call, whole. Encoding a downlink runs a script of the user, which the server itself ends after a second or so.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// An answer holds at most the downlink queue of one device: 10 000 items of a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Calls refused for their rate were not executed and are made again within the call, this often at most.
const MAX_RATE_LIMITED_CALLS: u32 = 3;
/// A longer wait is the caller's business.
const MAX_RATE_WAIT: Duration = Duration::from_secs(10);

/// A client of the API of one application.
pub struct Stack {
    http: reqwest::Client,
    base: Url,
    identity: Url,
    pub(super) application: ApplicationId,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("base", &self.base.as_str())
            .field("identity", &self.identity.as_str())
            .field("application", &self.application)
            .finish_non_exhaustive()
    }
}

/// The servers of The Things Stack that are called here
/// (`TheThingsIndustries/lorawan-stack-docs doc/content/concepts/server-addresses/_index.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Identity,
    Join,
    Network,
    Application,
}

impl Server {
    fn prefix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Join => "js/",
            Self::Network => "ns/",
            Self::Application => "as/",
        }
    }
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Endpoint<'a> {
    /// A path below `…/applications/{application}/` of a server.
    OfApplication(Server, &'a str),
    /// One webhook of the application, and the fields that a read shall hold.
    Webhook { id: &'a WebhookId, read: &'a str },
    /// Whose the API key is.
    AuthInfo,
}

impl<'a, P: AsRef<str> + ?Sized> From<(Server, &'a P)> for Endpoint<'a> {
    fn from((server, path): (Server, &'a P)) -> Self {
        Self::OfApplication(server, path.as_ref())
    }
}

impl Stack {
    /// A client. No connection is opened yet.
    ///
    /// # Errors
    /// If the API key cannot stand in a header, or the TLS set-up fails.
    pub fn new(config: &StackConfig) -> Result<Self, StackError> {
        let bearer = format!("Bearer {}", config.api_key.expose_secret());
        let mut bearer = HeaderValue::try_from(bearer).map_err(|_| StackError::InvalidApiKey)?;
        bearer.set_sensitive(true);
        let http = reqwest::Client::builder()
            .user_agent(concat!("tts-iot-hub/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            // A redirect would carry the API key to another host.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(StackError::Setup)?;
        Ok(Self {
            http,
            base: config.base_url.clone(),
            identity: config.identity_url.clone(),
            application: config.application_id.clone(),
        })
    }

    /// The bare host of the regional servers: what the registries call a server address.
    pub(super) fn server_address(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// Host and port of the Identity Server.
    pub(super) fn identity_server(&self) -> String {
        let host = self.identity.host_str().unwrap_or_default();
        self.identity.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Makes a call and returns the JSON of its answer.
    /// `what` names the call in errors, such as "registering `probe-0017` on the Join Server".
    pub(super) async fn call(
        &self,
        method: Method,
        endpoint: impl Into<Endpoint<'_>>,
        body: Option<&Value>,
        what: &str,
    ) -> Result<Value, StackError> {
        let endpoint = endpoint.into();
        let mut calls = 1;
        loop {
            let failure = match self.call_once(&method, endpoint, body, what).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match failure.rate_limit_wait() {
                Some(wait) if calls < MAX_RATE_LIMITED_CALLS && wait <= MAX_RATE_WAIT => {
                    tracing::debug!(what, wait_s = wait.as_secs(), "rate limit of the things stack reached, waiting");
                    tokio::time::sleep(wait).await;
                    calls += 1;
                }
                _ => return Err(failure),
            }
        }
    }

    async fn call_once(
        &self,
        method: &Method,
        endpoint: Endpoint<'_>,
        body: Option<&Value>,
        what: &str,
    ) -> Result<Value, StackError> {
        let unreachable = |source: reqwest::Error| StackError::unreachable(what, source);
        let mut request = self.http.request(method.clone(), self.url(endpoint)?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = read_bounded(response, what).await?;
        if !status.is_success() {
            let refusal = Refusal::read(what, status.as_u16(), &headers, &answer);
            return Err(StackError::Refused(Box::new(refusal)));
        }
        if answer.is_empty() || status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|_| StackError::Unreadable { what: what.to_owned() })
    }

    /// Ids of The Things Stack need no escaping in a URL.
    fn url(&self, endpoint: Endpoint<'_>) -> Result<Url, StackError> {
        let application = &self.application;
        let (server, path) = match endpoint {
            Endpoint::OfApplication(server, path) => (server, format!("applications/{application}/{path}")),
            Endpoint::Webhook { id, read: "" } => (Server::Application, format!("webhooks/{application}/{id}")),
            Endpoint::Webhook { id, read } => {
                (Server::Application, format!("webhooks/{application}/{id}?field_mask={read}"))
            }
            Endpoint::AuthInfo => (Server::Identity, "auth_info".to_owned()),
        };
        let base = if server == Server::Identity { &self.identity } else { &self.base };
        base.join(&format!("{}{path}", server.prefix()))
            .map_err(|_| StackError::Unreadable { what: format!("address of `{path}`") })
    }
}

async fn read_bounded(mut response: Response, what: &str) -> Result<Vec<u8>, StackError> {
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| StackError::unreachable(what, source))? {
        if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(StackError::TooLarge { what: what.to_owned() });
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer)
}
