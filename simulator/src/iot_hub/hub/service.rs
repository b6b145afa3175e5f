//! What services ask of the hub.

use serde_json::Value;
use time::OffsetDateTime;

use super::{Hub, State};
use crate::iot_hub::error::HubError;
use crate::iot_hub::identity::IdentityRequest;
use crate::iot_hub::registry::{IfMatch, Put};
use crate::iot_hub::routing::Operation;
use crate::iot_hub::sas::{Right, SasError, Token};
use crate::iot_hub::sessions::DesiredNote;
use crate::iot_hub::topic::DESIRED_CHANGES;
use crate::iot_hub::twin::{Changed, ServiceWrite};

impl Hub {
    /// Checks the token of a service call on `path`.
    pub(in crate::iot_hub) fn authorise_service(&self, token: &str, right: Right, path: &str) -> Result<(), SasError> {
        Token::parse(token)?.check_policy(&self.policies, right, &self.name, path, OffsetDateTime::now_utc())
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
        let now = OffsetDateTime::now_utc();
        let mut state = self.state();
        let put = state.registry.put(id, request, if_match, now)?;
        let device = state.registry.known(id)?;
        let (identity, enabled) = (device.identity(), device.is_enabled());
        match put {
            Put::Created => {
                self.counters.devices_created.add();
                self.emit(Operation::CreateDevice, id, device.twin_core().into(), now);
            }
            Put::Updated if !enabled => state.sessions.end(id),
            Put::Updated => {}
        }
        Ok(identity)
    }

    pub(in crate::iot_hub) fn delete_identity(&self, id: &str, if_match: Option<&IfMatch>) -> Result<(), HubError> {
        let mut state = self.state();
        let device = state.registry.delete(id, if_match)?;
        state.sessions.end(id);
        self.counters.devices_deleted.add();
        self.emit(Operation::DeleteDevice, id, device.twin_core().into(), OffsetDateTime::now_utc());
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
        let now = OffsetDateTime::now_utc();
        let mut state = self.state();
        let changed = state.registry.write_twin(id, if_match, |twin| twin.patch(write, now))?;
        self.emit(Operation::UpdateTwin, id, changed.event.clone(), now);
        notify(&state, id, changed);
        state.registry.known(id).map(|device| device.twin_document())
    }

    pub(in crate::iot_hub) fn replace_twin(
        &self,
        id: &str,
        write: ServiceWrite,
        if_match: Option<&IfMatch>,
    ) -> Result<Value, HubError> {
        let now = OffsetDateTime::now_utc();
        let mut state = self.state();
        let changed = state.registry.write_twin(id, if_match, |twin| twin.replace(write, now))?;
        let device = state.registry.known(id)?;
        self.emit(Operation::ReplaceTwin, id, device.twin_core().into(), now);
        notify(&state, id, changed);
        Ok(device.twin_document())
    }
}

/// Tells the device of written desired properties, if it is connected and wants to know.
fn notify(state: &State, device_id: &str, changed: Changed) {
    let subscribed = state.sessions.quality(device_id, DESIRED_CHANGES).is_some();
    if let (true, Some((version, body))) = (subscribed, changed.desired) {
        state.sessions.notify(device_id, DesiredNote { version, body: body.to_string() });
    }
}
