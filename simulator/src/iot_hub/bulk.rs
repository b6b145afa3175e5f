//! Bulk calls on the registry: many devices in one request
//! (`Azure/azure-iot-hub-python service.json`, `ExportImportDevice` and `BulkRegistryOperationResult`).

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{Code, HubError};
use super::identity::IdentityRequest;
use super::limits::Operation;
use super::registry::IfMatch;
use super::twin::{ServiceWrite, parse_document};

/// Most devices of one call.
pub(super) const MAX_DEVICES: usize = 100;

/// What is to be done with a device.
pub(super) enum Action {
    /// Create it, its twin with these tags and desired properties.
    Create(IdentityRequest, ServiceWrite),
    /// Put this in place of its identity.
    Update(IdentityRequest, IfMatch),
    /// Delete it.
    Delete(IfMatch),
    /// Merge this into its twin.
    UpdateTwin(ServiceWrite, IfMatch),
}

/// One device of a call.
pub(super) struct Entry {
    /// Its id; empty if none was given.
    pub(super) id: String,
    /// What to do, or why that cannot be.
    pub(super) action: Result<Action, HubError>,
    /// Its size as JSON, in bytes.
    pub(super) bytes: usize,
}

impl Entry {
    /// The rate that it falls under.
    pub(super) fn operation(&self) -> Operation {
        match self.action {
            Ok(Action::UpdateTwin(..)) => Operation::TwinUpdate,
            _ => Operation::Identity,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    id: String,
    module_id: Option<String>,
    import_mode: Option<String>,
    e_tag: Option<String>,
    #[serde(rename = "twinETag")]
    twin_etag: Option<String>,
}

/// Reads the body of a call.
///
/// # Errors
/// If it is no array of 1 to 100 objects. What is wrong with one device is told with that device.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Entry>, HubError> {
    let Value::Array(devices) = parse_document(body)? else {
        return Err(HubError::new(Code::IotHubFormatError, "the body is no array of devices"));
    };
    match devices.len() {
        0 => return Err(HubError::new(Code::ArgumentInvalid, "the array of devices is empty")),
        count if count > MAX_DEVICES => {
            return Err(HubError::new(Code::TooManyDevices, format!("{count} devices are more than {MAX_DEVICES}")));
        }
        _ => {}
    }
    let mut entries: Vec<_> = devices.iter().map(entry).collect();
    refuse_doubles(&mut entries);
    Ok(entries)
}

fn entry(device: &Value) -> Entry {
    let id = device["id"].as_str().unwrap_or_default().to_owned();
    Entry { id, action: action(device), bytes: device.to_string().len() }
}

fn action(device: &Value) -> Result<Action, HubError> {
    let head = Head::deserialize(device).map_err(|error| HubError::new(Code::IotHubFormatError, error.to_string()))?;
    if head.module_id.is_some_and(|module| !module.is_empty()) {
        return Err(HubError::new(Code::ArgumentInvalid, "the simulator has no modules"));
    }
    let identity = || IdentityRequest::from_description(&head.id, device);
    let write = || Ok::<_, HubError>(ServiceWrite::parse(device)?);
    let if_match = |etag: &Option<String>| {
        let etag = etag.as_deref().filter(|etag| !etag.is_empty());
        etag.map(IfMatch::parse).ok_or_else(|| HubError::new(Code::PreconditionFailed, "the etag is missing"))
    };
    // The Node SDK begins the words with a capital letter, the documentation does not.
    let mode = head.import_mode.as_deref().unwrap_or_default().to_ascii_lowercase();
    match mode.as_str() {
        "create" => Ok(Action::Create(identity()?, write()?)),
        "update" => Ok(Action::Update(identity()?, IfMatch::Any)),
        "updateifmatchetag" => Ok(Action::Update(identity()?, if_match(&head.e_tag)?)),
        "delete" => Ok(Action::Delete(IfMatch::Any)),
        "deleteifmatchetag" => Ok(Action::Delete(if_match(&head.e_tag)?)),
        "updatetwin" => Ok(Action::UpdateTwin(write()?, IfMatch::Any)),
        "updatetwinifmatchetag" => Ok(Action::UpdateTwin(write()?, if_match(&head.twin_etag)?)),
        _ => Err(HubError::new(Code::ArgumentInvalid, "importMode is missing or none that the hub knows")),
    }
}

/// A device that is named twice has none of its parts done.
fn refuse_doubles(entries: &mut [Entry]) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for entry in entries.iter().filter(|entry| !entry.id.is_empty()) {
        *counts.entry(entry.id.clone()).or_default() += 1;
    }
    let is_double = |entry: &&mut Entry| counts.get(&entry.id).is_some_and(|count| *count > 1);
    for entry in entries.iter_mut().filter(is_double) {
        let message = format!("the device '{}' is named more than once", entry.id);
        entry.action = Err(HubError::new(Code::DeviceDefinedMultipleTimes, message));
    }
}

