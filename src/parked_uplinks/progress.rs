//! What is left of the items of a batch that comes again.

use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::item::Key;
use crate::event_hubs::Open;
use crate::functions::Place;

/// Most items remembered, about 100 bytes each: far more than the batches of all partitions hold together.
const MAX_ITEMS: u64 = 100_000;

/// The host's longest pause between two deliveries of a batch is far shorter.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Nothing is left.
pub(super) const NOTHING: Open = Open { telemetry: false, twin: false, waiting_downlink: false };

/// What is left of items that were tried.
#[derive(Debug)]
pub(super) struct Progress {
    left: Cache<Place, Open>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::holding(MAX_ITEMS)
    }
}

impl Progress {
    fn holding(most: u64) -> Self {
        // The default policy refuses what is new where the old is in demand; here the newest items come again.
        let builder = Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru());
        Self { left: builder.time_to_idle(MAX_PAUSE).build() }
    }

    /// What is left of an item that was parked with `parked` open.
    pub(super) fn left(&self, key: &Key, parked: Open) -> Open {
        key.as_ref().and_then(|place| self.left.get(place)).unwrap_or(parked)
    }

    /// Remembers what is left.
    pub(super) fn set(&self, key: &Key, left: Open) {
        if let Some(place) = key {
            self.left.insert(place.clone(), left);
        }
    }
}

/// What is open in one or the other.
pub(super) fn both(a: Open, b: Open) -> Open {
    Open {
        telemetry: a.telemetry || b.telemetry,
        twin: a.twin || b.twin,
        waiting_downlink: a.waiting_downlink || b.waiting_downlink,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::Event;

    #[test]
    fn a_full_memory_forgets_the_oldest_item_and_never_the_newest() {
        let progress = Progress::holding(4);
        let all = Open { telemetry: true, twin: true, waiting_downlink: true };
        for sequence_number in 0..20 {
            let key = Event { sequence_number: Some(sequence_number), ..Event::default() }.place("0");
            progress.set(&key, NOTHING);
            progress.left.run_pending_tasks();
            for _ in 0..5 {
                assert_eq!(progress.left(&key, all), NOTHING, "{sequence_number}");
            }
        }
    }
}
