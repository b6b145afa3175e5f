//! `functionTimeout`: the handler is killed, and with it whatever else it was doing.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::course::{Answers, Course, told};
use super::envelopes::hub_function;
use super::fixtures;
use super::http_calls::{FUNCTION_KEY, Got, exchange, http_functions, recorded_host_json, recorded_options};
use crate::event_hubs::{Event, Namespace};
use crate::functions_host::tests::{AppFolder, PATIENCE, is_alive};
use crate::functions_host::{FunctionsHost, Pace};

#[derive(Deserialize)]
struct Recording {
    recording: String,
    timeline: Vec<String>,
    answers: Answers,
    function_timeout: String,
    took_s: f64,
    /// Of an HTTP call.
    caller: Option<u16>,
    #[serde(default)]
    neighbour_failed: bool,
}

async fn play(recording: Recording) {
    // The neighbour's answer would come five seconds after the timeout.
    let factor = if recording.caller.is_some() { 10 } else { 4 };
    let pace = Pace::times(factor);
    let name = &recording.recording;
    let (one, one_json) = hub_function("EvManyBinary", "many", "binary", "one", None);
    let (other, other_json) = hub_function("EvManyString", "many", "string", "other", None);
    let mut functions = http_functions().to_vec();
    functions.extend([(one.as_str(), one_json), (other.as_str(), other_json)]);
    let app = AppFolder::new(recorded_host_json(&recording.function_timeout), &functions);
    let namespace = Namespace::new(&[("one", 1), ("other", 1)]);
    let mut options = recorded_options(&app, &namespace, pace);
    let course = Course::prepare(&app, &mut options, &recording.answers, factor, 0);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await);
    let pid = host.handler_pid().expect("it runs");
    let begin = Instant::now();
    if let Some(code) = recording.caller {
        let head = "POST /api/uplink HTTP/1.1\r\nHost: localhost:7071\r\nContent-Length: 2\r\n";
        let request = format!("{head}x-functions-key: {FUNCTION_KEY}\r\n\r\n{{}}");
        let got = Got::read(&exchange(host.addr(), request.as_bytes()).await).expect("there is an answer");
        assert_eq!(got.code(), code, "{name}");
    } else {
        let append = |hub: &str| namespace.hub(hub).expect("it was just made").append(Event::default());
        append("one");
        course.until("POST /EvManyBinary").await;
        // Twelve seconds later, as recorded: its answer would come after the other's timeout.
        tokio::time::sleep(pace.of(Duration::from_secs(12))).await;
        append("other");
        assert!(host.wait_idle(PATIENCE).await, "{name}");
        assert_eq!(host.counters().events_delivered == 0, recording.neighbour_failed, "{name}");
    }
    // The recorded time is the limit and two seconds more.
    assert!(begin.elapsed() >= pace.of(Duration::from_secs_f64(recording.took_s.floor())), "{name}");
    course.expect(&told(&recording.timeline), name).await;
    assert!(!is_alive(pid) && host.counters().restarts == 1, "{name}");
}

#[tokio::test]
pub(super) async fn a_recorded_timeout_kills_the_handler_and_its_neighbours() {
    let recordings = fixtures::<Recording>("timeouts", |_| true);
    assert_eq!(recordings.len(), 2);
    futures::future::join_all(recordings.into_iter().map(play)).await;
}
