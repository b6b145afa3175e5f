//! What callers ask of a device session, and the queue in which it waits for one.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pace::{Bucket, Pace};
use super::{HubError, Telemetry, TwinAnswer, TwinCall};

/// One thing to do, until when, and who wants to know.
pub(super) struct Ask<W, A> {
    pub(super) what: W,
    pub(super) deadline: Instant,
    /// The rates of the share that asks.
    pub(super) pace: Arc<Pace>,
    /// When the pacer lets it go, once reserved.
    pub(super) slot: Option<Instant>,
    reply: oneshot::Sender<Result<A, HubError>>,
}

/// A message to send; done with its PUBACK.
pub(super) type TelemetryAsk = Ask<Telemetry, ()>;
/// A twin request to make; done with its answer.
pub(super) type TwinAsk = Ask<TwinCall, TwinAnswer>;

/// Where the answer to one ask arrives.
pub(super) type Reply<A> = oneshot::Receiver<Result<A, HubError>>;

impl<W, A> Ask<W, A> {
    pub(super) fn new(what: W, deadline: Instant, pace: &Arc<Pace>) -> (Self, Reply<A>) {
        let (reply, receiver) = oneshot::channel();
        (Self { what, deadline, pace: Arc::clone(pace), slot: None, reply }, receiver)
    }

    /// Whether someone still waits for it.
    pub(super) fn is_wanted(&self, now: Instant) -> bool {
        now < self.deadline && !self.reply.is_closed()
    }

    /// Tells the caller. One that has given up no longer listens, which is no failure.
    pub(super) fn done(self, result: Result<A, HubError>) {
        let _ = self.reply.send(result);
    }
}

impl TwinAsk {
    /// The rate that this request counts against.
    pub(super) fn rate(&self) -> &Bucket {
        match self.what {
            TwinCall::Read => &self.pace.twin_reads,
            TwinCall::Patch { .. } => &self.pace.twin_writes,
        }
    }
}

/// The parts of one flight: they leave together.
pub(super) struct Order {
    pub(super) telemetry: Option<TelemetryAsk>,
    pub(super) twin: Option<TwinAsk>,
}

/// What waits for a session of one device, in the order in which it came.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) telemetry: VecDeque<TelemetryAsk>,
    pub(super) twins: VecDeque<TwinAsk>,
}

impl Queue {
    pub(super) fn push(&mut self, order: Order) {
        self.telemetry.extend(order.telemetry);
        self.twins.extend(order.twin);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.telemetry.is_empty() && self.twins.is_empty()
    }

    /// Forgets what nobody waits for any more.
    pub(super) fn prune(&mut self, now: Instant) {
        self.telemetry.retain(|ask| ask.is_wanted(now));
        self.twins.retain(|ask| ask.is_wanted(now));
    }

    /// Until when work on the queue makes sense.
    pub(super) fn latest_deadline(&self) -> Option<Instant> {
        let telemetry = self.telemetry.iter().map(|ask| ask.deadline);
        telemetry.chain(self.twins.iter().map(|ask| ask.deadline)).max()
    }

    /// When the next caller gives up.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let telemetry = self.telemetry.iter().map(|ask| ask.deadline);
        telemetry.chain(self.twins.iter().map(|ask| ask.deadline)).min()
    }

    /// The rates of whoever waits longest.
    pub(super) fn pace(&self) -> Option<&Arc<Pace>> {
        let telemetry = self.telemetry.front().map(|ask| &ask.pace);
        telemetry.or_else(|| self.twins.front().map(|ask| &ask.pace))
    }

    /// Tells everyone whose deadline is before this moment that it failed.
    pub(super) fn fail_before(&mut self, moment: Instant, error: &HubError) {
        fail_those(&mut self.telemetry, error, |deadline| deadline < moment);
        fail_those(&mut self.twins, error, |deadline| deadline < moment);
    }

    /// Tells everyone that it failed.
    pub(super) fn fail_all(&mut self, error: &HubError) {
        fail_those(&mut self.telemetry, error, |_| true);
        fail_those(&mut self.twins, error, |_| true);
    }
}

fn fail_those<W, A>(asks: &mut VecDeque<Ask<W, A>>, error: &HubError, is_over: impl Fn(Instant) -> bool) {
    for ask in std::mem::take(asks) {
        if is_over(ask.deadline) {
            ask.done(Err(error.clone()));
        } else {
            asks.push_back(ask);
        }
    }
}
