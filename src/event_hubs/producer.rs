//! The producer of one Event Hub: opened in the background, kept warm, opened again after a loss.
//!
//! One task, the keeper, opens connections, so there is never more than one attempt at a time.

use std::sync::Arc;
use std::time::Duration;

use azure_messaging_eventhubs::error::ErrorKind;
use azure_messaging_eventhubs::models::AmqpMessage;
use azure_messaging_eventhubs::{EventDataBatchOptions, ProducerClient};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::EventHubsError;
use super::access::Access;
use super::message::encoded_bytes;
use crate::failure::Class;

/// Opening takes DNS, TCP, TLS, SASL, a token and a link: some ten round trips.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// A healthy namespace answers within tens of milliseconds. After this silence the connection counts as lost and the event is sent
/// again on a new one: the client library does not notice that a link is detached while it waits for the outcome of a send, and
/// nobody notices a connection that a firewall forgot. An event may so arrive twice; losing it would be worse.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// Large events get more patience by it. A namespace in the same region takes many times as much; at this rate the largest event of
/// the standard tier, 1 MiB, gets just the longest patience.
const SLOWEST_BYTES_PER_S: u32 = 2 * 1024 * 1024;
/// Patience with an event of any size. Others wait behind it for the link's only turn: it must never take longer than the whole
/// time that a webhook has for parking, 1.2 s.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);
/// A farewell is a courtesy.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// First pause between attempts to open or to send; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between attempts to open while the namespace is out of reach: calls wait for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause while we are denied: an operator has to act, and waiting calls are answered at once.
const LONGEST_DENIED_PAUSE: Duration = Duration::from_secs(30);
/// A connection that lived so long is no reason for a pause before the next.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// An open connection with its link.
struct Warm {
    client: ProducerClient,
    /// The largest event that the link takes; 0 if it takes any.
    max_bytes: u64,
    /// Set by whoever finds the connection broken.
    lost: CancellationToken,
}

#[derive(Clone)]
enum State {
    Opening,
    Open(Arc<Warm>),
    Failed(EventHubsError),
    Closed,
}

