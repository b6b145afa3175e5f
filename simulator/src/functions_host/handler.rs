//! The handler's process: start, readiness, restart, end.
//!
//! Sources: `Azure/azure-functions-host` `HttpWorkerProcess.cs`, `DefaultHttpWorkerService.cs` (`IsWorkerReady`),
//! `HttpFunctionInvocationDispatcher.cs`, and recordings of a running host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{HOST, LOCATION};
use http::{HeaderValue, Request, Uri};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::fleet::Instance;
use super::pace::Pace;
use super::shared::{Shared, count};
use super::wire::{Broken, Wire};

/// Between two attempts to reach a port that nobody listens at.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Recorded between the end of a process and the next start: 55–95 ms.
pub(super) const RESTART_PAUSE: Duration = Duration::from_millis(60);
/// So many errors stop the host …
pub(super) const MAX_ERRORS: usize = 3;
/// … unless two of them in a row are this far apart.
pub(super) const ERROR_WINDOW: Duration = Duration::from_secs(30 * 60);
/// Exit code of an intentional restart; 0 counts as one since January 2026.
const RESTART_EXIT_CODE: i32 = 200;
/// The first request may be sent elsewhere so often.
const MAX_REDIRECTS: usize = 50;
/// What the handler inherits from the environment of this process; the rest comes from the app settings.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "TZ"];

/// How to start the process.
#[derive(Clone)]
pub(super) struct Launch {
    pub(super) executable: PathBuf,
    pub(super) settings: BTreeMap<String, String>,
    /// What the platform adds to them.
    pub(super) platform: BTreeMap<String, String>,
}

/// The state of the current process.
#[derive(Clone, Debug, Default)]
struct State {
    /// Counts the processes.
    life: u64,
    pid: Option<u32>,
    ready: bool,
}

/// What a caller wants of the process of one life.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// As if someone else had killed it: counts as an error.
    Kill,
    /// After a function timeout: does not count.
    Restart,
    /// The instance is lost; the next process begins with a clean record.
    Lose,
}

/// The part of the process that calls see.
pub(super) struct Handler {
    pub(super) port: u16,
    pub(super) wire: Wire,
    state: watch::Sender<State>,
    wishes: mpsc::UnboundedSender<(u64, Wish)>,
}

/// The other end of [`Handler`].
pub(super) struct Wishes(mpsc::UnboundedReceiver<(u64, Wish)>);

impl Handler {
    pub(super) fn new(port: u16) -> (Self, Wishes) {
        let (wishes, receiver) = mpsc::unbounded_channel();
        (Self { port, wire: Wire::new(port), state: watch::Sender::default(), wishes }, Wishes(receiver))
    }

    /// The life that is running or about to start.
    pub(super) fn life(&self) -> u64 {
        self.state.borrow().life
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.state.borrow().pid
    }

    /// Whether the handler takes calls now.
    pub(super) fn is_ready(&self) -> bool {
        self.state.borrow().ready
    }

    /// Waits until the handler takes calls. Returns its life.
    pub(super) async fn ready(&self) -> u64 {
        let mut state = self.state.subscribe();
        let ready = state.wait_for(|state| state.ready).await;
        ready.expect("the sender lives in self").life
    }

    /// After a function timeout in this life.
    pub(super) fn restart(&self, life: u64) {
        self.wish(life, Wish::Restart);
    }

    pub(super) fn kill(&self) {
        self.wish(self.life(), Wish::Kill);
    }

    pub(super) fn lose(&self) {
        self.wish(self.life(), Wish::Lose);
    }

    fn wish(&self, life: u64, wish: Wish) {
        // Nobody receives for a handler that was started by hand, nor after the end: then it is none of our business.
        if self.wishes.send((life, wish)).is_ok() {
            self.state.send_modify(|state| state.ready &= state.life != life);
        }
    }
}

/// Why a life ended.
enum End {
    Stopped,
    Wished,
    Lost,
    Error,
}

/// Waits for a handler that someone else started.
pub(super) async fn attach(shared: Arc<Shared>, instance: Arc<Instance>) {
    tokio::select! {
        () = answering(&instance.handler, shared.pace) => {
            instance.handler.state.send_modify(|state| state.ready = true);
        }
        () = instance.stop.cancelled() => {}
    }
}

/// Keeps a process running until the instance stops.
pub(super) async fn supervise(shared: Arc<Shared>, instance: Arc<Instance>, launch: Launch, mut wishes: Wishes) {
    let state = &instance.handler.state;
    let mut errors: Vec<Instant> = Vec::new();
    for life in 1.. {
        state.send_replace(State { life, pid: None, ready: false });
        let end = live(&shared, &instance, &launch, &mut wishes, life).await;
        state.send_replace(State { life, pid: None, ready: false });
        match end {
            End::Stopped => return,
            End::Wished => {}
            End::Lost => errors.clear(),
            End::Error => {
                let now = Instant::now();
                if errors.last().is_some_and(|last| now - *last > shared.pace.of(ERROR_WINDOW)) {
                    errors.clear();
                }
                errors.push(now);
            }
        }
        if errors.len() >= MAX_ERRORS {
            shared.log.host("Exceeded http worker restart retry count. Shutting down Functions Host");
            if instance.is_common {
                shared.log.happened("host stopped: the handler ended too often", json!({"what": "stop"}));
                shared.draining.cancel();
                shared.stop.cancel();
                return;
            }
            // The platform starts another instance in its place.
            errors.clear();
            instance.lost.send_replace(());
        }
        tokio::select! {
            () = tokio::time::sleep(shared.pace.of(RESTART_PAUSE)) => {}
            () = instance.stop.cancelled() => return,
        }
        count(&shared.counts.restarts, 1);
        shared.log.host("Restarting http invoker channel");
    }
}

