//! The body of an Event Hub invocation, byte for byte as the recorded host wrote it.
//!
//! Sources: `Azure/azure-functions-host` `ScriptInvocationContextExtensions.cs`, `Azure/azure-sdk-for-net`
//! `EventHubTriggerBindingStrategy.cs` and `AmqpSystemProperties.cs`, and recordings of a running host.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::binding_data;
use super::exception::Failure;
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
        PropertyValue::Uuid(uuid) => Json::Text(uuid.to_string()),
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

/// What a function is called with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Events(&'a [ReceivedEvent]),
    /// A text that an operator posted to `/admin/functions`.
    Input(&'a str),
}

/// The body of one attempt. `sys` changes with every attempt, the rest does not save for the retry context.
///
/// # Errors
/// If the function wants JSON and a body is none.
pub(super) fn envelope(origin: &Origin, content: Content<'_>, retry: Option<&RetryContext>) -> Result<String, Failure> {
    let mut metadata = Vec::new();
    let (data, text) = match content {
        Content::Events(events) => {
            let context = partition_context(origin);
            metadata.push(("TriggerPartitionContext".to_owned(), context.clone()));
            metadata.push(("PartitionContext".to_owned(), context));
            let one = events.first().filter(|_| origin.shape.is_one());
            metadata.extend(one.map_or_else(|| metadata_of_many(events), metadata_of_one));
            let bodies: Vec<_> = events.iter().map(|event| event.body.as_ref()).collect();
            (data(origin, &bodies)?, one.map(|event| String::from_utf8_lossy(&event.body).into_owned()))
        }
        Content::Input(input) => {
            metadata.extend(metadata_of_input());
            metadata.push((origin.binding.clone(), Json::Text(Json::from(input).to_text())));
            (data(origin, &[input.as_bytes()])?, Some(input.to_owned()))
        }
    };
    metadata.push(("sys".to_owned(), sys(&origin.function)));
    if let Some(text) = text.filter(|_| origin.shape == Shape::OneText) {
        for (name, value) in binding_data::of_body(&text) {
            binding_data::put(&mut metadata, &name, value);
        }
    }
    metadata.retain(|(name, _)| !name.ends_with("Trigger"));
    if let Some(retry) = retry {
        metadata.push(("RetryContext".to_owned(), retry_context(retry)));
    }
    let data = Json::Object(vec![(origin.binding.clone(), data)]);
    Ok(Json::object([("Data", data), ("Metadata", Json::Object(metadata))]).to_text())
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

fn data(origin: &Origin, bodies: &[&[u8]]) -> Result<Json, Failure> {
    let base64 = |body: &&[u8]| Json::Text(STANDARD.encode(body));
    let text = |body: &&[u8]| Json::Text(String::from_utf8_lossy(body).into_owned());
    let one = bodies.first().copied().unwrap_or_default();
    Ok(match origin.shape {
        Shape::OneBinary => base64(&one),
        Shape::OneText => Json::Text(text(&one).to_text()),
        Shape::ManyBinary => array(bodies, base64),
        Shape::ManyText => array(bodies, text),
        Shape::ManyJson => {
            let values: Option<Vec<_>> = bodies.iter().map(|body| parsed(body)).collect();
            let values = values.ok_or_else(|| Failure::Binding(origin.binding.clone()))?;
            Json::Text(Json::Array(values).to_text())
        }
    })
}

/// A body of no bytes is `null`.
fn parsed(body: &[u8]) -> Option<Json> {
    if body.is_empty() {
        return Some(Json::Null);
    }
    serde_json::from_slice(body).ok().map(binding_data::with_dates)
}

/// Arrays travel as JSON text inside a string.
fn array<T>(items: &[T], value: impl Fn(&T) -> Json) -> Json {
    Json::Text(Json::Array(items.iter().map(value).collect()).to_text())
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

/// The single event that an input becomes has the defaults of an event that no broker saw.
fn metadata_of_input() -> Vec<(String, Json)> {
    let begin = "0001-01-01T00:00:00";
    let system = [
        ("SequenceNumber", Json::Int(i64::MIN)),
        ("Offset", Json::Int(-1)),
        ("OffsetString", Json::Null),
        ("PartitionKey", Json::Null),
        ("EnqueuedTimeUtc", begin.into()),
    ];
    [
        ("Offset", "\"-1\"".into()),
        ("SequenceNumber", i64::MIN.to_string().into()),
        ("EnqueuedTimeUtc", begin.into()),
        ("Properties", Json::Object(Vec::new())),
        ("SystemProperties", Json::object(system)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
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
