use std::sync::Arc;

use serde_json::json;

use super::super::services::Service;
use super::world::{
    KEY, World, done, forwarder, id, lifecycle_event, lorawan, no_session, rules, trouble, twin, twin_event, with,
};
use crate::config::EventsTarget;
use crate::downlink_trace::{self, DownlinkState};
use crate::failure::Class;
use crate::ids::DevicePrefix;

fn state(world: &World) -> Option<DownlinkState> {
    downlink_trace::marker(&world.get("probe-0017").tags).map(|marker| marker.state)
}

fn world(tags: serde_json::Value) -> Arc<World> {
    let world = Arc::new(World::default());
    world.put("probe-0017", twin(tags, json!({})));
    world
}

fn valve(open: bool) -> serde_json::Value {
    json!({"decodedPayload": {"valve": open}})
}

#[tokio::test]
async fn a_device_with_tags_is_registered_and_loses_its_root_keys_in_one_patch() {
    let world = world(json!({"lorawan": lorawan()}));
    let batch = world.batch([lifecycle_event("createDeviceIdentity", "probe-0017")]);
    assert_eq!(done(forwarder(&world).run(batch).await), "events=1 registered=1");
    let tags = world.get("probe-0017").tags;
    assert_eq!(tags["stack"]["registration"]["state"], "registered");
    assert_eq!(tags["lorawan"].get("appKey"), None);
    assert_eq!((world.count("register"), world.count("patch"), world.count("twin")), (1, 1, 1));
}

#[tokio::test]
async fn root_keys_leave_tags_that_have_no_room_for_the_result() {
    let world = world(json!({"lorawan": lorawan()}));
    *world.tag_room.lock().expect("no panic") = Some(json!({"lorawan": lorawan()}).to_string().len());
    let batch = world.batch([lifecycle_event("createDeviceIdentity", "probe-0017")]);
    assert_eq!(done(forwarder(&world).run(batch).await), "dead_lettered=1 events=1");
    let tags = world.get("probe-0017").tags;
    assert_eq!((tags["lorawan"].get("appKey"), tags.get("stack")), (None, None));
    assert_eq!((world.count("register"), world.count("patch")), (1, 2));
}

#[tokio::test]
async fn keys_stay_where_they_shall_stay() {
    let world = world(json!({"lorawan": lorawan()}));
    let keep = super::super::plan::Rules { keep_root_keys: true, ..rules() };
    let batch = world.batch([twin_event("probe-0017", json!({"tags": {"lorawan": lorawan()}}))]);
    done(with(&world, keep, EventsTarget::Api).run(batch).await);
    assert_eq!(world.get("probe-0017").tags["lorawan"]["appKey"], KEY);
}

#[tokio::test]
async fn a_refused_registration_stands_in_the_twin_and_in_the_dead_letters_without_keys() {
    let world = world(json!({"lorawan": lorawan()}));
    world.fail("register *", trouble(Service::Stack, Class::Poison, false));
    let batch = world.batch([twin_event("probe-0017", json!({"tags": {"lorawan": lorawan()}}))]);
    assert_eq!(done(forwarder(&world).run(batch).await), "dead_lettered=1 events=1");
    let result = &world.get("probe-0017").tags["stack"]["registration"];
    assert_eq!((&result["state"], &result["error"]), (&json!("failed"), &json!("scripted Poison")));
    let [letter] = world.letters().try_into().expect("one letter");
    let text = format!("{letter:?}");
    assert!(!text.contains(KEY) && text.contains("removed"), "{text}");
    assert_eq!(letter.properties["iothub-message-source"], "twinChangeEvents");
}

#[tokio::test]
async fn a_dead_letter_names_the_device_as_the_hub_does_however_the_event_did() {
    let (prefix, plain) = (DevicePrefix::parse("lorawan-").expect("valid"), "lorawan-probe-0017");
    let event = || twin_event(plain, json!({"tags": {"lorawan": lorawan()}}));
    let mut other_case = event();
    other_case.system_properties.remove("iothub-connection-device-id");
    other_case.system_properties.insert("IoTHub-Connection-Device-Id".to_owned(), json!(plain));
    let mut by_property = event();
    by_property.system_properties.remove("iothub-connection-device-id");
    by_property.properties =
        [("DeviceId".to_owned(), json!(plain)), ("opType".to_owned(), json!("updateTwin"))].into_iter().collect();
    for event in [event(), other_case, by_property] {
        let world = world(json!({"lorawan": lorawan()}));
        world.fail("register *", trouble(Service::Stack, Class::Poison, false));
        let rules = super::super::plan::Rules { prefix: prefix.clone(), ..rules() };
        let batch = world.batch([event]);
        assert_eq!(done(with(&world, rules, EventsTarget::Api).run(batch).await), "dead_lettered=1 events=1");
        let [letter] = world.letters().try_into().expect("one letter");
        assert_eq!(letter.device_id.as_deref(), Some("probe-0017"));
        assert_eq!(letter.properties["iothub-connection-device-id"], plain);
        assert_eq!(letter.properties["iothub-message-source"], "twinChangeEvents");
    }
}

