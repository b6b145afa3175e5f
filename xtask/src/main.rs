//! What the project does to itself; `cargo xtask help` lists it.

mod archive;
mod compile;
mod contents;
mod costs;
mod elf;
mod funcignore;
mod package;
mod project;
mod sbom;
#[cfg(test)]
mod testing;
mod tree;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use project::Project;

/// Packages tts-iot-hub for Azure Functions, and what else the project does to itself.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the static binary, stage it as bin/tts-iot-hub, and write the package with its SHA-256 and SBOM
    Package {
        /// Pack this binary in place of building one; no SBOM then, for nobody knows what is in it
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Check a package as the packer does; this runs the binary in it
    Verify {
        /// The package
        zip: PathBuf,
    },
    /// Print the tables of docs/costs.md
    Costs,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Package { binary } => {
            let project = Project::find()?;
            match binary {
                Some(binary) => package::pack_given(&project, &binary)?,
                None => package::build_and_pack(&project)?,
            }
        }
        Command::Verify { zip } => {
            println!("{}", verify::file(&zip, env!("CARGO_PKG_VERSION"), &Project::find()?.functions()?)?)
        }
        Command::Costs => print!("{}", costs::tables()),
    }
    Ok(())
}
