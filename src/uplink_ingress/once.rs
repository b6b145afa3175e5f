//! The same message twice within the window has one effect.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

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
        let cache = || Cache::builder().max_capacity(MAX_MESSAGES).time_to_live(window).build();
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
        Ok(Settled { outcome: Outcome::Duplicate, reason: Some(reason) })
    }
}
