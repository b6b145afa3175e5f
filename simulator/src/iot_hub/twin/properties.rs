//! Desired or reported properties: values, their metadata, their version.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

/// Merges a patch into an object: null deletes, objects merge, anything else replaces.
pub(crate) fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(patch) => merge(child_object(target, key), patch),
            _ => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The object at a key, made or put in place of what is no object.
fn child_object<'a>(target: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let child = target.entry(key).or_insert_with(|| json!({}));
    if !child.is_object() {
        *child = json!({});
    }
    child.as_object_mut().expect("it was just made an object")
}

/// A time as twins and their events write it: seven digits of a second, trailing zeros trimmed.
pub(crate) fn timestamp(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let (date, (hour, minute, second)) = (at.date(), at.time().as_hms());
    let fraction = format!(".{:07}", at.nanosecond() / 100);
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// When, and in desired properties by which version, a value was written.
#[derive(Clone, Debug)]
struct Stamp {
    at: String,
    version: Option<u64>,
}

impl Stamp {
    /// Writes the stamp into a metadata object.
    fn mark(&self, metadata: &mut Map<String, Value>) {
        metadata.insert("$lastUpdated".to_owned(), self.at.clone().into());
        if let Some(version) = self.version {
            metadata.insert("$lastUpdatedVersion".to_owned(), version.into());
        }
    }

    /// Follows a patch through the metadata.
    fn follow(&self, metadata: &mut Map<String, Value>, patch: &Map<String, Value>) {
        self.mark(metadata);
        for (key, value) in patch {
            match value {
                Value::Null => {
                    metadata.remove(key);
                }
                Value::Object(patch) => self.follow(child_object(metadata, key), patch),
                _ => {
                    let mut leaf = Map::new();
                    self.mark(&mut leaf);
                    metadata.insert(key.clone(), leaf.into());
                }
            }
        }
    }
}

/// Whether metadata names the version of the last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// As in reported properties.
    Times,
    /// As in desired properties.
    TimesAndVersions,
}

/// One section of properties.
#[derive(Clone, Debug)]
pub(crate) struct Properties {
    kind: Metadata,
    values: Map<String, Value>,
    metadata: Map<String, Value>,
    version: u64,
}

impl Properties {
    pub(crate) fn new(kind: Metadata, at: OffsetDateTime) -> Self {
        let mut properties = Self { kind, values: Map::new(), metadata: Map::new(), version: 1 };
        Stamp { at: timestamp(at), version: None }.mark(&mut properties.metadata);
        properties
    }

    pub(crate) fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Merges a patch that was checked, and returns what changed as events show it: the patch, its metadata, the version.
    pub(crate) fn patch(&mut self, patch: &Map<String, Value>, at: OffsetDateTime) -> Value {
        self.version += 1;
        let stamp = self.stamp(at);
        merge(&mut self.values, patch);
        stamp.follow(&mut self.metadata, patch);

        let mut metadata = Map::new();
        stamp.follow(&mut metadata, patch);
        self.document(patch.clone(), Some(metadata))
    }

    fn stamp(&self, at: OffsetDateTime) -> Stamp {
        let version = (self.kind == Metadata::TimesAndVersions).then_some(self.version);
        Stamp { at: timestamp(at), version }
    }

    /// As a device sees it.
    pub(crate) fn for_device(&self) -> Value {
        self.document(self.values.clone(), None)
    }

    /// As the service sees it.
    pub(crate) fn for_service(&self) -> Value {
        self.document(self.values.clone(), Some(self.metadata.clone()))
    }

    /// A patch as a device is told of it.
    pub(crate) fn notification(&self, patch: Map<String, Value>) -> Value {
        self.document(patch, None)
    }

    fn document(&self, mut values: Map<String, Value>, metadata: Option<Map<String, Value>>) -> Value {
        if let Some(metadata) = metadata {
            values.insert("$metadata".to_owned(), metadata.into());
        }
        values.insert("$version".to_owned(), self.version.into());
        values.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("the test gives an object")
    }

