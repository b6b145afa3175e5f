//! Pure: what an event of a device, and its twin as it is now, ask for.
//!
//! Events are patches, can be merged and can come twice: so the twin decides what to do, and the event only whether anything
//! that concerns us was touched.

use serde_json::{Map, Value};
use time::Duration;

use super::canonical;
use super::decode::{Change, HubEvent, Touched};
use super::desired::{self, DECODED, RAW, Wanted, Wish};
use super::tally::Ignored;
use crate::downlink_trace::{self, DownlinkMarker, DownlinkState};
use crate::ids::{ApplicationId, DevicePrefix};
use crate::iot_hub::{Identity, Twin};
use crate::stack::{ROOT_KEYS, Registration, parse_time};

/// An identity that an uplink created within this time of a deletion goes with it; one created later is a device that came back.
/// The hub tells of a deletion within seconds, but it can wait here for an outage to end while uplinks go on; and clocks differ.
const RACE_WINDOW: Duration = Duration::minutes(15);

/// The settings that plans depend on.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) application: ApplicationId,
    pub(super) prefix: DevicePrefix,
    pub(super) keep_root_keys: bool,
    pub(super) sync_delete: bool,
}

/// The next thing to do about a twin.
#[derive(Debug)]
pub(super) enum Plan {
    /// Register the device.
    Register { registration: Box<Registration>, hash: String },
    /// Its tags can never be registered.
    RefuseRegistration { reason: String, hash: String },
    /// Queue a downlink.
    Downlink(DownlinkPlan),
    /// Its desired properties can never be sent.
    RefuseDownlink { reason: String, version: u64, hash: String },
    /// Nothing is desired any more: the same downlink, desired again, shall be sent again.
    Forget,
    /// Nothing to do.
    Ignore(Ignored),
}

/// A downlink to queue.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DownlinkPlan {
    pub(super) wish: Wish,
    pub(super) version: u64,
    pub(super) hash: String,
    /// The Things Stack may have it already: an earlier try got as far as writing `pushing`, or the marker is an old one.
    pub(super) interrupted: bool,
}

/// What to do about a deleted identity.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Delete the end device.
    InStack,
    /// Delete the end device, and then the identity that our own creation made while the delete was under way.
    InStackAndHub { etag: String },
    /// Nothing.
    Ignore(Ignored),
}

/// Plans the deletion of an identity from what is there now.
pub(super) fn plan_deletion(event: &HubEvent, now: Option<(&Identity, Option<&Twin>)>, rules: &Rules) -> Deletion {
    if !rules.sync_delete {
        return Deletion::Ignore(Ignored::DeletionIsOff);
    }
    match now {
        None if event.body["tags"].as_object().is_some_and(|tags| is_foreign(tags, rules)) => {
            Deletion::Ignore(Ignored::OtherApplication)
        }
        None => Deletion::InStack,
        Some((identity, Some(twin))) if is_own_creation(twin, rules) && raced(event, twin) => {
            Deletion::InStackAndHub { etag: identity.etag.clone() }
        }
        Some(_) => Deletion::Ignore(Ignored::MadeAnew),
    }
}

/// Plans the next step for a twin. `registration_was_tried` for this very event: a refused one is not tried twice.
pub(super) fn plan_twin(event: &HubEvent, twin: &Twin, rules: &Rules, registration_was_tried: bool) -> Plan {
    if is_foreign(&twin.tags, rules) {
        return Plan::Ignore(Ignored::OtherApplication);
    }
    let registration = if registration_was_tried { None } else { plan_registration(event, twin, rules) };
    registration.unwrap_or_else(|| plan_downlink(event, twin, rules))
}

fn is_foreign(tags: &Map<String, Value>, rules: &Rules) -> bool {
    let owner = tags.get("stack").and_then(|stack| stack["applicationId"].as_str());
    owner.is_some_and(|owner| owner != rules.application.as_str())
}

/// UplinkIngress creates identities with these tags and nothing else.
fn is_own_creation(twin: &Twin, rules: &Rules) -> bool {
    let owner = twin.tags.get("stack").and_then(|stack| stack["applicationId"].as_str());
    owner == Some(rules.application.as_str()) && twin.tags.len() == 1 && twin.desired.is_empty()
}

/// Whether the identity was created about when the other one was deleted: an uplink was under way. Without the two times, the
/// tags alone must do.
fn raced(event: &HubEvent, twin: &Twin) -> bool {
    let created_at = twin.tags.get("stack").and_then(|stack| stack["createdAt"].as_str()).and_then(parse_time);
    created_at.zip(event.operation_at).is_none_or(|(created, deleted)| (created - deleted).abs() <= RACE_WINDOW)
}

