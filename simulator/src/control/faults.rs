//! Rules that strike single exchanges: `/sim/faults`.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::App;
use super::problem::{Named, Problem, Strict};
use crate::faults::Rule;
use crate::happenings::Kind;
use crate::world::World;

/// The rules at work, the first to be asked first.
pub(super) fn now(world: &World) -> Value {
    world.faults.list().into_iter().map(|(id, rule, hits)| json!({"id": id, "rule": rule, "hits": hits})).collect()
}

/// `GET /sim/faults`
pub(super) async fn list(State(app): State<App>) -> Json<Value> {
    Json(now(&app.world))
}

/// `POST /sim/faults {"stage": "puback", "action": "close", "times": 3}`
pub(super) async fn add(State(app): State<App>, Strict(rule): Strict<Rule>) -> Result<Json<Value>, Problem> {
    let told = json!(rule);
    let id = app.world.faults.add(rule).map_err(|error| Problem::new(400, error.to_string()))?;
    app.world.happenings.note(Kind::Fault, None, || (format!("fault rule {id} added"), told));
    Ok(Json(json!({"id": id})))
}

/// `DELETE /sim/faults/{id}`
pub(super) async fn remove(State(app): State<App>, Named(id): Named<u64>) -> Result<Json<Value>, Problem> {
    if !app.world.faults.remove(id) {
        return Err(Problem::not_found(format!("there is no fault rule {id}; GET /sim/faults lists them")));
    }
    app.world.happenings.note(Kind::Fault, None, || (format!("fault rule {id} removed"), Value::Null));
    Ok(Json(json!({"id": id})))
}

/// `DELETE /sim/faults`
pub(super) async fn clear(State(app): State<App>) -> Json<Value> {
    app.world.faults.clear();
    app.world.happenings.note(Kind::Fault, None, || ("fault rules cleared".to_owned(), Value::Null));
    Json(now(&app.world))
}
