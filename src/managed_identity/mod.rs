//! The tokens of the app's managed identity, for both Azure clients.
//!
//! `azure_identity` asks the platform (a Functions app: `IDENTITY_ENDPOINT` with the header `IDENTITY_HEADER`,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>). It has no limit of time for
//! an endpoint that is silent, holds a lock meanwhile, and asks again when a token has five minutes left, while everyone waits.
//! A webhook has seconds: so a token is fetched at start and in the background, by a task that outlives whoever needs it.

mod error;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};

pub use error::IdentityError;

use crate::lock::lock;

/// A token with less left is replaced in the background. The library keeps its own for all but the last five minutes, so asking it
/// earlier would get the same again.
const REFRESH_BEFORE: time::Duration = time::Duration::minutes(5);
/// A token with less left is not given out: it has to reach the service before it ends, by the service's clock.
const LEAST_LEFT: time::Duration = time::Duration::seconds(30);
/// How long a caller waits where there is no token. The platform answers within tens of milliseconds; a webhook has 2.5 s for IoT
/// Hub, and must hear in time why its device could not be created.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Time for one fetch, with the library's own repetitions.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
/// After a failed fetch the next one waits so long: every uplink of an unknown device would ask otherwise.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);

/// The managed identity as one service knows it: a source of tokens for one scope.
pub struct ManagedIdentity {
    source: Arc<dyn TokenCredential>,
    scope: &'static str,
    known: Arc<Mutex<Known>>,
}

/// What fetches have brought.
#[derive(Default)]
struct Known {
    token: Option<AccessToken>,
    failed: Option<(Instant, IdentityError)>,
    running: Option<Fetch>,
}

/// A fetch that all who need it wait for.
type Fetch = Shared<BoxFuture<'static, Result<AccessToken, IdentityError>>>;

impl ManagedIdentity {
    /// The identity with this client id, or the system-assigned one, for a scope such as `https://iothubs.azure.net/.default`.
    /// Begins to fetch a token.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the platform's variables cannot be understood.
    pub fn new(client_id: Option<&str>, scope: &'static str) -> Result<Arc<Self>, IdentityError> {
        let user_assigned_id = client_id.map(|id| UserAssignedId::ClientId(id.to_owned()));
        let options = ManagedIdentityCredentialOptions { user_assigned_id, ..Default::default() };
        let source = ManagedIdentityCredential::new(Some(options)).map_err(|error| IdentityError::setup(&error))?;
        Ok(Self::with_source(source, scope))
    }

    fn with_source(source: Arc<dyn TokenCredential>, scope: &'static str) -> Arc<Self> {
        let identity = Self { source, scope, known: Arc::default() };
        drop(identity.fetch(&mut lock(&identity.known)));
        Arc::new(identity)
    }

    /// A token that is good for half a minute at least. Returns within 1.5 s.
    ///
    /// # Errors
    /// If there is none and the platform gives none in that time; a later call profits from an answer that comes later.
    pub async fn token(&self) -> Result<AccessToken, IdentityError> {
        let fetch = {
            let mut known = lock(&self.known);
            let now = OffsetDateTime::now_utc();
            let good = known.token.clone().filter(|token| token.expires_on - now > LEAST_LEFT);
            let failure = known.failed.as_ref().filter(|(at, _)| at.elapsed() < FAILURE_PAUSE);
            match (good, failure.map(|(_, error)| error.clone())) {
                (Some(token), None) if token.expires_on - now <= REFRESH_BEFORE => {
                    drop(self.fetch(&mut known));
                    return Ok(token);
                }
                (Some(token), _) => return Ok(token),
                (None, Some(error)) => return Err(error),
                (None, None) => self.fetch(&mut known),
            }
        };
        timeout(PATIENCE, fetch).await.unwrap_or_else(|_| Err(IdentityError::slow(PATIENCE)))
    }

    /// The fetch that runs, or a new one. It goes on whether someone waits for it or not.
    fn fetch(&self, known: &mut Known) -> Fetch {
        // One with an outcome is still here only if its task was ended early.
        if let Some(running) = known.running.as_ref().filter(|running| running.peek().is_none()) {
            return running.clone();
        }
        let (source, scope, known_later) = (Arc::clone(&self.source), self.scope, Arc::clone(&self.known));
        let task = tokio::spawn(async move {
            let answer = timeout(FETCH_LIMIT, source.get_token(&[scope], None)).await;
            let fetched = match answer {
                Ok(answer) => answer.map_err(|error| IdentityError::from_library(&error)),
                Err(_) => Err(IdentityError::slow(FETCH_LIMIT)),
            };
            lock(&known_later).settle(scope, fetched)
        });
        let outcome = async { task.await.unwrap_or_else(|error| Err(IdentityError::ended(&error))) };
        known.running.insert(outcome.boxed().shared()).clone()
    }
}

impl Known {
    /// Ends the fetch. One that failed leaves the token that there is.
    fn settle(
        &mut self,
        scope: &str,
        fetched: Result<AccessToken, IdentityError>,
    ) -> Result<AccessToken, IdentityError> {
        self.running = None;
        match &fetched {
            Ok(token) => (self.token, self.failed) = (Some(token.clone()), None),
            Err(error) => {
                // The first failure in a row: an outage of hours needs no line every two seconds.
                if self.failed.is_none() {
                    tracing::warn!(scope, %error, "no token of the managed identity; trying on");
                }
                self.failed = Some((Instant::now(), error.clone()));
            }
        }
        fetched
    }
}

#[async_trait::async_trait]
impl TokenCredential for ManagedIdentity {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if scopes != [self.scope] {
            let what = format!("this credential is for {}, not for {scopes:?}", self.scope);
            return Err(azure_core::Error::with_message(ErrorKind::Credential, what));
        }
        self.token().await.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))
    }
}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedIdentity").field("scope", &self.scope).finish_non_exhaustive()
    }
}
