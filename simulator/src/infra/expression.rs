//! Expressions as Azure Resource Manager's template language writes them, as far as `bicep snapshot` leaves any in its output
//! (<https://learn.microsoft.com/azure/azure-resource-manager/templates/template-expressions>).

use winnow::Result;
use winnow::ascii::{digit1, multispace0};
use winnow::combinator::{alt, delimited, fail, preceded, repeat, separated};
use winnow::prelude::*;
use winnow::token::{take_till, take_while};

/// The longest expression (<https://learn.microsoft.com/azure/azure-resource-manager/templates/best-practices#template-limits>).
const MAX_BYTES: usize = 24_576;
/// How deep brackets may be nested: far beyond any real template, and no strain on the stack.
const MAX_DEPTH: usize = 32;
/// The longest chain of members, as in `reference(…).a.b`: each is a level of the expression too.
const MAX_MEMBERS: usize = 8;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Text(String),
    Integer(i64),
    /// A function and its arguments.
    Call(String, Vec<Expression>),
    /// A member of an object.
    Member(Box<Expression>, String),
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no expression that the simulator can read")]
pub struct Unreadable(String);

impl Expression {
    /// Reads a value of a template: `[…]` is an expression, `[[…` a text that begins with a bracket, all else a text.
    pub(super) fn read(value: &str) -> Result<Self, Unreadable> {
        if let Some(rest) = value.strip_prefix("[[") {
            return Ok(Self::Text(format!("[{rest}")));
        }
        let Some(inner) = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            return Ok(Self::Text(value.to_owned()));
        };
        let unreadable = || Unreadable(value.chars().take(200).collect());
        if inner.len() > MAX_BYTES || depth(inner) > MAX_DEPTH {
            return Err(unreadable());
        }
        padded_expression.parse(inner).map_err(|_| unreadable())
    }
}

/// The deepest nesting of brackets outside of texts. (Two quotes that stand for one in a text end it and begin it again.)
fn depth(text: &str) -> usize {
    let (mut open, mut deepest, mut quoted) = (0_usize, 0, false);
    for character in text.chars() {
        match character {
            '\'' => quoted = !quoted,
            '(' | '[' if !quoted => open += 1,
            ')' | ']' if !quoted => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

fn padded_expression(input: &mut &str) -> Result<Expression> {
    delimited(multispace0, expression, multispace0).parse_next(input)
}

fn expression(input: &mut &str) -> Result<Expression> {
    let first = alt((text.map(Expression::Text), integer, call, fail)).parse_next(input)?;
    let member = alt((preceded('.', name).map(str::to_owned), delimited('[', text, ']')));
    let members: Vec<String> = repeat(0..=MAX_MEMBERS, member).parse_next(input)?;
    Ok(members.into_iter().fold(first, |object, name| Expression::Member(Box::new(object), name)))
}

/// A text in single quotes; two of them stand for one.
fn text(input: &mut &str) -> Result<String> {
    let parts: Vec<&str> = repeat(1.., delimited('\'', take_till(0.., '\''), '\'')).parse_next(input)?;
    Ok(parts.join("'"))
}

fn integer(input: &mut &str) -> Result<Expression> {
    let digits = (winnow::combinator::opt('-'), digit1).take();
    digits.try_map(|digits: &str| digits.parse().map(Expression::Integer)).parse_next(input)
}

fn name<'a>(input: &mut &'a str) -> Result<&'a str> {
    take_while(1.., |character: char| character.is_ascii_alphanumeric() || character == '_').parse_next(input)
}

fn call(input: &mut &str) -> Result<Expression> {
    let arguments = delimited('(', separated(0.., padded_expression, ','), (multispace0, ')'));
    (name, arguments).map(|(name, arguments)| Expression::Call(name.to_owned(), arguments)).parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Expression {
        Expression::Text(text.to_owned())
    }

    fn call(name: &str, arguments: Vec<Expression>) -> Expression {
        Expression::Call(name.to_owned(), arguments)
    }

    fn member(object: Expression, name: &str) -> Expression {
        Expression::Member(Box::new(object), name.to_owned())
    }

    #[test]
    fn values_are_texts_or_expressions() {
        let reference = || member(call("reference", vec![text("/ids/a"), text("2024-11-30")]), "clientId");
        for (value, expected) in [
            ("plain", text("plain")),
            ("", text("")),
            ("[[literal]", text("[literal]")),
            ("[open", text("[open")),
            ("[parameters('key')]", call("parameters", vec![text("key")])),
            ("[ format( '{0}''s' , 7 ) ]", call("format", vec![text("{0}'s"), Expression::Integer(7)])),
            ("[reference('/ids/a', '2024-11-30').clientId]", reference()),
            ("[tenant()['tenantId']]", member(call("tenant", vec![]), "tenantId")),
            (
                "[format('C={0}', reference('/ids/a', '2024-11-30').clientId)]",
                call("format", vec![text("C={0}"), reference()]),
            ),
            (
                "[reference('s').primaryEndpoints.blob]",
                member(member(call("reference", vec![text("s")]), "primaryEndpoints"), "blob"),
            ),
        ] {
            assert_eq!(Expression::read(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn brackets_in_texts_are_no_nesting() {
        let value = format!("['{}']", "(".repeat(100));
        assert_eq!(Expression::read(&value), Ok(text(&"(".repeat(100))));
    }

    #[test]
    fn what_cannot_be_read_is_said_and_bounded() {
        let deep = format!("[{}'x'{}]", "f(".repeat(100), ")".repeat(100));
        let hidden = format!("[{}'x'{}]", "f(')',".repeat(3000), ")".repeat(3000));
        let escaped = format!("[{}'x'{}]", "f(''')',".repeat(2300), ")".repeat(2300));
        let chain = format!("[f(){}]", ".a".repeat(12_000));
        let indices = format!("[f(){}]", "['a']".repeat(4000));
        let long = format!("['{}']", "x".repeat(MAX_BYTES));
        let bounded = [deep, hidden, escaped, chain, indices, long];
        assert!(
            bounded[..5].iter().all(|value| value.len() < MAX_BYTES),
            "their length alone must not be what is refused"
        );
        let broken = ["[]", "[f(]", "[f('x]", "[f() g()]", "[f(,)]", "[99999999999999999999]"];
        for value in broken.into_iter().chain(bounded.iter().map(String::as_str)) {
            let unreadable = Expression::read(value).expect_err("it is no expression").to_string();
            assert!(unreadable.len() < 300, "{unreadable}");
        }
    }
}
