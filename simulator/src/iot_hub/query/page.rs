//! Pages of an answer.
//!
//! Groups are not paged: they come as one page, whatever number of rows was asked for, and there is a bound on how many there are.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Column, Projection, Query, Selection};
use crate::iot_hub::error::{Code, HubError};

/// Rows of a page if the caller does not say.
const DEFAULT_ROWS: usize = 100;
/// Most rows of a page. More are asked for in vain.
const MAX_ROWS: usize = 1000;
/// Twins read at a time, so that a long query does not keep the hub from its devices.
const TWINS_AT_A_TIME: usize = 100;
/// Most groups of an answer.
const MAX_GROUPS: usize = 10_000;

/// What the rows are, as the header `x-ms-item-type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::iot_hub) enum ItemType {
    /// Whole twins.
    Twin,
    /// Something made of them.
    Raw,
}

impl ItemType {
    pub(in crate::iot_hub) fn name(self) -> &'static str {
        match self {
            Self::Twin => "Twin",
            Self::Raw => "Raw",
        }
    }
}

/// What a caller asks for beside the query.
#[derive(Clone, Debug, Default)]
pub(in crate::iot_hub) struct PageRequest {
    /// How many rows, of the header `x-ms-max-item-count`.
    pub(in crate::iot_hub) rows: Option<usize>,
    /// Where to go on, of the header `x-ms-continuation`.
    pub(in crate::iot_hub) continuation: Option<String>,
}

/// A page of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::iot_hub) struct Page {
    pub(in crate::iot_hub) item_type: ItemType,
    pub(in crate::iot_hub) rows: Vec<Value>,
    /// What gets the next page; `None` on the last one.
    pub(in crate::iot_hub) continuation: Option<String>,
}

/// Where a page ended. The caller keeps it; the hub does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The last device that was looked at.
    after: String,
    /// Rows that went before.
    rows: usize,
}

impl Position {
    fn encode(&self) -> String {
        BASE64_STANDARD.encode(serde_json::json!(self).to_string())
    }

    fn decode(token: &str) -> Result<Self, HubError> {
        let json = BASE64_STANDARD.decode(token).ok();
        let position = json.and_then(|json| serde_json::from_slice(&json).ok());
        position.ok_or_else(|| HubError::new(Code::ArgumentInvalid, "the continuation token is none of this hub's"))
    }
}

/// Answers a query. `twins_after` reads at most so many twins behind an id, in the order of ids.
///
/// # Errors
/// `ArgumentInvalid` if the continuation token is not of this hub, or there are too many groups.
pub(in crate::iot_hub) fn run(
    query: &Query,
    request: &PageRequest,
    twins_after: impl Fn(Option<&str>, usize) -> Vec<Value>,
) -> Result<Page, HubError> {
    match &query.selection {
        Selection::Columns(columns) if query.is_grouped() => grouped(query, columns, twins_after),
        _ => page(query, request, twins_after),
    }
}

fn id(twin: &Value) -> String {
    twin["deviceId"].as_str().unwrap_or_default().to_owned()
}

fn page(
    query: &Query,
    request: &PageRequest,
    twins_after: impl Fn(Option<&str>, usize) -> Vec<Value>,
) -> Result<Page, HubError> {
    let position = request.continuation.as_deref().map(Position::decode).transpose()?;
    let (mut after, before) = position.map_or((None, 0), |position| (Some(position.after), position.rows));
    let wanted = request.rows.unwrap_or(DEFAULT_ROWS).clamp(1, MAX_ROWS);
    let left = query.top.map_or(usize::MAX, |top| top.saturating_sub(before));
    let wanted = wanted.min(left);
    let item_type = if query.selection == Selection::Twins { ItemType::Twin } else { ItemType::Raw };
    let mut rows = Vec::new();
    loop {
        let twins = twins_after(after.as_deref(), TWINS_AT_A_TIME);
        if twins.is_empty() {
            return Ok(Page { item_type, rows, continuation: None });
        }
        for twin in twins {
            if rows.len() == wanted {
                let position = after.map(|after| Position { after, rows: before.saturating_add(wanted) });
                let continuation = position.filter(|_| wanted < left).map(|position| position.encode());
                return Ok(Page { item_type, rows, continuation });
            }
            after = Some(id(&twin));
            if query.matches(&twin) {
                rows.push(query.row(twin));
            }
        }
    }
}

fn grouped(
    query: &Query,
    columns: &[Column],
    twins_after: impl Fn(Option<&str>, usize) -> Vec<Value>,
) -> Result<Page, HubError> {
    // By the text of their values, since these have no order of their own. Of each group its columns are kept, not a twin.
    let mut groups: BTreeMap<String, (Vec<Option<Value>>, u64)> = BTreeMap::new();
    if query.group_by.is_empty() {
        groups.insert(String::new(), (values(columns, &Value::Null), 0));
    }
    let mut after: Option<String> = None;
    loop {
        let twins = twins_after(after.as_deref(), TWINS_AT_A_TIME);
        let Some(last) = twins.last() else { break };
        after = Some(id(last));
        for twin in twins.into_iter().filter(|twin| query.matches(twin)) {
            let values: Vec<_> = query.group_by.iter().map(|path| path.of(&twin)).collect();
            let key = if values.is_empty() { String::new() } else { serde_json::json!(values).to_string() };
            groups.entry(key).or_insert_with(|| (self::values(columns, &twin), 0)).1 += 1;
        }
        if groups.len() > MAX_GROUPS {
            return Err(HubError::new(Code::ArgumentInvalid, "BadRequest: GROUP BY makes too many groups"));
        }
    }
    let row = |(values, count)| row(columns, values, count);
    let rows = groups.into_values().map(row).take(query.top.unwrap_or(usize::MAX)).collect();
    Ok(Page { item_type: ItemType::Raw, rows, continuation: None })
}

