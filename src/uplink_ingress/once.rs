//! The same message twice within the window has one effect.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use super::answer::{Outcome, Refusal};
use super::settle::Settled;

/// Most messages remembered, about 250 bytes each. Above some hundred a second the window becomes shorter.
const MAX_MESSAGES: u64 = 100_000;

/// The messages that were settled within the window.
pub(super) struct Once {
    settled: Option<Cache<String, Settled>>,
}

impl Once {
    /// A window of zero remembers nothing.
    pub(super) fn new(window: Duration) -> Self {
        Self::holding(MAX_MESSAGES, window)
    }

    fn holding(most: u64, window: Duration) -> Self {
        // The default policy refuses what is new where the old is in demand; here only the newest messages count.
        let cache = || {
            let builder = Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru());
            builder.time_to_live(window).build()
        };
        Self { settled: (!window.is_zero()).then(cache) }
    }

    /// Settles a message unless it is settled already. One that is being settled right now is waited for, and a failure
    /// is the failure of all that wait, but is not remembered.
    pub(super) async fn run(
        &self,
        message_id: &str,
        settle: impl Future<Output = Result<Settled, Refusal>>,
    ) -> Result<Settled, Refusal> {
        let Some(settled) = &self.settled else { return settle.await };
        let entry = settled.entry_by_ref(message_id).or_try_insert_with(settle).await.map_err(Arc::unwrap_or_clone)?;
        if entry.is_fresh() {
            return Ok(entry.into_value());
        }
        let reason = format!("{} before", entry.value().outcome.name());
        Ok(Settled { outcome: Outcome::Duplicate, parked: false, reason: Some(reason) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn settle(once: &Once, message_id: &str) -> Outcome {
        let settled = async { Ok(Settled { outcome: Outcome::Delivered, parked: false, reason: None }) };
        once.run(message_id, settled).await.expect("settled").outcome
    }

    #[tokio::test]
    async fn a_full_memory_forgets_the_oldest_message_and_never_the_newest() {
        let once = Once::holding(4, Duration::from_secs(900));
        for n in 0..20 {
            let id = n.to_string();
            assert_eq!(settle(&once, &id).await, Outcome::Delivered, "{id}");
            once.settled.as_ref().expect("a window").run_pending_tasks().await;
            for _ in 0..5 {
                assert_eq!(settle(&once, &id).await, Outcome::Duplicate, "{id}");
            }
        }
    }
}
