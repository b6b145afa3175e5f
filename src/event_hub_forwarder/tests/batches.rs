use std::sync::Arc;

use serde_json::json;

use super::super::batch::Batches;
use super::super::services::Service;
use super::world::{World, done, forwarder, open, rules, trouble, twin, twin_event, with};
use crate::config::EventsTarget;
use crate::downlink_trace::{self, DownlinkState};
use crate::failure::Class;
use crate::functions::{Event, Invocation, Outcome};

fn world(devices: &[&str]) -> (Arc<World>, Vec<Event>) {
    let world = Arc::new(World::default());
    let mut events = Vec::new();
    for device in devices {
        world.put(device, twin(json!({}), json!({})));
        events.push(world.desire(device, json!({"decodedPayload": {"valve": true}})));
    }
    (world, events)
}

fn outage() -> super::super::services::Trouble {
    trouble(Service::Stack, Class::Retry, true)
}

#[tokio::test]
async fn an_outage_blocks_without_end_and_loses_nothing() {
    let (world, events) = world(&["probe-1", "probe-2"]);
    let forwarder = forwarder(&world);
    let mut batch = world.batch(events);
    world.fail("answer *", outage());
    for class in [Class::Retry, Class::Denied] {
        world.fail("queue *", trouble(Service::Stack, class, true));
        for _ in 0..50 {
            open(forwarder.run(batch.clone()).await);
            batch.retry_count += 1;
        }
    }
    assert!(world.letters().is_empty());
    world.heal("queue *");
    assert!(done(forwarder.run(batch).await).contains("downlinks=2"));
}

#[tokio::test]
async fn what_is_done_is_not_done_again_when_the_batch_comes_again() {
    let (world, events) = world(&["probe-1", "probe-2"]);
    let forwarder = forwarder(&world);
    let batch = world.batch(events);
    world.fail("queue probe-2", outage());
    open(forwarder.run(batch.clone()).await);
    let calls = world.count("");
    world.heal("queue probe-2");
    assert_eq!(done(forwarder.run(batch).await), "done_before=1 downlinks=1 events=2");
    assert_eq!(world.count("queue probe-1"), 1);
    assert!(world.calls.lock().expect("no panic")[calls..].iter().all(|call| call.ends_with("probe-2")));
}

/// Delivers the batch again and again, until it is done; returns the deliveries it took.
async fn deliveries(forwarder: &Batches<World>, batch: &Invocation) -> u32 {
    for tries in 1..50 {
        if matches!(forwarder.run(batch.clone()).await, Outcome::Done(_)) {
            return tries;
        }
    }
    panic!("never given up");
}

#[tokio::test]
async fn an_event_that_fails_as_in_an_outage_after_others_passed_is_given_up() {
    let (world, events) = world(&["probe-1", "probe-2"]);
    let forwarder = forwarder(&world);
    world.fail("queue probe-2", outage());
    let batch = world.batch(events);
    assert_eq!(deliveries(&forwarder, &batch).await, 10);
    let [letter] = world.letters().try_into().expect("one letter");
    assert_eq!(letter.device_id.as_deref(), Some("probe-2"));
    assert_eq!((world.count("queue probe-1"), world.count("queue probe-2")), (1, 10));
}

#[tokio::test]
async fn a_downlink_that_is_given_up_fails_in_the_twin_and_no_later_event_pushes_it() {
    let (world, events) = world(&["probe-1"]);
    let forwarder = forwarder(&world);
    world.fail("queue *", outage());
    let batch = world.batch(events);
    deliveries(&forwarder, &batch).await;
    let marker = downlink_trace::marker(&world.get("probe-1").tags).expect("a marker");
    assert_eq!(marker.state, DownlinkState::Failed);
    assert!(marker.error.expect("a reason").starts_with("given up after repeated tries"));

    world.heal("queue *");
    let later = world.batch([world.desire("probe-1", json!({"interval": 600, "decodedPayload": {"valve": true}}))]);
    assert_eq!(done(forwarder.run(later).await), "events=1 ignored.unchanged=1");
    assert_eq!(world.letters().len(), 1);
}

#[tokio::test]
async fn what_fails_while_others_pass_in_the_same_delivery_is_given_up_sooner() {
    let (world, failing) = world(&["probe-1"]);
    let forwarder = forwarder(&world);
    world.fail("queue probe-1", outage());
    let failing = world.batch(failing).events;
    for delivery in 1..=5 {
        let other = format!("other-{delivery}");
        world.put(&other, twin(json!({}), json!({})));
        let mut batch = world.batch([world.desire(&other, json!({"decodedPayload": {"valve": true}}))]);
        batch.events.extend(failing.clone());
        let given_up = matches!(forwarder.run(batch).await, Outcome::Done(_));
        assert_eq!(given_up, delivery == 5, "{delivery}");
    }
    assert_eq!(world.count("answer"), 0);
}

