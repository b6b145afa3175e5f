//! Files of the project, and tables in them.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::root;

pub(crate) fn path(name: &str) -> PathBuf {
    root().join(name)
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rows of the Markdown table between `<!-- name -->` and `<!-- /name -->`, without its head.
pub(crate) fn table(text: &str, name: &str) -> Vec<Vec<String>> {
    let (_, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap_or_else(|| panic!("no table {name}"));
    let (table, _) = rest.split_once(&format!("<!-- /{name} -->")).expect("its end");
    rows(table)
}

/// The rows of a Markdown table, without its head.
pub(crate) fn rows(table: &str) -> Vec<Vec<String>> {
    let cells = |row: &str| row.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().skip(2).map(cells).collect()
}
