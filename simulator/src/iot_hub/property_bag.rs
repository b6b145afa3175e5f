//! The property bag of a topic: `key=value&…`, percent-encoded.

use percent_encoding::percent_decode_str;

/// The decoded properties in the order they were sent; a key without `=` has no value.
pub(super) type Bag = Vec<(String, Option<String>)>;

/// Parses a bag. A leading `?` and a trailing `/` are tolerated, as is an empty bag
/// (`Azure/iotedge doc/edgehub-api.md`). `None` if a part is no percent-encoded UTF-8.
pub(super) fn parse(text: &str) -> Option<Bag> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let text = text.strip_prefix('?').unwrap_or(text);
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Some((decoded(key)?, Some(decoded(value)?))),
            None => Some((decoded(pair)?, None)),
        })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn pair(key: &str, value: &str) -> (String, Option<String>) {
        (key.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn bags_of_microsofts_sdks_are_understood() {
        let sdk = "%24.mid=m%201&%24.ct=application%2Fjson%3Bcharset%3Dutf-8&%24.ce=utf-8&k%20y=v%26%3D%2F";
        let expected = vec![
            pair("$.mid", "m 1"),
            pair("$.ct", "application/json;charset=utf-8"),
            pair("$.ce", "utf-8"),
            pair("k y", "v&=/"),
        ];
        for text in [sdk.to_owned(), format!("{sdk}/"), format!("?{sdk}")] {
            assert_eq!(parse(&text).as_ref(), Some(&expected), "{text}");
        }
    }

    #[test]
    fn odd_bags_have_one_reading() {
        for (text, expected) in [
            ("", vec![]),
            ("/", vec![]),
            ("?", vec![]),
            ("a", vec![("a".to_owned(), None)]),
            ("a=", vec![pair("a", "")]),
            ("$.mid=1", vec![pair("$.mid", "1")]),
            ("a=b=c&&d=+", vec![pair("a", "b=c"), pair("d", "+")]),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        assert_eq!(parse("a=%FF"), None);
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(pairs in proptest::collection::vec(("\\PC{1,8}", "\\PC{0,8}"), 0..5)) {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let text: Vec<_> = pairs.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect();
            let expected: Bag = pairs.into_iter().map(|(k, v)| (k, Some(v))).collect();
            prop_assert_eq!(parse(&text.join("&")), Some(expected));
        }
    }
}
