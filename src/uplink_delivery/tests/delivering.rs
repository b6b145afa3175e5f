//! What a delivery promises.

use std::sync::Arc;
use std::time::Duration as StdDuration;

use proptest::prelude::*;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use crate::event_hubs::Open;
use crate::failure::Class;
use crate::iot_hub::{MAX_MESSAGE_BYTES, TwinCall};
use crate::stack::ApplicationUp;
use crate::uplink_delivery::Origin::{Live, Parked};
use crate::uplink_delivery::scripted::{Fault, ScriptedHub, config, message};
use crate::uplink_delivery::{Decision, Delivered, Origin, UplinkDelivery, UplinkPlan, plan};

const TELEMETRY: Open = Open { telemetry: true, twin: false, waiting_downlink: false };
const TWIN: Open = Open { telemetry: false, twin: true, waiting_downlink: false };
const WAITING: Open = Open { telemetry: false, twin: false, waiting_downlink: true };

struct Bench {
    hub: Arc<ScriptedHub>,
    delivery: UplinkDelivery<ScriptedHub>,
    start: OffsetDateTime,
}

impl Bench {
    fn new() -> Self {
        let hub = Arc::new(ScriptedHub::default());
        let delivery = UplinkDelivery::new(Arc::clone(&hub), &config());
        Self { hub, delivery, start: OffsetDateTime::now_utc() }
    }

    /// Another instance at the same hub: it remembers nothing.
    fn other_instance(&self) -> Self {
        let delivery = UplinkDelivery::new(Arc::clone(&self.hub), &config());
        Self { hub: Arc::clone(&self.hub), delivery, start: self.start }
    }

    fn time(&self, s: i64) -> String {
        (self.start + Duration::seconds(s)).format(&Rfc3339).expect("a time")
    }

    fn plan(&self, key: &str, content: Value, s: i64) -> UplinkPlan {
        let body = message(key, content, &self.time(s));
        let up = ApplicationUp::parse(body.to_string().into(), None).expect("a message");
        match plan(&up, &config()) {
            Decision::Deliver(plan) => *plan,
            Decision::Ignore(why) => panic!("ignored: {why}"),
        }
    }

    fn uplink(&self, f_cnt: u64, payload: Value, s: i64) -> UplinkPlan {
        self.plan("uplink_message", json!({"session_key_id": "S", "f_cnt": f_cnt, "decoded_payload": payload}), s)
    }

    async fn deliver(&self, plan: &UplinkPlan, origin: Origin) -> Delivered {
        let deadline = Instant::now() + StdDuration::from_secs(2);
        self.delivery.deliver(plan, plan.open(), origin, deadline).await
    }

    async fn deliver_done(&self, plan: &UplinkPlan, origin: Origin) {
        assert_eq!(self.deliver(plan, origin).await, Delivered::default());
    }

    fn last_patch(&self) -> Value {
        self.hub.patches().pop().expect("a patch")
    }

    fn sent(&self) -> usize {
        self.hub.state().sent.len()
    }

    fn flights(&self) -> usize {
        self.hub.state().flights.len()
    }
}

#[tokio::test]
async fn a_live_uplink_is_one_flight() {
    let bench = Bench::new();
    bench.deliver_done(&bench.uplink(7, json!({"t": 20}), 0), Live).await;
    assert_eq!(bench.flights(), 1);
    assert_eq!(bench.sent(), 1);
    let expected = json!({"decodedPayload": {"t": 20}, "lastSeenAt": bench.time(0)});
    assert_eq!(bench.hub.reported("probe-0017"), expected);
}

