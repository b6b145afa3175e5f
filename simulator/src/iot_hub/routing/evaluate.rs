//! Whether an event matches a condition.

use std::cell::OnceCell;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::condition::{Arithmetic, Condition, Step};
use crate::event_hubs::{Event, PropertyValue};
use crate::iot_hub::lexis::{Comparison, all, any, text_order};

/// A value of the query language.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// Missing, or nothing that the language can hold.
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Object,
}

impl Operand {
    pub(super) fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// An event as conditions see it. Its body and the twin are read when the first condition asks for them.
pub(super) struct Facts<'a> {
    event: &'a Event,
    body: OnceCell<Option<Value>>,
    twin: OnceCell<Option<Value>>,
    read_twin: &'a dyn Fn() -> Option<Value>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(event: &'a Event, read_twin: &'a dyn Fn() -> Option<Value>) -> Self {
        Self { event, body: OnceCell::new(), twin: OnceCell::new(), read_twin }
    }

    /// Undefined is not true: the event does not match.
    pub(super) fn meet(&self, condition: &Condition) -> bool {
        self.truth(condition) == Some(true)
    }

    /// True, false, or undefined, by the usual three-valued logic.
    fn truth(&self, condition: &Condition) -> Option<bool> {
        match condition {
            Condition::Or(parts) => any(parts.iter().map(|part| self.truth(part))),
            Condition::And(parts) => all(parts.iter().map(|part| self.truth(part))),
            Condition::Not(inner) => self.truth(inner).map(|truth| !truth),
            Condition::Compare(left, sign, right) => compare(&self.value(left), *sign, &self.value(right)),
            _ => match self.value(condition) {
                Operand::Bool(truth) => Some(truth),
                _ => None,
            },
        }
    }

    fn value(&self, condition: &Condition) -> Operand {
        match condition {
            Condition::Or(..) | Condition::And(..) | Condition::Not(_) | Condition::Compare(..) => {
                self.truth(condition).map_or(Operand::Undefined, Operand::Bool)
            }
            Condition::FirstDefined(parts) => {
                let mut values = parts.iter().map(|part| self.value(part));
                values.find(|value| *value != Operand::Undefined).unwrap_or(Operand::Undefined)
            }
            Condition::Chain(first, rest) => {
                rest.iter().fold(self.value(first), |left, (sign, right)| calculate(left, *sign, self.value(right)))
            }
            Condition::Negative(inner) => {
                self.value(inner).number().map_or(Operand::Undefined, |number| Operand::Number(-number))
            }
            Condition::Call(function, arguments) => {
                let arguments: Vec<_> = arguments.iter().map(|argument| self.value(argument)).collect();
                function.call(&arguments)
            }
            Condition::Text(text) => Operand::Text(text.clone()),
            Condition::Number(number) => Operand::Number(*number),
            Condition::Bool(truth) => Operand::Bool(*truth),
            Condition::Null => Operand::Null,
            Condition::Undefined => Operand::Undefined,
            Condition::Property(name) => self.property(name),
            Condition::System(name) => self.system(name),
            Condition::Body(path) => self.body(path),
            Condition::Twin(path) => at(self.twin.get_or_init(self.read_twin).as_ref(), path),
        }
    }

    /// The property of exactly this name, else one whose name differs in case only.
    fn property(&self, name: &str) -> Operand {
        let properties = &self.event.properties;
        let in_any_case =
            || properties.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        properties.get(name).or_else(in_any_case).map_or(Operand::Undefined, property)
    }

    fn system(&self, name: &str) -> Operand {
        let (system, annotations) = (&self.event.system, &self.event.annotations);
        let name = name.to_ascii_lowercase();
        let value = match name.as_str() {
            "contenttype" => system.get("content-type"),
            "contentencoding" => system.get("content-encoding"),
            "messageid" => system.get("message-id"),
            "correlationid" => system.get("correlation-id"),
            "userid" => system.get("user-id"),
            "connectiondeviceid" => annotations.get("iothub-connection-device-id"),
            "enqueuedtime" => annotations.get("iothub-enqueuedtime"),
            "messagesource" => annotations.get("iothub-message-source"),
            "dt-dataschema" | "interfaceid" => annotations.get("iothub-interface-id"),
            "dt-subject" => annotations.get("dt-subject"),
            // Names as they stand in the event, too: `$iothub-connection-device-id`.
            other => annotations.get(other).or_else(|| system.get(other)),
        };
        value.map_or(Operand::Undefined, property)
    }

    fn body(&self, path: &[Step]) -> Operand {
        let body =
            self.body.get_or_init(|| is_json(self.event).then(|| serde_json::from_slice(&self.event.body).ok())?);
        at(body.as_ref(), path)
    }
}

