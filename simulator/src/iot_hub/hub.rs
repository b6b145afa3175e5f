//! What devices and services do to the hub. Each call is atomic, and its events leave in the order of the calls.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mqtt_proto::QoS;
use mqtt_proto::v3::Connect;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::connect::{self, Grant, Refusal};
use super::counters::CounterCells;
use super::error::{Code, HubError};
use super::fault::FaultSwitch;
use super::hub_name::HubName;
use super::identity::IdentityRequest;
use super::property_bag::Bag;
use super::registry::{IfMatch, Put, Registry};
use super::routing::{HubEvent, Operation, RouteSource, Router};
use super::sas::{Policy, Right, SasError, Token};
use super::sessions::{DesiredNote, Opened, Sessions};
use super::telemetry::{self, Sender};
use super::topic::DESIRED_CHANGES;
use super::twin::{Changed, ServiceWrite};

#[derive(Default)]
struct State {
    registry: Registry,
    sessions: Sessions,
}

/// The hub behind both protocols.
pub(super) struct Hub {
    name: HubName,
    policies: Vec<Policy>,
    router: Router,
    state: Mutex<State>,
    pub(super) counters: CounterCells,
    pub(super) fault: FaultSwitch,
}

impl Hub {
    pub(super) fn new(host_name: &str, policies: Vec<Policy>, router: Router, stop: CancellationToken) -> Self {
        Self {
            name: HubName::new(host_name),
            policies,
            router,
            state: Mutex::default(),
            counters: CounterCells::default(),
            fault: FaultSwitch::new(stop),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No call leaves the state half written, so a panic elsewhere in one leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends an event of the hub. Called with the state locked, so that events keep the order of the writes.
    fn emit(&self, operation: Operation, device_id: &str, body: Value, now: OffsetDateTime) {
        let event = HubEvent { operation, hub_name: self.name.short(), device_id, body };
        self.router.dispatch(operation.source(), event.into_event(now));
    }

    // The service API.

    /// Checks the token of a service call on `path`.
    pub(super) fn authorise_service(&self, token: &str, right: Right, path: &str) -> Result<(), SasError> {
        Token::parse(token)?.check_policy(&self.policies, right, &self.name, path, OffsetDateTime::now_utc())
    }

    pub(super) fn identity(&self, id: &str) -> Result<Value, HubError> {
        self.state().registry.known(id).map(|device| device.identity())
    }

    pub(super) fn identities(&self, top: Option<usize>) -> Vec<Value> {
        self.state().registry.list(top)
    }

    pub(super) fn put_identity(
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

    pub(super) fn delete_identity(&self, id: &str, if_match: Option<&IfMatch>) -> Result<(), HubError> {
        let mut state = self.state();
        let device = state.registry.delete(id, if_match)?;
        state.sessions.end(id);
        self.counters.devices_deleted.add();
        self.emit(Operation::DeleteDevice, id, device.twin_core().into(), OffsetDateTime::now_utc());
        Ok(())
    }

    pub(super) fn twin(&self, id: &str) -> Result<Value, HubError> {
        self.state().registry.known(id).map(|device| device.twin_document())
    }

    pub(super) fn patch_twin(
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

    pub(super) fn replace_twin(
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

    // The devices.

    /// Opens the session of a CONNECT.
    pub(super) fn connect(&self, packet: &Connect, socket: &CancellationToken) -> Result<(Grant, Opened), Refusal> {
        let now = OffsetDateTime::now_utc();
        let mut state = self.state();
        let grant = connect::authorise(packet, &self.name, &self.policies, &state.registry, now)
            .inspect_err(|_| self.counters.connects_refused.add())?;
        let id = &grant.sender.device_id;
        let opened = state.sessions.open(id, packet.clean_session, socket);
        if let Some(device) = state.registry.device_mut(id) {
            device.set_connected(true, now);
        }
        self.counters.connects.add();
        if opened.took_over {
            self.counters.takeovers.add();
        }
        Ok((grant, opened))
    }

    /// Notes that a connection has ended.
    pub(super) fn disconnect(&self, device_id: &str, serial: u64) {
        let mut state = self.state();
        if state.sessions.close(device_id, serial)
            && let Some(device) = state.registry.device_mut(device_id)
        {
            device.set_connected(false, OffsetDateTime::now_utc());
        }
    }

    pub(super) fn subscribe(&self, device_id: &str, serial: u64, filter: &str, qos: QoS) -> Option<QoS> {
        self.state().sessions.subscribe(device_id, serial, filter, qos)
    }

    pub(super) fn unsubscribe(&self, device_id: &str, serial: u64, filter: &str) {
        self.state().sessions.unsubscribe(device_id, serial, filter);
    }

    /// The quality at which a device has subscribed to a filter.
    pub(super) fn quality(&self, device_id: &str, filter: &str) -> Option<QoS> {
        self.state().sessions.quality(device_id, filter)
    }

    /// Stores a device-to-cloud message.
    pub(super) fn store(&self, bag: Bag, body: Bytes, retain: bool, sender: &Sender) -> Result<(), telemetry::Refused> {
        let event = telemetry::event(bag, body, retain, sender, OffsetDateTime::now_utc())?;
        self.router.dispatch(RouteSource::DeviceMessages, event);
        self.counters.telemetry_accepted.add();
        Ok(())
    }

    /// The twin as the device sees it.
    pub(super) fn read_own_twin(&self, device_id: &str) -> Result<Value, HubError> {
        let twin = self.state().registry.known(device_id).map(|device| device.twin().for_device())?;
        self.counters.twins_read.add();
        Ok(twin)
    }

    /// Merges a device's patch into its reported properties; with a version only if it still is that. Returns the new one.
    pub(super) fn report(&self, device_id: &str, patch: &[u8], if_version: Option<&str>) -> Result<u64, HubError> {
        let result = self.try_report(device_id, patch, if_version);
        match &result {
            Ok(_) => self.counters.twins_patched.add(),
            Err(error) if matches!(error.code, Code::ArgumentInvalid | Code::IotHubFormatError) => {
                self.counters.twins_refused.add();
            }
            Err(_) => {}
        }
        result
    }

    fn try_report(&self, device_id: &str, patch: &[u8], if_version: Option<&str>) -> Result<u64, HubError> {
        let patch: Value =
            serde_json::from_slice(patch).map_err(|_| HubError::new(Code::ArgumentInvalid, "the patch is no JSON"))?;
        let if_version = if_version.map(str::parse::<u64>).transpose();
        let if_version = if_version.map_err(|_| HubError::new(Code::ArgumentInvalid, "$version is no number"))?;
        let now = OffsetDateTime::now_utc();
        let mut state = self.state();
        let device = state.registry.device_mut(device_id).ok_or_else(|| HubError::unknown_device(device_id))?;
        if if_version.is_some_and(|wanted| wanted != device.twin().reported_version()) {
            return Err(HubError::new(Code::PreconditionFailed, "Precondition failed: $version has moved on"));
        }
        let changed = device.twin_mut().report(&patch, now)?;
        let version = device.twin().reported_version();
        self.emit(Operation::UpdateTwin, device_id, changed.event, now);
        Ok(version)
    }

    // Stories and tests.

    pub(super) fn device_ids(&self) -> Vec<String> {
        self.state().registry.ids()
    }

    pub(super) fn set_device_enabled(&self, id: &str, enabled: bool) -> bool {
        let mut state = self.state();
        let known = state.registry.set_enabled(id, enabled, OffsetDateTime::now_utc());
        if !enabled {
            state.sessions.end(id);
        }
        known
    }
}

/// Tells the device of written desired properties, if it is connected and wants to know.
fn notify(state: &State, device_id: &str, changed: Changed) {
    let subscribed = state.sessions.quality(device_id, DESIRED_CHANGES).is_some();
    if let (true, Some((version, body))) = (subscribed, changed.desired) {
        state.sessions.notify(device_id, DesiredNote { version, body: body.to_string() });
    }
}
