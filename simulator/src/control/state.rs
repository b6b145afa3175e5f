//! What there is, and what it does: read by the page and by scripts.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::problem::{Asked, Problem};
use super::{App, faults, switches};
use crate::world::{LOCAL_USER, World};

/// Most devices in one answer.
const MAX_DEVICES: usize = 200;

#[derive(Debug, Default, Deserialize)]
pub(super) struct Filter {
    /// A part of the device ids that are asked for.
    #[serde(default)]
    q: String,
    limit: Option<usize>,
    /// A device that is told apart from these, wherever it stands.
    device: Option<String>,
}

/// `GET /sim/world`: endpoints, keys and the CA file.
pub(super) async fn world(State(app): State<App>) -> Json<Value> {
    Json(app.world.description())
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    resource: String,
}

/// How long they hold, as Microsoft Entra's usually do.
const TOKEN_LIFETIME: time::Duration = time::Duration::hours(1);

/// `GET /sim/token?resource=https://iothubs.azure.net`: a bearer token, as managed identities get theirs.
pub(super) async fn token(State(app): State<App>, Asked(wanted): Asked<Wanted>) -> Result<Json<Value>, Problem> {
    let ends = (time::OffsetDateTime::now_utc() + TOKEN_LIFETIME).unix_timestamp();
    let token = app.world.entra.mint(&wanted.resource, LOCAL_USER, TOKEN_LIFETIME);
    let token = token.map_err(|error| Problem::new(500, error.to_string()))?;
    Ok(Json(json!({"access_token": token, "token_type": "Bearer", "expires_on": ends})))
}

/// `GET /sim/state?q=…&limit=…&device=…`: devices with their twins, counters, queues, the handler, what is broken on
/// purpose, and the number of the newest happening.
pub(super) async fn state(State(app): State<App>, Asked(filter): Asked<Filter>) -> Json<Value> {
    let world = &app.world;
    let limit = filter.limit.unwrap_or(MAX_DEVICES).min(MAX_DEVICES);
    Json(json!({
        "hub": world.iot_hub.overview(&filter.q, limit, filter.device.as_deref()),
        "meters": meters(world),
        "event_hubs": event_hubs(world),
        "handler": handler(world),
        "stack": stack(world),
        "switches": switches::now(world),
        "faults": faults::now(world),
        "clock_skew_s": world.iot_hub.clock_skew(),
        "newest_seq": *world.happenings.newest().borrow(),
    }))
}

fn meters(world: &World) -> Value {
    let hub = world.iot_hub.counters();
    json!({
        "billed": world.iot_hub.billed(),
        "connects": hub.connects,
        "connects_refused": hub.connects_refused,
        "takeovers": hub.takeovers,
        "messages": hub.telemetry_accepted,
        "twin_reads": hub.twins_read,
        "twin_writes": hub.twins_patched,
        "twin_writes_refused": hub.twins_refused,
        "devices_created": hub.devices_created,
        "devices_deleted": hub.devices_deleted,
    })
}

/// For each Event Hub how many events it holds, and how far its reader is behind.
fn event_hubs(world: &World) -> Value {
    let length =
        |hub: &crate::event_hubs::EventHub| (0..hub.partition_count()).map(|number| hub.end(number)).sum::<i64>();
    let lag = |name: &str| world.functions.lag_at(name);
    let hubs =
        world.events.hubs().map(|hub| (hub.name().to_owned(), json!({"events": length(hub), "lag": lag(hub.name())})));
    hubs.collect::<Map<_, _>>().into()
}

fn handler(world: &World) -> Value {
    let counters = world.functions.counters();
    // The process alone does not tell: one that was started by hand has none here, and a new one takes no calls yet.
    let state = match (world.functions.is_stopped(), world.functions.is_ready()) {
        (true, _) => "stopped",
        (false, true) => "running",
        (false, false) => "starting",
    };
    json!({
        "state": state,
        "pid": world.functions.handler_pid(),
        "restarts": counters.restarts,
        "http_calls": counters.http_calls,
        "batches": counters.batches,
        "retries": counters.retries,
    })
}

fn stack(world: &World) -> Value {
    let (counters, mut overview) = (world.stack.counters(), world.stack.overview(MAX_DEVICES));
    overview["webhooks"] = json!({
        "sent": counters.sent,
        "acknowledged": counters.acknowledged,
        "refused": counters.refused,
        "outcomes": counters.outcomes,
    });
    overview["downlinks_queued"] = json!(counters.downlinks_queued);
    overview
}
