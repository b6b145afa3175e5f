//! Device twins: tags, desired and reported properties. No I/O, no clock.

mod document;
mod properties;
mod rules;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use properties::{Metadata, Properties};
use rules::{Section, check, check_growth};

pub(super) use document::{DocumentError, parse_document};
pub(super) use properties::{merge, timestamp};
pub(super) use rules::Violation;

/// A device twin.
#[derive(Clone, Debug)]
pub(super) struct Twin {
    tags: Map<String, Value>,
    desired: Properties,
    reported: Properties,
    /// Counts writes of tags and desired properties.
    etag: u64,
    /// Counts all writes; a new twin's is the sum of its two sections' versions.
    version: u64,
}

/// What the service wants of a section.
#[derive(Clone, Debug, PartialEq)]
enum SectionWrite {
    Keep,
    Clear,
    Write(Map<String, Value>),
}

impl SectionWrite {
    fn of(name: &'static str, value: Option<&Value>) -> Result<Self, Violation> {
        match value {
            None => Ok(Self::Keep),
            Some(Value::Null) => Ok(Self::Clear),
            Some(Value::Object(object)) => Ok(Self::Write(object.clone())),
            Some(_) => Err(Violation::NotAnObject(name)),
        }
    }

    /// The patch that does it: to clear a section is to delete each of its keys.
    fn into_patch(self, current: &Map<String, Value>) -> Option<Map<String, Value>> {
        match self {
            Self::Keep => None,
            Self::Clear => Some(deletions(current)),
            Self::Write(patch) => Some(patch),
        }
    }

    /// The patch that leaves nothing but what is written.
    fn into_replacement(self, current: &Map<String, Value>) -> Map<String, Value> {
        let Self::Write(new) = self else { return deletions(current) };
        let mut patch = deletions(current);
        for (key, value) in new {
            // A patch merges into an object that is there. What must go is named, so that it goes.
            let value = match (current.get(&key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => Self::Write(new).into_replacement(old).into(),
                (_, value) => value,
            };
            patch.insert(key, value);
        }
        patch
    }
}

fn deletions(values: &Map<String, Value>) -> Map<String, Value> {
    values.keys().map(|key| (key.clone(), Value::Null)).collect()
}

/// A write by the service API. It has no way to name reported properties.
#[derive(Clone, Debug)]
pub(super) struct ServiceWrite {
    tags: SectionWrite,
    desired: SectionWrite,
}

impl ServiceWrite {
    /// Reads the body of `PATCH` or `PUT /twins/{id}`. Whatever else a twin document carries is ignored, since
    /// service SDKs send whole twins back; so are `$metadata` and `$version` of the desired properties.
    pub(super) fn parse(body: &Value) -> Result<Self, Violation> {
        let body = body.as_object().ok_or(Violation::NotAnObject("a twin"))?;
        let properties = match body.get("properties") {
            None | Some(Value::Null) => &Map::new(),
            Some(properties) => properties.as_object().ok_or(Violation::NotAnObject("properties"))?,
        };
        let mut desired = SectionWrite::of("properties.desired", properties.get("desired"))?;
        if let SectionWrite::Write(desired) = &mut desired {
            desired.remove("$metadata");
            desired.remove("$version");
        }
        Ok(Self { tags: SectionWrite::of("tags", body.get("tags"))?, desired })
    }
}

/// What a write changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Changed {
    /// The body of the twin change event.
    pub(super) event: Value,
    /// Version and body of the note to the device, if desired properties were written.
    pub(super) desired: Option<(u64, Value)>,
}

impl Twin {
    pub(super) fn new(at: OffsetDateTime) -> Self {
        Self {
            tags: Map::new(),
            desired: Properties::new(Metadata::TimesAndVersions, at),
            reported: Properties::new(Metadata::Times, at),
            etag: 1,
            version: 2,
        }
    }

    /// The etag that tags and desired properties move.
    pub(super) fn etag(&self) -> String {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode(self.etag.to_be_bytes())
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn reported_version(&self) -> u64 {
        self.reported.version()
    }

    /// What a device may see: no tags, no metadata.
    pub(super) fn for_device(&self) -> Value {
        json!({"desired": self.desired.for_device(), "reported": self.reported.for_device()})
    }

    /// Tags (if any) and properties, as the service sees them.
    pub(super) fn for_service(&self) -> Map<String, Value> {
        let mut twin = Map::new();
        if !self.tags.is_empty() {
            twin.insert("tags".to_owned(), self.tags.clone().into());
        }
        let properties = json!({"desired": self.desired.for_service(), "reported": self.reported.for_service()});
        twin.insert("properties".to_owned(), properties);
        twin
    }

    /// Merges a device's patch into the reported properties, whole or not at all.
    pub(super) fn report(&mut self, patch: &Value, at: OffsetDateTime) -> Result<Changed, Violation> {
        let patch = patch.as_object().ok_or(Violation::NotAnObject("reported properties"))?;
        check_write(Section::Reported, self.reported.values(), patch)?;
        let reported = self.reported.patch(patch, at);
        self.version += 1;
        Ok(Changed { event: json!({"version": self.version, "properties": {"reported": reported}}), desired: None })
    }

    /// Merges a service's patch, whole or not at all.
    pub(super) fn patch(&mut self, write: ServiceWrite, at: OffsetDateTime) -> Result<Changed, Violation> {
        let tags = write.tags.into_patch(&self.tags);
        let desired = write.desired.into_patch(self.desired.values());
        self.write(tags, desired, at)
    }

    /// Replaces tags and desired properties, whole or not at all. Reported properties stay.
    pub(super) fn replace(&mut self, write: ServiceWrite, at: OffsetDateTime) -> Result<Changed, Violation> {
        let tags = write.tags.into_replacement(&self.tags);
        let desired = write.desired.into_replacement(self.desired.values());
        self.write(Some(tags), Some(desired), at)
    }

    fn write(
        &mut self,
        tags: Option<Map<String, Value>>,
        desired: Option<Map<String, Value>>,
        at: OffsetDateTime,
    ) -> Result<Changed, Violation> {
        if let Some(tags) = &tags {
            check_write(Section::Tags, &self.tags, tags)?;
        }
        if let Some(desired) = &desired {
            check_write(Section::Desired, self.desired.values(), desired)?;
        }
        self.version += 1;
        self.etag += 1;
        let mut event = Map::from_iter([("version".to_owned(), self.version.into())]);
        if let Some(tags) = tags {
            merge(&mut self.tags, &tags);
            event.insert("tags".to_owned(), tags.into());
        }
        let mut note = None;
        if let Some(patch) = desired {
            event.insert("properties".to_owned(), json!({"desired": self.desired.patch(&patch, at)}));
            note = Some((self.desired.version(), self.desired.notification(patch)));
        }
        Ok(Changed { event: event.into(), desired: note })
    }
}

fn check_write(section: Section, current: &Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Violation> {
    check(patch)?;
    let mut after = current.clone();
    merge(&mut after, patch);
    check_growth(section, current, &after)
}

#[cfg(test)]
mod tests;
