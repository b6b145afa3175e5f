//! The shared secret of a webhook.

use axum::http::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::answer::Refusal;

/// The header that carries the secret.
const HEADER: &str = "x-webhook-secret";

/// Knows the accepted secrets by their hashes: hashes have one length, so that a comparison tells nothing, not even that.
pub(super) struct Authorise {
    accepted: Vec<[u8; 32]>,
}

impl Authorise {
    pub(super) fn new(secrets: &[SecretString]) -> Self {
        Self { accepted: secrets.iter().map(|secret| hash(secret.expose_secret().as_bytes())).collect() }
    }

    /// Admits a request with an accepted secret, and any request where none is configured.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.accepted.is_empty() {
            return Ok(());
        }
        let given = hash(headers.get(HEADER).map(|value| value.as_bytes()).unwrap_or_default());
        let none = Choice::from(0);
        let is_accepted = self.accepted.iter().fold(none, |found, accepted| found | accepted.ct_eq(&given));
        if is_accepted.into() { Ok(()) } else { Err(Refusal::Unauthorised) }
    }
}

fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
