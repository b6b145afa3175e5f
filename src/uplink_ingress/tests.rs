use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::body::MAX_WEBHOOK_BYTES;
use super::*;
use crate::event_hubs::Open;
use crate::failure::Class;
use crate::uplink_delivery::scripted::{Fault, ScriptedHub, ScriptedRefuge, config, message};

struct Bench {
    hub: Arc<ScriptedHub>,
    refuge: Arc<ScriptedRefuge>,
    routes: Router,
}

struct Answer {
    status: u16,
    body: Value,
    retry_after: bool,
}

impl Answer {
    fn error(&self) -> &str {
        self.body["error"].as_str().expect("an error")
    }

    fn outcome(&self) -> (u16, &str) {
        (self.status, self.body["outcome"].as_str().unwrap_or_default())
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: UplinkConfig) -> Self {
        let (hub, refuge) = (Arc::new(ScriptedHub::default()), Arc::new(ScriptedRefuge::default()));
        let delivery = Arc::new(UplinkDelivery::new(Arc::clone(&hub), &config));
        let application = ApplicationId::parse("cold-store").expect("a valid id");
        let routes = UplinkIngress::new(delivery, Arc::clone(&refuge), application, config).routes();
        Self { hub, refuge, routes }
    }

    async fn send(&self, request: axum::http::request::Builder, body: impl Into<Body>) -> Answer {
        let request = request.method("POST").body(body.into()).expect("a request");
        let answer = self.routes.clone().oneshot(request).await.expect("infallible");
        let (status, retry_after) = (answer.status().as_u16(), answer.headers().contains_key(RETRY_AFTER));
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        Answer { status, body: serde_json::from_slice(&body).unwrap_or_default(), retry_after }
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::builder().uri(path), body).await
    }

    fn sent(&self) -> usize {
        self.hub.state().sent.len()
    }

    fn fail(&self, fault: Fault) {
        self.hub.state().always = Some(fault);
    }
}

fn uplink(f_cnt: u64) -> String {
    let at = OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).expect("a time");
    message("uplink_message", json!({"f_cnt": f_cnt, "decoded_payload": {"t": 20}}), &at).to_string()
}

#[tokio::test]
async fn a_webhook_is_delivered_on_every_spelling_of_its_path() {
    let bench = Bench::new();
    for (f_cnt, path) in
        ["/api/uplink", "/api/uplink/", "/api/uplink/probe-0017", "/api/uplink/probe-0017/"].into_iter().enumerate()
    {
        let answer = bench.post(path, uplink(10 + f_cnt as u64)).await;
        assert_eq!(answer.outcome(), (200, "delivered"), "{path}");
        assert!(answer.body["messageId"].as_str().is_some_and(|id| id.starts_with("probe-0017.uplink_message.")));
    }
    assert_eq!(bench.sent(), 4);
}

