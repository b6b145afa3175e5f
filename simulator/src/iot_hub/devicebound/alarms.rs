//! Which mailbox needs a look when: a message expires there, or a lock ends.

use std::collections::{BTreeSet, HashMap};

use time::OffsetDateTime;

/// At most one alarm per device.
#[derive(Debug, Default)]
pub(in crate::iot_hub) struct Alarms {
    in_order: BTreeSet<(OffsetDateTime, String)>,
    by_device: HashMap<String, OffsetDateTime>,
}

impl Alarms {
    /// Sets the alarm of a device, or takes it away. Returns whether it now rings before all others.
    pub(in crate::iot_hub) fn set(&mut self, device_id: &str, at: Option<OffsetDateTime>) -> bool {
        let before = match at {
            Some(at) => self.by_device.insert(device_id.to_owned(), at),
            None => self.by_device.remove(device_id),
        };
        if before == at {
            return false;
        }
        if let Some(before) = before {
            self.in_order.remove(&(before, device_id.to_owned()));
        }
        at.is_some_and(|at| {
            self.in_order.insert((at, device_id.to_owned()));
            self.next() == Some(at)
        })
    }

    /// When the next one rings.
    pub(in crate::iot_hub) fn next(&self) -> Option<OffsetDateTime> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes a device whose alarm rings.
    pub(in crate::iot_hub) fn take(&mut self, now: OffsetDateTime) -> Option<String> {
        let (at, _) = self.in_order.first()?;
        if *at > now {
            return None;
        }
        let (_, device_id) = self.in_order.pop_first()?;
        self.by_device.remove(&device_id);
        Some(device_id)
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn alarms_ring_once_each_in_order() {
        let now = datetime!(2026-03-01 09:00 UTC);
        let at = |seconds| Some(now + Duration::seconds(seconds));
        let mut alarms = Alarms::default();
        assert!(alarms.set("d2", at(20)));
        assert!(!alarms.set("d3", at(30)));
        assert!(alarms.set("d1", at(5)));
        assert!(!alarms.set("d1", at(25)), "moved behind d2");
        alarms.set("d3", None);
        assert_eq!((alarms.next(), alarms.take(now)), (at(20), None));
        let late = now + Duration::minutes(1);
        let rung: Vec<_> = std::iter::from_fn(|| alarms.take(late)).collect();
        assert_eq!(rung, ["d2", "d1"]);
        assert_eq!(alarms.next(), None);
    }
}
