//! The commands of the program beside `serve`.

pub mod webhook;

use std::io;

use clap::{Parser, Subcommand};

/// The arguments of the program.
#[derive(Debug, Parser)]
#[command(
    name = "tts-iot-hub",
    version,
    about = "Bridge between The Things Stack and Azure IoT Hub",
    after_help = "All settings come from the environment; README.md explains them."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer the Azure Functions host (it starts this command itself).
    Serve,
    /// Print the table of app settings.
    Settings,
    /// Print the version.
    Version,
    /// Look after the webhook in The Things Stack.
    #[command(subcommand)]
    Webhook(webhook::Command),
}

/// How a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Settings or arguments must be mended: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed: exit status 1.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("write to standard output: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_started_as_the_functions_host_starts_it() {
        let cli = Cli::try_parse_from(["tts-iot-hub", "serve"]).expect("the argument of host.json");
        assert!(matches!(cli.command, Command::Serve));
        Cli::try_parse_from(["tts-iot-hub", "serve", "more"]).expect_err("nothing more is taken");
        Cli::try_parse_from(["tts-iot-hub"]).expect_err("something must be done");
    }
}
