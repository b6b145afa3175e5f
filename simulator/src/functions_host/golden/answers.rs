//! Answers to envelopes, and what the host makes of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde::Deserialize;

use super::envelopes::hub_function;
use super::http_calls::{recorded_host_json, recorded_options};
use super::scripted::{Answer, Scripted};
use super::{blank, fixtures};
use crate::event_hubs::{Event, Namespace};
use crate::functions_host::tests::{AppFolder, PATIENCE};
use crate::functions_host::{FunctionsHost, Pace};

const PACE: Pace = Pace::times(5);
/// Of the recorded app, and what the host adds.
const TIMEOUT: Duration = Duration::from_secs(22);

#[derive(Deserialize)]
struct Recording {
    recording: String,
    requests: Vec<Request>,
    verdict: String,
}

#[derive(Deserialize)]
struct Request {
    head: String,
    answer: Answer,
}

async fn play(recording: Recording) {
    let name = &recording.recording;
    let (function, json) = hub_function("EvManyBinary", "many", "binary", "telemetry", None);
    let app = AppFolder::new(recorded_host_json("00:00:20"), &[(&function, json)]);
    let answers = Mutex::new(recording.requests.iter().map(|request| request.answer.clone()).rev().collect::<Vec<_>>());
    let next = move |_: &_| answers.lock().expect("no test panics here").pop().unwrap_or_else(Answer::ok);
    let (handler, port) = Scripted::start(PACE, next).await;
    let namespace = Namespace::new(&[("telemetry", 1)]);
    let hub = namespace.hub("telemetry").expect("it was just made");
    hub.append(Event { body: r#"{"t":21.5}"#.into(), ..Event::default() });
    let lines = Arc::new(Mutex::new(Vec::new()));
    let mut options = recorded_options(&app, &namespace, PACE);
    options.external_port = Some(port);
    let kept = Arc::clone(&lines);
    options.log = Box::new(move |line| kept.lock().expect("no test panics here").push(line.to_owned()));
    let begin = Instant::now();
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_idle(PATIENCE).await, "{name}");
    let counters = host.counters();
    let timed_out = {
        let lines = lines.lock().expect("no test panics here");
        lines.iter().any(|line| line.contains("A function timeout has occurred"))
    };
    let verdict = match (counters.events_delivered, timed_out) {
        (1, false) => "success",
        (0, false) => "failed",
        (0, true) => "hangs",
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(verdict, recording.verdict, "{name}");
    assert!(verdict != "hangs" || begin.elapsed() >= PACE.of(TIMEOUT), "{name}");
    // There is no retry policy: the batch is given up.
    assert_eq!(counters.checkpoints, 1, "{name}");
    let heads: Vec<_> = handler.calls().iter().map(|call| blank(&call.head)).collect();
    let recorded: Vec<_> = recording.requests.iter().map(|request| blank(&request.head)).collect();
    assert_eq!(heads, recorded, "{name}");
}

#[tokio::test]
pub(super) async fn every_recorded_answer_is_judged_as_the_host_did() {
    let recordings = fixtures::<Recording>("answers", |_| true);
    assert!(recordings.len() >= 37, "there are {}", recordings.len());
    // Few at once, because a late answer must come well before the timeout.
    futures::stream::iter(recordings).for_each_concurrent(4, play).await;
}