/// One process from start to end.
async fn live(shared: &Arc<Shared>, instance: &Instance, launch: &Launch, wishes: &mut Wishes, life: u64) -> End {
    let mut child = match spawn(shared, instance, launch) {
        Ok(child) => child,
        Err(problem) => {
            shared.log.host(format!("Failed to start Worker Channel: {}: {problem}", launch.executable.display()));
            return End::Error;
        }
    };
    let pid = child.id();
    shared.log.host(format!("process with Id={} started", pid.unwrap_or_default()));
    instance.handler.state.send_modify(|state| state.pid = pid);
    shared.log.happened("handler started", json!({"what": "start", "pid": pid}));
    let limit = shared.app.initialization_timeout;
    let ready = tokio::time::timeout(shared.pace.of(limit), answering(&instance.handler, shared.pace));
    tokio::pin!(ready);
    let mut is_ready = false;
    loop {
        tokio::select! {
            biased;
            () = instance.stop.cancelled() => {
                end(shared, &mut child).await;
                return End::Stopped;
            }
            status = child.wait() => return exited(shared, status),
            Some((wanted, wish)) = wishes.0.recv() => {
                if wanted == life {
                    end(shared, &mut child).await;
                    return match wish { Wish::Kill => End::Error, Wish::Restart => End::Wished, Wish::Lose => End::Lost };
                }
            }
            in_time = &mut ready, if !is_ready => {
                if in_time.is_err() {
                    shared.log.host(format!("the handler did not open its port within {} s", limit.as_secs()));
                    end(shared, &mut child).await;
                    return End::Error;
                }
                is_ready = true;
                instance.handler.state.send_modify(|state| state.ready = true);
                shared.log.host("Worker process started and initialized.");
                shared.log.happened("handler takes calls", json!({"what": "ready", "pid": pid}));
            }
        }
    }
}

fn spawn(shared: &Arc<Shared>, instance: &Instance, launch: &Launch) -> std::io::Result<Child> {
    let id = Uuid::new_v4().to_string();
    let port = instance.handler.port.to_string();
    let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut child = Command::new(&launch.executable)
        .args(&shared.app.arguments)
        .current_dir(&shared.app.working_directory)
        .env_clear()
        .envs(inherited)
        .envs(&launch.settings)
        .envs(&launch.platform)
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", &port)
        .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", &id)
        .env("FUNCTIONS_HTTPWORKER_PORT", &port)
        .env("FUNCTIONS_HTTPWORKER_ID", &id)
        .env("FUNCTIONS_APP_ROOT_PATH", &shared.app.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(forward_lines(Arc::clone(shared), stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(forward_lines(Arc::clone(shared), stderr));
    }
    Ok(child)
}

async fn forward_lines(shared: Arc<Shared>, output: impl AsyncRead + Unpin) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    // An error is the end of the pipe as well: the process is gone.
    while let Ok(1..) = output.read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line);
        shared.log.handler(text.trim_end_matches(['\r', '\n']).to_owned());
        line.clear();
    }
}

async fn end(shared: &Shared, child: &mut Child) {
    match child.kill().await {
        Ok(()) => {
            shared.log.host("the handler was killed");
            shared.log.happened("handler killed", json!({"what": "kill"}));
        }
        Err(problem) => shared.log.host(format!("cannot kill the handler: {problem}")),
    }
}

fn exited(shared: &Shared, status: std::io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => {
            shared.log.host(format!("Language Worker Process exited: {status}"));
            shared.log.happened(format!("handler ended: {status}"), json!({"what": "exit"}));
            if matches!(status.code(), Some(0 | RESTART_EXIT_CODE)) { End::Wished } else { End::Error }
        }
        Err(problem) => {
            shared.log.host(format!("cannot wait for the handler: {problem}"));
            End::Error
        }
    }
}

/// Asks for `/` until anything at all comes back, even the end of the connection.
async fn answering(handler: &Handler, pace: Pace) {
    while ping(handler).await == Err(Broken::Refused) {
        tokio::time::sleep(pace.of(POLL_INTERVAL)).await;
    }
}

/// Whatever answers, someone is there; a redirect is followed.
async fn ping(handler: &Handler) -> Result<(), Broken> {
    let mut path = Uri::from_static("/");
    for _ in 0..=MAX_REDIRECTS {
        let response = handler.wire.send_bare(|| bare(handler.port, &path)).await?;
        let location = response.headers().get(LOCATION).and_then(|target| target.to_str().ok()?.parse::<Uri>().ok());
        match location {
            Some(target) if response.status().is_redirection() => path = target,
            _ => break,
        }
    }
    Ok(())
}

fn bare(port: u16, target: &Uri) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    // Only the path: a redirect to elsewhere is none of a handler's business.
    let path = target.path_and_query().and_then(|path| path.as_str().parse().ok());
    *request.uri_mut() = path.unwrap_or_else(|| Uri::from_static("/"));
    let host = HeaderValue::from_str(&format!("127.0.0.1:{port}")).expect("a port is plain ASCII");
    request.headers_mut().insert(HOST, host);
    request
}
