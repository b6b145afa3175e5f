//! The limits of a tier, and the meter.
//!
//! | module | idea |
//! |---|---|
//! | `tier` | sizes, units, and the rates and quotas that they bring |
//! | `bucket` | a rate: a burst passes, then calls queue, then they are refused |
//! | `meter` | billed messages by kind, and the quota of the day |
//!
//! Without a tier nothing is limited, and the meter counts all the same, in blocks of 4 KB. What is done is billed, what
//! fails is not. How each door refuses is its own matter: see `session`, `rest`, and
//! `service_amqp` for cloud-to-device messages.

mod bucket;
mod meter;
mod tier;

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::error::{Code, HubError};
use bucket::Bucket;
pub(crate) use meter::Billable;
use meter::Meter;
pub(crate) use tier::Operation;

pub use meter::Billed;
pub use tier::{Sku, Tier, TierError};

/// Why an operation is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Excess {
    /// Too many of the kind, and too many wait.
    #[error("the rate of {name} is exceeded; wait 10 seconds and try again", name = .0.name())]
    Rate(Operation),
    /// The billed messages of the day are used up.
    #[error("the message quota of the day is used up; it starts anew at midnight UTC")]
    Quota,
}

impl From<Excess> for HubError {
    fn from(excess: Excess) -> Self {
        let code = match excess {
            Excess::Rate(_) => Code::ThrottlingException,
            Excess::Quota => Code::IotHubQuotaExceeded,
        };
        Self::new(code, excess.to_string())
    }
}

/// The limits and the meter of one hub.
#[derive(Debug)]
pub(super) struct Limits {
    /// One per operation, in the order of the enum; none without a tier.
    buckets: Option<[Bucket; Operation::ALL.len()]>,
    meter: Meter,
}

impl Limits {
    pub(super) fn new(tier: Option<Tier>) -> Self {
        let now = Instant::now();
        let buckets = tier.map(|tier| Operation::ALL.map(|operation| Bucket::new(tier.rate(operation), now)));
        let meter = Meter::new(tier.map_or(meter::BLOCK_BYTES, Tier::block_bytes), tier.map(Tier::quota));
        Self { buckets, meter }
    }

    /// Waits until an operation may be done. `amount` is how many, or for methods their bytes; `now` says which day it is.
    ///
    /// # Errors
    /// If too many wait already, or the day's messages are used up.
    pub(super) async fn admit(&self, operation: Operation, amount: u64, now: OffsetDateTime) -> Result<(), Excess> {
        let wait = self.book(operation, amount, now, Instant::now())?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Books an operation; returns how long it has to wait.
    fn book(&self, operation: Operation, amount: u64, now: OffsetDateTime, at: Instant) -> Result<Duration, Excess> {
        let Some(buckets) = &self.buckets else { return Ok(Duration::ZERO) };
        if operation.is_billed() && self.meter.is_used_up(now) {
            return Err(Excess::Quota);
        }
        buckets[operation as usize].book(amount, at).map_err(|_| Excess::Rate(operation))
    }

    /// Counts one operation that has been done, by the bytes of what was moved.
    pub(super) fn bill(&self, kind: Billable, bytes: usize, now: OffsetDateTime) {
        self.meter.bill(kind, bytes, now);
    }

    /// Fills an operation's queue for longer than a test takes.
    #[cfg(test)]
    pub(super) fn fill_up(&self, operation: Operation) {
        self.buckets.as_ref().expect("there is a tier")[operation as usize].fill_up();
    }

    /// The meter.
    pub(super) fn billed(&self, now: OffsetDateTime) -> Billed {
        self.meter.read(now)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn limits(sku: Sku) -> Limits {
        Limits::new(Some(Tier::new(sku, 1).expect("there is such a tier")))
    }

    #[test]
    fn excess_waits_then_is_refused_and_other_operations_go_on() {
        let (limits, at) = (limits(Sku::S1), Instant::now());
        let book = |operation| limits.book(operation, 1, NOON, at);
        for _ in 0..50 {
            assert_eq!(book(Operation::TwinUpdate), Ok(Duration::ZERO), "it is the burst");
        }
        for place in 1..=500 {
            assert_eq!(book(Operation::TwinUpdate), Ok(Duration::from_millis(20) * place));
        }
        assert_eq!(book(Operation::TwinUpdate), Err(Excess::Rate(Operation::TwinUpdate)));
        assert_eq!(book(Operation::TwinRead), Ok(Duration::ZERO), "reads have a rate of their own");
    }

    #[tokio::test]
    async fn who_is_let_in_late_has_waited() {
        let (limits, start) = (limits(Sku::S1), Instant::now());
        for _ in 0..2 {
            limits.admit(Operation::TwinUpdate, 26, NOON).await.expect("it is let in");
        }
        assert!(start.elapsed() >= Duration::from_millis(39), "two more than the burst of 50 take 40 ms");
    }

    #[test]
    fn a_used_up_day_stops_what_is_billed_until_midnight() {
        let (limits, at) = (limits(Sku::F1), Instant::now());
        limits.bill(Billable::D2c, 8_000 * 512, NOON);
        assert_eq!(limits.book(Operation::D2cSend, 1, NOON, at), Err(Excess::Quota));
        for free in [Operation::Connect, Operation::Identity] {
            assert_eq!(limits.book(free, 1, NOON, at), Ok(Duration::ZERO));
        }
        let midnight = datetime!(2026-03-02 00:00 UTC);
        assert_eq!(limits.book(Operation::D2cSend, 1, midnight, at), Ok(Duration::ZERO));
    }

    #[test]
    fn without_a_tier_nothing_waits_and_everything_is_counted() {
        let (limits, at) = (Limits::new(None), Instant::now());
        for _ in 0..10_000 {
            assert_eq!(limits.book(Operation::D2cSend, 1, NOON, at), Ok(Duration::ZERO));
            limits.bill(Billable::D2c, 1, NOON);
        }
        assert_eq!(limits.billed(NOON).d2c, 10_000);
    }
}
