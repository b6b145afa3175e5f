//! How often, and how finely, the hub tells what happened. Real hubs deliver at least once, and may tell several changes
//! of a twin as one (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-device-twins.md`); which they do when is
//! theirs to decide. Here it is a switch.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use time::OffsetDateTime;

use super::{HubEvent, Operation};
use crate::iot_hub::twin::merge;

/// Most devices whose changes are held. When one more changes, those held are told first.
pub(super) const MAX_HELD: usize = 10_000;

/// How events are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Each once, at once.
    #[default]
    Once,
    /// Each twice, one right after the other.
    Twice,
    /// Changes of a twin are held and become one event per device, which is told when another way of delivery is chosen,
    /// or when the device is created or deleted. Whatever else happens is told once, at once.
    MergeTwinChanges,
}

/// The changes of a twin that wait to be told.
#[derive(Debug)]
pub(super) struct Held {
    operation: Operation,
    hub_name: String,
    device_id: String,
    body: Value,
    at: OffsetDateTime,
}

impl Held {
    pub(super) fn event(&self) -> (HubEvent<'_>, OffsetDateTime) {
        let event = HubEvent {
            operation: self.operation,
            hub_name: &self.hub_name,
            device_id: &self.device_id,
            body: self.body.clone(),
        };
        (event, self.at)
    }

    /// Whether a later change of the same twin can be told in one with this. It cannot when it puts an object where a null
    /// is held: merged they would say that the object's members are new, and not that what was there before is gone.
    fn takes(&self, operation: Operation, body: &Value) -> bool {
        let patches = self.operation == Operation::UpdateTwin && operation == Operation::UpdateTwin;
        !(patches && revives(&self.body, body))
    }

    /// Adds a later change of the same twin.
    fn add(&mut self, operation: Operation, body: Value, at: OffsetDateTime) {
        self.at = at;
        match (self.operation, operation) {
            (_, Operation::ReplaceTwin) => (self.operation, self.body) = (operation, body),
            (Operation::ReplaceTwin, _) => {
                if let (Value::Object(whole), Value::Object(patch)) = (&mut self.body, &body) {
                    merge(whole, patch);
                }
            }
            _ => overlay(&mut self.body, body),
        }
    }
}

/// Whether a later patch puts an object where the earlier one deletes.
fn revives(earlier: &Value, later: &Value) -> bool {
    match (earlier, later) {
        (Value::Null, Value::Object(_)) => true,
        (Value::Object(earlier), Value::Object(later)) => {
            later.iter().any(|(key, later)| earlier.get(key).is_some_and(|earlier| revives(earlier, later)))
        }
        _ => false,
    }
}

/// Puts a patch over an earlier one. Nulls stay: they tell of deletions.
fn overlay(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) => {
            for (key, value) in later {
                overlay(earlier.entry(key).or_insert(Value::Null), value);
            }
        }
        (earlier, later) => *earlier = later,
    }
}

/// What waits, in the order of the first change of each device.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) delivery: Delivery,
    held: BTreeMap<u64, Held>,
    /// Where the changes of a device are.
    places: HashMap<String, u64>,
    next_place: u64,
}

