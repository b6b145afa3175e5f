//! Where lines of the handler and of the host go.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::happenings::{Happenings, Kind};

/// Takes every line of the log: `host: …` and `handler: …`.
pub type LogSink = Box<dyn Fn(&str) + Send + Sync>;

/// Lines of each kind that are kept for tests; older ones are dropped.
const KEPT_LINES: usize = 20_000;

pub(super) struct Log {
    sink: LogSink,
    happenings: Happenings,
    handler: Mutex<VecDeque<String>>,
    invocations: Mutex<VecDeque<(String, String)>>,
}

impl Log {
    pub(super) fn new(sink: LogSink, happenings: Happenings) -> Self {
        Self { sink, happenings, handler: Mutex::default(), invocations: Mutex::default() }
    }

    /// Tells whoever watches what happened to the handler or to an invocation.
    pub(super) fn happened(&self, title: impl Into<String>, detail: Value) {
        self.happenings.note(Kind::Handler, None, || (title, detail));
    }

    pub(super) fn host(&self, line: impl AsRef<str>) {
        (self.sink)(&format!("host: {}", line.as_ref()));
    }

    pub(super) fn handler(&self, line: String) {
        (self.sink)(&format!("handler: {line}"));
        keep(&self.handler, line);
    }

    /// A line of the `Logs` that a successful answer carried.
    pub(super) fn invocation(&self, function: &str, line: String) {
        self.host(format!("Function.{function}.User: {line}"));
        keep(&self.invocations, (function.to_owned(), line));
    }

    pub(super) fn invocation_lines(&self, function: &str) -> Vec<String> {
        let lines = self.invocations.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|(name, _)| name == function).map(|(_, line)| line.clone()).collect()
    }

    pub(super) fn handler_lines(&self) -> Vec<String> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn keep<T>(lines: &Mutex<VecDeque<T>>, line: T) {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.len() == KEPT_LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}
