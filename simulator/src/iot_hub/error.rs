//! The errors of the hub and their shapes
//! (codes: `Azure/azure-iot-sdk-csharp iothub/service/src/Common/Exceptions/ErrorCode.cs` and
//! `MicrosoftDocs/azure-docs articles/iot-hub/troubleshoot-error-codes.md`; bodies: live findings of
//! `mwalser/terraform-provider-iothub CONCEPT.md`).

use http::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::twin::{DocumentError, Violation, timestamp};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What went wrong, as the hub names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $($(#[$doc])* $name,)*
        }

        /// One row for each code, in the order of the codes.
        const ROWS: &[Row] = &[$(Row { code: Code::$name, number: $number, name: stringify!($name) },)*];
    };
}

codes! {
    /// An argument breaks a rule of the hub.
    ArgumentInvalid = 400_004,
    /// A body is not what the call takes.
    IotHubFormatError = 400_006,
    /// A bulk call names a device twice.
    DeviceDefinedMultipleTimes = 400_011,
    /// A part of a bulk call failed for a reason that has no code of its own.
    BulkRegistryOperationFailure = 400_013,
    /// The token does not open this door.
    IotHubUnauthorizedAccess = 401_002,
    /// The token has expired, or does not belong to the device.
    IotHubUnauthorized = 401_003,
    /// The messages of the day are used up.
    IotHubQuotaExceeded = 403_002,
    /// The queue of the device is full.
    DeviceMaximumQueueDepthExceeded = 403_004,
    /// Too many tokens on one AMQP connection.
    IotHubMaxCbsTokenExceeded = 403_005,
    /// The device is disabled. No source gives the name that belongs to the number.
    DeviceDisabled = 403_012,
    /// There is no such device.
    DeviceNotFound = 404_001,
    /// The device is not connected, or does not listen.
    DeviceNotOnline = 404_103,
    /// The device's connection broke before it answered.
    DeviceConnectionClosedRemotely = 404_104,
    /// The device is there already.
    DeviceAlreadyExists = 409_001,
    /// Another AMQP link of the device took over.
    LinkCreationConflict = 409_002,
    /// The etag or the version has moved on.
    PreconditionFailed = 412_001,
    /// The lock on a cloud-to-device message has run out.
    DeviceMessageLockLost = 412_002,
    /// A message is larger than the hub takes.
    MessageTooLarge = 413_001,
    /// A bulk call has too many devices.
    TooManyDevices = 413_002,
    /// Too many calls, of no particular kind.
    GenericTooManyRequests = 429_000,
    /// Too many calls of one kind.
    ThrottlingException = 429_001,
    /// Too many calls wait for their turn.
    ThrottleBacklogLimitExceeded = 429_002,
    /// A call waited too long for its turn.
    ThrottlingBacklogTimeout = 429_003,
    /// Too many jobs run.
    ThrottlingMaxActiveJobCountExceeded = 429_004,
    /// Too many calls for one device.
    DeviceThrottlingLimitExceeded = 429_005,
    /// The hub has failed.
    ServerError = 500_001,
    /// The hub cannot answer now.
    ServiceUnavailable = 503_001,
    /// The device did not answer in time.
    GatewayTimeout = 504_101,
}

/// What is said of a code on the wire.
struct Row {
    code: Code,
    number: u32,
    name: &'static str,
}

impl Code {
    fn row(self) -> &'static Row {
        let row = &ROWS[self as usize];
        debug_assert_eq!(row.code, self, "the rows are in the order of the codes");
        row
    }

    /// The six digits; the first three are the HTTP status.
    pub(crate) fn number(self) -> u32 {
        self.row().number
    }

    /// The HTTP status.
    pub(crate) fn status(self) -> StatusCode {
        let status = u16::try_from(self.number() / 1000).ok().and_then(|status| StatusCode::from_u16(status).ok());
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The value of the header `iothub-errorcode`.
    pub(crate) fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether the part of the hub that holds the devices' connections says it, which has a body shape of its own.
    fn is_said_by_the_gateway(self) -> bool {
        matches!(self, Self::DeviceNotOnline | Self::DeviceConnectionClosedRemotely | Self::GatewayTimeout)
    }
}

/// An error of the hub.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub(crate) struct HubError {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl HubError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn unknown_device(id: &str) -> Self {
        Self::new(Code::DeviceNotFound, format!("Device '{id}' unknown"))
    }

    /// The body of a REST answer. What the gateway says comes as a text inside the usual shape
    /// (captures in `Azure/iotedge#98` and `Azure/azure-iot-sdk-csharp#3442`).
    pub(crate) fn rest_body(&self, now: OffsetDateTime) -> Value {
        if self.code.is_said_by_the_gateway() {
            return json!({"Message": self.twin_body(now).to_string(), "ExceptionMessage": ""});
        }
        json!({
            "Message": format!("ErrorCode:{};{}", self.code.name(), self.message),
            "ExceptionMessage": format!("Tracking ID:{}", tracking_id(0, now)),
        })
    }

    /// The body of an answer to a twin request over MQTT.
    pub(crate) fn twin_body(&self, now: OffsetDateTime) -> Value {
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

impl From<DocumentError> for HubError {
    fn from(error: DocumentError) -> Self {
        let code = match error {
            DocumentError::Json(_) => Code::IotHubFormatError,
            DocumentError::Literal(_) => Code::ArgumentInvalid,
        };
        Self::new(code, error.to_string())
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
    fn what_the_gateway_says_is_a_text_in_the_usual_shape() {
        let now = datetime!(2026-08-17 10:11:12 UTC);
        let rest = HubError::new(Code::DeviceNotOnline, "device is offline").rest_body(now);
        assert_eq!(rest["ExceptionMessage"], "");
        let inner: Value = serde_json::from_str(rest["Message"].as_str().expect("it is a text")).expect("it is JSON");
        assert_eq!((&inner["errorCode"], &inner["message"]), (&json!(404_103), &json!("device is offline")));
    }

    #[test]
    fn the_first_three_digits_are_the_status_and_no_two_codes_are_one() {
        for (place, row) in ROWS.iter().enumerate() {
            assert_eq!(row.code as usize, place, "{}", row.name);
            assert_eq!(u32::from(row.code.status().as_u16()), row.number / 1000, "{}", row.name);
            assert!(ROWS[..place].iter().all(|other| other.number < row.number), "{}", row.name);
        }
    }
}
