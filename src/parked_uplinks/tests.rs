use serde_json::{Map, json};
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::event_hubs::Open;
use crate::failure::Class;
use crate::functions::Place;
use crate::uplink_delivery::scripted::{Fault, ScriptedHub, ScriptedRefuge, config, message};

const ALL: Open = Open { telemetry: true, twin: true, waiting_downlink: false };
const MAX_ATTEMPTS: u32 = 3;

struct Bench {
    hub: Arc<ScriptedHub>,
    refuge: Arc<ScriptedRefuge>,
    function: ParkedUplinks<ScriptedHub, ScriptedRefuge>,
}

impl Bench {
    fn new() -> Self {
        let (hub, refuge) = (Arc::new(ScriptedHub::default()), Arc::new(ScriptedRefuge::default()));
        let delivery = Arc::new(UplinkDelivery::new(Arc::clone(&hub), &config()));
        let function = ParkedUplinks::new(delivery, Arc::clone(&refuge), application(), config(), MAX_ATTEMPTS);
        Self { hub, refuge, function }
    }

    async fn handle(&self, parked: &[ParkedUplink], retry_count: u32) -> Outcome {
        let item = |(sequence_number, parked): (i64, &ParkedUplink)| {
            Item::read(place(sequence_number), parked.clone(), &application(), &config())
        };
        self.give((0..).zip(parked).map(item).collect(), retry_count).await
    }

    async fn give(&self, items: Vec<Item>, retry_count: u32) -> Outcome {
        self.function.handle(Batch { partition: "0".to_owned(), retry_count }, items).await
    }

    fn sent(&self) -> usize {
        self.hub.state().sent.len()
    }
}

fn place(sequence_number: i64) -> Option<Place> {
    Event { sequence_number: Some(sequence_number), ..Event::default() }.place("0")
}

fn application() -> ApplicationId {
    ApplicationId::parse("cold-store").expect("a valid id")
}

fn ago(age: time::Duration) -> String {
    (OffsetDateTime::now_utc() - age).format(&Rfc3339).expect("a time")
}

/// Frame `n` of the device `probe-{n}`, parked with everything open.
fn parked(n: u64) -> ParkedUplink {
    parked_of(&format!("probe-{n}"), n)
}

fn parked_of(device: &str, f_cnt: u64) -> ParkedUplink {
    let first_failed_at = ago(time::Duration::minutes(1));
    let mut body = message("uplink_message", json!({"f_cnt": f_cnt + 10}), &first_failed_at);
    body["end_device_ids"]["device_id"] = json!(device);
    let body = bytes::Bytes::from(body.to_string());
    let device = crate::stack::ApplicationUp::parse(body.clone(), None).expect("a message").device;
    ParkedUplink { body, device, open: ALL, attempts: 1, first_failed_at, first_failure: "a timeout".to_owned() }
}

fn is_retry(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Retry(_))
}

#[tokio::test]
async fn only_what_is_open_is_delivered() {
    let bench = Bench::new();
    let only_twin = ParkedUplink { open: Open { telemetry: false, ..ALL }, ..parked(2) };
    let outcome = bench.handle(&[parked(1), only_twin], 0).await;
    assert_eq!(outcome, Outcome::Done(vec!["2 delivered, 0 parked again, 0 dead-lettered".to_owned()]));
    assert_eq!(bench.sent(), 1);
    assert!(bench.hub.reported("probe-2")["lastSeenAt"].is_string());
}

#[tokio::test]
async fn the_order_of_a_device_is_kept() {
    let bench = Bench::new();
    let parked: Vec<_> = (0..20).map(|n| parked_of(&format!("probe-{}", n % 3), n)).collect();
    bench.handle(&parked, 0).await;
    let sent = bench.hub.state().sent.clone();
    for device in ["probe-0", "probe-1", "probe-2"] {
        let counts: Vec<u64> = sent
            .iter()
            .filter(|telemetry| telemetry.properties.contains(&("deviceId", device.to_owned())))
            .flat_map(|telemetry| telemetry.properties.iter().filter(|(name, _)| *name == "fCnt"))
            .map(|(_, count)| count.parse().expect("a number"))
            .collect();
        assert!(counts.len() > 5 && counts.is_sorted(), "{device}: {counts:?}");
    }
}

