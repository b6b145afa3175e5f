//! What the body of `PUT /devices/{id}` may say (`Azure/azure-iot-hub-python service.json`).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Code, HubError};

/// Longest device id, in characters.
const MAX_ID_CHARS: usize = 128;
/// Longest status reason, in characters.
const MAX_REASON_CHARS: usize = 128;
/// How long a device key may be, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// How long a thumbprint is: SHA-1 or SHA-256, in hexadecimal digits.
const THUMBPRINT_DIGITS: [usize; 2] = [40, 64];
/// Length of a key that the hub makes, in bytes.
const MINTED_KEY_BYTES: usize = 32;

/// Whether a device may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    #[default]
    Enabled,
    Disabled,
}

/// How a device proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum AuthenticationType {
    #[default]
    Sas,
    SelfSigned,
    CertificateAuthority,
}

/// The two keys of a device, base64.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Keys {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

impl Keys {
    fn mint() -> Self {
        let key = || {
            let mut bytes = [0; MINTED_KEY_BYTES];
            rand::rng().fill_bytes(&mut bytes);
            Some(BASE64_STANDARD.encode(bytes))
        };
        Self { primary_key: key(), secondary_key: key() }
    }

    /// The given keys if both are there and fit, new ones if both are missing or empty.
    fn settle(self) -> Result<Self, HubError> {
        let given = |key: &Option<String>| key.as_ref().is_some_and(|key| !key.is_empty());
        match (given(&self.primary_key), given(&self.secondary_key)) {
            (false, false) => Ok(Self::mint()),
            (true, true) if self.decoded().count() == 2 => Ok(self),
            (true, true) => Err(invalid("a key must be base64 of 16 to 64 bytes")),
            _ => Err(invalid("give both keys or neither")),
        }
    }

    /// The keys that are base64 of an allowed length.
    pub(super) fn decoded(&self) -> impl Iterator<Item = Vec<u8>> {
        let keys = [&self.primary_key, &self.secondary_key];
        keys.into_iter()
            .flatten()
            .filter_map(|key| BASE64_STANDARD.decode(key).ok())
            .filter(|key| KEY_BYTES.contains(&key.len()))
    }
}

/// The thumbprints of a device's own certificates: hexadecimal, as they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Thumbprints {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

impl Thumbprints {
    /// SHA-1 or SHA-256, without separators (`mwalser/terraform-provider-iothub CONCEPT.md`).
    fn check(&self) -> Result<(), HubError> {
        let fits = |text: &String| {
            text.is_empty() || (THUMBPRINT_DIGITS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        let all_fit = [&self.primary_thumbprint, &self.secondary_thumbprint].into_iter().flatten().all(fits);
        if all_fit { Ok(()) } else { Err(invalid("a thumbprint must be 40 or 64 hexadecimal digits")) }
    }
}

/// What a device is able to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Capabilities {
    iot_edge: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Authentication {
    #[serde(rename = "type")]
    kind: Option<AuthenticationType>,
    symmetric_key: Option<Keys>,
    x509_thumbprint: Option<Thumbprints>,
}

/// What may be said of a device, by single and by bulk calls.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Description {
    status: Option<Status>,
    status_reason: Option<String>,
    authentication: Option<Authentication>,
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    device_id: String,
}

/// A checked identity as it was asked for.
#[derive(Clone)]
pub(super) struct IdentityRequest {
    pub(super) status: Status,
    pub(super) status_reason: Option<String>,
    pub(super) authentication: AuthenticationType,
    pub(super) keys: Keys,
    pub(super) thumbprints: Thumbprints,
    pub(super) capabilities: Capabilities,
}

impl IdentityRequest {
    /// Reads a body for the device of the path.
    pub(super) fn parse(path_id: &str, body: &[u8]) -> Result<Self, HubError> {
        let body: Value = serde_json::from_slice(body).map_err(|error| no_device(&error))?;
        let named = Named::deserialize(&body).map_err(|error| no_device(&error))?;
        if named.device_id != path_id {
            return Err(invalid("deviceId of the body differs from the id in the path"));
        }
        Self::from_description(path_id, &body)
    }

