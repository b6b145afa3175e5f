//! The hub's rules as a yes or no.

use serde_json::{Map, Number, Value};

use super::keys::is_refused;
use super::values::is_storable;
use super::{MAX_DEPTH, MAX_KEY_BYTES, MAX_SECTION_BYTES, MAX_STRING_BYTES, name, size};

/// Why IoT Hub would refuse a patch. Names keys, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A key holds a character that is refused.
    #[error("the key `{0}` holds a control character, white space, `.`, `$` or `#`")]
    KeyCharacter(String),
    /// A key is too long.
    #[error("the key `{0}` is longer than {MAX_KEY_BYTES} bytes")]
    KeyLength(String),
    /// A string is too long.
    #[error("`{0}` holds a string longer than {MAX_STRING_BYTES} bytes")]
    StringLength(String),
    /// An integer is out of range.
    #[error("`{0}` holds an integer outside -2^52 to 2^52-1")]
    Integer(String),
    /// `null` inside an array.
    #[error("`{0}` holds null inside an array")]
    NullInArray(String),
    /// Objects or arrays nest too deep.
    #[error("`{0}` nests deeper than {MAX_DEPTH} levels")]
    Depth(String),
    /// The section is too large.
    #[error("the section counts {0} bytes, more than {MAX_SECTION_BYTES}")]
    Size(usize),
}

/// Whether IoT Hub takes this as a patch of the reported properties of an empty twin.
///
/// # Errors
/// The first rule that is broken.
pub fn check(patch: &Map<String, Value>) -> Result<(), Violation> {
    check_members(patch, 0, false)?;
    match size(patch) {
        size if size > MAX_SECTION_BYTES => Err(Violation::Size(size)),
        _ => Ok(()),
    }
}

fn check_members(members: &Map<String, Value>, level: usize, in_array: bool) -> Result<(), Violation> {
    for (key, value) in members {
        if key.len() > MAX_KEY_BYTES {
            return Err(Violation::KeyLength(name(key)));
        }
        if key.contains(is_refused) {
            return Err(Violation::KeyCharacter(name(key)));
        }
        check_value(key, value, level + 1, in_array)?;
    }
    Ok(())
}

fn check_value(key: &str, value: &Value, level: usize, in_array: bool) -> Result<(), Violation> {
    match value {
        Value::Null if in_array => Err(Violation::NullInArray(name(key))),
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => check_number(key, number),
        Value::String(text) if text.len() > MAX_STRING_BYTES => Err(Violation::StringLength(name(key))),
        Value::String(_) => Ok(()),
        Value::Object(_) | Value::Array(_) if level > MAX_DEPTH => Err(Violation::Depth(name(key))),
        Value::Object(members) => check_members(members, level, in_array),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(key, item, level + 1, true)),
    }
}

fn check_number(key: &str, number: &Number) -> Result<(), Violation> {
    if is_storable(number) { Ok(()) } else { Err(Violation::Integer(name(key))) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::nested;
    use super::*;

    fn verdict(patch: Value) -> Result<(), Violation> {
        check(patch.as_object().expect("an object"))
    }

    #[test]
    fn what_the_hub_stores_passes() {
        for patch in [
            json!({}),
            json!({"": 1, "ключ": null, "CO₂": {}, "a-b/c(d)": []}),
            json!({"low": -(1i64 << 52), "high": (1i64 << 52) - 1, "float": 1e21, "tiny": 5e-324}),
            json!({"k".repeat(MAX_KEY_BYTES): "v".repeat(MAX_STRING_BYTES)}),
            json!({"top": nested(MAX_DEPTH - 1, json!({"scalar": 1}))}),
            json!({"top": {"deleted": null}}),
        ] {
            assert_eq!(verdict(patch.clone()), Ok(()), "{patch}");
        }
    }

    #[test]
    fn what_the_hub_refuses_is_named() {
        let key = || "k".to_owned();
        for (patch, expected) in [
            (json!({"a.b": 1}), Violation::KeyCharacter("a.b".to_owned())),
            (json!({"a": [[{"b\u{3000}": 1}]]}), Violation::KeyCharacter("b\\u{3000}".to_owned())),
            (json!({"k": "v".repeat(MAX_STRING_BYTES + 1)}), Violation::StringLength(key())),
            (json!({"k": 1i64 << 52}), Violation::Integer(key())),
            (json!({"k": u64::MAX}), Violation::Integer(key())),
            (json!({"k": -(1i64 << 52) - 1}), Violation::Integer(key())),
            (json!({"k": [null]}), Violation::NullInArray(key())),
            (json!({"a": [{"b": {"k": null}}]}), Violation::NullInArray(key())),
            (json!({"top": nested(MAX_DEPTH - 1, json!({"k": {}}))}), Violation::Depth(key())),
            (json!({"top": nested(MAX_DEPTH - 1, json!({"k": []}))}), Violation::Depth(key())),
        ] {
            assert_eq!(verdict(patch.clone()), Err(expected), "{patch}");
        }
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        assert!(matches!(verdict(json!({long: 1})), Err(Violation::KeyLength(_))));
        let nine: Map<_, _> = (0..9).map(|i| (i.to_string(), "v".repeat(MAX_STRING_BYTES).into())).collect();
        assert_eq!(check(&nine), Err(Violation::Size(9 * (MAX_STRING_BYTES + 1))));
    }
}
