//! No more than the hub's tier allows (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-quotas-throttling.md`).
//!
//! A caller reserves a slot. It learns at once when it may go, or that it cannot before its deadline; whoever reserved
//! first goes first. Ready-made limiters only say "not yet", which wakes everyone for each slot and keeps no order.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Sku;
use crate::lock::lock;

/// The functions that share the hub's limits. Each scales apart from the others, so each has a fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Live uplinks: 70 %.
    UplinkIngress,
    /// Parked uplinks: 20 %.
    ParkedUplinks,
    /// Events from the hub: 10 %.
    EventHubForwarder,
}

impl Share {
    pub(super) const ALL: [Self; 3] = [Self::UplinkIngress, Self::ParkedUplinks, Self::EventHubForwarder];

    fn part(self) -> f64 {
        match self {
            Self::UplinkIngress => 0.7,
            Self::ParkedUplinks => 0.2,
            Self::EventHubForwarder => 0.1,
        }
    }
}

/// The rates of one share of one hub.
#[derive(Debug)]
pub(super) struct Pace {
    /// New connections.
    pub(super) connects: Bucket,
    /// Twin updates, by devices and by the service API.
    pub(super) twin_writes: Bucket,
    /// Twin reads, likewise.
    pub(super) twin_reads: Bucket,
    /// Operations of the identity registry.
    pub(super) identities: Bucket,
}

impl Pace {
    pub(super) fn new(sku: Sku, units: u32, share: Share) -> Self {
        let units = f64::from(units.max(1));
        // Per second: new connections, twin updates, twin reads; and per minute: identity operations.
        let (connects, twin_writes, twin_reads, identities) = match sku {
            Sku::F1 | Sku::S1 => (f64::max(100.0, 12.0 * units), 50.0, 100.0, 100.0 * units),
            Sku::S2 => (120.0 * units, f64::max(50.0, 5.0 * units), f64::max(100.0, 10.0 * units), 100.0 * units),
            Sku::S3 => (6000.0 * units, 250.0 * units, 500.0 * units, 5000.0 * units),
        };
        let bucket = |events: f64, per: Duration| Bucket::new(events * share.part(), per);
        Self {
            connects: bucket(connects, Duration::from_secs(1)),
            twin_writes: bucket(twin_writes, Duration::from_secs(1)),
            twin_reads: bucket(twin_reads, Duration::from_secs(1)),
            identities: bucket(identities, Duration::from_secs(60)),
        }
    }
}

/// Pressure doubles on a refusal, at most this often: one overload refuses many at once.
const PRESSURE_STEP: Duration = Duration::from_secs(1);

/// Most that refusals stretch the interval: slow enough for any hub, fast enough to notice that it recovered.
const MAX_PRESSURE: f64 = 16.0;

/// What one success takes off the pressure.
const RELIEF: f64 = 0.98;

/// A token bucket with reservations: `events` in each `per`, all of which may come at once after a pause.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    burst: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the next slot is due; lies in the past, by `burst` at most, while tokens are left.
    next: Option<Instant>,
    /// Factor on the interval, raised by refusals.
    pressure: f64,
    raised: Option<Instant>,
}

impl Bucket {
    fn new(events: f64, per: Duration) -> Self {
        let interval = per.div_f64(events.max(1.0));
        let state = Mutex::new(State { next: None, pressure: 1.0, raised: None });
        Self { interval, burst: per.saturating_sub(interval), state }
    }

    /// When the caller may go; `None` if that is after its deadline, and then nothing is reserved.
    pub(super) fn reserve(&self, now: Instant, deadline: Instant) -> Option<Instant> {
        let mut state = lock(&self.state);
        let full = now.checked_sub(self.burst).unwrap_or(now);
        let next = state.next.map_or(full, |next| next.max(full));
        let slot = next.max(now);
        if slot > deadline {
            return None;
        }
        state.next = Some(next + self.interval.mul_f64(state.pressure));
        Some(slot)
    }

