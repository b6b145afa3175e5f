//! An event of the Event Hub → what IoT Hub says happened to a device.
//!
//! Application properties can be forged by a device whose telemetry is routed here, annotations cannot
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-non-telemetry-event-schema.md`).

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::desired::{DECODED, RAW};
use super::tally::Ignored;
use crate::functions::Event;
use crate::ids::{DeviceId, DevicePrefix};
use crate::stack::{ROOT_KEYS, parse_time};

/// Annotation: where the event comes from.
pub(super) const SOURCE: &str = "iothub-message-source";
/// Annotation: its device.
pub(super) const DEVICE: &str = "iothub-connection-device-id";
const MODULE: &str = "iothub-connection-module-id";

/// Application property: when it happened, RFC 3339.
const OPERATION_TIME: &str = "operationTimestamp";

/// What became of the reading.
#[derive(Debug, PartialEq)]
pub(super) enum Decoded {
    /// An event to plan.
    Event(HubEvent),
    /// Nothing to do.
    Ignored(Ignored),
    /// Something should happen and never can.
    Dead {
        /// Its device, as the hub names it.
        device: String,
        /// Why.
        reason: String,
    },
}

/// What IoT Hub says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HubEvent {
    pub(super) device: DeviceId,
    pub(super) change: Change,
    /// When it happened, if the hub says so.
    pub(super) operation_at: Option<OffsetDateTime>,
    /// The body, as the package `azureiothub` wants it.
    pub(super) body: Value,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Created,
    Deleted,
    Twin(Touched),
}

/// What of a twin was written. Events are patches and may be merged, so the values are read from the twin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// `tags.lorawan`, other than by taking the root keys out.
    pub(super) lorawan: bool,
    /// One of the two desired members of a downlink.
    pub(super) downlink: bool,
    /// `decodedPayload` was removed.
    pub(super) decoded_removed: bool,
    /// `rawDownlink` was removed.
    pub(super) raw_removed: bool,
    /// A waiting downlink became ready.
    pub(super) ready: bool,
    /// `$version` of the desired properties after the change.
    pub(super) desired_version: Option<u64>,
}

impl Touched {
    fn is_of_interest(self) -> bool {
        self.lorawan || self.downlink || self.ready
    }
}

/// Reads an event.
pub(super) fn decode(event: &Event, prefix: &DevicePrefix) -> Decoded {
    match read(event, prefix) {
        Ok(event) => Decoded::Event(event),
        Err(other) => other,
    }
}

fn read(event: &Event, prefix: &DevicePrefix) -> Result<HubEvent, Decoded> {
    let ignored = |reason| Err(Decoded::Ignored(reason));
    let source = text(&event.system_properties, SOURCE).unwrap_or_default();
    let lifecycle = source.eq_ignore_ascii_case("deviceLifecycleEvents");
    if !lifecycle && !source.eq_ignore_ascii_case("twinChangeEvents") {
        return ignored(Ignored::NotFromHub);
    }
    let operation = text(&event.properties, "opType").unwrap_or_default().to_ascii_lowercase();
    let module = text(&event.system_properties, MODULE).or_else(|| text(&event.properties, "moduleId"));
    if module.is_some() || operation.ends_with("moduleidentity") {
        return ignored(Ignored::Module);
    }
    let Some(id) = hub_id(event) else { return ignored(Ignored::NoDevice) };
    let Some(own) = prefix.strip(id) else { return ignored(Ignored::NotOurs) };
    let body = body(event, lifecycle, id)?;
    let device = device(own, id, &body)?;
    let change = match (lifecycle, operation.as_str()) {
        (true, "createdeviceidentity") => Change::Created,
        (true, "deletedeviceidentity") => Change::Deleted,
        (false, "updatetwin" | "") => Change::Twin(of_interest(&body, false)?),
        (false, "replacetwin") => Change::Twin(of_interest(&body, true)?),
        _ => return ignored(Ignored::OtherOperation),
    };
    let operation_at = text(&event.properties, OPERATION_TIME).and_then(parse_time);
    Ok(HubEvent { device, change, operation_at, body })
}

/// The device of an event, as the hub names it.
pub(super) fn hub_id(event: &Event) -> Option<&str> {
    text(&event.system_properties, DEVICE).or_else(|| text(&event.properties, "deviceId"))
}

/// What a lifecycle event says stands in its properties: its body is not needed.
fn body(event: &Event, lifecycle: bool, id: &str) -> Result<Value, Decoded> {
    match serde_json::from_slice::<Value>(&event.body) {
        Ok(body @ Value::Object(_)) => Ok(body),
        _ if lifecycle => Ok(Value::Object(Map::new())),
        _ => {
            let reason = "the body of the twin change is no JSON object".to_owned();
            Err(Decoded::Dead { device: id.to_owned(), reason })
        }
    }
}

/// A device of the hub whose id The Things Stack cannot have is no business of ours, unless it asks to be registered.
fn device(own: &str, identity: &str, body: &Value) -> Result<DeviceId, Decoded> {
    DeviceId::parse(own).map_err(|error| {
        if body["tags"]["lorawan"].is_object() {
            let reason = format!("{error}; create the device in IoT Hub under an id that The Things Stack can have");
            Decoded::Dead { device: identity.to_owned(), reason }
        } else {
            Decoded::Ignored(Ignored::NotAStackId)
        }
    })
}

fn of_interest(body: &Value, whole: bool) -> Result<Touched, Decoded> {
    let touched = touched(body, whole);
    if touched.is_of_interest() { Ok(touched) } else { Err(Decoded::Ignored(uninteresting(body))) }
}

fn touched(body: &Value, whole: bool) -> Touched {
    let desired = &body["properties"]["desired"];
    let has = |name: &str| desired.get(name).is_some();
    let emptied = body["properties"].get("desired").is_some_and(Value::is_null);
    let removed = |name: &str| emptied || desired.get(name).is_some_and(Value::is_null);
    Touched {
        lorawan: body["tags"]["lorawan"].as_object().is_some_and(says_something),
        // A replaced twin, or a section emptied by null, removes without naming what.
        downlink: whole || has(DECODED) || has(RAW) || emptied,
        decoded_removed: removed(DECODED),
        raw_removed: removed(RAW),
        ready: body["tags"]["stack"]["downlink"]["state"] == "ready",
        desired_version: desired["$version"].as_u64(),
    }
}

/// We ourselves take the root keys out.
fn says_something(lorawan: &Map<String, Value>) -> bool {
    lorawan.iter().any(|(name, value)| !(value.is_null() && ROOT_KEYS.contains(&name.as_str())))
}

fn uninteresting(body: &Value) -> Ignored {
    let tags = body["tags"].as_object();
    let desired = body["properties"]["desired"].as_object();
    let desired = desired.is_some_and(|desired| desired.keys().any(|name| !name.starts_with('$')));
    let only_ours = |tags: &Map<String, Value>| tags.keys().all(|name| name == "stack" || name == "lorawan");
    match tags {
        _ if desired => Ignored::NothingForUs,
        Some(tags) if !tags.is_empty() && only_ours(tags) => Ignored::EchoOfTags,
        None if body["properties"]["reported"].is_object() => Ignored::EchoOfReported,
        _ => Ignored::NothingForUs,
    }
}

/// A text property; names are compared without case, as the host and the SDKs do not agree on it.
pub(super) fn text<'a>(properties: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let exact = properties.get(name);
    let value =
        exact.or_else(|| properties.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    value.and_then(Value::as_str).filter(|text| !text.is_empty())
}
