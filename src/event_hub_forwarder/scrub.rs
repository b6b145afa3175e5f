//! What of an event may stand in a dead letter: everything but root keys.

use bytes::Bytes;
use serde_json::Value;

use crate::stack::ROOT_KEYS;

/// Stands in place of a key.
const REMOVED: &str = "removed";

/// The body without root keys; empty, with the reason why, if it is no JSON and so may hide one.
pub(super) fn without_root_keys(body: &[u8]) -> (Bytes, Option<String>) {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            scrub(&mut value);
            (Bytes::from(value.to_string()), None)
        }
        Err(_) => (Bytes::new(), Some(format!("its body of {} bytes is no JSON and left out", body.len()))),
    }
}

/// Wherever a root key stands: tags can be nested in ways that nobody foresaw. A null is the removal of one.
fn scrub(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, member) in map.iter_mut() {
                if !member.is_null() && ROOT_KEYS.iter().any(|key| key.eq_ignore_ascii_case(name)) {
                    *member = Value::from(REMOVED);
                } else {
                    scrub(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_body_that_is_no_json_is_left_out() {
        let (body, why) = without_root_keys(b"{\"appKey\": \"00112233445566778899AABBCCDDEEFF\"");
        assert!(body.is_empty());
        assert_eq!(why.as_deref(), Some("its body of 45 bytes is no JSON and left out"));
    }

    proptest! {
        #[test]
        fn no_root_key_is_left_wherever_it_stands(path in proptest::collection::vec("[a-z]{1,5}", 0..6), app in any::<bool>()) {
            const KEY: &str = "00112233445566778899AABBCCDDEEFF";
            let name = if app { "appKey" } else { "nwkKey" };
            let inner = json!({name: KEY, "devEui": "A1B2C3D4E5F60718"});
            let body = path.iter().fold(inner, |value, key| json!({key.as_str(): [value, 1]}));
            let (scrubbed, why) = without_root_keys(body.to_string().as_bytes());
            let text = String::from_utf8_lossy(&scrubbed);
            prop_assert!(why.is_none());
            prop_assert!(!text.contains(KEY));
            prop_assert!(text.contains("A1B2C3D4E5F60718"));
        }
    }
}
