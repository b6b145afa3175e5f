//! One batch: events of a device in their order, devices side by side, and one answer to the host.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::apply::{Task, Worker};
use super::decode::{Decoded, decode};
use super::progress::Progress;
use super::services::{Service, Services, Special, Trouble};
use super::tally::{Done, FAILED, Ignored, Tally};
use crate::failure::Class;
use crate::functions::{Event, Invocation, Outcome, Place};

/// Devices handled side by side: The Things Stack limits calls per application, and a batch has 64 events.
const MAX_DEVICES_AT_ONCE: usize = 16;
/// One event: a registration makes four calls of at most 20 s, normally of milliseconds.
const EVENT_TIMEOUT: Duration = Duration::from_secs(90);
/// Reading a twin and writing its marker, for an event that is given up: within the seconds that a batch has left.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// No event starts later than this. With the time of that event and of its dead letter, a batch stays within the five minutes
/// after which the host kills it (`functionTimeout` in host.json).
const BATCH_BUDGET: Duration = Duration::from_secs(150);
/// Tries of an event that fails while others pass: with the host's delays of 2, 4, 8 … s, half a minute.
const MAX_TRIES_BESIDE_OTHERS: u32 = 5;
/// Tries of an event that fails alone, with an answer that speaks of no outage or while The Things Stack answers all the same:
/// with the host's delays, which grow to five minutes, about a quarter of an hour.
const MAX_TRIES_ALONE: u32 = 10;
/// Deliveries of a batch after which an event that fails beside others is given up, even if the process that counted its tries
/// is gone.
const MAX_DELIVERIES: u32 = 200;

/// Handles batches.
#[derive(Debug)]
pub(super) struct Batches<S> {
    worker: Arc<Worker<S>>,
    progress: Progress,
}

/// One event of a lane.
struct Step {
    key: Option<Place>,
    event: Arc<Event>,
    what: Result<Task, Dead>,
}

struct Dead {
    device: Option<String>,
    reason: String,
}

/// What became of the events of one device.
#[derive(Default)]
struct Lane {
    done: Vec<Done>,
    failed: Option<(Step, Trouble)>,
    /// Events behind the failed one: not tried, to keep the order.
    held_back: usize,
}

impl<S: Services> Batches<S> {
    pub(super) fn new(worker: Worker<S>) -> Self {
        Self { worker: Arc::new(worker), progress: Progress::new() }
    }

    pub(super) async fn run(&self, invocation: Invocation) -> Outcome {
        let deadline = Instant::now() + BATCH_BUDGET;
        let now = OffsetDateTime::now_utc();
        let lag_s = invocation.lag_s(now);
        let mut tally = Tally::default();
        tally.add("events", invocation.events.len());
        let lanes = self.sort(&invocation.partition_id, invocation.events, &mut tally);
        let lanes = futures::stream::iter(lanes).map(|steps| self.run_lane(steps, deadline));
        let lanes: Vec<Lane> = lanes.buffer_unordered(MAX_DEVICES_AT_ONCE).collect().await;
        lanes.iter().flat_map(|lane| &lane.done).for_each(|done| tally.count(*done));
        let open = self.judge(lanes, invocation.retry_count, &mut tally).await;
        tracing::info!(
            invocation = invocation.id,
            partition = invocation.partition_id,
            retry = invocation.retry_count,
            lag_s,
            registered = tally.of(Done::Registered),
            deleted = tally.of(Done::Deleted),
            downlinks = tally.of(Done::Queued),
            waiting = tally.of(Done::Waiting),
            submitted = tally.of(Done::Submitted),
            dead_lettered = tally.of(Done::DeadLettered),
            ignored = tally.ignored(),
            failed = tally.failed(),
            open,
            %tally,
            "events handled"
        );
        match open {
            None => Outcome::Done(vec![tally.to_string()]),
            Some(first) => Outcome::Retry(format!("{tally}; still open: {first}")),
        }
    }

    /// Decodes the events and gives each device a lane; what needs nothing done is only counted.
    fn sort(&self, partition: &str, events: Vec<Event>, tally: &mut Tally) -> Vec<Vec<Step>> {
        let mut lanes: Vec<Vec<Step>> = Vec::new();
        let mut of_device: HashMap<String, usize> = HashMap::new();
        for event in events {
            let key = event.place(partition);
            if self.progress.is_done(key.as_ref()) {
                tally.count(Done::Ignored(Ignored::DoneBefore));
                continue;
            }
            let (device, what) = match catch_unwind(AssertUnwindSafe(|| decode(&event, &self.worker.rules.prefix))) {
                Ok(Decoded::Ignored(reason)) => {
                    tally.count(Done::Ignored(reason));
                    continue;
                }
                Ok(Decoded::Event(hub)) => (hub.device.to_string(), Ok(hub)),
                Ok(Decoded::Dead { device, reason }) => (device.clone(), Err(Dead { device: Some(device), reason })),
                Err(_) => (String::new(), Err(Dead { device: None, reason: PANICKED.to_owned() })),
            };
            let event = Arc::new(event);
            let what = what.map(|hub| Task { event: Arc::clone(&event), hub });
            let lane = *of_device.entry(device).or_insert_with(|| {
                lanes.push(Vec::new());
                lanes.len() - 1
            });
            if let Some(lane) = lanes.get_mut(lane) {
                lane.push(Step { key, event, what });
            }
        }
        lanes
    }

