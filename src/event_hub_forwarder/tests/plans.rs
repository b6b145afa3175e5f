use serde_json::{Value, json};

use super::super::decode::{Change, HubEvent, Touched};
use super::super::desired;
use super::super::plan::{Deletion, Plan, plan_deletion, plan_twin};
use super::super::tally::Ignored;
use super::world::{KEY, id, lorawan, object, rules, twin};
use crate::iot_hub::{Identity, Twin};
use crate::stack::parse_time;

fn event(change: Change) -> HubEvent {
    HubEvent { device: id("probe-0017"), change, operation_at: None, body: json!({}) }
}

fn tags_event() -> HubEvent {
    event(Change::Twin(Touched { lorawan: true, ..Touched::default() }))
}

fn desired_event() -> HubEvent {
    event(Change::Twin(Touched { downlink: true, ..Touched::default() }))
}

/// The plan in one word.
fn word(plan: Plan) -> String {
    match plan {
        Plan::Register { registration, .. } if registration.has_root_keys() => "register".to_owned(),
        Plan::Register { .. } => "change".to_owned(),
        Plan::RefuseRegistration { .. } => "refuse".to_owned(),
        Plan::Downlink(plan) if plan.interrupted => format!("resume {}", plan.version),
        Plan::Downlink(plan) => format!("push {}", plan.version),
        Plan::RefuseDownlink { .. } => "refuse downlink".to_owned(),
        Plan::Forget => "forget".to_owned(),
        Plan::Ignore(reason) => format!("{reason:?}"),
    }
}

fn plan(event: &HubEvent, tags: Value, desired: Value) -> String {
    word(plan_twin(event, &twin(tags, desired), &rules(), false))
}

fn hash_of(tags: &Value) -> String {
    match plan_twin(&tags_event(), &twin(json!({"lorawan": tags}), json!({})), &rules(), false) {
        Plan::Register { hash, .. } => hash,
        other => panic!("{other:?}"),
    }
}

fn without_key() -> Value {
    let mut tags = lorawan();
    tags.as_object_mut().expect("an object").remove("appKey");
    tags
}

#[test]
fn lorawan_tags_are_registered_once_and_again_when_they_change() {
    let hash = hash_of(&lorawan());
    let registered =
        json!({"registration": {"state": "registered", "hash": hash, "registeredAt": "2026-02-03T04:05:06Z"}});
    let failed = json!({"registration": {"state": "failed", "hash": hash}});
    let mut other_plan = without_key();
    other_plan["frequencyPlanId"] = json!("US_902_928_FSB_2");
    let cases = [
        (tags_event(), json!({"lorawan": lorawan()}), "register"),
        (event(Change::Created), json!({"lorawan": lorawan()}), "register"),
        (tags_event(), json!({"lorawan": {"devEui": "A1"}}), "refuse"),
        (tags_event(), json!({"lorawan": without_key(), "stack": registered}), "NothingDesired"),
        // A key that came back is registered and taken out again.
        (tags_event(), json!({"lorawan": lorawan(), "stack": registered}), "register"),
        (tags_event(), json!({"lorawan": other_plan, "stack": registered}), "change"),
        (tags_event(), json!({"lorawan": other_plan}), "refuse"),
        // A failure is tried again when the user saves the tags, and not on any other event.
        (tags_event(), json!({"lorawan": lorawan(), "stack": failed}), "register"),
        (desired_event(), json!({"lorawan": lorawan(), "stack": failed}), "NothingDesired"),
        (tags_event(), json!({"lorawan": lorawan(), "stack": {"applicationId": "other-app"}}), "OtherApplication"),
        (event(Change::Created), json!({}), "WaitsForTags"),
        (event(Change::Created), json!({"stack": {"applicationId": "cold-store", "devEui": "A1"}}), "EchoOfIdentity"),
    ];
    for (event, tags, expected) in cases {
        assert_eq!(plan(&event, tags.clone(), json!({})), expected, "{tags}");
    }
}

