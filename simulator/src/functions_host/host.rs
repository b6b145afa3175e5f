//! The handle of a running host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::app::{App, StartError};
use super::fleet::{Instance, group_of};
use super::handler::{Handler, Launch, attach, supervise};
use super::listener::{Connections, event_hub_trigger};
use super::log::{Log, LogSink};
use super::pace::Pace;
use super::server;
use super::shared::{Counters, Parts, Shared};
use super::trigger::{Consumer, consume};
use crate::entra::ManagedIdentity;
use crate::event_hubs::Namespace;
use crate::happenings::Happenings;

/// How long a stopping host waits for HTTP calls (ASP.NET Core's default) …
pub(super) const HTTP_DRAIN: Duration = Duration::from_secs(30);
/// … and for batches.
pub(super) const BATCH_DRAIN: Duration = Duration::from_secs(10);

/// What to run, and where.
pub struct HostOptions {
    /// The folder with `host.json` and one folder with a `function.json` per function.
    pub app_root: PathBuf,
    /// Runs this instead of the executable that `host.json` names, as the app setting
    /// `AzureFunctionsJobHost__customHandler__description__defaultExecutablePath` does.
    pub executable: Option<PathBuf>,
    /// App settings: the environment of the handler, which inherits little else.
    pub settings: BTreeMap<String, String>,
    /// What the platform puts into that environment beside them.
    pub platform: BTreeMap<String, String>,
    /// The managed identities of the app. Its triggers read with the one that the settings of their connection name.
    pub identities: Vec<ManagedIdentity>,
    /// Where callers of HTTP triggers come to.
    pub listen: SocketAddr,
    /// The key of functions with `authLevel` `function` or `admin`.
    pub function_key: String,
    /// The master key: opens every function and `/admin`.
    pub master_key: String,
    /// Holds the Event Hubs of the triggers.
    pub namespace: Namespace,
    /// The namespace's name as the handler sees it.
    pub fully_qualified_namespace: String,
    /// Takes the lines of host and handler.
    pub log: LogSink,
    /// Calls a handler that was started by hand at this port of 127.0.0.1, instead of starting one. It is waited for
    /// without limit and never restarted.
    pub external_port: Option<u16>,
    /// How fast the host's clocks run.
    #[doc(hidden)]
    pub pace: Pace,
    /// Is told what happens.
    pub happenings: Happenings,
}

impl HostOptions {
    /// Options with a port of the system's choice, the keys `key` and `master`, no settings and no log.
    #[must_use]
    pub fn new(app_root: impl Into<PathBuf>, namespace: Namespace) -> Self {
        Self {
            app_root: app_root.into(),
            executable: None,
            settings: BTreeMap::new(),
            platform: BTreeMap::new(),
            identities: Vec::new(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            function_key: "key".to_owned(),
            master_key: "master".to_owned(),
            namespace,
            fully_qualified_namespace: "simulated.servicebus.windows.net".to_owned(),
            log: Box::new(|_| {}),
            external_port: None,
            pace: Pace::REAL,
            happenings: Happenings::default(),
        }
    }
}

/// A running host. The clones are one host; it ends, and kills its handler, with the last of them.
#[derive(Clone)]
pub struct FunctionsHost(pub(super) Arc<Running>);

pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    addr: SocketAddr,
    route_prefix: String,
    /// Functions whose listeners did not start.
    deaf: BTreeSet<String>,
    /// How to start the handler of another instance; `None` if it was started by hand.
    pub(super) launch: Option<Launch>,
    /// One task for the handler of each instance that is or was.
    pub(super) supervisors: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.draining.cancel();
        self.shared.stop.cancel();
    }
}

