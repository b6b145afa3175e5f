//! The body of an Event Hub invocation, byte for byte as the recorded host wrote it.
//!
//! Sources: `Azure/azure-functions-host` `ScriptInvocationContextExtensions.cs`, `Azure/azure-sdk-for-net`
//! `EventHubTriggerBindingStrategy.cs` and `AmqpSystemProperties.cs`, and recordings of a running host.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::function::Shape;
use super::json::Json;
use super::time_span;
use crate::event_hubs::{PropertyValue, StoredEvent};

/// The order in which the SDK lists the AMQP properties section.
const AMQP_PROPERTIES: [&str; 13] = [
    "message-id",
    "user-id",
    "to",
    "subject",
    "reply-to",
    "correlation-id",
    "content-type",
    "content-encoding",
    "absolute-expiry-time",
    "creation-time",
    "group-id",
    "group-sequence",
    "reply-to-group-id",
];

/// An event as the Event Hubs SDK hands it to the trigger.
#[derive(Clone, Debug)]
pub(super) struct ReceivedEvent {
    pub(super) body: Bytes,
    pub(super) sequence_number: i64,
    /// Text, because a geo-replicated namespace has offsets that are no numbers.
    pub(super) offset: String,
    pub(super) enqueued_at: OffsetDateTime,
    pub(super) partition_key: Option<String>,
    pub(super) properties: Vec<(String, Json)>,
    /// The AMQP properties and the annotations, in the SDK's order.
    pub(super) system: Vec<(String, Json)>,
}

impl From<&StoredEvent> for ReceivedEvent {
    fn from(stored: &StoredEvent) -> Self {
        let event = &stored.event;
        // An AMQP timestamp has milliseconds.
        let millisecond = stored.enqueued_at.millisecond();
        let enqueued_at = stored.enqueued_at.replace_millisecond(millisecond).unwrap_or(stored.enqueued_at);
        let offset = stored.offset.to_string();
        let known = AMQP_PROPERTIES.iter().filter_map(|name| event.system.get_key_value(*name));
        let mut system: Vec<_> = known.map(|(name, value)| (name.clone(), system_value(name, value))).collect();
        system.extend(event.annotations.iter().map(|(name, value)| (name.clone(), json(value))));
        system.push(("x-opt-sequence-number".to_owned(), Json::Int(stored.sequence_number)));
        system.push(("x-opt-offset".to_owned(), offset.clone().into()));
        system.push(("x-opt-enqueued-time".to_owned(), zulu(enqueued_at)));
        if let Some(key) = &event.partition_key {
            system.push(("x-opt-partition-key".to_owned(), key.clone().into()));
        }
        Self {
            body: event.body.clone(),
            sequence_number: stored.sequence_number,
            offset,
            enqueued_at,
            partition_key: event.partition_key.clone(),
            properties: event.properties.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
            system,
        }
    }
}

fn zulu(at: OffsetDateTime) -> Json {
    Json::Text(time_span::date(at) + "Z")
}

fn json(value: &PropertyValue) -> Json {
    match value {
        PropertyValue::Null => Json::Null,
        PropertyValue::Bool(value) => Json::Bool(*value),
        PropertyValue::Int(value) => Json::Int(i64::from(*value)),
        PropertyValue::Long(value) => Json::Int(*value),
        PropertyValue::Double(value) => Json::Double(*value),
        PropertyValue::String(text) => Json::Text(text.clone()),
        PropertyValue::Timestamp(at) => zulu(*at),
        PropertyValue::Binary(bytes) => Json::Text(STANDARD.encode(bytes)),
    }
}

/// `user-id` is a .NET memory struct: its bytes are lost.
fn system_value(name: &str, value: &PropertyValue) -> Json {
    match value {
        PropertyValue::Binary(bytes) if name == "user-id" => memory(bytes.len()),
        PropertyValue::String(text) if name == "user-id" => memory(text.len()),
        _ => json(value),
    }
}

pub(super) fn memory(length: usize) -> Json {
    let count = i64::try_from(length).unwrap_or(i64::MAX);
    Json::object([("Length", Json::Int(count)), ("IsEmpty", Json::Bool(length == 0))])
}

impl ReceivedEvent {
    /// -1 where the offset is no number.
    fn numeric_offset(&self) -> i64 {
        self.offset.parse().unwrap_or(-1)
    }

    fn enqueued(&self) -> Json {
        Json::Text(time_span::date(self.enqueued_at))
    }

    fn partition_key(&self) -> Json {
        self.partition_key.clone().map_or(Json::Null, Json::Text)
    }

    fn system_properties(&self) -> Json {
        let mut members = self.system.clone();
        members.push(("SequenceNumber".to_owned(), Json::Int(self.sequence_number)));
        members.push(("Offset".to_owned(), Json::Int(self.numeric_offset())));
        members.push(("OffsetString".to_owned(), self.offset.clone().into()));
        members.push(("PartitionKey".to_owned(), self.partition_key()));
        members.push(("EnqueuedTimeUtc".to_owned(), self.enqueued()));
        Json::Object(members)
    }
}

