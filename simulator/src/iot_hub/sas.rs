//! Shared access signatures (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-dev-guide-sas.md`).

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use time::OffsetDateTime;

use super::hub_name::HubName;

const SCHEME: &str = "SharedAccessSignature ";

/// What a shared access policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Read identities.
    pub registry_read: bool,
    /// Create, change and delete identities.
    pub registry_write: bool,
    /// Read and write twins by the service API.
    pub service_connect: bool,
    /// Connect as a device.
    pub device_connect: bool,
}

/// A shared access policy of the hub.
#[derive(Clone)]
pub struct Policy {
    /// Its name, the `skn` of a token.
    pub name: String,
    /// Its key, decoded.
    pub key: Vec<u8>,
    /// What it allows.
    pub rights: Rights,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("name", &self.name).field("rights", &self.rights).finish_non_exhaustive()
    }
}

impl Policy {
    /// A token for this resource that holds until `expiry` (Unix time in seconds), as a client makes it.
    #[must_use]
    pub fn token(&self, resource: &str, expiry: u64) -> String {
        mint(resource, &self.key, expiry, Some(&self.name))
    }
}

/// One right of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    RegistryRead,
    RegistryWrite,
    ServiceConnect,
    DeviceConnect,
}

impl Rights {
    fn include(self, right: Right) -> bool {
        match right {
            Right::RegistryRead => self.registry_read,
            Right::RegistryWrite => self.registry_write,
            Right::ServiceConnect => self.service_connect,
            Right::DeviceConnect => self.device_connect,
        }
    }
}

/// Why a token does not open the door. A client never learns which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SasError {
    #[error("it is no shared access signature: {0}")]
    Malformed(&'static str),
    #[error("it has expired")]
    Expired,
    #[error("its resource does not cover what was asked for")]
    OutOfScope,
    #[error("the hub has no policy of this name")]
    UnknownPolicy,
    #[error("its policy lacks the right {0:?}")]
    MissingRight(Right),
    #[error("its signature was not made with the key")]
    BadSignature,
}

/// A parsed token: `SharedAccessSignature sr=…&sig=…&se=…[&skn=…]`, in any order.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// As it was sent: the signature covers exactly this text.
    resource: &'a str,
    signature: Vec<u8>,
    /// As it was sent, for the same reason.
    expiry_text: &'a str,
    /// Unix seconds.
    expiry: u64,
    policy: Option<String>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, SasError> {
        let fields = text.strip_prefix(SCHEME).ok_or(SasError::Malformed("the scheme is missing"))?;
        let (mut resource, mut signature, mut expiry_text, mut policy) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=').ok_or(SasError::Malformed("a field has no value"))?;
            let slot = match name.trim_start() {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry_text,
                "skn" => &mut policy,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(SasError::Malformed("a field is there twice"));
            }
        }
        let resource = resource.ok_or(SasError::Malformed("sr is missing"))?;
        let signature = decoded(signature.ok_or(SasError::Malformed("sig is missing"))?)?;
        let expiry_text = expiry_text.ok_or(SasError::Malformed("se is missing"))?;
        Ok(Self {
            resource,
            signature: BASE64_STANDARD.decode(signature).map_err(|_| SasError::Malformed("sig is not base64"))?,
            expiry_text,
            expiry: expiry_text.parse().map_err(|_| SasError::Malformed("se is not a number of seconds"))?,
            policy: policy.map(decoded).transpose()?.filter(|name| !name.is_empty()),
        })
    }

    /// When it ends, in Unix seconds.
    pub(super) fn expiry(&self) -> u64 {
        self.expiry
    }

    /// The policy that it names; without one it must be signed with a device's own key.
    pub(super) fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Checks it against a key: valid now, good for this resource, signed with the key.
    pub(super) fn check(&self, key: &[u8], hub: &HubName, path: &str, now: OffsetDateTime) -> Result<(), SasError> {
        if u64::try_from(now.unix_timestamp()).is_ok_and(|now| now >= self.expiry) {
            return Err(SasError::Expired);
        }
        if !self.covers(hub, path)? {
            return Err(SasError::OutOfScope);
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| SasError::BadSignature)?;
        mac.update(self.resource.as_bytes());
        mac.update(b"\n");
        mac.update(self.expiry_text.as_bytes());
        mac.verify_slice(&self.signature).map_err(|_| SasError::BadSignature)
    }

    /// Checks it against the policy that it names.
    pub(super) fn check_policy(
        &self,
        policies: &[Policy],
        right: Right,
        hub: &HubName,
        path: &str,
        now: OffsetDateTime,
    ) -> Result<(), SasError> {
        let policy = policies.iter().find(|policy| Some(policy.name.as_str()) == self.policy());
        let policy = policy.ok_or(SasError::UnknownPolicy)?;
        self.check(&policy.key, hub, path, now)?;
        if policy.rights.include(right) { Ok(()) } else { Err(SasError::MissingRight(right)) }
    }

    /// Whether the resource is a prefix of `path` on this hub, by whole segments.
    fn covers(&self, hub: &HubName, path: &str) -> Result<bool, SasError> {
        let resource = decoded(self.resource)?;
        let (host, scope) = resource.split_once('/').unwrap_or((&resource, ""));
        let mut asked = path.split('/').filter(|segment| !segment.is_empty());
        let mut scope = scope.trim_end_matches('/').split('/').filter(|segment| !segment.is_empty());
        Ok(hub.is(host) && scope.all(|segment| asked.next() == Some(segment)))
    }
}

fn decoded(text: &str) -> Result<String, SasError> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| SasError::Malformed("a field is not UTF-8"))?;
    Ok(text.into_owned())
}