#[tokio::test]
async fn an_outage_fails_the_batch_and_what_was_delivered_is_not_repeated() {
    for class in [Class::Retry, Class::Throttled, Class::Denied] {
        let bench = Bench::new();
        bench.hub.state().always = Some(Fault::Twin(class));
        let batch = [parked(1), parked(2)];
        assert!(is_retry(&bench.handle(&batch, 0).await));
        assert_eq!((bench.sent(), bench.refuge.parked().len()), (2, 0), "the messages passed, the twins did not");
        bench.hub.state().always = None;
        assert!(!is_retry(&bench.handle(&batch, 1).await));
        assert_eq!(bench.sent(), 2, "no message twice");
        let again = bench.handle(&batch, 2).await;
        let nothing = "0 delivered, 0 parked again, 0 dead-lettered".to_owned();
        assert_eq!(again, Outcome::Done(vec![nothing]), "the counts of all deliveries add up");
        assert_eq!(bench.hub.patches().len(), 2, "nothing twice");
    }
}

#[tokio::test]
async fn what_the_settings_leave_out_is_counted_once_however_often_its_batch_comes() {
    let bench = Bench::new();
    let left_out = || {
        Item::Ignored(place(7), crate::uplink_delivery::Ignored::Filtered(crate::message_type::MessageType::JoinAccept))
    };
    let weather = Weather::new(Instant::now());
    assert!(matches!(bench.function.attempt(left_out(), &weather).await, Fate::Ignored));
    assert!(matches!(bench.function.attempt(left_out(), &weather).await, Fate::DoneBefore));
}

#[tokio::test]
async fn the_oldest_that_is_told_of_is_one_that_stays() {
    let bench = Bench::new();
    let aged = |n: u64, minutes| ParkedUplink { first_failed_at: ago(time::Duration::minutes(minutes)), ..parked(n) };
    bench.hub.break_device("probe-2", Fault::Both(Class::Retry));
    bench.hub.break_device("probe-3", Fault::Both(Class::Retry));
    let given_up = ParkedUplink { attempts: MAX_ATTEMPTS - 1, ..aged(3, 60) };
    let items = [aged(1, 90), aged(2, 5), given_up];
    let items = (0..).zip(items).map(|(n, item)| Item::read(place(n), item, &application(), &config()));
    let weather = Weather::new(Instant::now());
    let mut fates = Vec::new();
    for item in items {
        fates.push(bench.function.attempt(item, &weather).await);
    }
    let now = OffsetDateTime::now_utc();
    let tally = bench.function.finish(fates, false, 0, now).await;
    let oldest = tally.oldest.expect("one stays");
    assert_eq!((now - oldest).whole_minutes(), 5, "the delivered and the given up are gone: {tally:?}");
    let fates = vec![Fate::Delivered, Fate::Ignored, Fate::Buried];
    assert_eq!(bench.function.finish(fates, false, 0, now).await.oldest, None);
}

#[tokio::test]
async fn an_outage_is_not_felt_by_every_item() {
    let bench = Bench::new();
    bench.hub.state().always = Some(Fault::Both(Class::Retry));
    let batch: Vec<_> = (0..100).map(parked).collect();
    assert!(is_retry(&bench.handle(&batch, 0).await));
    assert!(bench.hub.state().flights.len() < 50);
}

#[tokio::test]
async fn an_item_that_fails_while_others_pass_goes_to_the_end_with_its_count() {
    let bench = Bench::new();
    bench.hub.break_device("probe-1", Fault::Telemetry(Class::Retry));
    let batch = [parked(1), parked(2)];
    assert!(!is_retry(&bench.handle(&batch, 0).await));
    let again = bench.refuge.parked();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].attempts, again[0].first_failure.as_str()), (2, "a timeout"));
    assert_eq!(again[0].open, Open { twin: false, ..ALL }, "its twin passed");
    bench.handle(&batch, 1).await;
    assert_eq!((bench.refuge.parked().len(), bench.sent()), (1, 1), "nothing twice");
}

