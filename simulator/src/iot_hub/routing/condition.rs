//! The query language of route conditions. The model is
//! `Azure/iotedge edge-hub/core/src/Microsoft.Azure.Devices.Routing.Core/grammar/Condition.g4`.

use winnow::Result;
use winnow::ascii::{Caseless, digit1, multispace0};
use winnow::combinator::{alt, delimited, empty, eof, fail, not, preceded, repeat, separated, terminated};
use winnow::prelude::*;

use super::functions::Function;
use crate::iot_hub::lexis::{
    Comparison, boolean, comparison_sign, is_bounded, join, keyword, name, name_character, negated, number, padded,
    text,
};

/// A condition, parsed. Its depth is bounded by the nesting of brackets in its text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Or(Vec<Condition>),
    And(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Box<Condition>, Comparison, Box<Condition>),
    /// `a ?? b`: the first that is defined.
    FirstDefined(Vec<Condition>),
    /// A value, and what is done to it in turn.
    Chain(Box<Condition>, Vec<(Arithmetic, Condition)>),
    Negative(Box<Condition>),
    Call(Function, Vec<Condition>),
    Text(String),
    Number(f64),
    Bool(bool),
    Null,
    Undefined,
    /// An application property.
    Property(String),
    /// A system property, without its `$`.
    System(String),
    /// A place in a JSON body.
    Body(Vec<Step>),
    /// A place in the twin of the device, as it is after the change.
    Twin(Vec<Step>),
}

/// One step into a body or a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Signs of arithmetic, and `||`, which joins texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Join,
}

impl Condition {
    /// Parses a condition; an empty one is `true`. `None` if it is not of this language, too long or too deep.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let always = (multispace0, eof).value(Self::Bool(true));
        let parsed = || alt((always, delimited(multispace0, any_of, (multispace0, eof)))).parse(text).ok();
        is_bounded(text).then(parsed)?
    }
}

fn any_of(input: &mut &str) -> Result<Condition> {
    separated(1.., all_of, keyword("or")).map(|parts| join(parts, Condition::Or)).parse_next(input)
}

fn all_of(input: &mut &str) -> Result<Condition> {
    separated(1.., negation, keyword("and")).map(|parts| join(parts, Condition::And)).parse_next(input)
}

/// A comparison, perhaps with `NOT` before it.
fn negation(input: &mut &str) -> Result<Condition> {
    let is_negated = negated.parse_next(input)?;
    let inner = comparison.parse_next(input)?;
    Ok(if is_negated { Condition::Not(Box::new(inner)) } else { inner })
}

fn comparison(input: &mut &str) -> Result<Condition> {
    let left = coalesce.parse_next(input)?;
    let compared = (padded(comparison_sign), coalesce);
    let right = winnow::combinator::opt(compared).parse_next(input)?;
    Ok(match right {
        None => left,
        Some((sign, right)) => Condition::Compare(Box::new(left), sign, Box::new(right)),
    })
}

fn coalesce(input: &mut &str) -> Result<Condition> {
    separated(1.., sum, padded("??")).map(|parts| join(parts, Condition::FirstDefined)).parse_next(input)
}

fn sum(input: &mut &str) -> Result<Condition> {
    let sign = || alt(("||".value(Arithmetic::Join), '+'.value(Arithmetic::Add), '-'.value(Arithmetic::Subtract)));
    let rest = repeat(0.., (padded(sign()), product));
    (product, rest).map(|(first, rest)| chain(first, rest)).parse_next(input)
}

fn product(input: &mut &str) -> Result<Condition> {
    let sign =
        || alt(('*'.value(Arithmetic::Multiply), '/'.value(Arithmetic::Divide), '%'.value(Arithmetic::Remainder)));
    let rest = repeat(0.., (padded(sign()), operand));
    (operand, rest).map(|(first, rest)| chain(first, rest)).parse_next(input)
}

fn chain(first: Condition, rest: Vec<(Arithmetic, Condition)>) -> Condition {
    if rest.is_empty() { first } else { Condition::Chain(Box::new(first), rest) }
}

fn operand(input: &mut &str) -> Result<Condition> {
    let group = delimited(('(', multispace0), any_of, (multispace0, ')'));
    let negative = preceded(('-', multispace0), alt((bracketed, call, reference)));
    let constant = alt((
        boolean.map(Condition::Bool),
        keyword("null").value(Condition::Null),
        keyword("undefined").value(Condition::Undefined),
    ));
    alt((
        group,
        text.map(Condition::Text),
        number.map(Condition::Number),
        negative.map(|inner| Condition::Negative(Box::new(inner))),
        call,
        constant,
        reference,
    ))
    .parse_next(input)
}