    #[test]
    fn patches_merge() {
        for (before, patch, after) in [
            (json!({}), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": 1}), json!({"a": 1.0}), json!({"a": 1.0})),
            (json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2})),
            (json!({"p": {"q": 1}}), json!({"p": {"q": null}}), json!({"p": {}})),
            (json!({}), json!({"p": {"q": null}}), json!({"p": {}})),
            (json!({"s": 1}), json!({"p": null}), json!({"s": 1})),
            (json!({"p": {"q": 1, "r": 2}}), json!({"p": {"q": {"x": 3}}}), json!({"p": {"q": {"x": 3}, "r": 2}})),
            (json!({"p": [1, 2, 3]}), json!({"p": [4]}), json!({"p": [4]})),
            (json!({"p": [1]}), json!({"p": {"q": 1}}), json!({"p": {"q": 1}})),
            (json!({"p": {"q": 1}}), json!({"p": 5}), json!({"p": 5})),
            (json!({"p": {"q": 1}}), json!({"p": {}}), json!({"p": {"q": 1}})),
        ] {
            let mut target = object(before);
            merge(&mut target, &object(patch.clone()));
            assert_eq!(Value::from(target), after, "{patch}");
        }
    }

    #[test]
    fn times_have_seven_digits_and_no_trailing_zeros() {
        for (at, text) in [
            (datetime!(2026-03-01 08:00:00.123_456_789 UTC), "2026-03-01T08:00:00.1234567Z"),
            (datetime!(2026-03-01 09:00:00.5 UTC), "2026-03-01T09:00:00.5Z"),
            (datetime!(2026-03-01 10:00:00 +1), "2026-03-01T09:00:00Z"),
        ] {
            assert_eq!(timestamp(at), text);
        }
    }

    #[test]
    fn metadata_mirrors_what_was_written_and_when() {
        let mut desired = Properties::new(Metadata::TimesAndVersions, datetime!(2026-03-01 08:00:00 UTC));
        desired.patch(&object(json!({"a": {"b": 1, "c": 2}})), datetime!(2026-03-01 09:00:00 UTC));
        desired.patch(&object(json!({"a": {"b": null, "c": 3}})), datetime!(2026-03-01 10:00:00.25 UTC));
        let stamp = json!({"$lastUpdated": "2026-03-01T10:00:00.25Z", "$lastUpdatedVersion": 3});
        let mut a = stamp.clone();
        a["c"] = stamp.clone();
        let mut metadata = stamp;
        metadata["a"] = a;
        assert_eq!(desired.for_service(), json!({"a": {"c": 3}, "$metadata": metadata, "$version": 3}));
        assert_eq!(desired.for_device(), json!({"a": {"c": 3}, "$version": 3}));
    }

    #[test]
    fn reported_metadata_names_no_version_and_an_event_shows_the_patch_only() {
        let mut reported = Properties::new(Metadata::Times, datetime!(2026-03-01 08:00:00 UTC));
        reported.patch(&object(json!({"old": 1})), datetime!(2026-03-01 09:00:00 UTC));
        let change = reported.patch(&object(json!({"battery": 87, "old": null})), datetime!(2026-03-01 09:01:00 UTC));
        let stamp = json!({"$lastUpdated": "2026-03-01T09:01:00Z"});
        let mut metadata = stamp.clone();
        metadata["battery"] = stamp;
        assert_eq!(change, json!({"battery": 87, "old": null, "$metadata": metadata, "$version": 3}));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i32>().prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            proptest::collection::btree_map("[a-c]", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Map<_, _>>().into())
        })
    }

    fn patch() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::btree_map("[a-c]", value(), 0..4).prop_map(|map| map.into_iter().collect())
    }

    fn has_null(value: &Value) -> bool {
        value.is_null() || value.as_object().is_some_and(|object| object.values().any(has_null))
    }

    /// The keys of the metadata are those of the values, level by level.
    fn mirrors(values: &Map<String, Value>, metadata: &Map<String, Value>) -> bool {
        let empty = Map::new();
        metadata.keys().filter(|key| !key.starts_with('$')).eq(values.keys())
            && values.iter().all(|(key, value)| {
                metadata[key].as_object().is_some_and(|child| mirrors(value.as_object().unwrap_or(&empty), child))
            })
    }

    proptest! {
        #[test]
        fn nothing_that_was_merged_holds_null_and_merging_again_changes_nothing(first in patch(), second in patch()) {
            let mut once = Map::new();
            merge(&mut once, &first);
            merge(&mut once, &second);
            prop_assert!(!once.values().any(has_null));
            let mut twice = once.clone();
            merge(&mut twice, &second);
            prop_assert_eq!(twice, once);
        }

        #[test]
        fn every_patch_bumps_the_version_and_keeps_metadata_in_step(patches in proptest::collection::vec(patch(), 0..6)) {
            let mut properties = Properties::new(Metadata::Times, OffsetDateTime::UNIX_EPOCH);
            for (count, patch) in patches.iter().enumerate() {
                properties.patch(patch, OffsetDateTime::UNIX_EPOCH);
                prop_assert_eq!(properties.version(), count as u64 + 2);
                prop_assert!(mirrors(&properties.values, &properties.metadata));
            }
        }
    }
}
