//! The nodes that answer requests: `$cbs` takes tokens, `$management` tells about Event Hubs and partitions.
//!
//! Requests and answers are those of `Azure/azure-sdk-for-rust sdk/eventhubs/azure_messaging_eventhubs/src/common/management.rs`
//! and `Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_pyamqp/cbs.py`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use fe2o3_amqp::link::{RecvError, SendError};
use fe2o3_amqp::{Receiver, Sender};
use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body, Message, Properties};
use fe2o3_amqp_types::primitives::{Array, OrderedMap, SimpleValue, Timestamp, Value};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::connection::{Grants, partition};
use super::message::{AnyMessage, milliseconds};
use super::{Broker, sas};
use crate::event_hubs::EventHub;

/// A node that answers requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RequestNode {
    Cbs,
    Management,
}

type Answer = Message<AmqpValue<Value>>;

/// A client asks one thing after another.
const ANSWERS_WAITING: usize = 16;

/// A node, and the address that requests name in reply-to.
type ReplyAddress = (RequestNode, Option<String>);

/// The links of a session on which answers go.
#[derive(Debug, Default)]
pub(super) struct Replies(Mutex<HashMap<ReplyAddress, mpsc::Sender<Answer>>>);

impl Replies {
    fn add(&self, node: RequestNode, address: Option<String>) -> mpsc::Receiver<Answer> {
        let (sender, receiver) = mpsc::channel(ANSWERS_WAITING);
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Python's library names no reply-to: the newest link of the node serves then.
        links.insert((node, None), sender.clone());
        links.insert((node, address), sender);
        receiver
    }

    fn to(&self, node: RequestNode, address: Option<String>) -> Option<mpsc::Sender<Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(node, address)).cloned()
    }
}

/// Sends answers on the link of a client that asks.
pub(super) async fn reply(mut link: Sender, node: RequestNode, replies: &Replies) -> Result<(), SendError> {
    let address = link.target().as_ref().and_then(|target| target.address.clone());
    let mut answers = replies.add(node, address);
    loop {
        tokio::select! {
            answer = answers.recv() => match answer {
                Some(answer) => {
                    // Batchable is the last field of a transfer: with it set, no field before it is left out (see `padding`).
                    link.send_batchable(answer).await?.await?;
                }
                None => return Ok(()),
            },
            error = link.on_detach() => return Err(error.into()),
        }
    }
}

/// Answers requests until the link ends.
pub(super) async fn serve(
    mut link: Receiver,
    node: RequestNode,
    broker: &Broker,
    grants: &Grants,
    replies: &Replies,
) -> Result<(), RecvError> {
    loop {
        let delivery = link.recv::<Body<Value>>().await?;
        if let Err(error) = link.accept(&delivery).await {
            tracing::debug!(%error, "a request could not be settled");
        }
        let mut request = delivery.into_message();
        let properties = request.properties.take().unwrap_or_default();
        let (code, text, body) = match node {
            RequestNode::Cbs => put_token(request, broker, grants),
            RequestNode::Management => read(&request, broker, grants),
        };
        let reply_to = properties.reply_to.clone();
        match replies.to(node, reply_to) {
            Some(link) => {
                if link.send(answer(properties, code, text, body)).await.is_err() {
                    tracing::debug!(?node, "the link for the answer is gone");
                }
            }
            None => tracing::debug!(?node, "no link for the answer"),
        }
    }
}

type Outcome = (i32, String, Value);

fn answer(request: Properties, code: i32, text: String, body: Value) -> Answer {
    let mut properties = OrderedMap::new();
    properties.insert("status-code".to_owned(), SimpleValue::Int(code));
    properties.insert("status-description".to_owned(), SimpleValue::String(text));
    Message {
        header: None,
        delivery_annotations: None,
        message_annotations: None,
        properties: Some(Properties { correlation_id: request.message_id, ..Properties::default() }),
        application_properties: Some(ApplicationProperties(properties)),
        body: AmqpValue(body),
        footer: None,
    }
}

fn refuse(code: i32, text: impl Into<String>) -> Outcome {
    (code, text.into(), Value::Null)
}

