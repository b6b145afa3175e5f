//! What happens in the simulated services, for whoever watches: a bounded ring that any number of readers follow.
//!
//! A reader asks for what came after the last one it saw, so a slow one costs nothing: what fell out of the ring meanwhile
//! it has missed, and is told so. Payloads are shown, for all of this is on the user's own machine; keys and tokens never.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::watch;

/// So many happenings are kept.
pub const KEPT: usize = 1000;
/// Most bytes of a payload that one happening shows.
pub const EXCERPT_BYTES: usize = 2048;
/// Most characters of a title.
const TITLE_CHARS: usize = 240;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The Things Stack called a webhook.
    Uplink,
    /// The hub stored a device-to-cloud message.
    Telemetry,
    /// A device wrote its reported properties, or was refused.
    Twin,
    /// A service wrote desired properties.
    Desired,
    /// A device was created, changed or deleted in the hub.
    Identity,
    /// A device connected, was refused, or went.
    Connection,
    /// Something became of a downlink in The Things Stack.
    Downlink,
    /// An event of the hub was routed to an Event Hub.
    Event,
    /// An uplink was parked.
    Parked,
    /// Something was given up for good.
    DeadLetter,
    /// The handler's process or one of its invocations.
    Handler,
    /// Someone lacks a right for what they asked.
    Refused,
    /// Someone broke or mended something on purpose.
    Fault,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happening {
    /// Its place in the order of all happenings of this run, from 1.
    pub seq: u64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What kind of thing.
    pub kind: Kind,
    /// The device that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What happened, in a line.
    pub title: String,
    /// More about it, by kind.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// What a reader has not seen yet.
#[derive(Debug, Default, PartialEq)]
pub struct Unread {
    /// The happenings, oldest first.
    pub happenings: Vec<Arc<Happening>>,
    /// So many more were forgotten before they were read.
    pub missed: u64,
}

#[derive(Debug)]
struct Bus {
    capacity: usize,
    ring: Mutex<VecDeque<Arc<Happening>>>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

/// A handle of the ring. The clones share it; the default keeps nothing.
#[derive(Clone, Debug)]
pub struct Happenings(Arc<Bus>);

impl Default for Happenings {
    fn default() -> Self {
        Self::keeping(0)
    }
}

impl Happenings {
    /// A ring that keeps the latest [`KEPT`].
    #[must_use]
    pub fn new() -> Self {
        Self::keeping(KEPT)
    }

    fn keeping(capacity: usize) -> Self {
        Self(Arc::new(Bus { capacity, ring: Mutex::default(), newest: watch::Sender::new(0) }))
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Arc<Happening>>> {
        // Every change of the ring is complete before anything that could panic.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what happened: `tell` gives title and detail, and is called only if someone may read it.
    pub fn note<T: Into<String>>(&self, kind: Kind, device: Option<&str>, tell: impl FnOnce() -> (T, Value)) {
        if self.0.capacity == 0 {
            return;
        }
        let (title, detail) = tell();
        let title = title.into().chars().take(TITLE_CHARS).collect();
        let device = device.filter(|id| !id.is_empty()).map(str::to_owned);
        let mut ring = self.ring();
        let seq = *self.0.newest.borrow() + 1;
        if ring.len() == self.0.capacity {
            ring.pop_front();
        }
        ring.push_back(Arc::new(Happening { seq, at: OffsetDateTime::now_utc(), kind, device, title, detail }));
        // Still locked: a reader that is told of a number finds it in the ring.
        self.0.newest.send_replace(seq);
    }

    /// What came after this number.
    #[must_use]
    pub fn after(&self, seq: u64) -> Unread {
        let ring = self.ring();
        let happenings: Vec<_> = ring.iter().filter(|happening| happening.seq > seq).cloned().collect();
        let first = happenings.first().map_or(seq + 1, |first| first.seq);
        Unread { happenings, missed: first.saturating_sub(seq + 1) }
    }

    /// Changes with everything that happens; its value is the number of the newest.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }
}

/// The first [`EXCERPT_BYTES`] of a payload as text; what is no UTF-8 shows as replacement characters.
#[must_use]
pub fn excerpt(payload: &[u8]) -> String {
    let cut = &payload[..payload.len().min(EXCERPT_BYTES)];
    let text = match std::str::from_utf8(cut) {
        // A character that the cut has split is left out.
        Err(error) if error.error_len().is_none() => String::from_utf8_lossy(&cut[..error.valid_up_to()]),
        _ => String::from_utf8_lossy(cut),
    };
    text.into_owned()
}

/// The value itself if its JSON text is small, else the beginning of that text.
#[must_use]
pub fn bounded(value: &Value) -> Value {
    let text = value.to_string();
    if text.len() <= EXCERPT_BYTES { value.clone() } else { json!(excerpt(text.as_bytes())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(happenings: &Happenings, title: &str) {
        happenings.note(Kind::Fault, None, || (title, Value::Null));
    }

    #[test]
    fn a_reader_gets_what_came_after_the_last_one_it_saw() {
        let happenings = Happenings::new();
        ["a", "b", "c"].into_iter().for_each(|title| note(&happenings, title));
        let titles = |seq| happenings.after(seq).happenings.iter().map(|one| one.title.clone()).collect::<Vec<_>>();
        assert_eq!(titles(0), ["a", "b", "c"]);
        assert_eq!(titles(2), ["c"]);
        assert_eq!(happenings.after(3), Unread::default());
        assert_eq!(*happenings.newest().borrow(), 3);
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_says_how_many_were_missed() {
        let happenings = Happenings::new();
        (0..KEPT + 5).for_each(|_| note(&happenings, "x"));
        let unread = happenings.after(2);
        assert_eq!((unread.happenings.len(), unread.missed), (KEPT, 3));
        assert_eq!(unread.happenings[0].seq, 6);
        assert_eq!(happenings.after(5).missed, 0);
    }

    #[test]
    fn nothing_is_told_to_the_default() {
        let happenings = Happenings::default();
        happenings.note(Kind::Twin, Some("d1"), || -> (String, Value) { panic!("nobody reads this") });
        assert_eq!(happenings.after(0), Unread::default());
    }

    #[test]
    fn payloads_are_cut_between_characters() {
        let long = format!("{}ä", "x".repeat(EXCERPT_BYTES - 1));
        assert_eq!(excerpt(long.as_bytes()), "x".repeat(EXCERPT_BYTES - 1));
        assert_eq!(excerpt(b"\xFFa"), "\u{FFFD}a");
        assert_eq!(bounded(&json!({"a": 1})), json!({"a": 1}));
        assert!(bounded(&json!("y".repeat(EXCERPT_BYTES))).as_str().is_some_and(|text| text.len() == EXCERPT_BYTES));
    }

    #[test]
    fn a_happening_is_written_without_what_is_absent() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let bare =
            Happening { seq: 1, at, kind: Kind::DeadLetter, device: None, title: "t".into(), detail: Value::Null };
        let expected = json!({"seq": 1, "at": "1970-01-01T00:00:00Z", "kind": "dead_letter", "title": "t"});
        assert_eq!(serde_json::to_value(bare).expect("it can be written"), expected);
    }
}
