//! Connections, sessions and links.

use std::sync::{Arc, Mutex, PoisonError};

use fe2o3_amqp::acceptor::{
    ConnectionAcceptor, LinkAcceptor, LinkEndpoint, ListenerSessionHandle, SaslAnonymousMechanism, SessionAcceptor,
};
use fe2o3_amqp_types::definitions::{AmqpError, Error, ErrorCondition, Fields, Role};
use fe2o3_amqp_types::messaging::{Source, TargetArchetype};
use fe2o3_amqp_types::performatives::Attach;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::address::{Entity, Node};
use super::requests::{Replies, RequestNode};
use super::sas::Grant;
use super::{Broker, address, consumer, producer, requests};
use crate::event_hubs::EventHub;

/// The largest event or batch of the standard tier, announced on every link
/// (<https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>).
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
/// The service speaks in frames of 64 KiB.
const MAX_FRAME_BYTES: u32 = 64 * 1024;
/// A connection without a frame for so long is closed by the service.
const IDLE_MILLISECONDS: u32 = 240_000;

/// Links that a session may have, less one. As for [`padding`], it must be said: the default would be left out.
const HANDLE_MAX: u32 = 255;

/// Properties that make every open, begin and attach carry all its fields.
///
/// Trailing nulls may be left out (AMQP 1.0, 1.4), but Python's library indexes the fields of a frame without asking for its length
/// (`Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_pyamqp/_connection.py`, `session.py`, `link.py`).
fn padding() -> Fields {
    Fields::from_iter([(Symbol::from("product"), Value::String("simulator".to_owned()))])
}

/// What a client opened on its connection by the tokens it put.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<Vec<Grant>>);

impl Grants {
    pub(super) fn add(&self, grant: Grant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(grant);
    }

    pub(super) fn opens(&self, path: &str) -> bool {
        let now = OffsetDateTime::now_utc();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|grant| grant.opens(path, now))
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve<Io>(stream: Io, broker: Arc<Broker>)
where
    Io: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
{
    let acceptor = ConnectionAcceptor::builder()
        .container_id("simulated-event-hubs")
        .max_frame_size(MAX_FRAME_BYTES)
        .idle_time_out(IDLE_MILLISECONDS)
        .properties(padding())
        .sasl_acceptor(SaslAnonymousMechanism::new())
        .build();
    let mut connection = match acceptor.accept(stream).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a client did not get through the opening"),
    };
    let grants = Arc::new(Grants::default());
    // Dropped with the connection, and its tasks with it.
    let mut sessions = JoinSet::new();
    while let Some(incoming) = connection.next_incoming_session().await {
        let acceptor = SessionAcceptor::builder().handle_max(HANDLE_MAX).properties(padding()).build();
        match acceptor.accept_incoming_session(incoming, &mut connection).await {
            Ok(session) => {
                sessions.spawn(serve_session(session, broker.clone(), grants.clone()));
            }
            Err(error) => tracing::debug!(%error, "a session did not begin"),
        }
        while sessions.try_join_next().is_some() {}
    }
    if let Err(error) = connection.on_close().await {
        tracing::debug!(%error, "the connection ended");
    }
}

async fn serve_session(mut session: ListenerSessionHandle, broker: Arc<Broker>, grants: Arc<Grants>) {
    let replies = Arc::new(Replies::default());
    let mut links = JoinSet::new();
    while let Some(attach) = session.next_incoming_attach().await {
        let plan = Plan::of(&attach, &broker, &grants);
        // A node that does not exist is said by a null terminus, and why by the detach behind it (AMQP 1.0, 2.6.3).
        let attach = if matches!(plan, Plan::Refuse(_)) { without_terminus(attach) } else { attach };
        let acceptor = LinkAcceptor::builder()
            .max_message_size(MAX_MESSAGE_BYTES)
            .properties(padding())
            .verify_incoming_source(false)
            .verify_incoming_target(false)
            .build();
        match acceptor.accept_incoming_attach(attach, &mut session).await {
            Ok(link) => {
                links.spawn(serve_link(link, plan, broker.clone(), grants.clone(), replies.clone()));
            }
            Err(error) => tracing::debug!(%error, "a link was not attached"),
        }
        while links.try_join_next().is_some() {}
    }
    if let Err(error) = session.on_end().await {
        tracing::debug!(%error, "the session ended");
    }
}

fn without_terminus(mut attach: Attach) -> Attach {
    match attach.role {
        Role::Sender => attach.target = None,
        Role::Receiver => attach.source = None,
    }
    attach
}

/// What a link is going to do.
enum Plan {
    Requests(RequestNode),
    Replies(RequestNode),
    Produce { hub: Arc<EventHub>, partition: Option<usize> },
    Consume { hub: Arc<EventHub>, partition: usize, next: i64 },
    Refuse(Error),
}

