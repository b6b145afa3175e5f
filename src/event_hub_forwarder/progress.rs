//! What this process remembers of events: those that are done, and how often the others failed.
//!
//! A batch is delivered again as a whole. Everything here could be forgotten without a loss: a repeated event finds in the twin
//! what was done about it. The memory saves the calls, and bounds the tries of an event that fails while others pass.

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::functions::Place;

/// Events remembered: several batches of 64 from each of 32 partitions.
const CAPACITY: u64 = 16_384;

#[derive(Clone, Copy, Debug)]
enum State {
    Done,
    Failed(u32),
}

/// The memory.
#[derive(Debug)]
pub(super) struct Progress(Cache<Place, State>);

impl Progress {
    pub(super) fn new() -> Self {
        Self::with_capacity(CAPACITY)
    }

    /// The oldest are forgotten first. The cache's own rule would rather keep what was asked for often, and not take up new events
    /// at all once it is full.
    fn with_capacity(events: u64) -> Self {
        Self(Cache::builder().max_capacity(events).eviction_policy(EvictionPolicy::lru()).build())
    }

    pub(super) fn is_done(&self, key: Option<&Place>) -> bool {
        key.is_some_and(|key| matches!(self.0.get(key), Some(State::Done)))
    }

    pub(super) fn done(&self, key: Option<Place>) {
        if let Some(key) = key {
            self.0.insert(key, State::Done);
        }
    }

    /// Counts a failed try and returns how many there were.
    pub(super) fn failed(&self, key: Option<Place>) -> u32 {
        let Some(key) = key else { return 1 };
        let before = match self.0.get(&key) {
            Some(State::Failed(tries)) => tries,
            Some(State::Done) | None => 0,
        };
        let tries = before.saturating_add(1);
        self.0.insert(key, State::Failed(tries));
        tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::Event;

    fn place(sequence_number: i64) -> Option<Place> {
        Event { sequence_number: Some(sequence_number), ..Event::default() }.place("0")
    }

    #[test]
    fn an_event_is_known_by_its_place_and_not_without_one() {
        let progress = Progress::new();
        progress.done(place(7));
        assert!(progress.is_done(place(7).as_ref()));
        assert!(!progress.is_done(place(8).as_ref()));
        assert_eq!(Event::default().place("0"), None);
        assert!(!progress.is_done(None));
    }

    #[test]
    fn a_full_memory_takes_up_new_events_and_forgets_the_oldest() {
        let progress = Progress::with_capacity(4);
        for sequence_number in 0..100 {
            progress.done(place(sequence_number));
            // Known events are asked for often.
            for _ in 0..8 {
                progress.is_done(place(sequence_number).as_ref());
            }
            progress.0.run_pending_tasks();
        }
        assert!((96..100).all(|newest| progress.is_done(place(newest).as_ref())));
        assert!(!progress.is_done(place(0).as_ref()));
    }

    #[test]
    fn tries_are_counted() {
        let progress = Progress::new();
        assert_eq!((progress.failed(place(7)), progress.failed(place(7))), (1, 2));
    }
}
