//! The reported properties that an uplink leaves, and what tells that the twin is already further.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::downlink_progress::{self, DOWNLINK, DownlinkProgress};
use crate::iot_hub::twin;
use crate::message_type::MessageType;
use crate::stack::{ApplicationUp, parse_time};

pub(super) const DECODED_PAYLOAD: &str = "decodedPayload";
pub(super) const LAST_SEEN_AT: &str = "lastSeenAt";
const JOINED_AT: &str = "joinedAt";
/// When each entry of `location` and `serviceData` was received.
const UPDATED_AT: &str = "updatedAt";

/// What is written to the reported properties.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedPlan {
    /// The whole merge patch, within the twin rules.
    pub patch: Map<String, Value>,
    /// What tells whether the twin is already further.
    pub order: Order,
    /// The frame of an `uplink_message`, by which one knows that none was missed.
    pub frame: Option<Frame>,
    /// What the twin rules changed, without any value.
    pub notes: Vec<String>,
}

/// What tells whether a twin is already further than a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// The time that stands at this path of the reported properties.
    Time {
        /// Keys from the outside in.
        path: Vec<String>,
        /// The message's own time.
        at: OffsetDateTime,
    },
    /// The progress of a downlink.
    Downlink(DownlinkProgress),
}

/// The place of an uplink in its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Session key id; empty where there was no join.
    pub session: String,
    /// Frame counter.
    pub f_cnt: u64,
}

impl ReportedPlan {
    /// Whether these reported properties hold this message's news or newer ones.
    #[must_use]
    pub fn is_old_news_to(&self, reported: &Map<String, Value>) -> bool {
        match &self.order {
            Order::Time { path, at } => time_at(reported, path).is_some_and(|known| *at <= known),
            Order::Downlink(told) => {
                DownlinkProgress::reported_in(reported).is_some_and(|known| !told.is_news_to(&known))
            }
        }
    }
}

impl ReportedPlan {
    /// The whole patch, and with it the end of every reported value of the decoded payload that is not this message's;
    /// `None` if there is none.
    pub(super) fn without_older_payload(&self, reported: &Map<String, Value>) -> Option<Map<String, Value>> {
        let known = reported.get(DECODED_PAYLOAD)?.as_object()?;
        let mut patch = self.patch.clone();
        let payload = patch.get_mut(DECODED_PAYLOAD)?.as_object_mut()?;
        end_others(known, payload).then_some(patch)
    }
}

/// Ends every known value that the patch does not name. Returns whether there was one.
fn end_others(known: &Map<String, Value>, patch: &mut Map<String, Value>) -> bool {
    let mut found = false;
    for (key, value) in known {
        found |= match (value, patch.get_mut(key)) {
            (_, None) => patch.insert(key.clone(), Value::Null).is_none(),
            (Value::Object(known), Some(Value::Object(patch))) => end_others(known, patch),
            _ => false,
        };
    }
    found
}

impl Frame {
    /// Whether no frame of the session lies between `earlier` and this one.
    #[must_use]
    pub fn follows(&self, earlier: &Self) -> bool {
        self.session == earlier.session && earlier.f_cnt.checked_add(1) == Some(self.f_cnt)
    }
}

fn time_at(reported: &Map<String, Value>, path: &[String]) -> Option<OffsetDateTime> {
    let (first, rest) = path.split_first()?;
    let value = rest.iter().try_fold(reported.get(first)?, |value, key| value.get(key))?;
    parse_time(value.as_str()?)
}

/// What the message reports; `None` if nothing.
pub(super) fn reported(up: &ApplicationUp, kind: MessageType) -> Option<ReportedPlan> {
    let (at, time) = (up.received_at.as_deref()?, up.received_time()?);
    match kind {
        MessageType::UplinkMessage => Some(uplink(up, at, time)),
        MessageType::JoinAccept => Some(timed(json!({JOINED_AT: at}), &[JOINED_AT], time)),
        MessageType::LocationSolved => service(up, "location", location(up.content()?.get("location")?)?, at, time),
        MessageType::ServiceData => service(up, "serviceData", up.content()?.get("data")?.clone(), at, time),
        _ => downlink(up, kind, time),
    }
}

fn uplink(up: &ApplicationUp, at: &str, time: OffsetDateTime) -> ReportedPlan {
    let mut patch = json!({LAST_SEEN_AT: at});
    if let Some(payload) = up.decoded_payload() {
        patch[DECODED_PAYLOAD] = Value::Object(payload.clone());
    }
    let f_cnt = up.f_cnt().unwrap_or_default();
    let frame = Some(Frame { session: up.session_key_id().to_owned(), f_cnt });
    ReportedPlan { frame, ..timed(patch, &[LAST_SEEN_AT], time) }
}

/// `{property: {service: value}}`, with its time beside it so that an older one can be told.
fn service(up: &ApplicationUp, property: &str, value: Value, at: &str, time: OffsetDateTime) -> Option<ReportedPlan> {
    let service = up.content()?.get("service").and_then(Value::as_str).unwrap_or_default();
    let patch = json!({property: {service: value}, UPDATED_AT: {property: {service: at}}});
    Some(timed(patch, &[UPDATED_AT, property, service], time))
}

/// A whole location: reported values merge, so what is absent because it is zero or unknown must be said.
fn location(value: &Value) -> Option<Value> {
    let mut location = value.as_object()?.clone();
    for coordinate in ["latitude", "longitude"] {
        location.entry(coordinate).or_insert(json!(0));
    }
    for unknown in ["altitude", "accuracy", "source"] {
        location.entry(unknown).or_insert(Value::Null);
    }
    Some(Value::Object(location))
}

fn downlink(up: &ApplicationUp, kind: MessageType, at: OffsetDateTime) -> Option<ReportedPlan> {
    let progress = DownlinkProgress::told_by(up, kind, at)?;
    let (patch, notes) = fit(json!({DOWNLINK: downlink_progress::value(up, progress)}));
    Some(ReportedPlan { patch, order: Order::Downlink(progress), frame: None, notes })
}

fn timed(patch: Value, path: &[&str], at: OffsetDateTime) -> ReportedPlan {
    let (patch, notes) = fit(patch);
    let path = path_in(&patch, path);
    ReportedPlan { patch, order: Order::Time { path, at }, frame: None, notes }
}

fn fit(patch: Value) -> (Map<String, Value>, Vec<String>) {
    let Value::Object(patch) = patch else { return Default::default() };
    let fitted = twin::fit_reported(patch);
    (fitted.patch, fitted.notes)
}

/// The path in the fitted patch. Our own keys fit as they are; the name of a service may have been rewritten,
/// and is the only key where it stands.
fn path_in(patch: &Map<String, Value>, path: &[&str]) -> Vec<String> {
    let [property, kind, service] = path else { return path.iter().map(|&key| key.to_owned()).collect() };
    let names = patch.get(*property).and_then(|times| times.get(kind)?.as_object());
    let service = names.and_then(|names| names.keys().next()).map_or(*service, String::as_str);
    vec![(*property).to_owned(), (*kind).to_owned(), service.to_owned()]
}
