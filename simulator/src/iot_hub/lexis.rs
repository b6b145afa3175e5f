//! What the languages of routes and of queries have in common: words, literals, and a bound on nesting.

use std::cmp::Ordering;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use winnow::Result;
use winnow::ascii::{Caseless, digit1, float, multispace0};
use winnow::combinator::{alt, delimited, not, opt, peek, preceded, repeat};
use winnow::error::ContextError;
use winnow::prelude::*;
use winnow::token::{none_of, one_of, take_while};

/// Longest text that is parsed, in bytes. What real hubs take is not documented.
const MAX_BYTES: usize = 16 * 1024;
/// Deepest nesting of brackets. Both parsers and what they make recurse by brackets only, so this bounds the stack.
const MAX_NESTING: usize = 32;

/// Whether a text is short and flat enough to be parsed.
pub(super) fn is_bounded(text: &str) -> bool {
    let (mut depth, mut deepest, mut quote) = (0_usize, 0, None);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                // What is escaped ends no text.
                characters.next();
            }
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
        deepest = deepest.max(depth);
    }
    text.len() <= MAX_BYTES && deepest <= MAX_NESTING
}

/// Letters, digits, `_`, `$` and `-`. So `a-b` is one name, and `a - b` a difference.
fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '-')
}

pub(super) fn name_character(input: &mut &str) -> Result<char> {
    one_of(is_name_character).parse_next(input)
}

pub(super) fn name<'a>(input: &mut &'a str) -> Result<&'a str> {
    take_while(1.., is_name_character).parse_next(input)
}

/// A word in any case that is not the beginning of a longer one, with the white space around it.
pub(super) fn keyword<'a>(word: &'static str) -> impl Parser<&'a str, (), ContextError> {
    padded((Caseless(word), not(name_character)).void())
}

/// Something with the white space around it.
pub(super) fn padded<'a, O>(inner: impl Parser<&'a str, O, ContextError>) -> impl Parser<&'a str, O, ContextError> {
    delimited(multispace0, inner, multispace0)
}

/// A text in single or double quotes, with the escapes `\'`, `\"`, `\\` and `\uXXXX`
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-query-language.md`). Two of the last may be a surrogate pair.
pub(super) fn text(input: &mut &str) -> Result<String> {
    alt((quoted('\''), quoted('"'))).parse_next(input)
}

fn quoted<'a>(quote: char) -> impl Parser<&'a str, String, ContextError> {
    let character = alt((none_of(['\\', quote]), preceded('\\', one_of(['\'', '"', '\\'])), unicode));
    let characters = repeat(0.., character).fold(String::new, |mut text, character| {
        text.push(character);
        text
    });
    delimited(quote, characters, quote)
}

fn unicode(input: &mut &str) -> Result<char> {
    let one = code_unit.verify_map(|unit| char::from_u32(unit.into()));
    let pair = (code_unit, code_unit).verify_map(|(high, low)| char::decode_utf16([high, low]).next()?.ok());
    alt((one, pair)).parse_next(input)
}

fn code_unit(input: &mut &str) -> Result<u16> {
    let digits = preceded("\\u", take_while(4, |c: char| c.is_ascii_hexdigit()));
    digits.verify_map(|digits| u16::from_str_radix(digits, 16).ok()).parse_next(input)
}

/// A number, perhaps with a sign.
pub(super) fn number(input: &mut &str) -> Result<f64> {
    peek((opt(one_of(['+', '-'])), digit1)).parse_next(input)?; // `float` would take "inf" and "nan" too
    float.parse_next(input)
}

pub(super) fn boolean(input: &mut &str) -> Result<bool> {
    alt((keyword("true").value(true), keyword("false").value(false))).parse_next(input)
}

/// Any number of `NOT`, of which two are none: whether what follows is negated.
pub(super) fn negated(input: &mut &str) -> Result<bool> {
    let nots: usize = repeat(0.., keyword("not")).parse_next(input)?;
    Ok(!nots.is_multiple_of(2))
}

/// The one part, or the parts joined.
pub(super) fn join<C>(mut parts: Vec<C>, with: fn(Vec<C>) -> C) -> C {
    if parts.len() == 1 { parts.remove(0) } else { with(parts) }
}

/// Signs of comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// Whether it holds for two values in this order.
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

pub(super) fn comparison_sign(input: &mut &str) -> Result<Comparison> {
    alt((
        alt(("!=", "<>")).value(Comparison::Unequal),
        "<=".value(Comparison::LessOrEqual),
        ">=".value(Comparison::GreaterOrEqual),
        "<".value(Comparison::Less),
        ">".value(Comparison::Greater),
        "=".value(Comparison::Equal),
    ))
    .parse_next(input)
}

/// Times by when they are, since the hub trims the zeros of fractions, and `$enqueuedTime` is compared with an ISO time
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-non-telemetry-event-schema.md`); other texts by their characters.
pub(super) fn text_order(left: &str, right: &str) -> Ordering {
    let time = |text: &str| OffsetDateTime::parse(text, &Rfc3339);
    match (time(left), time(right)) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        _ => left.cmp(right),
    }
}

/// And over truths of which some are undefined.
pub(super) fn all(truths: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for truth in truths {
        match truth {
            Some(false) => return Some(false),
            Some(true) => {}
            None => result = None,
        }
    }
    result
}

/// Or over truths of which some are undefined.
pub(super) fn any(truths: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    all(truths.into_iter().map(|truth| truth.map(|truth| !truth))).map(|none| !none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_and_length_are_bounded_and_brackets_in_texts_do_not_count() {
        let nested = |depth| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        assert!(is_bounded(&nested(MAX_NESTING)));
        assert!(!is_bounded(&nested(MAX_NESTING + 1)));
        assert!(is_bounded(&format!("a = '{}'", "(".repeat(100))));
        assert!(is_bounded(&format!(r"a = '\'{}'", "(".repeat(100))), "an escaped quote ends no text");
        assert!(!is_bounded(&format!(r"a = '\\'{}", "(".repeat(100))), "an escaped backslash escapes no quote");
        assert!(is_bounded(&"() ".repeat(1000)));
        assert!(!is_bounded(&"a".repeat(MAX_BYTES + 1)));
    }

    #[test]
    fn texts_have_escapes() {
        for (written, read) in [
            (r"''", Some("")),
            (r#"'say "a"'"#, Some(r#"say "a""#)),
            (r"'it\'s'", Some("it's")),
            (r#""a \"b\"""#, Some(r#"a "b""#)),
            (r"'a\\b'", Some(r"a\b")),
            (r"'a\\'", Some(r"a\")),
            (r"'\u00fcber'", Some("über")),
            (r"'\uD83D\uDE00'", Some("😀")),
            (r"'\uD83D'", None),
            (r"'\uDE00\uD83D'", None),
            (r"'\u00f'", None),
            (r"'\n'", None),
            (r"'\'", None),
            (r"'a", None),
        ] {
            assert_eq!(text.parse(written).ok().as_deref(), read, "{written}");
        }
    }

    #[test]
    fn undefined_is_neither() {
        let (yes, no, what) = (Some(true), Some(false), None);
        for (truths, and, or) in [
            (vec![], yes, no),
            (vec![yes, yes], yes, yes),
            (vec![yes, no], no, yes),
            (vec![what, no], no, what),
            (vec![what, yes], what, yes),
            (vec![what], what, what),
        ] {
            assert_eq!((all(truths.clone()), any(truths.clone())), (and, or), "{truths:?}");
        }
    }
}
