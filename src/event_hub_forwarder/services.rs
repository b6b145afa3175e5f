//! What the forwarder needs of the clients, and what their failures mean to it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::event_hubs::{DeadLetter, EventHubs};
use crate::failure::Class;
use crate::ids::DeviceId;
use crate::iot_hub::{HubError, Identity, IotHub, Twin};
use crate::stack::{Downlink, QueueOperation, Registration, Stack, StackError};

/// Event Hubs answers in milliseconds; a reconnect of its producer takes seconds.
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(20);

/// The Things Stack answers what it does not know in milliseconds. A batch that used all its time has seconds left.
const STACK_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Stack,
    Hub,
    EventHubs,
}

/// What is special about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    No,
    /// The twin or identity has changed since it was read.
    Stale,
    /// The device has not joined, or is not registered yet.
    NoSession,
}

/// A failed call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Trouble {
    pub(super) service: Service,
    pub(super) class: Class,
    /// Whether it tells of the service, and so of every other call too.
    pub(super) outage: bool,
    pub(super) special: Special,
    pub(super) text: String,
}

impl Trouble {
    pub(super) fn is_stale(&self) -> bool {
        self.special == Special::Stale
    }
}

impl From<StackError> for Trouble {
    fn from(error: StackError) -> Self {
        // A device that is not registered yet has no session either: its join follows its registration.
        let waits = error.is_no_session() || error.is_device_not_found();
        Self {
            service: Service::Stack,
            class: error.class(),
            outage: error.is_outage(),
            special: if waits { Special::NoSession } else { Special::No },
            text: error.to_string(),
        }
    }
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        let class = error.class();
        let stale = error.is_stale();
        Self {
            service: Service::Hub,
            class: if stale { Class::Retry } else { class },
            outage: !stale && class != Class::Poison,
            special: if stale { Special::Stale } else { Special::No },
            text: error.to_string(),
        }
    }
}

/// The calls that the forwarder makes.
pub(super) trait Services: Send + Sync + 'static {
    fn twin(&self, id: &DeviceId) -> impl Future<Output = Result<Option<Twin>, Trouble>> + Send;
    fn patch_tags(
        &self,
        id: &DeviceId,
        tags: &Value,
        if_match: &str,
    ) -> impl Future<Output = Result<Twin, Trouble>> + Send;
    fn identity(&self, id: &DeviceId) -> impl Future<Output = Result<Option<Identity>, Trouble>> + Send;
    fn delete_identity(&self, id: &DeviceId, etag: &str) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn register(&self, device: &Registration) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn delete(&self, device: &DeviceId) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn queue_downlink(
        &self,
        device: &DeviceId,
        operation: QueueOperation,
        downlink: &Downlink,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn is_queued(&self, device: &DeviceId, correlation: &str) -> impl Future<Output = Result<bool, Trouble>> + Send;
    /// Whether every server of The Things Stack answers, about a device that does not exist.
    fn stack_answers(&self) -> impl Future<Output = bool> + Send;
    fn submit_event(
        &self,
        device: &DeviceId,
        body: &Value,
        properties: &Value,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;
    fn dead_letter(&self, letter: &DeadLetter) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// The real clients.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) stack: Arc<Stack>,
    pub(super) hub: Arc<IotHub>,
    pub(super) event_hubs: Arc<EventHubs>,
}

impl Services for Clients {
    async fn twin(&self, id: &DeviceId) -> Result<Option<Twin>, Trouble> {
        Ok(self.hub.twin(id).await?)
    }

    async fn patch_tags(&self, id: &DeviceId, tags: &Value, if_match: &str) -> Result<Twin, Trouble> {
        Ok(self.hub.patch_tags(id, tags, Some(if_match)).await?)
    }

    async fn identity(&self, id: &DeviceId) -> Result<Option<Identity>, Trouble> {
        Ok(self.hub.identity(id).await?)
    }

    async fn delete_identity(&self, id: &DeviceId, etag: &str) -> Result<(), Trouble> {
        Ok(self.hub.delete_identity(id, etag).await?)
    }

    async fn register(&self, device: &Registration) -> Result<(), Trouble> {
        Ok(self.stack.register(device).await?)
    }

    async fn delete(&self, device: &DeviceId) -> Result<(), Trouble> {
        Ok(self.stack.delete(device).await?)
    }

    async fn queue_downlink(
        &self,
        device: &DeviceId,
        operation: QueueOperation,
        downlink: &Downlink,
    ) -> Result<(), Trouble> {
        Ok(self.stack.queue_downlink(device, operation, downlink).await?)
    }

    async fn is_queued(&self, device: &DeviceId, correlation: &str) -> Result<bool, Trouble> {
        Ok(self.stack.is_queued(device, correlation).await?)
    }

    async fn stack_answers(&self) -> bool {
        timeout(STACK_ANSWER_TIMEOUT, self.stack.answers()).await.unwrap_or(false)
    }

    async fn submit_event(&self, device: &DeviceId, body: &Value, properties: &Value) -> Result<(), Trouble> {
        Ok(self.stack.submit_events(vec![self.stack.package_event(device, body, properties)]).await?)
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), Trouble> {
        let deadline = Instant::now() + DEAD_LETTER_TIMEOUT;
        self.event_hubs.dead_letter(letter, deadline).await.map_err(|error| Trouble {
            service: Service::EventHubs,
            // Whatever the reason: an event that is in no dead letter is not done.
            class: Class::Retry,
            outage: true,
            special: Special::No,
            text: format!("writing a dead letter failed: {error}"),
        })
    }
}
