//! What is kept of an uplink that never can be delivered.

use serde_json::{Map, json};

use super::delivered::Unfinished;
use crate::event_hubs::DeadLetter;
use crate::message_type::MessageType;
use crate::stack::ApplicationUp;

/// The dead letter of a message that could be read. Its body holds no radio key: parsing took them out.
#[must_use]
pub fn dead_letter(function: &'static str, up: &ApplicationUp, unfinished: &Unfinished) -> DeadLetter {
    let properties = [
        ("messageId", json!(up.message_id())),
        ("messageType", json!(up.kind.map(MessageType::key))),
        ("devEui", json!(up.device.dev_eui.map(|eui| eui.to_string()))),
        ("joinEui", json!(up.device.join_eui.map(|eui| eui.to_string()))),
        ("open", json!(unfinished.open.to_text())),
    ];
    DeadLetter {
        function,
        reason: unfinished.reason.clone(),
        device_id: Some(up.device.id.to_string()),
        body: up.raw.clone(),
        properties: properties
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>(),
    }
}
