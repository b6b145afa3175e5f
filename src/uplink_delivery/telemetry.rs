//! The device-to-cloud message of an uplink.

use super::compact::compact;
use crate::config::TelemetryBody;
use crate::iot_hub::{MAX_MESSAGE_BYTES, Telemetry};
use crate::message_type::MessageType;
use crate::stack::ApplicationUp;

/// A message that the hub never takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has {bytes} bytes even in compact form; IoT Hub takes {MAX_MESSAGE_BYTES}")]
pub struct TooLarge {
    /// What it would measure at the hub.
    pub bytes: usize,
}

/// The message as it came where the hub takes that, else its compact form.
pub(super) fn telemetry(
    up: &ApplicationUp,
    kind: MessageType,
    message_id: &str,
    body: TelemetryBody,
) -> Result<Telemetry, TooLarge> {
    let mut telemetry = Telemetry {
        body: up.raw.clone(),
        message_id: message_id.to_owned(),
        creation_time: up.creation_time(),
        properties: properties(up, kind),
    };
    if body == TelemetryBody::Compact || telemetry.size() > MAX_MESSAGE_BYTES {
        telemetry.body = compact(up).unwrap_or_else(|| up.raw.clone());
    }
    match telemetry.size() {
        bytes if bytes > MAX_MESSAGE_BYTES => Err(TooLarge { bytes }),
        _ => Ok(telemetry),
    }
}

fn properties(up: &ApplicationUp, kind: MessageType) -> Vec<(&'static str, String)> {
    let optional = [
        ("applicationId", up.application_id.as_ref().map(ToString::to_string)),
        ("devEui", up.device.dev_eui.map(|eui| eui.to_string())),
        ("fPort", up.f_port().map(|port| port.to_string())),
        ("fCnt", up.f_cnt().map(|count| count.to_string())),
        ("simulated", up.simulated().then(|| true.to_string())),
    ];
    let mut properties = vec![("messageType", kind.key().to_owned()), ("deviceId", up.device.id.to_string())];
    properties.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    properties
}
