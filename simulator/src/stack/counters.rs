//! What happened so far, in numbers.

use std::collections::BTreeMap;

/// What happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Webhook requests that were sent, answered or not.
    pub sent: u64,
    /// Those answered 2xx.
    pub acknowledged: u64,
    /// Those answered otherwise or not at all: lost, since this edition does not try again.
    pub refused: u64,
    /// Sent, by message type.
    pub by_type: BTreeMap<String, u64>,
    /// The member `outcome` of the JSON bodies of 2xx answers.
    pub outcomes: BTreeMap<String, u64>,
    /// Times that a device became complete on all servers by calls of the API.
    pub registered: u64,
    /// Times that a device was gone from all servers by calls of the API.
    pub deleted: u64,
    /// Downlinks that a push or a replace put into a queue.
    pub downlinks_queued: u64,
}

impl Counters {
    pub(super) fn note_answer(&mut self, kind: &str, is_success: bool, body: &[u8]) {
        self.sent += 1;
        *self.by_type.entry(kind.to_owned()).or_default() += 1;
        if !is_success {
            self.refused += 1;
            return;
        }
        self.acknowledged += 1;
        let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(outcome) = body["outcome"].as_str() {
            *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
        }
    }
}
