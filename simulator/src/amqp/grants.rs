//! What the tokens of a connection open, and until when.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fe2o3_amqp_types::definitions::{AmqpError, Error};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::error;

/// Tokens that one connection may hold: the hub's own limit for devices on one connection
/// (`Azure/azure-iot-sdk-java MultiplexingClientTests.java`).
const MAX_GRANTS: usize = 1000;
/// The longest time that is waited at once, so that a date far away is no trouble.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Why credentials open nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the token is no shared access signature")]
    Malformed,
    #[error("the token expired at {0}")]
    Expired(i64),
    #[error("the signature does not fit")]
    Signature,
    #[error("the token's resource does not cover {0}")]
    Audience(String),
    #[error("{0}")]
    Token(String),
    // As the service says it (`Azure/azure-sdk-for-js#32923`).
    #[error("LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace.")]
    LocalAuthDisabled,
    #[error("the connection holds too many tokens")]
    TooMany,
}

impl Refused {
    /// The further a check came, the more its broker knew of the credentials.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Malformed => 0,
            Self::Signature => 1,
            Self::Token(_) => 2,
            Self::Audience(_) => 3,
            Self::Expired(_) => 4,
            Self::LocalAuthDisabled => 5,
            Self::TooMany => 6,
        }
    }
}

/// A place that credentials can open: a path of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Which broker it is of.
    pub(crate) realm: &'static str,
    /// Path below the broker, in lower case; empty for all of it.
    path: String,
}

impl Scope {
    /// Names of entities are case-insensitive.
    pub(crate) fn new(realm: &'static str, path: &str) -> Self {
        Self { realm, path: path.trim_matches('/').to_ascii_lowercase() }
    }

    /// Whether `inner` is this or lies below it.
    pub(crate) fn covers(&self, inner: &Self) -> bool {
        let below = || inner.path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.realm == inner.realm && (self.path.is_empty() || below())
    }
}

/// A place that was opened, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) scope: Scope,
    /// Whom a bearer token names; `None` for a key, whose rights were looked at already.
    pub(crate) principal: Option<String>,
    /// Unix time in seconds by the clock of the machine; `i64::MAX` for ever.
    pub(crate) expires_at: i64,
}

/// What a client opened on its connection.
#[derive(Debug)]
pub(crate) struct Grants {
    held: Mutex<Vec<Grant>>,
    added: watch::Sender<()>,
    now: fn() -> OffsetDateTime,
}

impl Default for Grants {
    fn default() -> Self {
        Self::by(OffsetDateTime::now_utc)
    }
}

impl Grants {
    /// Grants that end by this clock.
    fn by(now: fn() -> OffsetDateTime) -> Self {
        Self { held: Mutex::default(), added: watch::Sender::new(()), now }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Grant>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a grant; it takes the place of an older one of the same principal, or of a key, for the same scope.
    pub(crate) fn add(&self, grant: Grant) -> Result<(), Refused> {
        let now = (self.now)().unix_timestamp();
        let mut held = self.held();
        let is_other = |other: &Grant| other.scope != grant.scope || other.principal != grant.principal;
        held.retain(|other| is_other(other) && other.expires_at > now);
        if held.len() >= MAX_GRANTS {
            return Err(Refused::TooMany);
        }
        held.push(grant);
        drop(held);
        self.added.send_replace(());
        Ok(())
    }

    /// Whether a scope is open now, by a key or for a principal that `may` do what is asked. The error says why that one may not;
    /// it is `None` if nothing opens the scope.
    pub(crate) fn opens<E>(&self, scope: &Scope, may: impl Fn(&str) -> Result<(), E>) -> Result<(), Option<E>> {
        let now = (self.now)().unix_timestamp();
        let mut why = None;
        for grant in self.held().iter().filter(|grant| grant.scope.covers(scope) && grant.expires_at > now) {
            match grant.principal.as_deref().map_or(Ok(()), &may) {
                Ok(()) => return Ok(()),
                Err(denied) => why = Some(denied),
            }
        }
        Err(why)
    }

    /// How long a key, or a principal that `may`, still opens a scope.
    fn time_left(&self, scope: &Scope, may: impl Fn(&str) -> bool) -> Option<Duration> {
        let now = (self.now)();
        let held = self.held();
        let opening =
            held.iter().filter(|grant| grant.scope.covers(scope) && grant.principal.as_deref().is_none_or(&may));
        let last = opening.map(|grant| grant.expires_at).max()?;
        let left = time::Duration::seconds(last.saturating_sub(now.unix_timestamp()))
            .saturating_sub(time::Duration::nanoseconds(now.nanosecond().into()));
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }

    /// Returns when no key and no principal that `may` opens the scope any more, with the error that ends its links.
    async fn end(&self, scope: &Scope, may: impl Fn(&str) -> bool) -> Error {
        let mut added = self.added.subscribe();
        while let Some(left) = self.time_left(scope, &may) {
            tokio::select! {
                () = tokio::time::sleep(left.min(LONGEST_WAIT)) => {}
                // The sender is ours, so it is there.
                _ = added.changed() => {}
            }
        }
        error(AmqpError::UnauthorizedAccess, "The token has expired: put a new one at $cbs before the old one ends.")
    }
}

/// By what right a link is open. A token that ends, or another that comes, may end it.
pub(crate) struct LinkRight {
    grants: Arc<Grants>,
    scope: Scope,
    may: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

impl fmt::Debug for LinkRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkRight").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl LinkRight {
    /// The right of a link at this scope, by a key or by a principal that `may` do there what the link does.
    pub(crate) fn new(grants: Arc<Grants>, scope: Scope, may: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { grants, scope, may: Box::new(may) }
    }

