//! A stand-in for Microsoft Entra: it mints bearer tokens that the simulated services take, and checks them.
//!
//! | module | idea |
//! |---|---|
//! | `roles` | built-in roles, their assignments, and what an identity may do at a resource |
//! | `identity_endpoint` | where an app gets tokens in the name of its managed identities |
//!
//! Real tokens are signed by keys that services fetch; here the services know the issuer, so its key is a secret of this process.
//! Audiences: `MicrosoftDocs/azure-docs articles/iot-hub/authenticate-authorize-azure-ad.md` and
//! <https://learn.microsoft.com/azure/event-hubs/authenticate-application>.

mod identity_endpoint;
mod roles;

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// Audience of Event Hubs.
pub const EVENT_HUBS: &str = "https://eventhubs.azure.net";
/// Audience of IoT Hub's service API.
pub const IOT_HUBS: &str = "https://iothubs.azure.net";

pub use identity_endpoint::{IdentityEndpoint, ManagedIdentity};
pub use roles::{Access, Assignment, Denied, Role, actions};

const ISSUER: &str = "https://sts.windows.net/simulator/";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The service that it is for.
    pub aud: String,
    /// Who made it.
    pub iss: String,
    /// The identity: the principal id of a managed identity, or any name.
    pub sub: String,
    /// When it was made, in Unix seconds.
    pub iat: i64,
    /// When it ends, in Unix seconds.
    pub exp: i64,
}

/// Why a token cannot be minted or is not taken.
#[derive(Debug, thiserror::Error)]
#[error("bearer token: {0}")]
pub struct TokenError(#[from] jsonwebtoken::errors::Error);

/// The issuer of one simulator.
#[derive(Clone)]
pub struct Entra(Arc<[u8; 32]>);

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entra").finish_non_exhaustive()
    }
}

impl Default for Entra {
    fn default() -> Self {
        Self::new()
    }
}

/// Scopes and audiences name a service with or without `/` and `/.default` at the end.
fn service(audience: &str) -> &str {
    audience.trim_end_matches("/.default").trim_end_matches('/')
}

impl Entra {
    /// An issuer with a key of its own.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(rand::rng().random()))
    }

    /// A token for a service (or a scope such as `https://iothubs.azure.net/.default`), in the name of an identity.
    ///
    /// # Errors
    /// If the claims cannot be signed.
    pub fn mint(&self, audience: &str, identity: &str, lifetime: Duration) -> Result<String, TokenError> {
        let now = OffsetDateTime::now_utc();
        let claims = Claims {
            aud: service(audience).to_owned(),
            iss: ISSUER.to_owned(),
            sub: identity.to_owned(),
            iat: now.unix_timestamp(),
            exp: (now + lifetime).unix_timestamp(),
        };
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&*self.0))?)
    }

    /// Checks a token for a service; returns what it says.
    ///
    /// # Errors
    /// If it is malformed, expired, for another service or not of this issuer.
    pub fn check(&self, token: &str, audience: &str) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_audience(&[service(audience)]);
        validation.set_issuer(&[ISSUER]);
        let key = DecodingKey::from_secret(&*self.0);
        Ok(jsonwebtoken::decode::<Claims>(token, &key, &validation)?.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_the_service_it_was_made_for_and_no_other() {
        let entra = Entra::new();
        for scope in [IOT_HUBS, "https://iothubs.azure.net/", "https://iothubs.azure.net/.default"] {
            let token = entra.mint(scope, "bridge", Duration::hours(1)).expect("a token");
            assert_eq!(entra.check(&token, IOT_HUBS).expect("good").sub, "bridge", "{scope}");
            entra.check(&token, EVENT_HUBS).expect_err("another service");
            Entra::new().check(&token, IOT_HUBS).expect_err("another issuer");
        }
    }

    #[test]
    fn an_expired_or_mangled_token_opens_nothing() {
        let entra = Entra::new();
        let expired = entra.mint(IOT_HUBS, "bridge", Duration::seconds(-5)).expect("a token");
        let good = entra.mint(IOT_HUBS, "bridge", Duration::hours(1)).expect("a token");
        let unsigned = good.rsplit_once('.').map(|(claims, _)| format!("{claims}.")).unwrap_or_default();
        for token in [expired.as_str(), unsigned.as_str(), "", "x.y.z"] {
            entra.check(token, IOT_HUBS).expect_err(token);
        }
    }
}
