//! From the text to the query.

use serde_json::Value;
use winnow::Result;
use winnow::ascii::{Caseless, dec_uint, multispace0, multispace1};
use winnow::combinator::{alt, delimited, eof, fail, opt, preceded, repeat, separated, separated_pair, terminated};
use winnow::prelude::*;

use super::{Column, Condition, Kind, Operand, Path, Projection, Query, Search, Selection};
use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::lexis::{boolean, comparison_sign, is_bounded, join, keyword, name, negated, number, padded, text};

/// The members of a twin's top levels. Their names are read in any case; tags and properties have theirs exact.
const KNOWN: [&str; 16] = [
    "deviceId",
    "etag",
    "deviceEtag",
    "version",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "modelId",
    "capabilities",
    "tags",
    "properties",
];
/// The members of [`KNOWN`] ones that are the hub's too.
const KNOWN_INNER: [(&str, &[&str]); 2] = [("properties", &["desired", "reported"]), ("capabilities", &["iotEdge"])];
/// Words that are no names.
const RESERVED: [&str; 12] = ["select", "from", "where", "group", "by", "as", "and", "or", "not", "in", "nin", "top"];

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// `ArgumentInvalid`, with what the simulator makes of it. The real hub says `BadRequest` and no more.
    pub(in crate::iot_hub) fn parse(query: &str) -> std::result::Result<Self, HubError> {
        if !is_bounded(query) {
            return Err(refuse("it is too long, or its brackets nest too deep"));
        }
        let (parsed, source) = delimited(multispace0, statement, (multispace0, eof))
            .parse(query)
            .map_err(|error| refuse(&format!("it is not understood from character {} on", error.offset() + 1)))?;
        match source.to_ascii_lowercase().as_str() {
            "devices" => check_groups(parsed),
            "devices.modules" => Err(refuse("the simulator has no modules")),
            "devices.jobs" => Err(refuse("the simulator has no jobs")),
            _ => Err(refuse("FROM names no collection; there is `devices`")),
        }
    }
}

fn refuse(why: &str) -> HubError {
    HubError::new(Code::ArgumentInvalid, format!("BadRequest: the query cannot be answered: {why}"))
}

/// With `COUNT()` every other column is one that is grouped by.
fn check_groups(query: Query) -> std::result::Result<Query, HubError> {
    let columns = match &query.selection {
        Selection::Twins if query.group_by.is_empty() => return Ok(query),
        Selection::Twins => return Err(refuse("GROUP BY needs columns")),
        Selection::Columns(columns) => columns,
    };
    let counts = columns.iter().any(|column| column.what == Projection::Count);
    if !counts && query.group_by.is_empty() {
        return Ok(query);
    }
    let is_grouped = |column: &Column| match &column.what {
        Projection::Count => true,
        Projection::Path(path) => query.group_by.contains(path),
    };
    if columns.iter().all(is_grouped) { Ok(query) } else { Err(refuse("a column beside COUNT() is not in GROUP BY")) }
}

fn statement(input: &mut &str) -> Result<(Query, String)> {
    let top = preceded((Caseless("top"), multispace1), terminated(dec_uint, multispace1));
    let (_, _, top, selection) = (Caseless("select"), multispace1, opt(top), selection).parse_next(input)?;
    let source = (name, opt(('.', name))).take().map(str::to_owned);
    let source = preceded(keyword("from"), source).parse_next(input)?;
    let condition = opt(preceded(keyword("where"), any_of)).parse_next(input)?;
    let groups = separated(1.., path, padded(','));
    let group_by = opt(preceded((keyword("group"), keyword("by")), groups)).parse_next(input)?;
    Ok((Query { top, selection, condition, group_by: group_by.unwrap_or_default() }, source))
}

fn selection(input: &mut &str) -> Result<Selection> {
    let columns = separated(1.., column, padded(',')).map(Selection::Columns);
    alt(('*'.value(Selection::Twins), columns)).parse_next(input)
}

fn column(input: &mut &str) -> Result<Column> {
    let count = (Caseless("count"), multispace0, '(', multispace0, opt('*'), multispace0, ')');
    let what = alt((count.value(Projection::Count), path.map(Projection::Path))).parse_next(input)?;
    let alias = opt(preceded(keyword("as"), name)).parse_next(input)?;
    let name = match (alias, &what) {
        (Some(alias), _) => alias.to_owned(),
        (None, Projection::Path(Path(steps))) => steps.last().cloned().unwrap_or_default(),
        (None, Projection::Count) => "count".to_owned(),
    };
    Ok(Column { what, name })
}

fn any_of(input: &mut &str) -> Result<Condition> {
    separated(1.., all_of, keyword("or")).map(|parts| join(parts, Condition::Or)).parse_next(input)
}

fn all_of(input: &mut &str) -> Result<Condition> {
    separated(1.., negation, keyword("and")).map(|parts| join(parts, Condition::And)).parse_next(input)
}

/// A condition, perhaps with `NOT` before it.
fn negation(input: &mut &str) -> Result<Condition> {
    let is_negated = negated.parse_next(input)?;
    let inner = alt((delimited(padded('('), any_of, padded(')')), check, search, comparison)).parse_next(input)?;
    Ok(if is_negated { Condition::Not(Box::new(inner)) } else { inner })
}

