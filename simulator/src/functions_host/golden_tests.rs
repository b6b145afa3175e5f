//! Envelopes and verdicts against reduced recordings of a running host.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::envelope::{Origin, ReceivedEvent, RetryContext, envelope, memory};
use super::exception::Failure;
use super::function::Shape;
use super::json::Json;
use super::time_span;
use super::verdict::{Verdict, judge};
use crate::event_hubs::{Event, EventHub, Namespace, PropertyValue};

fn fixtures(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/functions_host/fixtures").join(folder);
    let files = std::fs::read_dir(&folder).expect("the folder of fixtures can be read");
    let paths = files.map(|file| file.expect("a folder's entry can be read").path());
    paths.map(|path| (path.display().to_string(), std::fs::read(&path).expect("a fixture can be read"))).collect()
}

#[derive(Deserialize)]
struct Recording {
    function: String,
    binding: String,
    event_hub: String,
    shape: String,
    invocation_id: String,
    events_given: Vec<GivenEvent>,
    failure: Option<String>,
    body: String,
}

#[derive(Deserialize)]
struct GivenEvent {
    body_b64: String,
    seq: i64,
    offset: String,
    enq: String,
    pk: Option<String>,
    properties: Vec<(String, Value)>,
    system: Vec<(String, Value)>,
}

fn received(given: GivenEvent) -> ReceivedEvent {
    let values = |given: Vec<(String, Value)>| given.into_iter().map(|(name, value)| (name, json(value))).collect();
    ReceivedEvent {
        body: STANDARD.decode(given.body_b64).expect("bodies are base64").into(),
        sequence_number: given.seq,
        offset: given.offset,
        enqueued_at: OffsetDateTime::parse(&given.enq, &Rfc3339).expect("times are RFC 3339"),
        partition_key: given.pk,
        properties: values(given.properties),
        system: values(given.system),
    }
}

/// The recordings mark .NET types: `{"$utc": …}` is a `DateTime`, `{"$dto": …}` a `DateTimeOffset`, and so on.
fn json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Json::Double(number.as_f64().expect("a number")), Json::Int)
        }
        Value::String(text) => Json::Text(text),
        Value::Array(items) => Json::Array(items.into_iter().map(json).collect()),
        Value::Object(members) => {
            let (mark, value) = members.into_iter().next().expect("an object has one mark");
            let text = value.as_str().unwrap_or_default();
            let at = OffsetDateTime::parse(text, &Rfc3339).map(time_span::date).unwrap_or_default();
            match mark.as_str() {
                "$utc" => Json::Text(at + "Z"),
                "$dto" => Json::Text(at + "+00:00"),
                "$rom" => memory(STANDARD.decode(text).expect("bytes are base64").len()),
                "$bytes" | "$guid" => text.into(),
                "$int" => json(value),
                _ => panic!("unknown mark {mark}"),
            }
        }
    }
}

/// Replaces the texts of members that are never the same twice, or that only .NET can write.
fn blank(body: &str) -> String {
    let mut body = body.to_owned();
    for name in ["UtcNow", "RandGuid", "StackTrace", "StackTraceString"] {
        let start = format!("\"{name}\":\"");
        let mut from = 0;
        while let Some(at) = body[from..].find(&start) {
            let begin = from + at + start.len();
            let length = body[begin..].find('"').expect("these texts have an end and no quotes inside");
            body.replace_range(begin..begin + length, "");
            from = begin;
        }
    }
    body
}

fn origin(recording: &Recording) -> Origin {
    Origin {
        function: recording.function.clone(),
        binding: recording.binding.clone(),
        shape: match recording.shape.as_str() {
            "many/binary" => Shape::ManyBinary,
            "many/string" => Shape::ManyText,
            "one/binary" => Shape::OneBinary,
            other => panic!("unknown shape {other}"),
        },
        fully_qualified_namespace: "ehns-demo.servicebus.windows.net".to_owned(),
        event_hub: recording.event_hub.clone(),
        consumer_group: "forwarder".to_owned(),
        partition_id: "3".to_owned(),
    }
}

