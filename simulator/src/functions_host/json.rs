//! JSON with members in the order in which they were added.
//!
//! The host's envelopes have a fixed member order. `serde_json::Map` sorts, and its `preserve_order` feature would
//! change the map of every crate in the build, so the envelopes are made of this small type.

use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// A value whose objects keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// An object of these members.
    pub(super) fn object<const N: usize>(members: [(&str, Json); N]) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The text of this value as Newtonsoft writes it.
    pub(super) fn to_text(&self) -> String {
        let text = serde_json::to_string(self).expect("a tree of these values always has a text");
        // Newtonsoft's default escapes three characters more than serde_json does.
        if text.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
            return text.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        }
        text
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            // Newtonsoft writes these as text, serde_json as null.
            Self::Double(value) if value.is_nan() => serializer.serialize_str("NaN"),
            Self::Double(value) if value.is_infinite() && *value > 0.0 => serializer.serialize_str("Infinity"),
            Self::Double(value) if value.is_infinite() => serializer.serialize_str("-Infinity"),
            Self::Double(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_line_separators_are_escaped() {
        let value = Json::object([
            ("z", Json::Int(9_007_199_254_740_993)),
            ("a", Json::Double(1.0)),
            ("nan", Json::Double(f64::NAN)),
            ("t", "\u{2028}\u{85}\u{6}ü\"".into()),
        ]);
        let text = "{\"z\":9007199254740993,\"a\":1.0,\"nan\":\"NaN\",\"t\":\"\\u2028\\u0085\\u0006ü\\\"\"}";
        assert_eq!(value.to_text(), text);
    }
}
