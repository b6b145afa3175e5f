//! Event Hub triggers: one loop per partition, with retries and checkpoints.
//!
//! Sources: `Azure/azure-sdk-for-net` `EventHubListener.PartitionProcessor.cs`, `Azure/azure-webjobs-sdk`
//! `FunctionExecutorExtensions.cs`, and recordings of a running host.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::call::attempt;
use super::envelope::{Content, Origin, ReceivedEvent, RetryContext, envelope};
use super::fleet::Instance;
use super::function::EventHubTrigger;
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

/// Delivers the events of one partition, batch after batch, until the host stops or drains.
pub(super) async fn consume(shared: Arc<Shared>, consumer: Consumer) {
    let mut appended = consumer.hub.appended();
    let is_over = || shared.draining.is_cancelled() || shared.drained.is_cancelled();
    while !is_over() {
        appended.mark_unchanged();
        let from = shared.checkpoint(&consumer.cursor);
        let events = consumer.hub.read(consumer.cursor.partition, from, shared.app.max_batch);
        let Some(last) = events.last() else {
            tokio::select! {
                changed = appended.changed() => changed.expect("the hub lives in the consumer"),
                () = shared.draining.cancelled() => {}
                () = shared.drained.cancelled() => {}
            }
            continue;
        };
        let received: Vec<_> = events.iter().map(|event| ReceivedEvent::from(event.as_ref())).collect();
        let owner = shared.fleet.for_partition(&consumer.origin.function, consumer.cursor.partition);
        let mut lost = owner.lost.subscribe();
        tokio::select! {
            ended = deliver(&shared, &owner, &consumer, &received) => {
                if ended == Ended::Done {
                    count(&shared.counts.checkpoints, 1);
                    shared.set_checkpoint(&consumer.cursor, last.sequence_number + 1);
                }
            }
            _lost = lost.changed() => shared.log.host("the instance is lost: the batch comes again"),
            () = shared.stop.cancelled() => {}
        }
    }
}

/// A batch as the function wants it: whole, or event by event with one checkpoint after all of them.
async fn deliver(shared: &Shared, owner: &Instance, consumer: &Consumer, events: &[ReceivedEvent]) -> Ended {
    let _running = shared.run(&shared.batches_running, owner);
    let size = if consumer.origin.shape.is_one() { 1 } else { events.len() };
    for part in events.chunks(size) {
        let content = Content::Events(part);
        if invoke(shared, owner, &consumer.origin, consumer.retry, content).await == Ended::Cancelled {
            return Ended::Cancelled;
        }
    }
    Ended::Done
}

/// Calls a function with a text of an operator, with its retries.
pub(super) async fn invoke_by_hand(shared: Arc<Shared>, function: String, trigger: EventHubTrigger, input: String) {
    let owner = shared.fleet.for_partition(&function, 0);
    let retry = trigger.retry;
    let origin = trigger.origin(&function, "", 0);
    let _running = shared.run(&shared.batches_running, &owner);
    let mut lost = owner.lost.subscribe();
    tokio::select! {
        _ended = invoke(&shared, &owner, &origin, retry, Content::Input(&input)) => {}
        _lost = lost.changed() => shared.log.host("the instance is lost, and with it a call by hand"),
        () = shared.stop.cancelled() => {}
    }
}

/// One invocation with all its retries, under one id.
async fn invoke(
    shared: &Shared,
    owner: &Instance,
    origin: &Origin,
    policy: RetryPolicy,
    content: Content<'_>,
) -> Ended {
    let function = &origin.function;
    let id = Uuid::new_v4().to_string();
    let events = match content {
        Content::Events(events) => events.len(),
        Content::Input(_) => 0,
    };
    count(&shared.counts.batches, usize::from(events > 0));
    shared.log.host(format!(
        "Executing 'Functions.{function}' (Id={id}), partition {}, {events} events",
        origin.partition_id
    ));
    let mut exception = Json::Null;
    for tries in 0u32.. {
        let retry = policy.max_retry_count();
        let retry = retry.map(|max| RetryContext { count: tries, max, exception: exception.clone() });
        let result = match envelope(origin, content, retry.as_ref()) {
            Ok(body) => attempt(shared, owner, function, &id, &body).await,
            // The function is not called.
            Err(failure) => Err(failure),
        };
        if shared.draining.is_cancelled() {
            // The result is taken, but the host's token is cancelled: no checkpoint.
            return Ended::Cancelled;
        }
        let failure = match result {
            Ok(lines) => {
                for line in lines {
                    shared.log.invocation(function, line);
                }
                count(&shared.counts.events_delivered, events);
                shared.log.happened(format!("{function}: {events} events done"), json!({"what": "success", "id": id}));
                return Ended::Done;
            }
            Err(failure) => failure,
        };
        shared.log.host(format!("Executed 'Functions.{function}' (Failed, Id={id}): {}", failure.describe()));
        shared.log.happened(
            format!("{function}: failed, {}", failure.describe()),
            json!({"what": "failure", "id": id, "tries": tries}),
        );
        let Some(delay) = policy.delay(tries.saturating_add(1)) else { return Ended::Done };
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
    let _waiting = shared.wait_for_retry();
    tokio::select! {
        () = tokio::time::sleep(shared.pace.of(delay)) => Ended::Done,
        () = shared.draining.cancelled() => {
            shared.log.host("Invocation cancelled - exiting retry loop.");
            Ended::Cancelled
        }
    }
}