/// Where a batch comes from and goes to.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) function: String,
    /// The key of `Data`.
    pub(super) binding: String,
    pub(super) shape: Shape,
    pub(super) fully_qualified_namespace: String,
    pub(super) event_hub: String,
    pub(super) consumer_group: String,
    pub(super) partition_id: String,
}

/// The retry state that goes with an attempt.
#[derive(Clone, Debug)]
pub(super) struct RetryContext {
    pub(super) count: u32,
    pub(super) max: i64,
    /// The exception of the attempt before.
    pub(super) exception: Json,
}

/// The body of one attempt. `sys` changes with every attempt, the rest does not save for the retry context.
pub(super) fn envelope(origin: &Origin, events: &[ReceivedEvent], retry: Option<&RetryContext>) -> String {
    let context = partition_context(origin);
    let mut metadata =
        vec![("TriggerPartitionContext".to_owned(), context.clone()), ("PartitionContext".to_owned(), context)];
    match (origin.shape, events) {
        (Shape::OneBinary, [event]) => metadata.extend(metadata_of_one(event)),
        _ => metadata.extend(metadata_of_many(events)),
    }
    metadata.push(("sys".to_owned(), sys(&origin.function)));
    if let Some(retry) = retry {
        metadata.push(("RetryContext".to_owned(), retry_context(retry)));
    }
    let data = Json::Object(vec![(origin.binding.clone(), data(origin.shape, events))]);
    Json::object([("Data", data), ("Metadata", Json::Object(metadata))]).to_text()
}

fn partition_context(origin: &Origin) -> Json {
    Json::object([
        ("IsCheckpointingAfterInvocation", Json::Bool(true)),
        ("FullyQualifiedNamespace", origin.fully_qualified_namespace.clone().into()),
        ("EventHubName", origin.event_hub.clone().into()),
        ("ConsumerGroup", origin.consumer_group.clone().into()),
        ("PartitionId", origin.partition_id.clone().into()),
    ])
}

fn data(shape: Shape, events: &[ReceivedEvent]) -> Json {
    let base64 = |event: &ReceivedEvent| Json::Text(STANDARD.encode(&event.body));
    match (shape, events) {
        (Shape::OneBinary, [event]) => base64(event),
        (Shape::OneBinary | Shape::ManyBinary, _) => array(events, base64),
        (Shape::ManyText, _) => array(events, |event| Json::Text(String::from_utf8_lossy(&event.body).into_owned())),
    }
}

/// Arrays travel as JSON text inside a string.
fn array(events: &[ReceivedEvent], value: impl Fn(&ReceivedEvent) -> Json) -> Json {
    Json::Text(Json::Array(events.iter().map(value).collect()).to_text())
}

fn metadata_of_many(events: &[ReceivedEvent]) -> Vec<(String, Json)> {
    let offset_text = |event: &ReceivedEvent| Json::Text(event.numeric_offset().to_string());
    [
        ("PartitionKeyArray", array(events, ReceivedEvent::partition_key)),
        ("OffsetArray", array(events, offset_text)),
        ("OffsetStringArray", array(events, |event| event.offset.clone().into())),
        ("SequenceNumberArray", array(events, |event| Json::Int(event.sequence_number))),
        ("EnqueuedTimeUtcArray", array(events, ReceivedEvent::enqueued)),
        ("PropertiesArray", array(events, |event| Json::Object(event.properties.clone()))),
        ("SystemPropertiesArray", array(events, ReceivedEvent::system_properties)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// In single dispatch texts and numbers are JSON text inside a string, objects are objects, a date loses its fraction.
fn metadata_of_one(event: &ReceivedEvent) -> Vec<(String, Json)> {
    let quoted = |value: Json| Json::Text(value.to_text());
    let seconds = event.enqueued_at.replace_nanosecond(0).unwrap_or(event.enqueued_at);
    let key = event.partition_key.clone().map(|key| ("PartitionKey", quoted(key.into())));
    let members = [
        ("Offset", quoted(Json::Text(event.numeric_offset().to_string()))),
        ("OffsetString", quoted(event.offset.clone().into())),
        ("SequenceNumber", quoted(Json::Int(event.sequence_number))),
        ("EnqueuedTimeUtc", Json::Text(time_span::date(seconds))),
        ("Properties", Json::Object(event.properties.clone())),
        ("SystemProperties", event.system_properties()),
    ];
    key.into_iter().chain(members).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn sys(function: &str) -> Json {
    Json::object([
        ("MethodName", function.into()),
        ("UtcNow", zulu(OffsetDateTime::now_utc())),
        ("RandGuid", Uuid::new_v4().to_string().into()),
    ])
}

fn retry_context(retry: &RetryContext) -> Json {
    Json::object([
        ("RetryCount", Json::Int(i64::from(retry.count))),
        ("MaxRetryCount", Json::Int(retry.max)),
        ("Exception", retry.exception.clone()),
        ("Instance", Json::Null),
        ("State", Json::Object(Vec::new())),
    ])
}
