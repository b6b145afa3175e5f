//! Whether an event matches a condition.

use std::cell::OnceCell;
use std::cmp::Ordering;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::condition::{Comparison, Condition, Kind, Step};
use crate::event_hubs::{Event, PropertyValue};

/// A value of the query language.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// Missing, or nothing that the language can hold.
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Object,
}

/// An event as conditions see it. Its body is parsed when the first condition asks for it.
pub(super) struct Facts<'a> {
    event: &'a Event,
    body: OnceCell<Option<Value>>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        Self { event, body: OnceCell::new() }
    }

    /// Undefined is not true: the event does not match.
    pub(super) fn meet(&self, condition: &Condition) -> bool {
        self.truth(condition) == Some(true)
    }

    /// True, false, or undefined, by the usual three-valued logic.
    fn truth(&self, condition: &Condition) -> Option<bool> {
        match condition {
            Condition::Or(left, right) => match (self.truth(left), self.truth(right)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Condition::And(left, right) => match (self.truth(left), self.truth(right)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Condition::Not(inner) => self.truth(inner).map(|truth| !truth),
            _ => match self.value(condition) {
                Operand::Bool(truth) => Some(truth),
                _ => None,
            },
        }
    }

    fn value(&self, condition: &Condition) -> Operand {
        match condition {
            Condition::Or(..) | Condition::And(..) | Condition::Not(_) => {
                self.truth(condition).map_or(Operand::Undefined, Operand::Bool)
            }
            Condition::Compare(left, sign, right) => {
                compare(&self.value(left), *sign, &self.value(right)).map_or(Operand::Undefined, Operand::Bool)
            }
            Condition::Is(kind, argument) => Operand::Bool(is(*kind, &self.value(argument))),
            Condition::Text(text) => Operand::Text(text.clone()),
            Condition::Number(number) => Operand::Number(*number),
            Condition::Bool(truth) => Operand::Bool(*truth),
            Condition::Property(name) => self.event.properties.get(name).map_or(Operand::Undefined, property),
            Condition::System(name) => self.system(name),
            Condition::Body(path) => self.body(path),
        }
    }

    fn system(&self, name: &str) -> Operand {
        let (system, annotations) = (&self.event.system, &self.event.annotations);
        let value = match name.to_ascii_lowercase().as_str() {
            "contenttype" => system.get("content-type"),
            "contentencoding" => system.get("content-encoding"),
            "messageid" => system.get("message-id"),
            "correlationid" => system.get("correlation-id"),
            "userid" => system.get("user-id"),
            "connectiondeviceid" => annotations.get("iothub-connection-device-id"),
            "enqueuedtime" => annotations.get("iothub-enqueuedtime"),
            "messagesource" => annotations.get("iothub-message-source"),
            _ => None,
        };
        value.map_or(Operand::Undefined, property)
    }

    fn body(&self, path: &[Step]) -> Operand {
        let body =
            self.body.get_or_init(|| is_json(self.event).then(|| serde_json::from_slice(&self.event.body).ok())?);
        let place = path.iter().try_fold(body.as_ref(), |place, step| {
            let place = place?;
            Some(match step {
                Step::Key(key) => place.get(key),
                Step::Index(index) => place.get(index),
            })
        });
        place.flatten().map_or(Operand::Undefined, json)
    }
}

/// Bodies can be queried if they are declared as JSON in UTF-8 (or UTF-16 or -32, which this simulator does not read).
fn is_json(event: &Event) -> bool {
    let text = |name| match event.system.get(name) {
        Some(PropertyValue::String(text)) => text.to_ascii_lowercase(),
        _ => String::new(),
    };
    let (kind, encoding) = (text("content-type"), text("content-encoding"));
    let mut parts = kind.split(';').map(str::trim);
    parts.next() == Some("application/json") && (encoding == "utf-8" || parts.any(|part| part == "charset=utf-8"))
}

fn property(value: &PropertyValue) -> Operand {
    match value {
        PropertyValue::Null => Operand::Null,
        PropertyValue::Bool(truth) => Operand::Bool(*truth),
        PropertyValue::Int(number) => Operand::Number(f64::from(*number)),
        PropertyValue::Long(number) => Operand::Number(*number as f64),
        PropertyValue::Double(number) => Operand::Number(*number),
        PropertyValue::String(text) => Operand::Text(text.clone()),
        PropertyValue::Timestamp(at) => Operand::Text(crate::iot_hub::twin::timestamp(*at)),
        PropertyValue::Binary(bytes) => Operand::Text(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// Arrays, and texts that look like dates, are undefined in body queries
/// (`Azure/iotedge …/Routing.Core/query/builtins/BodyQuery.cs`; `MicrosoftDocs/azure-docs#51096`).
fn json(value: &Value) -> Operand {
    match value {
        Value::Null => Operand::Null,
        Value::Bool(truth) => Operand::Bool(*truth),
        Value::Number(number) => number.as_f64().map_or(Operand::Undefined, Operand::Number),
        Value::String(text) if OffsetDateTime::parse(text, &Rfc3339).is_ok() => Operand::Undefined,
        Value::String(text) => Operand::Text(text.clone()),
        Value::Array(_) => Operand::Undefined,
        Value::Object(_) => Operand::Object,
    }
}

/// Objects are not "defined": live hubs say so (`MicrosoftDocs/azure-docs#51096`).
fn is(kind: Kind, value: &Operand) -> bool {
    match kind {
        Kind::Object => matches!(value, Operand::Object),
        Kind::Defined => !matches!(value, Operand::Undefined | Operand::Object),
        Kind::Text => matches!(value, Operand::Text(_)),
    }
}

/// Undefined unless both sides are of one comparable kind.
fn compare(left: &Operand, sign: Comparison, right: &Operand) -> Option<bool> {
    let order = match (left, right) {
        (Operand::Text(left), Operand::Text(right)) => left.cmp(right),
        (Operand::Number(left), Operand::Number(right)) => left.partial_cmp(right)?,
        (Operand::Bool(left), Operand::Bool(right)) => left.cmp(right),
        _ => return None,
    };
    Some(match sign {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::Unequal => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event() -> Event {
        let body = r#"{"version":5,"tags":{"site":"barn"},"list":[1,"b"],"at":"2026-03-01T09:00:00Z","none":null,
                       "properties":{"desired":{"interval":600,"$version":3}}}"#;
        Event {
            body: Bytes::from_static(body.as_bytes()),
            system: [("content-type", "application/json"), ("content-encoding", "utf-8")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into(),
            properties: [("opType", "updateTwin"), ("level", "7")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into(),
            annotations: [("iothub-connection-device-id".to_owned(), "d1".into())].into(),
            partition_key: None,
        }
    }

    fn matches(condition: &str, event: &Event) -> bool {
        let condition = Condition::parse(condition).unwrap_or_else(|| panic!("{condition} is a condition"));
        Facts::new(event).meet(&condition)
    }

    #[test]
    fn conditions_that_match() {
        for condition in [
            "",
            "  ",
            "true",
            "TRUE",
            "opType = 'updateTwin'",
            "opType=\"updateTwin\"",
            "opType <> 'replaceTwin'",
            "opType != 'replaceTwin' and not false",
            "(opType = 'updateTwin' OR opType = 'replaceTwin') AND IS_DEFINED($body.tags.site)",
            "IS_OBJECT($body.properties.desired) OR IS_OBJECT($body.tags)",
            "is_object( $body.tags )",
            "is_defined($body.properties.desired.$version)",
            "is_string($body.tags.site)",
            "is_defined($body.none)",
            "$body.version = 5",
            "$body.version >= 5 AND $body.version < 5.5",
            "$body.list[1] = 'b'",
            "$connectionDeviceId = 'd1'",
            "$contentType = 'application/json'",
            "missing = 'x' OR true",
            "NOT is_defined(missing)",
        ] {
            assert!(matches(condition, &event()), "{condition}");
        }
    }

    #[test]
    fn conditions_that_do_not_match() {
        for condition in [
            "false",
            "opType = 'replaceTwin'",
            "optype = 'updateTwin'",
            "level = 7",
            "missing = 'x'",
            "missing <> 'x'",
            "NOT missing = 'x'",
            "missing = 'x' AND true",
            "opType",
            "$body.none = 1",
            "$body.missing.deeper = 1",
            "$body.list[9] = 1",
            "$body.at = '2026-03-01T09:00:00Z'",
            "is_defined($body.properties.desired)",
            "is_defined($body.list)",
            "is_defined($body.at)",
            "is_object($body.list)",
            "is_object($body.version)",
            "IS_OBJECT($body.properties.reported)",
            "$connectionModuleId = 'm'",
        ] {
            assert!(!matches(condition, &event()), "{condition}");
        }
    }

    #[test]
    fn a_body_is_asked_only_if_it_is_declared_as_json_in_utf8() {
        for (kind, encoding, queried) in [
            ("application/json", Some("utf-8"), true),
            ("application/json;charset=utf-8", None, true),
            ("Application/JSON; charset=UTF-8", None, true),
            ("application/json", None, false),
            ("text/plain", Some("utf-8"), false),
        ] {
            let mut event = event();
            event.system.insert("content-type".to_owned(), kind.into());
            event.system.remove("content-encoding");
            if let Some(encoding) = encoding {
                event.system.insert("content-encoding".to_owned(), encoding.into());
            }
            assert_eq!(matches("$body.version = 5", &event), queried, "{kind} {encoding:?}");
        }
    }
}
