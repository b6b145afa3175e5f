//! The contract with the Azure Functions host: what it sends, what it takes for an answer.

mod body;
mod envelope;
mod server;

pub use body::{BodyError, drain_body, read_body};
pub use envelope::{MalformedEnvelope, decode};
pub use server::Functions;

use std::future::Future;

use bytes::Bytes;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One delivery of an Event Hub trigger (`cardinality: many`, `dataType: binary`).
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The host's id of it; the same for every retry.
    pub id: String,
    /// How often this batch was tried before: `RetryContext.RetryCount`.
    pub retry_count: u32,
    /// The partition that all events come from.
    pub partition_id: String,
    /// The events, in the order of the partition.
    pub events: Vec<Event>,
}

/// One event of a batch.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// The body as it was sent.
    pub body: Bytes,
    /// Place in the partition; an event that an operator posts by hand has none.
    pub sequence_number: Option<i64>,
    /// When it was enqueued, RFC 3339 without a zone (UTC).
    pub enqueued_at: Option<String>,
    /// Application properties: whoever sent the event chose them.
    pub properties: Map<String, Value>,
    /// System properties: the AMQP properties and the message annotations, among them `iothub-…`.
    pub system_properties: Map<String, Value>,
}

impl Invocation {
    /// Whole seconds since the oldest of its events was enqueued: how far behind the function is. `None` where no event
    /// says when, as one that an operator posts by hand.
    #[must_use]
    pub fn lag_s(&self, now: OffsetDateTime) -> Option<i64> {
        let oldest = self.events.iter().filter_map(Event::enqueued_time).min()?;
        // The clocks of the broker and of this machine differ.
        Some((now - oldest).whole_seconds().max(0))
    }
}

/// Where an event stands: the same in every delivery of it, and of no other event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    partition_id: String,
    sequence_number: i64,
    /// An Event Hub that was made anew counts from zero again.
    enqueued_at: Option<String>,
}

impl Event {
    /// When it was enqueued. The host writes the time without its zone, and could one day write it with one.
    fn enqueued_time(&self) -> Option<OffsetDateTime> {
        let text = self.enqueued_at.as_deref()?;
        let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
        parse(text).or_else(|| parse(&format!("{text}Z")))
    }

    /// Its place; `None` for one that was posted by hand: nothing tells it from the next.
    #[must_use]
    pub fn place(&self, partition_id: &str) -> Option<Place> {
        Some(Place {
            partition_id: partition_id.to_owned(),
            sequence_number: self.sequence_number?,
            enqueued_at: self.enqueued_at.clone(),
        })
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every event is done with; the host may move its checkpoint. The lines go to the invocation's log.
    Done(Vec<String>),
    /// The host shall deliver the same batch again.
    Retry(String),
}

/// A function that an Event Hub triggers.
pub trait EventHubFunction: Send + Sync + 'static {
    /// Handles one batch.
    fn run(&self, invocation: Invocation) -> impl Future<Output = Outcome> + Send;
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_batch_is_as_far_behind_as_its_oldest_event() {
        let lag = |enqueued: &[Option<&str>]| {
            let event = |at: &Option<&str>| Event { enqueued_at: at.map(str::to_owned), ..Event::default() };
            let events = enqueued.iter().map(event).collect();
            let invocation = Invocation { id: String::new(), retry_count: 0, partition_id: String::new(), events };
            invocation.lag_s(datetime!(2026-03-01 10:21:00 UTC))
        };
        // As the recordings of a real host have it, with and without a fraction; and with a zone.
        assert_eq!(lag(&[Some("2026-03-01T10:20:30.411"), Some("2026-03-01T10:20:10")]), Some(50));
        assert_eq!(lag(&[Some("2026-03-01T11:20:30.411+01:00")]), Some(29));
        assert_eq!(lag(&[Some("2026-03-01T10:21:00.5")]), Some(0), "clocks differ");
        assert_eq!(lag(&[None, Some("yesterday")]), None);
        assert_eq!(lag(&[]), None);
    }
}
