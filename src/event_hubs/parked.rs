//! A parked uplink as an event, there and back.

use azure_messaging_eventhubs::models::AmqpMessage;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::message::EventBuilder;
use super::{Open, ParkedUplink};
use crate::ids::{DeviceId, EndDevice, Eui};

const TELEMETRY: &str = "telemetry";
const TWIN: &str = "twin";
const WAITING_DOWNLINK: &str = "waitingDownlink";

/// Longest description of a failure that is kept: a property is no place for a page.
const MAX_FAILURE_BYTES: usize = 1024;

impl Open {
    /// The open parts by name, such as `telemetry,twin`: the form of the event property `open`.
    #[must_use]
    pub fn to_text(self) -> String {
        let parts = [(self.telemetry, TELEMETRY), (self.twin, TWIN), (self.waiting_downlink, WAITING_DOWNLINK)];
        let words: Vec<_> = parts.into_iter().filter_map(|(open, word)| open.then_some(word)).collect();
        words.join(",")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut open = Self { telemetry: false, twin: false, waiting_downlink: false };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                TELEMETRY => open.telemetry = true,
                TWIN => open.twin = true,
                WAITING_DOWNLINK => open.waiting_downlink = true,
                unknown => return Err(format!("property open names `{unknown}`, which is nothing that can be open")),
            }
        }
        Ok(open)
    }
}

impl ParkedUplink {
    pub(super) fn to_message(&self) -> AmqpMessage {
        let id = self.device.id.as_str();
        EventBuilder::new(&self.body)
            .partition_key(id)
            .property("deviceId", id)
            .optional("devEui", self.device.dev_eui.map(|eui| eui.to_string()))
            .optional("joinEui", self.device.join_eui.map(|eui| eui.to_string()))
            .property("open", self.open.to_text())
            .property("attempts", i64::from(self.attempts))
            .property("firstFailedAt", self.first_failed_at.as_str())
            .property("firstFailure", super::message::cut(&self.first_failure, MAX_FAILURE_BYTES))
            .build()
    }

    /// Reads a parked uplink back from its event. Numbers may come as text: the Functions host decides.
    ///
    /// # Errors
    /// If a property is missing or cannot be read: such an event is none of ours.
    pub fn from_event(body: Bytes, properties: &Map<String, Value>) -> Result<Self, String> {
        let text = |name: &str| match properties.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(format!("property {name} of a parked uplink is neither text nor a number")),
        };
        let required = |name: &str| text(name)?.ok_or_else(|| format!("property {name} of a parked uplink is missing"));
        let eui = |name: &str| {
            let eui = text(name)?.map(|eui| Eui::parse(&eui)).transpose();
            eui.map_err(|error| format!("property {name} of a parked uplink: {error}"))
        };
        let id = DeviceId::parse(&required("deviceId")?)
            .map_err(|error| format!("property deviceId of a parked uplink: {error}"))?;
        let attempts = required("attempts")?;
        Ok(Self {
            body,
            device: EndDevice { id, dev_eui: eui("devEui")?, join_eui: eui("joinEui")? },
            open: Open::parse(&required("open")?)?,
            attempts: attempts
                .parse()
                .map_err(|_| format!("property attempts of a parked uplink is no count: `{attempts:.20}`"))?,
            first_failed_at: required("firstFailedAt")?,
            first_failure: required("firstFailure")?,
        })
    }
}
