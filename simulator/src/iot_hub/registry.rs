//! The identity registry and the twins, in memory. Every call is whole or not at all.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::error::{Code, HubError};
use super::identity::{AuthenticationType, IdentityRequest, Keys, Status};
use super::twin::{Changed, Twin, Violation, timestamp};

/// How never-set times read.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Most devices in one list; any other `top` means this.
const MAX_LISTED: usize = 1000;

/// The precondition of a service call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// `*`
    Any,
    /// An etag, without quotes.
    Etag(String),
}

impl IfMatch {
    /// Reads the header; the etag may be quoted or bare.
    pub(super) fn parse(header: &str) -> Self {
        let header = header.trim();
        let bare = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(header);
        if bare == "*" { Self::Any } else { Self::Etag(bare.to_owned()) }
    }

    fn check(&self, etag: &str) -> Result<(), HubError> {
        match self {
            Self::Etag(wanted) if wanted != etag => {
                Err(HubError::new(Code::PreconditionFailed, "Precondition failed: the etag has moved on"))
            }
            Self::Any | Self::Etag(_) => Ok(()),
        }
    }
}

/// A device: its identity and its twin.
pub(super) struct Device {
    id: String,
    generation_id: String,
    etag: String,
    status: Status,
    status_reason: Option<String>,
    status_changed: Option<OffsetDateTime>,
    authentication: AuthenticationType,
    keys: Keys,
    connected: bool,
    connection_changed: Option<OffsetDateTime>,
    last_activity: Option<OffsetDateTime>,
    twin: Twin,
}

impl Device {
    pub(super) fn is_enabled(&self) -> bool {
        self.status == Status::Enabled
    }

    pub(super) fn generation_id(&self) -> &str {
        &self.generation_id
    }

    /// Its keys, decoded. None with X.509.
    pub(super) fn keys(&self) -> impl Iterator<Item = Vec<u8>> {
        self.keys.decoded()
    }

    pub(super) fn set_connected(&mut self, connected: bool, now: OffsetDateTime) {
        self.connected = connected;
        self.connection_changed = Some(now);
        self.last_activity = Some(now);
    }

    pub(super) fn twin(&self) -> &Twin {
        &self.twin
    }

    pub(super) fn twin_mut(&mut self) -> &mut Twin {
        &mut self.twin
    }

    /// The identity as the service API shows it, keys included.
    pub(super) fn identity(&self) -> Value {
        json!({
            "deviceId": self.id,
            "generationId": self.generation_id,
            "etag": self.etag,
            "connectionState": self.connection_state(),
            "connectionStateUpdatedTime": time_or_never(self.connection_changed),
            "status": self.status,
            "statusReason": self.status_reason,
            "statusUpdatedTime": time_or_never(self.status_changed),
            "lastActivityTime": time_or_never(self.last_activity),
            "cloudToDeviceMessageCount": 0,
            "authentication": {
                "symmetricKey": self.keys,
                "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null},
                "type": self.authentication,
            },
            "capabilities": {"iotEdge": false},
        })
    }

    /// The twin as the service API shows it: identity mirror, tags, properties with metadata.
    pub(super) fn twin_document(&self) -> Value {
        let mut document = self.twin_core();
        let mirror = json!({
            "deviceEtag": self.etag,
            "status": self.status,
            "statusUpdateTime": time_or_never(self.status_changed),
            "connectionState": self.connection_state(),
            "lastActivityTime": time_or_never(self.last_activity),
            "cloudToDeviceMessageCount": 0,
            "authenticationType": self.authentication,
            "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null},
            "modelId": "",
            "capabilities": {"iotEdge": false},
        });
        if let Value::Object(mirror) = mirror {
            document.extend(mirror);
        }
        document.into()
    }

    /// The twin as events show it whole.
    pub(super) fn twin_core(&self) -> Map<String, Value> {
        let mut document = self.twin.for_service();
        document.insert("deviceId".to_owned(), self.id.clone().into());
        document.insert("etag".to_owned(), self.twin.etag().into());
        document.insert("version".to_owned(), self.twin.version().into());
        document
    }

