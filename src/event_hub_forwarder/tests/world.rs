//! A hub and a Things Stack in memory: twins with merge patches and etags, failures by script.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::super::apply::Worker;
use super::super::batch::Batches;
use super::super::plan::Rules;
use super::super::services::{Service, Services, Special, Trouble};
use crate::config::EventsTarget;
use crate::event_hubs::DeadLetter;
use crate::failure::Class;
use crate::functions::{Event, Invocation, Outcome};
use crate::ids::{ApplicationId, DeviceId, DevicePrefix};
use crate::iot_hub::{Identity, Twin};
use crate::stack::{Downlink, QueueOperation, Registration};

pub(super) const KEY: &str = "00112233445566778899AABBCCDDEEFF";

pub(super) fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).expect("a valid id")
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

pub(super) fn lorawan() -> Value {
    json!({
        "devEui": "A1B2C3D4E5F60718", "joinEui": "0102030405060708", "lorawanVersion": "1.0.3",
        "regionalParametersVersion": "1.0.3-a", "appKey": KEY, "frequencyPlanId": "EU_863_870_TTN",
    })
}

pub(super) fn rules() -> Rules {
    let application = ApplicationId::parse("cold-store").expect("a valid id");
    Rules { application, prefix: DevicePrefix::default(), keep_root_keys: false, sync_delete: true }
}

pub(super) fn twin(tags: Value, desired: Value) -> Twin {
    Twin {
        etag: "1".to_owned(),
        tags: object(tags),
        desired: object(desired),
        desired_version: 1,
        reported: Map::new(),
        reported_version: 1,
    }
}

/// An event as the host delivers it.
pub(super) fn event(source: &str, op: &str, device: &str, body: &Value) -> Event {
    Event {
        body: body.to_string().into(),
        sequence_number: Some(0),
        enqueued_at: Some("2026-02-03T04:05:06".to_owned()),
        properties: object(json!({"opType": op, "deviceId": device})),
        system_properties: object(json!({"iothub-message-source": source, "iothub-connection-device-id": device})),
    }
}

pub(super) fn twin_event(device: &str, body: Value) -> Event {
    event("twinChangeEvents", "updateTwin", device, &body)
}

pub(super) fn lifecycle_event(op: &str, device: &str) -> Event {
    event("deviceLifecycleEvents", op, device, &json!({"deviceId": device}))
}

pub(super) fn trouble(service: Service, class: Class, outage: bool) -> Trouble {
    Trouble { service, class, outage, special: Special::No, text: format!("scripted {class:?}") }
}

pub(super) fn no_session() -> Trouble {
    Trouble { special: Special::NoSession, ..trouble(Service::Stack, Class::Poison, false) }
}

/// The world. A failure keyed `operation device` (or `operation *`) is returned as long as it stands.
#[derive(Default)]
pub(super) struct World {
    pub(super) twins: Mutex<BTreeMap<String, Twin>>,
    pub(super) failures: Mutex<HashMap<String, Trouble>>,
    pub(super) calls: Mutex<Vec<String>>,
    pub(super) queue: Mutex<Vec<(String, Downlink)>>,
    pub(super) letters: Mutex<Vec<DeadLetter>>,
    /// Room for tags, in bytes of JSON; none is set for no bound.
    pub(super) tag_room: Mutex<Option<usize>>,
    /// Patches that meet a change by someone else.
    pub(super) stale_patches: Mutex<u32>,
    sequence: Mutex<i64>,
}

impl World {
    pub(super) fn put(&self, device: &str, twin: Twin) {
        self.twins.lock().expect("no panic").insert(device.to_owned(), twin);
    }

    pub(super) fn get(&self, device: &str) -> Twin {
        self.twins.lock().expect("no panic").get(device).cloned().expect("a twin")
    }

    pub(super) fn desire(&self, device: &str, patch: Value) -> Event {
        let mut twin = self.get(device);
        let mut desired = Value::Object(std::mem::take(&mut twin.desired));
        merge(&mut desired, &patch);
        twin.desired = object(desired);
        twin.desired_version += 1;
        bump(&mut twin);
        let mut said = patch;
        said["$version"] = json!(twin.desired_version);
        self.put(device, twin);
        twin_event(device, json!({"properties": {"desired": said}}))
    }

    pub(super) fn fail(&self, call: &str, trouble: Trouble) {
        self.failures.lock().expect("no panic").insert(call.to_owned(), trouble);
    }

    pub(super) fn heal(&self, call: &str) {
        self.failures.lock().expect("no panic").remove(call);
    }

    pub(super) fn count(&self, operation: &str) -> usize {
        self.calls.lock().expect("no panic").iter().filter(|call| call.starts_with(operation)).count()
    }

    pub(super) fn letters(&self) -> Vec<DeadLetter> {
        self.letters.lock().expect("no panic").clone()
    }

