//! The errors of the hub and their shapes
//! (codes: `Azure/azure-iot-sdk-csharp iothub/service/src/Common/Exceptions/ErrorCode.cs`; bodies: live findings of
//! `mwalser/terraform-provider-iothub CONCEPT.md`).

use http::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::twin::{Violation, timestamp};

/// What went wrong, as the hub names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    ArgumentInvalid,
    IotHubFormatError,
    IotHubUnauthorizedAccess,
    DeviceNotFound,
    DeviceAlreadyExists,
    PreconditionFailed,
    ThrottlingException,
    ServiceUnavailable,
}

impl Code {
    /// The six digits; the first three are the HTTP status.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::ArgumentInvalid => 400_004,
            Self::IotHubFormatError => 400_006,
            Self::IotHubUnauthorizedAccess => 401_002,
            Self::DeviceNotFound => 404_001,
            Self::DeviceAlreadyExists => 409_001,
            Self::PreconditionFailed => 412_001,
            Self::ThrottlingException => 429_001,
            Self::ServiceUnavailable => 503_001,
        }
    }

    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::ArgumentInvalid | Self::IotHubFormatError => StatusCode::BAD_REQUEST,
            Self::IotHubUnauthorizedAccess => StatusCode::UNAUTHORIZED,
            Self::DeviceNotFound => StatusCode::NOT_FOUND,
            Self::DeviceAlreadyExists => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::ThrottlingException => StatusCode::TOO_MANY_REQUESTS,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The value of the header `iothub-errorcode`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ArgumentInvalid => "ArgumentInvalid",
            Self::IotHubFormatError => "IotHubFormatError",
            Self::IotHubUnauthorizedAccess => "IotHubUnauthorizedAccess",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::DeviceAlreadyExists => "DeviceAlreadyExists",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::ThrottlingException => "ThrottlingException",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// An error of the hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub(super) struct HubError {
    pub(super) code: Code,
    pub(super) message: String,
}

impl HubError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn unknown_device(id: &str) -> Self {
        Self::new(Code::DeviceNotFound, format!("Device '{id}' unknown"))
    }

    /// The body of a REST answer.
    pub(super) fn rest_body(&self, now: OffsetDateTime) -> Value {
        json!({
            "Message": format!("ErrorCode:{};{}", self.code.name(), self.message),
            "ExceptionMessage": format!("Tracking ID:{}", tracking_id(0, now)),
        })
    }

    /// The body of an answer to a twin request over MQTT.
    pub(super) fn twin_body(&self, now: OffsetDateTime) -> Value {
        json!({
            "errorCode": self.code.number(),
            "trackingId": tracking_id(2, now),
            "message": self.message,
            "timestampUtc": timestamp(now),
        })
    }
}

impl From<Violation> for HubError {
    fn from(violation: Violation) -> Self {
        Self::new(Code::ArgumentInvalid, violation.to_string())
    }
}

fn tracking_id(gateway: u8, now: OffsetDateTime) -> String {
    let format = format_description!("[month]/[day]/[year] [hour]:[minute]:[second]");
    let stamp = now.format(format).unwrap_or_default();
    format!("{}-G:{gateway}-TimeStamp:{stamp}", uuid::Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn errors_have_the_shapes_of_the_hub() {
        let now = datetime!(2026-08-17 10:11:12.1234567 UTC);
        let error = HubError::unknown_device("eui-1");
        let rest = error.rest_body(now);
        assert_eq!(rest["Message"], "ErrorCode:DeviceNotFound;Device 'eui-1' unknown");
        let tracking = rest["ExceptionMessage"].as_str().expect("it is a text");
        assert!(tracking.starts_with("Tracking ID:"), "{tracking}");
        assert!(tracking.ends_with("-G:0-TimeStamp:08/17/2026 10:11:12"), "{tracking}");
        let twin = error.twin_body(now);
        assert_eq!(
            (&twin["errorCode"], &twin["timestampUtc"]),
            (&json!(404_001), &json!("2026-08-17T10:11:12.1234567Z"))
        );
    }

    #[test]
    fn the_first_three_digits_are_the_status() {
        for code in [
            Code::ArgumentInvalid,
            Code::IotHubFormatError,
            Code::IotHubUnauthorizedAccess,
            Code::DeviceNotFound,
            Code::DeviceAlreadyExists,
            Code::PreconditionFailed,
            Code::ThrottlingException,
            Code::ServiceUnavailable,
        ] {
            assert_eq!(u32::from(code.status().as_u16()), code.number() / 1000, "{}", code.name());
        }
    }
}
