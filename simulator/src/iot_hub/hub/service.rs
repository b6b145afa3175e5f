//! What services ask of the hub.

use serde_json::Value;
use time::OffsetDateTime;

use super::{Hub, State};
use crate::iot_hub::bulk::{self, Action};
use crate::iot_hub::error::HubError;
use crate::iot_hub::identity::IdentityRequest;
use crate::iot_hub::limits::Billable;
use crate::iot_hub::registry::{Census, IfMatch, Put, default_twin};
use crate::iot_hub::routing::Operation;
use crate::iot_hub::sas::{Right, SasError, Token};
use crate::iot_hub::sessions::Note;
use crate::iot_hub::topic::DESIRED_CHANGES;
use crate::iot_hub::twin::{Changed, ServiceWrite, Twin, Violation};

impl Hub {
    /// Checks the token of a service call on `path`.
    pub(in crate::iot_hub) fn authorise_service(&self, token: &str, right: Right, path: &str) -> Result<(), SasError> {
        Token::parse(token)?.check_policy(&self.policies, right, &self.name, path, self.clock.now())
    }

    pub(in crate::iot_hub) fn identity(&self, id: &str) -> Result<Value, HubError> {
        self.state().registry.known(id).map(|device| device.identity())
    }

    pub(in crate::iot_hub) fn identities(&self, top: Option<usize>) -> Vec<Value> {
        self.state().registry.list(top)
    }

    pub(in crate::iot_hub) fn put_identity(
        &self,
        id: &str,
        request: IdentityRequest,
        if_match: Option<&IfMatch>,
    ) -> Result<Value, HubError> {
        let now = self.clock.now();
        let mut state = self.state();
        let put = state.registry.put(id, request, if_match, now)?;
        if !state.registry.known(id)?.is_enabled() {
            self.end_session(&mut state, id, now);
        }
        let device = state.registry.known(id)?;
        match put {
            Put::Created => self.tell_created(&state, id, now),
            Put::Updated => self.tell_identity(id, "updated"),
        }
        Ok(device.identity())
    }

    /// Creates a device whose twin begins with tags and desired properties. Its event shows the twin that every device
    /// begins with, and no other event tells of the tags: what a live hub tells is not known, and its documentation
    /// warns of relying on it (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-identity-registry.md`).
    fn create_with_twin(&self, id: &str, request: IdentityRequest, write: ServiceWrite) -> Result<(), HubError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.registry.create_with_twin(id, request, write, now)?;
        self.tell_created(&state, id, now);
        Ok(())
    }

    /// Counts a new device and tells of it. The event shows the twin that every device begins with.
    fn tell_created(&self, state: &State, id: &str, now: OffsetDateTime) {
        self.counters.devices_created.add();
        self.tell_identity(id, "created");
        self.emit(state, Operation::CreateDevice, id, default_twin(id, now).into(), now);
    }

    /// Does what a bulk call asks for, device by device, and bills the twins that it writes. Returns what did not go well.
    pub(in crate::iot_hub) fn bulk(&self, entries: Vec<bulk::Entry>) -> Vec<(String, HubError)> {
        let each = entries.into_iter().filter_map(|bulk::Entry { id, action, bytes }| {
            let done = action.and_then(|action| self.bulk_action(&id, action, bytes));
            done.err().map(|error| (id, error))
        });
        each.collect()
    }

    fn bulk_action(&self, id: &str, action: Action, bytes: usize) -> Result<(), HubError> {
        match action {
            Action::Create(request, write) => self.create_with_twin(id, request, write),
            Action::Update(request, if_match) => self.put_identity(id, request, Some(&if_match)).map(drop),
            Action::Delete(if_match) => self.delete_identity(id, Some(&if_match)),
            Action::UpdateTwin(write, if_match) => {
                self.patch_twin(id, write, Some(&if_match))?;
                self.bill(Billable::TwinUpdate, bytes);
                Ok(())
            }
        }
    }

    /// How many devices there are.
    pub(in crate::iot_hub) fn census(&self) -> Census {
        self.state().registry.census()
    }

    /// The twins of the devices behind this id, at most so many.
    pub(in crate::iot_hub) fn twins_after(&self, id: Option<&str>, count: usize) -> Vec<Value> {
        self.state().registry.twins_after(id, count)
    }

    pub(in crate::iot_hub) fn delete_identity(&self, id: &str, if_match: Option<&IfMatch>) -> Result<(), HubError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.registry.check_delete(id, if_match)?;
        self.end_session(&mut state, id, now);
        self.purge_locked(&mut state, id, now);
        let device = state.registry.delete(id, if_match)?;
        self.counters.devices_deleted.add();
        self.tell_identity(id, "deleted");
        self.emit(&state, Operation::DeleteDevice, id, device.twin_core().into(), now);
        Ok(())
    }

    pub(in crate::iot_hub) fn twin(&self, id: &str) -> Result<Value, HubError> {
        self.state().registry.known(id).map(|device| device.twin_document())
    }

    pub(in crate::iot_hub) fn patch_twin(
        &self,
        id: &str,
        write: ServiceWrite,
        if_match: Option<&IfMatch>,
    ) -> Result<Value, HubError> {
        self.write_twin(id, if_match, Operation::UpdateTwin, |twin, now| twin.patch(write, now))
    }

    pub(in crate::iot_hub) fn replace_twin(
        &self,
        id: &str,
        write: ServiceWrite,
        if_match: Option<&IfMatch>,
    ) -> Result<Value, HubError> {
        self.write_twin(id, if_match, Operation::ReplaceTwin, |twin, now| twin.replace(write, now))
    }

    /// Writes a twin and tells of it: the event of a replacement shows the whole twin, that of an update what was written.
    fn write_twin(
        &self,
        id: &str,
        if_match: Option<&IfMatch>,
        operation: Operation,
        write: impl FnOnce(&mut Twin, OffsetDateTime) -> Result<Changed, Violation>,
    ) -> Result<Value, HubError> {
        let now = self.clock.now();
        let mut state = self.state();
        let changed = state.registry.write_twin(id, if_match, |twin| write(twin, now))?;
        self.tell_desired(id, &changed);
        let device = state.registry.known(id)?;
        let event = match operation {
            Operation::ReplaceTwin => device.twin_core().into(),
            _ => changed.event.clone(),
        };
        self.emit(&state, operation, id, event, now);
        notify(&state, id, changed);
        Ok(device.twin_document())
    }
}

/// Tells the device of written desired properties, if it is connected and wants to know.
fn notify(state: &State, device_id: &str, changed: Changed) {
    let subscribed = state.sessions.quality(device_id, DESIRED_CHANGES).is_some();
    if let (true, Some((version, body))) = (subscribed, changed.desired) {
        state.sessions.notify(device_id, Note::Desired { version, body: body.to_string() });
    }
}
