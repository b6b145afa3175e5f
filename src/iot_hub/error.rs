//! Why IoT Hub did not do what was asked, and what that means for the message behind it.

use serde_json::Value;

use super::MAX_MESSAGE_BYTES;
use crate::failure::Class;
use crate::ids::DeviceId;
use crate::managed_identity::IdentityError;

/// Longest error code that is taken over from an answer; the hub's own names are shorter.
const MAX_CODE_CHARS: usize = 64;

/// Why IoT Hub did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// The client could not be set up from its settings.
    #[error("set up the connection to IoT Hub: {0}")]
    Setup(String),
    /// The message is larger than IoT Hub takes; it was not sent.
    #[error("telemetry of `{device}` has {size} bytes, IoT Hub takes {MAX_MESSAGE_BYTES}: send it compact")]
    TooLarge {
        /// The device.
        device: DeviceId,
        /// The size as the hub counts it.
        size: usize,
    },
    /// Too much waits in this instance already; nothing was sent.
    #[error("too many messages wait for IoT Hub already, `{device}` has to come again later")]
    Busy {
        /// The device.
        device: DeviceId,
    },
    /// The hub's tier does not allow it before the deadline; nothing was sent.
    #[error("{what} for `{device}` has to wait for the rate of the hub's tier: check IOTHUB_SKU and IOTHUB_UNITS")]
    Paced {
        /// The device.
        device: DeviceId,
        /// What was not admitted.
        what: &'static str,
    },
    /// The caller's deadline passed first. What was sent may still take effect.
    #[error("no {what} for `{device}` before the deadline")]
    Timeout {
        /// The device.
        device: DeviceId,
        /// What did not come.
        what: &'static str,
    },
    /// The hub cannot be reached, or the connection broke.
    #[error("{step} for `{device}`: {reason}")]
    Unreachable {
        /// The device.
        device: DeviceId,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The session was refused with a code that may pass.
    #[error("IoT Hub refused the session of `{device}` with CONNACK code {code}")]
    Refused {
        /// The device.
        device: DeviceId,
        /// The return code.
        code: u8,
    },
    /// The session is refused although the device exists and is enabled.
    #[error(
        "IoT Hub refuses the session of `{device}`, which exists and is enabled: \
         check the key of the shared access policy, its right DeviceConnect, and the clock of this machine"
    )]
    Denied {
        /// The device.
        device: DeviceId,
    },
    /// The device may not connect.
    #[error("device `{device}` is disabled in IoT Hub: enable it there, or disconnect it in The Things Stack")]
    Disabled {
        /// The device.
        device: DeviceId,
    },
    /// The twin answered with an error status.
    #[error("IoT Hub answered the twin request of `{device}` with {status} {code}")]
    Twin {
        /// The device.
        device: DeviceId,
        /// The status.
        status: u16,
        /// The hub's error code; empty if it gave none.
        code: String,
    },
    /// The service API answered with an error status.
    #[error("IoT Hub answered `{call}` for `{device}` with {status} {code}")]
    Service {
        /// The device.
        device: DeviceId,
        /// The call.
        call: &'static str,
        /// The status.
        status: u16,
        /// The hub's error code; empty if it gave none.
        code: String,
    },
    /// The service API does not let us do this.
    #[error("IoT Hub refused `{call}` for `{device}` with {status} {code}: {remedy}")]
    Forbidden {
        /// The device.
        device: DeviceId,
        /// The call.
        call: &'static str,
        /// The status: 401 or 403.
        status: u16,
        /// The hub's error code; empty if it gave none.
        code: String,
        /// The right that is missing, and where.
        remedy: &'static str,
    },
    /// The answer is not what the protocol says.
    #[error("IoT Hub sent no readable {what} for `{device}`")]
    Garbled {
        /// The device.
        device: DeviceId,
        /// What could not be read.
        what: &'static str,
    },
    /// The managed identity gave no token.
    #[error("get a token for the service API of IoT Hub: {0}")]
    Credential(#[from] IdentityError),
    /// The client is closed.
    #[error("the client of IoT Hub is closed")]
    Closed,
}

