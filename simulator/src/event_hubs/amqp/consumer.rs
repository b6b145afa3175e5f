//! The link of a consumer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fe2o3_amqp::Sender;
use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp::link::{DetachError, SendError};
use fe2o3_amqp_types::definitions::{AmqpError, Error};
use fe2o3_amqp_types::messaging::Source;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};

use super::message;
use super::nodes::Broker;
use super::readers::Place;
use super::selector::Start;
use crate::amqp::{LinkRight, error};
use crate::event_hubs::EventHub;

const SELECTOR: &str = "apache.org:selector-filter:string";
/// Events read from the store at once.
const READ_AHEAD: usize = 64;

/// What a consumer reads, and by what right.
pub(super) struct Consumer {
    pub(super) broker: Arc<Broker>,
    pub(super) hub: Arc<EventHub>,
    pub(super) partition: usize,
    /// Sequence number of the next event.
    pub(super) next: i64,
    pub(super) right: LinkRight,
    pub(super) place: Place,
    /// Whether every event says how far the partition has come.
    pub(super) metric: bool,
}

/// Why the link of a consumer ended by itself.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Detach(#[from] DetachError),
    #[error("the event hub is gone")]
    HubGone,
}

/// Gives events as credit allows, until the link ends, its token does, or another reader takes the partition over.
pub(super) async fn serve(mut link: Sender, mut consumer: Consumer) {
    let Consumer { broker, hub, partition, next, right, place, metric } = &mut consumer;
    let ended = tokio::select! {
        ended = deliver(&mut link, broker, hub, *partition, *next, *metric) => Err(ended),
        why = right.end() => Ok(why),
        why = place.taken() => Ok(why),
    };
    match ended {
        Ok(why) => {
            if let Err(error) = link.close_with_error(why).await {
                tracing::debug!(%error, "a consumer was gone before it was sent away");
            }
        }
        Err(reason) => tracing::debug!(%reason, "a consumer ended"),
    }
}

/// Returns only when the link ends.
async fn deliver(
    link: &mut Sender,
    broker: &Broker,
    hub: &EventHub,
    partition: usize,
    mut next: i64,
    metric: bool,
) -> Ended {
    let mut appended = hub.appended();
    let mut unsettled = FuturesUnordered::new();
    loop {
        appended.mark_unchanged();
        let events = hub.read(partition, next, READ_AHEAD);
        for stored in &events {
            let mut message = message::message(stored);
            if metric {
                message.delivery_annotations = Some(message::runtime_metric(&hub.state(partition)));
            }
            let event = Sendable { message, message_format: 0, settled: Some(true) };
            // Waits for credit. Settled on sending where the client left the choice to us.
            match link.send_batchable(event).await {
                Ok(settled) => unsettled.push(settled),
                Err(error) => return error.into(),
            }
            broker.sent.fetch_add(1, Ordering::Relaxed);
            next = stored.sequence_number + 1;
        }
        while let Some(Some(settled)) = unsettled.next().now_or_never() {
            if let Err(error) = settled {
                return error.into();
            }
        }
        if !events.is_empty() {
            continue;
        }
        tokio::select! {
            changed = appended.changed() => if changed.is_err() {
                return Ended::HubGone;
            },
            Some(settled) = unsettled.next() => if let Err(error) = settled {
                return error.into();
            },
            ended = link.on_detach() => return ended.into(),
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
