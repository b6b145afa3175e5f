//! The figures of a run, each counted at its own place.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::acts::{Missing, Stage};
use crate::event_hubs::{EventHub, PropertyValue, StoredEvent};
use crate::functions_host;
use crate::iot_hub::{self, BUILT_IN_EVENTS};
use crate::stack;
use crate::world::{DEAD_LETTERS, PARKED_UPLINKS, World};

/// What was counted where.
#[derive(Debug)]
pub(super) struct Report {
    stack: stack::Counters,
    hub: iot_hub::Counters,
    functions: functions_host::Counters,
    /// What the invocations of EventHubForwarder logged, summed up.
    forwarder: BTreeMap<String, u64>,
    in_hub: u64,
    duplicated: u64,
    parked: u64,
    dead_lettered: u64,
    downlinks_in_twins: u64,
    parked_on_the_way: u64,
    payloads: u64,
    settled: bool,
    missing: Vec<Missing>,
}

fn text(value: Option<&PropertyValue>) -> Option<&str> {
    match value {
        Some(PropertyValue::String(text)) => Some(text),
        _ => None,
    }
}

/// Sums up the `name=count` words of log lines.
fn totals(lines: &[String]) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    for (name, count) in words.filter_map(|word| word.split_once('=')) {
        if let Ok(count) = count.parse::<u64>() {
            *totals.entry(name.to_owned()).or_default() += count;
        }
    }
    totals
}

fn events(world: &World, hub: &str) -> Vec<std::sync::Arc<StoredEvent>> {
    world.events.hub(hub).as_deref().map(EventHub::all).unwrap_or_default()
}

impl Report {
    pub(super) fn gather(world: &World, stage: &Stage<'_>, settled: bool) -> Self {
        let telemetry = events(world, BUILT_IN_EVENTS);
        let ids: HashSet<_> =
            telemetry.iter().filter_map(|stored| text(stored.event.system.get("message-id"))).collect();
        let bodies: HashSet<&[u8]> = telemetry.iter().map(|stored| &stored.event.body[..]).collect();
        let changed = stage.delivered.iter().filter(|body| !bodies.contains(&body[..])).count();

        // A dead letter whose telemetry went through is an uplink in the hub, not one more.
        let lost_telemetry = |stored: &&std::sync::Arc<StoredEvent>| {
            let property = |name| text(stored.event.properties.get(name));
            let by_uplink_flow = property("function").is_some_and(|function| function != "EventHubForwarder");
            by_uplink_flow && property("open").is_none_or(|open| open.contains("telemetry"))
        };
        // A letter whose answer was slow to come may have been written twice: it is one uplink.
        let letters = events(world, DEAD_LETTERS);
        let letters: HashSet<&[u8]> =
            letters.iter().filter(lost_telemetry).map(|stored| &stored.event.body[..]).collect();
        let dead_lettered = letters.len() as u64;
        let downlinks_in_twins = world
            .iot_hub
            .device_ids()
            .iter()
            .filter_map(|id| world.iot_hub.twin(id))
            .filter(|twin| twin["properties"]["reported"]["downlink"]["state"].is_string())
            .count() as u64;

        let mut report = Self {
            stack: world.stack.counters(),
            hub: world.iot_hub.counters(),
            functions: world.functions.counters(),
            forwarder: totals(&world.functions.invocation_log("EventHubForwarder")),
            in_hub: ids.len() as u64,
            duplicated: (telemetry.len() - ids.len()) as u64,
            parked: world.functions.lag_at(PARKED_UPLINKS).unwrap_or_default(),
            dead_lettered,
            downlinks_in_twins,
            parked_on_the_way: stage.parked_on_the_way,
            payloads: stage.payloads,
            settled,
            missing: stage.missing.clone(),
        };
        report.judge(changed);
        report
    }

    fn judge(&mut self, changed_bodies: usize) {
        let lost = self.lost();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                self.missing.push(what);
            }
        };
        expect(lost == 0, format!("{lost} acknowledged uplinks are nowhere"));
        expect(changed_bodies == 0, format!("{changed_bodies} telemetry bodies differ from what was sent"));
        expect(self.hub.twins_refused == 0, format!("{} twin patches were refused", self.hub.twins_refused));
        let types = self.stack.by_type.keys().filter(|kind| kind.as_str() != "other").count();
        expect(types >= 11, format!("only {types} of eleven message types were played"));
    }

    fn outcome(&self, name: &str) -> u64 {
        self.stack.outcomes.get(name).copied().unwrap_or(0)
    }

    fn ignored(&self) -> u64 {
        self.outcome("ignored") + self.outcome("duplicate")
    }

    fn lost(&self) -> i64 {
        let known = self.in_hub + self.parked + self.dead_lettered + self.ignored();
        self.stack.acknowledged as i64 - known as i64
    }

    /// The sum of the logged figures whose name begins so.
    fn logged(&self, name: &str) -> u64 {
        self.forwarder.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, count)| count).sum()
    }

    /// What is missing; empty if nothing is.
    pub(super) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    pub(super) fn json(&self) -> Value {
        let types: BTreeMap<_, _> = self.stack.by_type.iter().filter(|(kind, _)| *kind != "other").collect();
        json!({
            "uplinks": {
                "sent": self.stack.sent,
                "acknowledged": self.stack.acknowledged,
                "in_hub": self.in_hub,
                "parked": self.parked,
                "dead_lettered": self.dead_lettered,
                "ignored": self.ignored(),
                "lost": self.lost(),
                "duplicated": self.duplicated,
                "parked_on_the_way": self.parked_on_the_way,
            },
            "message_types": types,
            "payloads": self.payloads,
            "twins": {"patched": self.hub.twins_patched, "refused": self.hub.twins_refused},
            "devices": {
                "created_in_hub": self.hub.devices_created,
                "registered_in_stack": self.stack.registered,
                "deleted_in_stack": self.stack.deleted,
            },
            "downlinks": {"queued": self.stack.downlinks_queued, "reported_in_twin": self.downlinks_in_twins},
            "events": {
                "forwarded": self.logged("events"),
                "echoes_ignored": self.logged("ignored.echo"),
                "retries": self.functions.retries,
            },
            "settled": self.settled,
            "missing": self.missing,
        })
    }

    /// The closing table.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let number = |value: u64| value.to_string();
        vec![
            ("webhooks sent by The Things Stack", number(self.stack.sent)),
            ("  acknowledged (2xx)", number(self.stack.acknowledged)),
            ("  in IoT Hub as telemetry", number(self.in_hub)),
            ("  still parked", number(self.parked)),
            ("  dead-lettered", number(self.dead_lettered)),
            ("  ignored on purpose", number(self.ignored())),
            ("  lost", self.lost().to_string()),
            ("  in IoT Hub more than once", number(self.duplicated)),
            ("parked on the way and delivered later", number(self.parked_on_the_way)),
            ("reported twins patched", number(self.hub.twins_patched)),
            ("  refused", number(self.hub.twins_refused)),
            ("devices created in IoT Hub", number(self.hub.devices_created)),
            ("devices registered in The Things Stack", number(self.stack.registered)),
            ("devices deleted in The Things Stack", number(self.stack.deleted)),
            ("downlinks queued in The Things Stack", number(self.stack.downlinks_queued)),
            ("twins that report their downlink's outcome", number(self.downlinks_in_twins)),
            ("events forwarded from IoT Hub", number(self.logged("events"))),
            ("  our own echoes, ignored", number(self.logged("ignored.echo"))),
        ]
    }
}
