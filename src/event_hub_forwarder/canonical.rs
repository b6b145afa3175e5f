//! One text per JSON value, so that equal values have equal hashes.

use std::fmt::Write as _;

use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};

/// SHA-256 in lower-case hex of the canonical text of a value: keys sorted, no white space, whole numbers without a fraction.
/// Portals and SDKs write `1.0` back as `1`, and no order of keys is kept anywhere.
pub(super) fn hash(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(key, _)| key.as_str());
            write_all(text, ('{', '}'), members.into_iter(), |(key, value), text| {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(value, text);
            });
        }
        Value::Array(items) => write_all(text, ('[', ']'), items.iter(), write),
        Value::Number(number) => text.push_str(&number_text(number)),
        plain => text.push_str(&plain.to_string()),
    }
}

fn write_all<T>(
    text: &mut String,
    (open, close): (char, char),
    items: impl Iterator<Item = T>,
    mut one: impl FnMut(T, &mut String),
) {
    text.push(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        one(item, text);
    }
    text.push(close);
}

fn number_text(number: &Number) -> String {
    // Up to here a float is exact.
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= MAX_EXACT => {
            format!("{}", float as i64)
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    #[test]
    fn equal_values_hash_alike_however_they_are_written() {
        let written = [r#"{"a":1,"b":[1.0,{"d":null,"c":"x"}]}"#, r#"{ "b":[1,{"c":"x","d":null}], "a":1.0 }"#];
        let [first, second] = written.map(|text| hash(&serde_json::from_str(text).expect("valid JSON")));
        assert_eq!(first, second);
        assert_eq!(first.len(), 64);
        assert_ne!(hash(&json!({"a": 1})), hash(&json!({"a": "1"})));
        assert_ne!(hash(&json!([1, 12])), hash(&json!([11, 2])));
        assert_eq!(hash(&json!({})), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    }

    proptest! {
        #[test]
        fn the_order_of_keys_does_not_matter(members in proptest::collection::btree_map(".{0,6}", any::<i64>(), 0..12)) {
            let forward: Map<_, _> = members.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
            let backward: Map<_, _> = members.iter().rev().map(|(key, value)| (key.clone(), json!(value))).collect();
            prop_assert_eq!(hash(&Value::Object(forward)), hash(&Value::Object(backward)));
        }
    }
}