    /// Returns when the right ends, with the error to end the link with.
    pub(crate) async fn end(&self) -> Error {
        self.grants.end(&self.scope, &self.may).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use tokio::time::Instant;

    use super::*;

    fn opens(grants: &Grants, path: &str) -> bool {
        grants.opens(&Scope::new("a", path), |_| Ok::<_, ()>(())).is_ok()
    }

    fn grant(path: &str, expires_at: i64) -> Grant {
        Grant { scope: Scope::new("a", path), principal: None, expires_at }
    }

    /// Goes with the paused clock of a test, and shows 1970 when it is first read.
    fn paused() -> OffsetDateTime {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        OffsetDateTime::UNIX_EPOCH + BEGIN.get_or_init(Instant::now).elapsed()
    }

    #[test]
    fn a_scope_covers_itself_and_what_lies_below_it_by_whole_segments() {
        for (outer, inner, covered) in [
            ("", "hub", true),
            ("Hub", "HUB/Partitions/0", true),
            ("hub", "hub2", false),
            ("hub/partitions/0", "hub", false),
        ] {
            assert_eq!(Scope::new("a", outer).covers(&Scope::new("a", inner)), covered, "{outer} {inner}");
        }
        assert!(!Scope::new("a", "").covers(&Scope::new("b", "")), "another broker");
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_grant_opens_nothing_and_a_renewed_one_goes_on() {
        let grants = Grants::by(paused);
        grants.add(grant("hub", 0)).expect("room");
        assert!(!opens(&grants, "hub"));
        grants.add(grant("hub", 60)).expect("room");
        assert!(opens(&grants, "hub/x"));
        let scope = Scope::new("a", "hub/x");
        let renew = async {
            tokio::task::yield_now().await;
            grants.add(grant("hub", 90)).expect("room");
        };
        let (ended, ()) = tokio::join!(grants.end(&scope, |_| false), renew);
        assert_eq!(paused().unix_timestamp(), 90, "the first would have ended before: {ended:?}");
        assert!(!opens(&grants, "hub/x"));
    }

    #[test]
    fn a_token_of_a_principal_opens_what_that_one_may_and_a_key_opens_all() {
        let grants = Grants::by(|| OffsetDateTime::UNIX_EPOCH);
        let scope = Scope::new("a", "hub");
        let may = |principal: &str| if principal == "good" { Ok(()) } else { Err(principal.to_owned()) };
        assert_eq!(grants.opens(&scope, may), Err(None));
        grants.add(Grant { principal: Some("bad".to_owned()), ..grant("hub", 60) }).expect("room");
        assert_eq!(grants.opens(&scope, may), Err(Some("bad".to_owned())));
        grants.add(Grant { principal: Some("good".to_owned()), ..grant("", 60) }).expect("room");
        assert_eq!(grants.opens(&scope, may), Ok(()));
        grants.add(grant("hub", 60)).expect("room");
        assert_eq!(grants.opens(&scope, |_| Err(())), Ok(()), "a key");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_ends_with_the_token_of_the_one_that_may_whoever_else_puts_one() {
        let grants = Arc::new(Grants::by(paused));
        let begin = paused().unix_timestamp();
        let token =
            |principal: &str, seconds| Grant { principal: Some(principal.to_owned()), ..grant("hub", begin + seconds) };
        let may = |principal: &str| if principal == "good" { Ok(()) } else { Err(()) };
        let (hub, below) = (Scope::new("a", "hub"), Scope::new("a", "hub/x"));
        grants.add(token("good", 60)).expect("room");
        grants.add(token("bad", 600)).expect("room");
        assert_eq!(grants.opens(&hub, may), Ok(()), "the token of another takes no right away");
        let right = LinkRight::new(grants.clone(), below, move |principal| may(principal).is_ok());
        right.end().await;
        assert_eq!(paused().unix_timestamp() - begin, 60, "nor does it prolong one");
        assert_eq!(grants.opens(&hub, may), Err(Some(())), "the other token is still there");
    }

    #[test]
    fn a_connection_holds_a_bounded_number_of_tokens() {
        let grants = Grants::by(|| OffsetDateTime::UNIX_EPOCH);
        for id in 0..MAX_GRANTS {
            grants.add(grant(&id.to_string(), 60)).expect("room");
        }
        assert_eq!(grants.add(grant("more", 60)), Err(Refused::TooMany));
        assert_eq!(grants.add(grant("7", 90)), Ok(()), "a renewal takes no more room");
    }
}
