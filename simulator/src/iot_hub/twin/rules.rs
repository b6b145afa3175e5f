//! What a twin takes (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-device-twins.md`;
//! live findings: `mwalser/terraform-provider-iothub CONCEPT.md`; arrays: `Azure/iotedge edge-hub/core/src/
//! Microsoft.Azure.Devices.Edge.Hub.Core/ReportedPropertiesValidator.cs`).

use serde_json::{Map, Value};

/// Longest key, in bytes of UTF-8.
const MAX_KEY_BYTES: usize = 1024;
/// Longest string, in bytes of UTF-8.
const MAX_STRING_BYTES: usize = 4096;
/// Most levels of objects and arrays below a section; a scalar may sit in the deepest.
const MAX_DEPTH: usize = 10;
/// Largest integer; the smallest is one further from zero.
const MAX_INTEGER: i64 = (1 << 52) - 1;
/// What a number weighs in a section, in bytes.
const NUMBER_BYTES: usize = 8;
/// What a boolean weighs in a section, in bytes.
const BOOL_BYTES: usize = 4;

/// The sections of a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Tags,
    Desired,
    Reported,
}

impl Section {
    /// Most that it may hold, in bytes as [`size`] counts them.
    pub(crate) fn max_bytes(self) -> usize {
        match self {
            Self::Tags => 8 * 1024,
            Self::Desired | Self::Reported => 32 * 1024,
        }
    }
}

/// Why a twin does not take a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("{0} must be a JSON object")]
    NotAnObject(&'static str),
    #[error("the key {0:?} contains a control character, white space, '.', '$' or '#'")]
    Key(String),
    #[error("a key of {0} bytes is longer than {MAX_KEY_BYTES}")]
    KeyLength(usize),
    #[error("the string at {0:?} has {1} bytes, more than {MAX_STRING_BYTES}")]
    StringLength(String, usize),
    #[error("the integer at {0:?} is out of range")]
    Integer(String),
    #[error("the integer {0} has more than 64 bits")]
    Literal(String),
    #[error("objects and arrays at {0:?} nest deeper than {MAX_DEPTH}")]
    Depth(String),
    #[error("the array at {0:?} contains null")]
    NullInArray(String),
    #[error("{section:?} would grow to {bytes} bytes, more than {}", section.max_bytes())]
    TooLarge { section: Section, bytes: usize },
}

/// Checks keys and values of a patch or a section. Nulls are fine outside arrays: they delete.
pub(crate) fn check(values: &Map<String, Value>) -> Result<(), Violation> {
    check_object(values, 1, false)
}

fn check_object(object: &Map<String, Value>, depth: usize, in_array: bool) -> Result<(), Violation> {
    object.iter().try_for_each(|(key, value)| {
        check_key(key)?;
        check_value(key, value, depth, in_array)
    })
}

fn check_key(key: &str) -> Result<(), Violation> {
    let refused = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '.' | '$' | '#');
    if key.len() > MAX_KEY_BYTES {
        Err(Violation::KeyLength(key.len()))
    } else if key.contains(refused) {
        Err(Violation::Key(key.to_owned()))
    } else {
        Ok(())
    }
}

