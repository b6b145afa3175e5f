//! Radio keys stay out of everything that the bridge writes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json::Unambiguous;

/// The application session key, which stands in a message where The Things Stack leaves payloads encrypted
/// (`TheThingsNetwork/lorawan-stack api/ttn/lorawan/v3/messages.proto`). An enveloped key stays: it is of use only to who holds its KEK.
const APP_S_KEY: &str = "app_s_key";
const PLAIN_KEY: &str = "key";

/// Takes every plain application session key out. Returns whether there was one.
pub(super) fn take_out_of_object(object: &mut Map<String, Value>) -> bool {
    let mut found = match object.get_mut(APP_S_KEY) {
        Some(Value::Object(envelope)) => envelope.remove(PLAIN_KEY).is_some(),
        Some(Value::String(_)) => object.remove(APP_S_KEY).is_some(),
        _ => false,
    };
    for value in object.values_mut() {
        found |= take_out(value);
    }
    found
}

fn take_out(value: &mut Value) -> bool {
    match value {
        Value::Object(object) => take_out_of_object(object),
        Value::Array(items) => items.iter_mut().fold(false, |found, item| take_out(item) | found),
        _ => false,
    }
}

/// A body that could not be processed, fit to be kept: without plain keys, and empty if it holds one and cannot be read.
///
/// Whatever the body did to this program before, it does not panic over it: it is empty then.
#[must_use]
pub fn without_session_keys(raw: &Bytes) -> Bytes {
    empty_on_panic(|| scrub(raw))
}

fn empty_on_panic(scrub: impl FnOnce() -> Bytes) -> Bytes {
    catch_unwind(AssertUnwindSafe(scrub)).unwrap_or_default()
}

fn scrub(raw: &Bytes) -> Bytes {
    match serde_json::from_slice(raw) {
        Ok(Unambiguous(mut value)) => {
            if !take_out(&mut value) {
                return raw.clone();
            }
            serde_json::to_vec(&value).map(Bytes::from).unwrap_or_default()
        }
        // An escape can hide a key from a search, so a backslash is suspicious too.
        Err(_) if raw.windows(APP_S_KEY.len()).any(|text| text == APP_S_KEY.as_bytes()) || raw.contains(&b'\\') => {
            Bytes::new()
        }
        Err(_) => raw.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_body_holds_no_key() {
        for (body, kept) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            (r#"[{"app_s_key": {"key": "00"}}]"#, r#"[{"app_s_key":{}}]"#),
            (r#"{"app_s_\u006bey": {"key": "00"}}"#, r#"{"app_s_key":{}}"#),
            (r#"{"app_s_key": {"key": "00"}"#, ""),
            (r#"{"app_s_\u006bey": {"key": "00"}"#, ""),
            ("no JSON", "no JSON"),
        ] {
            assert_eq!(without_session_keys(&Bytes::from(body)), kept, "{body}");
        }
    }

    #[test]
    fn nothing_is_kept_of_a_body_over_which_scrubbing_panics() {
        assert_eq!(empty_on_panic(|| panic!("a scripted panic")), "");
    }
}
