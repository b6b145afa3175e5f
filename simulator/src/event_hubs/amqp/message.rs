//! Events on the wire: AMQP messages and batches of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use fe2o3_amqp_types::messaging::annotations::OwnedKey;
use fe2o3_amqp_types::messaging::message::DecodeIntoMessage as _;
use fe2o3_amqp_types::messaging::{
    Annotations, ApplicationProperties, Body, Data, DeliveryAnnotations, Message, MessageAnnotations, MessageId,
    Properties,
};
use fe2o3_amqp_types::primitives::{Binary, OrderedMap, SimpleValue, Symbol, Timestamp, Value};
use time::OffsetDateTime;

use crate::amqp::AnyMessage;
use crate::event_hubs::{Event, PartitionState, PropertyValue, StoredEvent};

/// Message format of a transfer that carries a batch: each of its data sections is an encoded message
/// (`Azure/azure-sdk-for-rust sdk/eventhubs/azure_messaging_eventhubs/src/producer/mod.rs`).
pub(super) const BATCH_FORMAT: u32 = 0x8001_3700;

const PARTITION_KEY: &str = "x-opt-partition-key";
const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
const OFFSET: &str = "x-opt-offset";
const ENQUEUED_TIME: &str = "x-opt-enqueued-time";
const OF_THE_BROKER: [&str; 4] = [PARTITION_KEY, SEQUENCE_NUMBER, OFFSET, ENQUEUED_TIME];

/// Why a transfer is no event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the body of a batch must be data sections")]
    NoBatch,
    #[error("a message of the batch cannot be decoded: {0}")]
    Message(String),
    #[error("the body of an event must be data sections or a value of text or bytes")]
    Body,
}

/// The events of one transfer.
pub(super) fn events(format: u32, message: AnyMessage) -> Result<Vec<Event>, Unreadable> {
    if format != BATCH_FORMAT {
        return Ok(vec![event(message)?]);
    }
    let key = partition_key(message.message_annotations.as_ref());
    let Body::Data(sections) = message.body else { return Err(Unreadable::NoBatch) };
    sections
        .into_iter()
        .map(|Data(encoded)| {
            let reader = serde_amqp::read::SliceReader::new(&encoded);
            let inner = Body::<Value>::decode_message_from_reader(reader);
            let mut event = event(inner.map_err(|error| Unreadable::Message(error.to_string()))?)?;
            // The key of the batch decides for all of it.
            event.partition_key = key.clone().or(event.partition_key);
            Ok(event)
        })
        .collect()
}

fn event(message: AnyMessage) -> Result<Event, Unreadable> {
    let body = match message.body {
        Body::Data(sections) => sections.into_iter().flat_map(|Data(bytes)| bytes.into_vec()).collect::<Bytes>(),
        Body::Value(value) => match value.0 {
            Value::Binary(bytes) => Bytes::from(bytes.into_vec()),
            Value::String(text) => Bytes::from(text),
            Value::Null => Bytes::new(),
            _ => return Err(Unreadable::Body),
        },
        Body::Empty => Bytes::new(),
        Body::Sequence(_) => return Err(Unreadable::Body),
    };
    let partition_key = partition_key(message.message_annotations.as_ref());
    let annotations = message.message_annotations.map(|annotations| annotations.0).unwrap_or_default();
    let annotations = annotations.into_iter().filter_map(|(key, value)| match key {
        OwnedKey::Symbol(Symbol(name)) if !OF_THE_BROKER.contains(&name.as_str()) => Some((name, from_value(value))),
        _ => None,
    });
    let properties = message.application_properties.map(|properties| properties.0).unwrap_or_default();
    Ok(Event {
        body,
        system: message.properties.map(from_properties).unwrap_or_default(),
        properties: properties.into_iter().map(|(name, value)| (name, from_value(value.into()))).collect(),
        annotations: annotations.collect(),
        partition_key,
    })
}

fn partition_key(annotations: Option<&MessageAnnotations>) -> Option<String> {
    annotations?.0.iter().find_map(|(key, value)| match (key, value) {
        (OwnedKey::Symbol(Symbol(name)), Value::String(key)) if name == PARTITION_KEY => Some(key.clone()),
        _ => None,
    })
}

