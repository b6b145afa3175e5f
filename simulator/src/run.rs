//! `simulator run`: start everything, say where it is, stay up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::world::{Handler, Ports, StartError, World, WorldOptions, find_app_root};

/// Starts everything and stays up until a signal.
///
/// # Errors
/// If something does not start or a file cannot be written.
pub async fn run(
    ports: Ports,
    handler: Handler,
    env_file: Option<PathBuf>,
    json: Option<PathBuf>,
) -> Result<(), StartError> {
    let by_hand = matches!(handler, Handler::ByHand);
    let world = World::start(WorldOptions {
        ports,
        app_root: app_root()?,
        handler,
        settings: BTreeMap::new(),
        log: Box::new(|line| eprintln!("{line}")),
    })
    .await?;
    if let Some(path) = &env_file {
        write(path, &world.env_file())?;
    }
    if let Some(path) = &json {
        write(path, &format!("{:#}\n", world.description()))?;
    }
    println!("{:#}", world.description());
    if by_hand {
        let file = env_file.map_or_else(|| "FILE of --env-file FILE".to_owned(), |path| path.display().to_string());
        println!("start the handler with: set -a; . {file}; set +a; cargo run --bin tts-iot-hub -- serve");
    }
    stay_up().await?;
    world.shutdown().await;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), StartError> {
    std::fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()).into())
}

/// Returns on SIGINT or SIGTERM.
///
/// # Errors
/// If the signals cannot be watched.
pub async fn stay_up() -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
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