    fn connection_state(&self) -> &'static str {
        if self.connected { "Connected" } else { "Disconnected" }
    }

    /// Puts what was asked for in place of the identity.
    fn update(&mut self, request: IdentityRequest, etag: String, now: OffsetDateTime) {
        if self.status != request.status {
            self.status_changed = Some(now);
        }
        self.status = request.status;
        self.status_reason = request.status_reason;
        self.authentication = request.authentication;
        self.keys = request.keys;
        self.etag = etag;
    }
}

fn time_or_never(at: Option<OffsetDateTime>) -> String {
    at.map_or_else(|| NEVER.to_owned(), timestamp)
}

/// What a `PUT` of an identity did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Created,
    Updated,
}

/// All devices of a hub.
#[derive(Default)]
pub(super) struct Registry {
    devices: BTreeMap<String, Device>,
    /// Makes etags and generation ids unique.
    serial: u64,
}

impl Registry {
    pub(super) fn device(&self, id: &str) -> Option<&Device> {
        self.devices.get(id)
    }

    pub(super) fn device_mut(&mut self, id: &str) -> Option<&mut Device> {
        self.devices.get_mut(id)
    }

    pub(super) fn known(&self, id: &str) -> Result<&Device, HubError> {
        self.devices.get(id).ok_or_else(|| HubError::unknown_device(id))
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.devices.keys().cloned().collect()
    }

    pub(super) fn list(&self, top: Option<usize>) -> Vec<Value> {
        let top = top.filter(|top| (1..=MAX_LISTED).contains(top)).unwrap_or(MAX_LISTED);
        self.devices.values().take(top).map(Device::identity).collect()
    }

    /// Creates a device without a precondition, updates one with it.
    pub(super) fn put(
        &mut self,
        id: &str,
        request: IdentityRequest,
        if_match: Option<&IfMatch>,
        now: OffsetDateTime,
    ) -> Result<Put, HubError> {
        let etag = self.next_etag();
        match (self.devices.get_mut(id), if_match) {
            (Some(_), None) => {
                let message = format!("A device with ID '{id}' is already registered.");
                Err(HubError::new(Code::DeviceAlreadyExists, message))
            }
            (None, Some(_)) => Err(HubError::unknown_device(id)),
            (Some(device), Some(if_match)) => {
                if_match.check(&device.etag)?;
                device.update(request, etag, now);
                Ok(Put::Updated)
            }
            (None, None) => {
                let device = self.create(id, request, etag, now);
                self.devices.insert(id.to_owned(), device);
                Ok(Put::Created)
            }
        }
    }

    fn create(&self, id: &str, request: IdentityRequest, etag: String, now: OffsetDateTime) -> Device {
        Device {
            id: id.to_owned(),
            generation_id: format!("{}{:04}", now.unix_timestamp_nanos() / 1_000_000, self.serial),
            etag,
            status: request.status,
            status_reason: request.status_reason,
            status_changed: None,
            authentication: request.authentication,
            keys: request.keys,
            connected: false,
            connection_changed: None,
            last_activity: None,
            twin: Twin::new(now),
        }
    }

    /// Deletes a device; the precondition is mandatory.
    pub(super) fn delete(&mut self, id: &str, if_match: Option<&IfMatch>) -> Result<Device, HubError> {
        let if_match = if_match
            .ok_or_else(|| HubError::new(Code::PreconditionFailed, "Precondition failed: If-Match is missing"))?;
        if_match.check(&self.known(id)?.etag)?;
        self.devices.remove(id).ok_or_else(|| HubError::unknown_device(id))
    }

    pub(super) fn set_enabled(&mut self, id: &str, enabled: bool, now: OffsetDateTime) -> bool {
        let etag = self.next_etag();
        let Some(device) = self.devices.get_mut(id) else { return false };
        let status = if enabled { Status::Enabled } else { Status::Disabled };
        if device.status != status {
            (device.status, device.status_changed, device.etag) = (status, Some(now), etag);
        }
        true
    }

