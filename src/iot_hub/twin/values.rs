//! Values: numbers, strings, nesting and `null`.

use serde_json::{Map, Number, Value};

use super::fit::Notes;
use super::keys::escape;
use super::{INTEGERS, MAX_DEPTH, MAX_STRING_BYTES};

/// Ends a string that was cut. The whole text is in the telemetry message.
pub const CUT_MARK: &str = "... (cut)";

/// Stands for `null` as an element of an array, where IoT Hub refuses it: later elements keep their places.
const NULL_ELEMENT: &str = "null";

/// Where a value stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Objects and arrays around it, the section itself not counted.
    level: usize,
    /// Whether one of them is an array.
    in_array: bool,
}

impl Place {
    /// The section itself.
    pub(super) const SECTION: Self = Self { level: 0, in_array: false };

    fn inside_object(self) -> Self {
        Self { level: self.level + 1, ..self }
    }

    fn inside_array(self) -> Self {
        Self { level: self.level + 1, in_array: true }
    }
}

/// Makes the members of the object at `place` fit, keys and values.
pub(super) fn fit_members(members: Map<String, Value>, place: Place, notes: &mut Notes) -> Map<String, Value> {
    let mut fitted = Map::new();
    for (key, value) in members {
        if value.is_null() && place.in_array {
            notes.add(&key, "was null in an object in an array and is left out");
            continue;
        }
        let escaped = escape(&key);
        if escaped != key {
            notes.add(&key, format_args!("is written as `{}`", super::name(&escaped)));
        }
        fitted.insert(escaped.into_owned(), fit_value(&key, value, place.inside_object(), notes));
    }
    fitted
}

/// Makes a value at `place` fit; `key` is the nearest key above it.
fn fit_value(key: &str, value: Value, place: Place, notes: &mut Notes) -> Value {
    match value {
        Value::Number(number) => Value::Number(fit_number(key, number, notes)),
        Value::String(text) => Value::String(fit_text(key, text, notes)),
        Value::Object(_) | Value::Array(_) if place.level > MAX_DEPTH => {
            notes.add(key, "is nested too deep and is written as JSON text");
            Value::String(fit_text(key, value.to_string(), notes))
        }
        Value::Object(members) => Value::Object(fit_members(members, place, notes)),
        Value::Array(items) => items.into_iter().map(|item| fit_item(key, item, place.inside_array(), notes)).collect(),
        Value::Null | Value::Bool(_) => value,
    }
}

fn fit_item(key: &str, item: Value, place: Place, notes: &mut Notes) -> Value {
    if item.is_null() {
        notes.add(key, "holds null in an array, written as the string `null`");
        return NULL_ELEMENT.into();
    }
    fit_value(key, item, place, notes)
}

/// An integer out of range becomes a float of the same magnitude: The Things Stack passed it through a 64-bit float anyway.
/// What serde_json writes for a float always has a point or an exponent, so it is never read as an integer again.
fn fit_number(key: &str, number: Number, notes: &mut Notes) -> Number {
    if is_storable(&number) {
        return number;
    }
    notes.add(key, "holds an integer beyond 2^52, written as a floating point number");
    number.as_f64().and_then(Number::from_f64).unwrap_or(number)
}

/// Whether a twin stores the number as it is.
pub(super) fn is_storable(number: &Number) -> bool {
    match number.as_i64() {
        Some(integer) => INTEGERS.contains(&integer),
        None => number.is_f64(),
    }
}

fn fit_text(key: &str, mut text: String, notes: &mut Notes) -> String {
    if text.len() > MAX_STRING_BYTES {
        notes.add(key, format_args!("holds a text longer than {MAX_STRING_BYTES} bytes, cut"));
        text.truncate(text.floor_char_boundary(MAX_STRING_BYTES - CUT_MARK.len()));
        text.push_str(CUT_MARK);
    }
    text
}