fn bracketed(input: &mut &str) -> Result<Condition> {
    delimited(('(', multispace0), any_of, (multispace0, ')')).parse_next(input)
}

fn call(input: &mut &str) -> Result<Condition> {
    let function = terminated(name, (multispace0, '(', multispace0)).verify_map(Function::named).parse_next(input)?;
    let arguments: Vec<Condition> = if function.takes_references_only() {
        reference.map(|argument| vec![argument]).parse_next(input)?
    } else {
        separated(0.., any_of, padded(',')).parse_next(input)?
    };
    (multispace0, ')').parse_next(input)?;
    if function.takes(arguments.len()) { Ok(Condition::Call(function, arguments)) } else { fail.parse_next(input) }
}

fn reference(input: &mut &str) -> Result<Condition> {
    let place = |word: &'static str| preceded((Caseless(word), not(name_character)), repeat(1.., step));
    let is_place = |name: &str| ["body", "twin"].iter().any(|word| word.eq_ignore_ascii_case(name));
    let system = preceded('$', name.verify(move |name: &str| !is_place(name)));
    let system = system.map(|name| Condition::System(name.to_owned()));
    alt((place("$body").map(Condition::Body), place("$twin").map(Condition::Twin), system, property)).parse_next(input)
}

fn step(input: &mut &str) -> Result<Step> {
    let key = preceded('.', name).map(|key: &str| Step::Key(key.to_owned()));
    let index = delimited('[', digit1.parse_to(), ']').map(Step::Index);
    alt((key, index)).parse_next(input)
}

fn property(input: &mut &str) -> Result<Condition> {
    let name = terminated(name, empty).parse_next(input)?;
    let is_word = |word: &&str| word.eq_ignore_ascii_case(name);
    let words = ["and", "or", "not", "true", "false", "null", "undefined"];
    if name.starts_with('$') || words.iter().any(is_word) {
        return fail.parse_next(input);
    }
    Ok(Condition::Property(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str) -> Condition {
        Condition::Property(name.to_owned())
    }

    #[test]
    fn precedence_is_not_and_or() {
        let parsed = Condition::parse("NOT a AND b or c");
        let not_a = Condition::Not(Box::new(property("a")));
        let expected = Condition::Or(vec![Condition::And(vec![not_a, property("b")]), property("c")]);
        assert_eq!(parsed, Some(expected));
    }

    #[test]
    fn a_negation_takes_the_whole_comparison() {
        let equal = Condition::Compare(Box::new(property("a")), Comparison::Equal, Box::new(Condition::Number(1.0)));
        assert_eq!(Condition::parse("not a = 1"), Some(Condition::Not(Box::new(equal))));
    }

    #[test]
    fn words_that_begin_like_keywords_are_names() {
        for name in ["order", "nothing", "trueish", "nullable", "a-b"] {
            assert_eq!(Condition::parse(name), Some(property(name)));
        }
        assert_eq!(Condition::parse("$bodyguard"), Some(Condition::System("bodyguard".into())));
        assert_eq!(Condition::parse("$twinkle"), Some(Condition::System("twinkle".into())));
    }

    #[test]
    fn what_is_not_of_the_language_is_refused() {
        for text in [
            "(",
            "a =",
            "= 1",
            "a b",
            "a = 'x",
            "is_object()",
            "is_object('x')",
            "and",
            "a and",
            "f(x)",
            "$body",
            "$",
            "$twin",
            "length()",
            "length(a, b)",
            "substring(a)",
            "a +",
            "* 2",
            "a ?? ",
            "is_defined(1 + 1)",
            "a = 1 = 1",
        ] {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }

    #[test]
    fn endless_texts_end_without_an_overflow() {
        for text in ["(", "not ", "abs(", "- ", "-(", "a[", "concat('x',"] {
            assert_eq!(Condition::parse(&text.repeat(200_000 / text.len())), None, "{text}");
        }
        for text in ["a or ", "a and ", "a + ", "a || ", "a ?? "] {
            let long = format!("{}a", text.repeat(2_000));
            assert!(Condition::parse(&long).is_some(), "{text}");
        }
    }
}
