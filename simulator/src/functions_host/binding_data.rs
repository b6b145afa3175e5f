//! What the host copies out of an event's body into `Metadata`, and how Newtonsoft reads JSON on the way.
//!
//! Sources: `Azure/azure-webjobs-sdk` `BindingDataProvider.cs`, `JamesNK/Newtonsoft.Json` `DateTimeUtils.cs`, and
//! recordings of a running host.

use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

use super::json::Json;
use super::time_span;

/// Members of a body that is a JSON object, as they become members of `Metadata`: texts, numbers and booleans as .NET
/// text, objects as objects, the rest not at all.
pub(super) fn of_body(body: &str) -> Vec<(String, Json)> {
    match serde_json::from_str(body) {
        Ok(Json::Object(members)) => {
            members.into_iter().filter_map(|(name, value)| Some((name, copied(value)?))).collect()
        }
        _ => Vec::new(),
    }
}

/// Adds a member, or replaces the value of one whose name differs in case only.
pub(super) fn put(members: &mut Vec<(String, Json)>, name: &str, value: Json) {
    match members.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        Some((_, old)) => *old = value,
        None => members.push((name.to_owned(), value)),
    }
}

fn copied(value: Json) -> Option<Json> {
    let text = match value {
        Json::Null | Json::Array(_) => return None,
        Json::Object(_) => return Some(with_dates(value)),
        Json::Bool(value) => if value { "True" } else { "False" }.to_owned(),
        Json::Int(value) => value.to_string(),
        Json::Double(value) => double(value),
        Json::Text(text) => date(&text).map_or(text, |date| date.invariant()),
    };
    Some(Json::Text(Json::Text(text).to_text()))
}

/// The same value after Newtonsoft read and wrote it: dates lose the zeros at their end.
pub(super) fn with_dates(value: Json) -> Json {
    match value {
        Json::Text(text) => Json::Text(date(&text).map_or(text, |date| date.iso())),
        Json::Array(items) => Json::Array(items.into_iter().map(with_dates).collect()),
        Json::Object(members) => {
            Json::Object(members.into_iter().map(|(name, value)| (name, with_dates(value))).collect())
        }
        other => other,
    }
}

/// A number as .NET writes it: the shortest text that reads the same, with an exponent from 1E+15 on.
fn double(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-5..1e15).contains(&size) {
        let text = format!("{value:E}");
        return match text.split_once('E') {
            Some((digits, exponent)) => match exponent.strip_prefix('-') {
                Some(exponent) => format!("{digits}E-{exponent:0>2}"),
                None => format!("{digits}E+{exponent:0>2}"),
            },
            None => text,
        };
    }
    value.to_string()
}

/// A text that Newtonsoft takes for a date.
struct ParsedDate {
    at: OffsetDateTime,
    zone: &'static str,
}

impl ParsedDate {
    fn iso(&self) -> String {
        time_span::date(self.at) + self.zone
    }

    fn invariant(&self) -> String {
        let at = self.at;
        let (month, day, year) = (u8::from(at.month()), at.day(), at.year());
        format!("{month:02}/{day:02}/{year:04} {:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
    }
}

/// `yyyy-MM-ddTHH:mm:ss`, up to seven digits of a second, then `Z`, an offset or nothing. With an offset the time
/// becomes local time, which is UTC on Azure.
fn date(text: &str) -> Option<ParsedDate> {
    let (day, clock) = text.split_once('T')?;
    let (clock, offset, zone) = match clock.strip_suffix('Z') {
        Some(clock) => (clock, UtcOffset::UTC, "Z"),
        None => match clock.find(['+', '-']) {
            Some(at) => (&clock[..at], parse_offset(&clock[at..])?, "+00:00"),
            None => (clock, UtcOffset::UTC, ""),
        },
    };
    let [year, month, day] = numbers(day, '-', [4, 2, 2])?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(whole, ':', [2, 2, 2])?;
    if fraction.is_empty() || fraction.len() > 7 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanosecond = format!("{fraction:0<9}").parse().ok()?;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let byte = |number: u32| u8::try_from(number).ok();
    let time = Time::from_hms_nano(byte(hour)?, byte(minute)?, byte(second)?, nanosecond).ok()?;
    // Within an offset of the year 10000 there is no such time: the text stays as it is.
    let at = date.with_time(time).assume_offset(offset).checked_to_offset(UtcOffset::UTC)?;
    Some(ParsedDate { at, zone })
}

fn parse_offset(text: &str) -> Option<UtcOffset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let [hours, minutes] = numbers(text.get(1..)?, ':', [2, 2])?;
    UtcOffset::from_hms(sign * i8::try_from(hours).ok()?, sign * i8::try_from(minutes).ok()?, 0).ok()
}

fn numbers<const N: usize>(text: &str, separator: char, lengths: [usize; N]) -> Option<[u32; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part =
            parts.next().filter(|part| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_copied_as_dot_net_text() {
        for (value, copy) in [
            ("21.50", Some(r#""\"21.5\"""#)),
            ("22.0", Some(r#""\"22\"""#)),
            ("1e3", Some(r#""\"1000\"""#)),
            ("1e15", Some(r#""\"1E+15\"""#)),
            ("1.5e-7", Some(r#""\"1.5E-07\"""#)),
            ("7", Some(r#""\"7\"""#)),
            ("true", Some(r#""\"True\"""#)),
            (r#""north""#, Some(r#""\"north\"""#)),
            (r#""2026-03-01T10:20:30.250Z""#, Some(r#""\"03/01/2026 10:20:30\"""#)),
            (r#""2026-03-01T10:20:30+02:00""#, Some(r#""\"03/01/2026 08:20:30\"""#)),
            (r#""2026-03-01T10:20:30.123456789Z""#, Some(r#""\"2026-03-01T10:20:30.123456789Z\"""#)),
            (r#""2026-13-01T10:20:30Z""#, Some(r#""\"2026-13-01T10:20:30Z\"""#)),
            (r#""9999-12-31T23:59:59-01:00""#, Some(r#""\"9999-12-31T23:59:59-01:00\"""#)),
            (r#""2026-03-01""#, Some(r#""\"2026-03-01\"""#)),
            (r#"{"at":"2026-03-01T10:20:30.250Z","x":1.0}"#, Some(r#"{"at":"2026-03-01T10:20:30.25Z","x":1.0}"#)),
            ("[1]", None),
            ("null", None),
        ] {
            let copied = of_body(&format!("{{\"a\":{value}}}")).pop().map(|(_, copy)| copy.to_text());
            assert_eq!(copied.as_deref(), copy, "{value}");
        }
        assert!(of_body("[1]").is_empty() && of_body("no JSON").is_empty());
    }
}
