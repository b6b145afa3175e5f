//! Answers whose bodies take longer than their heads. By the platform's rules, not by recordings.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::http_calls::{FUNCTION_KEY, http_functions, recorded_host_json, recorded_options};
use super::scripted::{Answer, Scripted};
use crate::event_hubs::Namespace;
use crate::functions_host::tests::{AppFolder, PATIENCE};
use crate::functions_host::{FunctionsHost, Pace};

/// A host whose handler streams these parts, each with the seconds after it; and a caller who has the first part.
async fn streaming(
    function_timeout: &str,
    pace: Pace,
    parts: serde_json::Value,
) -> (AppFolder, FunctionsHost, TcpStream) {
    let app = AppFolder::new(recorded_host_json(function_timeout), &http_functions());
    let answer: Answer = serde_json::from_value(json!({"status": 200, "stream": parts})).expect("it is an answer");
    let (_, port) = Scripted::start(pace, move |_| answer.clone()).await;
    let mut options = recorded_options(&app, &Namespace::new(&[]), pace);
    options.external_port = Some(port);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await && host.is_ready());
    let mut caller = TcpStream::connect(host.addr()).await.expect("the host listens");
    let head = "POST /api/uplink HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n";
    let request = format!("{head}x-functions-key: {FUNCTION_KEY}\r\n\r\n");
    caller.write_all(request.as_bytes()).await.expect("the host reads");
    let mut got = Vec::new();
    let first = async {
        while !got.ends_with(b"first\r\n") {
            assert_ne!(caller.read_buf(&mut got).await.expect("the host answers"), 0);
        }
    };
    tokio::time::timeout(PATIENCE, first).await.expect("the first part is passed on before the second");
    (app, host, caller)
}

#[tokio::test]
async fn a_stopping_host_waits_for_the_end_of_an_answer_that_it_began() {
    let parts = json!([["first", 0.5], ["second", 0.5]]);
    let (_app, host, mut caller) = streaming("00:10:00", Pace::REAL, parts).await;
    let mut rest = Vec::new();
    let ((), read) = tokio::join!(host.shutdown(), caller.read_to_end(&mut rest));
    read.expect("the connection ends in order");
    assert_eq!(String::from_utf8_lossy(&rest), "6\r\nsecond\r\n0\r\n\r\n");
}

#[tokio::test]
async fn an_answer_that_stalls_ends_with_the_function_timeout() {
    let parts = json!([["first", 36_000], ["second", 0]]);
    let (_app, host, mut caller) = streaming("00:00:10", Pace::times(10), parts).await;
    assert!(!host.wait_idle(Duration::from_millis(50)).await, "the call is still running");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, caller.read_to_end(&mut rest)).await;
    // Closed or reset, but not ended as a whole answer.
    assert!(end.is_ok() && rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    assert!(host.wait_idle(PATIENCE).await);
}
