//! Shared access signatures: what a token put at `$cbs` grants.
//!
//! The signature is HMAC-SHA256 over the encoded resource as given, a line feed and the expiry, with the key's text as it stands
//! as key (`Azure/azure-sdk-for-rust sdk/eventhubs/azure_messaging_eventhubs/src/common/sas_credential.rs`).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use time::OffsetDateTime;

use super::nodes::scope;
use crate::amqp::{Grant, Refused, path};

/// A shared access policy of a namespace. It may do all.
#[derive(Clone)]
pub struct SasPolicy {
    /// Its name, the `skn` of a token.
    pub name: String,
    /// Its key: the text as it stands, whatever it may be in base64.
    pub key: String,
}

impl fmt::Debug for SasPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasPolicy").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Checks a token for an audience such as `amqps://host/hub` against the shared access policies of the namespace.
///
/// The host of the token's resource is not compared: this namespace answers to any name.
pub(super) fn check(
    token: &str,
    audience: &str,
    policies: &[SasPolicy],
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

    let policy = policies.iter().find(|known| known.name == policy).ok_or(Refused::Signature)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(policy.key.as_bytes()).map_err(|_| Refused::Signature)?;
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    mac.verify_slice(&signature).map_err(|_| Refused::Signature)?;
    if expires_at <= now.unix_timestamp() {
        return Err(Refused::Expired(expires_at));
    }
    let (resource, asked) = (scope(path(&decoded(resource)?)), scope(path(audience)));
    if !resource.covers(&asked) {
        return Err(Refused::Audience(audience.to_owned()));
    }
    Ok(Grant { scope: asked, principal: None, expires_at })
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
        check(token, audience, &[SasPolicy { name: "policy".into(), key: "key".into() }], NOW)
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
            assert_eq!(grant.scope.covers(&scope(path)), opened, "{path}");
        }
        assert_eq!(grant.expires_at, 60);
        assert!(matches!(checked(&token, "amqps://h/other"), Err(Refused::Audience(_))));
        assert!(matches!(checked(&token, "amqps://h/hubs"), Err(Refused::Audience(_))));
    }

    #[test]
    fn a_token_of_the_namespace_opens_every_hub() {
        let token = token("amqps://h/", "key", 60);
        assert!(checked(&token, "amqps://h/hub").is_ok_and(|grant| grant.scope.covers(&scope("hub/Partitions/0"))));
    }

    #[test]
    fn a_policy_never_shows_its_key() {
        let policy = SasPolicy { name: "policy".into(), key: "c2VjcmV0".into() };
        let shown = format!("{policy:?}");
        assert!(shown.contains("policy") && !shown.contains("c2VjcmV0"), "{shown}");
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
