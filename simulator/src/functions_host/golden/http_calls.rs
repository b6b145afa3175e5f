//! HTTP calls: what the handler read, and what the caller got.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::scripted::{Answer, Scripted};
use super::{Bytes, blank, fixtures};
use crate::event_hubs::Namespace;
use crate::functions_host::tests::{AppFolder, PATIENCE};
use crate::functions_host::{FunctionsHost, HostOptions, Pace};

/// The keys of the recorded host.
pub(super) const FUNCTION_KEY: &str = "HOSTKEYdefault00000000000000000000000000000000AzFu";
pub(super) const MASTER_KEY: &str = "MASTERKEYmaster0000000000000000000000000000000000AzFu";
/// The end of a recording whose caller did not wait for the answer.
const GAVE_UP: &str = "caller gave up";
const PACE: Pace = Pace::times(10);

#[derive(Deserialize)]
struct Recording {
    recording: String,
    caller: Bytes,
    #[serde(default)]
    delivery: Delivery,
    deliveries: usize,
    #[serde(default)]
    answer: Answer,
    empty_connections: usize,
    got: Bytes,
    end: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delivery {
    head: Bytes,
    body: Option<Bytes>,
}

/// The HTTP functions of the recorded app.
pub(super) fn http_functions() -> [(&'static str, Value); 3] {
    let function = |route: &str, methods: &[&str], level: &str| {
        let trigger = json!({
            "type": "httpTrigger", "direction": "in", "name": "req", "methods": methods, "route": route,
            "authLevel": level
        });
        json!({"bindings": [trigger, {"type": "http", "direction": "out", "name": "res"}]})
    };
    [
        ("UplinkIngress", function("uplink", &["post"], "function")),
        ("UplinkIngressEvent", function("uplink/{event}", &["get", "post", "put"], "function")),
        ("Ret", function("ret", &["post"], "anonymous")),
    ]
}

/// Options with the recorded keys.
pub(super) fn recorded_options(app: &AppFolder, namespace: &Namespace, pace: Pace) -> HostOptions {
    let mut options = HostOptions::new(&app.0, namespace.clone());
    options.function_key = FUNCTION_KEY.to_owned();
    options.master_key = MASTER_KEY.to_owned();
    options.pace = pace;
    options.settings.insert("StackEvents__credential".to_owned(), "managedidentity".to_owned());
    options.fully_qualified_namespace = "ehns-demo.servicebus.windows.net".to_owned();
    options
}

pub(super) fn recorded_host_json(function_timeout: &str) -> Value {
    json!({
        "version": "2.0",
        "functionTimeout": function_timeout,
        "customHandler": {
            "description": {"defaultExecutablePath": "bin/handler"},
            "enableProxyingHttpRequest": true,
            // Long, because a test may be slow at a fast pace.
            "initializationTimeout": "00:10:00"
        }
    })
}

/// Sends bytes and reads until the answer is complete or the connection ends.
pub(super) async fn exchange(addr: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(addr).await.expect("the host listens");
    let (mut read, mut write) = socket.split();
    let send = async {
        // An answer may come before the whole request is sent.
        let _: std::io::Result<()> = write.write_all(request).await;
        std::future::pending::<()>().await;
    };
    let receive = async {
        let mut got = Vec::new();
        while let Ok(1..) = read.read_buf(&mut got).await {
            // The host asks for the body that is on its way anyway.
            if let Some(rest) = got.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n") {
                got = rest.to_vec();
            }
            if Got::read(&got).is_some_and(|got| got.is_complete) {
                break;
            }
        }
        got
    };
    tokio::select! {
        got = receive => got,
        () = send => Vec::new(),
    }
}

/// An answer, read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Got {
    /// Code and reason.
    pub(super) status: String,
    /// `Date` is blank if Kestrel made it.
    pub(super) headers: Vec<String>,
    pub(super) body: Vec<u8>,
    pub(super) is_complete: bool,
}

impl Got {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head: String = bytes[..end].iter().copied().map(char::from).collect();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split_once(' ')?.1.to_owned();
        let headers: Vec<_> =
            lines.map(|line| if is_kestrels_date(line) { "Date".to_owned() } else { line.to_owned() }).collect();
        let value = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name));
        let rest = &bytes[end + 4..];
        let (body, is_complete) = match (value("Content-Length: "), value("Transfer-Encoding: ")) {
            (Some(length), _) => (rest.to_vec(), rest.len() == length.parse::<usize>().ok()?),
            (None, Some(_)) => unchunked(rest),
            (None, None) => (rest.to_vec(), true),
        };
        Some(Self { status, headers, body, is_complete })
    }

    pub(super) fn code(&self) -> u16 {
        self.status[..3].parse().expect("it is a code")
    }
}

fn is_kestrels_date(line: &str) -> bool {
    line.starts_with("Date: ") && !line.contains("01 Jan 2026")
}

fn unchunked(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(&String::from_utf8_lossy(&bytes[..end]), 16).expect("it is a size");
        let rest = &bytes[end + 2..];
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = rest.get(..size + 2) else { break };
        body.extend_from_slice(&chunk[..size]);
        bytes = &rest[size + 2..];
    }
    (body, false)
}

