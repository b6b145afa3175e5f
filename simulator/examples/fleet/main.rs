//! The load proof: a fleet of devices, many of them connected at the same time, without an error, and what memory the
//! simulator needs for it.
//!
//! ```text
//! cargo build --release -p simulator
//! cargo run --release -p simulator --example fleet -- --devices 10000 --sessions 1000
//! ```
//!
//! The simulator runs in a process of its own, so that its memory is told from that of the clients. The devices are
//! created by bulk calls. Then each connects over TLS, sends telemetry with quality 1, patches its reported properties,
//! waits for both answers, stays until the wave of sessions is complete, and disconnects.

mod device;
mod hub;
mod process;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use hub::Hub;
use process::{Memory, Simulator};

/// Why the proof did not take place.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Handshakes that are under way at the same time, so that none waits for its time to run out.
const HANDSHAKES: usize = 64;
/// Sockets and files that a process needs beside those of the sessions.
const SPARE_FILES: usize = 128;
/// How many errors are printed.
const ERRORS_SHOWN: usize = 10;

#[derive(Parser)]
#[command(about = "Drives a fleet of devices through the simulated IoT Hub")]
struct Cli {
    /// How many devices there are.
    #[arg(long, default_value_t = 10_000)]
    devices: usize,
    /// How many of them are connected at the same time.
    #[arg(long, default_value_t = 1_000)]
    sessions: usize,
    /// The simulator to start; the one beside this program if none is given.
    #[arg(long, value_name = "PROGRAM")]
    simulator: Option<PathBuf>,
    /// Take a simulator that runs already: the file that its `--json` wrote.
    #[arg(long, value_name = "FILE", conflicts_with = "simulator")]
    world: Option<PathBuf>,
    /// The process id of that simulator, to read its memory.
    #[arg(long, requires = "world")]
    pid: Option<u32>,
    /// Print one JSON object in place of sentences.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match drive(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there was no error.
#[tokio::main]
async fn drive(cli: &Cli) -> Result<bool, Failure> {
    if cli.devices == 0 || cli.sessions == 0 {
        return Err("there must be a device and a session".into());
    }
    process::check_open_files(cli.sessions + SPARE_FILES)?;
    let simulator = match &cli.world {
        Some(file) => Simulator::running(file, cli.pid)?,
        None => Simulator::start(cli.simulator.clone()).await?,
    };
    let hub = Arc::new(Hub::new(&simulator.world)?);
    let before = simulator.memory()?;

    let begin = Instant::now();
    let ids: Vec<String> = (0..cli.devices).map(|n| format!("fleet-{n:06}")).collect();
    hub.create(&ids).await?;
    let created = begin.elapsed().as_secs_f64();
    let with_devices = simulator.memory()?;

    let begin = Instant::now();
    let waves = waves(&hub, &ids, cli.sessions, &simulator).await?;
    let driven = begin.elapsed().as_secs_f64();
    let after = simulator.memory()?;
    simulator.stop().await?;

    let report = json!({
        "devices": cli.devices,
        "sessions": {"total": waves.sessions, "at_once": waves.most_open, "per_second": waves.sessions as f64 / driven},
        "errors": waves.errors.len(),
        "seconds": {"create": created, "sessions": driven},
        "simulator_memory_kib": {"idle": before, "devices_created": with_devices, "sessions_open": waves.memory, "after": after},
    });
    tell(&report, &waves.errors, cli.json);
    Ok(waves.errors.is_empty())
}

/// What became of all sessions.
#[derive(Default)]
struct Waves {
    sessions: usize,
    most_open: usize,
    /// Of the simulator while most sessions were open.
    memory: Option<Memory>,
    errors: Vec<String>,
}

async fn waves(hub: &Arc<Hub>, ids: &[String], at_once: usize, simulator: &Simulator) -> Result<Waves, Failure> {
    let mut waves = Waves::default();
    for ids in ids.chunks(at_once) {
        let open = wave(hub, ids, &mut waves, simulator).await?;
        waves.sessions += ids.len();
        waves.most_open = waves.most_open.max(open);
    }
    Ok(waves)
}

/// Opens a session for each device, holds them until all are open, closes them. Returns how many were open at once.
async fn wave(hub: &Arc<Hub>, ids: &[String], waves: &mut Waves, simulator: &Simulator) -> Result<usize, Failure> {
    let (release, released) = watch::channel(false);
    let (arrive, mut arrived) = mpsc::channel(ids.len());
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut tasks = JoinSet::new();
    for id in ids {
        let (hub, id, arrive, handshakes) = (hub.clone(), id.clone(), arrive.clone(), handshakes.clone());
        let mut released = released.clone();
        tasks.spawn(async move {
            let session = device::open(&hub, &id, &handshakes).await;
            // Both channels outlive the task: the wave waits for it.
            let _ = arrive.send(session.is_ok()).await;
            let _ = released.wait_for(|released| *released).await;
            match session {
                Ok(session) => session.close().await.map_err(|error| format!("{id}: closing: {error}")),
                Err(error) => Err(format!("{id}: {error}")),
            }
        });
    }
    let mut open = 0;
    for _ in ids {
        open += usize::from(arrived.recv().await.unwrap_or_default());
    }
    if open >= waves.most_open {
        waves.memory = simulator.memory()?;
    }
    release.send_replace(true);
    while let Some(done) = tasks.join_next().await {
        waves.errors.extend(done?.err());
    }
    Ok(open)
}

fn tell(report: &Value, errors: &[String], as_json: bool) {
    for error in errors.iter().take(ERRORS_SHOWN) {
        eprintln!("{error}");
    }
    if as_json {
        println!("{report:#}");
        return;
    }
    let (sessions, seconds) = (&report["sessions"], &report["seconds"]);
    println!("{} devices created in {:.1} s", report["devices"], seconds["create"].as_f64().unwrap_or_default());
    println!(
        "{} sessions, {} at once, in {:.1} s: {:.0} a second, {} errors",
        sessions["total"],
        sessions["at_once"],
        seconds["sessions"].as_f64().unwrap_or_default(),
        sessions["per_second"].as_f64().unwrap_or_default(),
        report["errors"],
    );
    let memory = &report["simulator_memory_kib"];
    for moment in ["idle", "devices_created", "sessions_open", "after"] {
        let mib = |name: &str| memory[moment][name].as_f64().unwrap_or_default() / 1024.0;
        println!("simulator, {moment}: {:.1} MiB resident, {:.1} MiB at most", mib("VmRSS"), mib("VmHWM"));
    }
}
