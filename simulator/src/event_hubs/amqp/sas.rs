//! Shared access signatures: what a token put at `$cbs` grants.
//!
//! The signature is HMAC-SHA256 over the encoded resource as given, a line feed and the expiry, with the key's text as it stands
//! as key (`Azure/azure-sdk-for-rust sdk/eventhubs/azure_messaging_eventhubs/src/common/sas_credential.rs`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use time::OffsetDateTime;

use super::address;

/// Why a token grants nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the token is no shared access signature")]
    Malformed,
    #[error("the token expired at {0}")]
    Expired(i64),
    #[error("the signature does not fit")]
    Signature,
    #[error("the token's resource does not cover {0}")]
    Audience(String),
}

/// A place in the namespace that a token opened, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Path below the namespace, in lower case; empty for all of it.
    path: String,
    expires_at: i64,
}

/// Whether `inner` is `outer` or lies below it. Names of entities are case-insensitive.
fn covers(outer: &str, inner: &str) -> bool {
    let inner = inner.to_ascii_lowercase();
    outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Grant {
    /// Whether it opens this path now.
    pub(super) fn opens(&self, path: &str, now: OffsetDateTime) -> bool {
        self.expires_at > now.unix_timestamp() && covers(&self.path, path)
    }
}

/// Checks a token for an audience such as `amqps://host/hub` against the shared access policies (name, key) of the namespace.
///
/// The host of the token's resource is not compared: this namespace answers to any name.
pub(super) fn check(
    token: &str,
    audience: &str,
    policies: &[(String, String)],
    now: OffsetDateTime,
) -> Result<Grant, Refused> {
    let fields: BTreeMap<&str, &str> = token
        .strip_prefix("SharedAccessSignature ")
        .ok_or(Refused::Malformed)?
        .split('&')
        .filter_map(|field| field.split_once('='))
        .collect();
    let field = |name: &str| fields.get(name).copied().ok_or(Refused::Malformed);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| Refused::Malformed);
    let (resource, expiry) = (field("sr")?, field("se")?);
    let policy = decoded(field("skn")?)?;
    let signature = STANDARD.decode(decoded(field("sig")?)?).map_err(|_| Refused::Malformed)?;
    let expires_at: i64 = expiry.parse().map_err(|_| Refused::Malformed)?;

    let (_, key) = policies.iter().find(|(name, _)| *name == policy).ok_or(Refused::Signature)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).map_err(|_| Refused::Signature)?;
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    mac.verify_slice(&signature).map_err(|_| Refused::Signature)?;
    if expires_at <= now.unix_timestamp() {
        return Err(Refused::Expired(expires_at));
    }
    let resource = decoded(resource)?.to_ascii_lowercase();
    let path = address::path(audience).to_ascii_lowercase();
    if !covers(address::path(&resource), &path) {
        return Err(Refused::Audience(audience.to_owned()));
    }
    Ok(Grant { path, expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn token(resource: &str, key: &str, expiry: i64) -> String {
        let resource = percent_encoding::utf8_percent_encode(resource, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key length");
        mac.update(format!("{resource}\n{expiry}").as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let signature =
            percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC).to_string();
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=policy")
    }

    fn checked(token: &str, audience: &str) -> Result<Grant, Refused> {
        check(token, audience, &[("policy".into(), "key".into())], NOW)
    }

    #[test]
    fn a_token_of_the_hub_opens_everything_below_the_hub_and_nothing_else() {
        let token = token("sb://127.0.0.1:5672/hub", "key", 60);
        let grant = checked(&token, "amqps://127.0.0.1/Hub").expect("a good token");
        for (path, opened) in [
            ("hub", true),
            ("HUB/Partitions/0", true),
            ("hub/ConsumerGroups/$Default/Partitions/1", true),
            ("hub2", false),
            ("other", false),
        ] {
            assert_eq!(grant.opens(path, NOW), opened, "{path}");
        }
        assert!(!grant.opens("hub", NOW + time::Duration::minutes(1)), "it has expired by then");
        assert!(matches!(checked(&token, "amqps://h/other"), Err(Refused::Audience(_))));
        assert!(matches!(checked(&token, "amqps://h/hubs"), Err(Refused::Audience(_))));
    }

    #[test]
    fn a_token_of_the_namespace_opens_every_hub() {
        let token = token("amqps://h/", "key", 60);
        assert!(checked(&token, "amqps://h/hub").is_ok_and(|grant| grant.opens("hub/Partitions/0", NOW)));
    }

    #[test]
    fn a_token_that_is_wrong_in_any_part_opens_nothing() {
        let audience = "amqps://h/hub";
        assert_eq!(checked(&token(audience, "other", 60), audience), Err(Refused::Signature));
        assert_eq!(checked(&token(audience, "key", -1), audience), Err(Refused::Expired(-1)));
        let good = token(audience, "key", 60);
        assert_eq!(checked(&good.replace("skn=policy", "skn=nobody"), audience), Err(Refused::Signature));
        assert_eq!(checked(&good.replace("se=60", "se=61"), audience), Err(Refused::Signature));
        for malformed in ["", "jwt", "SharedAccessSignature sr=x", &good.replace("se=60", "se=x")] {
            assert_eq!(checked(malformed, audience), Err(Refused::Malformed), "{malformed}");
        }
    }
}
