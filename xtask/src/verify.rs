//! Checks a package by reading it again: names, mode bits, linkage, and what the binary says.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{Cursor, ErrorKind, Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use crate::archive::{EXECUTABLE_MODE, FILE_MODE};
use crate::{compile, contents, elf};

/// More than a package ever unpacks to; bounds what a wrong zip can take of memory.
const MAX_UNPACKED_BYTES: u64 = 512 << 20;

/// What was checked and found good.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The executable's name in the zip.
    pub(crate) executable: String,
    /// What it says about itself.
    pub(crate) says: String,
    /// Number of files.
    pub(crate) files: usize,
    /// Bytes of the zip, and of the executable in it.
    pub(crate) bytes: usize,
    pub(crate) executable_bytes: usize,
    /// SHA-256 of the zip, in hex.
    pub(crate) sha256: String,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "{} files, {} bytes ({:.1} MiB)", self.files, self.bytes, mib(self.bytes))?;
        let unpacked = mib(self.executable_bytes);
        writeln!(f, "{}: {unpacked:.1} MiB, static, x86-64, says `{}`", self.executable, self.says)?;
        write!(f, "sha256 {}", self.sha256)
    }
}

/// Checks the package at a path. It runs the binary in it. It must have exactly these functions.
///
/// # Errors
/// If it cannot be read, or is not what a package of this version must be.
pub(crate) fn file(path: &Path, version: &str, functions: &BTreeSet<String>) -> Result<Verified> {
    let whose = || format!("verify {}", path.display());
    let zip = fs::read(path).with_context(whose)?;
    verify(&zip, version, functions).with_context(whose)
}

/// Checks a package.
///
/// # Errors
/// As [`file`].
pub(crate) fn verify(zip: &[u8], version: &str, functions: &BTreeSet<String>) -> Result<Verified> {
    let (bytes, sha256) = (zip.len(), hex(&Sha256::digest(zip)));
    let entries = entries(zip)?;
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    let content = |name: &str| entries.iter().find(|entry| entry.name == name).map(|entry| entry.bytes.as_slice());
    let host_json = content(contents::HOST_JSON).context("it has no host.json at its root")?;
    let executable = contents::executable(&names, host_json)?;
    let found: BTreeSet<String> = names.iter().filter_map(|name| contents::function(name)).map(str::to_owned).collect();
    ensure!(found == *functions, "its functions are {}, not {}", listed(&found), listed(functions));
    for entry in entries.iter().filter(|entry| contents::function(&entry.name).is_some()) {
        let document: serde_json::Result<Map<String, Value>> = serde_json::from_slice(&entry.bytes);
        document.with_context(|| format!("{}: read it as a JSON object", entry.name))?;
    }
    for Entry { name, mode, .. } in &entries {
        let wanted = if *name == executable { EXECUTABLE_MODE } else { FILE_MODE };
        let found = mode.with_context(|| format!("{name}: it has no Unix mode bits"))? & 0o7777;
        ensure!(found == wanted, "{name}: its mode is {found:o}, not {wanted:o}");
    }
    let unpacked = content(&executable).context("the executable is there")?;
    let says = binary(unpacked, version).with_context(|| executable.clone())?;
    Ok(Verified { executable_bytes: unpacked.len(), executable, says, files: names.len(), bytes, sha256 })
}

/// Checks a binary, and returns what it says about itself. It runs it.
///
/// # Errors
/// If it is not static, not for x86-64 Linux, or not of this version.
pub(crate) fn binary(bytes: &[u8], version: &str) -> Result<String> {
    elf::must_be_static(bytes)?;
    let says = ask_version(bytes)?;
    let wanted = format!("tts-iot-hub {version}");
    ensure!(says == wanted, "it says `{says}`, not `{wanted}`");
    Ok(says)
}

struct Entry {
    name: String,
    mode: Option<u32>,
    bytes: Vec<u8>,
}

fn entries(zip: &[u8]) -> Result<Vec<Entry>> {
    let mut zip = ZipArchive::new(Cursor::new(zip)).context("read it as a zip")?;
    let mut room = MAX_UNPACKED_BYTES;
    let mut entries = vec![];
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index)?;
        let name = entry.name()?.into_owned();
        ensure!(entry.is_file(), "{name}: a package holds plain files only");
        let mut bytes = vec![];
        // Reading to the end checks the CRC.
        room -= entry.by_ref().take(room).read_to_end(&mut bytes).with_context(|| format!("unpack {name}"))? as u64;
        ensure!(room > 0, "it unpacks to more than {} MiB", MAX_UNPACKED_BYTES >> 20);
        entries.push(Entry { mode: entry.unix_mode(), name, bytes });
    }
    Ok(entries)
}

/// Runs `version` in an empty environment.
fn ask_version(binary: &[u8]) -> Result<String> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "its version cannot be asked here: the binary runs on x86-64 Linux only"
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("program");
    let mut file = File::create(&path)?;
    file.write_all(binary)?;
    drop(file);
    compile::make_executable(&path)?;
    let output = output(Command::new(&path).arg("version").env_clear().current_dir(&folder))?;
    if !output.status.success() {
        bail!("`version` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a program that was just written. A thread that forks meanwhile holds the file open for writing until it execs,
/// and Linux runs no such file: "text file busy" passes.
fn output(command: &mut Command) -> Result<std::process::Output> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let start = Instant::now();
    loop {
        match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && start.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            other => return other.context("run `version`"),
        }
    }
}

fn listed(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
