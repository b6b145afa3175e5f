//! Builds the binary of the package.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::project::Project;
use crate::verify;

/// What the package is built for: no Functions plan is known to run custom handlers on another machine.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Package and binary.
pub(crate) const NAME: &str = "tts-iot-hub";
/// The profile in Cargo.toml. Thin link-time optimisation was tried: 23.6 MB in place of 23.4, so it has none.
const PROFILE: &str = "release";

/// Whether this machine can build the package.
///
/// # Errors
/// Where it cannot, with what to do instead.
pub(crate) fn can_build_here() -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")),
        "the package is built on x86-64 Linux with glibc only, because it is linked statically and run to check it; \
         here, deploy tts-iot-hub-linux-x64.zip of a release, or build in the container of infra/container"
    );
    Ok(())
}

/// Builds the static binary and says where it is.
///
/// # Errors
/// If the build fails.
pub(crate) fn release_binary(project: &Project) -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&project.root)
        .args(["build", "--locked", "--package", NAME, "--bin", NAME, "--profile", PROFILE])
        // With a target named, the flags are for the binary only and not for build scripts and macros, which cannot be static.
        .args(["--target", TARGET])
        .arg("--target-dir")
        .arg(&project.target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(project).join("\u{1f}"));
    let status = command.status().context("run cargo")?;
    ensure!(status.success(), "cargo build ended with {status}");
    Ok(project.target.join(TARGET).join(PROFILE).join(NAME))
}

/// Static, and without the paths of this machine in the texts of panics.
fn flags(project: &Project) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    // The last that fits counts, and one folder can lie in the other.
    if let Some(cargo_home) = cargo_home {
        flags.push(format!("--remap-path-prefix={}=/cargo", cargo_home.display()));
    }
    flags.push(format!("--remap-path-prefix={}=/{NAME}", project.root.display()));
    flags
}

/// Puts the binary where host.json looks for it, so that the folder can be run and published as it is.
///
/// # Errors
/// If it is not what a package needs, or cannot be read or written; then what is staged stays.
pub(crate) fn stage(binary: &Path, staged: &Path, version: &str) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("read the binary {}", binary.display()))?;
    verify::binary(&bytes, version).with_context(|| binary.display().to_string())?;
    let folder = staged.parent().context("a folder for the binary")?;
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    // Replaced in one step: a process may be running the one that is there.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&bytes)?;
    make_executable(new.path())?;
    new.persist(staged).with_context(|| format!("write {}", staged.display()))?;
    Ok(())
}

/// Sets the mode bits of a file that is to be run.
///
/// # Errors
/// If the system does not let us.
#[cfg(unix)]
pub(crate) fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(crate::archive::EXECUTABLE_MODE))
}

/// Lets everyone read a file.
///
/// # Errors
/// If the system does not let us.
#[cfg(unix)]
pub(crate) fn make_readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(crate::archive::FILE_MODE))
}

/// Elsewhere there are no such bits.
#[cfg(not(unix))]
pub(crate) fn make_readable(_: &fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Elsewhere there are no such bits.
#[cfg(not(unix))]
pub(crate) fn make_executable(_: &Path) -> std::io::Result<()> {
    Ok(())
}