/// Long before the answer, but not before the handler has the call.
async fn gives_up(recording: &Recording, handler: &Scripted) {
    if recording.end != GAVE_UP {
        std::future::pending::<()>().await;
    }
    while handler.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn play(recording: Recording) {
    let name = &recording.recording;
    let app = AppFolder::new(recorded_host_json("01:00:00"), &http_functions());
    let answer = recording.answer.clone();
    let (handler, port) = Scripted::start(PACE, move |_| answer.clone()).await;
    let mut options = recorded_options(&app, &Namespace::new(&[]), PACE);
    options.external_port = Some(port);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await);

    let request = recording.caller.bytes();
    let exchange = tokio::time::timeout(PATIENCE, exchange(host.addr(), &request));
    let got = tokio::select! {
        biased;
        () = gives_up(&recording, &handler) => None,
        got = exchange => Some(got.unwrap_or_else(|_| panic!("{name}: no answer"))),
    };
    let recorded = recording.got.bytes();
    assert_eq!(got.is_none(), recording.end == GAVE_UP, "{name}");
    if let Some(got) = got {
        let (got, recorded) = (Got::read(&got), Got::read(&recorded));
        assert_eq!(got, recorded, "{name}");
        assert_eq!(got.is_some_and(|got| got.is_complete), recording.end == "complete", "{name}");
    }
    let calls = handler.calls();
    assert_eq!(calls.len(), recording.deliveries, "{name}");
    for call in calls {
        assert_eq!(blank(&call.head), blank(&recording.delivery.head.text()), "{name}");
        if let Some(body) = &recording.delivery.body {
            assert!(call.body == body.bytes(), "{name}: the body differs");
        }
        assert_eq!(call.header("X-Azure-Functions-InvocationId"), call.header("x-ms-invocation-id"), "{name}");
    }
    let empty = || handler.empty.load(Ordering::Acquire);
    let all_came = tokio::time::timeout(PATIENCE, async {
        while empty() < recording.empty_connections {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(all_came.await.is_ok(), "{name}: {} of {} empty connections", empty(), recording.empty_connections);
    assert_eq!(empty(), recording.empty_connections, "{name}");
}

// Several threads, because bodies of 20 MB keep one busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn every_recorded_http_call_is_made_again() {
    let recordings = fixtures::<Recording>("proxy", |_| true);
    assert!(recordings.len() >= 90, "there are {}", recordings.len());
    futures::stream::iter(recordings).for_each_concurrent(16, play).await;
}

/// A host in front of a handler whose script counts the heads that came.
async fn counting(answer: Answer) -> (AppFolder, FunctionsHost, Arc<Scripted>, Arc<AtomicUsize>) {
    let app = AppFolder::new(recorded_host_json("01:00:00"), &http_functions());
    let heads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&heads);
    let script = move |_: &_| {
        counted.fetch_add(1, Ordering::AcqRel);
        answer.clone()
    };
    let (handler, port) = Scripted::start(Pace::REAL, script).await;
    let mut options = recorded_options(&app, &Namespace::new(&[]), Pace::REAL);
    options.external_port = Some(port);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_ready().await);
    (app, host, handler, heads)
}

fn head(framing: &str) -> String {
    format!("POST /api/uplink HTTP/1.1\r\nHost: h\r\nx-functions-key: {FUNCTION_KEY}\r\n{framing}\r\n\r\n")
}

#[tokio::test]
async fn twenty_calls_are_passed_on_at_once() {
    let (_app, host, _handler, heads) = counting(Answer::ok().after(1.0)).await;
    let request = head("Content-Length: 0").into_bytes();
    let mut calls: futures::stream::FuturesUnordered<_> = (0..20).map(|_| exchange(host.addr(), &request)).collect();
    let first = calls.next().await.expect("there are twenty");
    assert_eq!(Got::read(&first).map(|got| got.code()), Some(200));
    assert_eq!(heads.load(Ordering::Acquire), 20, "the handler had all of them before its first answer");
}

#[tokio::test]
async fn a_body_with_a_length_is_read_whole_and_a_chunked_one_is_passed_on_as_it_comes() {
    let (_app, host, handler, heads) = counting(Answer::ok()).await;
    for (framing, begin, end, comes_early) in [
        ("Content-Length: 4", "ab", "cd", false),
        ("Transfer-Encoding: chunked", "2\r\nab\r\n", "2\r\ncd\r\n0\r\n\r\n", true),
    ] {
        let before = heads.load(Ordering::Acquire);
        let mut socket = TcpStream::connect(host.addr()).await.expect("the host listens");
        socket.write_all(format!("{}{begin}", head(framing)).as_bytes()).await.expect("the host reads");
        let came = async {
            while heads.load(Ordering::Acquire) == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let patience = if comes_early { PATIENCE } else { Duration::from_millis(200) };
        assert_eq!(tokio::time::timeout(patience, came).await.is_ok(), comes_early, "{framing}");
        socket.write_all(end.as_bytes()).await.expect("the host reads");
        let mut got = [0; 12];
        socket.read_exact(&mut got).await.expect("the host answers");
        assert_eq!(&got, b"HTTP/1.1 200");
        assert_eq!(handler.calls().pop().expect("it came").body, b"abcd");
    }
}
