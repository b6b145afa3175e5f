//! What a failure means for the message that met it. Only this class decides status codes and retries.

/// The class of a failure at any boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An outage or a passing fault: the same call may succeed later.
    Retry,
    /// Refused for its rate: the same call succeeds later and slower.
    Throttled,
    /// Our own credentials or rights were refused: no message is to blame, the operator must act.
    Denied,
    /// This message can never succeed as it is: it belongs in the dead letters.
    Poison,
}
