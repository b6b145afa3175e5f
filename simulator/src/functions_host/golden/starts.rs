//! Starts: the process, the first request, readiness.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpSocket;

use super::course::{Answers, Course, stopped};
use super::fixtures;
use super::http_calls::{
    FUNCTION_KEY, Got, MASTER_KEY, exchange, http_functions, recorded_host_json, recorded_options,
};
use super::scripted::{Answer, Scripted};
use crate::event_hubs::Namespace;
use crate::functions_host::tests::AppFolder;
use crate::functions_host::{FunctionsHost, Pace};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Recording {
    recording: String,
    pings: Vec<Ping>,
    argv: Option<Vec<String>>,
    env: Vec<String>,
    stdin: String,
    port_opens_after_s: Option<u32>,
    starts: usize,
    host_stops: bool,
    caller: Option<u16>,
    /// Of an idle handler.
    requests: Option<Vec<String>>,
    requests_during_admin: Vec<String>,
}

#[derive(Deserialize)]
struct Ping {
    head: String,
    answer: Answer,
}

/// A call of the function that all recorded starts have.
fn call() -> Vec<u8> {
    let head = "POST /api/uplink HTTP/1.1\r\nHost: localhost:7071\r\nContent-Length: 2\r\n";
    format!("{head}x-functions-key: {FUNCTION_KEY}\r\n\r\n{{}}").into_bytes()
}

/// The first requests are answered as recorded, and all of them came.
async fn first_requests(recording: &Recording) {
    let name = &recording.recording;
    let pace = Pace::times(20);
    let app = AppFolder::new(recorded_host_json("00:10:00"), &http_functions());
    let answers: Vec<_> = recording.pings.iter().map(|ping| ping.answer.clone()).rev().collect();
    let answers = Mutex::new(answers);
    let script = move |_: &_| answers.lock().expect("no test panics here").pop().unwrap_or_else(Answer::ok);
    let handler = Scripted::new(Box::new(script), pace, Box::new(|_| {}));
    // Bound, the port is ours; it refuses connections until it listens.
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
    let port = socket.local_addr().expect("it is bound").port();
    let late = Duration::from_secs(recording.port_opens_after_s.unwrap_or(0).into());
    let mut options = recorded_options(&app, &Namespace::new(&[]), pace);
    options.external_port = Some(port);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    let serve = async {
        tokio::time::sleep(pace.of(late)).await;
        let listener = socket.listen(64).expect("it can listen");
        handler.clone().serve(listener).await;
    };
    let request = call();
    let got = tokio::select! {
        got = exchange(host.addr(), &request) => got,
        () = serve => panic!("it serves for ever"),
    };
    assert_eq!(Got::read(&got).map(|got| got.code()), recording.caller, "{name}");
    let seen = handler.seen.lock().expect("no test panics here");
    let (calls, pings): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.line().starts_with("POST "));
    let pings: Vec<_> = pings.iter().map(|seen| super::blank(&seen.head)).collect();
    let recorded: Vec<_> = recording.pings.iter().map(|ping| super::blank(&ping.head)).collect();
    assert_eq!((pings, calls.len()), (recorded, 1), "{name}");
}

/// What the process was started with.
async fn process(recording: &Recording, argv: &[String]) {
    let arguments = ["--one", "two words", "\"quoted arg\""];
    let mut host_json = recorded_host_json("00:10:00");
    host_json["customHandler"]["description"]["arguments"] = json!(arguments);
    let app = AppFolder::new(host_json, &http_functions());
    let mut options = recorded_options(&app, &Namespace::new(&[]), Pace::REAL);
    let course = Course::prepare(&app, &mut options, &Answers::new(), 1, 0);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    let got = exchange(host.addr(), &call()).await;
    assert_eq!(Got::read(&got).map(|got| got.code()), recording.caller);
    assert_eq!(course.noted("argv"), argv);
    assert_eq!(course.noted("cwd"), [app.0.canonicalize().expect("it is there").display().to_string()]);
    assert_eq!(course.noted("stdin").join("\n"), recording.stdin);
    let variables = course.noted("env");
    let value = |name: &str| {
        let value = variables.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} is not set")).to_owned()
    };
    let values: Vec<_> = recording.env.iter().map(|name| value(name)).collect();
    assert!(values.iter().all(|value| !value.is_empty()) && values.len() == 5);
    assert_eq!(value("FUNCTIONS_CUSTOMHANDLER_PORT"), value("FUNCTIONS_HTTPWORKER_PORT"));
    assert_eq!(value("FUNCTIONS_CUSTOMHANDLER_WORKER_ID"), value("FUNCTIONS_HTTPWORKER_ID"));
}

/// The port opens after `initializationTimeout`, every time.
async fn too_late(recording: &Recording, seconds: u32) {
    const FACTOR: u32 = 40;
    let mut host_json = recorded_host_json("00:01:00");
    // The real host counts its pauses, not the time: its 30 s were recorded to last 33.7 s.
    host_json["customHandler"]["initializationTimeout"] = json!("00:00:33.7");
    let app = AppFolder::new(host_json, &http_functions());
    let mut options = recorded_options(&app, &Namespace::new(&[]), Pace::times(FACTOR));
    // A factor of 1: later still, so that a slow machine changes nothing.
    let _course = Course::prepare(&app, &mut options, &Answers::new(), 1, seconds);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    let request = call();
    let (got, stops) = tokio::join!(exchange(host.addr(), &request), stopped(&host));
    assert!(stops);
    // 500 by `functionTimeout`, which restarts the handler once more.
    assert_eq!(Got::read(&got).map(|got| got.code()), recording.caller);
    assert_eq!(host.counters().restarts + 1, recording.starts as u64);
}

/// An idle handler is left in peace.
async fn idle(recording: &Recording, requests: &[String]) {
    let app = AppFolder::new(recorded_host_json("00:10:00"), &http_functions());
    let (handler, port) = Scripted::start(Pace::REAL, |_| Answer::ok()).await;
    let mut options = recorded_options(&app, &Namespace::new(&[]), Pace::REAL);
    options.external_port = Some(port);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await);
    for path in ["/admin/host/status", "/admin/host/ping"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nx-functions-key: {MASTER_KEY}\r\n\r\n");
        let got = Got::read(&exchange(host.addr(), request.as_bytes()).await).expect("there is an answer");
        assert_eq!(got.code(), 200);
    }
    let lines: Vec<_> =
        handler.seen.lock().expect("no test panics here").iter().map(|seen| seen.line().to_owned()).collect();
    let recorded = requests.iter().chain(&recording.requests_during_admin);
    let recorded: Vec<_> = recorded.map(|line| line.trim_end_matches(" HTTP/1.1").to_owned()).collect();
    assert_eq!(lines, recorded);
}

#[tokio::test]
pub(super) async fn every_recorded_start_is_made_again() {
    let recordings = fixtures::<Recording>("starts", |_| true);
    assert!(recordings.len() >= 10, "there are {}", recordings.len());
    let play = async |recording: Recording| match (&recording.argv, &recording.requests, recording.port_opens_after_s) {
        (Some(argv), ..) => process(&recording, argv).await,
        (None, Some(requests), _) => idle(&recording, requests).await,
        (None, None, Some(seconds)) if recording.host_stops => too_late(&recording, seconds).await,
        _ => first_requests(&recording).await,
    };
    futures::future::join_all(recordings.into_iter().map(play)).await;
}