#[tokio::test]
async fn an_item_is_given_up_after_its_attempts_or_near_the_end_of_retention() {
    for tired in [
        ParkedUplink { attempts: MAX_ATTEMPTS - 1, ..parked(1) },
        ParkedUplink { first_failed_at: ago(time::Duration::days(7)), ..parked(1) },
    ] {
        let bench = Bench::new();
        bench.hub.break_device("probe-1", Fault::Both(Class::Retry));
        assert!(!is_retry(&bench.handle(&[tired, parked(2)], 0).await));
        let letter = bench.refuge.letters().pop().expect("a dead letter");
        assert!(letter.reason.contains("given up after") && letter.reason.contains("a timeout"), "{}", letter.reason);
        assert_eq!((letter.function, bench.refuge.parked().len()), ("ParkedUplinks", 0));
    }
}

#[tokio::test]
async fn an_old_item_leaves_even_in_an_outage_and_others_keep_their_count() {
    let bench = Bench::new();
    bench.hub.state().always = Some(Fault::Both(Class::Retry));
    let old = ParkedUplink { first_failed_at: ago(time::Duration::days(7)), ..parked(1) };
    let batch = [old, parked(2)];
    assert!(is_retry(&bench.handle(&batch, 0).await));
    assert!(!is_retry(&bench.handle(&batch, 8).await), "what stands behind it gets its turn");
    assert_eq!(bench.refuge.letters().len(), 1);
    let again = bench.refuge.parked();
    assert_eq!((again.len(), again[0].attempts), (1, 1));
}

#[tokio::test]
async fn what_never_can_succeed_is_dead_lettered_and_blocks_nothing() {
    let bench = Bench::new();
    bench.hub.break_device("probe-1", Fault::Both(Class::Poison));
    bench.hub.break_device("probe-2", Fault::Panic);
    let foreign = String::from_utf8(parked(3).body.to_vec()).expect("UTF-8").replace("cold-store", "warm-store");
    let foreign = ParkedUplink { body: foreign.into(), ..parked(3) };
    let garbage = ParkedUplink { body: "{".into(), ..parked(4) };
    let batch = [parked(1), parked(2), foreign, garbage, parked(5)];
    let outcome = bench.handle(&batch, 0).await;
    assert_eq!(outcome, Outcome::Done(vec!["1 delivered, 0 parked again, 4 dead-lettered".to_owned()]));
    assert!(bench.refuge.letters().iter().all(|letter| letter.device_id.is_some()));
}

#[tokio::test]
async fn an_event_whose_reading_panics_is_dead_lettered_and_takes_no_other_along() {
    let bench = Bench::new();
    let event = Event { body: r#"{"app_s_key":{"key":"00"}}"#.into(), ..Event::default() };
    let broken = Item::guarded(place(1), &event, || panic!("a scripted panic"));
    let sound = Item::read(place(2), parked(2), &application(), &config());
    let outcome = bench.give(vec![broken, sound], 0).await;
    assert_eq!(outcome, Outcome::Done(vec!["1 delivered, 0 parked again, 1 dead-lettered".to_owned()]));
    assert_eq!(bench.refuge.letters().pop().expect("a dead letter").body, r#"{"app_s_key":{}}"#);
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_written_fails_the_batch_and_is_written_later() {
    let bench = Bench::new();
    bench.refuge.close(true);
    bench.hub.break_device("probe-1", Fault::Both(Class::Poison));
    let unreadable = || Item::unreadable(place(9), "no uplink".to_owned(), &"x".into(), Map::new());
    let batch = [parked(1)];
    assert!(is_retry(&bench.handle(&batch, 0).await));
    assert!(is_retry(&bench.give(vec![unreadable()], 0).await));
    bench.refuge.close(false);
    for _ in 0..2 {
        assert!(!is_retry(&bench.handle(&batch, 1).await));
        assert!(!is_retry(&bench.give(vec![unreadable()], 1).await));
    }
    assert_eq!((bench.refuge.letters().len(), bench.sent()), (2, 0));
}

#[tokio::test]
async fn an_item_that_cannot_be_parked_again_fails_the_batch() {
    let bench = Bench::new();
    bench.refuge.close(true);
    bench.hub.break_device("probe-1", Fault::Both(Class::Retry));
    assert!(is_retry(&bench.handle(&[parked(1), parked(2)], 0).await));
}
