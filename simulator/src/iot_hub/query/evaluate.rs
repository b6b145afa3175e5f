//! Whether a twin matches a condition, and what a row shows of it.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Condition, Kind, Operand, Path, Query, Search};
use crate::iot_hub::lexis::{Comparison, all, any, text_order};

impl Path {
    /// What is there in a twin.
    pub(super) fn of<'a>(&self, twin: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(twin, |place, key| place.get(key))
    }
}

impl Query {
    /// Whether the twin is among those asked for. What is undefined is not true.
    pub(super) fn matches(&self, twin: &Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| truth(condition, twin) == Some(true))
    }
}

fn truth(condition: &Condition, twin: &Value) -> Option<bool> {
    match condition {
        Condition::Or(parts) => any(parts.iter().map(|part| truth(part, twin))),
        Condition::And(parts) => all(parts.iter().map(|part| truth(part, twin))),
        Condition::Not(inner) => truth(inner, twin).map(|truth| !truth),
        Condition::Compare(left, sign, right) => compare(value(left, twin)?, *sign, value(right, twin)?),
        Condition::In(operand, list) => value(operand, twin).map(|value| list.iter().any(|one| same(one, value))),
        Condition::NotIn(operand, list) => value(operand, twin).map(|value| !list.iter().any(|one| same(one, value))),
        Condition::Is(kind, operand) => Some(is(*kind, value(operand, twin))),
        Condition::Find(search, whole, part) => {
            Some(find(*search, value(whole, twin)?.as_str()?, value(part, twin)?.as_str()?))
        }
        Condition::Value(operand) => value(operand, twin)?.as_bool(),
    }
}

fn value<'a>(operand: &'a Operand, twin: &'a Value) -> Option<&'a Value> {
    match operand {
        Operand::Literal(literal) => Some(literal),
        Operand::Path(path) => path.of(twin),
    }
}

fn is(kind: Kind, value: Option<&Value>) -> bool {
    value.is_some_and(|value| match kind {
        Kind::Defined => true,
        Kind::Null => value.is_null(),
        Kind::Bool => value.is_boolean(),
        Kind::Number => value.is_number(),
        Kind::Text => value.is_string(),
        Kind::Object => value.is_object(),
    })
}

fn find(search: Search, whole: &str, part: &str) -> bool {
    match search {
        Search::Start => whole.starts_with(part),
        Search::End => whole.ends_with(part),
        Search::Anywhere => whole.contains(part),
    }
}

/// Equal as values: 1 is 1.0.
fn same(left: &Value, right: &Value) -> bool {
    compare(left, Comparison::Equal, right) == Some(true)
}

/// Undefined unless both sides are of one kind. Objects and arrays are equal or not, and have no order.
fn compare(left: &Value, sign: Comparison, right: &Value) -> Option<bool> {
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => text_order(left, right),
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?)?,
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) => {
            return match sign {
                Comparison::Equal => Some(left == right),
                Comparison::Unequal => Some(left != right),
                _ => None,
            };
        }
        _ => return None,
    };
    Some(sign.holds(order))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn twin() -> Value {
        json!({
            "deviceId": "d1", "status": "enabled", "connectionState": "Disconnected", "version": 5,
            "lastActivityTime": "2026-03-01T09:00:00.5Z", "capabilities": {"iotEdge": false},
            "tags": {"site": "barn", "Floor": 2, "none": null, "a b": 1},
            "properties": {
                "desired": {"on": true, "$version": 3},
                "reported": {"level": 7.0, "list": [1, 2], "deep": {"er": "x"}, "$metadata": {"$lastUpdated": "2026-01-01T00:00:00Z"}},
            },
        })
    }

    fn matches(condition: &str) -> bool {
        let query = Query::parse(&format!("SELECT * FROM devices WHERE {condition}")).expect(condition);
        query.matches(&twin())
    }

    #[test]
    fn conditions_that_match() {
        for condition in [
            "deviceId = 'd1'",
            "DEVICEID='d1'",
            "status = \"enabled\" and connectionState != 'Connected'",
            "version >= 5 AND version < 5.5",
            "lastActivityTime > '2026-03-01T09:00:00Z'",
            "capabilities.iotEdge = false",
            "CAPABILITIES.IOTEDGE = FALSE",
            "NOT capabilities.iotEdge",
            "tags.site IN ['shed', 'barn']",
            "tags.Floor IN [1, 2]",
            "tags.site NIN ['shed']",
            "tags.none = null",
            "is_null(tags.none)",
            "tags['a b'] = 1",
            "tags.['a b'] = 1",
            "properties.desired.on",
            "properties.desired.on = true",
            "Properties.Desired.$version = 3",
            "properties.reported.$metadata.$lastUpdated < '2026-02-01T00:00:00Z'",
            "properties.reported.level = 7",
            "is_defined(properties.reported.deep)",
            "is_object(properties.reported.deep) AND is_number(tags.Floor) AND is_bool(properties.desired.on)",
            "is_string( tags.site )",
            "startswith(deviceId, 'd') AND starts_with(tags.site, 'ba') AND endswith(tags.site, 'rn')",
            "contains(tags.site, 'ar')",
            "NOT is_defined(tags.gone)",
            "(tags.site = 'shed' OR tags.site = 'barn') AND (version = 5)",
            "tags.gone = 1 OR version = 5",
            "NOT NOT version = 5",
        ] {
            assert!(matches(condition), "{condition}");
        }
    }

    #[test]
    fn conditions_that_do_not_match() {
        for condition in [
            "deviceId = 'D1'",
            "tags.Site = 'barn'",
            "tags.gone = 1",
            "tags.gone != 1",
            "NOT tags.gone = 1",
            "tags.gone NIN ['x']",
            "tags.gone IN ['x']",
            "tags.site = 1",
            "tags.site != 1",
            "properties.reported.deep > 1",
            "properties.Reported.level = 7 AND false",
            "is_defined(tags.gone)",
            "contains(tags.Floor, '2')",
            "tags.site",
            "NOT version = 5",
        ] {
            assert!(!matches(condition), "{condition}");
        }
    }
}
