//! Clients that do as a test tells them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::port::{DeviceHub, Failure, Landed, Refuge};
use crate::config::{TelemetryBody, UplinkConfig};
use crate::event_hubs::{DeadLetter, ParkedUplink};
use crate::failure::Class;
use crate::ids::{DeviceId, EndDevice};
use crate::iot_hub::{Flight, Telemetry, Twin, TwinAnswer, TwinCall, twin};
use crate::message_type::MessageType;

/// What goes wrong in one flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Telemetry(Class),
    Twin(Class),
    Both(Class),
    Each {
        telemetry: Class,
        twin: Class,
    },
    /// The patch is applied, its answer lost.
    LostAnswer,
    Panic,
}

/// Twins by the rules of IoT Hub, and everything that arrived.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    pub(crate) reported: BTreeMap<String, Map<String, Value>>,
    /// Of reported properties, by device.
    pub(crate) versions: BTreeMap<String, u64>,
    pub(crate) tags: Option<Map<String, Value>>,
    pub(crate) etag: u64,
    pub(crate) sent: Vec<Telemetry>,
    pub(crate) flights: Vec<Flight>,
    /// One per flight, in order.
    pub(crate) faults: VecDeque<Option<Fault>>,
    /// Of every flight without one of its own.
    pub(crate) always: Option<Fault>,
    /// Of every flight of a device.
    pub(crate) broken: BTreeMap<String, Fault>,
    /// So many times somebody else writes between a read and a write.
    pub(crate) interlopers: usize,
    pub(crate) service_api_fails: bool,
    /// Most bytes of reported properties; a patch that makes more of them is refused.
    pub(crate) most_reported: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct ScriptedHub(Mutex<Hub>);

impl ScriptedHub {
    pub(crate) fn state(&self) -> MutexGuard<'_, Hub> {
        self.0.lock().expect("no test panics under the lock")
    }

    pub(crate) fn reported(&self, device: &str) -> Value {
        Value::Object(self.state().reported.get(device).cloned().unwrap_or_default())
    }

    pub(crate) fn break_device(&self, device: &str, fault: Fault) {
        self.state().broken.insert(device.to_owned(), fault);
    }

    /// The twin patches of all flights, in order.
    pub(crate) fn patches(&self) -> Vec<Value> {
        let state = self.state();
        let patch = |flight: &Flight| match &flight.twin {
            Some(TwinCall::Patch { reported, .. }) => Some(Value::Object(reported.clone())),
            _ => None,
        };
        state.flights.iter().filter_map(patch).collect()
    }
}

pub(crate) fn failure(class: Class) -> Failure {
    Failure { class, is_stale: false, reason: format!("a scripted failure: {class:?}") }
}

fn stale() -> Failure {
    Failure { is_stale: true, ..Failure::passing("412") }
}

impl Hub {
    fn call(&mut self, device: &str, call: TwinCall) -> Result<TwinAnswer, Failure> {
        let version = self.versions.entry(device.to_owned()).or_default();
        match call {
            TwinCall::Read => {
                let reported = self.reported.get(device).cloned().unwrap_or_default();
                Ok(TwinAnswer::Read { reported, version: *version })
            }
            TwinCall::Patch { reported, if_version } => {
                if if_version.is_some() && self.interlopers > 0 {
                    (self.interlopers, *version) = (self.interlopers - 1, *version + 1);
                }
                if if_version.is_some_and(|expected| expected != *version) {
                    return Err(stale());
                }
                let mut merged = self.reported.get(device).cloned().unwrap_or_default();
                twin::merge(&mut merged, &reported);
                if self.most_reported.is_some_and(|most| json!(merged).to_string().len() > most) {
                    return Err(failure(Class::Poison));
                }
                self.reported.insert(device.to_owned(), merged);
                *version += 1;
                Ok(TwinAnswer::Patched { version: *version })
            }
        }
    }
}

