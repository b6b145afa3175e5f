//! What the user does to a device of the hub.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::App;
use super::problem::{Named, Problem, Strict};

type Answer = Result<Json<Value>, Problem>;

pub(super) async fn enable(State(app): State<App>, Named(id): Named<String>) -> Answer {
    set_enabled(&app, &id, true)
}

pub(super) async fn disable(State(app): State<App>, Named(id): Named<String>) -> Answer {
    set_enabled(&app, &id, false)
}

fn set_enabled(app: &App, id: &str, enabled: bool) -> Answer {
    if !app.world.iot_hub.set_device_enabled(id, enabled) {
        return Err(Problem::no_device(id));
    }
    Ok(Json(json!({"device": id, "status": if enabled { "enabled" } else { "disabled" }})))
}

/// Closes the connection of a device as a newer one would; `was_connected` tells whether there was one.
pub(super) async fn take_over(State(app): State<App>, Named(id): Named<String>) -> Answer {
    if app.world.iot_hub.twin(&id).is_none() {
        return Err(Problem::no_device(&id));
    }
    Ok(Json(json!({"device": id, "was_connected": app.world.iot_hub.take_over(&id)})))
}

/// Merges into the desired properties as the service API's `PATCH /twins/{id}` does; `null` deletes. `PUT` and `PATCH` are
/// the same. Answers with the desired properties as they are then.
pub(super) async fn patch_desired(
    State(app): State<App>,
    Named(id): Named<String>,
    Strict(patch): Strict<Map<String, Value>>,
) -> Answer {
    let desired = app.world.iot_hub.patch_desired(&id, &patch.into());
    desired.map(Json).map_err(|(status, message)| Problem::new(status, message))
}