/// `depth` is the level that the value has if it is an object or an array.
fn check_value(key: &str, value: &Value, depth: usize, in_array: bool) -> Result<(), Violation> {
    match value {
        Value::Null if in_array => Err(Violation::NullInArray(key.to_owned())),
        Value::String(text) if text.len() > MAX_STRING_BYTES => {
            Err(Violation::StringLength(key.to_owned(), text.len()))
        }
        Value::Number(number) if !is_in_range(number) => Err(Violation::Integer(key.to_owned())),
        Value::Object(_) | Value::Array(_) if depth > MAX_DEPTH => Err(Violation::Depth(key.to_owned())),
        Value::Object(object) => check_object(object, depth + 1, in_array),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(key, item, depth + 1, true)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn is_in_range(number: &serde_json::Number) -> bool {
    match number.as_i64() {
        Some(integer) => (-MAX_INTEGER - 1..=MAX_INTEGER).contains(&integer),
        None => number.is_f64(), // an integer beyond i64 otherwise
    }
}

/// How large a section is: keys and strings without control characters, numbers 8 bytes, booleans 4.
pub(crate) fn size(values: &Map<String, Value>) -> usize {
    values.iter().map(|(key, value)| text_size(key) + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => BOOL_BYTES,
        Value::Number(_) => NUMBER_BYTES,
        Value::String(text) => text_size(text),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(object) => size(object),
    }
}

fn text_size(text: &str) -> usize {
    text.chars().filter(|c| !c.is_control()).map(char::len_utf8).sum()
}

/// Refuses a write that makes a section grow beyond its limit. One that shrinks it passes, however large it stays.
pub(crate) fn check_growth(
    section: Section,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Result<(), Violation> {
    let bytes = size(after);
    if bytes > section.max_bytes() && bytes > size(before) {
        return Err(Violation::TooLarge { section, bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("the test gives an object")
    }

    fn nested(levels: usize, innermost: Value, wrap: fn(Value) -> Value) -> Map<String, Value> {
        let value = (0..levels).fold(innermost, |inner, _| wrap(inner));
        Map::from_iter([("k".to_owned(), value)])
    }

    #[test]
    fn keys_are_taken_or_refused() {
        for key in ["", "a", "ä-ö_ü", "日本", "a/b", "\"", "a%20b", &"k".repeat(1024)] {
            assert_eq!(check(&Map::from_iter([(key.to_owned(), json!(1))])), Ok(()), "{key}");
        }
        for key in ["gateway.id", "$x", "a$", "a b", "a\u{a0}b", "#1", "a\nb", "a\u{7f}", "a\u{85}"] {
            let refused = Err(Violation::Key(key.to_owned()));
            assert_eq!(check(&Map::from_iter([(key.to_owned(), json!(1))])), refused, "{key:?}");
            let deep = json!({"list": [{"deep": {key: 1}}]});
            assert_eq!(check(&object(deep)), refused, "{key:?}");
        }
        let long = "k".repeat(1025);
        assert_eq!(check(&Map::from_iter([(long, json!(1))])), Err(Violation::KeyLength(1025)));
    }

    #[test]
    fn values_are_taken_or_refused() {
        for value in [
            json!(null),
            json!(true),
            json!(4_503_599_627_370_495_i64),
            json!(-4_503_599_627_370_496_i64),
            json!(1e300),
            json!("x".repeat(4096)),
            json!("line\nfeed"),
            json!({"gone": null}),
            json!([1, "a", {"b": []}]),
        ] {
            assert_eq!(check(&Map::from_iter([("k".to_owned(), value.clone())])), Ok(()), "{value}");
        }
        let key = || "k".to_owned();
        for (value, violation) in [
            (json!(4_503_599_627_370_496_i64), Violation::Integer(key())),
            (json!(-4_503_599_627_370_497_i64), Violation::Integer(key())),
            (json!(u64::MAX), Violation::Integer(key())),
            (json!("x".repeat(4097)), Violation::StringLength(key(), 4097)),
            (json!("é".repeat(2049)), Violation::StringLength(key(), 4098)),
            (json!([1, null]), Violation::NullInArray(key())),
            (json!([{"k": null}]), Violation::NullInArray(key())),
        ] {
            assert_eq!(check(&Map::from_iter([(key(), value)])), Err(violation));
        }
    }

    #[test]
    fn ten_levels_hold_a_scalar_and_the_eleventh_is_refused() {
        let wrap_object: fn(Value) -> Value = |inner| json!({"k": inner});
        let wrap_array: fn(Value) -> Value = |inner| json!([inner]);
        for wrap in [wrap_object, wrap_array] {
            assert_eq!(check(&nested(10, json!(1), wrap)), Ok(()));
            assert!(matches!(check(&nested(11, json!(1), wrap)), Err(Violation::Depth(_))));
        }
    }

    #[test]
    fn a_section_is_weighed_as_documented() {
        for (value, bytes) in [
            (json!({}), 0),
            (json!({"ab": 1}), 2 + 8),
            (json!({"é": "é\n"}), 2 + 2),
            (json!({"a": [true, 1.5, "xyz"]}), 1 + 4 + 8 + 3),
            (json!({"a": {"b": false}}), 1 + 1 + 4),
        ] {
            assert_eq!(size(&object(value.clone())), bytes, "{value}");
        }
    }

    #[test]
    fn only_growth_beyond_the_limit_is_refused() {
        let of = |bytes: usize| Map::from_iter([("k".to_owned(), json!("x".repeat(bytes - 1)))]);
        for section in [Section::Tags, Section::Desired, Section::Reported] {
            let max = section.max_bytes();
            assert_eq!(check_growth(section, &Map::new(), &of(max)), Ok(()));
            let bytes = max + 1;
            assert_eq!(check_growth(section, &of(max), &of(bytes)), Err(Violation::TooLarge { section, bytes }));
            assert_eq!(check_growth(section, &of(max + 9), &of(max + 9)), Ok(()));
            assert_eq!(check_growth(section, &of(max + 9), &of(max + 2)), Ok(()));
        }
    }
}
