//! The events that the hub itself makes
//! (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-non-telemetry-event-schema.md`).

use serde_json::Value;
use time::OffsetDateTime;

use super::RouteSource;
use crate::event_hubs::{Event, PropertyValue};
use crate::iot_hub::twin::timestamp;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    CreateDevice,
    DeleteDevice,
    UpdateTwin,
    ReplaceTwin,
}

impl Operation {
    pub(crate) fn source(self) -> RouteSource {
        match self {
            Self::CreateDevice | Self::DeleteDevice => RouteSource::DeviceLifecycleEvents,
            Self::UpdateTwin | Self::ReplaceTwin => RouteSource::TwinChangeEvents,
        }
    }

    /// `opType`, `iothub-message-schema` and `iothub-message-source`.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        let lifecycle = ("deviceLifecycleNotification", "deviceLifecycleEvents");
        let twin = ("twinChangeNotification", "twinChangeEvents");
        let (name, (schema, source)) = match self {
            Self::CreateDevice => ("createDeviceIdentity", lifecycle),
            Self::DeleteDevice => ("deleteDeviceIdentity", lifecycle),
            Self::UpdateTwin => ("updateTwin", twin),
            Self::ReplaceTwin => ("replaceTwin", twin),
        };
        (name, schema, source)
    }
}

/// A lifecycle or twin change event.
#[derive(Clone, Debug)]
pub(crate) struct HubEvent<'a> {
    pub(crate) operation: Operation,
    pub(crate) hub_name: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) body: Value,
}

impl HubEvent<'_> {
    pub(crate) fn into_event(self, now: OffsetDateTime) -> Event {
        let (op_type, schema, source) = self.operation.names();
        let correlation: u64 = rand::random();
        let named = |name: &str, value: PropertyValue| (name.to_owned(), value);
        Event {
            body: self.body.to_string().into(),
            system: [
                named("content-type", "application/json".into()),
                named("content-encoding", "utf-8".into()),
                named("correlation-id", format!("{correlation:x}").into()),
                named("user-id", PropertyValue::Binary(self.hub_name.as_bytes().to_vec())),
            ]
            .into(),
            properties: [
                named("hubName", self.hub_name.into()),
                named("deviceId", self.device_id.into()),
                named("operationTimestamp", timestamp(now).into()),
                named("opType", op_type.into()),
                named("iothub-message-schema", schema.into()),
            ]
            .into(),
            annotations: [
                named("iothub-connection-device-id", self.device_id.into()),
                named("iothub-enqueuedtime", PropertyValue::Timestamp(now)),
                named("iothub-message-source", source.into()),
            ]
            .into(),
            partition_key: Some(self.device_id.to_owned()),
        }
    }
}
