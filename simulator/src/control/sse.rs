//! What happens, as server-sent events.
//!
//! A stream holds no queue: it reads the ring when the browser has taken what was sent. What the ring forgot meanwhile is
//! told by an event `fresh`, upon which the page asks for the state anew.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt as _};
use http::HeaderMap;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::App;
use super::problem::{Asked, Problem};
use crate::happenings::{Happening, Happenings};

/// How much of the past a new reader gets.
const HISTORY: u64 = 200;
/// Shorter than the patience of what may stand between.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After this time a browser tries again.
const RETRY: Duration = Duration::from_secs(1);

type Item = Result<Event, axum::Error>;

#[derive(Debug, Deserialize)]
pub(super) struct Start {
    /// The id of the last happening that was seen, for a page that opens a new stream: it cannot set headers.
    after: Option<String>,
}

/// `GET /sim/events`, from `Last-Event-ID` on, or else from `?after=…` on.
pub(super) async fn events(
    State(app): State<App>,
    Asked(start): Asked<Start>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Item>>, Problem> {
    let full = |_| Problem::new(503, "too many streams of events are open; close a page");
    let permit = app.readers.clone().try_acquire_owned().map_err(full)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).or(start.after.as_deref());
    let reader = Reader::new(app.world.happenings.clone(), app.run.clone(), last, permit);
    let events = stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (event, reader)) });
    let events = events.take_until(app.stop.cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

struct Reader {
    happenings: Happenings,
    newest: watch::Receiver<u64>,
    run: std::sync::Arc<str>,
    /// The number of the last happening that was sent.
    seen: u64,
    /// Read from the ring and not yet sent: no more than the ring held.
    waiting: VecDeque<Item>,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    fn new(happenings: Happenings, run: std::sync::Arc<str>, last: Option<&str>, permit: OwnedSemaphorePermit) -> Self {
        let newest = happenings.newest();
        let end = *newest.borrow();
        let known = last.and_then(|id| id.strip_prefix(&*run)?.strip_prefix('-')?.parse().ok());
        let seen = known.filter(|seen| *seen <= end);
        // A page that comes back from another run shows what is gone.
        let is_stale = last.is_some() && seen.is_none();
        let first = if is_stale { fresh() } else { Event::default().comment("the simulator") };
        let seen = seen.unwrap_or(end.saturating_sub(HISTORY));
        Self { happenings, newest, run, seen, waiting: [Ok(first.retry(RETRY))].into(), _permit: permit }
    }

    async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            // Noted before the ring is read: what comes in between wakes the wait below.
            self.newest.mark_unchanged();
            self.read();
            if self.waiting.is_empty() {
                self.newest.changed().await.ok()?;
            }
        }
    }

    fn read(&mut self) {
        let unread = self.happenings.after(self.seen);
        if unread.missed > 0 {
            self.waiting.push_back(Ok(fresh()));
        }
        for happening in unread.happenings {
            self.seen = happening.seq;
            self.waiting.push_back(self.event(&happening));
        }
    }

    fn event(&self, happening: &Happening) -> Item {
        Event::default().event("happening").id(format!("{}-{}", self.run, happening.seq)).json_data(happening)
    }
}

fn fresh() -> Event {
    Event::default().event("fresh").data("{}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::happenings::{KEPT, Kind};

    fn reader(happenings: &Happenings, last: Option<&str>) -> Reader {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("it is free");
        Reader::new(happenings.clone(), "run".into(), last, permit)
    }

    fn note(happenings: &Happenings, count: usize) {
        (0..count).for_each(|_| happenings.note(Kind::Fault, None, || ("x", Value::Null)));
    }

    /// What a reader has to send at once: `fresh` and the numbers of happenings.
    fn at_once(reader: &mut Reader) -> (bool, u64) {
        reader.read();
        let is_fresh = reader.waiting.iter().any(|event| format!("{event:?}").contains("fresh"));
        (is_fresh, reader.seen)
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let happenings = Happenings::new();
        note(&happenings, 300);
        for (last, is_fresh, sent) in [
            (None, false, 200),
            (Some("run-299"), false, 1),
            (Some("run-300"), false, 0),
            (Some("run-301"), true, 200),
            (Some("earlier-299"), true, 200),
            (Some("rubbish"), true, 200),
        ] {
            let mut reader = reader(&happenings, last);
            assert_eq!(at_once(&mut reader), (is_fresh, 300), "{last:?}");
            assert_eq!(reader.waiting.len(), sent + 1, "{last:?}");
        }
    }

    #[test]
    fn a_reader_that_lags_is_told_to_begin_afresh_and_holds_no_more_than_the_ring() {
        let happenings = Happenings::new();
        let mut reader = reader(&happenings, None);
        note(&happenings, KEPT * 3);
        assert_eq!(at_once(&mut reader), (true, 3 * KEPT as u64));
        assert_eq!(reader.waiting.len(), KEPT + 2);
    }
}
