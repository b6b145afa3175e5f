//! What a broker contributes to the doors.

use std::fmt;
use std::sync::Arc;

use fe2o3_amqp::{Receiver, Sender};
use fe2o3_amqp_types::definitions::{Error, ErrorCondition};
use fe2o3_amqp_types::messaging::{Body, Message};
use fe2o3_amqp_types::performatives::Attach;
use fe2o3_amqp_types::primitives::Value;
use futures::future::BoxFuture;

use super::grants::{Grant, Grants, Refused};
use super::requests::Outcome;

/// A message whose body was not looked into.
pub(crate) type AnyMessage = Message<Body<Value>>;

/// A broker behind the doors. Several share them: they are told apart by the addresses of links.
pub(crate) trait Service: fmt::Debug + Send + Sync {
    /// How `$cbs` says that a token was taken: Event Hubs' way, unless a broker has its own.
    fn accepted(&self) -> (i32, &'static str) {
        (202, "Accepted")
    }

    /// What these credentials open.
    fn check(&self, credentials: &Credentials<'_>) -> Result<Grant, Refused>;

    /// The node of a link that is being attached; `None` if the address is none of this broker's.
    fn node(&self, link: &Attaching<'_>, grants: &Arc<Grants>) -> Option<Result<Node, Error>>;
}

/// What a client shows.
#[derive(Clone, Copy)]
pub(crate) enum Credentials<'a> {
    /// A shared access signature put for an audience such as `amqps://host/hub`.
    Sas { token: &'a str, audience: &'a str },
    /// A token of Microsoft Entra put for an audience.
    Jwt { token: &'a str, audience: &'a str },
    /// User name and password of SASL PLAIN.
    Plain { user: &'a str, password: &'a str },
}

impl<'a> Credentials<'a> {
    /// What was put at `$cbs`. The text of the token tells its kind: IoT Hub's libraries put tokens of Microsoft Entra, with
    /// `Bearer ` before them, under the type of shared access signatures
    /// (`Azure/azure-iot-hub-node src/amqp.ts`, `Azure/azure-iot-hub-python azure-iot-hub/azure/iot/hub/iothub_amqp_client.py`).
    pub(crate) fn put(token: &'a str, audience: &'a str) -> Self {
        if token.starts_with("SharedAccessSignature ") {
            Self::Sas { token, audience }
        } else {
            Self::Jwt { token: token.strip_prefix("Bearer ").unwrap_or(token), audience }
        }
    }
}

/// A link that is being attached.
pub(crate) struct Attaching<'a> {
    /// The address of the node, as the client wrote it.
    pub(crate) address: &'a str,
    /// Whether the client is going to receive.
    pub(crate) receives: bool,
    /// All that the client said.
    pub(crate) attach: &'a Attach,
}

/// Answers a request by status code, description and body.
pub(crate) type Answerer = Arc<dyn Fn(&AnyMessage, &Grants) -> Outcome + Send + Sync>;

/// What a link is attached to.
pub(crate) enum Node {
    /// Takes what the client sends, until the future ends.
    Takes(Box<dyn FnOnce(Receiver) -> BoxFuture<'static, ()> + Send>),
    /// Sends to the client, until the future ends.
    Gives(Box<dyn FnOnce(Sender) -> BoxFuture<'static, ()> + Send>),
    /// Answers requests on the reply link of the same name.
    Asks { name: &'static str, answer: Answerer },
    /// The way back of the answers.
    Replies { name: &'static str },
}

/// The path of an address or a resource, with or without scheme, host and port.
pub(crate) fn path(address: &str) -> &str {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    path.trim_matches('/')
}

/// An AMQP error.
pub(crate) fn error(condition: impl Into<ErrorCondition>, text: impl Into<String>) -> Error {
    Error::new(condition, text.into(), None)
}