impl FunctionsHost {
    /// Checks the app and starts host and handler. Calls that come before the handler is ready wait for it.
    ///
    /// # Errors
    /// If the app or its settings are not valid, the executable cannot run, or the address is taken.
    pub async fn start(options: HostOptions) -> Result<Self, StartError> {
        let mut app = App::read(&options.app_root, &options.settings)?;
        if let Some(executable) = options.executable {
            app.executable = executable;
        }
        let connections = Connections {
            namespace: options.namespace.clone(),
            host: options.fully_qualified_namespace,
            settings: options.settings.clone(),
            identities: options.identities,
        };
        let mut consumers = connections.consumers(&app)?;
        let listen = |source| StartError::Listen { addr: options.listen, source };
        let port = match options.external_port {
            Some(port) => port,
            None => {
                app.executable = runnable(&app)?;
                free_port().await.map_err(listen)?
            }
        };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let (handler, wishes) = Handler::new(port);
        let external = options.external_port.is_some();
        let launch =
            Launch { executable: app.executable.clone(), settings: options.settings, platform: options.platform };
        let route_prefix = app.route_prefix.clone();
        let stop = CancellationToken::new();
        let parts = Parts {
            function_key: options.function_key,
            master_key: options.master_key,
            pace: options.pace,
            namespace: options.namespace,
            log: Log::new(options.log, options.happenings),
            common: Instance::new(handler, stop.child_token(), true),
            stop,
        };
        let shared = Arc::new(Shared::new(app, parts));
        let deaf = connections.deaf(&shared);
        consumers.retain(|consumer| !deaf.contains(&consumer.origin.function));
        let common = Arc::clone(shared.fleet.common());
        let supervisor = if external {
            tokio::spawn(attach(Arc::clone(&shared), common))
        } else {
            tokio::spawn(supervise(Arc::clone(&shared), common, launch.clone(), wishes))
        };
        spawn_all(&shared, listener, consumers);
        let launch = (!external).then_some(launch);
        let supervisors = Mutex::new(vec![supervisor]);
        Ok(Self(Arc::new(Running { shared, addr, route_prefix, deaf, launch, supervisors })))
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// The URL that the routes of the HTTP functions follow, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> String {
        let prefix = self.0.route_prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("http://{}{slash}{prefix}", self.0.addr)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.0.shared.counts.snapshot()
    }

    /// Events of an Event Hub behind the checkpoint of a consumer group.
    #[must_use]
    pub fn lag(&self, event_hub: &str, consumer_group: &str) -> u64 {
        self.0.shared.lag(event_hub, consumer_group)
    }

    /// How far the functions that read an Event Hub are behind, each by its own consumer group; `None` if none reads it.
    #[must_use]
    pub fn lag_at(&self, event_hub: &str) -> Option<u64> {
        let triggers = self.0.shared.app.functions.iter().filter_map(event_hub_trigger);
        let readers = triggers.filter(|trigger| trigger.event_hub.eq_ignore_ascii_case(event_hub));
        readers.map(|trigger| self.lag(&trigger.event_hub, &trigger.consumer_group)).reduce(|sum, lag| sum + lag)
    }

    /// Waits until no function is behind and no call is running; one whose listener did not start does not count. `false` after the time, or if the host stopped.
    ///
    /// It looks at this moment only: an event that another service is about to append is not seen.
    pub async fn wait_idle(&self, timeout: Duration) -> bool {
        let shared = &self.0.shared;
        let mut activity = shared.activity.subscribe();
        let idle = async {
            loop {
                activity.mark_unchanged();
                if shared.running() == 0 && self.total_lag() == 0 {
                    return true;
                }
                tokio::select! {
                    changed = activity.changed() => changed.expect("the sender lives in the host"),
                    () = shared.stop.cancelled() => return false,
                }
            }
        };
        tokio::time::timeout(timeout, idle).await.unwrap_or(false)
    }

    fn total_lag(&self) -> u64 {
        let functions = self.0.shared.app.functions.iter();
        let triggers = functions.filter(|function| !self.0.deaf.contains(&function.name)).filter_map(event_hub_trigger);
        triggers.map(|trigger| self.lag(&trigger.event_hub, &trigger.consumer_group)).sum()
    }