#[test]
fn kept_keys_belong_to_the_hash_and_taken_ones_do_not() {
    let hash = |key: &str, keep: bool| {
        let mut tags = lorawan();
        tags["appKey"] = json!(key);
        let rules = super::super::plan::Rules { keep_root_keys: keep, ..rules() };
        match plan_twin(&tags_event(), &twin(json!({"lorawan": tags}), json!({})), &rules, false) {
            Plan::Register { hash, .. } => hash,
            other => panic!("{other:?}"),
        }
    };
    let other = KEY.replace('0', "1");
    assert_eq!(hash(KEY, false), hash(&other, false));
    assert_ne!(hash(KEY, true), hash(&other, true));
}

#[test]
fn a_downlink_is_a_difference_from_what_was_applied_last() {
    let wanted = json!({"rawDownlink": {"fPort": 15, "framePayload": "BEEF"}});
    let same = desired::hash(&object(wanted.clone()));
    let marker = |state: &str, hash: &str| json!({"stack": {"downlink": {"version": 9, "hash": hash, "state": state, "error": null}}});
    let cases = [
        (desired_event(), json!({}), wanted.clone(), "push 1"),
        (event(Change::Created), json!({}), wanted.clone(), "push 1"),
        // An old value must not go out because a tag changed.
        (tags_event(), json!({}), wanted.clone(), "NothingDesired"),
        (desired_event(), marker("pushed", &same), wanted.clone(), "Unchanged"),
        (desired_event(), marker("failed", &same), wanted.clone(), "Unchanged"),
        (desired_event(), marker("waiting", &same), wanted.clone(), "WaitsForJoin"),
        // It may have been pushed before a portal saved an old twin over it.
        (desired_event(), marker("ready", &same), wanted.clone(), "resume 9"),
        (desired_event(), marker("pushing", &same), wanted.clone(), "resume 9"),
        (desired_event(), marker("pushed", "other"), wanted.clone(), "push 1"),
        (desired_event(), marker("waiting", "other"), wanted.clone(), "push 1"),
        (desired_event(), marker("pushed", &same), json!({}), "forget"),
        (desired_event(), json!({}), json!({}), "NothingDesired"),
        (desired_event(), json!({}), json!({"decodedPayload": 7}), "refuse downlink"),
        (desired_event(), marker("pushed", "other"), json!({"decodedPayload": 7}), "refuse downlink"),
    ];
    for (event, tags, desired, expected) in cases {
        assert_eq!(plan(&event, tags.clone(), desired.clone()), expected, "{tags} {desired}");
    }
}

#[test]
fn a_marker_that_a_portal_rolled_back_is_not_believed() {
    let hash = |valve: &str| desired::hash(&object(json!({"decodedPayload": {"valve": valve}})));
    let plan = |marker: u64, of: &str, desired: &str, version: u64, told: u64| {
        let tags =
            json!({"stack": {"downlink": {"version": marker, "hash": hash(of), "state": "pushed", "error": null}}});
        let mut twin = twin(tags, json!({"decodedPayload": {"valve": desired}}));
        twin.desired_version = version;
        twin.reported.insert("downlink".to_owned(), json!({"version": told, "state": "sent"}));
        word(plan_twin(&desired_event(), &twin, &rules(), false))
    };
    // `closed` was pushed as version 4 when a portal saved the twin of version 3, `open`, as version 5.
    assert_eq!(plan(3, "open", "open", 5, 4), "resume 5", "marker and desired values");
    assert_eq!(plan(3, "open", "closed", 4, 4), "resume 4", "the marker alone");
    assert_eq!(plan(5, "open", "open", 5, 4), "Unchanged", "seen to");
    assert_eq!(plan(4, "closed", "closed", 4, 4), "Unchanged", "told as usual");
    assert_eq!(plan(4, "closed", "closed", 4, 9), "Unchanged", "no such version was ever desired");
}

