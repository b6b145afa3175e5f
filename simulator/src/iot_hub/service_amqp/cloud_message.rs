//! A cloud-to-device message as a service sends it, and the errors it gets.

use bytes::Bytes;
use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition, LinkError};
use fe2o3_amqp_types::messaging::{Body, Data, MessageId};
use fe2o3_amqp_types::primitives::{SimpleValue, Symbol, Timestamp, Value};
use percent_encoding::percent_decode_str;
use time::{Duration, OffsetDateTime};

use super::super::error::Code;
use super::super::{Ack, CloudMessage, HubError};
use crate::amqp::{AnyMessage, error};

/// Application property by which a sender asks for feedback.
const ACK: &str = "iothub-ack";

fn argument(text: impl Into<String>) -> Error {
    error(ErrorCondition::Custom(Symbol::from("com.microsoft:argument-error")), text)
}

/// The device and the message for it.
pub(super) fn parse(message: AnyMessage, now: OffsetDateTime) -> Result<(String, CloudMessage), Error> {
    let properties = message.properties.unwrap_or_default();
    let to = properties.to.as_deref().unwrap_or_default();
    let device_id = device_id(to)
        .ok_or_else(|| argument(format!("'to' must be /devices/{{id}}/messages/devicebound, and it is '{to}'")))?;
    let time_to_live = message.header.and_then(|header| header.ttl);
    let expires_at = match (properties.absolute_expiry_time, time_to_live) {
        (Some(at), _) => Some(time(at)?),
        (None, Some(milliseconds)) => Some(now.saturating_add(Duration::milliseconds(milliseconds.into()))),
        (None, None) => None,
    };
    let mut ack = Ack::None;
    let mut named = Vec::new();
    for (name, value) in message.application_properties.map(|properties| properties.0).unwrap_or_default() {
        let value = text(value);
        if name.eq_ignore_ascii_case(ACK) {
            ack = self::ack(value.as_deref())?;
        } else {
            named.push((name, value));
        }
    }
    let message = CloudMessage {
        message_id: properties.message_id.map(id),
        correlation_id: properties.correlation_id.map(id),
        user_id: properties.user_id.map(|user| String::from_utf8_lossy(&user).into_owned()),
        content_type: properties.content_type.map(|Symbol(text)| text),
        content_encoding: properties.content_encoding.map(|Symbol(text)| text),
        expires_at,
        ack,
        properties: named,
        body: body(message.body)?,
    };
    Ok((device_id, message))
}

/// The device of `/devices/{id}/messages/devicebound`; Node's library encodes the id, Python's does not.
fn device_id(to: &str) -> Option<String> {
    let segments: Vec<_> = to.trim_matches('/').split('/').collect();
    let [devices, id, messages, devicebound] = segments.as_slice() else { return None };
    let here = devices.eq_ignore_ascii_case("devices")
        && messages.eq_ignore_ascii_case("messages")
        && devicebound.eq_ignore_ascii_case("devicebound")
        && !id.is_empty();
    here.then(|| percent_decode_str(id).decode_utf8().ok().map(String::from)).flatten()
}

fn time(at: Timestamp) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.milliseconds()) * 1_000_000)
        .map_err(|_| argument("absolute-expiry-time is out of range"))
}

fn ack(value: Option<&str>) -> Result<Ack, Error> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "none") => Ok(Ack::None),
        Some("positive") => Ok(Ack::Positive),
        Some("negative") => Ok(Ack::Negative),
        Some("full") => Ok(Ack::Full),
        Some(other) => Err(argument(format!("{ACK} must be none, positive, negative or full, and it is '{other}'"))),
    }
}

fn id(id: MessageId) -> String {
    match id {
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(id) => uuid::Uuid::from_bytes(id.into_inner()).to_string(),
        MessageId::Binary(bytes) => match uuid::Uuid::from_slice(&bytes) {
            Ok(id) => id.to_string(),
            Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
        },
        MessageId::String(id) => id,
    }
}

/// Properties are texts by the time a device gets them.
fn text(value: SimpleValue) -> Option<String> {
    Some(match value {
        SimpleValue::Null => return None,
        SimpleValue::Bool(bool) => bool.to_string(),
        SimpleValue::Ubyte(number) => number.to_string(),
        SimpleValue::Ushort(number) => number.to_string(),
        SimpleValue::Uint(number) => number.to_string(),
        SimpleValue::Ulong(number) => number.to_string(),
        SimpleValue::Byte(number) => number.to_string(),
        SimpleValue::Short(number) => number.to_string(),
        SimpleValue::Int(number) => number.to_string(),
        SimpleValue::Long(number) => number.to_string(),
        SimpleValue::Float(number) => number.into_inner().to_string(),
        SimpleValue::Double(number) => number.into_inner().to_string(),
        SimpleValue::Char(char) => char.to_string(),
        SimpleValue::Timestamp(at) => at.milliseconds().to_string(),
        SimpleValue::Uuid(id) => uuid::Uuid::from_bytes(id.into_inner()).to_string(),
        SimpleValue::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        SimpleValue::String(text) | SimpleValue::Symbol(Symbol(text)) => text,
        other => format!("{other:?}"),
    })
}

