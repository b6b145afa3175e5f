//! Reads what a query reads of the records, by a convention so strict that nothing escapes:
//!
//! - `AppTraces` stands at the beginning of a statement, once. Then a `where` of `TimeGenerated` or of `ingestion_time()` may follow, and then
//! - either, for records, `| extend record = parse_json(Message) | where record.message == "…"`; after that a field is read
//!   only as `tostring(record.field)`, `tolong(record.field)` or `tobool(record.field)`, and a column that is nothing but a field has its name;
//! - or, for plain text of stderr, `| where Message has "…"`, and nothing of records.
//! - Texts stand in double quotes.

use std::collections::BTreeSet;

/// A piece of a query. Comments and white space are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, a keyword, or a number with its unit.
    Word(String),
    /// A text.
    Text(String),
    Sign(char),
}

use Token::{Sign, Text, Word};

/// What a query takes from `AppTraces`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) fields: BTreeSet<Field>,
    /// Texts that fields are compared with.
    pub(super) values: BTreeSet<(Field, String)>,
    /// Messages of records.
    pub(super) messages: BTreeSet<String>,
    /// Texts looked for in what is no record.
    pub(super) plain: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Field {
    pub(super) message: String,
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What a field is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Text,
    Number,
    Truth,
}

pub(super) fn tokens(query: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '/' if rest.peek() == Some(&'/') => while rest.next_if(|&next| next != '\n').is_some() {},
            '\'' | '@' => return Err(format!("a text that begins with {next}: use double quotes")),
            '"' => {
                let mut text = String::new();
                loop {
                    match rest.next().ok_or("a text without an end")? {
                        '"' => break,
                        '\\' => text.extend(rest.next()),
                        other => text.push(other),
                    }
                }
                tokens.push(Text(text));
            }
            next if next.is_whitespace() => {}
            next if is_of_word(next) => {
                let mut word = String::from(next);
                while let Some(next) = rest.next_if(|&next| is_of_word(next)) {
                    word.push(next);
                }
                tokens.push(Word(word));
            }
            next => tokens.push(Sign(next)),
        }
    }
    Ok(tokens)
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// What a query reads, or how it breaks the convention.
pub(super) fn read(query: &str) -> Result<Reading, String> {
    let tokens = tokens(query)?;
    let mut reading = Reading::default();
    for statement in tokens.split(|token| *token == Sign(';')) {
        match statement.iter().position(|token| is_word(token, "AppTraces")) {
            Some(0) => read_traces(statement, &mut reading)?,
            Some(3) if is_word(&statement[0], "let") && statement[2] == Sign('=') => {
                read_traces(&statement[3..], &mut reading)?;
            }
            Some(_) => return Err("AppTraces does not begin its statement".to_owned()),
            None => forbid(statement, &["record", "parse_json", "Message"])?,
        }
    }
    Ok(reading)
}

fn read_traces(statement: &[Token], reading: &mut Reading) -> Result<(), String> {
    forbid(&statement[1..], &["AppTraces"])?;
    let mut parts = statement.split(|token| *token == Sign('|')).skip(1).peekable();
    let is_time = |part: &&[Token]| {
        let times = ["TimeGenerated", "ingestion_time"];
        part.len() > 1 && is_word(&part[0], "where") && times.iter().any(|time| is_word(&part[1], time))
    };
    parts.next_if(is_time);
    let first = parts.next().unwrap_or_default();
    if first == tokens("extend record = parse_json(Message)")? {
        let message = match parts.next() {
            Some([w, r, Sign('.'), m, Sign('='), Sign('='), Text(message)])
                if is_word(w, "where") && is_word(r, "record") && is_word(m, "message") =>
            {
                message
            }
            other => return Err(format!("not followed by `where record.message == \"…\"`: {other:?}")),
        };
        reading.messages.insert(message.clone());
        let rest = &statement[statement.len() - parts.map(|part| part.len() + 1).sum::<usize>()..];
        read_fields(message, rest, reading)
    } else if let [w, m, has, Text(text)] = first
        && is_word(w, "where")
        && is_word(m, "Message")
        && is_word(has, "has")
    {
        reading.plain.insert(text.clone());
        forbid(statement, &["record", "parse_json"])
    } else {
        Err(format!("AppTraces is followed neither by records nor by plain text: {first:?}"))
    }
}

