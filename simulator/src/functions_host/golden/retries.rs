//! Retries: the course of attempts, and the bodies of the first two.

use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;

use super::course::{Answers, Course, stopped, told};
use super::envelopes::{self, hub_function};
use super::fixtures;
use super::http_calls::{recorded_host_json, recorded_options};
use crate::event_hubs::{Event, Namespace};
use crate::functions_host::app::App;
use crate::functions_host::function::Trigger;
use crate::functions_host::tests::{AppFolder, PATIENCE};
use crate::functions_host::{FunctionsHost, Pace};

const FACTOR: u32 = 25;

#[derive(Deserialize)]
struct Recording {
    recording: String,
    function: String,
    retry: Value,
    function_timeout: String,
    events: usize,
    timeline: Vec<String>,
    answers: Answers,
    waits_s: Vec<f64>,
    checkpoint: bool,
    success: Vec<bool>,
    #[serde(default)]
    host_stops: bool,
    stop_after_last_request_s: Option<f64>,
}

async fn play(recording: Recording) {
    let name = &recording.recording;
    let cardinality = if recording.function == "EvOneRetry" { "one" } else { "many" };
    let (function, json) =
        hub_function(&recording.function, cardinality, "binary", "telemetry", Some(&recording.retry));
    let app = AppFolder::new(recorded_host_json(&recording.function_timeout), &[(&function, json)]);
    let namespace = Namespace::new(&[("telemetry", 1)]);
    let mut options = recorded_options(&app, &namespace, Pace::times(FACTOR));
    let course = Course::prepare(&app, &mut options, &recording.answers, FACTOR, 0);
    waits_are_those_of_the_policy(&recording, &App::read(&app.0, &options.settings).expect("the app is fine"));
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await);
    for number in 0..recording.events {
        let event = Event { body: format!("{{\"n\":{number}}}").into(), ..Event::default() };
        namespace.hub("telemetry").expect("it was just made").append(event);
    }
    course.expect(&told(&recording.timeline), name).await;
    if let Some(seconds) = recording.stop_after_last_request_s {
        tokio::time::sleep(Pace::times(FACTOR).of(Duration::from_secs_f64(seconds))).await;
        host.shutdown().await;
    }
    if recording.host_stops {
        assert!(stopped(&host).await, "{name}");
    } else if recording.stop_after_last_request_s.is_none() {
        assert!(host.wait_idle(PATIENCE).await, "{name}");
    }
    let counters = host.counters();
    assert_eq!(counters.checkpoints > 0, recording.checkpoint, "{name}");
    let succeeded = recording.success.iter().filter(|success| **success).count();
    let delivered = if cardinality == "one" { succeeded } else { succeeded * recording.events };
    assert_eq!(counters.events_delivered, delivered as u64, "{name}");
    assert_eq!(course.so_far(), told(&recording.timeline), "{name}: nothing more happens");
}

/// By value, because the course is played at another pace.
fn waits_are_those_of_the_policy(recording: &Recording, app: &App) {
    let Trigger::EventHub(trigger) = &app.functions[0].trigger else { panic!("it is a function of an Event Hub") };
    // The recorded waits begin with the end of an attempt; the third of single dispatch is the next event's.
    let waits = recording.waits_s.iter().take(if recording.events > 1 { 1 } else { usize::MAX });
    let posts = recording.timeline.iter().filter(|line| line.starts_with("POST")).count();
    for (retry, wait) in (1..).zip(waits.take(posts.saturating_sub(1))) {
        let delay = trigger.retry.delay(retry).expect("there was a retry").as_secs_f64();
        assert!((delay - wait).abs() < 0.5, "{}: retry {retry} after {delay} s, not {wait}", recording.recording);
    }
}

#[tokio::test]
pub(super) async fn every_recorded_retry_runs_the_same_course() {
    for attempt in fixtures::<envelopes::Attempt>("retries", |name| name.contains("-attempt-")) {
        attempt.is_made_again();
    }
    let recordings = fixtures::<Recording>("retries", |name| !name.contains("-attempt-"));
    assert!(recordings.len() >= 11, "there are {}", recordings.len());
    futures::stream::iter(recordings).for_each_concurrent(4, play).await;
}
