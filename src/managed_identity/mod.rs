//! The tokens of the app's managed identity, for both Azure clients.
//!
//! `azure_identity` asks the platform (a Functions app: `IDENTITY_ENDPOINT` with the header `IDENTITY_HEADER`,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>). It has no limit of time for
//! an endpoint that is silent, holds a lock meanwhile, and asks again only when a token has five minutes left, while everyone
//! waits. A webhook has seconds; and the client of Event Hubs asks once, six minutes before the end, and gives a connection up to
//! its end if it then gets the token that it has. So a task keeps a token that is fresh enough for both, from the start on; and
//! where the platform has none such, the client of Event Hubs is told a later end, so that it asks again.

mod error;
#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientOptions, Transport, new_http_client};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use futures::FutureExt as _;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use error::IdentityError;

/// A token with less left is replaced: some minutes before the client of Event Hubs asks for the next one.
const REFRESH_BEFORE: time::Duration = time::Duration::minutes(15);
/// The least that the client of Event Hubs is told a token has left. It asks for the next one six minutes before the end, give or
/// take five seconds, and so again after half a minute; where the end that it hears is not later than the one before, it never asks
/// again and the link dies with the token (`Azure/azure-sdk-for-rust sdk/eventhubs/azure_messaging_eventhubs/src/common/authorizer.rs`,
/// `refresh_due_tokens`). The broker goes by the end that stands in the token itself.
const LEAST_TOLD: time::Duration = time::Duration::seconds(390);
/// A token with less left is not given out: it has to reach the service before it ends, by the service's clock.
const LEAST_LEFT: time::Duration = time::Duration::seconds(30);
/// How long a caller waits where there is no token. The platform answers within tens of milliseconds; a webhook has 2.5 s for IoT
/// Hub, and must hear in time why its device could not be created.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time for one fetch beyond that, with the library's own repetitions.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a failed fetch; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a failed fetch, and the pause after one that brought a token near its end: the platform keeps tokens, too.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The wall clock, by which tokens end, is looked at so often: it can be set, and timers stand still while a machine does.
const LOOK: Duration = Duration::from_secs(60);

/// Makes a credential that has no token yet: one that has keeps it until its last five minutes.
type Source = Box<dyn Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync>;

/// The managed identity as one service knows it: a source of tokens for one scope.
pub struct ManagedIdentity {
    scope: &'static str,
    known: watch::Receiver<Known>,
    /// Wakes the task that fetches: someone has no token.
    needed: Arc<Notify>,
    _stop_on_drop: DropGuard,
}

/// What the fetches have brought.
#[derive(Default)]
struct Known {
    token: Option<AccessToken>,
    /// Why the last fetch failed, if it did.
    failure: Option<IdentityError>,
}

impl ManagedIdentity {
    /// The identity with this client id, or the system-assigned one, for a scope such as `https://iothubs.azure.net/.default`.
    /// Begins to fetch a token.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the platform's variables cannot be understood.
    pub fn new(client_id: Option<&str>, scope: &'static str) -> Result<Self, IdentityError> {
        let user_assigned_id = client_id.map(|id| UserAssignedId::ClientId(id.to_owned()));
        let transport = Transport::new(new_http_client(None));
        let client_options = ClientOptions { transport: Some(transport), ..Default::default() };
        let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
        let source: Source = Box::new(move || Ok(ManagedIdentityCredential::new(Some(options.clone()))?));
        source().map_err(|error| IdentityError::setup(&error))?;
        Ok(Self::with_source(source, scope))
    }

    /// An identity that never gets an answer, and asks nobody.
    #[cfg(test)]
    pub(crate) fn silent(scope: &'static str) -> Self {
        Self::with_source(Box::new(|| Ok(Arc::new(tests::Silent))), scope)
    }

