//! The identity registry and the twins, in memory. Every call is whole or not at all.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::devicebound::Mailbox;
use super::error::{Code, HubError};
use super::identity::{AuthenticationType, Capabilities, IdentityRequest, Keys, Status, Thumbprints};
use super::twin::{Changed, ServiceWrite, Twin, Violation, timestamp};

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
    thumbprints: Thumbprints,
    capabilities: Capabilities,
    connected: bool,
    connection_changed: Option<OffsetDateTime>,
    last_activity: Option<OffsetDateTime>,
    twin: Twin,
    mailbox: Mailbox,
}

impl Device {
    pub(super) fn is_enabled(&self) -> bool {
        self.status == Status::Enabled
    }

    pub(super) fn generation_id(&self) -> &str {
        &self.generation_id
    }

    /// Whether it proves who it is with a key. The simulator asks for no client certificates, so others never connect.
    pub(super) fn has_keys(&self) -> bool {
        self.authentication == AuthenticationType::Sas
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

    /// Its cloud-to-device messages.
    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    pub(super) fn mailbox_mut(&mut self) -> &mut Mailbox {
        &mut self.mailbox
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
            "cloudToDeviceMessageCount": self.mailbox.len(),
            "authentication": {
                "symmetricKey": self.keys,
                "x509Thumbprint": self.thumbprints,
                "type": self.authentication,
            },
            "capabilities": self.capabilities,
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
            "cloudToDeviceMessageCount": self.mailbox.len(),
            "authenticationType": self.authentication,
            "x509Thumbprint": self.thumbprints,
            "modelId": "",
            "capabilities": self.capabilities,
        });
        if let Value::Object(mirror) = mirror {
            document.extend(mirror);
        }
        if let Some(reason) = &self.status_reason {
            document.insert("statusReason".to_owned(), reason.clone().into());
        }
        document.into()
    }

    /// The twin as events show it whole.
    pub(super) fn twin_core(&self) -> Map<String, Value> {
        core(&self.id, &self.twin)
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
        self.thumbprints = request.thumbprints;
        self.capabilities = request.capabilities;
        self.etag = etag;
    }
}

fn core(id: &str, twin: &Twin) -> Map<String, Value> {
    let mut document = twin.for_service();
    document.insert("deviceId".to_owned(), id.into());
    document.insert("etag".to_owned(), twin.etag().into());
    document.insert("version".to_owned(), twin.version().into());
    document
}

/// The twin that every device begins with, as events show it.
pub(super) fn default_twin(id: &str, now: OffsetDateTime) -> Map<String, Value> {
    core(id, &Twin::new(now))
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

/// How many devices a hub has. The real numbers are late and approximate
/// (`mwalser/terraform-provider-iothub CONCEPT.md`); these are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) total: usize,
    pub(super) enabled: usize,
    pub(super) connected: usize,
}

fn already_there(id: &str) -> HubError {
    HubError::new(Code::DeviceAlreadyExists, format!("A device with ID '{id}' is already registered."))
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

    /// The twins of the devices behind this id in the order of ids, at most so many; `None` begins at the first.
    pub(super) fn twins_after(&self, id: Option<&str>, count: usize) -> Vec<Value> {
        let begin = id.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.devices.range::<str, _>((begin, Bound::Unbounded));
        behind.take(count).map(|(_, device)| device.twin_document()).collect()
    }

    /// How many devices there are.
    pub(super) fn census(&self) -> Census {
        let enabled = self.devices.values().filter(|device| device.is_enabled()).count();
        let connected = self.devices.values().filter(|device| device.connected).count();
        Census { total: self.devices.len(), enabled, connected }
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
            (Some(_), None) => Err(already_there(id)),
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

    /// Creates a device whose twin begins with these tags and desired properties.
    pub(super) fn create_with_twin(
        &mut self,
        id: &str,
        request: IdentityRequest,
        write: ServiceWrite,
        now: OffsetDateTime,
    ) -> Result<(), HubError> {
        if self.devices.contains_key(id) {
            return Err(already_there(id));
        }
        let etag = self.next_etag();
        let mut device = self.create(id, request, etag, now);
        device.twin.patch(write, now)?;
        self.devices.insert(id.to_owned(), device);
        Ok(())
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
            thumbprints: request.thumbprints,
            capabilities: request.capabilities,
            connected: false,
            connection_changed: None,
            last_activity: None,
            twin: Twin::new(now),
            mailbox: Mailbox::default(),
        }
    }

    /// Whether a device may be deleted; the precondition is mandatory.
    pub(super) fn check_delete(&self, id: &str, if_match: Option<&IfMatch>) -> Result<(), HubError> {
        let if_match = if_match
            .ok_or_else(|| HubError::new(Code::PreconditionFailed, "Precondition failed: If-Match is missing"))?;
        if_match.check(&self.known(id)?.etag)
    }

    /// Deletes a device if it [may be](Self::check_delete).
    pub(super) fn delete(&mut self, id: &str, if_match: Option<&IfMatch>) -> Result<Device, HubError> {
        self.check_delete(id, if_match)?;
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
mod tests;
