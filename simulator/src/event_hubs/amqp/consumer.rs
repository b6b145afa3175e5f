//! The link of a consumer.

use std::sync::atomic::Ordering;

use fe2o3_amqp::Sender;
use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp::link::{DetachError, SendError};
use fe2o3_amqp_types::definitions::{AmqpError, Error};
use fe2o3_amqp_types::messaging::Source;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::connection::error;
use super::selector::Start;
use super::{Broker, message};
use crate::event_hubs::EventHub;

const SELECTOR: &str = "apache.org:selector-filter:string";
/// Events read from the store at once.
const READ_AHEAD: usize = 64;

/// Why the link of a consumer ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Detach(#[from] DetachError),
    #[error("the event hub is gone")]
    HubGone,
}

/// Gives events from a sequence number on, as credit allows, until the link ends.
pub(super) async fn serve(
    mut link: Sender,
    hub: &EventHub,
    partition: usize,
    mut next: i64,
    broker: &Broker,
) -> Result<(), Ended> {
    let mut appended = hub.appended();
    let mut unsettled = FuturesUnordered::new();
    loop {
        appended.mark_unchanged();
        let events = hub.read(partition, next, READ_AHEAD);
        for stored in &events {
            let event = Sendable { message: message::message(stored), message_format: 0, settled: Some(true) };
            // Waits for credit. Settled on sending where the client left the choice to us.
            unsettled.push(link.send_batchable(event).await?);
            broker.sent.fetch_add(1, Ordering::Relaxed);
            next = stored.sequence_number + 1;
        }
        if !events.is_empty() {
            continue;
        }
        tokio::select! {
            changed = appended.changed() => changed.map_err(|_| Ended::HubGone)?,
            Some(settled) = unsettled.next() => {
                settled?;
            }
            ended = link.on_detach() => return Err(ended.into()),
        }
    }
}

/// Where the client wants to begin.
pub(super) fn start(source: Option<&Source>) -> Result<Start, Error> {
    let filter = source.and_then(|source| source.filter.as_ref());
    let selector = filter.and_then(|filter| filter.get(&Symbol::from(SELECTOR)));
    let text = match selector {
        None | Some(Value::Null) => return Ok(Start::Oldest),
        Some(Value::Described(described)) => &described.value,
        Some(other) => other,
    };
    let start = if let Value::String(text) = text { Start::parse(text) } else { None };
    start.ok_or_else(|| error(AmqpError::InvalidField, format!("the selector is not supported: {text:?}")))
}
