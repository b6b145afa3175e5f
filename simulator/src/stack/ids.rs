//! Identifiers: the rules by which The Things Stack takes them, and new ones as it makes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use time::OffsetDateTime;

/// Reserved words that are likely names of devices; the real list is longer
/// (`TheThingsNetwork/lorawan-stack pkg/identityserver/blocklist/builtin.go`).
const FORBIDDEN: &[&str] = &[
    "batch",
    "data",
    "default",
    "demo",
    "dev",
    "device",
    "devices",
    "example",
    "home",
    "local",
    "monitor",
    "nan",
    "null",
    "phone",
    "router",
    "sample",
    "server",
    "status",
    "system",
    "tablet",
    "test",
    "test1",
    "test2",
    "test3",
    "testing",
    "visitor",
    "watch",
    "weather",
    "your-device",
];

/// `^[a-z0-9](?:[-]?[a-z0-9]){2,}$`, at most 36 characters (`api/ttn/lorawan/v3/identifiers.proto`).
pub(super) fn is_stack_id(text: &str) -> bool {
    let alphanumerics = text.bytes().filter(u8::is_ascii_alphanumeric).count();
    text.len() <= 36
        && alphanumerics >= 3
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether the word is reserved.
pub(super) fn is_forbidden(id: &str) -> bool {
    FORBIDDEN.contains(&id)
}

/// Whether the text is this many hex digits: 16 for an EUI, 32 for a key, 8 for a device address.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether the text is hex and all zero.
pub(super) fn is_zero_hex(text: &str) -> bool {
    text.bytes().all(|b| b == b'0')
}

/// The bits of a new ULID: 48 of time in milliseconds, 80 random.
fn ulid_bits() -> u128 {
    let millis = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    let millis = u128::try_from(millis).unwrap_or(0);
    (millis << 80) | (rand::random::<u128>() >> 48)
}

/// A new ULID: 26 characters of Crockford's base 32.
pub(super) fn ulid() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits = ulid_bits();
    (0..26_u32)
        .rev()
        .map(|digit| char::from(ALPHABET[usize::try_from((bits >> (5 * digit)) & 31).unwrap_or(0)]))
        .collect()
}

/// A new session key id: 16 bytes that begin with the time, in base64.
pub(super) fn session_key_id() -> String {
    STANDARD.encode(ulid_bits().to_be_bytes())
}

/// A new device address.
pub(super) fn dev_addr() -> String {
    format!("260B{:04X}", rand::random::<u16>())
}

/// A new correlation id of an error: 32 hex digits.
pub(super) fn error_correlation_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_ids_of_3_to_36_characters_with_single_inner_dashes_are_taken() {
        let longest = "a".repeat(36);
        for good in ["abc", "a1b", "eui-70b3d57ed0000001", &longest] {
            assert!(is_stack_id(good), "{good}");
        }
        let too_long = "a".repeat(37);
        for bad in ["", "ab", "a-b", "-abc", "abc-", "a--bc", "Abc", "a_bc", &too_long] {
            assert!(!is_stack_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_ulid_has_26_characters_and_no_two_are_alike() {
        let (first, second) = (ulid(), ulid());
        assert_eq!(first.len(), 26);
        assert!(first.starts_with('0'), "48 bits of time leave the first digit small: {first}");
        assert_ne!(first, second);
    }
}