    /// Whether the handler takes calls now: one that the host started and whose port answered since, or one that was
    /// started by hand and was reached once; a later end of that one is not noticed. `false` when the host stopped.
    ///
    /// Of several instances it is the common one: see [`scale`](Self::scale).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.is_stopped() && self.0.shared.fleet.common().handler.is_ready()
    }

    /// Waits until the handlers of all instances take calls. `false` if the host stopped instead.
    pub async fn wait_ready(&self) -> bool {
        let fleet = &self.0.shared.fleet;
        let groups = self.0.shared.app.functions.iter().map(group_of);
        let instances: Vec<_> = groups.flat_map(|group| fleet.of(group)).collect();
        let ready = async {
            for instance in &instances {
                instance.handler.ready().await;
            }
        };
        tokio::select! {
            () = ready => true,
            () = self.0.shared.stop.cancelled() => false,
        }
    }

    /// Kills the handler as if someone else had done it: the third time within half an hour stops the host.
    ///
    /// Of several instances it is the common one: see [`scale`](Self::scale).
    pub fn kill_handler(&self) {
        self.0.shared.fleet.common().handler.kill();
    }

    /// Loses the whole instance and starts another: the handler is killed, batches under way are forgotten and come
    /// again under a new id from the last checkpoint. This can be done as often as one likes.
    ///
    /// Of several instances it is the common one: see [`scale`](Self::scale).
    pub fn lose_instance(&self) {
        self.0.shared.fleet.common().lose();
    }

    /// The process of the handler, if it runs.
    ///
    /// Of several instances it is the common one: see [`scale`](Self::scale).
    #[must_use]
    pub fn handler_pid(&self) -> Option<u32> {
        self.0.shared.fleet.common().handler.pid()
    }

    /// Takes on no more batches, as `POST /admin/host/drain` does before the platform takes an instance away. Batches
    /// under way end as usual; HTTP calls are served on.
    pub fn drain(&self) {
        self.0.shared.drained.cancel();
    }

    /// Whether the host stopped, be it by itself.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.shared.stop.is_cancelled()
    }

    /// The last lines that the handler wrote to stdout and stderr.
    #[must_use]
    pub fn handler_log(&self) -> Vec<String> {
        self.0.shared.log.handler_lines()
    }

    /// The lines that the answers of a function put into its invocations' logs, oldest first; the latest 20 000 of all.
    #[must_use]
    pub fn invocation_log(&self, function: &str) -> Vec<String> {
        self.0.shared.log.invocation_lines(function)
    }

    /// Stops as the real host does on SIGTERM: nothing new is taken on, HTTP calls get up to 30 s, batches up to 10 s
    /// and no checkpoint, then the handler is killed without notice.
    pub async fn shutdown(&self) {
        let shared = &self.0.shared;
        shared.draining.cancel();
        let http = drained(shared, shared.pace.of(HTTP_DRAIN), || shared.http_running.load(Ordering::Acquire) == 0);
        let batches =
            drained(shared, shared.pace.of(BATCH_DRAIN), || shared.batches_running.load(Ordering::Acquire) == 0);
        tokio::join!(http, batches);
        shared.stop.cancel();
        let tasks = std::mem::take(&mut *self.0.supervisors.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(problem) = task.await {
                shared.log.host(format!("the supervisor of a handler failed: {problem}"));
            }
        }
    }
}

pub(super) async fn drained(shared: &Shared, limit: Duration, done: impl Fn() -> bool) {
    let mut activity = shared.activity.subscribe();
    let wait = async {
        loop {
            activity.mark_unchanged();
            if done() {
                return;
            }
            activity.changed().await.expect("the sender lives in the host");
        }
    };
    tokio::select! {
        _in_time = tokio::time::timeout(limit, wait) => {}
        () = shared.stop.cancelled() => {}
    }
}

fn spawn_all(shared: &Arc<Shared>, listener: TcpListener, consumers: Vec<Consumer>) {
    for consumer in consumers {
        if shared.app.from_end {
            let end = consumer.hub.end(consumer.cursor.partition);
            shared.set_checkpoint(&consumer.cursor, end);
        }
        tokio::spawn(consume(Arc::clone(shared), consumer));
    }
    tokio::spawn(server::serve(Arc::clone(shared), listener));
}

/// The absolute path of the executable, which must be one.
fn runnable(app: &App) -> Result<PathBuf, StartError> {
    let path: &Path = &app.root.join(&app.executable);
    let refuse = |problem: String| StartError::Executable { path: path.to_owned(), problem };
    let metadata = path.metadata().map_err(|problem| refuse(problem.to_string()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(refuse("it is no file with the executable bit".to_owned()));
    }
    Ok(path.to_owned())
}

/// Ports below those that the system gives to connections and to listeners without a wish of their own: between this
/// look and the handler's start nobody takes one by chance.
const HANDLER_PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that was free a moment ago, never the same twice in a row.
pub(super) async fn free_port() -> std::io::Result<u16> {
    static NEXT: OnceLock<AtomicUsize> = OnceLock::new();
    let count = HANDLER_PORTS.len();
    let next = NEXT.get_or_init(|| AtomicUsize::new(rand::rng().random_range(0..count)));
    for _ in 0..count {
        let offset = next.fetch_add(1, Ordering::Relaxed) % count;
        let port = HANDLER_PORTS.start + u16::try_from(offset).expect("the range is one of ports");
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(_) => return Ok(port),
            Err(problem) if problem.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}
