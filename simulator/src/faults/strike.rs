//! What a strike leaves of an exchange.

use std::time::Duration;

use super::rule::Action;

/// A fault that has struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Go on after this time.
    Delay(Duration),
    /// Say nothing; the connection stays.
    Drop,
    /// Close without a word.
    Close,
    /// Answer that there are too many calls.
    Throttle,
    /// Answer that it cannot be.
    Refuse,
}

impl Strike {
    pub(super) fn new(action: Action, delay_ms: Option<u64>) -> Self {
        match action {
            Action::Delay => Self::Delay(Duration::from_millis(delay_ms.unwrap_or_default())),
            Action::Drop => Self::Drop,
            Action::Close => Self::Close,
            Action::Throttle => Self::Throttle,
            Action::Refuse => Self::Refuse,
        }
    }
}

/// How an exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As if nothing had been.
    GoesOn,
    /// Nothing more is said; the connection stays.
    Silence,
    /// The connection is closed.
    Closed,
}

/// Waits as long as a strike demands, and says how the exchange ends. Stages that answer a throttled or refused call in
/// their own words do so before; here both close.
pub async fn play(strike: Option<Strike>) -> Fate {
    match strike {
        None => Fate::GoesOn,
        Some(Strike::Delay(time)) => {
            tokio::time::sleep(time).await;
            Fate::GoesOn
        }
        Some(Strike::Drop) => Fate::Silence,
        Some(Strike::Close | Strike::Throttle | Strike::Refuse) => Fate::Closed,
    }
}
