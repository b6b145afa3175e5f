//! Arguments and settings in; one of the commands out; nothing else.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use tokio::net::TcpListener;
use tts_iot_hub::cli::{self, Cli, Command, Failure};
use tts_iot_hub::config::Config;
use tts_iot_hub::event_hub_forwarder::EventHubForwarder;
use tts_iot_hub::event_hubs::EventHubs;
use tts_iot_hub::functions::Functions;
use tts_iot_hub::iot_hub::{IotHub, Share};
use tts_iot_hub::observability;
use tts_iot_hub::parked_uplinks::ParkedUplinks;
use tts_iot_hub::stack::Stack;
use tts_iot_hub::uplink_delivery::UplinkDelivery;
use tts_iot_hub::uplink_ingress::UplinkIngress;

/// Exit status for settings or arguments that must be mended; never 0, which some hosts take for a wish to stay down.
const EXIT_USAGE: u8 = 2;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve => serve(),
        Command::Settings => print_settings().map_err(Failure::from),
        Command::Version => {
            writeln!(io::stdout(), "{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).map_err(Failure::from)
        }
        Command::Webhook(command) => webhook(&command),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    // Whether anyone reads it or not, the status tells.
    let _ = writeln!(io::stderr(), "tts-iot-hub: {error}");
    match error {
        Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
        Failure::Failed(_) => ExitCode::FAILURE,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn webhook(command: &cli::webhook::Command) -> Result<(), Failure> {
    cli::webhook::run(command, vars(), &mut io::stdout().lock()).await
}

fn print_settings() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "| Setting | Default | Meaning |\n|---|---|---|")?;
    for (name, default, meaning) in tts_iot_hub::config::SETTINGS {
        writeln!(out, "| `{name}` | {default} | {meaning} |")?;
    }
    Ok(())
}

/// The variables of the process. Those that are not UTF-8 are none of ours.
fn vars() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn serve() -> Result<(), Failure> {
    let config = Config::from_vars(vars()).map_err(usage)?;
    observability::start(&config.log).map_err(usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(run(config))
}

/// Settings must be mended.
fn usage(error: impl Into<Error>) -> Failure {
    Failure::Usage(error.into().to_string())
}

fn failed(error: impl Into<Error>) -> Failure {
    Failure::Failed(error.into().to_string())
}

/// Wires the clients to the flows and the flows to the host.
async fn run(config: Config) -> Result<(), Failure> {
    let address = (Ipv4Addr::LOCALHOST, config.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        failed(format!("listen on 127.0.0.1:{}, where the Functions host expects the handler: {error}", config.port))
    })?;
    let (stack_config, uplink) = (&config.stack, &config.uplink);
    let hub = IotHub::new(&config.hub, &stack_config.application_id).map_err(usage)?;
    let stack = Arc::new(Stack::new(stack_config).map_err(usage)?);
    let event_hubs = Arc::new(EventHubs::new(&config.event_hubs).map_err(usage)?);
    let share = |share| Arc::new(hub.with_share(share));
    let delivery = |flow| Arc::new(UplinkDelivery::new(share(flow), uplink));

    let ingress = UplinkIngress::new(
        delivery(Share::UplinkIngress),
        Arc::clone(&event_hubs),
        stack_config.application_id.clone(),
        uplink.clone(),
    );
    let parked = ParkedUplinks::new(
        delivery(Share::ParkedUplinks),
        Arc::clone(&event_hubs),
        stack_config.application_id.clone(),
        uplink.clone(),
        config.event_hubs.parked_max_attempts,
    );
    let forwarder = EventHubForwarder::new(
        stack_config,
        config.hub.device_prefix.clone(),
        stack,
        share(Share::EventHubForwarder),
        Arc::clone(&event_hubs),
    );

    tracing::info!(version = env!("CARGO_PKG_VERSION"), port = config.port, hub = %config.hub.hostname, application = %stack_config.application_id, "serving");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let functions = Functions::new()
        .http(ingress.routes())
        .event_hub("ParkedUplinks", parked)
        .event_hub("EventHubForwarder", forwarder)
        .serve(listener, async { drop(stopped.await) });
    tokio::pin!(functions);
    tokio::select! {
        served = &mut functions => served.map_err(failed)?,
        signal = shutdown_signal() => {
            signal.map_err(failed)?;
            drop(stop);
            functions.await.map_err(failed)?;
        }
    }
    hub.close().await;
    event_hubs.close().await;
    Ok(())
}

/// Ends on SIGTERM or SIGINT.
async fn shutdown_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
