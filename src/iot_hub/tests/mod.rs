//! Sessions against a hub that follows a script.

mod bounds;
mod flights;
mod garbage;
mod refusals;
mod scripted;
mod service;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Flight, IotHub, Landing, Telemetry, TwinCall};
use crate::ids::{DeviceId, EndDevice};

fn device(id: &str) -> EndDevice {
    EndDevice { id: DeviceId::parse(id).expect("valid"), dev_eui: None, join_eui: None }
}

fn telemetry(message_id: &str) -> Telemetry {
    let message_id = message_id.to_owned();
    Telemetry { body: Bytes::from_static(b"{}"), message_id, creation_time: None, properties: Vec::new() }
}

fn patch(value: u64) -> TwinCall {
    let Value::Object(reported) = json!({ "value": value }) else { return TwinCall::Read };
    TwinCall::Patch { reported, if_version: None }
}

fn message(id: &str) -> Flight {
    Flight { telemetry: Some(telemetry(id)), twin: None }
}

fn twin(call: TwinCall) -> Flight {
    Flight { telemetry: None, twin: Some(call) }
}

fn both(id: &str, value: u64) -> Flight {
    Flight { telemetry: Some(telemetry(id)), twin: Some(patch(value)) }
}

/// Starts a flight with a generous deadline.
fn fly(hub: &IotHub, id: &str, flight: Flight) -> JoinHandle<Landing> {
    fly_for(hub, id, flight, Duration::from_secs(15))
}

fn fly_for(hub: &IotHub, id: &str, flight: Flight, limit: Duration) -> JoinHandle<Landing> {
    let (hub, device) = (hub.clone(), device(id));
    tokio::spawn(async move { hub.fly(&device, flight, Instant::now() + limit).await })
}

async fn landed(flight: JoinHandle<Landing>) -> Landing {
    scripted::soon(flight).await.expect("the flight does not panic")
}

fn is_sent(landing: &Landing) -> bool {
    matches!(landing.telemetry, Some(Ok(())))
}

fn reported(values: Value) -> Map<String, Value> {
    if let Value::Object(values) = values { values } else { Map::new() }
}
