//! What this instance knows of the twins it wrote to: enough to write less, and never back in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::reported::{DECODED_PAYLOAD, Frame, LAST_SEEN_AT, Order, ReportedPlan};
use crate::ids::DeviceId;
use crate::iot_hub::twin;

/// Bytes of all memories together. A forgotten device costs one whole patch instead of a smaller one.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// How long a silent device is remembered: the longest common interval between uplinks.
const MAX_SILENCE: Duration = Duration::from_secs(24 * 3600);

/// Values whose time is remembered per device: the uplink, the join and some services.
const MAX_TIMES: usize = 16;

/// How long differences are trusted after a whole patch. It heals what others did to a twin behind our back.
const MAX_TRUST: time::Duration = time::Duration::hours(6);

/// A message younger than this is live: nobody else can have delivered a newer one, save in a race of moments.
/// An older one waited somewhere, and what this instance remembers does not tell what passed it meanwhile.
const LIVE_AGE: time::Duration = time::Duration::seconds(30);

/// Fixed part of what a remembered device weighs.
const BASE_WEIGHT: usize = 512;

/// What is to be done about the twin.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// The twin is up to date or further.
    Nothing,
    /// Write this.
    Write(Map<String, Value>),
    /// Only the twin itself can tell.
    ReadFirst,
}

/// The devices that this instance wrote to.
#[derive(Debug)]
pub(super) struct Memory {
    devices: Cache<DeviceId, Arc<Remembered>>,
    last_seen_interval: time::Duration,
}

#[derive(Clone, Debug, Default)]
struct Remembered {
    /// By the path of the time in the reported properties.
    times: BTreeMap<String, Times>,
    chain: Option<Chain>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// The newest message whose delivery began.
    begun: OffsetDateTime,
    /// The newest message whose values are known to be in the twin, or older than what is there.
    confirmed: Option<OffsetDateTime>,
}

/// Consecutive frames that this instance delivered: nobody else can have written a frame in between.
#[derive(Clone, Debug)]
struct Chain {
    last: Frame,
    /// Of the reported properties, after the last write that this instance knows of.
    version: u64,
    payload: Map<String, Value>,
    last_seen_written: OffsetDateTime,
    whole_written: OffsetDateTime,
}

impl Memory {
    pub(super) fn new(last_seen_interval: Duration) -> Self {
        let devices = Cache::builder()
            .max_capacity(MAX_BYTES)
            // The default policy refuses devices that are new where the others are in demand.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, remembered: &Arc<Remembered>| remembered.weight())
            .time_to_idle(MAX_SILENCE)
            .build();
        let last_seen_interval = last_seen_interval.try_into().unwrap_or(time::Duration::MAX);
        Self { devices, last_seen_interval }
    }

    /// Decides about the twin for a live message, and remembers that its delivery begins.
    pub(super) fn begin(&self, device: &DeviceId, plan: &ReportedPlan, now: OffsetDateTime) -> Step {
        let Order::Time { path, at } = &plan.order else { return Step::ReadFirst };
        let mut step = Step::ReadFirst;
        self.change(device, |remembered| {
            let name = path.join("\n");
            step = match remembered.times.get(&name) {
                Some(Times { confirmed: Some(confirmed), .. }) if at <= confirmed => Step::Nothing,
                Some(Times { begun, .. }) if at < begun => Step::ReadFirst,
                _ if now - *at > LIVE_AGE => Step::ReadFirst,
                _ => Step::Write(self.patch(remembered.chain.as_ref(), plan, *at)),
            };
            remembered.begin(name, *at);
            // What is not written will not be confirmed either.
            if matches!(&step, Step::Write(patch) if patch.is_empty()) {
                remembered.confirm(path, *at);
                if let (Some(chain), Some(frame)) = (&mut remembered.chain, &plan.frame) {
                    chain.last = frame.clone();
                }
                step = Step::Nothing;
            }
        });
        step
    }

    /// The whole patch, or the difference where nobody else can have written since. An empty one is needless.
    fn patch(&self, chain: Option<&Chain>, plan: &ReportedPlan, at: OffsetDateTime) -> Map<String, Value> {
        let trusted = |chain: &&Chain| {
            let follows = plan.frame.as_ref().is_some_and(|frame| frame.follows(&chain.last));
            // A payload that is not an object was too large for the twin: there is nothing to take a difference of.
            let has_members = plan.patch.get(DECODED_PAYLOAD).is_none_or(Value::is_object);
            follows && has_members && at - chain.whole_written < MAX_TRUST
        };
        let Some(chain) = chain.filter(trusted) else { return plan.patch.clone() };
        let mut patch = Map::new();
        let difference = payload(&plan.patch).map(|payload| twin::diff(&chain.payload, payload));
        if let Some(difference) = difference.filter(|difference| !difference.is_empty()) {
            patch.insert(DECODED_PAYLOAD.to_owned(), Value::Object(difference));
        }
        let is_due = at - chain.last_seen_written >= self.last_seen_interval;
        if let Some(last_seen) = plan.patch.get(LAST_SEEN_AT).filter(|_| is_due || !patch.is_empty()) {
            patch.insert(LAST_SEEN_AT.to_owned(), last_seen.clone());
        }
        patch
    }