/// The answer: the same object whether all went well or not.
pub(super) fn result(failures: &[(String, HubError)]) -> Value {
    let error = |(id, error): &(String, HubError)| json!({"deviceId": id, "errorCode": error.code.name(), "errorStatus": error.message});
    let errors: Vec<_> = failures.iter().map(error).collect();
    json!({"isSuccessful": errors.is_empty(), "errors": errors, "warnings": []})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(devices: &Value) -> Vec<Option<Code>> {
        let entries = parse(devices.to_string().as_bytes()).expect("it is a bulk call");
        entries.into_iter().map(|entry| entry.action.err().map(|error| error.code)).collect()
    }

    #[test]
    fn every_mode_is_known_in_any_case() {
        for mode in
            ["create", "update", "updateIfMatchETag", "UpdateIfMatchETag", "delete", "Delete", "DeleteIfMatchETag"]
                .into_iter()
                .chain(["updateTwin", "updateTwinIfMatchETag"])
        {
            let device = json!({"id": "d1", "importMode": mode, "eTag": "e", "twinETag": "e", "tags": {"a": 1}});
            assert_eq!(codes(&json!([device])), [None], "{mode}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_device_is_told_with_it() {
        let devices = json!([
            {"id": "good", "importMode": "create"},
            {"id": "no-mode"},
            {"id": "no-etag", "importMode": "updateIfMatchETag"},
            {"id": "b/d", "importMode": "create"},
            {"importMode": "create"},
            {"id": "module", "moduleId": "m", "importMode": "create"},
            {"id": "tags", "importMode": "updateTwin", "tags": 1},
            {"id": "twice", "importMode": "create"},
            {"id": "twice", "importMode": "delete"},
            7,
        ]);
        let (argument, format) = (Some(Code::ArgumentInvalid), Some(Code::IotHubFormatError));
        let twice = Some(Code::DeviceDefinedMultipleTimes);
        let missing = Some(Code::PreconditionFailed);
        let expected = [None, argument, missing, argument, format, argument, argument, twice, twice, format];
        assert_eq!(codes(&devices), expected);
    }

    #[test]
    fn a_call_has_1_to_100_devices() {
        let devices = |count: usize| {
            let device = |n| json!({"id": format!("d{n}"), "importMode": "create"});
            let devices: Vec<_> = (0..count).map(device).collect();
            parse(Value::from(devices).to_string().as_bytes()).map(|entries| entries.len()).map_err(|error| error.code)
        };
        for (count, expected) in
            [(0, Err(Code::ArgumentInvalid)), (1, Ok(1)), (100, Ok(100)), (101, Err(Code::TooManyDevices))]
        {
            assert_eq!(devices(count), expected, "{count}");
        }
        assert_eq!(parse(b"{}").err().map(|error| error.code), Some(Code::IotHubFormatError));
    }
}
