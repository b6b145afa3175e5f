//! Envelopes of batches: bodies byte for byte, and the sizes of their chunks.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fixtures;
use crate::event_hubs::{Event, EventHub, Namespace, PropertyValue};
use crate::functions_host::call::chunks;
use crate::functions_host::envelope::{Content, Origin, ReceivedEvent, RetryContext, envelope, memory};
use crate::functions_host::exception::Failure;
use crate::functions_host::function::Shape;
use crate::functions_host::json::Json;
use crate::functions_host::time_span;

#[derive(Deserialize)]
struct Recording {
    recording: String,
    function: String,
    binding: String,
    event_hub: String,
    shape: String,
    events_given: Vec<GivenEvent>,
    /// One per event or one for all; none if the function was not called.
    requests: Vec<Request>,
}

#[derive(Deserialize)]
struct Request {
    body: String,
    #[serde(default)]
    chunks: Vec<usize>,
}

/// One attempt of a retried invocation.
#[derive(Deserialize)]
pub(super) struct Attempt {
    #[serde(flatten)]
    recording: Recording,
    max: i64,
    attempt: u32,
    invocation_id: String,
    failure: Option<RecordedFailure>,
}

/// Why the attempt before failed.
#[derive(Deserialize)]
struct RecordedFailure {
    kind: String,
    status: Option<(String, String)>,
}

/// A function of an Event Hub, and its `function.json`.
pub(super) fn hub_function(
    name: &str,
    cardinality: &str,
    data_type: &str,
    hub: &str,
    retry: Option<&Value>,
) -> (String, Value) {
    let mut trigger = json!({
        "type": "eventHubTrigger", "direction": "in", "eventHubName": hub, "consumerGroup": "forwarder",
        "connection": "StackEvents", "cardinality": cardinality,
        "name": if cardinality == "many" { "events" } else { "event" }
    });
    if !data_type.is_empty() {
        trigger["dataType"] = data_type.into();
    }
    let mut file = json!({"bindings": [trigger]});
    if let Some(retry) = retry {
        file["retry"] = retry.clone();
    }
    (name.to_owned(), file)
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

fn received(given: &GivenEvent) -> ReceivedEvent {
    let values =
        |given: &[(String, Value)]| given.iter().map(|(name, value)| (name.clone(), marked(value.clone()))).collect();
    ReceivedEvent {
        body: STANDARD.decode(&given.body_b64).expect("bodies are base64").into(),
        sequence_number: given.seq,
        offset: given.offset.clone(),
        enqueued_at: OffsetDateTime::parse(&given.enq, &Rfc3339).expect("times are RFC 3339"),
        partition_key: given.pk.clone(),
        properties: values(&given.properties),
        system: values(&given.system),
    }
}

/// The recordings mark .NET types: `{"$utc": …}` is a `DateTime`, `{"$dto": …}` a `DateTimeOffset`, and so on.
fn marked(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Json::Double(number.as_f64().expect("a number")), Json::Int)
        }
        Value::String(text) => Json::Text(text),
        Value::Array(items) => Json::Array(items.into_iter().map(marked).collect()),
        Value::Object(members) => {
            let (mark, value) = members.into_iter().next().expect("an object has one mark");
            let text = value.as_str().unwrap_or_default();
            let at = OffsetDateTime::parse(text, &Rfc3339).map(time_span::date).unwrap_or_default();
            match mark.as_str() {
                "$utc" => Json::Text(at + "Z"),
                "$dto" => Json::Text(at + "+00:00"),
                "$rom" => memory(STANDARD.decode(text).expect("bytes are base64").len()),
                "$bytes" | "$guid" => text.into(),
                "$int" => marked(value),
                _ => panic!("unknown mark {mark}"),
            }
        }
    }
}

/// Replaces the texts of members that are never the same twice, or that only .NET can write.
pub(super) fn blank_body(body: &str) -> String {
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
            "many/none" => Shape::ManyJson,
            "one/binary" => Shape::OneBinary,
            "one/string" | "one/none" | "nothing" => Shape::OneText,
            other => panic!("unknown shape {other}"),
        },
        fully_qualified_namespace: "ehns-demo.servicebus.windows.net".to_owned(),
        event_hub: recording.event_hub.clone(),
        consumer_group: "forwarder".to_owned(),
        partition_id: "3".to_owned(),
    }
}

impl Recording {
    /// The bodies that the simulated host makes of the same events.
    fn made(&self, retry: Option<&RetryContext>) -> Vec<String> {
        let origin = origin(self);
        let events: Vec<_> = self.events_given.iter().map(received).collect();
        let size = if origin.shape.is_one() { 1 } else { events.len() };
        let parts = events.chunks(size);
        // A function that wants something else is not called.
        parts.filter_map(|part| envelope(&origin, Content::Events(part), retry).ok()).collect()
    }

    fn is_made_again(&self, retry: Option<&RetryContext>) {
        let made: Vec<_> = self.made(retry).iter().map(|body| blank_body(body)).collect();
        let recorded: Vec<_> = self.requests.iter().map(|request| blank_body(&request.body)).collect();
        assert_eq!(made, recorded, "{}", self.recording);
    }
}

impl Attempt {
    pub(super) fn is_made_again(&self) {
        let failure = self.failure.as_ref().map(|failure| match (failure.kind.as_str(), &failure.status) {
            ("status", Some((code, reason))) => Failure::Status(code.parse().expect("it is a code"), reason.clone()),
            ("closed", _) => Failure::NoAnswer,
            ("timeout", _) => Failure::Timeout(Duration::from_secs(20)),
            other => panic!("unknown failure {other:?}"),
        });
        let exception = failure.map(|failure| failure.exception(&self.recording.function, &self.invocation_id));
        let exception = exception.unwrap_or(Json::Null);
        self.recording.is_made_again(Some(&RetryContext { count: self.attempt, max: self.max, exception }));
    }
}

#[test]
pub(super) fn every_recorded_envelope_is_made_again_byte_for_byte() {
    let recordings = fixtures::<Recording>("envelopes", |_| true);
    assert!(recordings.len() >= 32, "there are {}", recordings.len());
    for recording in recordings {
        recording.is_made_again(None);
        for request in &recording.requests {
            let sizes: Vec<_> = chunks(&request.body).map(|chunk| chunk.len()).collect();
            assert_eq!(sizes, request.chunks, "{}", recording.recording);
        }
    }
}

#[test]
fn a_batch_of_two_megabytes_goes_in_chunks_of_1024_units() {
    let body = "A".repeat(2_675_413);
    let sizes: Vec<_> = chunks(&body).map(|chunk| chunk.len()).collect();
    assert_eq!((sizes.len(), sizes[0], sizes[2612]), (2613, 1024, 725));
    // A character of two units that the end of a chunk would split goes into the next.
    let body = format!("{}\u{1F600}{}", "a".repeat(1023), "b".repeat(1023));
    let sizes: Vec<_> = chunks(&body).map(|chunk| chunk.len()).collect();
    assert_eq!(sizes, [1023, 4 + 1023]);
}

#[test]
fn an_event_of_the_store_becomes_what_the_sdk_would_hand_over() {
    let namespace = Namespace::new(&[("h", 1)]);
    let hub: Arc<EventHub> = namespace.hub("h").expect("it was just made");
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
