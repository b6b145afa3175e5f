//! What devices do to the hub.

use bytes::Bytes;
use mqtt_proto::QoS;
use mqtt_proto::v3::{Connect, ConnectReturnCode};
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{Hub, State};
use crate::iot_hub::connect::{self, Grant, Refusal};
use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::injected_fault;
use crate::iot_hub::limits::Billable;
use crate::iot_hub::property_bag::Bag;
use crate::iot_hub::routing::{Operation, RouteSource};
use crate::iot_hub::sessions::Opened;
use crate::iot_hub::telemetry::{self, Marks, Sender};
use crate::iot_hub::twin::parse_document;
use crate::iot_hub::will::Will;

impl Hub {
    /// Opens the session of a CONNECT.
    pub(in crate::iot_hub) fn connect(
        &self,
        packet: &Connect,
        socket: &CancellationToken,
    ) -> Result<(Grant, Opened), Refusal> {
        let now = self.clock.now();
        let mut state = self.state();
        let grant = connect::authorise(packet, &self.name, &self.policies, &state.registry, now)
            .and_then(|grant| match state.injected.of(&grant.sender.device_id, now).and_then(Refusal::of_fault) {
                Some(refusal) => Err(refusal),
                None => Ok(grant),
            })
            .inspect_err(|refusal| {
                if refusal.code() == Some(ConnectReturnCode::NotAuthorized) {
                    self.counters.connects_refused.add();
                }
                self.tell_refused(packet, refusal);
            })?;
        let id = &grant.sender.device_id;
        let opened = state.sessions.open(id, packet.clean_session, socket);
        if let Some(device) = state.registry.device_mut(id) {
            device.set_connected(true, now);
        }
        if packet.clean_session {
            self.purge_locked(&mut state, id, now);
        }
        self.came_online.notify_waiters();
        self.counters.connects.add();
        self.tell_connected(id, opened.took_over);
        if opened.took_over {
            self.counters.takeovers.add();
        }
        Ok((grant, opened))
    }

    /// Notes that a connection has ended.
    pub(in crate::iot_hub) fn disconnect(&self, device_id: &str, serial: u64) {
        let mut state = self.state();
        if state.sessions.close(device_id, serial) {
            self.note_connection_end(&mut state, device_id, self.clock.now());
        }
        self.release_messages(&mut state, device_id, serial);
    }

    /// Ends the session of a device that may no longer connect.
    pub(super) fn end_session(&self, state: &mut State, device_id: &str, now: OffsetDateTime) {
        if state.sessions.end(device_id) {
            self.note_connection_end(state, device_id, now);
        }
    }

    fn note_connection_end(&self, state: &mut State, device_id: &str, now: OffsetDateTime) {
        if let Some(device) = state.registry.device_mut(device_id) {
            device.set_connected(false, now);
        }
        self.tell_connection_end(device_id, "closed");
    }

    pub(in crate::iot_hub) fn subscribe(&self, device_id: &str, serial: u64, filter: &str, qos: QoS) -> Option<QoS> {
        let mut state = self.state();
        let granted = state.sessions.subscribe(device_id, serial, filter, qos);
        state.sessions.wake(device_id);
        self.came_online.notify_waiters();
        granted
    }

    pub(in crate::iot_hub) fn unsubscribe(&self, device_id: &str, serial: u64, filter: &str) {
        self.state().sessions.unsubscribe(device_id, serial, filter);
    }

    /// The quality at which a device has subscribed to a filter.
    pub(in crate::iot_hub) fn quality(&self, device_id: &str, filter: &str) -> Option<QoS> {
        self.state().sessions.quality(device_id, filter)
    }

    /// Stores a device-to-cloud message.
    pub(in crate::iot_hub) fn store(
        &self,
        bag: Bag,
        body: Bytes,
        marks: Marks,
        sender: &Sender,
    ) -> Result<(), telemetry::Refused> {
        let bytes = telemetry::size(&bag, &body);
        let event = telemetry::event(bag, body, marks, sender, self.clock.now())?;
        self.tell_telemetry(&sender.device_id, &event);
        self.router.dispatch(RouteSource::DeviceMessages, event, &|| self.twin(&sender.device_id).ok());
        self.counters.telemetry_accepted.add();
        self.bill(Billable::D2c, bytes);
        Ok(())
    }

    /// Sends the will of a device whose connection ended without DISCONNECT.
    pub(in crate::iot_hub) fn execute(&self, will: Will, sender: &Sender) {
        let marks = Marks { retain: will.retain, will: true, ..Marks::default() };
        match self.store(will.bag, will.body, marks, sender) {
            Ok(()) => self.counters.wills.add(),
            Err(error) => tracing::debug!(device = sender.device_id, %error, "a will is refused"),
        }
    }

    /// Takes a fault that a device orders. Returns when its connection falls.
    pub(in crate::iot_hub) fn order_fault(&self, device_id: &str, order: injected_fault::Order) -> OffsetDateTime {
        self.counters.faults_injected.add();
        self.state().injected.order(device_id, order, self.clock.now())
    }

    /// The ordered fault that a device suffers from now.
    pub(in crate::iot_hub) fn ordered_fault(&self, device_id: &str) -> Option<injected_fault::Kind> {
        self.state().injected.of(device_id, self.clock.now())
    }

    /// The twin as the device sees it.
    pub(in crate::iot_hub) fn read_own_twin(&self, device_id: &str) -> Result<Value, HubError> {
        let twin = self.state().registry.known(device_id).map(|device| device.twin().for_device())?;
        self.counters.twins_read.add();
        Ok(twin)
    }

    /// Merges a device's patch into its reported properties; with a version only if it still is that. Returns the new one.
    pub(in crate::iot_hub) fn report(
        &self,
        device_id: &str,
        patch: &[u8],
        if_version: Option<&str>,
    ) -> Result<u64, HubError> {
        let result = self.try_report(device_id, patch, if_version);
        self.tell_report(device_id, patch, &result);
        match &result {
            Ok(_) => {
                self.counters.twins_patched.add();
                self.bill(Billable::TwinUpdate, patch.len());
            }
            Err(error) if matches!(error.code, Code::ArgumentInvalid | Code::IotHubFormatError) => {
                self.counters.twins_refused.add();
            }
            Err(_) => {}
        }
        result
    }

    fn try_report(&self, device_id: &str, patch: &[u8], if_version: Option<&str>) -> Result<u64, HubError> {
        let patch = parse_document(patch)
            .map_err(|error| HubError::new(Code::ArgumentInvalid, format!("the patch: {error}")))?;
        let if_version = if_version.map(str::parse::<u64>).transpose();
        let if_version = if_version.map_err(|_| HubError::new(Code::ArgumentInvalid, "$version is no number"))?;
        let now = self.clock.now();
        let mut state = self.state();
        let device = state.registry.device_mut(device_id).ok_or_else(|| HubError::unknown_device(device_id))?;
        if if_version.is_some_and(|wanted| wanted != device.twin().reported_version()) {
            return Err(HubError::new(Code::PreconditionFailed, "Precondition failed: $version has moved on"));
        }
        let changed = device.twin_mut().report(&patch, now)?;
        let version = device.twin().reported_version();
        self.emit(&state, Operation::UpdateTwin, device_id, changed.event, now);
        Ok(version)
    }
}