#[tokio::test]
async fn the_newest_desired_state_leads_to_one_downlink_also_when_delivered_twice_or_saved_again() {
    let world = world(json!({}));
    let change = world.desire("probe-0017", valve(true));
    let saved_again = world.desire("probe-0017", valve(true));
    let forwarder = forwarder(&world);
    for event in [change.clone(), change, saved_again] {
        done(forwarder.run(world.batch([event])).await);
    }
    assert_eq!(world.count("queue"), 1);
    let queue = world.queue.lock().expect("no panic").clone();
    assert_eq!(queue[0].1.correlation_id, "iothub:probe-0017:desired:3");
    assert_eq!(state(&world), Some(DownlinkState::Pushed));
}

#[tokio::test]
async fn set_to_null_and_back_sends_again() {
    let world = world(json!({}));
    let forwarder = forwarder(&world);
    for patch in [valve(true), json!({"decodedPayload": null}), valve(true)] {
        let event = world.desire("probe-0017", patch);
        done(forwarder.run(world.batch([event])).await);
    }
    assert_eq!(world.count("queue"), 2);
}

#[tokio::test]
async fn a_change_before_the_first_join_waits_and_goes_out_when_it_is_ready() {
    let world = world(json!({}));
    world.fail("queue *", no_session());
    let forwarder = forwarder(&world);
    let event = world.desire("probe-0017", valve(true));
    assert_eq!(done(forwarder.run(world.batch([event])).await), "events=1 waiting=1");
    assert_eq!(state(&world), Some(DownlinkState::Waiting));

    world.heal("queue *");
    let mut twin = world.get("probe-0017");
    let ready = downlink_trace::ready_patch(&twin.tags).expect("one waits");
    twin.tags["stack"]["downlink"]["state"] = json!("ready");
    world.put("probe-0017", twin);
    assert_eq!(
        done(forwarder.run(world.batch([twin_event("probe-0017", json!({"tags": ready}))])).await),
        "downlinks=1 events=1"
    );
    assert_eq!(state(&world), Some(DownlinkState::Pushed));
}

#[tokio::test]
async fn a_device_made_with_tags_and_desired_properties_is_registered_and_its_downlink_waits() {
    let world = world(json!({"lorawan": lorawan()}));
    world.fail("queue *", no_session());
    world.desire("probe-0017", valve(true));
    let batch = world.batch([lifecycle_event("createDeviceIdentity", "probe-0017")]);
    assert_eq!(done(forwarder(&world).run(batch).await), "events=1 registered=1 waiting=1");
}

#[tokio::test]
async fn an_interrupted_downlink_is_looked_for_before_it_is_pushed_again() {
    for queued in [true, false] {
        let world = world(json!({}));
        let event = world.desire("probe-0017", valve(true));
        let forwarder = forwarder(&world);
        let settled = world.batch([event.clone()]);
        // The call goes through, but the marker `pushed` does not.
        done(forwarder.run(settled).await);
        let mut twin = world.get("probe-0017");
        twin.tags["stack"]["downlink"]["state"] = json!("pushing");
        world.put("probe-0017", twin);
        if !queued {
            world.queue.lock().expect("no panic").clear();
        }
        let line = done(forwarder.run(world.batch([event])).await);
        assert_eq!(line, if queued { "downlinks_found_queued=1 events=1" } else { "downlinks=1 events=1" });
        assert_eq!(world.count("queue"), if queued { 1 } else { 2 });
        assert_eq!(state(&world), Some(DownlinkState::Pushed));
    }
}

#[tokio::test]
async fn an_interrupted_downlink_that_was_reported_is_not_pushed_again() {
    let world = world(json!({}));
    let event = world.desire("probe-0017", valve(true));
    let mut twin = world.get("probe-0017");
    let hash = super::super::desired::hash(&twin.desired);
    twin.tags.insert(
        "stack".to_owned(),
        json!({"downlink": {"version": 2, "hash": hash, "state": "pushing", "error": null}}),
    );
    twin.reported.insert("downlink".to_owned(), json!({"version": 2, "state": "sent"}));
    world.put("probe-0017", twin);
    done(forwarder(&world).run(world.batch([event])).await);
    assert_eq!((world.count("is_queued"), world.count("queue")), (0, 0));
}

