//! Keys that are made up for one run.

use rand::Rng as _;

pub(super) fn random_key(bytes: usize) -> Vec<u8> {
    let mut key = vec![0; bytes];
    rand::rng().fill(&mut key[..]);
    key
}

pub(super) fn random_word(bytes: usize) -> String {
    random_key(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Three parts in the alphabet of real keys.
pub(super) fn random_api_key() -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let part = |length: usize| -> String {
        random_key(length).into_iter().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
    };
    format!("NNSXS.{}.{}", part(39), part(52))
}
