//! The simulator as a program: `run` starts the services and stays up, `demo` plays the main job.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use simulator::world::{Handler, Ports};
use simulator::{demo, run};

#[derive(Parser)]
#[command(version, about = "Azure IoT Hub, Event Hubs, the Functions host and The Things Stack on one machine")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything and stay up until SIGINT or SIGTERM.
    Run(Run),
    /// Play the main job, both ways, and tell it as a story.
    Demo(Demo),
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    ports: PortArgs,
    /// Write the settings for the handler to this file.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Write endpoints, CA file, policies and keys to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Start everything but the handler; the Functions host waits for it on the port that the settings name.
    #[arg(long, conflicts_with = "handler")]
    no_handler: bool,
    /// The handler to start; it is built if none is given.
    #[arg(long, value_name = "PROGRAM")]
    handler: Option<PathBuf>,
}

/// 0 picks a free port.
#[derive(Args)]
struct PortArgs {
    /// IoT Hub: MQTT over TLS.
    #[arg(long, default_value_t = 8883)]
    mqtt_port: u16,
    /// IoT Hub: service API over TLS (the real one is on 443).
    #[arg(long, default_value_t = 8443)]
    hub_https_port: u16,
    /// The Things Stack: API over HTTP.
    #[arg(long, default_value_t = 1885)]
    stack_port: u16,
    /// Event Hubs: AMQP without TLS, as of Microsoft's Event Hubs emulator.
    #[arg(long, default_value_t = 5672)]
    event_hubs_port: u16,
    /// The Functions host.
    #[arg(long, default_value_t = 7071)]
    functions_port: u16,
}

impl From<PortArgs> for Ports {
    fn from(args: PortArgs) -> Self {
        Self {
            mqtt: args.mqtt_port,
            hub_https: args.hub_https_port,
            stack: args.stack_port,
            event_hubs: args.event_hubs_port,
            functions: args.functions_port,
        }
    }
}

#[derive(Args)]
struct Demo {
    /// Print one JSON object in place of the story.
    #[arg(long)]
    json: bool,
    /// How many generated uplinks to play beside the fixtures.
    #[arg(long, default_value_t = 300)]
    uplinks: usize,
    /// Play the decoded payloads of this NDJSON file too (a member `decoded_payload` per line).
    #[arg(long, value_name = "FILE")]
    payloads: Option<PathBuf>,
    /// Stay up afterwards and print what to try next.
    #[arg(long, conflicts_with = "json")]
    keep: bool,
    /// The handler to start; it is built if none is given.
    #[arg(long, value_name = "PROGRAM")]
    handler: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Logs go to stderr: stdout belongs to the story.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match start(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing is missing.
#[tokio::main]
async fn start(command: Command) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    match command {
        Command::Run(args) => {
            let handler = match (args.no_handler, args.handler) {
                (true, _) => Handler::ByHand,
                (false, Some(program)) => Handler::Program(program),
                (false, None) => Handler::Program(run::build_handler().await?),
            };
            run::run(args.ports.into(), handler, args.env_file, args.json).await?;
            Ok(true)
        }
        Command::Demo(args) => {
            demo::demo(demo::Options {
                json: args.json,
                uplinks: args.uplinks,
                payloads: args.payloads,
                keep: args.keep,
                handler: args.handler,
            })
            .await
        }
    }
}