#[tokio::test]
async fn what_has_not_changed_is_not_written_again() {
    let bench = Bench::new();
    bench.deliver_done(&bench.uplink(7, json!({"t": 20, "h": 50}), 0), Live).await;
    bench.deliver_done(&bench.uplink(8, json!({"t": 21, "h": 50}), 1), Live).await;
    assert_eq!(bench.last_patch(), json!({"decodedPayload": {"t": 21}, "lastSeenAt": bench.time(1)}));
    bench.deliver_done(&bench.uplink(9, json!({"t": 21, "h": 50}), 2), Live).await;
    assert_eq!(bench.hub.patches().len(), 2, "nothing changed");
    bench.deliver_done(&bench.uplink(10, json!({"h": 51}), 3), Live).await;
    assert_eq!(bench.last_patch(), json!({"decodedPayload": {"h": 51}, "lastSeenAt": bench.time(3)}));
    assert_eq!(bench.sent(), 4, "every message is sent");
}

#[tokio::test]
async fn the_last_sight_alone_is_written_once_per_interval() {
    let bench = Bench::new();
    bench.deliver_done(&bench.uplink(7, json!({"t": 20}), 0), Live).await;
    bench.deliver_done(&bench.uplink(8, json!({"t": 20}), 3599), Live).await;
    assert_eq!(bench.hub.patches().len(), 1);
    bench.deliver_done(&bench.uplink(9, json!({"t": 20}), 3600), Live).await;
    assert_eq!(bench.last_patch(), json!({"lastSeenAt": bench.time(3600)}));
}

#[tokio::test]
async fn a_difference_is_trusted_only_behind_the_previous_frame() {
    let whole = |bench: &Bench, s| json!({"decodedPayload": {"t": 20}, "lastSeenAt": bench.time(s)});
    let bench = Bench::new();
    bench.deliver_done(&bench.uplink(7, json!({"t": 20}), 0), Live).await;
    bench.deliver_done(&bench.uplink(9, json!({"t": 20}), 1), Live).await;
    assert_eq!(bench.last_patch(), whole(&bench, 1), "a frame was missed");

    let joined = json!({"session_key_id": "T", "f_cnt": 10, "decoded_payload": {"t": 20}});
    bench.deliver_done(&bench.plan("uplink_message", joined, 2), Live).await;
    assert_eq!(bench.last_patch(), whole(&bench, 2), "another session");

    bench.deliver_done(&bench.uplink(11, json!({"t": 20}), 3), Live).await;
    bench.hub.state().faults.push_back(Some(Fault::LostAnswer));
    assert!(!bench.deliver(&bench.uplink(12, json!({"t": 20, "x": 1}), 4), Live).await.is_done());
    bench.deliver_done(&bench.uplink(13, json!({"t": 20}), 5), Live).await;
    assert_eq!(bench.last_patch(), whole(&bench, 5), "nobody knows what became of the patch before");

    let other = bench.other_instance();
    other.deliver_done(&other.uplink(14, json!({"t": 20}), 6), Live).await;
    assert_eq!(other.last_patch(), whole(&bench, 6), "another instance");

    other.deliver_done(&other.uplink(15, json!({"t": 20}), 6 + 6 * 3600), Live).await;
    assert_eq!(other.last_patch(), whole(&bench, 6 + 6 * 3600), "the memory is old");
}

#[tokio::test]
async fn a_twin_that_was_made_anew_is_written_whole_after_one_uplink() {
    let bench = Bench::new();
    for (second, f_cnt) in (0..).zip(7..10_u64) {
        bench.deliver_done(&bench.uplink(f_cnt, json!({"t": f_cnt, "h": 50}), second), Live).await;
    }
    bench.hub.state().reported.clear();
    bench.hub.state().versions.clear();
    bench.deliver_done(&bench.uplink(10, json!({"t": 10, "h": 50}), 3), Live).await;
    assert_eq!(bench.last_patch()["decodedPayload"], json!({"t": 10}), "nothing told yet");
    bench.deliver_done(&bench.uplink(11, json!({"t": 10, "h": 50}), 4), Live).await;
    assert_eq!(bench.hub.reported("probe-0017")["decodedPayload"], json!({"t": 10, "h": 50}));
}

