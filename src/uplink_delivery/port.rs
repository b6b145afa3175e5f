//! What the uplink flows ask of the clients, so that they can be tested against scripted ones.

use std::future::Future;

use serde_json::Value;
use tokio::time::Instant;

use crate::event_hubs::{DeadLetter, EventHubs, EventHubsError, ParkedUplink};
use crate::failure::Class;
use crate::ids::{DeviceId, EndDevice};
use crate::iot_hub::{Flight, HubError, IotHub, Twin, TwinAnswer};

/// A failure of a client, as far as a flow has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it means for the message.
    pub class: Class,
    /// Whether a precondition was stale: read again.
    pub is_stale: bool,
    /// What failed and what to do about it.
    pub reason: String,
}

impl Failure {
    /// A passing failure.
    #[must_use]
    pub fn passing(reason: impl Into<String>) -> Self {
        Self { class: Class::Retry, is_stale: false, reason: reason.into() }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self { class: error.class(), is_stale: error.is_stale(), reason: error.to_string() }
    }
}

impl From<EventHubsError> for Failure {
    fn from(error: EventHubsError) -> Self {
        Self { class: error.class(), is_stale: false, reason: error.to_string() }
    }
}

/// What became of a flight, part by part. A part that was not asked for is `None`.
#[derive(Clone, Debug, Default)]
pub struct Landed {
    /// The device-to-cloud message.
    pub telemetry: Option<Result<(), Failure>>,
    /// The twin request.
    pub twin: Option<Result<TwinAnswer, Failure>>,
}

/// What the delivery asks of IoT Hub.
pub trait DeviceHub: Send + Sync + 'static {
    /// [`IotHub::fly`].
    fn fly(&self, device: &EndDevice, flight: Flight, deadline: Instant) -> impl Future<Output = Landed> + Send;
    /// [`IotHub::twin`].
    fn twin(&self, id: &DeviceId) -> impl Future<Output = Result<Option<Twin>, Failure>> + Send;
    /// [`IotHub::patch_tags`] with an etag.
    fn patch_tags(
        &self,
        id: &DeviceId,
        tags: &Value,
        if_match: &str,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl DeviceHub for IotHub {
    async fn fly(&self, device: &EndDevice, flight: Flight, deadline: Instant) -> Landed {
        let landing = IotHub::fly(self, device, flight, deadline).await;
        Landed {
            telemetry: landing.telemetry.map(|result| result.map_err(Failure::from)),
            twin: landing.twin.map(|result| result.map_err(Failure::from)),
        }
    }

    async fn twin(&self, id: &DeviceId) -> Result<Option<Twin>, Failure> {
        Ok(IotHub::twin(self, id).await?)
    }

    async fn patch_tags(&self, id: &DeviceId, tags: &Value, if_match: &str) -> Result<(), Failure> {
        IotHub::patch_tags(self, id, tags, Some(if_match)).await?;
        Ok(())
    }
}

/// Where an uplink goes that IoT Hub does not take.
pub trait Refuge: Send + Sync + 'static {
    /// [`EventHubs::park`].
    fn park(&self, uplink: &ParkedUplink, deadline: Instant) -> impl Future<Output = Result<(), Failure>> + Send;
    /// [`EventHubs::dead_letter`].
    fn dead_letter(&self, letter: &DeadLetter, deadline: Instant) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Refuge for EventHubs {
    async fn park(&self, uplink: &ParkedUplink, deadline: Instant) -> Result<(), Failure> {
        Ok(EventHubs::park(self, uplink, deadline).await?)
    }

    async fn dead_letter(&self, letter: &DeadLetter, deadline: Instant) -> Result<(), Failure> {
        Ok(EventHubs::dead_letter(self, letter, deadline).await?)
    }
}