    /// Gives each event its place in the partition.
    pub(super) fn batch(&self, events: impl IntoIterator<Item = Event>) -> Invocation {
        let mut sequence = self.sequence.lock().expect("no panic");
        let placed = |mut event: Event| {
            event.sequence_number = Some(*sequence);
            *sequence += 1;
            event
        };
        let events = events.into_iter().map(placed).collect();
        Invocation { id: "i-1".to_owned(), retry_count: 0, partition_id: "0".to_owned(), events }
    }

    fn called(&self, operation: &str, device: &DeviceId) -> Result<(), Trouble> {
        let call = format!("{operation} {device}");
        self.calls.lock().expect("no panic").push(call.clone());
        let failures = self.failures.lock().expect("no panic");
        let failure = failures.get(&call).or_else(|| failures.get(&format!("{operation} *"))).cloned();
        drop(failures);
        match failure {
            Some(trouble) if trouble.text == "panic" => panic!("scripted"),
            Some(trouble) => Err(trouble),
            None => Ok(()),
        }
    }
}

pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("an object");
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn bump(twin: &mut Twin) {
    let etag: u64 = twin.etag.parse().expect("a number");
    twin.etag = (etag + 1).to_string();
}

fn stale() -> Trouble {
    Trouble { special: Special::Stale, ..trouble(Service::Hub, Class::Retry, false) }
}

impl Services for World {
    async fn twin(&self, id: &DeviceId) -> Result<Option<Twin>, Trouble> {
        self.called("twin", id)?;
        Ok(self.twins.lock().expect("no panic").get(id.as_str()).cloned())
    }

    async fn patch_tags(&self, id: &DeviceId, tags: &Value, if_match: &str) -> Result<Twin, Trouble> {
        self.called("patch", id)?;
        let mut twins = self.twins.lock().expect("no panic");
        let twin = twins.get_mut(id.as_str()).ok_or_else(|| trouble(Service::Hub, Class::Poison, false))?;
        let mut stale_patches = self.stale_patches.lock().expect("no panic");
        if *stale_patches > 0 {
            *stale_patches -= 1;
            bump(twin);
        }
        if twin.etag != if_match {
            return Err(stale());
        }
        let mut merged = Value::Object(twin.tags.clone());
        merge(&mut merged, tags);
        let room = *self.tag_room.lock().expect("no panic");
        if room.is_some_and(|room| merged.to_string().len() > room) {
            return Err(trouble(Service::Hub, Class::Poison, false));
        }
        twin.tags = object(merged);
        bump(twin);
        Ok(twin.clone())
    }

    async fn identity(&self, id: &DeviceId) -> Result<Option<Identity>, Trouble> {
        self.called("identity", id)?;
        let known = self.twins.lock().expect("no panic").contains_key(id.as_str());
        Ok(known.then(|| Identity { etag: "e".to_owned(), generation_id: "g".to_owned(), enabled: true }))
    }

    async fn delete_identity(&self, id: &DeviceId, etag: &str) -> Result<(), Trouble> {
        self.called("delete_identity", id)?;
        assert_eq!(etag, "e");
        self.twins.lock().expect("no panic").remove(id.as_str());
        Ok(())
    }

    async fn register(&self, device: &Registration) -> Result<(), Trouble> {
        self.called("register", &device.id)
    }

    async fn delete(&self, device: &DeviceId) -> Result<(), Trouble> {
        self.called("delete", device)
    }

    async fn queue_downlink(
        &self,
        device: &DeviceId,
        _operation: QueueOperation,
        downlink: &Downlink,
    ) -> Result<(), Trouble> {
        self.called("queue", device)?;
        self.queue.lock().expect("no panic").push((device.to_string(), downlink.clone()));
        Ok(())
    }

    async fn is_queued(&self, device: &DeviceId, correlation: &str) -> Result<bool, Trouble> {
        self.called("is_queued", device)?;
        let queue = self.queue.lock().expect("no panic");
        Ok(queue.iter().any(|(of, downlink)| of == device.as_str() && downlink.correlation_id == correlation))
    }

    async fn stack_answers(&self) -> bool {
        self.called("answer", &id("nobody")).is_ok()
    }

    async fn submit_event(&self, device: &DeviceId, _body: &Value, _properties: &Value) -> Result<(), Trouble> {
        self.called("submit", device)
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), Trouble> {
        let device = DeviceId::parse(letter.device_id.as_deref().unwrap_or("nobody")).unwrap_or_else(|_| id("nobody"));
        self.called("bury", &device)?;
        self.letters.lock().expect("no panic").push(letter.clone());
        Ok(())
    }
}

pub(super) fn forwarder(world: &Arc<World>) -> Batches<World> {
    with(world, rules(), EventsTarget::Api)
}

pub(super) fn with(world: &Arc<World>, rules: Rules, target: EventsTarget) -> Batches<World> {
    Batches::new(Worker { services: Arc::clone(world), rules, target })
}

/// The summary of a batch that must be done.
pub(super) fn done(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done(lines) => lines.join("\n"),
        Outcome::Retry(reason) => panic!("not done: {reason}"),
    }
}

pub(super) fn open(outcome: Outcome) -> String {
    match outcome {
        Outcome::Retry(reason) => reason,
        Outcome::Done(lines) => panic!("done: {lines:?}"),
    }
}