impl Query {
    fn is_grouped(&self) -> bool {
        let counts = |columns: &Vec<Column>| columns.iter().any(|column| column.what == Projection::Count);
        !self.group_by.is_empty() || matches!(&self.selection, Selection::Columns(columns) if counts(columns))
    }

    fn row(&self, twin: Value) -> Value {
        match &self.selection {
            Selection::Twins => twin,
            Selection::Columns(columns) => row(columns, values(columns, &twin), 1),
        }
    }
}

/// What a twin has for each column that is no count.
fn values(columns: &[Column], twin: &Value) -> Vec<Option<Value>> {
    let value = |column: &Column| match &column.what {
        Projection::Count => None,
        Projection::Path(path) => path.of(twin).cloned(),
    };
    columns.iter().map(value).collect()
}

/// What is undefined is left out.
fn row(columns: &[Column], values: Vec<Option<Value>>, count: u64) -> Value {
    let mut row = Map::new();
    for (column, value) in columns.iter().zip(values) {
        let value = if column.what == Projection::Count { Some(count.into()) } else { value };
        row.extend(value.map(|value| (column.name.clone(), value)));
    }
    row.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SITES: [&str; 2] = ["barn", "shed"];

    /// 250 devices; every second one is in the barn.
    fn twins_after(id: Option<&str>, count: usize) -> Vec<Value> {
        let twin = |n: usize| json!({"deviceId": format!("d{n:03}"), "tags": {"site": SITES[n % 2]}});
        let twins = (0..250).map(twin);
        twins.filter(|twin| id.is_none_or(|id| twin["deviceId"].as_str() > Some(id))).take(count).collect()
    }

    fn pages(query: &str, rows: Option<usize>) -> Vec<usize> {
        let query = Query::parse(query).expect("it is a query");
        let mut request = PageRequest { rows, continuation: None };
        let mut lengths = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let page = run(&query, &request, twins_after).expect("the token is good");
            lengths.push(page.rows.len());
            seen.extend(page.rows.iter().map(Value::to_string));
            request.continuation = page.continuation;
            if request.continuation.is_none() {
                assert_eq!(seen.len(), lengths.iter().sum::<usize>(), "no row twice");
                return lengths;
            }
        }
    }

    #[test]
    fn pages_follow_each_other_until_all_is_told() {
        assert_eq!(pages("SELECT * FROM devices", None), [100, 100, 50]);
        assert_eq!(pages("SELECT * FROM devices", Some(250)), [250]);
        assert_eq!(pages("SELECT * FROM devices", Some(125)), [125, 125]);
        assert_eq!(pages("SELECT * FROM devices WHERE tags.site = 'barn'", Some(60)), [60, 60, 5]);
        assert_eq!(pages("SELECT * FROM devices WHERE tags.site = 'loft'", Some(1)), [0]);
        assert_eq!(pages("SELECT TOP 150 deviceId FROM devices", None), [100, 50]);
        assert_eq!(pages("SELECT TOP 100 * FROM devices", None), [100]);
        assert_eq!(pages("SELECT TOP 0 * FROM devices", None), [0]);
    }

    fn answer(query: &str) -> Vec<Value> {
        let query = Query::parse(query).expect("it is a query");
        run(&query, &PageRequest::default(), twins_after).expect("it has an answer").rows
    }

    #[test]
    fn devices_are_counted_whole_and_by_group() {
        assert_eq!(answer("SELECT COUNT() AS n FROM devices"), [json!({"n": 250})]);
        assert_eq!(answer("SELECT COUNT() AS n FROM devices WHERE tags.site = 'loft'"), [json!({"n": 0})]);
        assert_eq!(
            answer("SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site"),
            [json!({"site": "barn", "n": 125}), json!({"site": "shed", "n": 125})]
        );
        assert_eq!(answer("SELECT tags.gone, COUNT(*) FROM devices GROUP BY tags.gone"), [json!({"count": 250})]);
    }

    #[test]
    fn a_token_of_someone_else_is_refused() {
        let query = Query::parse("SELECT * FROM devices").expect("it is a query");
        for token in ["x", "", "e30="] {
            let request = PageRequest { rows: None, continuation: Some(token.to_owned()) };
            let refused = run(&query, &request, twins_after).map_err(|error| error.code);
            assert_eq!(refused, Err(Code::ArgumentInvalid), "{token}");
        }
        // Of the right form, with a number that nobody can have got: no more rows than all are told, and nothing panics.
        let forged = Position { after: "d000".to_owned(), rows: usize::MAX }.encode();
        let request = PageRequest { rows: None, continuation: Some(forged) };
        let page = run(&query, &request, twins_after).expect("a position");
        assert_eq!((page.rows.len(), page.continuation.is_some()), (100, true));
    }
}