/// The message by which a consumer gets an event.
pub(super) fn message(stored: &StoredEvent) -> Message<Data> {
    let event = &stored.event;
    let mut annotations = Annotations::new();
    for (name, value) in &event.annotations {
        annotations.insert(OwnedKey::from(name.as_str()), to_value(value));
    }
    annotations.insert(OwnedKey::from(SEQUENCE_NUMBER), Value::Long(stored.sequence_number));
    annotations.insert(OwnedKey::from(OFFSET), Value::String(stored.offset.to_string()));
    let arrived = Timestamp::from_milliseconds(milliseconds(stored.enqueued_at));
    annotations.insert(OwnedKey::from(ENQUEUED_TIME), Value::Timestamp(arrived));
    if let Some(key) = &event.partition_key {
        annotations.insert(OwnedKey::from(PARTITION_KEY), Value::String(key.clone()));
    }
    let mut properties = OrderedMap::new();
    for (name, value) in &event.properties {
        properties.insert(name.clone(), to_simple(value));
    }
    Message {
        header: None,
        delivery_annotations: None,
        message_annotations: Some(MessageAnnotations(annotations)),
        properties: (!event.system.is_empty()).then(|| to_properties(&event.system)),
        application_properties: (!event.properties.is_empty()).then_some(ApplicationProperties(properties)),
        body: Data(Binary::from(event.body.to_vec())),
        footer: None,
    }
}

/// How far the partition has come, for consumers that asked for it
/// (`Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_common.py`).
pub(super) fn runtime_metric(state: &PartitionState) -> DeliveryAnnotations {
    let now = Timestamp::from_milliseconds(milliseconds(OffsetDateTime::now_utc()));
    let enqueued = Timestamp::from_milliseconds(milliseconds(state.last_enqueued_at));
    let mut annotations = Annotations::new();
    annotations.insert(OwnedKey::from("last_enqueued_sequence_number"), Value::Long(state.end - 1));
    annotations.insert(OwnedKey::from("last_enqueued_offset"), Value::String(state.last_offset.to_string()));
    annotations.insert(OwnedKey::from("last_enqueued_time_utc"), Value::Timestamp(enqueued));
    annotations.insert(OwnedKey::from("runtime_info_retrieval_time_utc"), Value::Timestamp(now));
    DeliveryAnnotations(annotations)
}

/// A point in time as AMQP counts it.
pub(super) fn milliseconds(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn from_milliseconds(timestamp: Timestamp) -> PropertyValue {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(timestamp.milliseconds()) * 1_000_000)
        .map_or(PropertyValue::Long(timestamp.milliseconds()), PropertyValue::Timestamp)
}

fn from_value(value: Value) -> PropertyValue {
    match value {
        Value::Null => PropertyValue::Null,
        Value::Bool(bool) => PropertyValue::Bool(bool),
        Value::Byte(number) => PropertyValue::Int(number.into()),
        Value::Ubyte(number) => PropertyValue::Int(number.into()),
        Value::Short(number) => PropertyValue::Int(number.into()),
        Value::Ushort(number) => PropertyValue::Int(number.into()),
        Value::Int(number) => PropertyValue::Int(number),
        Value::Uint(number) => PropertyValue::Long(number.into()),
        Value::Long(number) => PropertyValue::Long(number),
        Value::Ulong(number) => {
            i64::try_from(number).map_or_else(|_| PropertyValue::String(number.to_string()), PropertyValue::Long)
        }
        Value::Float(number) => PropertyValue::Double(number.into_inner().into()),
        Value::Double(number) => PropertyValue::Double(number.into_inner()),
        Value::Char(char) => PropertyValue::String(char.to_string()),
        Value::Timestamp(timestamp) => from_milliseconds(timestamp),
        Value::Uuid(uuid) => PropertyValue::Uuid(uuid::Uuid::from_bytes(uuid.into_inner())),
        Value::Binary(bytes) => PropertyValue::Binary(bytes.into_vec()),
        Value::String(text) | Value::Symbol(Symbol(text)) => PropertyValue::String(text),
        other => PropertyValue::String(format!("{other:?}")),
    }
}