fn comparison(input: &mut &str) -> Result<Condition> {
    let left = operand.parse_next(input)?;
    let list = || delimited(padded('['), separated(0.., literal, padded(',')), (multispace0, ']'));
    alt((
        preceded(keyword("in"), list()).map(|list| Condition::In(left.clone(), list)),
        preceded(keyword("nin"), list()).map(|list| Condition::NotIn(left.clone(), list)),
        (padded(comparison_sign), operand).map(|(sign, right)| Condition::Compare(left.clone(), sign, right)),
        "".map(|_| Condition::Value(left.clone())),
    ))
    .parse_next(input)
}

fn check(input: &mut &str) -> Result<Condition> {
    let kind = alt((
        Caseless("is_defined").value(Kind::Defined),
        Caseless("is_null").value(Kind::Null),
        Caseless("is_bool").value(Kind::Bool),
        Caseless("is_number").value(Kind::Number),
        Caseless("is_string").value(Kind::Text),
        Caseless("is_object").value(Kind::Object),
    ));
    let argument = delimited((multispace0, '(', multispace0), operand, (multispace0, ')'));
    (kind, argument).map(|(kind, argument)| Condition::Is(kind, argument)).parse_next(input)
}

fn search(input: &mut &str) -> Result<Condition> {
    let search = alt((
        alt((Caseless("startswith"), Caseless("starts_with"))).value(Search::Start),
        alt((Caseless("endswith"), Caseless("ends_with"))).value(Search::End),
        Caseless("contains").value(Search::Anywhere),
    ));
    let arguments = separated_pair(operand, padded(','), operand);
    let arguments = delimited((multispace0, '(', multispace0), arguments, (multispace0, ')'));
    (search, arguments).map(|(search, (whole, part))| Condition::Find(search, whole, part)).parse_next(input)
}

fn operand(input: &mut &str) -> Result<Operand> {
    alt((literal.map(Operand::Literal), path.map(Operand::Path))).parse_next(input)
}

fn literal(input: &mut &str) -> Result<Value> {
    alt((text.map(Value::from), number.map(Value::from), boolean.map(Value::from), keyword("null").value(Value::Null)))
        .parse_next(input)
}

fn path(input: &mut &str) -> Result<Path> {
    let first = name.parse_next(input)?;
    if RESERVED.iter().any(|word| word.eq_ignore_ascii_case(first)) {
        return fail.parse_next(input);
    }
    let quoted = delimited((opt('.'), '['), text, ']');
    let plain = preceded('.', name).map(str::to_owned);
    let rest: Vec<String> = repeat(0.., alt((quoted, plain))).parse_next(input)?;
    let mut steps = vec![canonical(first, &KNOWN)];
    steps.extend(rest);
    let inner = KNOWN_INNER.iter().find(|(outer, _)| *outer == steps[0]);
    if let (Some((_, names)), Some(second)) = (inner, steps.get_mut(1)) {
        *second = canonical(second, names);
    }
    Ok(Path(steps))
}

/// The name as twins have it, if it is one of these in any case.
fn canonical(name: &str, known: &[&str]) -> String {
    let known = known.iter().find(|known| known.eq_ignore_ascii_case(name));
    known.map_or(name, |known| known).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(steps: &[&str]) -> Path {
        Path(steps.iter().map(|step| (*step).to_owned()).collect())
    }

    #[test]
    fn a_whole_statement_is_read() {
        let query = "select top 5 DEVICEID, Properties.Reported.Level as level FROM devices WHERE tags.Site = 'barn'";
        let query = Query::parse(query).expect("it is a query");
        let columns = vec![
            Column { what: Projection::Path(path(&["deviceId"])), name: "deviceId".to_owned() },
            Column { what: Projection::Path(path(&["properties", "reported", "Level"])), name: "level".to_owned() },
        ];
        assert_eq!((query.top, query.selection), (Some(5), Selection::Columns(columns)));
        let site = Operand::Path(path(&["tags", "Site"]));
        let barn = Operand::Literal("barn".into());
        let equal = crate::iot_hub::lexis::Comparison::Equal;
        assert_eq!(query.condition, Some(Condition::Compare(site, equal, barn)));
    }

    #[test]
    fn what_is_not_of_the_language_is_refused_with_a_reason() {
        for query in [
            "",
            "SELECT",
            "SELECT * FROM",
            "SELECT * FROM tables",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE tags.a =",
            "SELECT * FROM devices WHERE tags.a = 1 tags.b = 2",
            "SELECT * FROM devices WHERE tags.a IN 'x'",
            "SELECT * FROM devices ORDER BY deviceId",
            "SELECT * FROM devices GROUP BY tags.a",
            "SELECT deviceId, COUNT() AS n FROM devices",
            "SELECT tags.a, COUNT() AS n FROM devices GROUP BY tags.b",
            "SELECT AVG(properties.reported.x) FROM devices",
            "SELECT * FROM devices.modules",
            "SELECT * FROM devices.jobs",
            "DELETE FROM devices",
        ] {
            let error = Query::parse(query).expect_err(query);
            assert_eq!(error.code, Code::ArgumentInvalid, "{query}");
            assert!(error.message.starts_with("BadRequest: "), "{query}: {}", error.message);
        }
    }

    #[test]
    fn endless_texts_end_in_an_error() {
        let deep = "(".repeat(100_000);
        let nots = "NOT ".repeat(4_000);
        let ors = format!("SELECT * FROM devices WHERE {}a", "a OR ".repeat(3_000));
        assert!(Query::parse(&format!("SELECT * FROM devices WHERE {deep}")).is_err());
        assert!(Query::parse(&format!("SELECT * FROM devices WHERE {nots}a")).is_ok_and(|query| query.top.is_none()));
        assert!(Query::parse(&ors).is_ok());
    }
}
