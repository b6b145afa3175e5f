//! What the parts of a running host have in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::fleet::{Fleet, Instance};
use super::log::Log;
use super::pace::Pace;
use crate::event_hubs::Namespace;

/// As in the recordings.
pub(super) const HOST_VERSION: &str = "4.1037.0.0";
pub(super) const VERSION_HEADER: &str = "x-azure-functions-hostversion";
pub(super) const INVOCATION_HEADER: &str = "x-azure-functions-invocationid";

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// HTTP calls that were passed to the handler.
    pub http_calls: u64,
    /// Batches (with `cardinality: one`, events) that were handed to the handler, retries not counted.
    pub batches: u64,
    /// Retries of batches.
    pub retries: u64,
    /// Events of batches that ended in success.
    pub events_delivered: u64,
    /// Checkpoints that were written.
    pub checkpoints: u64,
    /// Starts of the handler after the first.
    pub restarts: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) http_calls: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) events_delivered: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) restarts: AtomicU64,
}

impl Counts {
    pub(super) fn snapshot(&self) -> Counters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            http_calls: read(&self.http_calls),
            batches: read(&self.batches),
            retries: read(&self.retries),
            events_delivered: read(&self.events_delivered),
            checkpoints: read(&self.checkpoints),
            restarts: read(&self.restarts),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

/// One partition as one consumer group sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    pub(super) event_hub: String,
    pub(super) consumer_group: String,
    pub(super) partition: usize,
}

pub(super) struct Shared {
    pub(super) app: App,
    pub(super) function_key: String,
    /// Opens every function and the administration.
    pub(super) master_key: String,
    pub(super) pace: Pace,
    pub(super) namespace: Namespace,
    pub(super) log: Log,
    pub(super) counts: Counts,
    pub(super) fleet: Fleet,
    /// The next sequence number to deliver.
    checkpoints: Mutex<BTreeMap<Cursor, i64>>,
    pub(super) http_running: AtomicUsize,
    pub(super) batches_running: AtomicUsize,
    /// Batches between two attempts.
    pub(super) waiting_retries: AtomicUsize,
    /// Changes whenever a call ends or a checkpoint moves.
    pub(super) activity: watch::Sender<()>,
    /// No more batches are taken on; HTTP calls are.
    pub(super) drained: CancellationToken,
    /// Nothing new is taken on.
    pub(super) draining: CancellationToken,
    /// Everything ends now.
    pub(super) stop: CancellationToken,
}

/// What a host is made of, beside its app.
pub(super) struct Parts {
    pub(super) function_key: String,
    pub(super) master_key: String,
    pub(super) pace: Pace,
    pub(super) namespace: Namespace,
    pub(super) log: Log,
    pub(super) stop: CancellationToken,
    pub(super) common: Instance,
}

impl Shared {
    pub(super) fn new(app: App, parts: Parts) -> Self {
        Self {
            app,
            function_key: parts.function_key,
            master_key: parts.master_key,
            pace: parts.pace,
            namespace: parts.namespace,
            log: parts.log,
            counts: Counts::default(),
            fleet: Fleet::new(parts.common),
            checkpoints: Mutex::default(),
            http_running: AtomicUsize::new(0),
            batches_running: AtomicUsize::new(0),
            waiting_retries: AtomicUsize::new(0),
            activity: watch::Sender::new(()),
            drained: CancellationToken::new(),
            draining: CancellationToken::new(),
            stop: parts.stop,
        }
    }

    pub(super) fn checkpoint(&self, cursor: &Cursor) -> i64 {
        let checkpoints = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.get(cursor).copied().unwrap_or(0)
    }

    pub(super) fn set_checkpoint(&self, cursor: &Cursor, next: i64) {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).insert(cursor.clone(), next);
        self.activity.send_replace(());
    }

    /// Events between the checkpoints and the ends of the partitions.
    pub(super) fn lag(&self, event_hub: &str, consumer_group: &str) -> u64 {
        let Some(hub) = self.namespace.hub(event_hub) else { return 0 };
        let behind = |partition: usize| {
            let cursor =
                Cursor { event_hub: event_hub.to_owned(), consumer_group: consumer_group.to_owned(), partition };
            u64::try_from(hub.end(partition) - self.checkpoint(&cursor)).unwrap_or(0)
        };
        (0..hub.partition_count()).map(behind).sum()
    }

    pub(super) fn running(&self) -> usize {
        self.http_running.load(Ordering::Acquire) + self.batches_running.load(Ordering::Acquire)
    }

    /// Counts a call as running, also on its instance, until the guard is dropped.
    pub(super) fn run<'a>(&'a self, kind: &'a AtomicUsize, instance: &'a Instance) -> RunningCall<'a> {
        kind.fetch_add(1, Ordering::AcqRel);
        instance.running.fetch_add(1, Ordering::AcqRel);
        RunningCall { running: vec![kind, &instance.running], activity: &self.activity }
    }

    /// Counts a pause between two attempts until the guard is dropped.
    pub(super) fn wait_for_retry(&self) -> RunningCall<'_> {
        self.waiting_retries.fetch_add(1, Ordering::AcqRel);
        RunningCall { running: vec![&self.waiting_retries], activity: &self.activity }
    }
}

pub(super) struct RunningCall<'a> {
    running: Vec<&'a AtomicUsize>,
    activity: &'a watch::Sender<()>,
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        for running in &self.running {
            running.fetch_sub(1, Ordering::AcqRel);
        }
        self.activity.send_replace(());
    }
}