fn to_simple(value: &PropertyValue) -> SimpleValue {
    match value {
        PropertyValue::Null => SimpleValue::Null,
        PropertyValue::Bool(bool) => SimpleValue::Bool(*bool),
        PropertyValue::Int(number) => SimpleValue::Int(*number),
        PropertyValue::Long(number) => SimpleValue::Long(*number),
        PropertyValue::Double(number) => SimpleValue::Double((*number).into()),
        PropertyValue::String(text) => SimpleValue::String(text.clone()),
        PropertyValue::Timestamp(at) => SimpleValue::Timestamp(Timestamp::from_milliseconds(milliseconds(*at))),
        PropertyValue::Uuid(uuid) => SimpleValue::Uuid(uuid.into_bytes().into()),
        PropertyValue::Binary(bytes) => SimpleValue::Binary(Binary::from(bytes.clone())),
    }
}

fn to_value(value: &PropertyValue) -> Value {
    to_simple(value).into()
}

fn from_properties(properties: Properties) -> BTreeMap<String, PropertyValue> {
    let id = |id: MessageId| match id {
        MessageId::Ulong(id) => from_value(Value::Ulong(id)),
        MessageId::Uuid(id) => from_value(Value::Uuid(id)),
        MessageId::Binary(id) => PropertyValue::Binary(id.into_vec()),
        MessageId::String(id) => PropertyValue::String(id),
    };
    let fields = [
        ("message-id", properties.message_id.map(id)),
        ("user-id", properties.user_id.map(|user| PropertyValue::Binary(user.into_vec()))),
        ("to", properties.to.map(PropertyValue::from)),
        ("subject", properties.subject.map(PropertyValue::from)),
        ("reply-to", properties.reply_to.map(PropertyValue::from)),
        ("correlation-id", properties.correlation_id.map(id)),
        ("content-type", properties.content_type.map(|Symbol(text)| PropertyValue::from(text))),
        ("content-encoding", properties.content_encoding.map(|Symbol(text)| PropertyValue::from(text))),
        ("absolute-expiry-time", properties.absolute_expiry_time.map(from_milliseconds)),
        ("creation-time", properties.creation_time.map(from_milliseconds)),
        ("group-id", properties.group_id.map(PropertyValue::from)),
        ("group-sequence", properties.group_sequence.map(|number| PropertyValue::Long(number.into()))),
        ("reply-to-group-id", properties.reply_to_group_id.map(PropertyValue::from)),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn to_properties(system: &BTreeMap<String, PropertyValue>) -> Properties {
    let text = |name: &str| match system.get(name) {
        Some(PropertyValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let id = |name: &str| match system.get(name)? {
        PropertyValue::String(id) => Some(MessageId::String(id.clone())),
        PropertyValue::Uuid(id) => Some(MessageId::Uuid(id.into_bytes().into())),
        PropertyValue::Binary(id) => Some(MessageId::Binary(Binary::from(id.clone()))),
        PropertyValue::Long(id) => u64::try_from(*id).ok().map(MessageId::Ulong),
        _ => None,
    };
    let time = |name: &str| match system.get(name)? {
        PropertyValue::Timestamp(at) => Some(Timestamp::from_milliseconds(milliseconds(*at))),
        _ => None,
    };
    Properties {
        message_id: id("message-id"),
        user_id: match system.get("user-id") {
            Some(PropertyValue::Binary(user)) => Some(Binary::from(user.clone())),
            Some(PropertyValue::String(user)) => Some(Binary::from(user.clone().into_bytes())),
            _ => None,
        },
        to: text("to"),
        subject: text("subject"),
        reply_to: text("reply-to"),
        correlation_id: id("correlation-id"),
        content_type: text("content-type").map(Symbol),
        content_encoding: text("content-encoding").map(Symbol),
        absolute_expiry_time: time("absolute-expiry-time"),
        creation_time: time("creation-time"),
        group_id: text("group-id"),
        group_sequence: match system.get("group-sequence") {
            Some(PropertyValue::Long(number)) => u32::try_from(*number).ok(),
            _ => None,
        },
        reply_to_group_id: text("reply-to-group-id"),
    }
}
