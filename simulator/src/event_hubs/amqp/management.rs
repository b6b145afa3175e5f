//! `$management`: what Event Hubs and partitions tell about themselves.
//!
//! Requests and answers are those of `Azure/azure-sdk-for-rust sdk/eventhubs/azure_messaging_eventhubs/src/common/management.rs`.

use std::sync::Arc;

use fe2o3_amqp_types::primitives::{Array, OrderedMap, Timestamp, Value};
use time::OffsetDateTime;

use super::message::milliseconds;
use super::nodes::{Broker, partition, scope};
use crate::amqp::{AnyMessage, Grants, Node, Outcome, field, refuse};
use crate::event_hubs::EventHub;

const NAME: &str = "$management";

/// The node, for a link of either direction.
pub(super) fn node(receives: bool, broker: &Arc<Broker>) -> Node {
    if receives {
        return Node::Replies { name: NAME };
    }
    let broker = broker.clone();
    Node::Asks { name: NAME, answer: Arc::new(move |request, grants| read(request, &broker, grants)) }
}

fn read(request: &AnyMessage, broker: &Broker, grants: &Grants) -> Outcome {
    if field(request, "operation") != Some("READ") {
        return refuse(400, "the operation of $management is READ");
    }
    let Some(name) = field(request, "name") else { return refuse(400, "name is missing") };
    let may = |principal: &str| broker.namespace.permits_reading_of(principal, name);
    // What opens the Event Hub opens this too.
    if let Err(why) = grants.opens(&scope(&format!("{name}/$management")), may) {
        broker.namespace.tell(why.as_ref());
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
    let state = hub.state(partition);
    vec![
        ("name", Value::String(hub.name().to_owned())),
        ("type", Value::String("com.microsoft:partition".to_owned())),
        ("partition", Value::String(partition.to_string())),
        ("begin_sequence_number", Value::Long(state.begin)),
        ("last_enqueued_sequence_number", Value::Long(state.end - 1)),
        ("last_enqueued_sequence_number_epoch", Value::Long(0)),
        ("last_enqueued_offset", Value::String(state.last_offset.to_string())),
        ("last_enqueued_time_utc", timestamp(state.last_enqueued_at)),
        ("is_partition_empty", Value::Bool(state.begin == state.end)),
    ]
}