/// The producer of one Event Hub.
pub(super) struct Producer {
    hub: &'static str,
    state: watch::Receiver<State>,
    /// The link takes one event after another; waiting here does not count as the namespace's silence.
    turn: Arc<Semaphore>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Producer {
    /// Begins to open the producer.
    pub(super) fn new(access: Access, hub: &'static str) -> Self {
        let stop = CancellationToken::new();
        let (state, receiver) = watch::channel(State::Opening);
        tokio::spawn(Keeper { access, hub, state, stop: stop.clone() }.run());
        Self { hub, state: receiver, turn: Arc::new(Semaphore::new(1)), _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// Sends an event; tries again until the deadline, unless trying again is of no use.
    pub(super) async fn send(&self, message: &AmqpMessage, deadline: Instant) -> Result<(), EventHubsError> {
        let mut last = None;
        match timeout_at(deadline, self.send_until_taken(message, &mut last)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(EventHubsError::Late { hub: self.hub, last: last.map(Box::new) }),
        }
    }

    async fn send_until_taken(
        &self,
        message: &AmqpMessage,
        last: &mut Option<EventHubsError>,
    ) -> Result<(), EventHubsError> {
        let mut pause = FIRST_PAUSE;
        let mut is_renewed = false;
        loop {
            let error = match self.send_once(message, last, &mut is_renewed).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.class() {
                Class::Denied | Class::Poison => return Err(error),
                Class::Retry if matches!(error, EventHubsError::Closed { .. }) => return Err(error),
                Class::Retry | Class::Throttled => *last = Some(error),
            }
            sleep(pause).await;
            pause = next(pause, LONGEST_PAUSE);
        }
    }

    /// Waits for an open connection.
    async fn warm(&self, last: &mut Option<EventHubsError>) -> Result<Arc<Warm>, EventHubsError> {
        let closed = || EventHubsError::Closed { hub: self.hub };
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Open(warm) if !warm.lost.is_cancelled() => return Ok(warm.clone()),
                State::Open(_) | State::Opening => {}
                State::Failed(error) if error.class() == Class::Denied => return Err(error.clone()),
                State::Failed(error) => *last = Some(error.clone()),
                State::Closed => return Err(closed()),
            }
            state.changed().await.map_err(|_| closed())?;
        }
    }

    /// Sends in a task of its own: a caller that gives up cannot drop a send in the middle of a frame and spoil the link.
    ///
    /// An open connection that refuses us let us in before: its token may have ended. So only what a connection says that was opened
    /// after such a refusal (`is_renewed`) counts as denied.
    async fn send_once(
        &self,
        message: &AmqpMessage,
        last: &mut Option<EventHubsError>,
        is_renewed: &mut bool,
    ) -> Result<(), EventHubsError> {
        let hub = self.hub;
        let failed = |reason: String| EventHubsError::Unreachable { hub, reason };
        // Whoever waits for the connection must not keep the turn from those who would learn why there is none.
        self.warm(last).await?;
        let turn = self.turn.clone().acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        let warm = self.warm(last).await?;
        let message = message.clone();
        let sending = tokio::spawn(async move {
            let outcome = send(hub, &warm, message).await;
            // A throttled event, or one too large to be sent at all, leaves the link as it was.
            let keeps =
                matches!(outcome, Ok(()) | Err(EventHubsError::Throttled { .. } | EventHubsError::TooLarge { .. }));
            if !keeps {
                warm.lost.cancel();
            }
            drop(turn);
            release(hub, warm).await;
            outcome
        });
        match sending.await.unwrap_or_else(|error| Err(failed(format!("the send ended early: {error}")))) {
            Err(EventHubsError::Denied { reason, .. }) if !std::mem::replace(is_renewed, true) => {
                Err(failed(format!("the open connection let us in no more: {reason}")))
            }
            outcome => outcome,
        }
    }

    /// Closes the connection; later sends fail.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let mut state = self.state.clone();
        // The keeper owns the other end and drops it when all is done.
        while state.changed().await.is_ok() {}
    }
}

async fn send(hub: &'static str, warm: &Warm, message: AmqpMessage) -> Result<(), EventHubsError> {
    let bytes = encoded_bytes(&message) as u64;
    if warm.max_bytes != 0 && bytes > warm.max_bytes {
        let reason = format!("it has {bytes} bytes, and {} is the limit", warm.max_bytes);
        return Err(EventHubsError::TooLarge { hub, reason });
    }
    match timeout(patience(bytes), warm.client.send_message(message, None)).await {
        Ok(outcome) => outcome.map_err(|error| EventHubsError::from_library(hub, &error)),
        Err(_) => Err(EventHubsError::Unreachable { hub, reason: "no answer to a send".to_owned() }),
    }
}

/// How long the namespace may be silent about an event of this size.
fn patience(bytes: u64) -> Duration {
    let carried = Duration::from_secs(bytes) / SLOWEST_BYTES_PER_S;
    ANSWER_PATIENCE.saturating_add(carried).min(LONGEST_PATIENCE)
}

/// Gives up a share of a connection; the last one closes it.
async fn release(hub: &'static str, warm: Arc<Warm>) {
    let Some(warm) = Arc::into_inner(warm) else { return };
    match timeout(CLOSE_PATIENCE, warm.client.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = EventHubsError::from_library(hub, &error);
            tracing::debug!(hub, %error, "a lost connection could not be closed");
        }
        Err(_) => tracing::debug!(hub, "a lost connection did not close in time"),
    }
}

