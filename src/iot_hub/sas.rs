//! Shared access signatures (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-dev-guide-sas.md`).

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::utf8_percent_encode;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use super::topic::ESCAPED;
use crate::config::PolicyKey;
use crate::lock::lock;

/// How long a token is good. Hours, so that a session never outlives its token.
const LIFETIME: Duration = Duration::from_secs(4 * 60 * 60);

/// A token this near its end is minted anew. Well above the five minutes by which clocks may differ.
const REFRESH_BEFORE: Duration = Duration::from_secs(60 * 60);

/// Mints tokens for one resource with the key of one shared access policy, and keeps the last one.
pub(super) struct Tokens {
    resource: String,
    policy: String,
    key: Arc<PolicyKey>,
    last: Mutex<Option<(SystemTime, Arc<SecretString>)>>,
}

impl Tokens {
    /// One token good for every device of the hub: `sr={host}/devices`.
    pub(super) fn for_devices(hostname: &str, policy: &str, key: Arc<PolicyKey>) -> Self {
        Self::new(&format!("{hostname}/devices"), policy, key)
    }

    /// A token for the service API: `sr={host}`.
    pub(super) fn for_service(hostname: &str, policy: &str, key: Arc<PolicyKey>) -> Self {
        Self::new(hostname, policy, key)
    }

    fn new(resource: &str, policy: &str, key: Arc<PolicyKey>) -> Self {
        let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
        Self { resource: escape(resource), policy: escape(policy), key, last: Mutex::new(None) }
    }

    /// A token with at least [`REFRESH_BEFORE`] to live.
    pub(super) fn token(&self, now: SystemTime) -> Arc<SecretString> {
        let mut last = lock(&self.last);
        if let Some((refresh_at, token)) = last.as_ref() {
            // A clock that was set back has made the token one from the future: mint anew then, too.
            let fresh = now < *refresh_at && *refresh_at <= now + LIFETIME;
            if fresh {
                return Arc::clone(token);
            }
        }
        let expiry = now + LIFETIME;
        let token = Arc::new(self.sign(expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()));
        *last = Some((expiry - REFRESH_BEFORE, Arc::clone(&token)));
        token
    }

    /// Forgets the last token: the hub may have refused it.
    pub(super) fn forget(&self) {
        *lock(&self.last) = None;
    }

    fn sign(&self, expiry: u64) -> SecretString {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("HMAC takes a key of any length");
        mac.update(self.resource.as_bytes());
        mac.update(b"\n");
        mac.update(expiry.to_string().as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let mut token = format!("SharedAccessSignature sr={}&sig=", self.resource);
        // Writing to a String cannot fail.
        let _ = write!(token, "{}", utf8_percent_encode(&signature, ESCAPED));
        let _ = write!(token, "&se={expiry}&skn={}", self.policy);
        SecretString::from(token)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("resource", &self.resource).field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<PolicyKey> {
        Arc::new(PolicyKey::new(b"0123456789abcdef0123456789abcdef".to_vec().into_boxed_slice()))
    }

    #[test]
    fn tokens_are_those_of_microsofts_sdks() {
        let host = "sim.azure-devices.net";
        let fleet = Tokens::for_devices(host, "device", key()).sign(1_893_456_000);
        assert_eq!(
            fleet.expose_secret(),
            "SharedAccessSignature sr=sim.azure-devices.net%2Fdevices&sig=VEYcHNzU6TvEB1G0HrkUM0c64wvkXl116TRaxBevqI4%3D&se=1893456000&skn=device"
        );
        let service = Tokens::for_service(host, "registryReadWrite", key()).sign(1_893_456_000);
        assert_eq!(
            service.expose_secret(),
            "SharedAccessSignature sr=sim.azure-devices.net&sig=p1fOFHMik5sqi5U04wglBWzpRXjqlxonPBx5xeYwkEU%3D&se=1893456000&skn=registryReadWrite"
        );
    }

    #[test]
    fn a_token_is_kept_and_refreshed_early() {
        let tokens = Tokens::for_devices("h", "p", key());
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let first = tokens.token(start);
        let late = start + LIFETIME - REFRESH_BEFORE;
        assert!(Arc::ptr_eq(&first, &tokens.token(late - Duration::from_secs(1))));
        assert!(!Arc::ptr_eq(&first, &tokens.token(late)));
    }

    #[test]
    fn a_clock_set_back_and_a_refusal_mint_anew() {
        let tokens = Tokens::for_devices("h", "p", key());
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let first = tokens.token(start);
        let earlier = tokens.token(start - LIFETIME);
        assert!(!Arc::ptr_eq(&first, &earlier));
        tokens.forget();
        assert!(!Arc::ptr_eq(&earlier, &tokens.token(start - LIFETIME)));
    }

    #[test]
    fn neither_key_nor_token_shows_in_debug() {
        let tokens = Tokens::for_devices("h", "p", key());
        let token = tokens.token(UNIX_EPOCH);
        assert!(!format!("{tokens:?} {token:?}").contains("Signature"));
    }
}