impl HubError {
    /// What the failure means for the message behind it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::TooLarge { .. } | Self::Disabled { .. } => Class::Poison,
            Self::Busy { .. } | Self::Paced { .. } => Class::Throttled,
            Self::Setup(_) | Self::Denied { .. } | Self::Forbidden { .. } => Class::Denied,
            Self::Credential(error) => error.class(),
            Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Garbled { .. }
            | Self::Closed => Class::Retry,
            // A device that is deleted during its session is created again by the next one.
            Self::Twin { status: 404, .. } => Class::Retry,
            Self::Twin { status, code, .. } | Self::Service { status, code, .. } => class_of(*status, code),
        }
    }

    /// Whether a precondition (`$version`, `If-Match`) was stale: read again.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Twin { status: 409 | 412, .. } | Self::Service { status: 409 | 412, .. })
    }

    /// Whether the service API does not know the device.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Service { status: 404, .. })
    }

    pub(super) fn unreachable(device: &DeviceId, step: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Unreachable { device: device.clone(), step, reason: reason.to_string() }
    }
}

pub(super) fn class_of(status: u16, code: &str) -> Class {
    match status {
        429 => Class::Throttled,
        // The daily quota is used up: no right is missing, and tomorrow it passes.
        403 if code == "403002" || code.eq_ignore_ascii_case("IotHubQuotaExceeded") => Class::Throttled,
        401 | 403 => Class::Denied,
        408 | 409 | 412 => Class::Retry,
        400..=499 => Class::Poison,
        _ => Class::Retry,
    }
}

/// The error code in the body of an answer, in any of its shapes: `{"errorCode":404001}`,
/// `{"Message":"ErrorCode:DeviceNotFound;…"}`, or the first as text within the second
/// (shapes: `Azure/azure-iot-hub-node src`, `mwalser/terraform-provider-iothub CONCEPT.md` appendix D).
pub(super) fn code_of(body: &[u8]) -> String {
    let outer: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = ["Message", "message"].iter().find_map(|key| outer.get(key)?.as_str());
    let inner: Value = message.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let number = [&outer, &inner].into_iter().find_map(|value| match value.get("errorCode")? {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    });
    let name = || Some(message?.split_once("ErrorCode:")?.1.split(';').next()?.to_owned());
    clean_code(&number.or_else(name).unwrap_or_default())
}

/// What an answer says is shown to people: only what a code consists of, and not without end.
pub(super) fn clean_code(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(MAX_CODE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceId {
        DeviceId::parse("eui-1").expect("valid")
    }

    #[test]
    fn a_status_of_the_service_api_has_one_class() {
        let class = |status, code: &str| {
            HubError::Service { device: device(), call: "read twin", status, code: code.to_owned() }.class()
        };
        for (status, code) in [(401, "IotHubUnauthorizedAccess"), (403, "IotHubForbidden")] {
            assert_eq!(class_of(status, code), Class::Denied);
            let error = HubError::Forbidden {
                device: device(),
                call: "read twin",
                status,
                code: code.to_owned(),
                remedy: "a right is missing",
            };
            assert_eq!(error.class(), Class::Denied);
            assert!(error.to_string().ends_with(&format!("{status} {code}: a right is missing")), "{error}");
        }
        assert_eq!(class(403, "IotHubQuotaExceeded"), Class::Throttled);
        assert_eq!(class(429, ""), Class::Throttled);
        assert_eq!(class(412, ""), Class::Retry);
        assert_eq!(class(500, ""), Class::Retry);
        assert_eq!(class(503, ""), Class::Retry);
        assert_eq!(class(400, ""), Class::Poison);
    }

    #[test]
    fn a_status_of_the_twin_has_one_class() {
        let twin = |status, code: &str| HubError::Twin { device: device(), status, code: code.to_owned() };
        assert_eq!(twin(400, "400004").class(), Class::Poison);
        assert_eq!(twin(413, "").class(), Class::Poison);
        assert_eq!(twin(429, "").class(), Class::Throttled);
        assert_eq!(twin(403, "403002").class(), Class::Throttled);
        assert_eq!(twin(403, "403004").class(), Class::Denied);
        assert_eq!(twin(404, "404001").class(), Class::Retry);
        assert_eq!(twin(504, "").class(), Class::Retry);
        assert!(twin(412, "").is_stale() && !twin(400, "").is_stale());
    }

    #[test]
    fn the_error_code_is_found_in_every_shape_of_body() {
        for (body, code) in [
            (r#"{"errorCode":404103,"trackingId":"x","message":"device is offline"}"#, "404103"),
            (
                r#"{"Message":"ErrorCode:DeviceNotFound;Device 'eui-1' unknown","ExceptionMessage":"T"}"#,
                "DeviceNotFound",
            ),
            (r#"{"Message":"{\"errorCode\":412001,\"message\":\"stale\"}"}"#, "412001"),
            ("", ""),
            ("<html>", ""),
            (r#"{"errorCode":[1]}"#, ""),
        ] {
            assert_eq!(code_of(body.as_bytes()), code, "{body}");
        }
    }
}