    async fn run_lane(&self, steps: Vec<Step>, deadline: Instant) -> Lane {
        let mut lane = Lane::default();
        for step in steps {
            if lane.failed.is_some() || Instant::now() >= deadline {
                lane.held_back += 1;
                continue;
            }
            match self.run_step(&step).await {
                Ok(done) => {
                    lane.done.extend(done);
                    self.progress.done(step.key);
                }
                Err(trouble) => lane.failed = Some((step, trouble)),
            }
        }
        lane
    }

    async fn run_step(&self, step: &Step) -> Result<Vec<Done>, Trouble> {
        let task = match &step.what {
            Ok(task) => task.clone(),
            Err(dead) => return self.bury(step, dead.device.as_deref(), &dead.reason).await,
        };
        let worker = Arc::clone(&self.worker);
        // A task of its own catches a panic, and dies with this future.
        let mut running = JoinSet::new();
        running.spawn(async move { timeout(EVENT_TIMEOUT, worker.handle(&task)).await });
        match running.join_next().await {
            Some(Ok(Ok(outcome))) => outcome,
            Some(Err(error)) if error.is_panic() => self.bury(step, step.device(), PANICKED).await,
            Some(Ok(Err(_))) => Err(stalled("no end within its time")),
            Some(Err(_)) | None => Err(stalled("the process is shutting down")),
        }
    }

    async fn bury(&self, step: &Step, device: Option<&str>, reason: &str) -> Result<Vec<Done>, Trouble> {
        self.worker.bury(&step.event, device, reason).await?;
        Ok(vec![Done::DeadLettered])
    }

    /// Gives up events that fail while others pass, once their tries are used up. Returns the first reason to deliver the batch
    /// again, if there is any.
    async fn judge(&self, lanes: Vec<Lane>, retry_count: u32, tally: &mut Tally) -> Option<String> {
        let passed = |service: Service, lane: &Lane| match service {
            Service::Stack => lane.done.iter().any(|done| done.proves_stack()),
            Service::Hub => lane.done.iter().any(|done| done.proves_hub()),
            Service::EventHubs => lane.done.contains(&Done::DeadLettered),
        };
        let passes: Vec<[bool; 3]> = lanes
            .iter()
            .map(|lane| [Service::Stack, Service::Hub, Service::EventHubs].map(|service| passed(service, lane)))
            .collect();
        let mut answers = None;
        let mut open = None;
        for (index, lane) in lanes.into_iter().enumerate() {
            if lane.held_back > 0 {
                tally.add("held_back", lane.held_back);
                open.get_or_insert_with(|| "events wait for their turn".to_owned());
            }
            let Some((step, trouble)) = lane.failed else { continue };
            let service = trouble.service as usize;
            let others_pass = passes.iter().enumerate().any(|(other, passes)| other != index && passes[service]);
            let blocked = trouble.outage && !others_pass && !self.is_ours_alone(&trouble, &mut answers).await;
            if !blocked && self.is_used_up(&step, &trouble, others_pass, retry_count) {
                let reason = format!("given up after repeated tries: {trouble}");
                match self.bury(&step, step.device(), &reason).await {
                    Ok(_) => {
                        self.end_downlink(&step, &reason).await;
                        tally.count(Done::DeadLettered);
                        self.progress.done(step.key);
                        continue;
                    }
                    Err(failure) => {
                        tracing::error!(device = step.device(), reason = %failure, "an event could not be given up")
                    }
                }
            }
            tally.add(FAILED, 1);
            tracing::warn!(device = step.device(), reason = %trouble, "event failed");
            open = Some(trouble.text);
        }
        open
    }

    /// After the dead letter: the event is done with it, whether or not the twin can be written.
    async fn end_downlink(&self, step: &Step, reason: &str) {
        let Ok(task) = &step.what else { return };
        let ended = timeout(END_TIMEOUT, self.worker.give_up(task, reason)).await;
        if let Err(failure) = ended.unwrap_or_else(|_| Err(stalled("no end within its time"))) {
            tracing::error!(device = step.device(), reason = %failure, "the downlink of an event that is given up stays open");
        }
    }

    /// Whether what looks like an outage is the matter of this event: The Things Stack answers, asked for something else. Others
    /// that passed in an earlier delivery of the batch are not tried again and prove nothing. Asked once for a batch.
    async fn is_ours_alone(&self, trouble: &Trouble, answers: &mut Option<bool>) -> bool {
        if trouble.class != Class::Retry || trouble.service != Service::Stack {
            return false;
        }
        if answers.is_none() {
            *answers = Some(self.worker.stack_answers().await);
        }
        answers.unwrap_or(false)
    }

    fn is_used_up(&self, step: &Step, trouble: &Trouble, others_pass: bool, retry_count: u32) -> bool {
        // What is throttled gets its turn: others pass by and by, and so does this. A dead letter has nowhere else to go.
        if trouble.class == Class::Throttled || trouble.service == Service::EventHubs {
            return false;
        }
        let tries = self.progress.failed(step.key.clone());
        let limit = if others_pass { MAX_TRIES_BESIDE_OTHERS } else { MAX_TRIES_ALONE };
        tries >= limit || (others_pass && retry_count >= MAX_DELIVERIES)
    }
}

impl Step {
    fn device(&self) -> Option<&str> {
        match &self.what {
            Ok(task) => Some(task.hub.device.as_str()),
            Err(dead) => dead.device.as_deref(),
        }
    }
}

/// Says nothing of what was in the event.
const PANICKED: &str = "handling the event panicked: this is a bug, please report it";

fn stalled(text: &str) -> Trouble {
    let (service, class, special) = (Service::Stack, Class::Retry, Special::No);
    Trouble { service, class, outage: true, special, text: text.to_owned() }
}
