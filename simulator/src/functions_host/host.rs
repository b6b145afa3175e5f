//! The handle of a running host.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::app::{App, StartError};
use super::envelope::Origin;
use super::function::{EventHubTrigger, Function, Trigger};
use super::handler::{Handler, Launch, Wishes, attach, supervise};
use super::log::{Log, LogSink};
use super::proxy;
use super::shared::{Counters, Cursor, Shared};
use super::trigger::{Consumer, consume};
use crate::event_hubs::Namespace;

/// How long a stopping host waits for HTTP calls (ASP.NET Core's default) …
const HTTP_DRAIN: Duration = Duration::from_secs(30);
/// … and for batches.
const BATCH_DRAIN: Duration = Duration::from_secs(10);

/// What to run, and where.
pub struct HostOptions {
    /// The folder with `host.json` and one folder with a `function.json` per function.
    pub app_root: PathBuf,
    /// Runs this instead of the executable that `host.json` names, as the app setting
    /// `AzureFunctionsJobHost__customHandler__description__defaultExecutablePath` does.
    pub executable: Option<PathBuf>,
    /// App settings: the environment of the handler, which inherits little else.
    pub settings: BTreeMap<String, String>,
    /// Where callers of HTTP triggers come to.
    pub listen: SocketAddr,
    /// The key of functions with `authLevel` `function` or `admin`.
    pub function_key: String,
    /// Holds the Event Hubs of the triggers.
    pub namespace: Namespace,
    /// The namespace's name as the handler sees it.
    pub fully_qualified_namespace: String,
    /// Takes the lines of host and handler.
    pub log: LogSink,
    /// Calls a handler that was started by hand at this port of 127.0.0.1, instead of starting one. It is waited for
    /// without limit and never restarted.
    pub external_port: Option<u16>,
}

impl HostOptions {
    /// Options with a port of the system's choice, the key `key`, no settings and no log.
    #[must_use]
    pub fn new(app_root: impl Into<PathBuf>, namespace: Namespace) -> Self {
        Self {
            app_root: app_root.into(),
            executable: None,
            settings: BTreeMap::new(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            function_key: "key".to_owned(),
            namespace,
            fully_qualified_namespace: "simulated.servicebus.windows.net".to_owned(),
            log: Box::new(|_| {}),
            external_port: None,
        }
    }
}

/// A running host. The clones are one host; it ends, and kills its handler, with the last of them.
#[derive(Clone)]
pub struct FunctionsHost(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    addr: SocketAddr,
    route_prefix: String,
    supervisor: Mutex<Option<JoinHandle<()>>>,
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
        let consumers = consumers(&app, &options.namespace, &options.fully_qualified_namespace)?;
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
        let launch = Launch { executable: app.executable.clone(), settings: options.settings };
        let route_prefix = app.route_prefix.clone();
        let log = Log::new(options.log);
        let shared = Arc::new(Shared::new(app, options.function_key, options.namespace, log, handler));
        let external = options.external_port.is_some();
        let supervisor = Mutex::new(Some(spawn_all(&shared, listener, consumers, launch, wishes, external)));
        Ok(Self(Arc::new(Running { shared, addr, route_prefix, supervisor })))
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

    /// Waits until no function is behind and no call is running. `false` after the time, or if the host stopped.
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
        let triggers = self.0.shared.app.functions.iter().filter_map(event_hub_trigger);
        triggers.map(|trigger| self.lag(&trigger.event_hub, &trigger.consumer_group)).sum()
    }

    /// Waits until the handler takes calls. `false` if the host stopped instead.
    pub async fn wait_ready(&self) -> bool {
        tokio::select! {
            _life = self.0.shared.handler.ready() => true,
            () = self.0.shared.stop.cancelled() => false,
        }
    }

    /// Kills the handler as if someone else had done it: the third time within half an hour stops the host.
    pub fn kill_handler(&self) {
        self.0.shared.handler.kill();
    }

    /// Loses the whole instance and starts another: the handler is killed, batches under way are forgotten and come
    /// again under a new id from the last checkpoint. This can be done as often as one likes.
    pub fn lose_instance(&self) {
        self.0.shared.handler.lose();
        self.0.shared.instance.send_replace(());
    }

    /// The process of the handler, if it runs.
    #[must_use]
    pub fn handler_pid(&self) -> Option<u32> {
        self.0.shared.handler.pid()
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
        let http = drained(shared, HTTP_DRAIN, || shared.http_running.load(Ordering::Acquire) == 0);
        let batches = drained(shared, BATCH_DRAIN, || shared.batches_running.load(Ordering::Acquire) == 0);
        tokio::join!(http, batches);
        shared.stop.cancel();
        let supervisor = self.0.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(supervisor) = supervisor
            && let Err(problem) = supervisor.await
        {
            shared.log.host(format!("the handler's supervisor failed: {problem}"));
        }
    }
}

async fn drained(shared: &Shared, limit: Duration, done: impl Fn() -> bool) {
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

fn spawn_all(
    shared: &Arc<Shared>,
    listener: TcpListener,
    consumers: Vec<Consumer>,
    launch: Launch,
    wishes: Wishes,
    external: bool,
) -> JoinHandle<()> {
    for consumer in consumers {
        if shared.app.from_end {
            let end = consumer.hub.end(consumer.cursor.partition);
            shared.set_checkpoint(&consumer.cursor, end);
        }
        tokio::spawn(consume(Arc::clone(shared), consumer));
    }
    let router = Router::new().fallback(proxy::serve).with_state(Arc::clone(shared));
    let listener = listener.tap_io(|stream| {
        // A socket that refuses the option is slower, nothing else.
        let _: std::io::Result<()> = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>());
    let (server_of, draining) = (Arc::clone(shared), shared.draining.clone());
    tokio::spawn(async move {
        if let Err(problem) = server.with_graceful_shutdown(draining.cancelled_owned()).await {
            server_of.log.host(format!("the HTTP server failed: {problem}"));
        }
    });
    if external {
        tokio::spawn(attach(Arc::clone(shared)))
    } else {
        tokio::spawn(supervise(Arc::clone(shared), launch, wishes))
    }
}

fn event_hub_trigger(function: &Function) -> Option<&EventHubTrigger> {
    match &function.trigger {
        Trigger::EventHub(trigger) => Some(trigger),
        Trigger::Http(_) => None,
    }
}

fn consumers(app: &App, namespace: &Namespace, namespace_name: &str) -> Result<Vec<Consumer>, StartError> {
    let mut consumers = Vec::new();
    for function in &app.functions {
        let Some(trigger) = event_hub_trigger(function) else { continue };
        let Some(hub) = namespace.hub(&trigger.event_hub) else {
            let problem = format!("the namespace has no Event Hub '{}'", trigger.event_hub);
            return Err(StartError::invalid(&function.name, problem));
        };
        for partition in 0..hub.partition_count() {
            consumers.push(Consumer {
                hub: Arc::clone(&hub),
                cursor: Cursor {
                    event_hub: trigger.event_hub.clone(),
                    consumer_group: trigger.consumer_group.clone(),
                    partition,
                },
                origin: Origin {
                    function: function.name.clone(),
                    binding: trigger.binding.clone(),
                    shape: trigger.shape,
                    fully_qualified_namespace: namespace_name.to_owned(),
                    event_hub: trigger.event_hub.clone(),
                    consumer_group: trigger.consumer_group.clone(),
                    partition_id: partition.to_string(),
                },
                retry: trigger.retry,
            });
        }
    }
    Ok(consumers)
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

/// A port that was free a moment ago, as the real host picks one.
async fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
}
