//! A token bucket with a queue.
//!
//! The crate `governor` was looked at: it says when a refused call might come again, but books no place in a queue, so that
//! waiting calls race, and its waiting has no bound. Both matter here.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::tier::Rate;

/// The longest wait in a queue; who would wait longer is refused. The real bound is not documented. The text of a 429 asks
/// for ten seconds of patience (`mwalser/terraform-provider-iothub CONCEPT.md`), so that is what a full queue takes.
pub(super) const BACKLOG: Duration = Duration::from_secs(10);

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Lets the amount of one window through at once, and from then on the rate.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When all that has been booked is worked off at the rate; in the past if nothing is owed.
    worked_off: Mutex<Instant>,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, worked_off: Mutex::new(now) }
    }

    /// Books a place; returns the wait until it is due. A refused call books nothing.
    pub(super) fn book(&self, amount: u64, now: Instant) -> Result<Duration, Full> {
        let nanos = self.rate.window.as_nanos() * u128::from(amount) / u128::from(self.rate.amount.max(1));
        // What does not fit is centuries.
        let work = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut worked_off = self.worked_off.lock().unwrap_or_else(PoisonError::into_inner);
        let then = (*worked_off).max(now).checked_add(work).ok_or(Full)?;
        let wait = then.saturating_duration_since(now).saturating_sub(self.rate.window);
        if wait > BACKLOG {
            return Err(Full);
        }
        *worked_off = then;
        Ok(wait)
    }

    #[cfg(test)]
    pub(super) fn fill_up(&self) {
        *self.worked_off.lock().expect("no test panics here") = Instant::now() + Duration::from_secs(3600);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(amount: u64) -> (Bucket, Instant) {
        let now = Instant::now();
        (Bucket::new(Rate { amount, window: SECOND }, now), now)
    }

    #[test]
    fn a_burst_passes_then_calls_queue_at_the_rate_then_they_are_refused() {
        let (bucket, now) = bucket(10);
        for _ in 0..10 {
            assert_eq!(bucket.book(1, now), Ok(Duration::ZERO));
        }
        for place in 1..=100 {
            assert_eq!(bucket.book(1, now), Ok(SECOND / 10 * place));
        }
        assert_eq!(bucket.book(1, now), Err(Full));
        assert_eq!(bucket.book(1, now + SECOND / 10), Ok(BACKLOG), "a place has become free");
        assert_eq!(bucket.book(1, now + SECOND / 10), Err(Full));
    }

    #[test]
    fn after_a_pause_a_burst_passes_again_and_no_more() {
        let (bucket, now) = bucket(10);
        assert_eq!(bucket.book(10, now), Ok(Duration::ZERO));
        let later = now + SECOND * 100;
        assert_eq!(bucket.book(10, later), Ok(Duration::ZERO));
        assert_eq!(bucket.book(1, later), Ok(SECOND / 10));
    }

    #[test]
    fn what_can_never_be_is_refused_and_books_nothing() {
        let (bucket, now) = bucket(10);
        for amount in [111, u64::MAX] {
            assert_eq!(bucket.book(amount, now), Err(Full));
        }
        assert_eq!(bucket.book(110, now), Ok(BACKLOG));
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_twice_the_rate(
            rate in 1_u64..50,
            calls in proptest::collection::vec((0_u64..300, 1_u64..4), 1..200),
        ) {
            let (bucket, mut now) = bucket(rate);
            let mut passed: Vec<(Instant, u64)> = Vec::new();
            for (pause, amount) in calls {
                now += Duration::from_millis(pause);
                if let Ok(wait) = bucket.book(amount, now) {
                    prop_assert!(wait <= BACKLOG);
                    passed.push((now + wait, amount));
                }
            }
            for (start, _) in &passed {
                let window = passed.iter().filter(|(at, _)| at >= start && *at < *start + SECOND);
                let amount: u64 = window.map(|(_, amount)| amount).sum();
                // The burst, what the rate brings in the window, and at each end the rest of one call.
                prop_assert!(amount <= 2 * rate + 8, "{amount} at a rate of {rate}");
            }
        }
    }
}
