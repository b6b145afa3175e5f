//! Services that are away as a whole: one fault per service, until it is switched off. Also the hub's clock, and the handler.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::problem::{Problem, Strict};
use crate::happenings::Kind;
use crate::world::World;
use crate::{event_hubs, iot_hub, stack};

const NONE: &str = "none";

const HUB: [(&str, iot_hub::Fault); 3] =
    [(NONE, iot_hub::Fault::None), ("silent", iot_hub::Fault::Silent), ("refuse", iot_hub::Fault::Refuse)];

const STACK: [(&str, stack::Fault); 6] = [
    (NONE, stack::Fault::None),
    ("unavailable", stack::Fault::Unavailable),
    ("rate_limited", stack::Fault::RateLimited),
    ("unauthorised", stack::Fault::Unauthorised),
    ("refuse", stack::Fault::Refuse),
    ("lose_answers", stack::Fault::LoseAnswers),
];

const EVENT_HUBS: [(&str, event_hubs::Fault); 5] = [
    (NONE, event_hubs::Fault::None),
    ("refuse", event_hubs::Fault::Refuse),
    ("reject_sends", event_hubs::Fault::RejectSends),
    ("busy", event_hubs::Fault::Busy),
    ("silent", event_hubs::Fault::Silent),
];

/// The services to switch; what is absent stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switches {
    hub: Option<String>,
    stack: Option<String>,
    event_hubs: Option<String>,
}

fn find<T: Copy>(service: &str, table: &[(&str, T)], name: Option<&str>) -> Result<Option<T>, Problem> {
    let Some(name) = name else { return Ok(None) };
    let found = table.iter().find(|(known, _)| *known == name);
    found.map(|(_, fault)| Some(*fault)).ok_or_else(|| {
        let known: Vec<_> = table.iter().map(|(known, _)| *known).collect();
        Problem::new(400, format!("`{service}` has no fault `{name}`; it knows {}", known.join(", ")))
    })
}

fn name<T: Copy + PartialEq>(table: &[(&'static str, T)], fault: T) -> &'static str {
    table.iter().find(|(_, known)| *known == fault).map_or("another", |(name, _)| *name)
}

/// What holds now, by service.
pub(super) fn now(world: &World) -> Value {
    json!({
        "hub": name(&HUB, world.iot_hub.fault()),
        "stack": name(&STACK, world.stack.fault()),
        "event_hubs": name(&EVENT_HUBS, world.event_hubs.fault()),
    })
}

/// `PUT /sim/switches {"hub": "silent"}`: all or nothing.
pub(super) async fn set(State(app): State<App>, Strict(wanted): Strict<Switches>) -> Result<Json<Value>, Problem> {
    let world = &app.world;
    let hub = find("hub", &HUB, wanted.hub.as_deref())?;
    let stack = find("stack", &STACK, wanted.stack.as_deref())?;
    let event_hubs = find("event_hubs", &EVENT_HUBS, wanted.event_hubs.as_deref())?;
    hub.into_iter().for_each(|fault| world.iot_hub.set_fault(fault));
    stack.into_iter().for_each(|fault| world.stack.set_fault(fault));
    event_hubs.into_iter().for_each(|fault| world.event_hubs.set_fault(fault));
    Ok(told(&app))
}

/// `DELETE /sim/switches`: nothing is broken any more: no service, no rule, and the hub's clock is right.
pub(super) async fn clear(State(app): State<App>) -> Json<Value> {
    app.world.faults.clear();
    app.world.iot_hub.skew_clock(0);
    app.world.iot_hub.set_fault(iot_hub::Fault::None);
    app.world.stack.set_fault(stack::Fault::None);
    app.world.event_hubs.set_fault(event_hubs::Fault::None);
    told(&app)
}

fn told(app: &App) -> Json<Value> {
    let now = now(&app.world);
    let broken = now.as_object().into_iter().flatten().filter(|(_, fault)| *fault != NONE);
    let mut broken: Vec<_> =
        broken.map(|(service, fault)| format!("{service} {}", fault.as_str().unwrap_or_default())).collect();
    let (rules, skew) = (app.world.faults.list().len(), app.world.iot_hub.clock_skew());
    broken.extend((rules > 0).then(|| format!("{rules} fault rule(s)")));
    broken.extend((skew != 0).then(|| format!("clock {skew:+} s")));
    app.world.happenings.note(Kind::Fault, None, || {
        let title =
            if broken.is_empty() { "all faults cleared".to_owned() } else { format!("faults: {}", broken.join(", ")) };
        (title, now.clone())
    });
    Json(now)
}

/// Ten years, in seconds: further than any token, certificate or message holds.
const MAX_SKEW_S: u64 = 10 * 365 * 24 * 3600;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Skew {
    skew_s: i64,
}

/// `POST /sim/clock {"skew_s": 600}`: the hub's clock is ten minutes fast; 0 sets it right.
pub(super) async fn skew_clock(State(app): State<App>, Strict(wanted): Strict<Skew>) -> Result<Json<Value>, Problem> {
    if wanted.skew_s.unsigned_abs() > MAX_SKEW_S {
        let message = format!("`skew_s` is {}; send at most {MAX_SKEW_S} (ten years), before or behind", wanted.skew_s);
        return Err(Problem::new(400, message));
    }
    app.world.iot_hub.skew_clock(wanted.skew_s);
    let told = json!({"skew_s": wanted.skew_s});
    app.world.happenings.note(Kind::Fault, None, || ("the hub's clock is set".to_owned(), told.clone()));
    Ok(Json(told))
}

/// `POST /sim/handler/kill`: as if someone else had killed it; the third time within half an hour stops the host.
pub(super) async fn kill_handler(State(app): State<App>) -> Result<Json<Value>, Problem> {
    end_handler(&app, "killed", || app.world.functions.kill_handler())
}

/// `POST /sim/handler/lose`: the instance is lost without notice and another starts, as often as one likes.
pub(super) async fn lose_instance(State(app): State<App>) -> Result<Json<Value>, Problem> {
    end_handler(&app, "lost", || app.world.functions.lose_instance())
}

fn end_handler(app: &App, what: &str, end: impl FnOnce()) -> Result<Json<Value>, Problem> {
    let Some(pid) = app.world.functions.handler_pid() else {
        return Err(Problem::new(409, "the Functions host runs no handler now: it starts, or was started by hand"));
    };
    end();
    app.world.happenings.note(Kind::Fault, None, || (format!("handler {what}"), json!({"pid": pid})));
    Ok(Json(json!({"pid": pid})))
}
