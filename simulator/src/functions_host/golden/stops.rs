//! How a host ends, and what becomes of the calls that are running.

use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::course::{Answers, Course, told};
use super::envelopes::hub_function;
use super::fixtures;
use super::http_calls::{
    FUNCTION_KEY, Got, MASTER_KEY, exchange, http_functions, recorded_host_json, recorded_options,
};
use crate::event_hubs::{Event, Namespace};
use crate::functions_host::tests::{AppFolder, PATIENCE, is_alive};
use crate::functions_host::{FunctionsHost, Pace};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Recording {
    recording: String,
    timeline: Vec<String>,
    answers: Answers,
    /// A status code, or `reset`.
    caller: Option<Value>,
    caller_connection_close: bool,
    new_caller: Option<String>,
    function: Option<String>,
    drain: Option<u16>,
    states: Vec<Value>,
    http_call_after_drain: u16,
}

/// A pace at which the recording lasts a few seconds, and between an answer and the end of its host is time enough.
fn factor(recording: &Recording) -> u32 {
    let delays = recording.answers.values().flatten().filter_map(|answer| answer["delay"].as_f64());
    match delays.fold(0.0, f64::max) {
        delay if delay > 12.0 => 20,
        delay if delay > 8.0 => 10,
        delay if delay > 6.0 => 1,
        _ => 4,
    }
}

fn uplink() -> Vec<u8> {
    let head = "POST /api/uplink HTTP/1.1\r\nHost: localhost:7071\r\nContent-Length: 2\r\n";
    format!("{head}x-functions-key: {FUNCTION_KEY}\r\n\r\n{{}}").into_bytes()
}

struct Stage {
    app: AppFolder,
    namespace: Namespace,
    course: Course,
    host: FunctionsHost,
}

async fn stage(recording: &Recording) -> Stage {
    let function = recording.function.as_deref().unwrap_or("EvFixed");
    let cardinality = if function == "EvOneString" { "one" } else { "many" };
    let forever = json!({"strategy": "fixedDelay", "maxRetryCount": -1, "delayInterval": "00:00:03"});
    let retry = (function == "EvFixed").then_some(&forever);
    let (function, json) = hub_function(function, cardinality, "binary", "telemetry", retry);
    let mut functions = http_functions().to_vec();
    functions.push((&function, json));
    let app = AppFolder::new(recorded_host_json("00:10:00"), &functions);
    let namespace = Namespace::new(&[("telemetry", 1)]);
    let mut options = recorded_options(&app, &namespace, Pace::times(factor(recording)));
    let course = Course::prepare(&app, &mut options, &recording.answers, factor(recording), 0);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await);
    Stage { app, namespace, course, host }
}

/// SIGTERM while an HTTP call runs, or none.
async fn with_http(recording: &Recording) {
    let name = &recording.recording;
    let Stage { app: _app, course, host, .. } = stage(recording).await;
    let pid = host.handler_pid().expect("it runs");
    let caller = async {
        recording.caller.as_ref()?;
        Some(exchange(host.addr(), &uplink()).await)
    };
    let stop = async {
        if recording.caller.is_some() {
            course.until("POST /api/uplink").await;
        }
        let new_caller = async {
            recording.new_caller.as_ref()?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some(tokio::net::TcpStream::connect(host.addr()).await.is_err())
        };
        tokio::join!(host.shutdown(), new_caller).1
    };
    let (got, refused) = tokio::join!(caller, stop);
    if let Some(got) = got {
        let got = Got::read(&got);
        let code = got.as_ref().map_or("reset".into(), |got| Value::from(got.code()));
        assert_eq!(Some(code), recording.caller, "{name}");
        let closes = got.is_some_and(|got| got.headers.iter().any(|header| header == "Connection: close"));
        assert_eq!(closes, recording.caller_connection_close, "{name}");
    }
    assert_eq!(refused, recording.new_caller.as_ref().map(|how| how == "refused"), "{name}");
    assert_eq!(course.so_far(), told(&recording.timeline), "{name}");
    assert!(!is_alive(pid), "{name}: the handler is killed");
}

/// SIGTERM while a batch runs.
async fn with_a_batch(recording: &Recording) {
    let name = &recording.recording;
    let Stage { app: _app, namespace, course, host } = stage(recording).await;
    let pid = host.handler_pid().expect("it runs");
    namespace.hub("telemetry").expect("it was just made").append(Event { body: "{}".into(), ..Event::default() });
    course.until("POST ").await;
    host.shutdown().await;
    // Its result is taken, if it comes in time, but no checkpoint is written: the batch comes again.
    course.expect(&told(&recording.timeline), name).await;
    assert_eq!(host.counters().checkpoints, 0, "{name}");
    assert_eq!(host.lag("telemetry", "forwarder"), 1, "{name}");
    assert!(!is_alive(pid), "{name}: in a container the handler ends with the host");
}

async fn admin(host: &FunctionsHost, line: &str) -> Got {
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nx-functions-key: {MASTER_KEY}\r\n\r\n");
    Got::read(&exchange(host.addr(), request.as_bytes()).await).expect("there is an answer")
}

/// `POST /admin/host/drain` while a batch runs.
async fn with_a_drain(recording: &Recording, code: u16) {
    let Stage { app: _app, namespace, course, host } = stage(recording).await;
    let hub = namespace.hub("telemetry").expect("it was just made");
    hub.append(Event { body: "{}".into(), ..Event::default() });
    course.until("POST ").await;
    assert_eq!(admin(&host, "POST /admin/host/drain").await.code(), code);
    let mut states = Vec::new();
    let mut recorded = recording.states.clone();
    recorded.dedup();
    let drained = async {
        while states.len() < recorded.len() {
            let state: Value =
                serde_json::from_slice(&admin(&host, "GET /admin/host/drain/status").await.body).expect("JSON");
            if states.last() != Some(&state) {
                states.push(state);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, drained).await.is_ok();
    assert_eq!((states, in_time), (recorded, true));
    hub.append(Event { body: "{}".into(), ..Event::default() });
    let got = Got::read(&exchange(host.addr(), &uplink()).await).expect("there is an answer");
    assert_eq!(got.code(), recording.http_call_after_drain);
    course.expect(&told(&recording.timeline), &recording.recording).await;
    assert_eq!(host.lag("telemetry", "forwarder"), 1, "nothing new is taken on");
}

#[tokio::test]
pub(super) async fn every_recorded_stop_ends_the_same_way() {
    let recordings = fixtures::<Recording>("stops", |_| true);
    assert!(recordings.len() >= 9, "there are {}", recordings.len());
    let play = async |recording: Recording| match (&recording.function, recording.drain) {
        (_, Some(code)) => with_a_drain(&recording, code).await,
        (Some(_), None) => with_a_batch(&recording).await,
        (None, None) => with_http(&recording).await,
    };
    futures::stream::iter(recordings).for_each_concurrent(4, play).await;
}