impl Plan {
    fn of(attach: &Attach, broker: &Broker, grants: &Grants) -> Self {
        let address = match attach.role {
            Role::Sender => attach.target.as_deref().and_then(|target| match target {
                TargetArchetype::Target(target) => target.address.clone(),
                #[allow(unreachable_patterns, reason = "a feature of the library adds the coordinator")]
                _ => None,
            }),
            Role::Receiver => attach.source.as_deref().and_then(|source| source.address.clone()),
        };
        let Some(address) = address else {
            return Self::Refuse(error(AmqpError::InvalidField, "a link needs an address"));
        };
        match (Node::parse(&address), &attach.role) {
            (Some(Node::Cbs), Role::Sender) => Self::Requests(RequestNode::Cbs),
            (Some(Node::Cbs), Role::Receiver) => Self::Replies(RequestNode::Cbs),
            (Some(Node::Management), Role::Sender) => Self::Requests(RequestNode::Management),
            (Some(Node::Management), Role::Receiver) => Self::Replies(RequestNode::Management),
            (Some(Node::Entity(entity)), role) if grants.opens(address::path(&address)) => {
                Self::entity(&entity, role, attach.source.as_deref(), broker).unwrap_or_else(Self::Refuse)
            }
            (Some(Node::Entity(_)), _) => {
                let text = format!("Unauthorized access. 'Send' or 'Listen' claim is required for '{address}'.");
                Self::Refuse(error(AmqpError::UnauthorizedAccess, text))
            }
            (None, _) => Self::Refuse(not_found(&address)),
        }
    }

    fn entity(entity: &Entity, role: &Role, source: Option<&Source>, broker: &Broker) -> Result<Self, Error> {
        let hub = broker.namespace.hub(&entity.hub).ok_or_else(|| not_found(&entity.hub))?;
        let partition = entity.partition.as_deref().map(|id| partition(&hub, id)).transpose()?;
        match (role, partition, &entity.group) {
            (Role::Sender, partition, None) => Ok(Self::Produce { hub, partition }),
            (Role::Receiver, Some(partition), Some(_)) => {
                // Found out before the attach is answered, so that a client may rely on what `@latest` means.
                let next = consumer::start(source)?.sequence_number(&hub, partition);
                Ok(Self::Consume { hub, partition, next })
            }
            _ => Err(error(AmqpError::NotAllowed, "the entity cannot be used in this direction")),
        }
    }
}

/// The index of a partition id.
pub(super) fn partition(hub: &EventHub, id: &str) -> Result<usize, Error> {
    let index = id.parse().ok().filter(|index| *index < hub.partition_count());
    index.ok_or_else(|| {
        let text = format!("The specified partition is invalid for an EventHub partition sender or receiver: {id}");
        let condition = ErrorCondition::Custom(Symbol::from("com.microsoft:argument-out-of-range"));
        Error::new(condition, text, None)
    })
}

pub(super) fn error(condition: impl Into<ErrorCondition>, text: impl Into<String>) -> Error {
    Error::new(condition, text.into(), None)
}

fn not_found(name: &str) -> Error {
    error(AmqpError::NotFound, format!("The messaging entity '{name}' could not be found."))
}

async fn serve_link(link: LinkEndpoint, plan: Plan, broker: Arc<Broker>, grants: Arc<Grants>, replies: Arc<Replies>) {
    let ended = match (link, plan) {
        (LinkEndpoint::Receiver(link), Plan::Refuse(why)) => link.close_with_error(why).await.err().map(text),
        (LinkEndpoint::Sender(link), Plan::Refuse(why)) => link.close_with_error(why).await.err().map(text),
        (LinkEndpoint::Receiver(link), Plan::Requests(node)) => {
            requests::serve(link, node, &broker, &grants, &replies).await.err().map(text)
        }
        (LinkEndpoint::Sender(link), Plan::Replies(node)) => {
            requests::reply(link, node, &replies).await.err().map(text)
        }
        (LinkEndpoint::Receiver(link), Plan::Produce { hub, partition }) => {
            producer::serve(link, &hub, partition, &broker).await.err().map(text)
        }
        (LinkEndpoint::Sender(link), Plan::Consume { hub, partition, next }) => {
            consumer::serve(link, &hub, partition, next, &broker).await.err().map(text)
        }
        // The plan was made for the role that the endpoint answers.
        (_, Plan::Requests(_) | Plan::Replies(_) | Plan::Produce { .. } | Plan::Consume { .. }) => None,
    };
    if let Some(reason) = ended {
        tracing::debug!(reason, "a link ended");
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
