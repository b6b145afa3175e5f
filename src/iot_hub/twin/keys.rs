//! Keys: what IoT Hub refuses in them, and how it is written instead.
//!
//! The rule depends on the key alone, never on its siblings, so that a later message finds the same property; and two keys
//! never become one. Legal keys stay as they are, save those that read as an escape themselves: nothing else could keep
//! `pm2.5` and a literal `pm2_x002E_5` apart. The form is that of XML names in .NET, so `XmlConvert.DecodeName` reads it back,
//! and it needs no quoting in a query.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use super::MAX_KEY_BYTES;

/// Announces the hash of an over-long key. U+FFFF is no character, and it is never escaped: no other key becomes this.
const HASH_MARK: &str = "_xFFFF_";

/// Hex digits of the hash: 128 bits, beyond any accident.
const HASH_DIGITS: usize = 32;

/// What remains of an over-long key in front of its hash.
const KEPT_BYTES: usize = MAX_KEY_BYTES - HASH_MARK.len() - HASH_DIGITS;

/// Whether IoT Hub refuses a key with this character. Documents omit `#` and name but the plain space; the hub and
/// Edge Hub's validator refuse more.
pub(super) fn is_refused(character: char) -> bool {
    matches!(character, '.' | '$' | '#') || character.is_control() || character.is_whitespace()
}

/// The key as a twin takes it: refused characters become `_xHHHH_`, and so does a `_` that would read as such an escape.
#[must_use]
pub fn escape(key: &str) -> Cow<'_, str> {
    let is_escaped = |at: usize, character: char| is_refused(character) || reads_as_escape(&key[at..]);
    if key.len() <= MAX_KEY_BYTES && !key.char_indices().any(|(at, character)| is_escaped(at, character)) {
        return Cow::Borrowed(key);
    }
    let mut escaped = String::with_capacity(key.len() + 16);
    let mut kept = 0;
    for (at, character) in key.char_indices() {
        // A cut never falls inside an escape, or `_x005F|_xFFFF_` would read as a literal `_xFFFF_`.
        if escaped.len() <= KEPT_BYTES {
            kept = escaped.len();
        }
        if is_escaped(at, character) {
            escaped.push_str(&format!("_x{:04X}_", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    if escaped.len() > MAX_KEY_BYTES {
        escaped.truncate(kept);
        escaped.push_str(HASH_MARK);
        escaped.push_str(&hash(key));
    }
    Cow::Owned(escaped)
}

/// Whether the text begins with `_xHHHH`. The closing `_` is not asked for: it could come from the escape of what follows.
fn reads_as_escape(text: &str) -> bool {
    let [b'_', b'x' | b'X', digits @ ..] = text.as_bytes() else { return false };
    digits.len() >= 4 && digits.iter().take(4).all(u8::is_ascii_hexdigit)
}

fn hash(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().take(HASH_DIGITS / 2).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_key;
    use super::*;

    /// The key that was escaped; `None` for one that was cut.
    fn unescape(escaped: &str) -> Option<String> {
        let mut key = String::new();
        let mut rest = escaped;
        while let Some(character) = rest.chars().next() {
            if reads_as_escape(rest) && rest.as_bytes().get(6) == Some(&b'_') {
                let code = u32::from_str_radix(&rest[2..6], 16).expect("four hex digits");
                if code == 0xFFFF {
                    return None;
                }
                key.push(char::from_u32(code).expect("only characters are escaped"));
                rest = &rest[7..];
            } else {
                key.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
        Some(key)
    }

    #[test]
    fn refused_characters_are_escaped_and_legal_keys_stay() {
        for (key, expected) in [
            ("pm2.5", "pm2_x002E_5"),
            ("pm2_5", "pm2_5"),
            ("Voltage Battery", "Voltage_x0020_Battery"),
            ("$version", "_x0024_version"),
            ("a$b#c", "a_x0024_b_x0023_c"),
            ("CO₂ [ppm]", "CO₂_x0020_[ppm]"),
            ("tab\there\u{85}\u{3000}", "tab_x0009_here_x0085__x3000_"),
            ("", ""),
            ("ER+_s", "ER+_s"),
            ("accel_x", "accel_x"),
            ("accel_x1", "accel_x1"),
            ("pm2_x002E_5", "pm2_x005F_x002E_5"),
            ("_x002E.", "_x005F_x002E_x002E_"),
            ("_X00e9_", "_x005F_X00e9_"),
            ("__x0041", "__x005F_x0041"),
        ] {
            assert_eq!(escape(key), expected, "{key:?}");
        }
    }

    #[test]
    fn an_over_long_key_is_cut_and_told_apart_by_its_hash() {
        let longest = "k".repeat(MAX_KEY_BYTES);
        assert_eq!(escape(&longest), longest);
        for tail in ["a", "b", ".", "é"] {
            let key = format!("{longest}{tail}");
            let escaped = escape(&key).into_owned();
            assert_eq!(escaped.len(), MAX_KEY_BYTES);
            assert_eq!(unescape(&escaped), None);
            assert!(escaped.ends_with(&hash(&key)));
        }
        // Legal in length before it is escaped, too long after.
        assert!(escape(&".".repeat(200)).len() <= MAX_KEY_BYTES);
    }

    proptest! {
        #[test]
        fn an_escaped_key_is_legal_and_leads_back_to_its_key(key in any_key()) {
            let escaped = escape(&key);
            prop_assert!(escaped.len() <= MAX_KEY_BYTES);
            prop_assert!(!escaped.contains(is_refused));
            match unescape(&escaped) {
                Some(original) => prop_assert_eq!(original, key),
                None => prop_assert!(escaped.ends_with(&hash(&key)) && key.len() > KEPT_BYTES / 7),
            }
        }
    }
}
