//! The meter: what Microsoft would bill (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-pricing.md`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use time::{Date, OffsetDateTime};

/// The bytes of one billed message, but for the free tier.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// What is billed. Identities, connections and keep-alives are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Billable {
    /// A device-to-cloud message; once, however many endpoints get it.
    D2c,
    /// A cloud-to-device message taken from a service.
    C2d,
    /// A twin read.
    TwinRead,
    /// A twin update, of a device or a service.
    TwinUpdate,
    /// A change of desired properties sent to a device.
    DesiredNotification,
    /// A direct method's call; its answer again if it has a body and somebody waits for it.
    Method,
    /// A page of a query's result.
    Query,
}

impl Billable {
    const ALL: [Self; 7] =
        [Self::D2c, Self::C2d, Self::TwinRead, Self::TwinUpdate, Self::DesiredNotification, Self::Method, Self::Query];
}

/// Billed messages by kind. All but the last two count from the start of the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Billed {
    /// Device-to-cloud messages.
    pub d2c: u64,
    /// Cloud-to-device messages.
    pub c2d: u64,
    /// Twins read.
    pub twin_read: u64,
    /// Twins written.
    pub twin_update: u64,
    /// Changes of desired properties sent to devices.
    pub desired_notification: u64,
    /// Direct methods.
    pub method: u64,
    /// Query results.
    pub query: u64,
    /// All of them.
    pub total: u64,
    /// All of the current day, UTC.
    pub today: u64,
    /// What a day may have; `None` without a tier.
    pub quota: Option<u64>,
}

#[derive(Debug, Default)]
struct Readings {
    by_kind: [u64; Billable::ALL.len()],
    day: Option<Date>,
    today: u64,
}

impl Readings {
    /// Starts a new day if the clock shows a later one. A clock that is set back gives no used-up quota back.
    fn turn_to(&mut self, now: OffsetDateTime) {
        let day = Some(now.to_offset(time::UtcOffset::UTC).date());
        if self.day < day {
            (self.day, self.today) = (day, 0);
        }
    }
}

/// Counts billed messages, and knows when the day's are used up.
#[derive(Debug)]
pub(super) struct Meter {
    block_bytes: u64,
    quota: Option<u64>,
    readings: Mutex<Readings>,
}

impl Meter {
    pub(super) fn new(block_bytes: u64, quota: Option<u64>) -> Self {
        Self { block_bytes, quota, readings: Mutex::default() }
    }

    fn at(&self, now: OffsetDateTime) -> MutexGuard<'_, Readings> {
        // Numbers cannot be left half written.
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.turn_to(now);
        readings
    }

    /// Counts one operation of a size: at least one message, even if it is empty.
    pub(super) fn bill(&self, kind: Billable, bytes: usize, now: OffsetDateTime) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let messages = bytes.div_ceil(self.block_bytes).max(1);
        let mut readings = self.at(now);
        readings.by_kind[kind as usize] += messages;
        readings.today += messages;
    }

    pub(super) fn is_used_up(&self, now: OffsetDateTime) -> bool {
        self.quota.is_some_and(|quota| self.at(now).today >= quota)
    }

    pub(super) fn read(&self, now: OffsetDateTime) -> Billed {
        let readings = self.at(now);
        let of = |kind: Billable| readings.by_kind[kind as usize];
        Billed {
            d2c: of(Billable::D2c),
            c2d: of(Billable::C2d),
            twin_read: of(Billable::TwinRead),
            twin_update: of(Billable::TwinUpdate),
            desired_notification: of(Billable::DesiredNotification),
            method: of(Billable::Method),
            query: of(Billable::Query),
            total: readings.by_kind.iter().sum(),
            today: readings.today,
            quota: self.quota,
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    #[test]
    fn sizes_are_billed_in_whole_blocks_and_never_less_than_one() {
        for (block, bytes, messages) in [
            (4096, 0, 1),
            (4096, 1, 1),
            (4096, 4096, 1),
            (4096, 4097, 2),
            (4096, 262_144, 64),
            (512, 512, 1),
            (512, 4096, 8),
        ] {
            let meter = Meter::new(block, None);
            meter.bill(Billable::D2c, bytes, NOON);
            assert_eq!(meter.read(NOON).d2c, messages, "{bytes} bytes in blocks of {block}");
        }
    }

    #[test]
    fn kinds_are_counted_apart_and_together() {
        let meter = Meter::new(BLOCK_BYTES, None);
        for (position, kind) in Billable::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, position);
            (0..=position).for_each(|_| meter.bill(kind, 1, NOON));
        }
        let billed = meter.read(NOON);
        assert_eq!(
            serde_json::to_value(billed).expect("it is JSON"),
            serde_json::json!({
                "d2c": 1, "c2d": 2, "twin_read": 3, "twin_update": 4, "desired_notification": 5, "method": 6, "query": 7,
                "total": 28, "today": 28, "quota": null,
            })
        );
    }

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let meter = Meter::new(BLOCK_BYTES, Some(2));
        meter.bill(Billable::D2c, 1, datetime!(2026-03-01 12:00 UTC));
        assert!(!meter.is_used_up(NOON));
        meter.bill(Billable::TwinRead, 5000, datetime!(2026-03-01 23:59:59 UTC));
        assert!(meter.is_used_up(datetime!(2026-03-02 00:59:59 +01:00)), "it is still the first in UTC");
        let next_day = datetime!(2026-03-02 00:00 UTC);
        assert!(!meter.is_used_up(next_day));
        let billed = meter.read(next_day);
        assert_eq!((billed.total, billed.today, billed.quota), (3, 0, Some(2)));
    }

    #[test]
    fn a_clock_that_is_set_back_starts_no_day() {
        let meter = Meter::new(BLOCK_BYTES, Some(1));
        meter.bill(Billable::D2c, 1, NOON);
        let the_day_before = datetime!(2026-02-28 23:00 UTC);
        assert!(meter.is_used_up(the_day_before));
        meter.bill(Billable::D2c, 1, the_day_before);
        assert_eq!(meter.read(NOON).today, 2);
    }
}
