//! How large a section is.

use serde_json::{Map, Value};

/// The size of a section as IoT Hub counts it: UTF-8 length of keys and strings without control characters, 8 bytes per
/// number, 4 per boolean. (What a `null` in a patch counts is not told; its key is counted here.)
#[must_use]
pub fn size(section: &Map<String, Value>) -> usize {
    section.iter().map(|(key, value)| text_size(key) + value_size(value)).sum()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text_size(text),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(members) => size(members),
    }
}

/// Segments C0 and C1 are not counted; DEL belongs to neither.
fn text_size(text: &str) -> usize {
    text.chars().filter(|c| !c.is_control() || *c == '\u{7f}').map(char::len_utf8).sum()
}

/// What a value weighs against our own budgets: no less than [`size`] says, and no less than its JSON text.
///
/// The hub's count is blind to brackets, escapes and empty containers, Edge Hub's validator measures the text;
/// a payload that is small in this measure is small in both.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(number) => number.to_string().len().max(8),
        Value::String(text) => text_weight(text),
        Value::Array(items) => 2 + items.iter().map(|item| weight(item) + 1).sum::<usize>(),
        Value::Object(members) => members_weight(members),
    }
}

/// [`weight`] of an object.
pub(super) fn members_weight(members: &Map<String, Value>) -> usize {
    2 + members.iter().map(|(key, value)| member_weight(key, value)).sum::<usize>()
}

/// Weight of one member with its separators.
pub(super) fn member_weight(key: &str, value: &Value) -> usize {
    text_weight(key) + 1 + weight(value) + 1
}

fn text_weight(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::any_object;
    use super::*;

    #[test]
    fn a_section_is_counted_as_the_hub_counts_it() {
        for (section, expected) in [
            (json!({}), 0),
            (json!({"ab": 1}), 10),
            (json!({"ab": 1.5e300}), 10),
            (json!({"ab": true}), 6),
            (json!({"ä": "€"}), 5),
            (json!({"a": "x\u{0}\n\u{85}\u{7f}"}), 3),
            (json!({"a": {"b": {"c": "d"}}}), 4),
            (json!({"a": [1, true, "x", {"b": []}]}), 15),
        ] {
            assert_eq!(size(section.as_object().expect("an object")), expected, "{section}");
        }
    }

    proptest! {
        #[test]
        fn the_weight_is_no_less_than_the_hubs_count_nor_the_json_text(section in any_object()) {
            let weight = members_weight(&section);
            prop_assert!(weight >= size(&section));
            prop_assert!(weight >= Value::Object(section).to_string().len());
        }
    }
}
