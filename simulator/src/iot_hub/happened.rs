//! What the hub tells of what happens to it: one function per kind of thing, so that the place where it happens needs one line.

use mqtt_proto::v3::Connect;
use serde_json::{Map, Value, json};

use super::connect::Refusal;
use super::error::HubError;
use super::hub::Hub;
use super::twin::Changed;
use crate::event_hubs::{Event, PropertyValue};
use crate::happenings::{Kind, bounded, excerpt};

/// Properties as JSON; binary ones by their length only.
fn properties<'a>(properties: impl IntoIterator<Item = (&'a String, &'a PropertyValue)>) -> Value {
    let shown = |value: &PropertyValue| match value {
        PropertyValue::Null => Value::Null,
        PropertyValue::Bool(truth) => json!(truth),
        PropertyValue::Int(number) => json!(number),
        PropertyValue::Long(number) => json!(number),
        PropertyValue::Double(number) => json!(number),
        PropertyValue::String(text) => json!(excerpt(text.as_bytes())),
        PropertyValue::Timestamp(at) => json!(super::twin::timestamp(*at)),
        PropertyValue::Uuid(uuid) => json!(uuid.to_string()),
        PropertyValue::Binary(bytes) => json!(format!("({} bytes)", bytes.len())),
    };
    let members: Map<_, _> = properties.into_iter().map(|(name, value)| (name.clone(), shown(value))).collect();
    bounded(&members.into())
}

impl Hub {
    pub(super) fn tell_telemetry(&self, device_id: &str, event: &Event) {
        self.happenings.note(Kind::Telemetry, Some(device_id), || {
            let detail = json!({
                "bytes": event.body.len(),
                "body": excerpt(&event.body),
                "system": properties(&event.system),
                "properties": properties(&event.properties),
            });
            (format!("message of {} bytes stored", event.body.len()), detail)
        });
    }

    pub(super) fn tell_report(&self, device_id: &str, patch: &[u8], result: &Result<u64, HubError>) {
        self.happenings.note(Kind::Twin, Some(device_id), || match result {
            Ok(version) => {
                let title = format!("reported properties written, version {version}");
                (title, json!({"accepted": true, "version": version, "patch": excerpt(patch)}))
            }
            Err(error) => {
                let detail = json!({"accepted": false, "error": error.to_string(), "patch": excerpt(patch)});
                (format!("reported properties refused: {}", error.message), detail)
            }
        });
    }

    pub(super) fn tell_desired(&self, device_id: &str, changed: &Changed) {
        let Some((version, note)) = &changed.desired else { return };
        self.happenings.note(Kind::Desired, Some(device_id), || {
            let title = format!("desired properties written, version {version}");
            (title, json!({"version": version, "patch": bounded(note)}))
        });
    }

    /// `what` was done to the identity: its keys are not told.
    pub(super) fn tell_identity(&self, device_id: &str, what: &str) {
        self.happenings.note(Kind::Identity, Some(device_id), || (format!("device {what}"), json!({"what": what})));
    }

    pub(super) fn tell_refused(&self, packet: &Connect, refusal: &Refusal) {
        self.happenings.note(Kind::Connection, Some(&excerpt(packet.client_id.as_bytes())), || {
            (format!("connection refused: {refusal}"), json!({"what": "refused", "error": refusal.to_string()}))
        });
    }

    pub(super) fn tell_connected(&self, device_id: &str, took_over: bool) {
        self.happenings.note(Kind::Connection, Some(device_id), || {
            if took_over {
                ("connected; the older connection was closed", json!({"what": "takeover"}))
            } else {
                ("connected", json!({"what": "connected"}))
            }
        });
    }

    pub(super) fn tell_connection_end(&self, device_id: &str, why: &str) {
        self.happenings.note(Kind::Connection, Some(device_id), || {
            (format!("connection ended: {why}"), json!({"what": "end", "why": why}))
        });
    }
}
