//! Direct methods: what a service asks of a connected device
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-direct-methods.md`).

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{Code, HubError};

/// Where a device asks for method calls.
pub(super) const METHOD_CALLS: &str = "$iothub/methods/POST/#";
/// Largest payload of a call and of its answer, in bytes
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-quotas-throttling.md`).
pub(super) const MAX_PAYLOAD_BYTES: usize = 128 * 1024;
/// Longest method name, in bytes. The platform names no bound; this one keeps the topic short.
const MAX_NAME_BYTES: usize = 1024;
/// How long a device may take for its answer, in seconds.
const RESPONSE_SECONDS: std::ops::RangeInclusive<u64> = 5..=300;
const DEFAULT_RESPONSE_SECONDS: u64 = 30;
/// How long a call may wait for the device to connect, in seconds.
const CONNECT_SECONDS: std::ops::RangeInclusive<u64> = 0..=300;

/// A call, as a service asks for it.
#[derive(Clone, Debug)]
pub(super) struct MethodRequest {
    pub(super) name: String,
    /// JSON, as it was sent.
    pub(super) payload: Bytes,
    pub(super) response_timeout: Duration,
    pub(super) connect_timeout: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    method_name: String,
    payload: Option<Box<RawValue>>,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

impl MethodRequest {
    pub(super) fn parse(body: &[u8]) -> Result<Self, HubError> {
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| HubError::new(Code::IotHubFormatError, format!("the body is no method call: {error}")))?;
        if body.method_name.is_empty() || body.method_name.len() > MAX_NAME_BYTES {
            return Err(HubError::new(Code::ArgumentInvalid, "methodName is empty or too long"));
        }
        let payload = body.payload.map_or_else(|| "null".into(), |payload| payload.get().to_owned());
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(HubError::new(Code::MessageTooLarge, "the payload has more than 128 KB"));
        }
        let response = body.response_timeout_in_seconds.unwrap_or(DEFAULT_RESPONSE_SECONDS);
        let connect = body.connect_timeout_in_seconds.unwrap_or(0);
        if !RESPONSE_SECONDS.contains(&response) || !CONNECT_SECONDS.contains(&connect) {
            let text = "responseTimeoutInSeconds must be 5 to 300, connectTimeoutInSeconds 0 to 300";
            return Err(HubError::new(Code::ArgumentInvalid, text));
        }
        Ok(Self {
            name: body.method_name,
            payload: payload.into(),
            response_timeout: Duration::from_secs(response),
            connect_timeout: Duration::from_secs(connect),
        })
    }
}

/// A call on its way to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MethodCall {
    pub(super) topic: String,
    pub(super) payload: Bytes,
}

impl MethodCall {
    pub(super) fn new(request: &MethodRequest, rid: u64) -> Self {
        let name = utf8_percent_encode(&request.name, NON_ALPHANUMERIC_BUT_MARKS);
        Self { topic: format!("$iothub/methods/POST/{name}/?$rid={rid:x}"), payload: request.payload.clone() }
    }
}

const NON_ALPHANUMERIC_BUT_MARKS: &percent_encoding::AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a device answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MethodAnswer {
    /// The device's own number, often an HTTP status.
    pub(super) status: i32,
    pub(super) payload: Value,
}

impl MethodAnswer {
    /// Reads an answer; an empty body is null. `None` if it is too large or no JSON.
    pub(super) fn parse(status: i32, body: &[u8]) -> Option<Self> {
        let payload = match body {
            [] => Value::Null,
            body if body.len() > MAX_PAYLOAD_BYTES => return None,
            body => serde_json::from_slice(body).ok()?,
        };
        Some(Self { status, payload })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_read_with_its_defaults_and_goes_on_as_it_was_written() {
        let call = MethodRequest::parse(br#"{"methodName":"a b/c","payload":{ "x": 1.0 }}"#).expect("it is fine");
        let seconds = (call.response_timeout.as_secs(), call.connect_timeout.as_secs());
        assert_eq!((&call.payload[..], seconds), (&b"{ \"x\": 1.0 }"[..], (30, 0)));
        assert_eq!(MethodCall::new(&call, 31).topic, "$iothub/methods/POST/a%20b%2Fc/?$rid=1f");
        let bare = MethodRequest::parse(br#"{"methodName":"m"}"#).expect("it is fine");
        assert_eq!(&bare.payload[..], b"null");
    }

    #[test]
    fn calls_out_of_bounds_are_refused() {
        let with = |key: &str, value: Value| {
            let mut body = json!({"methodName": "m"});
            body[key] = value;
            MethodRequest::parse(body.to_string().as_bytes()).err().map(|error| error.code)
        };
        for (key, value, expected) in [
            ("methodName", json!(""), Some(Code::ArgumentInvalid)),
            ("methodName", json!(7), Some(Code::IotHubFormatError)),
            ("responseTimeoutInSeconds", json!(4), Some(Code::ArgumentInvalid)),
            ("responseTimeoutInSeconds", json!(5), None),
            ("responseTimeoutInSeconds", json!(300), None),
            ("responseTimeoutInSeconds", json!(301), Some(Code::ArgumentInvalid)),
            ("connectTimeoutInSeconds", json!(300), None),
            ("connectTimeoutInSeconds", json!(301), Some(Code::ArgumentInvalid)),
            ("payload", json!("x".repeat(MAX_PAYLOAD_BYTES - 2)), None),
            ("payload", json!("x".repeat(MAX_PAYLOAD_BYTES - 1)), Some(Code::MessageTooLarge)),
        ] {
            assert_eq!(with(key, value), expected, "{key}");
        }
    }

    #[test]
    fn an_answer_is_json_or_empty() {
        let answer = |body: &[u8]| MethodAnswer::parse(200, body).map(|answer| answer.payload);
        assert_eq!(answer(b""), Some(Value::Null));
        assert_eq!(answer(b"{\"a\":1}"), Some(json!({"a": 1})));
        assert_eq!(answer(b"no"), None);
    }
}