/// The retry context that the recorded attempt must have had.
fn retry_context(recording: &Recording) -> Option<RetryContext> {
    let recorded: Value = serde_json::from_str(&recording.body).expect("bodies are JSON");
    let max = recorded["Metadata"]["RetryContext"]["MaxRetryCount"].as_i64()?;
    let failure = recording.failure.as_deref().map(|failure| match failure {
        "status" => Failure::Status(500, "X".to_owned()),
        "closed" => Failure::NoAnswer,
        "timeout" => Failure::Timeout(std::time::Duration::from_secs(20)),
        other => panic!("unknown failure {other}"),
    });
    let exception = failure.map(|failure| failure.exception(&recording.function, &recording.invocation_id));
    Some(RetryContext { count: exception.is_some().into(), max, exception: exception.unwrap_or(Json::Null) })
}

#[test]
fn every_recorded_envelope_is_made_again_byte_for_byte() {
    let fixtures = fixtures("envelopes");
    assert!(fixtures.len() >= 17, "there are {} recordings", fixtures.len());
    for (name, text) in fixtures {
        let mut recording: Recording = serde_json::from_slice(&text).expect(&name);
        let origin = origin(&recording);
        let retry = retry_context(&recording);
        let events: Vec<_> = std::mem::take(&mut recording.events_given).into_iter().map(received).collect();
        let made = envelope(&origin, &events, retry.as_ref());
        assert_eq!(blank(&made), blank(&recording.body), "{name}");
    }
}

#[test]
fn an_event_of_the_store_becomes_what_the_sdk_would_hand_over() {
    let namespace = Namespace::new(&[("h", 1)]);
    let hub: std::sync::Arc<EventHub> = namespace.hub("h").expect("it was just made");
    let at = time::macros::datetime!(2026-03-01 10:20:30.250 UTC);
    hub.append(Event {
        body: "{}".into(),
        system: [("message-id".into(), "m-1".into()), ("user-id".into(), PropertyValue::Binary(vec![1, 2, 3]))].into(),
        properties: [("n".into(), PropertyValue::Long(7)), ("raw".into(), PropertyValue::Binary(vec![1, 2, 3]))].into(),
        annotations: [("iothub-enqueuedtime".into(), PropertyValue::Timestamp(at))].into(),
        partition_key: Some("probe-1".into()),
    });
    let event = ReceivedEvent::from(hub.read(0, 0, 1)[0].as_ref());
    let names: Vec<_> = event.system.iter().map(|(name, _)| name.as_str()).collect();
    let order = [
        "message-id",
        "user-id",
        "iothub-enqueuedtime",
        "x-opt-sequence-number",
        "x-opt-offset",
        "x-opt-enqueued-time",
        "x-opt-partition-key",
    ];
    assert_eq!(names, order);
    assert_eq!(event.system[1].1, memory(3));
    assert_eq!(event.system[2].1, "2026-03-01T10:20:30.25Z".into());
    assert_eq!(Json::Object(event.properties).to_text(), r#"{"n":7,"raw":"AQID"}"#);
    assert_eq!(event.enqueued_at.nanosecond() % 1_000_000, 0);
}

#[derive(Deserialize)]
struct Answer {
    name: String,
    status: u16,
    reason: String,
    headers: Vec<(String, String)>,
    body_b64: String,
    verdict: String,
}

#[test]
fn every_recorded_answer_is_judged_as_the_host_did() {
    let (_, text) = fixtures("answers").pop().expect("there is one file");
    let answers: Vec<Answer> = serde_json::from_slice(&text).expect("it is an array of answers");
    assert!(answers.len() >= 25, "there are {} recordings", answers.len());
    for answer in answers {
        let headers = answer.headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("recorded names are valid");
            (name, HeaderValue::from_str(value).expect("recorded values are valid"))
        });
        let headers: HeaderMap = headers.collect();
        let status = answer.status.try_into().expect("recorded status codes are valid");
        let body = STANDARD.decode(&answer.body_b64).expect("bodies are base64");
        let verdict = match judge(status, &answer.reason, &headers, &body) {
            Verdict::Success(_) => "success",
            Verdict::Failed(_) => "failed",
            Verdict::Hangs => "hangs",
        };
        assert_eq!(verdict, answer.verdict, "{}", answer.name);
    }
}

#[test]
fn log_lines_of_an_answer_are_kept_and_others_than_text_fail_it() {
    let headers: HeaderMap =
        [(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))].into_iter().collect();
    let judged = |body: &str| judge(http::StatusCode::OK, "OK", &headers, body.as_bytes());
    assert_eq!(judged(r#"{"logs":["a",null,""]}"#), Verdict::Success(vec!["a".into(), String::new(), String::new()]));
    assert_eq!(judged(r#"{"Logs":[{"a":1}]}"#), Verdict::Failed(Failure::Invalid));
}