    /// The hub refused for its rate: go slower.
    pub(super) fn refused(&self, now: Instant) {
        let mut state = lock(&self.state);
        if state.raised.is_none_or(|raised| now >= raised + PRESSURE_STEP) {
            state.pressure = (state.pressure * 2.0).min(MAX_PRESSURE);
            state.raised = Some(now);
            // What was saved up is not spent on a hub that has just refused.
            state.next = Some(state.next.map_or(now, |next| next.max(now)));
        }
    }

    /// The hub did it: go a little faster, up to the tier's rate.
    pub(super) fn granted(&self) {
        let mut state = lock(&self.state);
        state.pressure = (state.pressure * RELIEF).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(bucket: &Bucket) -> f64 {
        (1.0 / bucket.interval.as_secs_f64() * 100.0).round() / 100.0
    }

    #[test]
    fn the_rates_are_those_of_the_tier() {
        for (sku, units, connects, twins, per_minute) in [
            (Sku::F1, 1, 70.0, 35.0, 70.0),
            (Sku::S1, 1, 70.0, 35.0, 70.0),
            (Sku::S1, 10, 84.0, 35.0, 700.0),
            (Sku::S2, 1, 84.0, 35.0, 70.0),
            (Sku::S2, 20, 1680.0, 70.0, 1400.0),
            (Sku::S3, 1, 4200.0, 175.0, 3500.0),
        ] {
            let pace = Pace::new(sku, units, Share::UplinkIngress);
            let minute = (60.0 / pace.identities.interval.as_secs_f64()).round();
            let got = (rate(&pace.connects).round(), rate(&pace.twin_writes).round(), minute);
            assert_eq!(got, (connects, twins, per_minute), "{sku:?} {units}");
        }
    }

    #[test]
    fn the_shares_are_the_whole() {
        let whole: f64 = Share::ALL.into_iter().map(Share::part).sum();
        assert!((whole - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_go_before_its_deadline_is_told_so_at_once_and_takes_no_slot() {
        let bucket = Bucket::new(10.0, SECOND);
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(bucket.reserve(now, now), Some(now));
        }
        assert_eq!(bucket.reserve(now, now + Duration::from_millis(99)), None);
        assert_eq!(bucket.reserve(now, now + SECOND), Some(now + Duration::from_millis(100)));
        assert_eq!(bucket.reserve(now, now + SECOND), Some(now + Duration::from_millis(200)));
        let later = now + Duration::from_secs(5);
        let at_once = (0..20).filter(|_| bucket.reserve(later, later).is_some()).count();
        assert_eq!(at_once, 10);
    }

    #[test]
    fn refusals_slow_down_and_successes_speed_up_to_the_tiers_rate() {
        let bucket = Bucket::new(10.0, SECOND);
        let now = Instant::now();
        bucket.refused(now);
        bucket.refused(now);
        assert_eq!(bucket.reserve(now, now + SECOND), Some(now));
        assert_eq!(bucket.reserve(now, now + SECOND), Some(now + Duration::from_millis(200)));
        for _ in 0..100 {
            bucket.granted();
        }
        let third = bucket.reserve(now, now + SECOND).expect("in time");
        assert_eq!(bucket.reserve(now, now + SECOND), Some(third + Duration::from_millis(100)));
    }

    proptest! {
        #[test]
        fn no_second_holds_more_than_burst_and_rate(gaps in proptest::collection::vec(0u64..300, 1..200)) {
            let bucket = Bucket::new(20.0, SECOND);
            let start = Instant::now() + Duration::from_secs(60);
            let mut now = start;
            let mut slots = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                slots.extend(bucket.reserve(now, now + SECOND));
            }
            prop_assert!(slots.is_sorted());
            for (i, slot) in slots.iter().enumerate() {
                let within = slots[i..].iter().take_while(|other| **other < *slot + SECOND).count();
                prop_assert!(within <= 40);
            }
        }
    }
}
