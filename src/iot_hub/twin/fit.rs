//! A patch that the hub does not refuse.

use std::fmt::Display;

use serde_json::{Map, Value};

use super::size::{member_weight, members_weight, weight};
use super::values::{Place, fit_members};

/// Stands for a value that has no room in the twin. The value itself is in the telemetry message.
pub const TOO_LARGE: &str = "(too large for the twin)";

/// Most of one patch, in bytes of [`weight`]. Reported properties merge, so what other patches left behind
/// needs room in the hub's 32 KB too.
const PATCH_BUDGET: usize = 24 * 1024;

/// Most of single reported properties. With the ones that are not named here they sum up to less than the hub's 32 KB.
const BUDGETS: [(&str, usize); 2] = [("decodedPayload", 16 * 1024), ("serviceData", 4 * 1024)];

/// Most of any other reported property: times, locations, the state of a downlink.
const OTHER_BUDGET: usize = 2 * 1024;

/// A patch that fits, and what had to be changed for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fitted {
    /// The merge patch for the reported properties.
    pub patch: Map<String, Value>,
    /// What was changed, a sentence each, with the names of keys and never a value. Empty if nothing was.
    pub notes: Vec<String>,
}

/// Makes a merge patch for the reported properties obey every rule of twins, so that the hub never refuses it.
///
/// To be applied once: an escaped key is legal, but reads as an escape and would be escaped again.
#[must_use]
pub fn fit_reported(patch: Map<String, Value>) -> Fitted {
    let mut notes = Notes::default();
    let mut patch = fit_members(patch, Place::SECTION, &mut notes);
    for (key, value) in &mut patch {
        shrink(key, value, budget(key), &mut notes);
    }
    shrink_members(&mut patch, PATCH_BUDGET, &mut notes);
    leave_out(&mut patch, &mut notes);
    Fitted { patch, notes: notes.finish() }
}

fn budget(key: &str) -> usize {
    BUDGETS.iter().find(|(name, _)| *name == key).map_or(OTHER_BUDGET, |(_, budget)| *budget)
}

/// Brings a value within the budget, or down to the marker.
fn shrink(key: &str, value: &mut Value, budget: usize, notes: &mut Notes) {
    let marker = Value::from(TOO_LARGE);
    if weight(value) <= budget.max(weight(&marker)) {
        return;
    }
    if let Value::Object(members) = value
        && shrink_members(members, budget, notes) <= budget
    {
        return;
    }
    notes.add(key, "is too large for the twin and is replaced by a marker");
    *value = marker;
}

/// Shrinks members, the largest first, until the object is within the budget or nothing is left to shrink.
/// Returns what the object weighs then.
fn shrink_members(members: &mut Map<String, Value>, budget: usize, notes: &mut Notes) -> usize {
    let mut total = members_weight(members);
    if total <= budget {
        return total;
    }
    for key in largest_first(members) {
        let Some(member) = members.get_mut(&key) else { continue };
        let others = total - weight(member);
        shrink(&key, member, budget.saturating_sub(others), notes);
        total = others + weight(member);
        if total <= budget {
            break;
        }
    }
    total
}

/// Last resort for a patch of very many properties, which the bridge itself never makes: the largest are left out.
fn leave_out(patch: &mut Map<String, Value>, notes: &mut Notes) {
    let mut total = members_weight(patch);
    if total <= PATCH_BUDGET {
        return;
    }
    for key in largest_first(patch) {
        if total <= PATCH_BUDGET {
            break;
        }
        if let Some(value) = patch.remove(&key) {
            total -= member_weight(&key, &value);
            notes.add(&key, "has no room in the twin and is left out");
        }
    }
}

/// The keys in order of what their members weigh; equals in the order of their names, so that the result never wavers.
fn largest_first(members: &Map<String, Value>) -> Vec<String> {
    let mut keys: Vec<_> = members.iter().map(|(key, value)| (member_weight(key, value), key)).collect();
    keys.sort_unstable_by(|(a, a_key), (b, b_key)| b.cmp(a).then_with(|| a_key.cmp(b_key)));
    keys.into_iter().map(|(_, key)| key.clone()).collect()
}

/// What was changed, bounded and without repetitions.
#[derive(Default)]
pub(super) struct Notes {
    lines: Vec<String>,
    more: bool,
}

impl Notes {
    /// Enough to see what a codec does; a log line has to hold them.
    const MOST: usize = 8;

    /// Notes what happened to a key. `what` names no value.
    pub(super) fn add(&mut self, key: &str, what: impl Display) {
        if self.more {
            return;
        }
        let line = format!("`{}` {what}", super::name(key));
        if self.lines.contains(&line) {
            return;
        }
        if self.lines.len() < Self::MOST {
            self.lines.push(line);
        } else {
            self.more = true;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more {
            self.lines.push("more was changed than is noted here".to_owned());
        }
        self.lines
    }
}
