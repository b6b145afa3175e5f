//! The process of the simulator: starting it, reading its memory.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Failure;

/// How long the simulator may take to end; the Functions host gives calls half a minute.
const STOP_TIME: Duration = Duration::from_secs(60);

/// The memory of a process in KiB, as the kernel tells it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Resident now.
    #[serde(rename = "VmRSS")]
    resident: u64,
    /// Resident at most so far.
    #[serde(rename = "VmHWM")]
    most: u64,
}

/// A simulator that runs.
pub(crate) struct Simulator {
    /// What it says of itself.
    pub(crate) world: Value,
    pid: Option<u32>,
    child: Option<Child>,
}

impl Simulator {
    /// One that someone else has started.
    pub(crate) fn running(world: &Path, pid: Option<u32>) -> Result<Self, Failure> {
        let world = serde_json::from_slice(&std::fs::read(world)?)?;
        Ok(Self { world, pid, child: None })
    }

    /// Starts one on free ports, without a handler.
    pub(crate) async fn start(program: Option<PathBuf>) -> Result<Self, Failure> {
        let program = program.map_or_else(beside_this_program, Ok)?;
        let mut command = Command::new(&program);
        command.args(["run", "--no-handler"]);
        for port in [
            "--mqtt-port",
            "--hub-https-port",
            "--stack-port",
            "--event-hubs-port",
            "--amqps-port",
            "--functions-port",
            "--control-port",
        ] {
            command.args([port, "0"]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("start {}: {error}", program.display()))?;
        let stdout = child.stdout.take().ok_or("the simulator has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let world = description(&mut lines).await?;
        // What it says later is read and dropped, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { world, pid: child.id(), child: Some(child) })
    }

    /// Its memory, if its process is known.
    pub(crate) fn memory(&self) -> Result<Option<Memory>, Failure> {
        let Some(pid) = self.pid else { return Ok(None) };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        Ok(Some(Memory { resident: field("VmRSS"), most: field("VmHWM") }))
    }

    /// Ends it, if this program has started it: as a user does, and by force if that takes too long.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        let Some(child) = &mut self.child else { return Ok(()) };
        // No id: it has ended by itself.
        if let Some(pid) = child.id() {
            let script = r#"kill -s TERM "$0""#;
            Command::new("sh").args(["-c", script, &pid.to_string()]).stderr(Stdio::null()).status().await?;
        }
        match tokio::time::timeout(STOP_TIME, child.wait()).await {
            Ok(status) => {
                let status = status?;
                if status.success() { Ok(()) } else { Err(format!("the simulator ended with {status}").into()) }
            }
            Err(_) => {
                child.kill().await?;
                Err(format!("the simulator did not end within {} s of SIGTERM", STOP_TIME.as_secs()).into())
            }
        }
    }
}

/// The JSON object that it prints once it is up.
async fn description(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Value, Failure> {
    let mut text = String::new();
    while let Some(line) = lines.next_line().await? {
        text.push_str(&line);
        if line == "}" {
            return Ok(serde_json::from_str(&text)?);
        }
    }
    Err("the simulator ended before it was up".into())
}

/// Cargo puts examples into a folder beside the programs.
fn beside_this_program() -> Result<PathBuf, Failure> {
    let folder = std::env::current_exe()?;
    let program = folder.ancestors().nth(2).map(|folder| folder.join("simulator"));
    program.filter(|program| program.is_file()).ok_or_else(|| {
        "there is no simulator beside this program; build it, or say where it is with --simulator".into()
    })
}

/// Refuses to begin what would end in the middle. The simulator inherits the limit of this process.
pub(crate) fn check_open_files(needed: usize) -> Result<(), Failure> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    match soft {
        Some(soft) if soft < needed => {
            Err(format!("{needed} open files are needed and {soft} allowed; run `ulimit -n {needed}` first").into())
        }
        // "unlimited", which is no number, is enough.
        _ => Ok(()),
    }
}
