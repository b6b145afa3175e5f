//! The query language of route conditions: the part that routes to storage and Event Hubs commonly use. The model is
//! `Azure/iotedge edge-hub/core/src/Microsoft.Azure.Devices.Routing.Core/grammar/Condition.g4`.

use winnow::Result;
use winnow::ascii::{Caseless, digit1, float, multispace0};
use winnow::combinator::{alt, delimited, empty, eof, fail, not, opt, peek, preceded, repeat, separated_foldl1};
use winnow::prelude::*;
use winnow::token::{one_of, take_till, take_while};

/// A condition, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Or(Box<Condition>, Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Compare(Box<Condition>, Comparison, Box<Condition>),
    /// `IS_OBJECT(…)` and the like.
    Is(Kind, Box<Condition>),
    Text(String),
    Number(f64),
    Bool(bool),
    /// An application property.
    Property(String),
    /// A system property, without its `$`.
    System(String),
    /// A place in a JSON body.
    Body(Vec<Step>),
}

/// One step into a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Defined,
    Text,
}

impl Condition {
    /// Parses a condition; an empty one is `true`. `None` if it is not of this language.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let always = (multispace0, eof).value(Self::Bool(true));
        alt((always, delimited(multispace0, any_of, (multispace0, eof)))).parse(text).ok()
    }
}

fn any_of(input: &mut &str) -> Result<Condition> {
    separated_foldl1(all_of, keyword("or"), |left, _, right| Condition::Or(Box::new(left), Box::new(right)))
        .parse_next(input)
}

fn all_of(input: &mut &str) -> Result<Condition> {
    separated_foldl1(negation, keyword("and"), |left, _, right| Condition::And(Box::new(left), Box::new(right)))
        .parse_next(input)
}

fn negation(input: &mut &str) -> Result<Condition> {
    let negated = preceded(keyword("not"), negation).map(|inner| Condition::Not(Box::new(inner)));
    alt((negated, comparison)).parse_next(input)
}

fn comparison(input: &mut &str) -> Result<Condition> {
    let left = operand.parse_next(input)?;
    let right = opt((padded(comparison_sign), operand)).parse_next(input)?;
    Ok(match right {
        None => left,
        Some((sign, right)) => Condition::Compare(Box::new(left), sign, Box::new(right)),
    })
}

fn comparison_sign(input: &mut &str) -> Result<Comparison> {
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

fn operand(input: &mut &str) -> Result<Condition> {
    let group = delimited(('(', multispace0), any_of, (multispace0, ')'));
    alt((group, text, number, kind_check, boolean, reference)).parse_next(input)
}

fn text(input: &mut &str) -> Result<Condition> {
    let quoted = |quote: char| delimited(quote, take_till(0.., quote), quote);
    alt((quoted('\''), quoted('"'))).map(|text: &str| Condition::Text(text.to_owned())).parse_next(input)
}

fn number(input: &mut &str) -> Result<Condition> {
    peek((opt(one_of(['+', '-'])), digit1)).parse_next(input)?; // `float` would take "inf" and "nan" too
    float.map(Condition::Number).parse_next(input)
}

fn boolean(input: &mut &str) -> Result<Condition> {
    alt((keyword("true").value(true), keyword("false").value(false))).map(Condition::Bool).parse_next(input)
}

fn kind_check(input: &mut &str) -> Result<Condition> {
    let kind = alt((
        Caseless("is_object").value(Kind::Object),
        Caseless("is_defined").value(Kind::Defined),
        Caseless("is_string").value(Kind::Text),
    ));
    let argument = delimited((multispace0, '(', multispace0), reference, (multispace0, ')'));
    (kind, argument).map(|(kind, argument)| Condition::Is(kind, Box::new(argument))).parse_next(input)
}

fn reference(input: &mut &str) -> Result<Condition> {
    let body = preceded((Caseless("$body"), not(name_character)), repeat(1.., step)).map(Condition::Body);
    let system = preceded('$', name.verify(|name: &str| !name.eq_ignore_ascii_case("body")));
    let system = system.map(|name| Condition::System(name.to_owned()));
    alt((body, system, property)).parse_next(input)
}

fn step(input: &mut &str) -> Result<Step> {
    let key = preceded('.', name).map(|key: &str| Step::Key(key.to_owned()));
    let index = delimited('[', digit1.parse_to(), ']').map(Step::Index);
    alt((key, index)).parse_next(input)
}

fn property(input: &mut &str) -> Result<Condition> {
    let name: &str = name.parse_next(input)?;
    let is_word = |word: &&str| word.eq_ignore_ascii_case(name);
    if name.starts_with('$') || ["and", "or", "not", "true", "false"].iter().any(is_word) {
        return fail.parse_next(input);
    }
    Ok(Condition::Property(name.to_owned()))
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '-')
}

fn name_character(input: &mut &str) -> Result<char> {
    one_of(is_name_character).parse_next(input)
}

fn name<'a>(input: &mut &'a str) -> Result<&'a str> {
    take_while(1.., is_name_character).parse_next(input)
}

/// A word that is not the beginning of a longer one, with the white space around it.
fn keyword<'a>(word: &'static str) -> impl Parser<&'a str, (), winnow::error::ContextError> {
    padded((Caseless(word), not(name_character)).void())
}

fn padded<'a, O>(
    inner: impl Parser<&'a str, O, winnow::error::ContextError>,
) -> impl Parser<&'a str, O, winnow::error::ContextError> {
    delimited(alt((multispace0.void(), empty)), inner, multispace0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(name: &str) -> Box<Condition> {
        Box::new(Condition::Property(name.to_owned()))
    }

    #[test]
    fn precedence_is_not_and_or() {
        let parsed = Condition::parse("NOT a AND b or c");
        let not_a = Box::new(Condition::Not(property("a")));
        let expected = Condition::Or(Box::new(Condition::And(not_a, property("b"))), property("c"));
        assert_eq!(parsed, Some(expected));
    }

    #[test]
    fn a_negation_takes_the_whole_comparison() {
        let equal = Condition::Compare(property("a"), Comparison::Equal, Box::new(Condition::Number(1.0)));
        assert_eq!(Condition::parse("not a = 1"), Some(Condition::Not(Box::new(equal))));
    }

    #[test]
    fn words_that_begin_like_keywords_are_names() {
        assert_eq!(Condition::parse("order"), Some(*property("order")));
        assert_eq!(Condition::parse("nothing"), Some(*property("nothing")));
        assert_eq!(Condition::parse("trueish"), Some(*property("trueish")));
        assert_eq!(Condition::parse("$bodyguard"), Some(Condition::System("bodyguard".into())));
    }

    #[test]
    fn what_is_not_of_the_language_is_refused() {
        for text in
            ["(", "a =", "= 1", "a b", "a = 'x", "is_object()", "is_object('x')", "and", "a and", "f(x)", "$body", "$"]
        {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }
}
