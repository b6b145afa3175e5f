//! `simulator demo`: the main job, both ways, told as a short story.

mod acts;
mod corpus;
mod report;
mod story;

use std::path::PathBuf;

use crate::infra::Infra;
use crate::run::{Bridge, Signals};
use crate::world::{EventHubsOptions, Ports, StartError, World, WorldOptions};
use acts::Stage;
use report::Report;
use story::Story;

/// What to play.
#[derive(Debug)]
pub struct Options {
    /// Print one JSON object in place of the story.
    pub json: bool,
    /// How many generated uplinks to play.
    pub uplinks: usize,
    /// NDJSON file of decoded payloads to play too.
    pub payloads: Option<PathBuf>,
    /// Stay up afterwards.
    pub keep: bool,
    /// What to run between the services.
    pub bridge: Bridge,
}

/// Plays the main job. Returns whether nothing is missing.
///
/// # Errors
/// If something cannot be started or a service refuses what it must take.
pub async fn demo(options: Options) -> Result<bool, StartError> {
    let payloads = options.payloads.as_deref().map(corpus::read).transpose()?.unwrap_or_default();
    let infra = options.bridge.infra()?;
    let mut story = Story::new(options.json);
    story.scene("The handler is built and the services start");
    if let Some(infra) = &infra {
        tell_of(infra, &mut story);
    }
    let world = start(infra, &options.bridge, !payloads.is_empty(), &mut story).await?;
    story.tell(format_args!(
        "IoT Hub on port {}, its service API on {}, Event Hubs on {}, The Things Stack on {}, the Functions host on {}",
        world.iot_hub.mqtt_addr().port(),
        world.iot_hub.https_addr().port(),
        world.event_hubs.addr().port(),
        world.stack.addr().port(),
        world.functions.addr().port()
    ));

    let mut stage = Stage::new(&world)?;
    stage.devices(&mut story).await?;
    stage.waiting_downlink(&mut story).await?;
    stage.message_types(&mut story).await?;
    stage.uplinks(&mut story, options.uplinks).await?;
    stage.payloads(&mut story, &payloads).await?;
    stage.downlinks(&mut story).await?;
    stage.outage(&mut story).await?;
    stage.dead_letter(&mut story).await?;
    stage.deletion(&mut story).await?;
    let settled = stage.settle(&mut story).await;

    let report = Report::gather(&world, &stage, settled);
    if options.json {
        println!("{:#}", report.json());
    } else {
        story.close(&report);
    }
    if options.keep {
        what_next(&world)?;
        Signals::watch()?.next().await;
    }
    world.shutdown().await;
    Ok(report.missing().is_empty())
}

fn tell_of(infra: &Infra, story: &mut Story) {
    story.tell(format_args!(
        "the template says: hub {}, Event Hubs {}, {} routes, {} role assignments, {} app settings",
        infra.hub.host_name,
        infra.namespace.host_name,
        infra.hub.routes.len(),
        infra.assignments().len(),
        infra.app.settings.len()
    ));
    story.tell(format_args!(
        "its size {} × {:?} holds for routes and endpoints; the story takes a day in a minute, so rates and quota are left out",
        infra.hub.sku.1, infra.hub.sku.0
    ));
    story.tell("changed is only what leads to this machine; every door asks for the role or the right");
}

async fn start(
    infra: Option<Infra>,
    bridge: &Bridge,
    has_corpus: bool,
    story: &mut Story,
) -> Result<World, StartError> {
    // The host's and the handler's lines are for the one who looks for them: RUST_LOG=simulator=info.
    let log = Box::new(|line: &str| tracing::info!("{line}"));
    // A corpus brings more devices than an S1 hub makes in a minute. Without one a template's settings stay as they are.
    let is_large = has_corpus || infra.is_none();
    if is_large && infra.is_some() {
        story.tell("IOTHUB_SKU is S3 in place of the template's: the payloads bring more devices than a smaller hub makes in a minute");
    }
    let sku = is_large.then(|| ("IOTHUB_SKU".to_owned(), "S3".to_owned()));
    World::start(WorldOptions {
        ports: Ports::default(),
        event_hubs: EventHubsOptions::default(),
        infra,
        app_root: bridge.app_root()?,
        handler: bridge.handler().await?,
        settings: sku.into_iter().collect(),
        limits: None,
        without_stack_rights: Vec::new(),
        log,
    })
    .await
}

fn what_next(world: &World) -> Result<(), StartError> {
    let (url, headers) = world.webhook();
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("-H '{name}: {value}'")).collect();
    let up = r#"{"end_device_ids":{"device_id":"by-hand","application_ids":{"application_id":"APP"}},"uplink_message":{"f_port":1,"decoded_payload":{"hello":"hub"}}}"#
        .replace("APP", world.application_id());
    let description = world.ca_file().with_file_name("world.json");
    std::fs::write(&description, format!("{:#}\n", world.description()))?;
    println!("\nEverything stays up until ctrl-c. Try an uplink of your own:\n");
    println!("  curl -i {} -H 'Content-Type: application/json' \\\n    -d '{up}' \\\n    {url}\n", headers.join(" "));
    println!("Endpoints, keys and the CA file: {}", description.display());
    Ok(())
}
