//! The functions of route conditions
//! (`Azure/iotedge edge-hub/core/src/Microsoft.Azure.Devices.Routing.Core/query/builtins`;
//! `MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-routing-query-syntax.md`).

use std::ops::RangeInclusive;

use super::evaluate::Operand;

/// A function, and how many arguments it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Abs,
    Exp,
    Power,
    Square,
    Ceiling,
    Floor,
    Sign,
    Sqrt,
    AsNumber,
    Concat,
    Length,
    Lower,
    Upper,
    Substring,
    IndexOf,
    StartsWith,
    EndsWith,
    Contains,
    IsDefined,
    IsNull,
    IsBool,
    IsNumber,
    IsString,
    IsObject,
}

const TABLE: [(&str, Function, RangeInclusive<usize>); 24] = [
    ("abs", Function::Abs, 1..=1),
    ("exp", Function::Exp, 1..=1),
    ("power", Function::Power, 2..=2),
    ("square", Function::Square, 1..=1),
    ("ceiling", Function::Ceiling, 1..=1),
    ("floor", Function::Floor, 1..=1),
    ("sign", Function::Sign, 1..=1),
    ("sqrt", Function::Sqrt, 1..=1),
    ("as_number", Function::AsNumber, 1..=1),
    ("concat", Function::Concat, 1..=usize::MAX),
    ("length", Function::Length, 1..=1),
    ("lower", Function::Lower, 1..=1),
    ("upper", Function::Upper, 1..=1),
    ("substring", Function::Substring, 2..=3),
    ("index_of", Function::IndexOf, 2..=2),
    ("starts_with", Function::StartsWith, 2..=2),
    ("ends_with", Function::EndsWith, 2..=2),
    ("contains", Function::Contains, 2..=2),
    ("is_defined", Function::IsDefined, 1..=1),
    ("is_null", Function::IsNull, 1..=1),
    ("is_bool", Function::IsBool, 1..=1),
    ("is_number", Function::IsNumber, 1..=1),
    ("is_string", Function::IsString, 1..=1),
    ("is_object", Function::IsObject, 1..=1),
];

impl Function {
    /// The function of this name, in any case.
    pub(super) fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|(_, function, _)| *function)
    }

    /// Whether it takes this many arguments.
    pub(super) fn takes(self, count: usize) -> bool {
        TABLE.iter().any(|(_, function, counts)| *function == self && counts.contains(&count))
    }

    /// Whether it asks for the kind of what a name stands for, so that it takes nothing but a name.
    pub(super) fn takes_references_only(self) -> bool {
        use Function::{IsBool, IsDefined, IsNull, IsNumber, IsObject, IsString};
        matches!(self, IsDefined | IsNull | IsBool | IsNumber | IsString | IsObject)
    }

    /// Undefined if an argument is not of the kind that it takes.
    pub(super) fn call(self, arguments: &[Operand]) -> Operand {
        use Function as F;
        match self {
            F::IsDefined | F::IsNull | F::IsBool | F::IsNumber | F::IsString | F::IsObject => {
                Operand::Bool(self.holds_for(arguments.first().unwrap_or(&Operand::Undefined)))
            }
            F::Abs | F::Exp | F::Power | F::Square | F::Ceiling | F::Floor | F::Sign | F::Sqrt => {
                let numbers: Option<Vec<f64>> = arguments.iter().map(Operand::number).collect();
                numbers.and_then(|numbers| self.of_numbers(&numbers)).map_or(Operand::Undefined, Operand::Number)
            }
            F::Substring => substring(arguments).map_or(Operand::Undefined, Operand::Text),
            _ => {
                let texts: Option<Vec<&str>> = arguments.iter().map(Operand::text).collect();
                texts.and_then(|texts| self.of_texts(&texts)).unwrap_or(Operand::Undefined)
            }
        }
    }

    /// Objects are not "defined": live hubs say so (`MicrosoftDocs/azure-docs#51096`).
    fn holds_for(self, value: &Operand) -> bool {
        match self {
            Self::IsDefined => !matches!(value, Operand::Undefined | Operand::Object),
            Self::IsNull => matches!(value, Operand::Null),
            Self::IsBool => matches!(value, Operand::Bool(_)),
            Self::IsNumber => matches!(value, Operand::Number(_)),
            Self::IsString => matches!(value, Operand::Text(_)),
            _ => matches!(value, Operand::Object),
        }
    }

    fn of_numbers(self, numbers: &[f64]) -> Option<f64> {
        let (&first, second) = (numbers.first()?, numbers.get(1));
        Some(match self {
            Self::Abs => first.abs(),
            Self::Exp => first.exp(),
            Self::Power => first.powf(*second?),
            Self::Square => first * first,
            Self::Ceiling => first.ceil(),
            Self::Floor => first.floor(),
            Self::Sign if first == 0.0 => 0.0,
            Self::Sign => first.signum(),
            Self::Sqrt => first.sqrt(),
            _ => return None,
        })
    }

    fn of_texts(self, texts: &[&str]) -> Option<Operand> {
        let (&first, second) = (texts.first()?, texts.get(1).copied());
        Some(match self {
            Self::AsNumber => Operand::Number(first.trim().parse().ok().filter(|number: &f64| number.is_finite())?),
            Self::Concat => Operand::Text(texts.concat()),
            Self::Length => Operand::Number(first.chars().count() as f64),
            Self::Lower => Operand::Text(first.to_lowercase()),
            Self::Upper => Operand::Text(first.to_uppercase()),
            Self::IndexOf => Operand::Number(index_of(first, second?)),
            Self::StartsWith => Operand::Bool(first.starts_with(second?)),
            Self::EndsWith => Operand::Bool(first.ends_with(second?)),
            Self::Contains => Operand::Bool(first.contains(second?)),
            _ => return None,
        })
    }
}

/// The place of the first character, counted from 0; -1 if it is not there.
fn index_of(whole: &str, part: &str) -> f64 {
    whole.find(part).map_or(-1.0, |at| whole[..at].chars().count() as f64)
}

/// A text from a place on, perhaps of some length. Undefined if it would reach beyond the text.
fn substring(arguments: &[Operand]) -> Option<String> {
    let text: Vec<char> = arguments.first()?.text()?.chars().collect();
    let start = index(arguments.get(1)?.number()?)?;
    let end = match arguments.get(2) {
        Some(length) => start.checked_add(index(length.number()?)?)?,
        None => text.len(),
    };
    text.get(start..end).map(|part| part.iter().collect())
}

fn index(number: f64) -> Option<usize> {
    let whole = number >= 0.0 && number.fract() == 0.0 && number <= f64::from(u32::MAX);
    whole.then_some(number as usize)
}