#[tokio::test]
async fn the_device_comes_from_the_url_where_a_field_mask_left_it_out() {
    let bench = Bench::new();
    let answer = bench.post("/api/uplink/probe-0099", r#"{"uplink_message":{"f_cnt":5}}"#).await;
    assert_eq!(answer.outcome(), (200, "delivered"));
    assert!(bench.hub.reported("probe-0099")["lastSeenAt"].is_string());
    let properties = bench.hub.state().sent[0].properties.clone();
    assert!(properties.contains(&("applicationId", "cold-store".to_owned())));
    let answer = bench.post("/api/uplink/probe-0099", uplink(1)).await;
    assert_eq!(answer.status, 400, "body and URL disagree");
}

#[tokio::test]
async fn only_a_webhook_with_an_accepted_secret_is_admitted() {
    let secrets = ["current", "previous"].map(SecretString::from).into();
    let bench = Bench::with(UplinkConfig { webhook_secrets: secrets, ..config() });
    let with = |secret: &str| Request::builder().uri("/api/uplink").header("X-Webhook-Secret", secret);
    for (f_cnt, secret) in [(10, "current"), (11, "previous")] {
        assert_eq!(bench.send(with(secret), uplink(f_cnt)).await.status, 200, "{secret}");
    }
    for wrong in ["", "curren", "current2", "current, current"] {
        assert_eq!(bench.send(with(wrong), uplink(12)).await.status, 401, "{wrong}");
    }
    let answer = bench.post("/api/uplink", uplink(12)).await;
    assert_eq!(answer.status, 401);
    assert!(!answer.error().contains("current"));
    assert_eq!(bench.sent(), 2);
}

#[tokio::test]
async fn a_protobuf_or_compressed_webhook_is_told_what_to_change() {
    let bench = Bench::new();
    for media_type in ["application/octet-stream", "Application/X-Protobuf; x=y"] {
        let answer = bench.send(Request::builder().uri("/api/uplink").header(CONTENT_TYPE, media_type), "x").await;
        assert_eq!(answer.status, 415);
        assert!(answer.error().contains("set the webhook's format to JSON in the Console"));
    }
    let answer = bench.send(Request::builder().uri("/api/uplink").header(CONTENT_ENCODING, "gzip"), "x").await;
    assert!(answer.status == 415 && answer.error().contains("compressed"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_read_to_its_end_and_refused() {
    let bench = Bench::new();
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let chunks = futures::stream::repeat(Bytes::from(vec![b' '; 64 * 1024])).take(64).map(move |chunk| {
        counter.fetch_add(chunk.len(), std::sync::atomic::Ordering::SeqCst);
        Ok::<_, Infallible>(chunk)
    });
    let answer = bench.post("/api/uplink", Body::from_stream(chunks)).await;
    assert!(answer.status == 413 && answer.error().contains("983040 bytes"));
    assert_eq!(read.load(std::sync::atomic::Ordering::SeqCst), 4 * 1024 * 1024, "else the host answers 500");

    let mut largest = uplink(10);
    largest.push_str(&" ".repeat(MAX_WEBHOOK_BYTES - largest.len()));
    assert_eq!(bench.post("/api/uplink", largest).await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_not_waited_for() {
    let bench = Bench::new();
    let begun = Instant::now();
    let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    assert_eq!(bench.post("/api/uplink", endless).await.status, 408);
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn what_is_no_message_is_refused_without_repeating_it() {
    let bench = Bench::new();
    for body in ["s3cret", "[]", "{}", r#"{"a":1,"a":"s3cret"}"#, r#"{"uplink_message":"s3cret"}"#] {
        let answer = bench.post("/api/uplink", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(!answer.error().contains("s3cret"), "{}", answer.error());
    }
}

#[tokio::test]
async fn a_message_of_another_application_creates_nothing() {
    let bench = Bench::new();
    let answer = bench.post("/api/uplink", uplink(10).replace("cold-store", "warm-store")).await;
    assert_eq!((answer.status, bench.hub.state().flights.len()), (403, 0));
}

#[tokio::test]
async fn unknown_and_filtered_types_are_ignored_with_a_reason() {
    let bench = Bench::with(UplinkConfig {
        telemetry_messages: [MessageType::JoinAccept].into(),
        twin_messages: [MessageType::JoinAccept].into(),
        ..config()
    });
    let unknown = message("uplink_dreamt", json!({}), "2026-02-03T04:05:06Z").to_string();
    for body in [unknown, uplink(10)] {
        let answer = bench.post("/api/uplink", body).await;
        assert_eq!(answer.outcome(), (200, "ignored"));
        assert!(answer.body["reason"].is_string());
    }
    assert_eq!(bench.sent(), 0);
}

#[tokio::test]
async fn the_same_webhook_twice_has_one_effect() {
    let bench = Bench::new();
    let body = uplink(10);
    let (one, other) = tokio::join!(bench.post("/api/uplink", body.clone()), bench.post("/api/uplink", body.clone()));
    let mut outcomes = [one.outcome().1, other.outcome().1];
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["delivered", "duplicate"], "at the same time");
    assert_eq!(bench.post("/api/uplink", body.replace(',', " ,\n")).await.outcome(), (200, "duplicate"));
    assert_eq!(bench.sent(), 1);
    assert_eq!(bench.post("/api/uplink", uplink(11)).await.outcome(), (200, "delivered"));
}

#[tokio::test]
async fn a_window_of_zero_remembers_nothing() {
    let bench = Bench::with(UplinkConfig { dedupe_window: Duration::ZERO, ..config() });
    let body = uplink(10);
    for _ in 0..2 {
        assert_eq!(bench.post("/api/uplink", body.clone()).await.outcome(), (200, "delivered"));
    }
    assert_eq!(bench.sent(), 2);
}

#[tokio::test]
async fn what_the_hub_does_not_take_is_parked_with_what_is_open() {
    let bench = Bench::new();
    bench.fail(Fault::Twin(Class::Retry));
    let body = uplink(10);
    assert_eq!(bench.post("/api/uplink", body.clone()).await.outcome(), (200, "parked"));
    let parked = bench.refuge.parked().pop().expect("parked");
    assert_eq!((parked.body, parked.attempts, parked.device.id.as_str()), (Bytes::from(body), 1, "probe-0017"));
    assert_eq!(parked.open, Open { telemetry: false, twin: true, waiting_downlink: false });
}

#[tokio::test]
async fn two_equal_readings_without_time_or_counter_are_both_delivered() {
    let bench = Bench::new();
    for _ in 0..2 {
        let answer = bench.post("/api/uplink/probe-0017", r#"{"uplink_message":{"decoded_payload":{"t":20}}}"#).await;
        assert_eq!(answer.outcome(), (200, "delivered"));
    }
    let ids: Vec<_> = bench.hub.state().sent.iter().map(|telemetry| telemetry.message_id.clone()).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
}

#[tokio::test]
async fn a_parked_message_without_its_own_time_has_its_id_and_time_when_it_is_read_back() {
    let bench = Bench::new();
    bench.fail(Fault::Both(Class::Retry));
    let answer = bench.post("/api/uplink/probe-0017", r#"{"uplink_message":{"decoded_payload":{"t":20}}}"#).await;
    assert_eq!(answer.outcome(), (200, "parked"));
    let parked = bench.refuge.parked().pop().expect("parked");
    let mut up = ApplicationUp::parse(parked.body, Some(parked.device.id.as_str())).expect("a message");
    let first_failed_at = crate::stack::parse_time(&parked.first_failed_at).expect("a time");
    up.complete(&ApplicationId::parse("cold-store").expect("a valid id"), first_failed_at).expect("ours");
    assert_eq!(answer.body["messageId"], json!(up.message_id()));
    assert_eq!(up.received_at.as_ref(), Some(&parked.first_failed_at));
}

#[tokio::test]
async fn what_never_can_be_delivered_is_dead_lettered_without_its_key() {
    let bench = Bench::new();
    bench.fail(Fault::Both(Class::Poison));
    let body = message(
        "join_accept",
        json!({"app_s_key": {"key": "00112233445566778899AABBCCDDEEFF"}}),
        "2026-02-03T04:05:06Z",
    );
    assert_eq!(bench.post("/api/uplink", body.to_string()).await.outcome(), (200, "dead_lettered"));
    let letter = bench.refuge.letters().pop().expect("a dead letter");
    assert_eq!((letter.function, letter.device_id.as_deref()), ("UplinkIngress", Some("probe-0017")));
    assert_eq!(letter.properties["open"], "telemetry,twin");
    assert!(!String::from_utf8_lossy(&letter.body).contains("00112233"));
}

#[tokio::test]
async fn only_what_is_neither_delivered_nor_parked_is_answered_503_and_tried_again() {
    let bench = Bench::new();
    bench.refuge.close(true);
    let body = uplink(10);
    for class in [Class::Retry, Class::Throttled, Class::Denied, Class::Poison] {
        bench.fail(Fault::Both(class));
        let answer = bench.post("/api/uplink", body.clone()).await;
        assert_eq!((answer.status, answer.retry_after), (503, true), "{class:?}");
    }
    bench.hub.state().always = None;
    assert_eq!(bench.post("/api/uplink", body).await.outcome(), (200, "delivered"), "a failure is not remembered");
}

#[tokio::test]
async fn a_message_of_which_one_part_waits_and_one_never_can_be_delivered_counts_as_parked_too() {
    let up = ApplicationUp::parse(uplink(10).into(), None).expect("a message");
    for (fault, outcome, is_parked) in [
        (Some(Fault::Each { telemetry: Class::Poison, twin: Class::Retry }), Outcome::DeadLettered, true),
        (Some(Fault::Both(Class::Poison)), Outcome::DeadLettered, false),
        (Some(Fault::Both(Class::Retry)), Outcome::Parked, true),
        (None, Outcome::Delivered, false),
    ] {
        let hub = Arc::new(ScriptedHub::default());
        hub.state().always = fault;
        let delivery = Arc::new(UplinkDelivery::new(hub, &config()));
        let application = ApplicationId::parse("cold-store").expect("a valid id");
        let ingress = UplinkIngress::new(delivery, Arc::new(ScriptedRefuge::default()), application, config());
        let receipt = ingress.plan_and_settle(&up, Instant::now()).await.expect("kept");
        assert_eq!((receipt.outcome, receipt.parked), (outcome, is_parked));
    }
}

#[tokio::test]
async fn a_panic_ends_in_the_dead_letters() {
    let bench = Bench::new();
    bench.fail(Fault::Panic);
    assert_eq!(bench.post("/api/uplink", uplink(10)).await.outcome(), (200, "dead_lettered"));
    assert_eq!(bench.refuge.letters().len(), 1);
    let masked = bench.post("/api/uplink/probe-0017", r#"{"uplink_message":{}}"#).await;
    let letter = bench.refuge.letters().pop().expect("a dead letter");
    assert_eq!(letter.properties["messageId"], masked.body["messageId"], "its arrival is not lost");
    bench.hub.state().always = None;
    assert_eq!(bench.post("/api/uplink", uplink(11)).await.outcome(), (200, "delivered"), "the process lives");
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_stop_its_message() {
    let bench = Bench::new();
    let request = Request::post("/api/uplink").body(Body::from(uplink(10))).expect("a request");
    let call = bench.routes.clone().oneshot(request);
    assert!(call.now_or_never().is_none(), "the caller is gone before the answer");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.sent(), 1);
}

#[tokio::test]
async fn a_body_that_could_not_be_read_for_a_defect_is_dead_lettered_and_acknowledged() {
    let refuge = Arc::new(ScriptedRefuge::default());
    let delivery = Arc::new(UplinkDelivery::new(Arc::new(ScriptedHub::default()), &config()));
    let application = ApplicationId::parse("cold-store").expect("a valid id");
    let ingress = UplinkIngress::new(delivery, Arc::clone(&refuge), application, config());
    let receipt = ingress.settle_unread(&Bytes::from(uplink(1)), Instant::now()).await.expect("a receipt");
    let answer = receipt.into_response();
    assert_eq!(answer.status().as_u16(), 200);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((&body["outcome"], body.get("messageId")), (&json!("dead_lettered"), None));
    assert_eq!(refuge.letters().len(), 1);
}
