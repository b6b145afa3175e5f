//! What devices do to the hub.

use bytes::Bytes;
use mqtt_proto::QoS;
use mqtt_proto::v3::Connect;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::Hub;
use crate::iot_hub::connect::{self, Grant, Refusal};
use crate::iot_hub::error::{Code, HubError};
use crate::iot_hub::property_bag::Bag;
use crate::iot_hub::routing::{Operation, RouteSource};
use crate::iot_hub::sessions::Opened;
use crate::iot_hub::telemetry::{self, Sender};

impl Hub {
    /// Opens the session of a CONNECT.
    pub(in crate::iot_hub) fn connect(
        &self,
        packet: &Connect,
        socket: &CancellationToken,
    ) -> Result<(Grant, Opened), Refusal> {
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
    pub(in crate::iot_hub) fn disconnect(&self, device_id: &str, serial: u64) {
        let mut state = self.state();
        if state.sessions.close(device_id, serial)
            && let Some(device) = state.registry.device_mut(device_id)
        {
            device.set_connected(false, OffsetDateTime::now_utc());
        }
    }

    pub(in crate::iot_hub) fn subscribe(&self, device_id: &str, serial: u64, filter: &str, qos: QoS) -> Option<QoS> {
        self.state().sessions.subscribe(device_id, serial, filter, qos)
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
        retain: bool,
        sender: &Sender,
    ) -> Result<(), telemetry::Refused> {
        let event = telemetry::event(bag, body, retain, sender, OffsetDateTime::now_utc())?;
        self.router.dispatch(RouteSource::DeviceMessages, event);
        self.counters.telemetry_accepted.add();
        Ok(())
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
}