/// A token as clients make it.
pub(super) fn mint(resource: &str, key: &[u8], expiry: u64, policy: Option<&str>) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');
    let resource = utf8_percent_encode(resource, KEPT).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{resource}\n{expiry}").as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let signature = utf8_percent_encode(&signature, KEPT);
    let policy = policy.map(|name| format!("&skn={name}")).unwrap_or_default();
    format!("{SCHEME}sr={resource}&sig={signature}&se={expiry}{policy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const EXPIRY: u64 = 1_893_456_000;
    /// Made with the routine that reproduces the tokens of Microsoft's Python and Node SDKs.
    const DEVICE: &str = "SharedAccessSignature sr=sim.azure-devices.net%2Fdevices%2Feui-70b3d57ed0000001&sig=jAXhBAvkRBfDUQ4faGRiVhTxHnofWxN4kQzY%2BvPCbSc%3D&se=1893456000";
    const FLEET: &str = "SharedAccessSignature sr=sim.azure-devices.net%2Fdevices&sig=VEYcHNzU6TvEB1G0HrkUM0c64wvkXl116TRaxBevqI4%3D&se=1893456000&skn=device";
    const SERVICE: &str = "SharedAccessSignature sr=sim.azure-devices.net&sig=p1fOFHMik5sqi5U04wglBWzpRXjqlxonPBx5xeYwkEU%3D&se=1893456000&skn=registryReadWrite";

    fn hub() -> HubName {
        HubName::new("sim.azure-devices.net")
    }

    fn at(unix: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(unix).expect("the test's times are valid")
    }

    fn check(token: &str, path: &str, now: i64) -> Result<(), SasError> {
        Token::parse(token)?.check(KEY, &hub(), path, at(now))
    }

    #[test]
    fn the_known_tokens_are_accepted_and_are_what_the_minter_makes() {
        for (token, resource, policy) in [
            (DEVICE, "sim.azure-devices.net/devices/eui-70b3d57ed0000001", None),
            (FLEET, "sim.azure-devices.net/devices", Some("device")),
            (SERVICE, "sim.azure-devices.net", Some("registryReadWrite")),
        ] {
            assert_eq!(check(token, "devices/eui-70b3d57ed0000001", 1_800_000_000), Ok(()));
            assert_eq!(Token::parse(token).expect("it is a token").policy(), policy);
            assert_eq!(mint(resource, KEY, EXPIRY, policy), token);
        }
    }

    #[test]
    fn a_resource_covers_whole_segments_only() {
        for (resource, path, covered) in [
            ("sim.azure-devices.net", "twins/a", true),
            ("sim.azure-devices.net/devices", "devices/a", true),
            ("sim.azure-devices.net/devices/", "devices/a", true),
            ("localhost:8883/devices/a", "devices/a", true),
            ("sim.azure-devices.net/devices/a", "devices/ab", false),
            ("sim.azure-devices.net/devices/ab", "devices/a", false),
            ("sim.azure-devices.net/dev", "devices/a", false),
            ("sim.azure-devices.net/devices/a/messages", "devices/a", false),
            ("other.azure-devices.net/devices/a", "devices/a", false),
        ] {
            let expected = if covered { Ok(()) } else { Err(SasError::OutOfScope) };
            assert_eq!(check(&mint(resource, KEY, EXPIRY, None), path, 0), expected, "{resource} for {path}");
        }
    }

    #[test]
    fn a_token_is_refused_once_it_expires() {
        let path = "devices/eui-70b3d57ed0000001";
        assert_eq!(check(DEVICE, path, 1_893_455_999), Ok(()));
        assert_eq!(check(DEVICE, path, 1_893_456_000), Err(SasError::Expired));
    }

    #[test]
    fn another_expiry_resource_or_key_breaks_the_signature() {
        let later = DEVICE.replace("1893456000", "1893456001");
        assert_eq!(check(&later, "devices/eui-70b3d57ed0000001", 0), Err(SasError::BadSignature));
        let lower = DEVICE.replace("%2F", "%2f");
        assert_eq!(check(&lower, "devices/eui-70b3d57ed0000001", 0), Err(SasError::BadSignature));
        let token = Token::parse(FLEET).expect("it is a token");
        assert_eq!(token.check(b"another key", &hub(), "devices/a", at(0)), Err(SasError::BadSignature));
    }

    #[test]
    fn a_policy_must_exist_and_have_the_right() {
        let rights = Rights { device_connect: true, ..Rights::default() };
        let policies = [Policy { name: "device".into(), key: KEY.to_vec(), rights }];
        let token = Token::parse(FLEET).expect("it is a token");
        let check = |policies, right| token.check_policy(policies, right, &hub(), "devices/a", at(0));
        assert_eq!(check(&policies, Right::DeviceConnect), Ok(()));
        assert_eq!(check(&policies, Right::RegistryRead), Err(SasError::MissingRight(Right::RegistryRead)));
        assert_eq!(check(&[], Right::DeviceConnect), Err(SasError::UnknownPolicy));
    }

    #[test]
    fn a_policy_never_shows_its_key() {
        let policy = Policy { name: "device".into(), key: b"secret".to_vec(), rights: Rights::default() };
        assert!(!format!("{policy:?}").contains("115"), "115 is the first byte of the key");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "SharedAccessSignature ",
            "Bearer x",
            "SharedAccessSignature sr=a&sig=b",
            "SharedAccessSignature sr=a&sig=%%&se=1",
            "SharedAccessSignature sr=a&sr=b&sig=YQ%3D%3D&se=1",
            "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=-1",
            "SharedAccessSignature sr=a&sig=YQ%3D%3D&se=99999999999999999999999",
        ] {
            assert!(matches!(Token::parse(text), Err(SasError::Malformed(_))), "{text}");
        }
    }
}
