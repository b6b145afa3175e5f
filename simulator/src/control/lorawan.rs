//! The simulated LoRaWAN devices: what they send, and what they receive.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::App;
use super::problem::{Problem, Strict};
use crate::stack::{LocalDevice, Transmission, WebhookAnswer};

type Answer = Result<Json<Value>, Problem>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Uplink {
    device: String,
    f_port: u8,
    decoded_payload: Option<Map<String, Value>>,
    /// Whether a device that The Things Stack does not know is made there first, and one without a session joins.
    #[serde(default)]
    join: bool,
}

/// `POST /sim/stack/uplink`: the device sends; the answer tells what became of the webhook.
pub(super) async fn uplink(State(app): State<App>, Strict(uplink): Strict<Uplink>) -> Answer {
    let (stack, device) = (&app.world.stack, uplink.device.as_str());
    if !stack.has_session(device) {
        if !uplink.join {
            let hint = "send it with \"join\": true, and it is made and joins first";
            return Err(Problem::new(409, format!("`{device}` has no session in The Things Stack: {hint}")));
        }
        join(&app, device).await?;
    }
    let answer = stack.uplink(device, uplink.f_port, uplink.decoded_payload.map(Value::Object)).await;
    Ok(Json(told(&answer)))
}

/// Makes the device where it is not known, with a formatter so that decoded payloads can be sent to it, and lets it join.
async fn join(app: &App, device: &str) -> Result<(), Problem> {
    let stack = &app.world.stack;
    if !stack.knows(device) {
        let new = LocalDevice::otaa(device, rand::random()).with_down_formatter("FORMATTER_JAVASCRIPT");
        stack.register_local(&new).map_err(|error| Problem::new(400, error.to_string()))?;
    }
    let answer = stack.join(device).await;
    if stack.has_session(device) {
        return Ok(());
    }
    Err(Problem::new(409, answer.error.unwrap_or_else(|| format!("`{device}` could not join"))))
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    #[default]
    Acknowledged,
    NotAcknowledged,
    Failed,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transmit {
    device: String,
    #[serde(default)]
    outcome: Outcome,
}

/// `POST /sim/stack/transmit`: the next downlink of the queue goes out, with this outcome.
pub(super) async fn transmit(State(app): State<App>, Strict(transmit): Strict<Transmit>) -> Answer {
    let outcome = match transmit.outcome {
        Outcome::Acknowledged => Transmission::Acknowledged,
        Outcome::NotAcknowledged => Transmission::NotAcknowledged,
        Outcome::Failed => Transmission::Failed,
    };
    let answers = app.world.stack.transmit_with(&transmit.device, outcome).await;
    if answers.is_empty() {
        return Err(Problem::new(409, format!("no downlink waits for `{}` in The Things Stack", transmit.device)));
    }
    Ok(Json(json!({"webhooks": answers.iter().map(told).collect::<Vec<_>>()})))
}

fn told(answer: &WebhookAnswer) -> Value {
    json!({
        "status": answer.status,
        "body": serde_json::from_slice::<Value>(&answer.body).ok(),
        "error": answer.error,
        "took_ms": u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX),
    })
}