/// A text in the application properties of a request.
fn field<'a>(request: &'a AnyMessage, name: &str) -> Option<&'a str> {
    match request.application_properties.as_ref()?.0.get(name)? {
        SimpleValue::String(text) => Some(text),
        SimpleValue::Symbol(text) => Some(text.as_str()),
        SimpleValue::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn put_token(request: AnyMessage, broker: &Broker, grants: &Grants) -> Outcome {
    if field(&request, "operation") != Some("put-token") {
        return refuse(400, "the operation of $cbs is put-token");
    }
    if field(&request, "type") != Some("servicebus.windows.net:sastoken") {
        return refuse(401, "this namespace knows shared access signatures only");
    }
    let Some(audience) = field(&request, "name") else { return refuse(400, "name is missing") };
    let Body::Value(AmqpValue(Value::String(token))) = &request.body else {
        return refuse(400, "the body must be the token");
    };
    match sas::check(token, audience, &broker.policies, OffsetDateTime::now_utc()) {
        Ok(grant) => {
            grants.add(grant);
            (202, "Accepted".to_owned(), Value::Null)
        }
        Err(refused) => refuse(401, format!("InvalidToken: {refused}")),
    }
}

fn read(request: &AnyMessage, broker: &Broker, grants: &Grants) -> Outcome {
    if field(request, "operation") != Some("READ") {
        return refuse(400, "the operation of $management is READ");
    }
    let Some(name) = field(request, "name") else { return refuse(400, "name is missing") };
    if !grants.opens(name) && !grants.opens(&format!("{name}/$management")) {
        return refuse(401, format!("Unauthorized access to {name}"));
    }
    let Some(hub) = broker.namespace.hub(name) else {
        return refuse(404, format!("The messaging entity '{name}' could not be found."));
    };
    let found = match (field(request, "type"), field(request, "partition")) {
        (Some("com.microsoft:eventhub"), _) => hub_properties(&hub),
        (Some("com.microsoft:partition"), Some(id)) => match partition(&hub, id) {
            Ok(partition) => partition_properties(&hub, partition),
            Err(_) => return refuse(404, format!("there is no partition {id}")),
        },
        _ => return refuse(400, "the type must be com.microsoft:eventhub or com.microsoft:partition"),
    };
    let map = found.into_iter().map(|(key, value)| (Value::from(key.to_owned()), value));
    (200, "OK".to_owned(), Value::Map(map.collect::<OrderedMap<_, _>>()))
}

fn timestamp(at: OffsetDateTime) -> Value {
    Value::Timestamp(Timestamp::from_milliseconds(milliseconds(at)))
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn hub_properties(hub: &EventHub) -> Vec<(&'static str, Value)> {
    let ids = (0..hub.partition_count()).map(|id| Value::String(id.to_string())).collect();
    vec![
        ("name", Value::String(hub.name().to_owned())),
        ("type", Value::String("com.microsoft:eventhub".to_owned())),
        ("created_at", timestamp(hub.created_at())),
        ("partition_count", Value::Int(count(hub.partition_count()))),
        ("partition_ids", Value::Array(Array(ids))),
    ]
}

fn partition_properties(hub: &EventHub, partition: usize) -> Vec<(&'static str, Value)> {
    let end = hub.end(partition);
    let last = hub.read(partition, end - 1, 1);
    let last = last.first();
    vec![
        ("name", Value::String(hub.name().to_owned())),
        ("type", Value::String("com.microsoft:partition".to_owned())),
        ("partition", Value::String(partition.to_string())),
        ("begin_sequence_number", Value::Long(0)),
        ("last_enqueued_sequence_number", Value::Long(end - 1)),
        ("last_enqueued_sequence_number_epoch", Value::Long(0)),
        ("last_enqueued_offset", Value::String(last.map_or(-1, |event| event.offset).to_string())),
        ("last_enqueued_time_utc", timestamp(last.map_or(OffsetDateTime::UNIX_EPOCH, |event| event.enqueued_at))),
        ("is_partition_empty", Value::Bool(last.is_none())),
    ]
}