impl Outbox {
    /// Holds an event if that is the way now. Gives it back, behind those that must be told before it, if not.
    pub(super) fn hold<'a>(&mut self, event: HubEvent<'a>, at: OffsetDateTime) -> (Vec<Held>, Option<HubEvent<'a>>) {
        let is_twin_change = matches!(event.operation, Operation::UpdateTwin | Operation::ReplaceTwin);
        if self.delivery != Delivery::MergeTwinChanges || !is_twin_change {
            return (self.take_of(event.device_id), Some(event));
        }
        let place = self.places.get(event.device_id);
        if let Some(held) = place.and_then(|place| self.held.get_mut(place))
            && held.takes(event.operation, &event.body)
        {
            held.add(event.operation, event.body, at);
            return (Vec::new(), None);
        }
        let mut before = self.take_of(event.device_id);
        if self.held.len() >= MAX_HELD {
            before = self.take();
        }
        let HubEvent { operation, hub_name, device_id, body } = event;
        let (hub_name, device_id) = (hub_name.to_owned(), device_id.to_owned());
        self.places.insert(device_id.clone(), self.next_place);
        self.held.insert(self.next_place, Held { operation, hub_name, device_id, body, at });
        self.next_place += 1;
        (before, None)
    }

    fn take_of(&mut self, device_id: &str) -> Vec<Held> {
        let place = self.places.remove(device_id);
        place.and_then(|place| self.held.remove(&place)).into_iter().collect()
    }

    /// All that waits.
    pub(super) fn take(&mut self) -> Vec<Held> {
        self.places.clear();
        std::mem::take(&mut self.held).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn merged(changes: &[(Operation, Value)]) -> (Operation, Value) {
        let mut outbox = Outbox { delivery: Delivery::MergeTwinChanges, ..Outbox::default() };
        for (operation, body) in changes {
            let event = HubEvent { operation: *operation, hub_name: "sim", device_id: "d1", body: body.clone() };
            let (before, now) = outbox.hold(event, AT);
            assert!(before.is_empty() && now.is_none());
        }
        let held = outbox.take().pop().expect("something was held");
        (held.operation, held.body)
    }

    #[test]
    fn later_patches_lie_over_earlier_ones() {
        let update = Operation::UpdateTwin;
        let first = json!({"version": 3, "tags": {"a": 1, "b": {"c": 1}}});
        let second = json!({"version": 4, "tags": {"a": null, "b": {"d": 2}}, "properties": {"desired": {"x": 1}}});
        let both =
            json!({"version": 4, "tags": {"a": null, "b": {"c": 1, "d": 2}}, "properties": {"desired": {"x": 1}}});
        assert_eq!(merged(&[(update, first), (update, second)]), (update, both));
    }

    #[test]
    fn a_replacement_hides_what_was_before_and_takes_in_what_comes_after() {
        let (update, replace) = (Operation::UpdateTwin, Operation::ReplaceTwin);
        let whole = json!({"deviceId": "d1", "version": 4, "tags": {"a": 1, "b": 2}});
        let patch = json!({"version": 5, "tags": {"a": null}});
        let both = json!({"deviceId": "d1", "version": 5, "tags": {"b": 2}});
        assert_eq!(merged(&[(update, patch.clone()), (replace, whole.clone())]), (replace, whole.clone()));
        assert_eq!(merged(&[(replace, whole), (update, patch)]), (replace, both));
    }

    #[test]
    fn an_object_in_the_place_of_something_deleted_is_told_behind_the_deletion() {
        let mut outbox = Outbox { delivery: Delivery::MergeTwinChanges, ..Outbox::default() };
        let event = |body| HubEvent { operation: Operation::UpdateTwin, hub_name: "sim", device_id: "d1", body };
        let deletion = json!({"version": 3, "tags": {"place": null}});
        let object = json!({"version": 4, "tags": {"place": {"row": 2}}});
        outbox.hold(event(deletion.clone()), AT);
        let (before, now) = outbox.hold(event(object.clone()), AT);
        assert_eq!(before.iter().map(|held| &held.body).collect::<Vec<_>>(), [&deletion]);
        assert!(now.is_none());
        assert_eq!(outbox.take().iter().map(|held| &held.body).collect::<Vec<_>>(), [&object]);
    }

    #[test]
    fn a_deletion_is_told_behind_the_changes_before_it() {
        let mut outbox = Outbox { delivery: Delivery::MergeTwinChanges, ..Outbox::default() };
        let event = |operation, device_id| HubEvent { operation, hub_name: "sim", device_id, body: json!({}) };
        outbox.hold(event(Operation::UpdateTwin, "d1"), AT);
        outbox.hold(event(Operation::UpdateTwin, "d2"), AT);
        let (before, now) = outbox.hold(event(Operation::DeleteDevice, "d1"), AT);
        assert_eq!(before.iter().map(|held| held.device_id.as_str()).collect::<Vec<_>>(), ["d1"]);
        assert!(now.is_some());
        assert_eq!(outbox.take().len(), 1);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut outbox = Outbox { delivery: Delivery::MergeTwinChanges, ..Outbox::default() };
        for n in 0..MAX_HELD {
            let id = n.to_string();
            let event = HubEvent { operation: Operation::UpdateTwin, hub_name: "", device_id: &id, body: json!({}) };
            assert!(outbox.hold(event, AT).0.is_empty());
        }
        let event = HubEvent { operation: Operation::UpdateTwin, hub_name: "", device_id: "more", body: json!({}) };
        assert_eq!(outbox.hold(event, AT).0.len(), MAX_HELD);
        assert_eq!(outbox.take().len(), 1);
    }
}
