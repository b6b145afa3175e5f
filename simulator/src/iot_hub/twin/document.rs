//! JSON documents whose numbers are what was written.

use serde_json::Value;

use super::Violation;

/// Why bytes are no document for a twin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    /// They are no JSON, or nest deeper than the parser goes.
    #[error("it is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An integer is too large to be told exactly.
    #[error(transparent)]
    Literal(Violation),
}

/// Parses a document. An integer beyond 64 bits is refused, where the parser alone would make a rounded number of it that
/// passes for one with a fraction.
pub(crate) fn parse_document(bytes: &[u8]) -> Result<Value, DocumentError> {
    let value = serde_json::from_slice(bytes)?;
    match integers(bytes).find(|literal| !fits(literal)) {
        Some(literal) => Err(DocumentError::Literal(Violation::Literal(String::from_utf8_lossy(literal).into_owned()))),
        None => Ok(value),
    }
}

/// The integer literals of valid JSON.
fn integers(json: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = json;
    std::iter::from_fn(move || {
        loop {
            let (&first, behind) = rest.split_first()?;
            match first {
                b'"' => rest = behind_text(behind),
                b'-' | b'0'..=b'9' => {
                    let literal = first_number(rest);
                    rest = &rest[literal.len()..];
                    if !literal.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) {
                        return Some(literal);
                    }
                }
                _ => rest = behind,
            }
        }
    })
}

/// What follows the closing quote.
fn behind_text(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b'"', behind @ ..] => return behind,
            [b'\\', _, behind @ ..] | [_, behind @ ..] => behind,
            [] => return text,
        };
    }
}

fn first_number(text: &[u8]) -> &[u8] {
    let belongs = |b: &u8| matches!(b, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    let end = text.iter().position(|b| !belongs(b)).unwrap_or(text.len());
    &text[..end]
}

fn fits(literal: &[u8]) -> bool {
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_beyond_64_bits_are_refused_wherever_they_stand() {
        for text in ["18446744073709551616", "-9223372036854775809", r#"{"a\"1":[true,{"b":99999999999999999999}]}"#] {
            assert!(matches!(parse_document(text.as_bytes()), Err(DocumentError::Literal(_))), "{text}");
        }
    }

    #[test]
    fn other_numbers_and_digits_in_texts_are_taken() {
        for text in [
            "18446744073709551615",
            "-9223372036854775808",
            "1e300",
            "-1.5E-7",
            "123456789012345678901234567890.0",
            r#"{"99999999999999999999":"99999999999999999999\"99999999999999999999"}"#,
            r#"["\\",1]"#,
        ] {
            assert!(parse_document(text.as_bytes()).is_ok(), "{text}");
        }
        for text in ["", "{", "1e400", "[1,]"] {
            assert!(matches!(parse_document(text.as_bytes()), Err(DocumentError::Json(_))), "{text}");
        }
    }
}
