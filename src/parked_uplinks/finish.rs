//! What becomes of the items that were not delivered, and of the batch.

use futures::StreamExt as _;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::attempt::Fate;
use super::item::Work;
use super::progress::NOTHING;
use super::{Batch, FUNCTION, PARALLEL_DEVICES, ParkedUplinks, REFUGE_TIME};
use crate::event_hubs::ParkedUplink;
use crate::failure::Class;
use crate::functions::Outcome;
use crate::stack::parse_time;
use crate::uplink_delivery::{DeviceHub, Failure, Refuge, Unfinished, dead_letter};

/// An item that waited so long goes to the dead letters: Event Hubs forgets after 7 days.
const MAX_AGE: time::Duration = time::Duration::days(6);

/// Deliveries of a batch of which nothing ever passes, after which it makes room for what stands behind it. Its items
/// keep their counts, so an outage gives up no item, while a batch that fails for itself blocks no partition.
const PATIENCE: u32 = 8;

/// What becomes of an item that was not delivered.
#[derive(Debug, PartialEq)]
enum Next {
    /// It comes again with its batch.
    Wait,
    /// It goes to the end of the Event Hub with this count of attempts.
    ParkAgain(u32),
    /// It is given up.
    GiveUp,
}

/// What became of the items of a batch, counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    delivered: usize,
    ignored: usize,
    parked_again: usize,
    buried: usize,
    waiting: usize,
    /// Since when the oldest item is parked of those that stay: that wait or were parked again.
    pub(super) oldest: Option<OffsetDateTime>,
    reason: Option<String>,
}

impl<H: DeviceHub, R: Refuge> ParkedUplinks<H, R> {
    pub(super) async fn finish(
        &self,
        fates: Vec<Fate>,
        is_outage: bool,
        retry_count: u32,
        now: OffsetDateTime,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut rest = Vec::new();
        for fate in fates {
            match fate {
                Fate::Delivered => tally.delivered += 1,
                Fate::Ignored => tally.ignored += 1,
                Fate::DoneBefore => {}
                Fate::Buried => tally.buried += 1,
                Fate::Stuck(reason) => tally.wait(reason),
                Fate::Failed(work, reason) => rest.push((work, Some(reason))),
                Fate::Untried(work) => rest.push((work, None)),
            }
        }
        let settled = futures::stream::iter(rest).map(|(work, failure)| async move {
            let tried = failure.is_some();
            let next = self.next(&work.parked, tried, is_outage, retry_count, now);
            let reason = failure.unwrap_or_else(|| "not tried: nothing gets through".to_owned());
            let result = self.settle(&work, &next, &reason).await;
            (next, reason, result, work.first_failed_at())
        });
        let mut settled = settled.buffer_unordered(PARALLEL_DEVICES);
        while let Some((next, reason, result, parked_at)) = settled.next().await {
            if next != Next::GiveUp || result.is_err() {
                tally.oldest = tally.oldest.into_iter().chain(parked_at).min();
            }
            match (next, result) {
                (_, Err(failure)) => tally.wait(failure.reason),
                (Next::Wait, Ok(())) => tally.wait(reason),
                (Next::ParkAgain(_), Ok(())) => tally.parked_again += 1,
                (Next::GiveUp, Ok(())) => tally.buried += 1,
            }
        }
        tally
    }

    fn next(&self, parked: &ParkedUplink, tried: bool, is_outage: bool, retry_count: u32, now: OffsetDateTime) -> Next {
        let is_old = parse_time(&parked.first_failed_at).is_some_and(|first| now - first > MAX_AGE);
        let attempts = parked.attempts.saturating_add(1);
        match (is_outage, tried) {
            _ if is_old => Next::GiveUp,
            (true, _) if retry_count < PATIENCE => Next::Wait,
            (true, _) => Next::ParkAgain(parked.attempts),
            (false, false) => Next::Wait,
            (false, true) if attempts >= self.max_attempts => Next::GiveUp,
            (false, true) => Next::ParkAgain(attempts),
        }
    }

    async fn settle(&self, work: &Work, next: &Next, reason: &str) -> Result<(), Failure> {
        match next {
            Next::Wait => return Ok(()),
            Next::ParkAgain(attempts) => {
                let parked = ParkedUplink { attempts: *attempts, ..work.parked.clone() };
                self.refuge.park(&parked, Instant::now() + REFUGE_TIME).await?;
            }
            Next::GiveUp => {
                let ParkedUplink { attempts, first_failed_at, first_failure, open, .. } = &work.parked;
                let attempts = attempts.saturating_add(1);
                let reason = format!(
                    "given up after {attempts} attempts since {first_failed_at}; the first failure: {first_failure}; \
                     the last: {reason}"
                );
                let unfinished = Unfinished { open: *open, class: Class::Retry, reason };
                self.bury(&dead_letter(FUNCTION, &work.up, &unfinished)).await?;
            }
        }
        // It is somewhere else now: if the batch comes again, this item is done.
        self.progress.set(&work.key, NOTHING);
        Ok(())
    }
}

impl Tally {
    fn wait(&mut self, reason: String) {
        self.waiting += 1;
        self.reason.get_or_insert(reason);
    }

    /// One line per delivery of a batch. What an earlier delivery was done with is counted in none of the numbers, so that
    /// they add up over the deliveries.
    pub(super) fn record(&self, batch: &Batch, now: OffsetDateTime) {
        let Self { delivered, ignored, parked_again, buried, waiting, oldest, reason } = self;
        tracing::info!(
            partition = batch.partition,
            retry = batch.retry_count,
            oldest_s = oldest.map(|oldest| (now - oldest).whole_seconds().max(0)),
            delivered,
            ignored,
            parked_again,
            dead_lettered = buried,
            waiting,
            reason,
            "parked uplinks handled"
        );
    }

    pub(super) fn outcome(self) -> Outcome {
        let Self { delivered, parked_again, buried, waiting, reason, .. } = self;
        let summary = format!("{delivered} delivered, {parked_again} parked again, {buried} dead-lettered");
        match reason {
            Some(reason) => Outcome::Retry(format!("{summary}, {waiting} waiting: {reason}")),
            None => Outcome::Done(vec![summary]),
        }
    }
}
