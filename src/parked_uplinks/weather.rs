//! Whether anything gets through at all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Failures without one success after which the rest of a batch is not tried: each costs up to its whole time.
const PROBES: usize = 16;

/// After which no further item of a batch is begun. The host kills a function that takes five minutes
/// (`functionTimeout` of the Consumption plan), and all that this process does with it.
const BATCH_TIME: Duration = Duration::from_secs(180);

/// What the items of one batch met so far.
#[derive(Debug)]
pub(super) struct Weather {
    end: Instant,
    passed: AtomicUsize,
    failed: AtomicUsize,
}

impl Weather {
    pub(super) fn new(now: Instant) -> Self {
        Self { end: now + BATCH_TIME, passed: AtomicUsize::new(0), failed: AtomicUsize::new(0) }
    }

    /// An item got its answers, even if one was a refusal for good; or it did not.
    pub(super) fn note(&self, passed: bool) {
        let counter = if passed { &self.passed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing got through that was tried.
    pub(super) fn is_outage(&self) -> bool {
        self.passed.load(Ordering::Relaxed) == 0 && self.failed.load(Ordering::Relaxed) > 0
    }

    /// It is of no use to try more now.
    pub(super) fn is_hopeless(&self) -> bool {
        let is_probed = self.failed.load(Ordering::Relaxed) >= PROBES;
        Instant::now() >= self.end || (is_probed && self.is_outage())
    }
}
