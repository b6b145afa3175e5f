//! Azure Event Hubs: where an uplink waits that could not be delivered, and where goes what never can be.

mod access;
mod dead_letter;
mod error;
mod message;
mod parked;
mod producer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use futures::future::join_all;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::time::Instant;

pub use error::EventHubsError;

use crate::config::EventHubsConfig;
use crate::ids::EndDevice;
use access::Access;
use producer::Producer;

/// The Event Hub whose events trigger EventHubForwarder.
pub const STACK_EVENTS: &str = "stack-events";
/// The Event Hub of parked uplinks.
pub const PARKED_UPLINKS: &str = "parked-uplinks";
/// The Event Hub of dead letters.
pub const DEAD_LETTERS: &str = "dead-letters";

/// What of an uplink is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The device-to-cloud message.
    pub telemetry: bool,
    /// The reported properties.
    pub twin: bool,
    /// A downlink that waits for this join.
    pub waiting_downlink: bool,
}

/// An uplink that waits. The event's body is the webhook's body, byte for byte; the rest stands in application properties.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedUplink {
    /// The webhook's body.
    pub body: Bytes,
    /// Its device (the body may not name it).
    pub device: EndDevice,
    /// What is still open.
    pub open: Open,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When it failed first, RFC 3339.
    pub first_failed_at: String,
    /// Why it failed first.
    pub first_failure: String,
}

/// What never can be delivered, and why. Holds no secret.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The function that gave it up.
    pub function: &'static str,
    /// Why.
    pub reason: String,
    /// Its device, if known.
    pub device_id: Option<String>,
    /// The body that could not be processed.
    pub body: Bytes,
    /// Properties of the original event that a replay needs.
    pub properties: Map<String, Value>,
}

/// A link takes one event per round trip, some hundred in a second; in an outage every webhook is parked, each within its deadline.
/// The events of one device share a link, to keep their order.
const PARKING_LINKS: usize = 4;

/// The producers of both Event Hubs, opened at start and kept warm.
pub struct EventHubs {
    parked: [Producer; PARKING_LINKS],
    dead_letters: Producer,
}

impl fmt::Debug for EventHubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHubs").finish_non_exhaustive()
    }
}

impl EventHubs {
    /// Prepares the client; the connections are opened in the background and again after a loss.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the connection string cannot be used, or there is no managed identity here.
    pub fn new(config: &EventHubsConfig) -> Result<Self, EventHubsError> {
        let access = Access::new(&config.auth)?;
        Ok(Self {
            parked: std::array::from_fn(|_| Producer::new(access.clone(), PARKED_UPLINKS)),
            dead_letters: Producer::new(access, DEAD_LETTERS),
        })
    }

    /// Parks an uplink. Returns by the deadline.
    ///
    /// # Errors
    /// If the Event Hub did not take it. After [`EventHubsError::Late`] it may still do so.
    pub async fn park(&self, uplink: &ParkedUplink, deadline: Instant) -> Result<(), EventHubsError> {
        let mut hasher = DefaultHasher::new();
        uplink.device.id.hash(&mut hasher);
        let link = hasher.finish() as usize % PARKING_LINKS;
        self.parked[link].send(&uplink.to_message(), deadline).await
    }

    /// Writes a dead letter; one that is too large loses its body. Returns by the deadline.
    ///
    /// # Errors
    /// If the Event Hub did not take it. After [`EventHubsError::Late`] it may still do so.
    pub async fn dead_letter(&self, letter: &DeadLetter, deadline: Instant) -> Result<(), EventHubsError> {
        let now = OffsetDateTime::now_utc();
        let mut omitted_bytes = None;
        match self.dead_letters.send(&letter.to_message(now), deadline).await {
            Err(EventHubsError::TooLarge { .. }) => {
                self.dead_letters.send(&letter.to_message_without_body(now), deadline).await?;
                omitted_bytes = Some(letter.body.len());
            }
            outcome => outcome?,
        }
        // Here, because every dead letter of every function passes here, and only one that was written counts.
        let (function, device, reason) = (letter.function, letter.device_id.as_deref(), letter.cut_reason());
        tracing::warn!(function, device, reason, omitted_bytes, "dead letter");
        Ok(())
    }

    /// Closes the connections; later calls fail.
    pub async fn close(&self) {
        join_all(self.parked.iter().chain([&self.dead_letters]).map(Producer::close)).await;
    }
}
