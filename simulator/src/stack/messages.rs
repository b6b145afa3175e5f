//! The messages that a webhook carries: one `ApplicationUp` each.

use serde_json::{Value, json};

use super::error::ApiError;
use super::{ids, timestamp};

/// The keys of the eleven message types.
pub const MESSAGE_TYPES: [&str; 11] = [
    "uplink_message",
    "uplink_normalized",
    "join_accept",
    "downlink_ack",
    "downlink_nack",
    "downlink_sent",
    "downlink_failed",
    "downlink_queued",
    "downlink_queue_invalidated",
    "location_solved",
    "service_data",
];

/// The type of a message.
pub(super) fn kind(message: &Value) -> Option<&'static str> {
    MESSAGE_TYPES.into_iter().find(|key| message.get(*key).is_some())
}

/// A message that the Application Server got just now.
pub(super) fn message(end_device_ids: &Value, correlation_ids: &Value, kind: &str, content: Value) -> Value {
    json!({
        "end_device_ids": end_device_ids,
        "correlation_ids": correlation_ids,
        "received_at": timestamp::now(),
        kind: content,
    })
}

/// The correlation ids of something that began with an uplink.
pub(super) fn uplink_correlation_ids() -> Value {
    json!([format!("gs:uplink:{}", ids::ulid()), format!("as:up:{}", ids::ulid())])
}

/// One of the messages that carry an `ApplicationDownlink`.
pub(super) fn about_downlink(end_device_ids: &Value, kind: &str, item: Value) -> Value {
    let correlation_ids = item["correlation_ids"].clone();
    message(end_device_ids, &correlation_ids, kind, item)
}

/// `downlink_failed`, with the error as the API words it.
pub(super) fn downlink_failed(end_device_ids: &Value, item: Value, error: &ApiError) -> Value {
    let correlation_ids = item["correlation_ids"].clone();
    let content = json!({"downlink": item, "error": error.details()});
    message(end_device_ids, &correlation_ids, "downlink_failed", content)
}