    /// Writes a twin for the service: `write` says how.
    pub(super) fn write_twin(
        &mut self,
        id: &str,
        if_match: Option<&IfMatch>,
        write: impl FnOnce(&mut Twin) -> Result<Changed, Violation>,
    ) -> Result<Changed, HubError> {
        let device = self.devices.get_mut(id).ok_or_else(|| HubError::unknown_device(id))?;
        if let Some(if_match) = if_match {
            if_match.check(&device.twin.etag())?;
        }
        Ok(write(&mut device.twin)?)
    }

    fn next_etag(&mut self) -> String {
        self.serial += 1;
        BASE64_STANDARD.encode(format!("{:09}", self.serial))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 09:00 UTC);

    fn request(id: &str) -> IdentityRequest {
        let body = json!({"deviceId": id}).to_string();
        IdentityRequest::parse(id, body.as_bytes()).expect("it is a valid identity")
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        registry.put("d1", request("d1"), None, NOW).expect("it is new");
        registry
    }

    fn code<T>(result: Result<T, HubError>) -> Option<Code> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn a_put_without_precondition_only_creates() {
        let mut registry = registry();
        let before = registry.known("d1").expect("it is there").identity();
        assert_eq!(code(registry.put("d1", request("d1"), None, NOW)), Some(Code::DeviceAlreadyExists));
        assert_eq!(registry.known("d1").expect("it is there").identity(), before);
    }

    #[test]
    fn a_put_with_precondition_only_updates_and_mints_new_keys() {
        let mut registry = registry();
        let keys = |registry: &Registry| registry.known("d1").expect("it is there").keys().collect::<Vec<_>>();
        let (before, etag) = (keys(&registry), registry.known("d1").expect("it is there").etag.clone());
        let stale = IfMatch::Etag("stale".into());
        assert_eq!(code(registry.put("d2", request("d2"), Some(&IfMatch::Any), NOW)), Some(Code::DeviceNotFound));
        assert_eq!(code(registry.put("d1", request("d1"), Some(&stale), NOW)), Some(Code::PreconditionFailed));
        assert_eq!(keys(&registry), before);
        assert_eq!(registry.put("d1", request("d1"), Some(&IfMatch::Etag(etag)), NOW), Ok(Put::Updated));
        assert_ne!(keys(&registry), before);
    }

    #[test]
    fn a_delete_needs_a_precondition_that_holds() {
        let mut registry = registry();
        assert_eq!(code(registry.delete("d1", None)), Some(Code::PreconditionFailed));
        let stale = IfMatch::Etag("stale".into());
        assert_eq!(code(registry.delete("d1", Some(&stale))), Some(Code::PreconditionFailed));
        assert_eq!(code(registry.delete("d1", Some(&IfMatch::Any))), None);
        assert_eq!(code(registry.delete("d1", Some(&IfMatch::Any))), Some(Code::DeviceNotFound));
    }

    #[test]
    fn two_lives_of_one_id_have_two_generations() {
        let mut registry = registry();
        let first = registry.delete("d1", Some(&IfMatch::Any)).expect("it is there").generation_id;
        registry.put("d1", request("d1"), None, NOW).expect("it is new");
        assert_ne!(registry.known("d1").expect("it is there").generation_id, first);
    }

    #[test]
    fn preconditions_are_read_quoted_and_bare() {
        for header in ["*", "\"*\"", " * "] {
            assert_eq!(IfMatch::parse(header), IfMatch::Any, "{header}");
        }
        for header in ["AAAAAAAAAAE=", "\"AAAAAAAAAAE=\""] {
            assert_eq!(IfMatch::parse(header), IfMatch::Etag("AAAAAAAAAAE=".into()), "{header}");
        }
    }

    #[test]
    fn a_list_has_as_many_as_asked_for_or_a_thousand() {
        let mut registry = registry();
        registry.put("d2", request("d2"), None, NOW).expect("it is new");
        for (top, length) in [(None, 2), (Some(1), 1), (Some(0), 2), (Some(1001), 2)] {
            assert_eq!(registry.list(top).len(), length, "{top:?}");
        }
    }
}
