//! Merge patches: what IoT Hub makes of one, and the smallest that does a job.

use serde_json::{Map, Value};

/// Merges a patch into a section as IoT Hub does: objects merge, `null` deletes, everything else, arrays too, is replaced.
/// A section or object whose last key goes stays as `{}`; `{"p": {"q": null}}` on an absent `p` makes `"p": {}`.
pub fn merge(into: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (value, into.get_mut(key)) {
            (Value::Null, _) => {
                into.remove(key);
            }
            (Value::Object(patch), Some(Value::Object(old))) => merge(old, patch),
            (Value::Object(patch), _) => {
                into.insert(key.clone(), Value::Object(without_nulls(patch)));
            }
            (value, _) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The smallest patch that does to `from` what the patch `to` would do. Keys that `to` does not name are left alone.
#[must_use]
pub fn diff(from: &Map<String, Value>, to: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, value) in to {
        let change = match (from.get(key), value) {
            (None, Value::Null) => None,
            (Some(Value::Object(old)), Value::Object(new)) => {
                Some(diff(old, new)).filter(|patch| !patch.is_empty()).map(Value::Object)
            }
            (_, Value::Object(new)) => Some(Value::Object(without_nulls(new))),
            (Some(old), new) if old == new => None,
            (_, new) => Some(new.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    patch
}

/// What a patch leaves where nothing was: a `null` has nothing to delete.
fn without_nulls(patch: &Map<String, Value>) -> Map<String, Value> {
    let mut object = Map::new();
    merge(&mut object, patch);
    object
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::any_object;
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(members) => members,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn a_patch_merges_as_the_hub_merges_it() {
        for (section, patch, expected) in [
            (json!({"a": 1}), json!({"b": 2}), json!({"a": 1, "b": 2})),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 3}}), json!({"a": {"b": 3, "c": 2}})),
            (json!({"a": 1}), json!({"a": null}), json!({})),
            (json!({"p": {"q": 1}}), json!({"p": {"q": null}}), json!({"p": {}})),
            (json!({}), json!({"p": {"q": null}}), json!({"p": {}})),
            (json!({}), json!({"p": null}), json!({})),
            (json!({"p": 1}), json!({"p": {"q": {"r": null}}}), json!({"p": {"q": {}}})),
            (json!({"p": {"q": 1}}), json!({"p": 2}), json!({"p": 2})),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (json!({"p": {"q": 1}}), json!({"p": {}}), json!({"p": {"q": 1}})),
        ] {
            let mut merged = object(section.clone());
            merge(&mut merged, &object(patch.clone()));
            assert_eq!(Value::Object(merged), expected, "{section} + {patch}");
        }
    }

    #[test]
    fn only_what_differs_is_in_a_diff() {
        for (from, to, expected) in [
            (json!({"a": 1, "b": 2}), json!({"a": 1}), json!({})),
            (json!({"a": 1}), json!({"a": 2, "c": 3}), json!({"a": 2, "c": 3})),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 1, "c": 3}}), json!({"a": {"c": 3}})),
            (json!({"a": [1, 2]}), json!({"a": [1, 3]}), json!({"a": [1, 3]})),
            (json!({"a": 1}), json!({"a": null, "b": null}), json!({"a": null})),
            (json!({}), json!({"a": {"b": null}}), json!({"a": {}})),
            (json!({"a": {}}), json!({"a": {"b": null}}), json!({})),
            (json!({"a": 1}), json!({"a": 1.0}), json!({"a": 1.0})),
        ] {
            assert_eq!(Value::Object(diff(&object(from.clone()), &object(to.clone()))), expected, "{from} → {to}");
        }
    }

    proptest! {
        #[test]
        fn a_diff_does_what_the_whole_patch_would_do(from in any_object(), to in any_object()) {
            let mut stored = Map::new();
            merge(&mut stored, &from);
            let (mut whole, mut small) = (stored.clone(), stored.clone());
            merge(&mut whole, &to);
            merge(&mut small, &diff(&stored, &to));
            prop_assert_eq!(&small, &whole);
            prop_assert!(diff(&whole, &to).is_empty(), "nothing is left to do");
        }

        #[test]
        fn nothing_differs_from_itself(section in any_object()) {
            let mut stored = Map::new();
            merge(&mut stored, &section);
            prop_assert!(diff(&stored, &stored).is_empty());
        }
    }
}
