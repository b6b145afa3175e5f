//! A handler that does what the recorded one was told to do, over raw sockets.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::functions_host::Pace;

/// What to do with one request, in the words of the recordings. Times are seconds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    status: u16,
    reason: Option<String>,
    headers: serde_json::Map<String, Value>,
    body: Option<String>,
    body_b64: Option<String>,
    delay: f64,
    raw_b64: Option<String>,
    then_close: bool,
    stream: Vec<(String, f64)>,
    /// `true` or 1.
    close: Value,
    linger: f64,
    rst: bool,
    noanswer: bool,
    exit: Option<i32>,
    killself: bool,
    /// It is sent before the body is read.
    early: bool,
}

impl Answer {
    /// Ready, or success of an envelope.
    pub(super) fn ok() -> Self {
        let headers = [("Content-Type".to_owned(), "application/json".into())].into_iter().collect();
        Self { status: 200, headers, body: Some("{}".to_owned()), ..Self::default() }
    }

    /// The same, so many seconds later.
    pub(super) fn after(self, delay: f64) -> Self {
        Self { delay, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw_b64 {
            return STANDARD.decode(raw).expect("it is base64");
        }
        let body = match (&self.body, &self.body_b64) {
            (_, Some(base64)) => STANDARD.decode(base64).expect("it is base64"),
            (Some(text), None) => text.clone().into_bytes(),
            (None, None) if self.early => b"too big\n".to_vec(),
            (None, None) => Vec::new(),
        };
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason.as_deref().unwrap_or("X"));
        if self.early {
            head.push_str("Content-Type: text/plain\r\n");
        }
        for (name, value) in &self.headers {
            let one = [value.clone()];
            for value in value.as_array().map_or(&one[..], Vec::as_slice) {
                head.push_str(&format!("{name}: {}\r\n", value.as_str().expect("values are text")));
            }
        }
        let has = |name: &str| self.headers.keys().any(|known| known.eq_ignore_ascii_case(name));
        let body = if has("Transfer-Encoding") {
            let chunks =
                body.chunks(5).map(|part| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
            chunks.chain([b"0\r\n\r\n".to_vec()]).collect::<Vec<_>>().concat()
        } else {
            if !has("Content-Length") && self.status != 204 {
                head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            body
        };
        if self.closes() && !has("Connection") {
            head.push_str("Connection: close\r\n");
        }
        // The recorded handler wrote its heads in Latin-1.
        let head: Vec<u8> = head.chars().map(|c| u8::try_from(u32::from(c)).expect("heads are Latin-1")).collect();
        [&head[..], b"\r\n", &body].concat()
    }

    fn closes(&self) -> bool {
        self.close == Value::Bool(true) || self.close == 1
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find_map(|(known, value)| (known == name).then_some(value))
    }
}

/// Decides what to do, by the request.
pub(super) type Script = Box<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// The handler.
pub(super) struct Scripted {
    script: Script,
    pace: Pace,
    pub(super) seen: Mutex<Vec<Seen>>,
    /// Connections that ended without a request.
    pub(super) empty: AtomicUsize,
    /// Tells what it is about to do.
    pub(super) tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl Scripted {
    pub(super) fn new(script: Script, pace: Pace, tell: Box<dyn Fn(&str) + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { script, pace, seen: Mutex::default(), empty: AtomicUsize::new(0), tell })
    }

    /// Answers the first request of the host with 200, and all others with this.
    pub(super) async fn start(
        pace: Pace,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> (Arc<Self>, u16) {
        let script = move |seen: &Seen| if seen.line() == "GET /" { Answer::ok() } else { answer(seen) };
        let scripted = Self::new(Box::new(script), pace, Box::new(|_| {}));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        tokio::spawn(Arc::clone(&scripted).serve(listener));
        (scripted, port)
    }

    /// The requests that came, the first ones of the host left out.
    pub(super) fn calls(&self) -> Vec<Seen> {
        let seen = self.seen.lock().expect("no test panics here");
        seen.iter().filter(|seen| seen.line() != "GET /").cloned().collect()
    }

    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (socket, _) = listener.accept().await.expect("it can accept");
            tokio::spawn(Arc::clone(&self).connection(socket));
        }
    }

    async fn connection(self: Arc<Self>, mut socket: TcpStream) {
        let mut unread = Vec::new();
        let mut requests = 0;
        while let Some(head) = read_head(&mut socket, &mut unread).await {
            requests += 1;
            let mut seen = Seen { head, body: Vec::new() };
            let answer = (self.script)(&seen);
            if answer.early {
                self.seen.lock().expect("no test panics here").push(seen.clone());
                self.send(&mut socket, &answer).await;
                if answer.linger > 0.0 || !answer.closes() {
                    // The rest of the body is taken, if late.
                    let _: Option<Vec<u8>> = read_body(&mut socket, &mut unread, &seen).await;
                }
                if answer.closes() {
                    return;
                }
                continue;
            }
            let Some(body) = read_body(&mut socket, &mut unread, &seen).await else { return };
            seen.body = body;
            (self.tell)(&told(&seen));
            self.seen.lock().expect("no test panics here").push(seen);
            if !self.act(&mut socket, &answer).await {
                return;
            }
        }
        if requests == 0 {
            self.empty.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// `false`: the connection ends.
    async fn act(&self, socket: &mut TcpStream, answer: &Answer) -> bool {
        self.pause(answer.delay).await;
        if let Some(code) = answer.exit {
            (self.tell)(&format!("exit {code}"));
            std::process::exit(code);
        }
        if answer.killself {
            let pid = std::process::id().to_string();
            std::process::Command::new("kill").args(["-9", &pid]).status().expect("there is kill");
        }
        if answer.noanswer || answer.killself {
            std::future::pending::<()>().await;
        }
        if answer.rst {
            socket.set_zero_linger().expect("the option can be set");
            return false;
        }
        if answer.status == 0 && answer.closes() {
            return false;
        }
        (self.tell)("answer");
        self.send(socket, answer).await;
        !answer.then_close && !answer.closes()
    }

    async fn send(&self, socket: &mut TcpStream, answer: &Answer) {
        // The host may be gone, which is what some recordings show.
        if answer.stream.is_empty() {
            let _: std::io::Result<()> = socket.write_all(&answer.bytes()).await;
            return;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _: std::io::Result<()> = socket.write_all(head.as_bytes()).await;
        for (part, pause) in &answer.stream {
            let chunk = format!("{:x}\r\n{part}\r\n", part.len());
            let _: std::io::Result<()> = socket.write_all(chunk.as_bytes()).await;
            self.pause(*pause).await;
        }
        let _: std::io::Result<()> = socket.write_all(b"0\r\n\r\n").await;
    }

    async fn pause(&self, seconds: f64) {
        tokio::time::sleep(self.pace.of(Duration::from_secs_f64(seconds))).await;
    }
}

/// A request in the words of a course.
fn told(seen: &Seen) -> String {
    let id = seen.header("X-Azure-Functions-InvocationId").map(|id| format!(" #{id}")).unwrap_or_default();
    let envelope: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    let retry = envelope["Metadata"]["RetryContext"]["RetryCount"].as_u64();
    format!("{}{id}{}", seen.line(), retry.map(|retry| format!(" retry {retry}")).unwrap_or_default())
}

/// `None`: the connection ended.
async fn read_head(socket: &mut TcpStream, unread: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = unread.drain(..at + 4).collect();
            return Some(head.into_iter().map(char::from).collect());
        }
        more(socket, unread).await?;
    }
}

async fn more(socket: &mut TcpStream, unread: &mut Vec<u8>) -> Option<()> {
    match socket.read_buf(unread).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

async fn take(socket: &mut TcpStream, unread: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while unread.len() < count {
        more(socket, unread).await?;
    }
    Some(unread.drain(..count).collect())
}

async fn read_body(socket: &mut TcpStream, unread: &mut Vec<u8>, seen: &Seen) -> Option<Vec<u8>> {
    if seen.header("Transfer-Encoding").is_none() {
        let length = seen.header("Content-Length").map_or(0, |length| length.parse().expect("it is a number"));
        return take(socket, unread, length).await;
    }
    let mut body = Vec::new();
    loop {
        let end = loop {
            match unread.windows(2).position(|window| window == b"\r\n") {
                Some(at) => break at,
                None => more(socket, unread).await?,
            }
        };
        let size = take(socket, unread, end + 2).await?;
        let size = usize::from_str_radix(String::from_utf8_lossy(&size).trim(), 16).expect("it is a size");
        let chunk = take(socket, unread, size + 2).await?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}