struct Keeper {
    access: Access,
    hub: &'static str,
    state: watch::Sender<State>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let stop = self.stop.clone();
        if stop.run_until_cancelled(self.keep()).await.is_none() {
            let State::Open(warm) = self.state.send_replace(State::Closed) else { return };
            release(self.hub, warm).await;
        }
    }

    async fn keep(&self) {
        let mut pause = Duration::ZERO;
        loop {
            sleep(pause).await;
            match self.open().await {
                Ok((client, max_bytes)) => {
                    let opened = Instant::now();
                    let lost = CancellationToken::new();
                    self.until_lost(Arc::new(Warm { client, max_bytes, lost })).await;
                    let stable = opened.elapsed() >= STABLE_AFTER;
                    pause = if stable { Duration::ZERO } else { next(pause, LONGEST_PAUSE) };
                }
                Err(error) => {
                    let denied = error.class() == Class::Denied;
                    pause = next(pause, if denied { LONGEST_DENIED_PAUSE } else { LONGEST_PAUSE });
                    self.report(&error);
                    self.state.send_replace(State::Failed(error));
                }
            }
        }
    }

    async fn until_lost(&self, warm: Arc<Warm>) {
        tracing::info!(hub = self.hub, "event hub producer opened");
        self.state.send_replace(State::Open(warm.clone()));
        warm.lost.cancelled().await;
        self.state.send_replace(State::Opening);
        tracing::warn!(hub = self.hub, "event hub connection lost; opening a new one");
        tokio::spawn(release(self.hub, warm));
    }

    /// Warns of the first failure in a row; an outage of hours needs no line per second.
    fn report(&self, error: &EventHubsError) {
        if matches!(&*self.state.borrow(), State::Failed(before) if before.class() == error.class()) {
            tracing::debug!(hub = self.hub, %error, "event hub producer not opened");
        } else {
            tracing::warn!(hub = self.hub, %error, "event hub producer not opened; trying on");
        }
    }

    /// Opens connection and link, off the async threads: the library resolves names with a blocking call.
    async fn open(&self) -> Result<(ProducerClient, u64), EventHubsError> {
        let (access, hub, stop) = (self.access.clone(), self.hub, self.stop.clone());
        let unreachable = move |reason: String| EventHubsError::Unreachable { hub, reason };
        let runtime = Handle::current();
        let opening = spawn_blocking(move || {
            let opening = timeout(OPEN_PATIENCE, open_with_link(&access, hub));
            runtime.block_on(stop.run_until_cancelled(opening))
        });
        match opening.await {
            Ok(Some(Ok(outcome))) => outcome.map_err(|error| EventHubsError::from_library(hub, &error)),
            Ok(Some(Err(_))) => Err(unreachable("no answer while opening the connection".to_owned())),
            Ok(None) => Err(EventHubsError::Closed { hub }),
            Err(error) => Err(unreachable(format!("opening the connection ended early: {error}"))),
        }
    }
}

/// Opens the connection and its link, and tells the largest event that the link takes.
///
/// The library puts the token and attaches the link with the first use. Asking for an impossibly large batch is such a use, and the
/// refusal names the limit.
async fn open_with_link(access: &Access, hub: &str) -> azure_messaging_eventhubs::Result<(ProducerClient, u64)> {
    let client = access.open(hub).await?;
    let impossible = EventDataBatchOptions { max_size_in_bytes: Some(u64::MAX), ..Default::default() };
    let max_bytes = match client.create_batch(Some(impossible)).await {
        Ok(_) => 0,
        Err(error) => match error.kind {
            ErrorKind::InvalidBatchSize { max_allowed, .. } => max_allowed,
            _ => return Err(error),
        },
    };
    Ok((client, max_bytes))
}

fn next(pause: Duration, longest: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_event_gets_more_patience_and_never_more_than_a_second() {
        const MIB: u64 = 1024 * 1024;
        let cases = [
            (0, 500),
            (MIB / 4, 625),
            (MIB / 2, 750),
            (MIB, 1000),
            (MIB + 1, 1000),
            (20 * MIB, 1000),
            (u64::MAX, 1000),
        ];
        for (bytes, milliseconds) in cases {
            assert_eq!(patience(bytes), Duration::from_millis(milliseconds), "{bytes} bytes");
        }
    }
}