#[tokio::test]
async fn other_writes_of_this_instance_cost_no_whole_patch_and_those_of_others_do() {
    let bench = Bench::new();
    bench.deliver_done(&bench.uplink(7, json!({"t": 20, "h": 50}), 0), Live).await;
    bench.deliver_done(&bench.plan("service_data", json!({"service": "s", "data": {"n": 1}}), 1), Live).await;
    let late = bench.plan("service_data", json!({"service": "parked", "data": {"n": 1}}), 1);
    bench.deliver_done(&late, Parked).await;
    bench.deliver_done(&bench.uplink(8, json!({"t": 21, "h": 50}), 2), Live).await;
    bench.deliver_done(&bench.uplink(9, json!({"t": 22, "h": 50}), 3), Live).await;
    assert_eq!(bench.last_patch()["decodedPayload"], json!({"t": 22}));
    *bench.hub.state().versions.get_mut("probe-0017").expect("a twin") += 1;
    bench.deliver_done(&bench.uplink(10, json!({"t": 23, "h": 50}), 4), Live).await;
    bench.deliver_done(&bench.uplink(11, json!({"t": 24, "h": 50}), 5), Live).await;
    assert_eq!(bench.last_patch()["decodedPayload"], json!({"t": 24, "h": 50}));
}

#[tokio::test]
async fn a_twin_that_is_full_of_older_payloads_makes_room_for_this_one() {
    for origin in [Live, Parked] {
        let bench = Bench::new();
        bench.hub.state().most_reported = Some(200);
        for n in 0..12_u64 {
            let payload = json!({format!("only{n}"): "0123456789", "all": {format!("inner{n}"): n}});
            bench.deliver_done(&bench.uplink(2 * n + 7, payload.clone(), n.cast_signed()), origin).await;
            let reported = bench.hub.reported("probe-0017");
            assert_eq!(reported["decodedPayload"]["all"][format!("inner{n}")], json!(n));
        }
        assert_eq!(bench.sent(), 12, "no message twice");
    }
}

#[tokio::test]
async fn a_payload_that_does_not_fit_alone_is_refused_for_good() {
    let bench = Bench::new();
    bench.deliver_done(&bench.uplink(7, json!({"a": 1}), 0), Live).await;
    bench.hub.state().most_reported = Some(50);
    let delivered = bench.deliver(&bench.uplink(8, json!({"b": "0".repeat(50)}), 1), Live).await;
    assert_eq!(delivered.never.map(|never| never.open), Some(TWIN));
    assert_eq!((bench.flights(), bench.sent()), (4, 2), "one read and one more patch");
}

#[tokio::test]
async fn a_late_uplink_sends_its_telemetry_and_leaves_the_newer_twin_alone() {
    let bench = Bench::new();
    bench.deliver_done(&bench.uplink(8, json!({"t": 21}), 0), Live).await;
    let newer = bench.hub.reported("probe-0017");
    bench.deliver_done(&bench.uplink(7, json!({"t": 20}), -5), Live).await;
    bench.deliver_done(&bench.uplink(6, json!({"t": 19}), -10), Parked).await;
    let other = bench.other_instance();
    other.deliver_done(&other.uplink(5, json!({"t": 18}), -60), Live).await;
    assert_eq!(bench.hub.reported("probe-0017"), newer);
    assert_eq!(bench.sent(), 4);
}

#[tokio::test]
async fn an_old_message_that_is_still_news_is_written_after_a_read() {
    for origin in [Live, Parked] {
        let bench = Bench::new();
        bench.hub.state().versions.insert("probe-0017".to_owned(), 41);
        bench.deliver_done(&bench.uplink(7, json!({"t": 20}), -60), origin).await;
        let flights = bench.hub.state().flights.clone();
        assert!(flights[0].telemetry.is_some() && flights[0].twin == Some(TwinCall::Read));
        assert!(matches!(flights[1].twin, Some(TwinCall::Patch { if_version: Some(41), .. })));
        assert_eq!(bench.hub.reported("probe-0017")["lastSeenAt"], json!(bench.time(-60)));
    }
}

