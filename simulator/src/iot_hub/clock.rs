//! The hub's clock, which a story can set wrong.

use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

/// The longest real wait before the clock is read again: timers of a machine that slept may be late.
const LONGEST_NAP: std::time::Duration = std::time::Duration::from_secs(3600);

/// Tells the time of the hub: the machine's plus a skew.
#[derive(Debug, Default)]
pub(super) struct Clock {
    skew: watch::Sender<Duration>,
}

impl Clock {
    /// The time of the hub.
    pub(super) fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc().saturating_add(*self.skew.borrow())
    }

    /// Sets the clock this far before (positive) or behind (negative) the machine's. Whoever waits for a time learns of it.
    pub(super) fn skew(&self, by: Duration) {
        self.skew.send_replace(by);
    }

    /// How far it is before the machine's (positive) or behind it.
    pub(super) fn skewed_by(&self) -> Duration {
        *self.skew.borrow()
    }

    /// Returns once the clock shows this time.
    pub(super) async fn reaches(&self, at: OffsetDateTime) {
        let mut skew = self.skew.subscribe();
        loop {
            skew.mark_unchanged();
            let Ok(left) = std::time::Duration::try_from(at - self.now()) else { return };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LONGEST_NAP)) => {}
                // The sender lives as long as `self`, so waiting does not fail.
                _ = skew.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_time_hears_of_a_skew() {
        let clock = Clock::default();
        let at = clock.now() + Duration::days(400);
        let skew = async {
            tokio::task::yield_now().await;
            clock.skew(Duration::days(399));
            tokio::task::yield_now().await;
            clock.skew(Duration::days(401));
        };
        let waiting = async { tokio::join!(clock.reaches(at), skew) };
        tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.expect("the wait ends");
        assert!(clock.now() >= at);
    }

    #[tokio::test]
    async fn a_time_that_has_passed_is_not_waited_for() {
        let clock = Clock::default();
        clock.reaches(clock.now()).await;
        clock.reaches(OffsetDateTime::UNIX_EPOCH).await;
    }

    #[test]
    fn no_skew_leads_out_of_the_calendar() {
        let clock = Clock::default();
        for by in [Duration::MAX, Duration::MIN] {
            clock.skew(by);
            assert!((-9999..=9999).contains(&clock.now().year()));
        }
    }
}