    /// Reads what is said of the device with this id. Members that are no part of an identity are ignored, since SDKs
    /// send whole documents back.
    pub(super) fn from_description(id: &str, description: &Value) -> Result<Self, HubError> {
        let description = Description::deserialize(description).map_err(|error| no_device(&error))?;
        if !is_device_id(id) {
            return Err(invalid("the device id has a character that is not allowed, or too many characters"));
        }
        if description.status_reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS) {
            return Err(invalid("statusReason is longer than 128 characters"));
        }
        let authentication = description.authentication.unwrap_or_default();
        let kind = authentication.kind.unwrap_or_default();
        let (keys, thumbprints) = match kind {
            AuthenticationType::Sas => (authentication.symmetric_key.unwrap_or_default().settle()?, None),
            AuthenticationType::SelfSigned => (Keys::default(), authentication.x509_thumbprint),
            AuthenticationType::CertificateAuthority => (Keys::default(), None),
        };
        let thumbprints = thumbprints.unwrap_or_default();
        thumbprints.check()?;
        Ok(Self {
            status: description.status.unwrap_or_default(),
            status_reason: description.status_reason,
            authentication: kind,
            keys,
            thumbprints,
            capabilities: description.capabilities.unwrap_or_default(),
        })
    }
}

fn no_device(error: &serde_json::Error) -> HubError {
    HubError::new(Code::IotHubFormatError, format!("the body is no device: {error}"))
}

fn invalid(message: &str) -> HubError {
    HubError::new(Code::ArgumentInvalid, message)
}

/// 1 to 128 characters of ASCII alphanumerics and ``- . % _ * ? ! ( ) , : = @ $ '``
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-identity-registry.md`).
fn is_device_id(id: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.%_*?!(),:=@$'".contains(&b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(id: &str, body: &Value) -> Result<IdentityRequest, Code> {
        IdentityRequest::parse(id, body.to_string().as_bytes()).map_err(|error| error.code)
    }

    fn with_keys(primary: &str, secondary: &str) -> Value {
        json!({"deviceId": "d1", "authentication": {"symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}})
    }

    fn with_thumbprint(thumbprint: &str) -> Value {
        let x509 = json!({"primaryThumbprint": thumbprint, "secondaryThumbprint": ""});
        json!({"deviceId": "d1", "authentication": {"type": "selfSigned", "x509Thumbprint": x509}})
    }

    #[test]
    fn a_device_with_a_certificate_keeps_its_thumbprints_and_has_no_keys() {
        for thumbprint in ["", &"aB".repeat(20), &"9".repeat(64)] {
            let request = parse("d1", &with_thumbprint(thumbprint)).expect("it is fine");
            assert_eq!(request.thumbprints.primary_thumbprint.as_deref(), Some(thumbprint));
            assert_eq!(request.keys.decoded().count(), 0);
        }
    }

    #[test]
    fn absent_and_empty_keys_are_minted() {
        for body in
            [json!({"deviceId": "d1"}), with_keys("", ""), json!({"deviceId": "d1", "authentication": {"type": "sas"}})]
        {
            let request = parse("d1", &body).expect("it is fine");
            assert_eq!(request.keys.decoded().map(|key| key.len()).collect::<Vec<_>>(), [32, 32], "{body}");
        }
    }

    #[test]
    fn given_keys_are_kept() {
        let (a, b) = (BASE64_STANDARD.encode([1; 16]), BASE64_STANDARD.encode([2; 64]));
        let request = parse("d1", &with_keys(&a, &b)).expect("it is fine");
        assert_eq!(request.keys.decoded().collect::<Vec<_>>(), [vec![1; 16], vec![2; 64]]);
    }

    #[test]
    fn what_the_hub_does_not_take_is_refused() {
        let (good, short) = (BASE64_STANDARD.encode([1; 16]), BASE64_STANDARD.encode([1; 15]));
        for body in [
            with_keys(&good, ""),
            with_keys(&good, "no base64!"),
            with_keys(&good, &short),
            with_keys(&good, &BASE64_STANDARD.encode([1; 65])),
            json!({"deviceId": "d2"}),
            json!({"deviceId": "d1", "statusReason": "x".repeat(129)}),
            with_thumbprint("AB:CD"),
            with_thumbprint(&"g".repeat(40)),
            with_thumbprint(&"a".repeat(41)),
        ] {
            assert_eq!(parse("d1", &body).err(), Some(Code::ArgumentInvalid), "{body}");
        }
        let none = json!({"deviceId": "d1", "authentication": {"type": "none"}});
        for body in [json!({}), json!([]), json!({"deviceId": "d1", "status": "asleep"}), none] {
            assert_eq!(parse("d1", &body).err(), Some(Code::IotHubFormatError), "{body}");
        }
    }

    #[test]
    fn ids_are_taken_or_refused() {
        for id in ["a", "eui-70b3d57ed0000001", "A.%_*?!(),:=@$'", &"x".repeat(128)] {
            assert!(is_device_id(id), "{id}");
        }
        for id in ["", "a b", "a/b", "a+b", "a#b", "ä", &"x".repeat(129)] {
            assert!(!is_device_id(id), "{id}");
        }
    }
}