fn body(body: Body<Value>) -> Result<Bytes, Error> {
    match body {
        Body::Data(sections) => Ok(sections.into_iter().flat_map(|Data(bytes)| bytes.into_vec()).collect()),
        Body::Empty => Ok(Bytes::new()),
        Body::Value(value) => match value.0 {
            Value::Binary(bytes) => Ok(bytes.into_vec().into()),
            Value::String(text) => Ok(text.into()),
            Value::Null => Ok(Bytes::new()),
            _ => Err(argument("the body must be data, text or bytes")),
        },
        Body::Sequence(_) => Err(argument("the body must be data, text or bytes")),
    }
}

/// An error of the hub as AMQP says it: the conditions that Node's library tells apart
/// (`azure-iothub` 1.16.6, `amqp_service_errors.js` and `amqp_common_errors.js`).
pub(super) fn refusal(hub: &HubError) -> Error {
    let microsoft = |name: &str| ErrorCondition::Custom(Symbol::from(format!("com.microsoft:{name}")));
    let condition = match hub.code {
        Code::DeviceNotFound => AmqpError::NotFound.into(),
        Code::DeviceMaximumQueueDepthExceeded => AmqpError::ResourceLimitExceeded.into(),
        Code::MessageTooLarge => LinkError::MessageSizeExceeded.into(),
        Code::IotHubUnauthorizedAccess | Code::IotHubUnauthorized => AmqpError::UnauthorizedAccess.into(),
        Code::ArgumentInvalid | Code::IotHubFormatError => microsoft("argument-error"),
        Code::GenericTooManyRequests
        | Code::ThrottlingException
        | Code::ThrottleBacklogLimitExceeded
        | Code::ThrottlingBacklogTimeout
        | Code::DeviceThrottlingLimitExceeded => microsoft("device-container-throttled"),
        Code::IotHubQuotaExceeded => microsoft("quota-exceeded"),
        Code::PreconditionFailed => microsoft("precondition-failed"),
        Code::ServiceUnavailable => microsoft("timeout"),
        _ => AmqpError::InternalError.into(),
    };
    Error::new(condition, hub.message.clone(), None)
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Header, Message, Properties};
    use fe2o3_amqp_types::primitives::{Binary, OrderedMap};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 08:00 UTC);

    fn message(to: &str, properties: &[(&str, SimpleValue)]) -> AnyMessage {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Message::builder()
            .properties(Properties { to: Some(to.into()), ..Properties::default() })
            .application_properties(ApplicationProperties(properties.collect::<OrderedMap<_, _>>()))
            .body(Body::Value(AmqpValue(Value::Binary(Binary::from(b"hi".to_vec())))))
            .build()
    }

    #[test]
    fn the_address_of_a_device_is_taken_as_every_library_writes_it() {
        for (to, id) in [
            ("/devices/eui-1/messages/devicebound", Some("eui-1")),
            ("devices/eui-1/messages/deviceBound/", Some("eui-1")),
            ("/devices/a%40b/messages/devicebound", Some("a@b")),
            ("/devices//messages/devicebound", None),
            ("/devices/a/modules/m/messages/devicebound", None),
            ("", None),
        ] {
            let parsed = parse(message(to, &[]), NOW).ok().map(|(id, _)| id);
            assert_eq!(parsed.as_deref(), id, "{to}");
        }
    }

    #[test]
    fn properties_expiry_and_acknowledgement_are_understood() {
        let properties =
            [("iothub-ack", "Full".to_owned().into()), ("n", SimpleValue::Int(5)), ("none", SimpleValue::Null)];
        let mut sent = message("/devices/a/messages/devicebound", &properties);
        sent.header = Some(Header { ttl: Some(60_000), ..Header::default() });
        let (_, parsed) = parse(sent, NOW).expect("good");
        assert_eq!(parsed.ack, Ack::Full);
        assert_eq!(parsed.properties, [("n".to_owned(), Some("5".to_owned())), ("none".to_owned(), None)]);
        assert_eq!(parsed.expires_at, Some(NOW + time::Duration::minutes(1)));
        assert_eq!(parsed.body, "hi");
        let bad = message("/devices/a/messages/devicebound", &[("iothub-ack", "loud".to_owned().into())]);
        assert!(parse(bad, NOW).is_err());
    }
}