/// What is at a place of a document.
fn at(document: Option<&Value>, path: &[Step]) -> Operand {
    let place = path.iter().fold(document, |place, step| match step {
        Step::Key(key) => place?.get(key),
        Step::Index(index) => place?.get(index),
    });
    place.map_or(Operand::Undefined, json)
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
        PropertyValue::Uuid(uuid) => Operand::Text(uuid.to_string()),
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

/// Undefined unless both sides are numbers, or texts to be joined. So is what is no number: 0 / 0.
fn calculate(left: Operand, sign: Arithmetic, right: Operand) -> Operand {
    if sign == Arithmetic::Join {
        return match (left, right) {
            (Operand::Text(left), Operand::Text(right)) => Operand::Text(left + &right),
            _ => Operand::Undefined,
        };
    }
    let (Some(left), Some(right)) = (left.number(), right.number()) else { return Operand::Undefined };
    let result = match sign {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
        Arithmetic::Join => return Operand::Undefined,
    };
    if result.is_nan() { Operand::Undefined } else { Operand::Number(result) }
}

/// Undefined unless both sides are of one comparable kind.
fn compare(left: &Operand, sign: Comparison, right: &Operand) -> Option<bool> {
    let order = match (left, right) {
        (Operand::Text(left), Operand::Text(right)) => text_order(left, right),
        (Operand::Number(left), Operand::Number(right)) => left.partial_cmp(right)?,
        (Operand::Bool(left), Operand::Bool(right)) => left.cmp(right),
        _ => return None,
    };
    Some(sign.holds(order))
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
        let twin = serde_json::json!({"tags": {"site": "barn"}, "properties": {"reported": {"level": 7}}});
        Facts::new(event, &|| Some(twin.clone())).meet(&condition)
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
            "OPTYPE = 'updateTwin'",
            "$twin.tags.site = 'barn'",
            "$twin.properties.reported.level = 7",
            "as_number(level) = 7",
            "as_number(level) * 2 + 1 = 15",
            "1 + 2 * 3 = 7",
            "(1 + 2) * 3 = 9",
            "7 - 2 - 1 = 4",
            "7 % 4 = 3 AND 1 / 2 = 0.5",
            "-as_number(level) = -7",
            "-(1 + 1) = 0 - 2",
            "(missing ?? $body.missing ?? 'x') = 'x'",
            "missing ?? opType = 'updateTwin'",
            "opType || '!' = 'updateTwin!'",
            "concat(opType, '-', level) = 'updateTwin-7'",
            "ABS(-2) = 2 AND square(3) = 9 AND power(2, 10) = 1024 AND sqrt(16) = 4 AND exp(0) = 1",
            "ceiling(1.2) = 2 AND floor(-1.2) = -2 AND sign(-3) = -1 AND sign(0) = 0",
            "length(opType) = 10 AND upper(opType) = 'UPDATETWIN' AND lower('ÄB') = 'äb'",
            "substring(opType, 6) = 'Twin' AND substring(opType, 0, 6) = 'update'",
            "index_of(opType, 'Twin') = 6 AND index_of(opType, 'x') = -1",
            "starts_with(opType, 'up') AND ends_with(opType, 'in') AND contains(opType, 'dateT')",
            "is_null($body.none) AND is_number($body.version) AND is_string(level)",
            "NOT is_bool($body.version)",
        ] {
            assert!(matches(condition, &event()), "{condition}");
        }
    }

    #[test]
    fn conditions_that_do_not_match() {
        for condition in [
            "false",
            "opType = 'replaceTwin'",
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
            "$twin.tags.none = 'x'",
            "is_defined($twin.tags)",
            "is_object(opType)",
            "as_number(opType) = 0",
            "as_number('inf') > 1",
            "level + 1 = 8",
            "1 / 0 < 1",
            "0 / 0 = 0 / 0",
            "sqrt(-1) = sqrt(-1)",
            "substring(opType, 6, 99) = 'Twin'",
            "substring(opType, -1) = 'n'",
            "length($body.version) = 1",
            "null = null",
            "undefined ?? false",
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
