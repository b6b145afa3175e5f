//! How fast the host's clocks run.

use std::time::Duration;

/// A factor on every time that the host keeps: timeouts, pauses, delays between retries.
///
/// The recordings last minutes; tests play them faster and check the order of things.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(u32);

impl Pace {
    /// As the real host.
    pub const REAL: Self = Self(1);

    /// Every time is this part of itself; 0 counts as 1.
    #[must_use]
    pub const fn times(factor: u32) -> Self {
        Self(if factor == 0 { 1 } else { factor })
    }

    pub(super) fn of(self, span: Duration) -> Duration {
        span / self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::functions_host::handler::{ERROR_WINDOW, MAX_ERRORS, POLL_INTERVAL, RESTART_PAUSE};
    use crate::functions_host::host::{BATCH_DRAIN, HTTP_DRAIN};
    use crate::functions_host::proxy::{FIRST_PAUSE, LONGEST_PAUSE, TIMEOUT_GRACE, TRIES};

    #[test]
    fn the_times_behind_the_recordings_are_these() {
        for (span, milliseconds) in [
            (POLL_INTERVAL, 25),
            (TIMEOUT_GRACE, 2_000),
            (HTTP_DRAIN, 30_000),
            (BATCH_DRAIN, 10_000),
            (ERROR_WINDOW, 30 * 60_000),
        ] {
            assert_eq!(Pace::REAL.of(span), Duration::from_millis(milliseconds));
        }
        assert!((55..=95).contains(&RESTART_PAUSE.as_millis()));
        assert_eq!(MAX_ERRORS, 3);
        // A call whose connections all break was recorded to last 1.88 s.
        let pauses: Duration = (0..TRIES).map(|tried| (FIRST_PAUSE * tried).min(LONGEST_PAUSE)).sum();
        assert_eq!((TRIES, pauses), (10, Duration::from_millis(1_750)));
        assert_eq!(Pace::times(20).of(HTTP_DRAIN), Duration::from_millis(1_500));
    }
}
