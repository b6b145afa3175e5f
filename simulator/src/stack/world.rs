//! Everything that the servers remember, behind one lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::counters::Counters;
use super::ids;
use super::registry::{Registries, Server};

/// The session of a device, as Network and Application Server share it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Session {
    pub(super) dev_addr: String,
    pub(super) key_id: String,
    /// Counter of the next uplink.
    pub(super) f_cnt_up: u32,
    /// Counter of the next downlink.
    pub(super) f_cnt_down: u32,
    pub(super) queue: VecDeque<Value>,
}

impl Session {
    fn new(dev_addr: String) -> Self {
        Self { dev_addr, key_id: ids::session_key_id(), f_cnt_up: 0, f_cnt_down: 1, queue: VecDeque::new() }
    }

    /// Appends an item with its place in the session.
    pub(super) fn enqueue(&mut self, mut item: Value) {
        item["session_key_id"] = json!(self.key_id);
        item["f_cnt"] = json!(self.f_cnt_down);
        self.f_cnt_down += 1;
        self.queue.push_back(item);
    }
}

/// The memory of the servers.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) registries: Registries,
    pub(super) sessions: BTreeMap<String, Session>,
    /// Webhooks by id, as the API stores them.
    pub(super) webhooks: BTreeMap<String, Value>,
    /// Whether the edition has the `azureiothub` package.
    pub(super) has_package: bool,
    pub(super) events: Vec<Value>,
    pub(super) counters: Counters,
    complete: BTreeSet<String>,
}

impl World {
    /// Counts a device that a call of the API just completed.
    pub(super) fn note_registration(&mut self, id: &str) {
        if self.note_completion(id) {
            self.counters.registered += 1;
        }
    }

    /// Keeps book of complete devices. `true`: this one was not complete before.
    pub(super) fn note_completion(&mut self, id: &str) -> bool {
        self.registries.is_complete(id) && self.complete.insert(id.to_owned())
    }

    /// Forgets what a server knew beside its registry, and counts a device that is now gone from all.
    pub(super) fn note_deletion(&mut self, server: Server, id: &str) {
        self.complete.remove(id);
        if matches!(server, Server::Network | Server::Application) {
            self.sessions.remove(id);
        }
        if !self.registries.is_known(id) {
            self.counters.deleted += 1;
        }
    }

    /// An ABP device has a session as soon as the Application Server knows its address.
    pub(super) fn activate_by_personalisation(&mut self, id: &str, device: &Value) {
        let Some(dev_addr) = device["session"]["dev_addr"].as_str() else { return };
        if self.sessions.get(id).is_none_or(|session| session.dev_addr != dev_addr) {
            self.sessions.insert(id.to_owned(), Session::new(dev_addr.to_owned()));
        }
    }

    /// A new session after a join; what waited in the queue goes over to it.
    pub(super) fn activate_over_the_air(&mut self, id: &str) {
        let mut session = Session::new(ids::dev_addr());
        let waiting = self.sessions.remove(id).map(|old| old.queue).unwrap_or_default();
        waiting.into_iter().for_each(|item| session.enqueue(item));
        self.sessions.insert(id.to_owned(), session);
    }

    /// The identifiers of a device as messages carry them: with its address once it has a session.
    pub(super) fn end_device_ids(&self, application: &str, id: &str) -> Value {
        let mut identifiers = self.registries.ids(application, id);
        if let Some(session) = self.sessions.get(id) {
            identifiers["dev_addr"] = json!(session.dev_addr);
        }
        identifiers
    }
}
