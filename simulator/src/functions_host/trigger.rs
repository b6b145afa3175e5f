//! Event Hub triggers: one loop per partition, with retries and checkpoints.
//!
//! Sources: `Azure/azure-sdk-for-net` `EventHubListener.PartitionProcessor.cs`, `Azure/azure-webjobs-sdk`
//! `FunctionExecutorExtensions.cs`, and recordings of a running host.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::call::attempt;
use super::envelope::{Origin, ReceivedEvent, RetryContext, envelope};
use super::function::Shape;
use super::json::Json;
use super::retry::RetryPolicy;
use super::shared::{Cursor, Shared, count};
use super::time_span;
use crate::event_hubs::EventHub;

/// One partition that a function reads.
pub(super) struct Consumer {
    pub(super) hub: Arc<EventHub>,
    pub(super) cursor: Cursor,
    pub(super) origin: Origin,
    pub(super) retry: RetryPolicy,
}

/// Whether the checkpoint may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// With success, or after the last retry: both count.
    Done,
    /// By the end of the host: the batch comes again.
    Cancelled,
}

/// Delivers the events of one partition, batch after batch, until the host stops.
pub(super) async fn consume(shared: Arc<Shared>, consumer: Consumer) {
    let mut appended = consumer.hub.appended();
    let mut instance = shared.instance.subscribe();
    while !shared.draining.is_cancelled() {
        appended.mark_unchanged();
        instance.mark_unchanged();
        let from = shared.checkpoint(&consumer.cursor);
        let events = consumer.hub.read(consumer.cursor.partition, from, shared.app.max_batch);
        let Some(last) = events.last() else {
            tokio::select! {
                changed = appended.changed() => changed.expect("the hub lives in the consumer"),
                () = shared.draining.cancelled() => {}
            }
            continue;
        };
        let received: Vec<_> = events.iter().map(|event| ReceivedEvent::from(event.as_ref())).collect();
        tokio::select! {
            ended = deliver(&shared, &consumer, &received) => {
                if ended == Ended::Done {
                    count(&shared.counts.checkpoints, 1);
                    shared.set_checkpoint(&consumer.cursor, last.sequence_number + 1);
                }
            }
            _lost = instance.changed() => shared.log.host("the instance is lost: the batch comes again"),
            () = shared.stop.cancelled() => {}
        }
    }
}

/// A batch as the function wants it: whole, or event by event with one checkpoint after all of them.
async fn deliver(shared: &Shared, consumer: &Consumer, events: &[ReceivedEvent]) -> Ended {
    let _running = shared.run(&shared.batches_running);
    let size = if consumer.origin.shape == Shape::OneBinary { 1 } else { events.len() };
    for part in events.chunks(size) {
        if invoke(shared, consumer, part).await == Ended::Cancelled {
            return Ended::Cancelled;
        }
    }
    Ended::Done
}

/// One invocation with all its retries, under one id.
async fn invoke(shared: &Shared, consumer: &Consumer, events: &[ReceivedEvent]) -> Ended {
    let function = &consumer.origin.function;
    let id = Uuid::new_v4().to_string();
    count(&shared.counts.batches, 1);
    shared.log.host(format!(
        "Executing 'Functions.{function}' (Id={id}), partition {}, {} events",
        consumer.origin.partition_id,
        events.len()
    ));
    let mut exception = Json::Null;
    for tries in 0u32.. {
        let retry = consumer.retry.max_retry_count();
        let retry = retry.map(|max| RetryContext { count: tries, max, exception: exception.clone() });
        let result = attempt(shared, function, &id, &envelope(&consumer.origin, events, retry.as_ref())).await;
        if shared.draining.is_cancelled() {
            // The result is taken, but the host's token is cancelled: no checkpoint.
            return Ended::Cancelled;
        }
        let failure = match result {
            Ok(lines) => {
                for line in lines {
                    shared.log.invocation(function, line);
                }
                count(&shared.counts.events_delivered, events.len());
                return Ended::Done;
            }
            Err(failure) => failure,
        };
        shared.log.host(format!("Executed 'Functions.{function}' (Failed, Id={id}): {}", failure.describe()));
        let Some(delay) = consumer.retry.delay(tries.saturating_add(1)) else { return Ended::Done };
        if pause(shared, delay, tries.saturating_add(1)).await == Ended::Cancelled {
            return Ended::Cancelled;
        }
        count(&shared.counts.retries, 1);
        exception = failure.exception(function, &id);
    }
    Ended::Done
}

async fn pause(shared: &Shared, delay: Duration, next: u32) -> Ended {
    let delay_text = time_span::format(delay);
    shared.log.host(format!("Waiting for `{delay_text}` before retrying function execution. Next attempt: '{next}'."));
    tokio::select! {
        () = tokio::time::sleep(delay) => Ended::Done,
        () = shared.draining.cancelled() => {
            shared.log.host("Invocation cancelled - exiting retry loop.");
            Ended::Cancelled
        }
    }
}
