//! The outcomes that senders asked for, until somebody takes them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::Feedback;

/// Most outcomes that wait. The oldest give way: nobody has read them for long.
const MAX_WAITING: usize = 10_000;
/// Most outcomes that are taken at once.
const MAX_TAKEN: usize = 100;

/// Outcomes on their way to the services.
#[derive(Debug, Default)]
pub(in crate::iot_hub) struct Outbox {
    waiting: Mutex<VecDeque<Feedback>>,
    arrived: Notify,
}

impl Outbox {
    pub(in crate::iot_hub) fn put(&self, feedback: Feedback) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            waiting.pop_front();
            tracing::warn!("an outcome of a cloud-to-device message is lost: nobody reads the feedback");
        }
        waiting.push_back(feedback);
        self.arrived.notify_one();
    }

    /// Waits for at least one outcome and takes up to 100, the oldest first.
    pub(in crate::iot_hub) async fn take(&self) -> Vec<Feedback> {
        loop {
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            self.arrived.notified().await;
        }
    }

    fn take_now(&self) -> Vec<Feedback> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(MAX_TAKEN);
        let taken = waiting.drain(..count).collect();
        if !waiting.is_empty() {
            // Another reader may have the rest.
            self.arrived.notify_one();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn feedback(id: usize) -> Feedback {
        Feedback {
            original_message_id: id.to_string(),
            device_id: "d1".into(),
            device_generation_id: "g1".into(),
            enqueued_at: datetime!(2026-03-01 09:00 UTC),
            status: "Success",
        }
    }

    #[tokio::test]
    async fn outcomes_are_taken_in_order_a_hundred_at_a_time() {
        let outbox = Outbox::default();
        (0..MAX_TAKEN + 1).for_each(|id| outbox.put(feedback(id)));
        let (first, second) = tokio::join!(outbox.take(), outbox.take());
        assert_eq!((first.len(), second), (MAX_TAKEN, vec![feedback(MAX_TAKEN)]));
    }

    #[tokio::test]
    async fn who_waits_gets_what_comes() {
        let outbox = Outbox::default();
        let put = async { outbox.put(feedback(7)) };
        let (taken, ()) = tokio::join!(outbox.take(), put);
        assert_eq!(taken, [feedback(7)]);
    }

    #[test]
    fn the_oldest_give_way() {
        let outbox = Outbox::default();
        (0..MAX_WAITING + 1).for_each(|id| outbox.put(feedback(id)));
        assert_eq!(outbox.take_now().first(), Some(&feedback(1)));
    }
}