#[tokio::test]
async fn a_twin_that_changed_meanwhile_is_read_again_and_the_message_sent_once() {
    let bench = Bench::new();
    bench.hub.state().interlopers = 3;
    bench.deliver_done(&bench.uplink(7, json!({"t": 20}), 0), Parked).await;
    assert_eq!((bench.sent(), bench.flights()), (1, 8));

    bench.hub.state().interlopers = usize::MAX;
    let delivered = bench.deliver(&bench.uplink(8, json!({"t": 21}), 1), Parked).await;
    assert_eq!(delivered.open.map(|unfinished| unfinished.open), Some(TWIN), "it does not try for ever");
}

#[tokio::test]
async fn only_the_part_that_failed_stays_open() {
    for (fault, open, never) in [
        (Fault::Telemetry(Class::Retry), Some(TELEMETRY), None),
        (Fault::Twin(Class::Throttled), Some(TWIN), None),
        (Fault::Twin(Class::Poison), None, Some(TWIN)),
        (Fault::Both(Class::Denied), Some(Open { telemetry: true, ..TWIN }), None),
        (Fault::Both(Class::Poison), None, Some(Open { telemetry: true, ..TWIN })),
    ] {
        for origin in [Live, Parked] {
            let bench = Bench::new();
            bench.hub.state().always = Some(fault);
            let delivered = bench.deliver(&bench.uplink(7, json!({"t": 20}), 0), origin).await;
            assert_eq!(delivered.open.map(|open| open.open), open, "{fault:?} {origin:?}");
            assert_eq!(delivered.never.map(|never| never.open), never, "{fault:?} {origin:?}");
        }
    }
}

#[tokio::test]
async fn what_is_done_already_is_not_done_again() {
    let bench = Bench::new();
    let plan = bench.uplink(7, json!({"t": 20}), 0);
    let deadline = Instant::now() + StdDuration::from_secs(2);
    assert!(bench.delivery.deliver(&plan, TWIN, Parked, deadline).await.is_done());
    assert_eq!(bench.sent(), 0);
    assert!(bench.delivery.deliver(&plan, TELEMETRY, Parked, deadline).await.is_done());
    assert_eq!((bench.sent(), bench.hub.patches().len()), (1, 1));
}

#[tokio::test]
async fn a_message_too_large_for_the_hub_still_updates_the_twin() {
    let bench = Bench::new();
    let content = json!({"f_cnt": 7, "frm_payload": "x".repeat(MAX_MESSAGE_BYTES)});
    let delivered = bench.deliver(&bench.plan("uplink_message", content, 0), Live).await;
    let never = delivered.never.expect("never");
    assert_eq!((delivered.open, never.open, never.class), (None, TELEMETRY, Class::Poison));
    assert_eq!(bench.hub.reported("probe-0017"), json!({"lastSeenAt": bench.time(0)}));
}

#[tokio::test]
async fn an_outcome_of_a_downlink_never_overwrites_a_newer_one() {
    let bench = Bench::new();
    let outcome = |key: &str, version: u64, s| {
        let ids = json!([format!("iothub:probe-0017:desired:{version}")]);
        let content = match key {
            "downlink_failed" => json!({"downlink": {"correlation_ids": ids}, "error": {"name": "e"}}),
            _ => json!({"correlation_ids": ids}),
        };
        bench.plan(key, content, s)
    };
    let state = || bench.hub.reported("probe-0017")["downlink"].clone();
    bench.deliver_done(&outcome("downlink_sent", 12, 1), Live).await;
    bench.deliver_done(&outcome("downlink_queued", 12, 0), Live).await;
    assert_eq!(state(), json!({"version": 12, "state": "sent", "at": bench.time(1)}));
    bench.deliver_done(&outcome("downlink_failed", 12, 2), Parked).await;
    assert_eq!(state()["error"], json!({"name": ":e", "message": ""}));
    bench.deliver_done(&outcome("downlink_queued", 13, 3), Live).await;
    assert_eq!(state(), json!({"version": 13, "state": "queued", "at": bench.time(3)}), "the old error is gone");
    bench.deliver_done(&outcome("downlink_ack", 12, 4), Live).await;
    assert_eq!(state()["version"], 13);
    assert_eq!(bench.sent(), 5, "every message is sent");
}