fn plan_registration(event: &HubEvent, twin: &Twin, rules: &Rules) -> Option<Plan> {
    let lorawan = twin.tags.get("lorawan").filter(|lorawan| !lorawan.is_null())?;
    let has_keys = ROOT_KEYS.iter().any(|key| lorawan.get(key).is_some_and(|key| !key.is_null()));
    let hash = canonical::hash(&what_stays(lorawan, rules));
    let earlier = twin.tags.get("stack").map_or(&Value::Null, |stack| &stack["registration"]);
    let same = earlier["hash"] == hash.as_str();
    let asked = match event.change {
        Change::Created => true,
        Change::Twin(touched) => touched.lorawan,
        Change::Deleted => false,
    };
    match earlier["state"].as_str() {
        // A key that came back is a new one, or one that a portal saved again: neither may stay.
        Some("registered") if same && (!has_keys || rules.keep_root_keys) => return None,
        Some("failed") if same && !asked => return None,
        _ => {}
    }
    let keys_are_known = earlier["registeredAt"].is_string();
    Some(match Registration::from_tags(event.device.clone(), lorawan, keys_are_known) {
        Ok(registration) => Plan::Register { registration: Box::new(registration), hash },
        Err(error) => Plan::RefuseRegistration { reason: error.to_string(), hash },
    })
}

/// The tags as they stay once the device is registered.
fn what_stays(lorawan: &Value, rules: &Rules) -> Value {
    let mut stays = lorawan.clone();
    if let Some(tags) = stays.as_object_mut().filter(|_| !rules.keep_root_keys) {
        tags.retain(|name, _| !ROOT_KEYS.contains(&name.as_str()));
    }
    stays
}

fn plan_downlink(event: &HubEvent, twin: &Twin, rules: &Rules) -> Plan {
    let touched = match event.change {
        Change::Twin(touched) => touched,
        // Whoever creates a device together with desired properties wants them sent.
        Change::Created | Change::Deleted => Touched { downlink: true, ..Touched::default() },
    };
    let hash = desired::hash(&twin.desired);
    let wanted = desired::wanted(&twin.desired);
    let Some(marker) = downlink_trace::marker(&twin.tags) else {
        return match wanted {
            // Without a marker nobody knows what was applied: an old value must not go out because a tag changed.
            Wanted::Nothing => Plan::Ignore(nothing_desired(event, twin, rules)),
            _ if !touched.downlink => Plan::Ignore(Ignored::NothingDesired),
            wanted => start(wanted, twin.desired_version, hash, false),
        };
    };
    match (wanted, marker.state) {
        (Wanted::Nothing, _) => Plan::Forget,
        (wanted, _) if was_rolled_back(&marker, twin) => start(wanted, twin.desired_version, hash, true),
        (wanted, _) if marker.hash != hash || was_set_again(touched, &marker, twin) => {
            start(wanted, twin.desired_version, hash, false)
        }
        (_, DownlinkState::Pushed | DownlinkState::Failed) => Plan::Ignore(Ignored::Unchanged),
        (_, DownlinkState::Waiting) => Plan::Ignore(Ignored::WaitsForJoin),
        // A portal that saves the whole twin can bring an old `waiting` back, which the next join then makes ready.
        (wanted, DownlinkState::Ready | DownlinkState::Pushing) => start(wanted, marker.version, hash, true),
    }
}

fn start(wanted: Wanted, version: u64, hash: String, interrupted: bool) -> Plan {
    match wanted {
        Wanted::Downlink(wish) => Plan::Downlink(DownlinkPlan { wish, version, hash, interrupted }),
        Wanted::Impossible(reason) => Plan::RefuseDownlink { reason, version, hash },
        Wanted::Nothing => Plan::Ignore(Ignored::NothingDesired),
    }
}

fn nothing_desired(event: &HubEvent, twin: &Twin, rules: &Rules) -> Ignored {
    match event.change {
        Change::Created if is_own_creation(twin, rules) => Ignored::EchoOfIdentity,
        Change::Created if !twin.tags.contains_key("lorawan") => Ignored::WaitsForTags,
        _ => Ignored::NothingDesired,
    }
}

/// Set to null and back, faster than the first of the two events came here: the twin shows the old values again, and only the
/// event tells of the null between.
fn was_set_again(touched: Touched, marker: &DownlinkMarker, twin: &Twin) -> bool {
    let back = (touched.decoded_removed && twin.desired.contains_key(DECODED))
        || (touched.raw_removed && twin.desired.contains_key(RAW));
    // Desired properties that were emptied as a whole name no version.
    back && touched.desired_version.unwrap_or(twin.desired_version) > marker.version
}

/// A portal that saves the whole twin can put an old marker, and the old desired values with it, over newer ones. Reported
/// properties no service can write, and a downlink is told there only after its marker was written. The marker of the downlink
/// that is started instead is as new as the desired properties, so this is seen once only.
fn was_rolled_back(marker: &DownlinkMarker, twin: &Twin) -> bool {
    let told = twin.reported.get("downlink").and_then(|downlink| downlink["version"].as_u64());
    told.is_some_and(|told| marker.version < told && told <= twin.desired_version)
}
