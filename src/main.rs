//! Arguments and settings in; one of the commands out; nothing else.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use tokio::net::TcpListener;
use tts_iot_hub::cli::{self, Cli, Command};
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

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve => report(serve()),
        Command::Settings => {
            print_settings();
            ExitCode::SUCCESS
        }
        Command::Version => {
            println!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Command::Webhook(command) => finish(webhook(&command)),
    }
}

fn report(result: Result<(), Failure>) -> ExitCode {
    finish(result.map_err(|error| cli::Failure::Usage(error.to_string())))
}

fn finish(result: Result<(), cli::Failure>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("tts-iot-hub: {error}");
    match error {
        cli::Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
        cli::Failure::Failed(_) => ExitCode::FAILURE,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn webhook(command: &cli::webhook::Command) -> Result<(), cli::Failure> {
    cli::webhook::run(command, vars()).await
}

fn print_settings() {
    println!("| Setting | Default | Meaning |\n|---|---|---|");
    for (name, default, meaning) in tts_iot_hub::config::SETTINGS {
        println!("| `{name}` | {default} | {meaning} |");
    }
}

/// The variables of the process. Those that are not UTF-8 are none of ours.
fn vars() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn serve() -> Result<(), Failure> {
    let config = Config::from_vars(vars())?;
    observability::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(config))
}

/// Wires the clients to the flows and the flows to the host.
async fn run(config: Config) -> Result<(), Failure> {
    let address = (Ipv4Addr::LOCALHOST, config.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        format!("listen on 127.0.0.1:{}, where the Functions host expects the handler: {error}", config.port)
    })?;
    let (stack_config, uplink) = (&config.stack, &config.uplink);
    let hub = IotHub::new(&config.hub, &stack_config.application_id)?;
    let stack = Arc::new(Stack::new(stack_config)?);
    let event_hubs = Arc::new(EventHubs::new(&config.event_hubs)?);
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
        served = &mut functions => served?,
        signal = shutdown_signal() => {
            signal?;
            drop(stop);
            functions.await?;
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