fn read_fields(message: &str, rest: &[Token], reading: &mut Reading) -> Result<(), String> {
    forbid(rest, &["parse_json", "Message", "Properties"])?;
    for at in (0..rest.len()).filter(|&at| is_word(&rest[at], "record")) {
        let around = at.checked_sub(2).and_then(|from| rest.get(from..at + 4));
        let Some([Word(function), Sign('('), _, Sign('.'), Word(name), Sign(')')]) = around else {
            return Err(format!("record is read other than by tostring, tolong or tobool(record.field): {around:?}"));
        };
        let kind = match function.as_str() {
            "tostring" => Kind::Text,
            "tolong" => Kind::Number,
            "tobool" => Kind::Truth,
            other => return Err(format!("record.{name} is read by {other}()")),
        };
        let field = Field { message: message.to_owned(), name: name.clone(), kind };
        if let Some([Word(column), Sign('=')]) = at.checked_sub(4).and_then(|from| rest.get(from..at - 2)) {
            let ends = matches!(rest.get(at + 4), None | Some(Sign(',' | '|')))
                || rest.get(at + 4).is_some_and(|next| is_word(next, "by"));
            if ends && column != name {
                return Err(format!("record.{name} becomes the column {column}: give it the field's name"));
            }
        }
        for value in compared(name, rest) {
            reading.values.insert((field.clone(), value));
        }
        reading.fields.insert(field);
    }
    Ok(())
}

/// The texts that the column is compared with: `column == "…"`, `column != "…"`, `column in ("…", "…")`.
fn compared(column: &str, tokens: &[Token]) -> Vec<String> {
    let mut values = Vec::new();
    for at in (0..tokens.len()).filter(|&at| is_word(&tokens[at], column)) {
        match &tokens[at + 1..] {
            [Sign('=' | '!'), Sign('='), Text(value), ..] => values.push(value.clone()),
            [word, Sign('('), list @ ..] if is_word(word, "in") => {
                let list = list.iter().take_while(|token| **token != Sign(')'));
                values
                    .extend(list.filter_map(|token| if let Text(value) = token { Some(value.clone()) } else { None }));
            }
            _ => {}
        }
    }
    values
}

fn forbid(tokens: &[Token], words: &[&str]) -> Result<(), String> {
    match words.iter().find(|word| tokens.iter().any(|token| is_word(token, word))) {
        Some(word) => Err(format!("{word} stands where it may not")),
        None => Ok(()),
    }
}

pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Word(found) if found == word)
}

#[test]
fn a_query_by_the_convention_is_read_whole() {
    let query = r#"
        // tostring(record.comment) is no field.
        let few = 3d;
        let letters = AppTraces
        | where TimeGenerated between (ago(few) .. ago(1d))
        | extend record = parse_json(Message)
        | where record.message == "dead letter"
        | extend function = tostring(record.function), age = 1 + tolong(record.age_s), whole = tobool(record.whole)
        | where function in ("A", "B;|") or function != "C"
        | project function;
        AppTraces
        | where Message has "is wrong"
        | summarize count() by Message"#;
    let field = |name: &str, kind| Field { message: "dead letter".to_owned(), name: name.to_owned(), kind };
    let reading = read(query).expect("it keeps to the convention");
    assert_eq!(reading.messages, BTreeSet::from(["dead letter".to_owned()]));
    assert_eq!(reading.plain, BTreeSet::from(["is wrong".to_owned()]));
    assert_eq!(
        reading.fields,
        BTreeSet::from([field("function", Kind::Text), field("age_s", Kind::Number), field("whole", Kind::Truth)])
    );
    let values = ["A", "B;|", "C"].map(|value| (field("function", Kind::Text), value.to_owned()));
    assert_eq!(reading.values, BTreeSet::from(values));
}

#[test]
fn a_query_that_could_hide_a_field_is_refused() {
    let records = r#"AppTraces | extend record = parse_json(Message) | where record.message == "webhook" "#;
    let broken = [
        "AppTraces | extend r = parse_json(Message)".to_owned(),
        "AppTraces | project Message".to_owned(),
        "union AppTraces | count".to_owned(),
        "AppTraces | extend record = parse_json(Message) | where record.level == \"INFO\"".to_owned(),
        "AppTraces | extend record = parse_json(Message) | where record.message has \"web\"".to_owned(),
        "AppTraces | where Message has \"x\" | extend record = parse_json(Message)".to_owned(),
        "let f = (Message: string) { parse_json(Message) }; AppTraces | where Message has \"x\"".to_owned(),
        format!("{records} | project record"),
        format!("{records} | extend other = record"),
        format!("{records} | where record.outcome == \"parked\""),
        format!("{records} | project todouble(record.ms)"),
        format!("{records} | project tostring(record[\"ms\"])"),
        format!("{records} | project tostring(record.a.b)"),
        format!("{records} | project status = tolong(record.ms)"),
        format!("{records} | project tostring(parse_json(Message).ms)"),
        format!("{records} | join (AppTraces) on OperationId"),
        format!("{records} | where device == 'x'"),
    ];
    for query in broken {
        assert!(read(&query).is_err(), "{query}: {:?}", read(&query));
    }
}
