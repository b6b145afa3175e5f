//! Handlers that end by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;
use serde_json::Value;

use super::course::{Answers, Course, stopped, told};
use super::fixtures;
use super::http_calls::{FUNCTION_KEY, Got, exchange, http_functions, recorded_host_json, recorded_options};
use crate::event_hubs::Namespace;
use crate::functions_host::tests::{AppFolder, PATIENCE};
use crate::functions_host::{FunctionsHost, Pace};

const FACTOR: u32 = 4;

#[derive(Deserialize)]
struct Recording {
    recording: String,
    answers: Answers,
    #[serde(default)]
    timeline: Vec<String>,
    /// Status codes.
    #[serde(default)]
    callers: BTreeMap<String, u16>,
    /// Of a handler that ends at every start.
    exit_code: Option<i32>,
    #[serde(default)]
    host_stops: bool,
}

/// The path whose answer fits, from the recorded script.
fn path(answers: &Answers, fits: impl Fn(&str, &Value) -> bool) -> Option<String> {
    answers.iter().find_map(|(path, answers)| answers.iter().any(|answer| fits(path, answer)).then(|| path.clone()))
}

async fn call(host: &FunctionsHost, path: &str) -> Option<u16> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost:7071\r\nx-functions-key: {FUNCTION_KEY}\r\n");
    let got = exchange(host.addr(), format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes()).await;
    Got::read(&got).map(|got| got.code())
}

/// The handler ends in a call: its neighbours fail with it, later calls reach the next process.
async fn in_a_call(recording: &Recording) {
    let name = &recording.recording;
    let app = AppFolder::new(recorded_host_json("00:01:00"), &http_functions());
    let mut options = recorded_options(&app, &Namespace::new(&[]), Pace::times(FACTOR));
    let course = Course::prepare(&app, &mut options, &recording.answers, FACTOR, 0);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await);
    let port_owner = host.handler_pid();
    let dies = |answer: &Value| answer.get("exit").is_some() || answer.get("killself").is_some();
    let killer = path(&recording.answers, |_, answer| dies(answer)).expect("one ends");
    let other = path(&recording.answers, |_, answer| !dies(answer) && answer.get("delay").is_some());
    let posts: Vec<_> =
        recording.timeline.iter().filter_map(|line| line.strip_prefix("POST ")?.split(' ').next()).collect();
    let later: Vec<_> = posts.iter().filter(|path| **path != killer && Some(**path) != other.as_deref()).collect();
    let place = |wanted: &str| recording.timeline.iter().position(|line| line.contains(wanted));
    let ends = recording.timeline.iter().position(|line| line == "killed" || line.starts_with("exit"));
    let comes_before_the_end = later.first().and_then(|path| place(&format!("POST {path} "))) < ends;

    let first = async {
        let Some(other) = &other else { return None };
        call(&host, other).await
    };
    let second = async {
        if let Some(other) = &other {
            course.until(&format!("POST {other} ")).await;
        }
        call(&host, &killer).await
    };
    let third = async {
        if comes_before_the_end {
            course.until(&format!("POST {killer} ")).await;
        }
        while !comes_before_the_end && host.counters().restarts == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut codes = Vec::new();
        for path in later {
            codes.push(call(&host, path).await);
        }
        codes
    };
    let (other_code, killer_code, later) = tokio::join!(first, second, third);
    let recorded = |wanted: &str| {
        let mut callers = recording.callers.iter();
        callers.find_map(|(key, code)| key.contains(wanted).then_some(*code))
    };
    assert_eq!((killer_code, other_code), (recorded("killer"), recorded("other")), "{name}");
    let recorded: Vec<_> = [recorded("right_after"), recorded("later")].into_iter().filter(Option::is_some).collect();
    assert_eq!(later, recorded, "{name}");
    course.expect(&told(&recording.timeline), name).await;
    assert_ne!(host.handler_pid(), port_owner, "{name}");
    assert_eq!(host.counters().restarts, 1, "{name}");
}

/// The handler ends at every start.
async fn at_every_start(recording: &Recording, code: i32) {
    let name = &recording.recording;
    let app = AppFolder::new(recorded_host_json("00:01:00"), &http_functions());
    let script = app.script(&format!("#!/bin/sh\nexit {code}\n"));
    let mut options = recorded_options(&app, &Namespace::new(&[]), Pace::times(FACTOR));
    options.executable = Some(script);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    if recording.host_stops {
        assert!(stopped(&host).await, "{name}");
        assert_eq!(host.counters().restarts, 2, "{name}: the third error stops the host");
        return;
    }
    let restarts = async {
        while host.counters().restarts < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, restarts).await.is_ok(), "{name}");
    assert!(!host.is_stopped(), "{name}: it goes on for ever");
}

#[tokio::test]
pub(super) async fn every_recorded_exit_has_the_same_consequence() {
    let recordings = fixtures::<Recording>("exits", |_| true);
    assert!(recordings.len() >= 7, "there are {}", recordings.len());
    let play = async |recording: Recording| match recording.exit_code {
        Some(code) => at_every_start(&recording, code).await,
        None => in_a_call(&recording).await,
    };
    join_all(recordings.into_iter().map(play)).await;
}