#[tokio::test]
async fn the_package_is_not_asked_whether_it_answers() {
    let (world, events) = world(&["probe-1"]);
    world.fail("submit *", outage());
    let forwarder = with(&world, rules(), EventsTarget::Package);
    let batch = world.batch(events);
    for _ in 0..50 {
        open(forwarder.run(batch.clone()).await);
    }
    assert_eq!((world.count("answer"), world.letters().len()), (0, 0));
}

#[tokio::test]
async fn a_refusal_of_one_event_alone_does_not_block_for_ever() {
    let (world, events) = world(&["probe-1"]);
    let forwarder = forwarder(&world);
    world.fail("queue *", trouble(Service::Stack, Class::Retry, false));
    let batch = world.batch(events);
    assert_eq!(deliveries(&forwarder, &batch).await, 10);
    assert_eq!((world.letters().len(), world.count("answer")), (1, 0));
}

#[tokio::test]
async fn a_throttled_event_is_never_given_up() {
    let (world, events) = world(&["probe-1", "probe-2"]);
    let forwarder = forwarder(&world);
    world.fail("queue probe-2", trouble(Service::Stack, Class::Throttled, true));
    let batch = world.batch(events);
    for _ in 0..50 {
        open(forwarder.run(batch.clone()).await);
    }
    assert!(world.letters().is_empty());
}

#[tokio::test]
async fn events_of_a_device_keep_their_order_behind_a_failure() {
    let (world, mut events) = world(&["probe-1"]);
    events.push(twin_event("probe-1", json!({"tags": {"lorawan": {"devEui": "A1"}}})));
    world.fail("twin probe-1", trouble(Service::Hub, Class::Retry, true));
    let forwarder = forwarder(&world);
    let batch = world.batch(events);
    let reason = open(forwarder.run(batch).await);
    assert!(reason.contains("failed=1 held_back=1"), "{reason}");
    assert_eq!(world.count("twin"), 1);
}

#[tokio::test]
async fn one_poison_event_neither_blocks_nor_fails_its_batch() {
    let (world, mut events) = world(&["probe-1", "probe-2", "probe-3"]);
    world.fail("queue probe-2", trouble(Service::Stack, Class::Poison, false));
    world.fail("queue probe-3", super::super::services::Trouble { text: "panic".to_owned(), ..outage() });
    let mut broken = twin_event("probe-4", json!({}));
    broken.body = "{\"appKey\": \"00112233".into();
    events.push(broken);
    let batch = world.batch(events);
    assert_eq!(done(forwarder(&world).run(batch).await), "dead_lettered=3 downlinks=1 events=4");
    let reasons: Vec<_> = world.letters().into_iter().map(|letter| letter.reason).collect();
    assert!(reasons.iter().any(|reason| reason.contains("panicked")), "{reasons:?}");
    assert!(world.letters().iter().all(|letter| !format!("{letter:?}").contains("00112233")));
}

#[tokio::test]
async fn an_event_is_not_done_before_its_dead_letter_is_written() {
    let (world, events) = world(&["probe-1"]);
    world.fail("queue *", trouble(Service::Stack, Class::Poison, false));
    world.fail("bury *", trouble(Service::EventHubs, Class::Retry, true));
    let forwarder = forwarder(&world);
    let batch = world.batch(events);
    for _ in 0..30 {
        open(forwarder.run(batch.clone()).await);
    }
    world.heal("bury *");
    assert_eq!(done(forwarder.run(batch).await), "dead_lettered=1 events=1");
}

#[tokio::test]
async fn our_own_echoes_lead_to_no_call() {
    let (world, _) = world(&["probe-1"]);
    let echoes = [
        json!({"properties": {"reported": {"battery": 87}}}),
        json!({"tags": {"stack": {"downlink": {"state": "pushing"}}}}),
        json!({"tags": {"stack": {"registration": {"state": "registered"}}, "lorawan": {"appKey": null}}}),
    ];
    let batch = world.batch(echoes.map(|body| twin_event("probe-1", body)));
    assert_eq!(done(forwarder(&world).run(batch).await), "events=3 ignored.echo_reported=1 ignored.echo_tags=2");
    assert_eq!(world.count(""), 0);
}
