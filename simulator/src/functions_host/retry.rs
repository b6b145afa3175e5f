//! Retry policies.

use std::time::Duration;

use rand::Rng as _;

/// The recorded waits exceed the plain doubling by up to this part.
const JITTER: f64 = 0.06;

/// `retry` of a `function.json`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RetryPolicy {
    None,
    Fixed { max_retries: Option<u32>, delay: Duration },
    Exponential { max_retries: Option<u32>, minimum: Duration, maximum: Duration },
}

impl RetryPolicy {
    /// As `RetryContext.MaxRetryCount` has it: -1 for ever. `None` without a policy: then there is no `RetryContext`.
    pub(super) fn max_retry_count(&self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Fixed { max_retries, .. } | Self::Exponential { max_retries, .. } => {
                Some(max_retries.map_or(-1, i64::from))
            }
        }
    }

    /// The wait before retry number `retry` (1 is the first), or `None` if there shall be none.
    pub(super) fn delay(&self, retry: u32) -> Option<Duration> {
        match *self {
            Self::None => None,
            Self::Fixed { max_retries, delay } => allowed(max_retries, retry).then_some(delay),
            Self::Exponential { max_retries, minimum, maximum } => {
                allowed(max_retries, retry).then(|| exponential(minimum, maximum, retry))
            }
        }
    }
}

fn allowed(max_retries: Option<u32>, retry: u32) -> bool {
    max_retries.is_none_or(|max| retry <= max)
}

/// Recorded with 2 s and 15 s: 2, 4, 6, 10, 15 s, that is `minimum + minimum * 2^(n-2)` from the second on.
fn exponential(minimum: Duration, maximum: Duration, retry: u32) -> Duration {
    let Some(exponent) = retry.checked_sub(2) else { return minimum.min(maximum) };
    let factor = 2f64.powi(exponent.min(62).cast_signed()) * rand::rng().random_range(1.0..1.0 + JITTER);
    let increment = Duration::try_from_secs_f64(minimum.as_secs_f64() * factor).unwrap_or(maximum);
    minimum.saturating_add(increment).min(maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow_as_recorded() {
        let policy = RetryPolicy::Exponential {
            max_retries: None,
            minimum: Duration::from_secs(2),
            maximum: Duration::from_secs(15),
        };
        let recorded = [2.0, 4.1179036, 6.0777035, 10.1281367, 15.0, 15.0];
        for (retry, wait) in (1..).zip(recorded) {
            let delay = policy.delay(retry).expect("it never ends").as_secs_f64();
            assert!((delay - wait).abs() < 0.5, "retry {retry}: {delay} instead of {wait}");
        }
        assert_eq!(policy.delay(u32::MAX), Some(Duration::from_secs(15)));
        assert_eq!(policy.max_retry_count(), Some(-1));
    }

    #[test]
    fn a_bounded_policy_ends() {
        let policy = RetryPolicy::Fixed { max_retries: Some(2), delay: Duration::from_secs(1) };
        assert!(policy.delay(2).is_some());
        assert_eq!(policy.delay(3), None);
        assert_eq!(RetryPolicy::None.delay(1), None);
    }
}