    fn with_source(source: Source, scope: &'static str) -> Self {
        let (stop, needed) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (known, receiver) = watch::channel(Known::default());
        let keeper = Keeper { source, scope, known, needed: Arc::clone(&needed) };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(keeper.run()).await });
        Self { scope, known: receiver, needed, _stop_on_drop: stop.drop_guard() }
    }

    /// A token that is good for half a minute at least. Returns within a second.
    ///
    /// # Errors
    /// If there is none and the platform gives none in that time; a later call profits from an answer that comes later.
    pub async fn token(&self) -> Result<AccessToken, IdentityError> {
        timeout(PATIENCE, self.next_token()).await.unwrap_or_else(|_| Err(IdentityError::slow(PATIENCE)))
    }

    async fn next_token(&self) -> Result<AccessToken, IdentityError> {
        let mut known = self.known.clone();
        loop {
            {
                let now = known.borrow_and_update();
                if let Some(token) = now.token.as_ref().filter(|token| left(token) > LEAST_LEFT) {
                    return Ok(token.clone());
                }
                if let Some(failure) = &now.failure {
                    return Err(failure.clone());
                }
            }
            self.needed.notify_one();
            // The task ends with us, or by a defect.
            known.changed().await.map_err(|_| IdentityError::ended())?;
        }
    }
}

fn left(token: &AccessToken) -> time::Duration {
    token.expires_on - OffsetDateTime::now_utc()
}

/// Keeps the token.
struct Keeper {
    source: Source,
    scope: &'static str,
    known: watch::Sender<Known>,
    needed: Arc<Notify>,
}

impl Keeper {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.guarded_fetch().await {
                Ok(token) => {
                    pause = FIRST_PAUSE;
                    let is_fresh = left(&token) > REFRESH_BEFORE;
                    self.known.send_replace(Known { token: Some(token.clone()), failure: None });
                    if is_fresh {
                        self.until_due(&token).await;
                    } else {
                        sleep(LONGEST_PAUSE).await;
                    }
                }
                Err(error) => {
                    self.note(error);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// A panic of the library is a failed fetch: the task goes on, and with it all that need tokens.
    async fn guarded_fetch(&self) -> Result<AccessToken, IdentityError> {
        AssertUnwindSafe(self.fetch()).catch_unwind().await.unwrap_or_else(|_| Err(IdentityError::defect()))
    }

    async fn fetch(&self) -> Result<AccessToken, IdentityError> {
        let source = (self.source)().map_err(|error| IdentityError::setup(&error))?;
        let scopes = [self.scope];
        let mut fetching = source.get_token(&scopes, None);
        let answer = match timeout(PATIENCE, &mut fetching).await {
            Ok(answer) => answer,
            Err(_) => {
                // Whoever comes now need not find out by waiting.
                self.note(IdentityError::slow(PATIENCE));
                timeout(FETCH_LIMIT, fetching).await.map_err(|_| IdentityError::slow(FETCH_LIMIT))?
            }
        };
        answer.map_err(|error| IdentityError::from_library(&error))
    }

    /// Returns when the token is to be replaced, or someone found that it has ended.
    async fn until_due(&self, token: &AccessToken) {
        while left(token) > REFRESH_BEFORE {
            let due_in = Duration::try_from(left(token) - REFRESH_BEFORE).unwrap_or_default();
            // What was needed before the fetch is answered by it: the loop only looks again.
            let _ = timeout(due_in.min(LOOK), self.needed.notified()).await;
        }
    }

    /// Keeps a failure beside the token that there is. Warns of the first in a row: an outage of hours needs no line per try.
    fn note(&self, error: IdentityError) {
        if self.known.borrow().failure.is_none() {
            tracing::warn!(scope = self.scope, %error, "no token of the managed identity; trying on");
        }
        self.known.send_modify(|known| known.failure = Some(error));
    }
}

#[async_trait::async_trait]
impl TokenCredential for ManagedIdentity {
    /// The token for the client of Event Hubs, with an end of [`LEAST_TOLD`] from now at least: each call tells a later one.
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if scopes != [self.scope] {
            let what = format!("this credential is for {}, not for {scopes:?}", self.scope);
            return Err(azure_core::Error::with_message(ErrorKind::Credential, what));
        }
        let token = self.token().await.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))?;
        let told = token.expires_on.max(OffsetDateTime::now_utc() + LEAST_TOLD);
        Ok(AccessToken { expires_on: told, ..token })
    }
}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedIdentity").field("scope", &self.scope).finish_non_exhaustive()
    }
}
