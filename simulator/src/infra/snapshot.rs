//! The file that `bicep snapshot` writes: every resource of a template with its final name and properties.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::EvaluateError;

/// Far more than a template may have (4 MiB).
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InfraError {
    /// The file cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is none of `bicep snapshot`.
    #[error("{path} is no snapshot of `bicep snapshot`: {why}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A value cannot be evaluated.
    #[error("{resource}: {source}")]
    Evaluate {
        /// The resource id.
        resource: String,
        /// Why.
        source: EvaluateError,
    },
    /// A resource is not as the simulator needs it.
    #[error("{resource}: {why}")]
    Resource {
        /// The resource id.
        resource: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A resource that there must be one of.
    #[error("the snapshot has {count} resources of the type {kind}; the simulator needs one{hint}")]
    Count {
        /// The resource type.
        kind: &'static str,
        /// How many there are.
        count: usize,
        /// More to know.
        hint: &'static str,
    },
}

/// A resource.
#[derive(Debug, Deserialize)]
pub(super) struct Resource {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) sku: Value,
    #[serde(default)]
    pub(super) identity: Value,
    #[serde(default)]
    pub(super) properties: Value,
}

impl Resource {
    /// An error about this resource.
    pub(super) fn wrong(&self, why: impl Into<String>) -> InfraError {
        InfraError::Resource { resource: self.id.clone(), why: why.into() }
    }

    /// A switch of its properties; off if it is not there.
    pub(super) fn flag(&self, name: &str) -> Result<bool, InfraError> {
        match &self.properties[name] {
            Value::Null => Ok(false),
            Value::Bool(is_on) => Ok(*is_on),
            other => Err(self.wrong(format!("{name} is {other}, which is neither true nor false"))),
        }
    }

    /// A part of it in the form that the simulator expects.
    pub(super) fn part<T: serde::de::DeserializeOwned>(&self, part: &Value) -> Result<T, InfraError> {
        serde_json::from_value(part.clone()).map_err(|error| self.wrong(error.to_string()))
    }
}

/// All of them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    predicted_resources: Vec<Resource>,
}

impl Snapshot {
    pub(super) fn read(path: &Path) -> Result<Self, InfraError> {
        let unreadable = |source| InfraError::Read { path: path.to_owned(), source };
        let form = |why: String| InfraError::Form { path: path.to_owned(), why };
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_BYTES {
            return Err(form(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        serde_json::from_slice(&text).map_err(|error| form(error.to_string()))
    }

    /// The resources of a type.
    pub(super) fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.predicted_resources.iter().filter(move |resource| resource.kind.eq_ignore_ascii_case(kind))
    }

    /// The one resource of a type.
    pub(super) fn one(&self, kind: &'static str, hint: &'static str) -> Result<&Resource, InfraError> {
        let mut found = self.of(kind);
        match (found.next(), found.count()) {
            (Some(resource), 0) => Ok(resource),
            (first, more) => Err(InfraError::Count { kind, count: usize::from(first.is_some()) + more, hint }),
        }
    }
}
