//! `simulator run`: start everything, say where it is, stay up.

use std::collections::BTreeMap;
use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::Control;
use crate::infra::{Infra, InfraError};
use crate::iot_hub::Tier;
use crate::world::{EventHubsOptions, Handler, Ports, StartError, World, WorldOptions, find_app_root};

/// What to run, and where to say how it is reached.
#[derive(Debug)]
pub struct Options {
    /// The ports of the services.
    pub ports: Ports,
    /// The port of the control API and the page; 0 takes a free one.
    pub control_port: u16,
    /// What the Event Hubs keep, and for whom.
    pub event_hubs: EventHubsOptions,
    /// What to run between the services.
    pub bridge: Bridge,
    /// Whether someone starts the handler by hand.
    pub by_hand: bool,
    /// The limits of the hub's size; `None`: those of the template's hub, and without a template none.
    pub limits: Option<Tier>,
    /// Rights that the API key of The Things Stack lacks.
    pub without_stack_rights: Vec<String>,
    /// Takes the handler's settings.
    pub env_file: Option<PathBuf>,
    /// Takes the description of the world.
    pub json: Option<PathBuf>,
}

/// What to run between the services. Without anything given: the project that this simulator belongs to, built first.
#[derive(Clone, Debug, Default)]
pub struct Bridge {
    /// The evaluated template that says what Azure has.
    pub infra: Option<PathBuf>,
    /// The unpacked package.
    pub app: Option<PathBuf>,
    /// The program to start in place of the package's own.
    pub handler: Option<PathBuf>,
}

impl Bridge {
    /// What the template makes of Azure.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn infra(&self) -> Result<Option<Infra>, InfraError> {
        self.infra.as_deref().map(Infra::read).transpose()
    }

    /// The folder with `host.json`.
    ///
    /// # Errors
    /// If there is none.
    pub fn app_root(&self) -> Result<PathBuf, StartError> {
        self.app.clone().map_or_else(app_root, Ok)
    }

    /// What the Functions host starts.
    ///
    /// # Errors
    /// If it must be built and that fails.
    pub async fn handler(&self) -> Result<Handler, StartError> {
        Ok(match (&self.handler, &self.app) {
            (Some(program), _) => Handler::Program(program.clone()),
            (None, Some(_)) => Handler::OfApp,
            (None, None) => Handler::Program(build_handler().await?),
        })
    }
}

/// Mode of the files that keys are written to.
const OWNER_ONLY: u32 = 0o600;

/// Starts everything and stays up until a signal. One that comes during the start ends that, and what was started by then.
///
/// # Errors
/// If something does not start or a file cannot be written.
pub async fn run(options: Options) -> Result<(), StartError> {
    // Watched first: a signal during the start must not leave a handler behind.
    let mut signals = Signals::watch()?;
    let (world, control) = tokio::select! {
        started = start(options) => started?,
        () = signals.next() => return Ok(()),
    };
    signals.next().await;
    control.shutdown().await;
    // A call that did not end in time still holds the world: it ends with the process.
    if let Some(world) = Arc::into_inner(world) {
        world.shutdown().await;
    }
    Ok(())
}

async fn start(options: Options) -> Result<(Arc<World>, Control), StartError> {
    let Options { ports, control_port, event_hubs, bridge, by_hand, limits, without_stack_rights, env_file, json } =
        options;
    let infra = bridge.infra()?;
    let limits = match (&infra, limits) {
        (Some(infra), None) => Some(infra.tier()?),
        (_, given) => given,
    };
    let handler = if by_hand { Handler::ByHand } else { bridge.handler().await? };
    let world = World::start(WorldOptions {
        ports,
        event_hubs,
        infra,
        app_root: bridge.app_root()?,
        handler,
        settings: BTreeMap::new(),
        limits,
        without_stack_rights,
        log: Box::new(|line| eprintln!("{line}")),
    })
    .await?;
    let world = Arc::new(world);
    let control = Control::start(control_port, world.clone()).await?;
    let mut description = world.description();
    description["control"] = json!({"base_url": control.url()});
    if let Some(path) = &env_file {
        write(path, &world.env_file())?;
    }
    if let Some(path) = &json {
        write(path, &format!("{description:#}\n"))?;
    }
    println!("{description:#}");
    if by_hand {
        let file = env_file.map_or_else(|| "FILE of --env-file FILE".to_owned(), |path| path.display().to_string());
        println!("start the handler with: set -a; . {file}; set +a; cargo run --bin tts-iot-hub -- serve");
    }
    eprintln!("the page: {}", control.url());
    Ok((world, control))
}

/// Writes a file that nobody else may read: keys are in it.
fn write(path: &Path, text: &str) -> Result<(), StartError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(OWNER_ONLY).open(path)?;
        // That mode is for a new file. What is no file, such as a pipe, stays as it is.
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
        }
        file.write_all(text.as_bytes())
    };
    write().map_err(|error: std::io::Error| format!("write {}: {error}", path.display()).into())
}

/// The signals that end the simulator.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Watches for SIGINT and SIGTERM: from now on they no longer end the process by themselves.
    ///
    /// # Errors
    /// If the signals cannot be watched.
    pub fn watch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns on the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The folder with `host.json`: of the current folder's project, else of the one this program was built from.
///
/// # Errors
/// If there is none.
pub fn app_root() -> Result<PathBuf, StartError> {
    let here = std::env::current_dir()?;
    find_app_root(&here)
        .or_else(|| find_app_root(Path::new(env!("CARGO_MANIFEST_DIR"))))
        .ok_or_else(|| "there is no host.json here or above; start the simulator in the project's folder".into())
}

/// Builds the handler in the profile that the simulator itself was built in; returns its path.
///
/// # Errors
/// If cargo cannot be run or the build fails.
pub async fn build_handler() -> Result<PathBuf, StartError> {
    let root = app_root()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--package", "tts-iot-hub", "--bin", "tts-iot-hub", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build.current_dir(&root).stderr(Stdio::inherit()).output().await?;
    if !output.status.success() {
        return Err("the handler could not be built; its errors stand above".into());
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .ok_or_else(|| "cargo built the handler but did not say where it is".into())
}