impl DeviceHub for ScriptedHub {
    async fn fly(&self, device: &EndDevice, flight: Flight, _: Instant) -> Landed {
        // Lets flights of several devices mix.
        tokio::task::yield_now().await;
        let mut hub = self.state();
        let fault = hub.faults.pop_front().flatten().or(hub.always);
        let fault = fault.or_else(|| hub.broken.get(device.id.as_str()).copied());
        if fault == Some(Fault::Panic) {
            drop(hub);
            panic!("a scripted panic");
        }
        hub.flights.push(flight.clone());
        let telemetry = flight.telemetry.map(|telemetry| match fault {
            Some(Fault::Telemetry(class) | Fault::Both(class) | Fault::Each { telemetry: class, .. }) => {
                Err(failure(class))
            }
            _ => {
                hub.sent.push(telemetry);
                Ok(())
            }
        });
        let twin = flight.twin.map(|call| match fault {
            Some(Fault::Twin(class) | Fault::Both(class) | Fault::Each { twin: class, .. }) => Err(failure(class)),
            Some(Fault::LostAnswer) => hub.call(device.id.as_str(), call).and(Err(failure(Class::Retry))),
            _ => hub.call(device.id.as_str(), call),
        });
        Landed { telemetry, twin }
    }

    async fn twin(&self, _: &DeviceId) -> Result<Option<Twin>, Failure> {
        let hub = self.state();
        if hub.service_api_fails {
            return Err(failure(Class::Retry));
        }
        Ok(hub.tags.clone().map(|tags| Twin {
            etag: hub.etag.to_string(),
            tags,
            desired: Map::new(),
            desired_version: 1,
            reported: Map::new(),
            reported_version: 1,
        }))
    }

    async fn patch_tags(&self, _: &DeviceId, tags: &Value, if_match: &str) -> Result<(), Failure> {
        let mut hub = self.state();
        if hub.interlopers > 0 {
            (hub.interlopers, hub.etag) = (hub.interlopers - 1, hub.etag + 1);
        }
        if if_match != hub.etag.to_string() {
            return Err(stale());
        }
        let patch = tags.as_object().cloned().expect("an object");
        twin::merge(hub.tags.get_or_insert_default(), &patch);
        Ok(())
    }
}

/// Keeps what it is given, unless it is closed.
#[derive(Debug, Default)]
pub(crate) struct ScriptedRefuge {
    pub(crate) parked: Mutex<Vec<ParkedUplink>>,
    pub(crate) letters: Mutex<Vec<DeadLetter>>,
    pub(crate) closed: std::sync::atomic::AtomicBool,
}

impl ScriptedRefuge {
    pub(crate) fn parked(&self) -> Vec<ParkedUplink> {
        self.parked.lock().expect("no test panics under the lock").clone()
    }

    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        self.letters.lock().expect("no test panics under the lock").clone()
    }

    pub(crate) fn close(&self, closed: bool) {
        self.closed.store(closed, std::sync::atomic::Ordering::SeqCst);
    }

    fn keep<T>(&self, list: &Mutex<Vec<T>>, item: T) -> Result<(), Failure> {
        if self.closed.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(Failure::passing("the refuge is closed"));
        }
        list.lock().expect("no test panics under the lock").push(item);
        Ok(())
    }
}

impl Refuge for ScriptedRefuge {
    async fn park(&self, uplink: &ParkedUplink, _: Instant) -> Result<(), Failure> {
        self.keep(&self.parked, uplink.clone())
    }

    async fn dead_letter(&self, letter: &DeadLetter, _: Instant) -> Result<(), Failure> {
        self.keep(&self.letters, letter.clone())
    }
}

/// The defaults of the settings.
pub(crate) fn config() -> UplinkConfig {
    UplinkConfig {
        telemetry_body: TelemetryBody::Full,
        telemetry_messages: MessageType::ALL.into(),
        twin_messages: MessageType::ALL.into(),
        last_seen_interval: std::time::Duration::from_secs(3600),
        dedupe_window: std::time::Duration::from_secs(900),
        webhook_secrets: Vec::new(),
    }
}

/// An `ApplicationUp` of the device `probe-0017` of the application `cold-store`.
pub(crate) fn message(key: &str, content: Value, received_at: &str) -> Value {
    json!({
        "end_device_ids": {
            "device_id": "probe-0017",
            "application_ids": {"application_id": "cold-store"},
            "dev_eui": "A1B2C3D4E5F60718",
        },
        "received_at": received_at,
        key: content,
    })
}
