//! Waiting for what must come true, without a sleep that hides a race: the condition is asked until it holds or time is up.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often the condition is asked.
const INTERVAL: Duration = Duration::from_millis(10);

/// Whether the condition came true within `limit`.
pub async fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        let now = Instant::now();
        if now >= end {
            return false;
        }
        sleep_until((now + INTERVAL).min(end)).await;
    }
}