#[tokio::test]
async fn a_waiting_downlink_that_a_portal_brought_back_is_not_pushed_again() {
    let world = world(json!({}));
    let event = world.desire("probe-0017", valve(true));
    let forwarder = forwarder(&world);
    done(forwarder.run(world.batch([event])).await);
    let mut twin = world.get("probe-0017");
    twin.tags["stack"]["downlink"]["state"] = json!("ready");
    world.put("probe-0017", twin);
    let ready = twin_event("probe-0017", json!({"tags": {"stack": {"downlink": {"state": "ready"}}}}));
    assert_eq!(done(forwarder.run(world.batch([ready])).await), "downlinks_found_queued=1 events=1");
    assert_eq!((world.count("queue"), state(&world)), (1, Some(DownlinkState::Pushed)));
}

#[tokio::test]
async fn an_old_twin_saved_over_a_newer_one_is_sent_again_once_and_old_tags_alone_are_not() {
    for (desired_too, queued) in [(true, 3), (false, 2)] {
        let world = world(json!({}));
        let forwarder = forwarder(&world);
        let event = world.desire("probe-0017", valve(true));
        done(forwarder.run(world.batch([event])).await);
        let old_tags = world.get("probe-0017").tags;
        let event = world.desire("probe-0017", valve(false));
        done(forwarder.run(world.batch([event.clone()])).await);

        let saved = if desired_too { world.desire("probe-0017", valve(true)) } else { event };
        let mut twin = world.get("probe-0017");
        twin.tags = old_tags;
        twin.reported.insert("downlink".to_owned(), json!({"version": 3, "state": "sent"}));
        world.put("probe-0017", twin);
        for _ in 0..3 {
            done(forwarder.run(world.batch([saved.clone()])).await);
        }
        assert_eq!((world.count("queue"), state(&world)), (queued, Some(DownlinkState::Pushed)), "{desired_too}");
    }
}

#[tokio::test]
async fn a_downlink_that_can_never_be_sent_fails_in_the_twin_and_is_dead_lettered_once() {
    let world = world(json!({}));
    let forwarder = forwarder(&world);
    let event = world.desire("probe-0017", json!({"rawDownlink": {"fPort": 224, "framePayload": "00"}}));
    for _ in 0..2 {
        done(forwarder.run(world.batch([event.clone()])).await);
    }
    assert_eq!((world.letters().len(), world.count("queue")), (1, 0));
    let error = downlink_trace::marker(&world.get("probe-0017").tags).and_then(|marker| marker.error);
    assert!(error.expect("a reason").contains("fPort"));
}

#[tokio::test]
async fn a_twin_that_changes_meanwhile_is_planned_anew() {
    let world = world(json!({}));
    let event = world.desire("probe-0017", valve(true));
    *world.stale_patches.lock().expect("no panic") = 2;
    assert_eq!(done(forwarder(&world).run(world.batch([event])).await), "downlinks=1 events=1");
    assert_eq!((world.count("queue"), state(&world)), (1, Some(DownlinkState::Pushed)));
}

#[tokio::test]
async fn a_deleted_identity_is_deleted_in_the_things_stack() {
    let world = Arc::new(World::default());
    let batch = world.batch([lifecycle_event("deleteDeviceIdentity", "probe-0017")]);
    assert_eq!(done(forwarder(&world).run(batch).await), "deleted=1 events=1");

    let world = self::world(json!({"stack": {"applicationId": "cold-store"}}));
    let batch = world.batch([lifecycle_event("deleteDeviceIdentity", "probe-0017")]);
    assert_eq!(done(forwarder(&world).run(batch).await), "deleted=1 events=1");
    assert_eq!(*world.calls.lock().expect("no panic").last().expect("a call"), "delete_identity probe-0017");

    let world = self::world(json!({"lorawan": lorawan()}));
    let batch = world.batch([lifecycle_event("deleteDeviceIdentity", "probe-0017")]);
    assert_eq!(done(forwarder(&world).run(batch).await), "events=1 ignored.made_anew=1");
    assert_eq!(world.count("delete"), 0);
}

#[tokio::test]
async fn the_package_gets_the_events_as_they_are_and_no_echoes() {
    let world = world(json!({}));
    let echo = twin_event("probe-0017", json!({"properties": {"reported": {"a": 1}}}));
    let events = [world.desire("probe-0017", valve(true)), echo, lifecycle_event("createDeviceIdentity", "probe-0018")];
    let batch = world.batch(events);
    let line = done(with(&world, rules(), EventsTarget::Package).run(batch).await);
    assert_eq!(line, "events=3 ignored.echo_reported=1 submitted=2");
    assert_eq!(world.count("twin"), 0);
    assert!(world.calls.lock().expect("no panic").contains(&format!("submit {}", id("probe-0018"))));
}
