//! An Event Hubs namespace: partitions, sequence numbers, and the AMQP that client libraries need.

mod amqp;
mod store;

pub use amqp::{AmqpServer, AmqpServerError, Counters, Fault};
pub use store::{Event, EventHub, Namespace, PropertyValue, StoredEvent};
