//! The handler's process: start, readiness, restart, end.
//!
//! Sources: `Azure/azure-functions-host` `HttpWorkerProcess.cs`, `DefaultHttpWorkerService.cs` (`IsWorkerReady`),
//! `HttpFunctionInvocationDispatcher.cs`, and recordings of a running host.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::shared::{Shared, count};

/// Between two attempts to reach a port that nobody listens at.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Recorded between the end of a process and the next start: 55–95 ms.
const RESTART_PAUSE: Duration = Duration::from_millis(60);
/// So many errors stop the host …
const MAX_ERRORS: usize = 3;
/// … unless two of them in a row are this far apart.
const ERROR_WINDOW: Duration = Duration::from_secs(30 * 60);
/// Exit code of an intentional restart; 0 counts as one since January 2026.
const RESTART_EXIT_CODE: i32 = 200;
/// What the handler inherits from the environment of this process; the rest comes from the app settings.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LANG", "TZ"];

/// How to start the process.
pub(super) struct Launch {
    pub(super) executable: PathBuf,
    pub(super) settings: BTreeMap<String, String>,
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
    state: watch::Sender<State>,
    wishes: mpsc::UnboundedSender<(u64, Wish)>,
}

/// The other end of [`Handler`].
pub(super) struct Wishes(mpsc::UnboundedReceiver<(u64, Wish)>);

impl Handler {
    pub(super) fn new(port: u16) -> (Self, Wishes) {
        let (wishes, receiver) = mpsc::unbounded_channel();
        (Self { port, state: watch::Sender::default(), wishes }, Wishes(receiver))
    }

    /// The life that is running or about to start.
    pub(super) fn life(&self) -> u64 {
        self.state.borrow().life
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.state.borrow().pid
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
pub(super) async fn attach(shared: Arc<Shared>) {
    tokio::select! {
        () = answering(shared.handler.port) => shared.handler.state.send_modify(|state| state.ready = true),
        () = shared.stop.cancelled() => {}
    }
}

/// Keeps a process running until the host stops.
pub(super) async fn supervise(shared: Arc<Shared>, launch: Launch, mut wishes: Wishes) {
    let mut errors: Vec<Instant> = Vec::new();
    for life in 1.. {
        shared.handler.state.send_replace(State { life, pid: None, ready: false });
        let end = live(&shared, &launch, &mut wishes, life).await;
        shared.handler.state.send_modify(|state| *state = State { life, pid: None, ready: false });
        match end {
            End::Stopped => return,
            End::Wished => {}
            End::Lost => errors.clear(),
            End::Error => {
                let now = Instant::now();
                if errors.last().is_some_and(|last| now - *last > ERROR_WINDOW) {
                    errors.clear();
                }
                errors.push(now);
            }
        }
        if errors.len() >= MAX_ERRORS {
            shared.log.host("Exceeded http worker restart retry count. Shutting down Functions Host");
            shared.draining.cancel();
            shared.stop.cancel();
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = shared.stop.cancelled() => return,
        }
        count(&shared.counts.restarts, 1);
        shared.log.host("Restarting http invoker channel");
    }
}

/// One process from start to end.
async fn live(shared: &Arc<Shared>, launch: &Launch, wishes: &mut Wishes, life: u64) -> End {
    let mut child = match spawn(shared, launch) {
        Ok(child) => child,
        Err(problem) => {
            shared.log.host(format!("Failed to start Worker Channel: {}: {problem}", launch.executable.display()));
            return End::Error;
        }
    };
    let pid = child.id();
    shared.log.host(format!("process with Id={} started", pid.unwrap_or_default()));
    shared.handler.state.send_modify(|state| state.pid = pid);
    let limit = shared.app.initialization_timeout;
    let ready = tokio::time::timeout(limit, answering(shared.handler.port));
    tokio::pin!(ready);
    let mut is_ready = false;
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => {
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
                shared.handler.state.send_modify(|state| state.ready = true);
                shared.log.host("Worker process started and initialized.");
            }
        }
    }
}

fn spawn(shared: &Arc<Shared>, launch: &Launch) -> std::io::Result<Child> {
    let id = Uuid::new_v4().to_string();
    let port = shared.handler.port.to_string();
    let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut child = Command::new(&launch.executable)
        .args(&shared.app.arguments)
        .current_dir(&shared.app.working_directory)
        .env_clear()
        .envs(inherited)
        .envs(&launch.settings)
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
        Ok(()) => shared.log.host("the handler was killed"),
        Err(problem) => shared.log.host(format!("cannot kill the handler: {problem}")),
    }
}

fn exited(shared: &Shared, status: std::io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => {
            shared.log.host(format!("Language Worker Process exited: {status}"));
            if matches!(status.code(), Some(0 | RESTART_EXIT_CODE)) { End::Wished } else { End::Error }
        }
        Err(problem) => {
            shared.log.host(format!("cannot wait for the handler: {problem}"));
            End::Error
        }
    }
}

/// Asks for `/` until anything at all comes back, even the end of the connection.
async fn answering(port: u16) {
    while ping(port).await.is_err() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// An error is one of connecting.
async fn ping(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let mut answer = [0; 4096];
    if stream.write_all(request.as_bytes()).await.is_ok() {
        // Whatever it is, someone is there.
        let _: std::io::Result<usize> = stream.read(&mut answer).await;
    }
    Ok(())
}