#[test]
fn set_to_null_and_back_is_sent_again_however_late_the_events_come() {
    let wanted = json!({"decodedPayload": {"valve": "open"}});
    let hash = desired::hash(&object(wanted.clone()));
    let tags = json!({"stack": {"downlink": {"version": 5, "hash": hash, "state": "pushed", "error": null}}});
    let removal = |version| {
        let touched =
            Touched { downlink: true, decoded_removed: true, desired_version: Some(version), ..Touched::default() };
        event(Change::Twin(touched))
    };
    assert_eq!(plan(&removal(6), tags.clone(), wanted.clone()), "push 1");
    assert_eq!(plan(&removal(5), tags.clone(), wanted.clone()), "Unchanged", "delivered twice");
    assert_eq!(plan(&removal(6), tags.clone(), json!({})), "forget");

    let emptied = Touched {
        downlink: true,
        decoded_removed: true,
        raw_removed: true,
        desired_version: None,
        ..Touched::default()
    };
    let plan = |version| {
        let twin = Twin { desired_version: version, ..twin(tags.clone(), wanted.clone()) };
        word(plan_twin(&event(Change::Twin(emptied)), &twin, &rules(), false))
    };
    assert_eq!(plan(7), "push 7", "emptied as a whole and back");
    assert_eq!(plan(5), "Unchanged", "delivered twice");
}

#[test]
fn only_what_is_gone_or_our_own_creation_is_deleted() {
    let identity = Identity { etag: "e".to_owned(), generation_id: "g".to_owned(), enabled: true };
    let event = event(Change::Deleted);
    let with =
        |tags: Value, desired: Value| plan_deletion(&event, Some((&identity, Some(&twin(tags, desired)))), &rules());
    let ours = || json!({"stack": {"applicationId": "cold-store"}});
    assert_eq!(plan_deletion(&event, None, &rules()), Deletion::InStack);
    assert_eq!(with(ours(), json!({})), Deletion::InStackAndHub { etag: "e".to_owned() });
    let newer_lives = [
        (json!({}), json!({})),
        (json!({"stack": {"applicationId": "cold-store"}, "lorawan": lorawan()}), json!({})),
        (json!({"stack": {"applicationId": "other-app"}}), json!({})),
        (ours(), json!({"interval": 5})),
    ];
    for (tags, desired) in newer_lives {
        assert_eq!(with(tags.clone(), desired), Deletion::Ignore(Ignored::MadeAnew), "{tags}");
    }
    let race = |deleted_at: &str, created_at: &str| {
        let event = HubEvent { operation_at: parse_time(deleted_at), ..event.clone() };
        let tags = json!({"stack": {"applicationId": "cold-store", "createdAt": created_at}});
        plan_deletion(&event, Some((&identity, Some(&twin(tags, json!({}))))), &rules())
    };
    let times = [
        ("2026-02-03T04:05:06.0000000Z", "2026-02-03T04:05:07Z", true),
        ("2026-02-03T04:05:06Z", "2026-02-03T04:20:06Z", true),
        ("2026-02-03T05:05:06+01:00", "2026-02-03T04:05:05Z", true),
        ("", "2026-03-03T04:05:06Z", true),
        ("2026-02-03T04:05:06Z", "not a time", true),
        ("2026-02-03T04:05:06Z", "2026-02-03T04:20:07Z", false),
        ("2026-02-03T04:05:06Z", "2026-01-03T04:05:06Z", false),
    ];
    for (deleted_at, created_at, ours) in times {
        let is_ours = race(deleted_at, created_at) == Deletion::InStackAndHub { etag: "e".to_owned() };
        assert_eq!(is_ours, ours, "{deleted_at} {created_at}");
    }
    let off = super::super::plan::Rules { sync_delete: false, ..rules() };
    assert_eq!(plan_deletion(&event, None, &off), Deletion::Ignore(Ignored::DeletionIsOff));
}