#[tokio::test]
async fn each_service_has_its_own_time() {
    let bench = Bench::new();
    let solved = |service: &str, latitude: f64, s| {
        bench.plan("location_solved", json!({"service": service, "location": {"latitude": latitude}}), s)
    };
    bench.deliver_done(&solved("wifi", 2.0, 0), Live).await;
    bench.deliver_done(&solved("gps", 3.0, -20), Live).await;
    bench.deliver_done(&solved("wifi", 1.0, -10), Live).await;
    bench.deliver_done(&solved("wifi", 1.0, -10), Parked).await;
    let location = &bench.hub.reported("probe-0017")["location"];
    assert_eq!((&location["wifi"]["latitude"], &location["gps"]["latitude"]), (&json!(2.0), &json!(3.0)));
}

#[tokio::test]
async fn a_service_whose_name_a_twin_refuses_has_its_time_too() {
    let bench = Bench::new();
    let data = |n: u64, s| bench.plan("service_data", json!({"service": "solver v1.2", "data": {"n": n}}), s);
    bench.deliver_done(&data(2, 0), Live).await;
    bench.deliver_done(&data(1, -10), Parked).await;
    let services = bench.hub.reported("probe-0017")["serviceData"].as_object().cloned().expect("an object");
    assert_eq!(services.values().collect::<Vec<_>>(), [&json!({"n": 2})]);
}

#[tokio::test]
async fn a_join_makes_a_waiting_downlink_ready() {
    let bench = Bench::new();
    let join = bench.plan("join_accept", json!({}), 0);
    bench.deliver_done(&join, Live).await;
    let tags = json!({"stack": {"downlink": {"version": 3, "hash": "h", "state": "waiting", "error": null}}});
    bench.hub.state().tags = tags.as_object().cloned();
    bench.hub.state().interlopers = 2;
    bench.deliver_done(&bench.uplink(0, json!({}), 1), Live).await;
    let state = || bench.hub.state().tags.clone().expect("tags")["stack"]["downlink"]["state"].clone();
    assert_eq!(state(), "ready");
    bench.hub.state().service_api_fails = true;
    let delivered = bench.deliver(&bench.plan("join_accept", json!({}), 2), Live).await;
    assert_eq!(delivered.open.map(|unfinished| unfinished.open), Some(WAITING));
}

/// One delivery of some frame.
fn any_delivery() -> impl Strategy<Value = (u64, bool, bool, Option<Fault>)> {
    let fault = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Fault::Twin(Class::Retry))),
        1 => Just(Some(Fault::LostAnswer)),
    ];
    (0..8_u64, any::<bool>(), any::<bool>(), fault)
}

proptest! {
    #[test]
    fn reported_state_never_goes_back_in_time(deliveries in prop::collection::vec(any_delivery(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let ours = Bench::new();
            let theirs = ours.other_instance();
            let mut newest = -1;
            for (f_cnt, at_ours, parked, fault) in deliveries {
                // The frames are a minute apart: all but the last are old to an instance that does not know the device.
                let s = i64::try_from(f_cnt).expect("small") * 60 - 7 * 60;
                let bench = if at_ours { &ours } else { &theirs };
                // Another instance may race within a session's time only; so live frames stay at one.
                let origin = if parked || !at_ours { Parked } else { Live };
                bench.hub.state().faults = fault.into_iter().map(Some).collect();
                bench.deliver(&bench.uplink(f_cnt, json!({"f": f_cnt}), s), origin).await;
                let reported = bench.hub.reported("probe-0017")["decodedPayload"]["f"].as_i64().unwrap_or(-1);
                assert!(reported >= newest, "{reported} after {newest}");
                newest = reported;
            }
        });
    }
}
