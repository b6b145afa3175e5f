//! Queries for device twins: `SELECT … FROM devices WHERE …`
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-query-language.md`).
//!
//! | module | idea |
//! |---|---|
//! | `parse` | from the text to the query |
//! | `evaluate` | whether a twin matches, and what it shows |
//! | `page` | pages, groups, and the token with which a caller goes on |
//!
//! The real hub answers from an index that lags: a new device is there after a second or so, and a deleted one may be
//! listed for minutes (`mwalser/terraform-provider-iothub CONCEPT.md`). The simulator answers from the registry itself.
//! Aggregates other than `COUNT()`, arithmetic, modules and jobs are not there.

mod evaluate;
mod page;
mod parse;

use serde_json::Value;

use super::lexis::Comparison;

pub(super) use page::{PageRequest, run};

/// A place in a twin: one key after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path(Vec<String>);

/// A query, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Query {
    top: Option<usize>,
    selection: Selection,
    condition: Option<Condition>,
    group_by: Vec<Path>,
}

#[derive(Clone, Debug, PartialEq)]
enum Selection {
    /// `*`
    Twins,
    Columns(Vec<Column>),
}

/// One member of a row.
#[derive(Clone, Debug, PartialEq)]
struct Column {
    what: Projection,
    /// Its name in the row.
    name: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Projection {
    Path(Path),
    Count,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Or(Vec<Condition>),
    And(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Comparison, Operand),
    /// `IN […]`
    In(Operand, Vec<Value>),
    /// `NIN […]`
    NotIn(Operand, Vec<Value>),
    Is(Kind, Operand),
    /// `STARTSWITH(…)` and the like.
    Find(Search, Operand, Operand),
    /// A value that is true or false itself.
    Value(Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Literal(Value),
    Path(Path),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Defined,
    Null,
    Bool,
    Number,
    Text,
    Object,
}

/// Where in a text another one is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    Start,
    End,
    Anywhere,
}
