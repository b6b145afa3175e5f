//! AMQP 1.0 as Azure's brokers speak it, whatever they are brokers of.
//!
//! | module | what it does |
//! |---|---|
//! | `doors` | the ports: plain and TLS |
//! | `connection` | connections, sessions, and which node a link gets |
//! | `sasl` | the opening of a connection |
//! | `cbs` | `$cbs`, where tokens are put |
//! | `grants` | what the tokens of a connection open, and until when |
//! | `requests` | links that ask and links that answer |
//! | `service` | what a broker contributes: its tokens and its nodes |
//! | `fault` | a stream that a fault can interrupt |

mod cbs;
mod connection;
mod doors;
mod fault;
mod grants;
mod requests;
mod sasl;
mod service;

pub use doors::DoorError;
pub use fault::Fault;

pub(crate) use doors::{Door, Doors, Outside};
pub(crate) use grants::{Grant, Grants, LinkRight, Refused, Scope};
pub(crate) use requests::{Outcome, field, refuse};
pub(crate) use service::{AnyMessage, Attaching, Credentials, Node, Service, error, path};

/// The largest event or batch of the standard tier, announced on every link
/// (<https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>).
pub(crate) const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
