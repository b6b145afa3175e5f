//! An Event Hubs namespace: partitions, sequence numbers, and the AMQP that client libraries need.

mod amqp;
mod happened;
mod namespace;
mod store;

pub use crate::amqp::{DoorError, Fault};
pub use amqp::{AmqpOptions, AmqpServer, AmqpServerError, Counters, SasPolicy};
pub use namespace::{Barred, Claim, DEFAULT_CONSUMER_GROUP, Namespace};
pub use store::{Event, EventHub, PartitionState, PropertyValue, RETAINED_BYTES, StoredEvent};
