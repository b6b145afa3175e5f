//! The simulator as a program: `run` starts the services and stays up, `demo` plays the main job.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use simulator::demo;
use simulator::event_hubs::RETAINED_BYTES;
use simulator::iot_hub::{Sku, Tier};
use simulator::run::{self, Bridge};
use simulator::world::{EventHubsOptions, Ports};

const MIB: u64 = 1024 * 1024;

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
    #[command(flatten)]
    event_hubs: EventHubsArgs,
    /// The control API and the local page, on 127.0.0.1; 0 picks a free port.
    #[arg(long, default_value_t = 7072)]
    control_port: u16,
    /// Write the settings for the handler to this file.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Write endpoints, CA file, policies and keys to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Start everything but the handler; the Functions host waits for it on the port that the settings name.
    #[arg(long, conflicts_with = "handler")]
    no_handler: bool,
    #[command(flatten)]
    bridge: BridgeArgs,
    /// Take this right, such as RIGHT_APPLICATION_SETTINGS_BASIC, from the API key of The Things Stack; may be given several times.
    #[arg(long = "without-stack-right", value_name = "RIGHT")]
    without_stack_rights: Vec<String>,
    /// Limit the hub to the rates and the daily quota of this size: F1, S1, S2 or S3. Without it they are those of the
    /// template's hub, and without a template nothing is limited.
    #[arg(long)]
    sku: Option<Sku>,
    /// How many units of that size.
    #[arg(long, default_value_t = 1, requires = "sku")]
    units: u32,
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
    /// Event Hubs and the hub's service side: AMQP over TLS.
    #[arg(long, default_value_t = 5671)]
    amqps_port: u16,
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
            amqps: args.amqps_port,
            functions: args.functions_port,
        }
    }
}

#[derive(Args)]
struct EventHubsArgs {
    /// A consumer group that the Event Hubs have beside $Default; may be given several times.
    #[arg(long = "consumer-group", value_name = "NAME", conflicts_with = "infra")]
    consumer_groups: Vec<String>,
    /// How many MiB of events each partition keeps.
    #[arg(long, value_name = "MIB", default_value_t = RETAINED_BYTES / MIB)]
    retention_mib: u64,
}

impl From<EventHubsArgs> for EventHubsOptions {
    fn from(args: EventHubsArgs) -> Self {
        Self { consumer_groups: args.consumer_groups, retained_bytes: args.retention_mib.saturating_mul(MIB) }
    }
}

#[derive(Args)]
struct BridgeArgs {
    /// Take host names, policies, routes, Event Hubs, roles and app settings from a template that `bicep snapshot` evaluated, and
    /// let everyone do what that says and nothing else.
    #[arg(long, value_name = "FILE")]
    infra: Option<PathBuf>,
    /// The unpacked package: a folder with host.json, the functions, and the executable that host.json names.
    #[arg(long, value_name = "FOLDER")]
    app: Option<PathBuf>,
    /// The handler to start; that of the package if one is given, else it is built.
    #[arg(long, value_name = "PROGRAM")]
    handler: Option<PathBuf>,
}

impl From<BridgeArgs> for Bridge {
    fn from(args: BridgeArgs) -> Self {
        Self { infra: args.infra, app: args.app, handler: args.handler }
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
    #[command(flatten)]
    bridge: BridgeArgs,
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
            let limits = args.sku.map(|sku| Tier::new(sku, args.units)).transpose()?;
            run::run(run::Options {
                ports: args.ports.into(),
                control_port: args.control_port,
                event_hubs: args.event_hubs.into(),
                bridge: args.bridge.into(),
                by_hand: args.no_handler,
                limits,
                without_stack_rights: args.without_stack_rights,
                env_file: args.env_file,
                json: args.json,
            })
            .await?;
            Ok(true)
        }
        Command::Demo(args) => {
            demo::demo(demo::Options {
                json: args.json,
                uplinks: args.uplinks,
                payloads: args.payloads,
                keep: args.keep,
                bridge: args.bridge.into(),
            })
            .await
        }
    }
}