    /// The twin took the patch that [`begin`](Self::begin) gave for a live message, and has this version now.
    pub(super) fn confirm_written(
        &self,
        device: &DeviceId,
        plan: &ReportedPlan,
        written: &Map<String, Value>,
        version: u64,
    ) {
        let is_whole = *written == plan.patch;
        if plan.frame.is_none() {
            self.confirm_version(device, version);
        }
        self.confirm(device, plan, |chain, frame, at| match chain {
            _ if is_whole => Some(Chain::begun_by(plan, frame, at, version)),
            // Any other version: somebody else wrote, or the device was made anew and its twin holds no more than this.
            Some(mut chain) if frame.follows(&chain.last) && chain.precedes(version) => {
                chain.last = frame.clone();
                chain.version = version;
                chain.last_seen_written = at;
                chain.take_in(written);
                Some(chain)
            }
            // Something else was confirmed in between: the difference was one from values that are no more.
            _ => None,
        });
    }

    /// A write of this instance that is no frame led to this version. If it came right behind the last known one, nobody
    /// else wrote in between.
    pub(super) fn confirm_version(&self, device: &DeviceId, version: u64) {
        self.change(device, |remembered| {
            if let Some(chain) = remembered.chain.as_mut().filter(|chain| chain.precedes(version)) {
                chain.version = version;
            }
        });
    }

    /// The twin was read, and holds this message's values now or newer ones.
    pub(super) fn confirm_read(&self, device: &DeviceId, plan: &ReportedPlan) {
        self.confirm(device, plan, |_, _, _| None);
    }

    fn confirm(
        &self,
        device: &DeviceId,
        plan: &ReportedPlan,
        next: impl FnOnce(Option<Chain>, &Frame, OffsetDateTime) -> Option<Chain>,
    ) {
        let Order::Time { path, at } = &plan.order else { return };
        self.change(device, |remembered| {
            let is_newest = remembered.confirm(path, *at);
            if let Some(frame) = &plan.frame {
                let chain = remembered.chain.take();
                remembered.chain = if is_newest { next(chain, frame, *at) } else { None };
            }
        });
    }

    /// One change at a time per device.
    fn change(&self, device: &DeviceId, change: impl FnOnce(&mut Remembered)) {
        self.devices.entry_by_ref(device).and_compute_with(|entry| {
            let mut remembered = entry.map(|entry| Arc::unwrap_or_clone(entry.into_value())).unwrap_or_default();
            change(&mut remembered);
            Op::Put(Arc::new(remembered))
        });
    }
}

impl Remembered {
    fn begin(&mut self, name: String, at: OffsetDateTime) {
        if self.times.len() >= MAX_TIMES && !self.times.contains_key(&name) {
            self.times.clear();
        }
        let times = self.times.entry(name).or_insert(Times { begun: at, confirmed: None });
        times.begun = times.begun.max(at);
    }

    /// Returns whether nothing newer was confirmed before.
    fn confirm(&mut self, path: &[String], at: OffsetDateTime) -> bool {
        let name = path.join("\n");
        self.begin(name.clone(), at);
        let Some(times) = self.times.get_mut(&name) else { return false };
        let is_newest = times.confirmed.is_none_or(|confirmed| confirmed <= at);
        times.confirmed = times.confirmed.max(Some(at));
        is_newest
    }

    fn weight(&self) -> u32 {
        let payload = self.chain.as_ref().map_or(0, |chain| members_weight(&chain.payload));
        let names: usize = self.times.keys().map(String::len).sum();
        u32::try_from(BASE_WEIGHT + names + payload).unwrap_or(u32::MAX)
    }
}

impl Chain {
    fn begun_by(plan: &ReportedPlan, frame: &Frame, at: OffsetDateTime, version: u64) -> Self {
        let (last, payload) = (frame.clone(), Map::new());
        let mut chain = Self { last, version, payload, last_seen_written: at, whole_written: at };
        chain.take_in(&plan.patch);
        chain
    }

    /// Whether one write lies between what is known and this version.
    fn precedes(&self, version: u64) -> bool {
        self.version.checked_add(1) == Some(version)
    }

    fn take_in(&mut self, written: &Map<String, Value>) {
        if let Some(payload) = payload(written) {
            twin::merge(&mut self.payload, payload);
        }
    }
}

fn payload(patch: &Map<String, Value>) -> Option<&Map<String, Value>> {
    patch.get(DECODED_PAYLOAD)?.as_object()
}

/// Roughly what values take in memory.
fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(members) => members_weight(members),
            _ => 0,
        }
}

fn members_weight(members: &Map<String, Value>) -> usize {
    members.iter().map(|(key, value)| size_of::<String>() + key.len() + weight(value)).sum()
}
