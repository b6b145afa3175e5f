//! Connections, sessions and links.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::acceptor::{
    ConnectionAcceptor, LinkAcceptor, LinkEndpoint, ListenerConnectionHandle, ListenerSessionHandle, SessionAcceptor,
    SupportedReceiverSettleModes,
};
use fe2o3_amqp::connection::OpenError;
use fe2o3_amqp_types::definitions::{AmqpError, Error, Fields, ReceiverSettleMode, Role};
use fe2o3_amqp_types::messaging::TargetArchetype;
use fe2o3_amqp_types::performatives::Attach;
use fe2o3_amqp_types::primitives::{Symbol, Value};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::task::JoinSet;

use super::grants::Grants;
use super::requests::{self, Replies};
use super::sasl::Opening;
use super::service::{Attaching, Node, Service, error, path};
use super::{MAX_MESSAGE_BYTES, cbs};
use crate::faults::{Fate, Faults, Stage, Strike, play};

/// The service speaks in frames of 64 KiB.
const MAX_FRAME_BYTES: u32 = 64 * 1024;
/// A connection without a frame for so long is closed by the service.
const IDLE_MILLISECONDS: u32 = 240_000;
/// How long a client may take from the first byte to its open.
const OPENING_TIME: Duration = Duration::from_secs(60);

/// The first bytes of a client that has no use for a SASL layer (AMQP 1.0, 2.2).
const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";

/// Links that a session may have, less one. As for [`padding`], it must be said: the default would be left out.
const HANDLE_MAX: u32 = 255;

/// Properties that make every open, begin and attach carry all its fields.
///
/// Trailing nulls may be left out (AMQP 1.0, 1.4), but Python's library indexes the fields of a frame without asking for its length
/// (`Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_pyamqp/_connection.py`, `session.py`, `link.py`).
fn padding() -> Fields {
    Fields::from_iter([(Symbol::from("product"), Value::String("simulator".to_owned()))])
}

/// What the links of one connection share.
#[derive(Clone)]
struct Shared {
    services: Arc<[Arc<dyn Service>]>,
    grants: Arc<Grants>,
    faults: Faults,
}

/// Serves one connection until it ends.
pub(super) async fn serve<Io>(stream: Io, services: Arc<[Arc<dyn Service>]>, faults: Faults)
where
    Io: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
{
    let shared = Shared { services, grants: Arc::default(), faults };
    let mut connection = match tokio::time::timeout(OPENING_TIME, open(stream, &shared)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "a client did not get through the opening"),
        Err(_) => return tracing::debug!("a client took too long for the opening"),
    };
    // Dropped with the connection, and its tasks with it.
    let mut sessions = JoinSet::new();
    while let Some(incoming) = connection.next_incoming_session().await {
        let acceptor = SessionAcceptor::builder().handle_max(HANDLE_MAX).properties(padding()).build();
        match acceptor.accept_incoming_session(incoming, &mut connection).await {
            Ok(session) => {
                sessions.spawn(serve_session(session, shared.clone()));
            }
            Err(error) => tracing::debug!(%error, "a session did not begin"),
        }
        while sessions.try_join_next().is_some() {}
    }
    if let Err(error) = connection.on_close().await {
        tracing::debug!(%error, "the connection ended");
    }
}

/// Opens a connection, with a SASL layer or without one: Node's `azure-iothub` begins with AMQP itself and leaves it to `$cbs` who it is.
async fn open<Io>(mut stream: Io, shared: &Shared) -> Result<ListenerConnectionHandle, OpenError>
where
    Io: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
{
    let mut header = [0; 8];
    stream.read_exact(&mut header).await?;
    let (reader, writer) = tokio::io::split(stream);
    // The library wants to read the header itself.
    let stream = tokio::io::join(Cursor::new(header).chain(reader), writer);
    let acceptor = ConnectionAcceptor::builder()
        .container_id("simulated-azure")
        .max_frame_size(MAX_FRAME_BYTES)
        .idle_time_out(IDLE_MILLISECONDS)
        .properties(padding());
    if header == AMQP_HEADER {
        return acceptor.build().accept(stream).await;
    }
    let opening = Opening { services: shared.services.clone(), grants: shared.grants.clone() };
    acceptor.sasl_acceptor(opening).build().accept(stream).await
}

async fn serve_session(mut session: ListenerSessionHandle, shared: Shared) {
    let replies = Arc::new(Replies::default());
    let mut links = JoinSet::new();
    let acceptor = LinkAcceptor::builder()
        .max_message_size(MAX_MESSAGE_BYTES)
        .properties(padding())
        .verify_incoming_source(false)
        .verify_incoming_target(false)
        // As the service: it settles at once, also where a client asks for the second mode. Python's library does ask, and
        // then waits for a disposition that is settled (`_pyamqp/sender.py`).
        .supported_receiver_settle_modes(SupportedReceiverSettleModes::First)
        .fallback_receiver_settle_mode(ReceiverSettleMode::First)
        .build();
    // Links that a fault holds up, each for itself.
    let mut held_up = FuturesUnordered::new();
    loop {
        let (attach, fate) = tokio::select! {
            attach = session.next_incoming_attach(), if held_up.len() <= HANDLE_MAX as usize => {
                let Some(attach) = attach else { break };
                match strike(&attach, &shared) {
                    None => (attach, Fate::GoesOn),
                    strike @ Some(_) => {
                        held_up.push(async move { (attach, play(strike).await) });
                        continue;
                    }
                }
            }
            Some(due) = held_up.next() => due,
        };
        let node = match fate {
            Fate::GoesOn => node(&attach, &shared),
            Fate::Silence | Fate::Closed => Err(error(AmqpError::InternalError, "a fault was asked for")),
        };
        // A node that does not exist is said by a null terminus, and why by the detach behind it (AMQP 1.0, 2.6.3).
        let attach = if node.is_err() { without_terminus(attach) } else { attach };
        match acceptor.accept_incoming_attach(attach, &mut session).await {
            Ok(link) => {
                links.spawn(serve_link(link, node, shared.grants.clone(), replies.clone()));
            }
            Err(error) => tracing::debug!(%error, "a link was not attached"),
        }
        while links.try_join_next().is_some() {}
    }
    if let Err(error) = session.on_end().await {
        tracing::debug!(%error, "the session ended");
    }
}

/// What happens to a link that is being attached. Those of `$cbs` are spared: the first rule would hit them in every connection,
/// and clients wait a minute for them.
fn strike(attach: &Attach, shared: &Shared) -> Option<Strike> {
    let spared = address(attach).is_some_and(|address| is_cbs(&address));
    if spared { None } else { shared.faults.at(Stage::AmqpLink, None) }
}

fn without_terminus(mut attach: Attach) -> Attach {
    match attach.role {
        Role::Sender => attach.target = None,
        Role::Receiver => attach.source = None,
    }
    attach
}

/// The address of the node that a link asks for.
fn address(attach: &Attach) -> Option<String> {
    match attach.role {
        Role::Sender => target_address(attach),
        Role::Receiver => attach.source.as_deref()?.address.clone(),
    }
}

fn is_cbs(address: &str) -> bool {
    path(address).eq_ignore_ascii_case(cbs::NAME)
}

fn target_address(attach: &Attach) -> Option<String> {
    match attach.target.as_deref()? {
        TargetArchetype::Target(target) => target.address.clone(),
        #[allow(unreachable_patterns, reason = "a feature of the library adds the coordinator")]
        _ => None,
    }
}

/// The node that a link asks for, or why it gets none.
fn node(attach: &Attach, shared: &Shared) -> Result<Node, Error> {
    let receives = attach.role == Role::Receiver;
    let address = address(attach).ok_or_else(|| error(AmqpError::InvalidField, "a link needs an address"))?;
    if is_cbs(&address) {
        return Ok(cbs::node(receives, &shared.services));
    }
    let link = Attaching { address: &address, receives, attach };
    let node = shared.services.iter().find_map(|service| service.node(&link, &shared.grants));
    node.unwrap_or_else(|| {
        Err(error(AmqpError::NotFound, format!("The messaging entity '{address}' could not be found.")))
    })
}

async fn serve_link(link: LinkEndpoint, node: Result<Node, Error>, grants: Arc<Grants>, replies: Arc<Replies>) {
    let ended = match (link, node) {
        (LinkEndpoint::Receiver(link), Err(why)) => link.close_with_error(why).await.err().map(text),
        (LinkEndpoint::Sender(link), Err(why)) => link.close_with_error(why).await.err().map(text),
        (LinkEndpoint::Receiver(link), Ok(Node::Asks { name, answer })) => {
            requests::serve(link, name, &answer, &grants, &replies).await.err().map(text)
        }
        (LinkEndpoint::Sender(link), Ok(Node::Replies { name })) => {
            requests::reply(link, name, &replies).await.err().map(text)
        }
        (LinkEndpoint::Receiver(link), Ok(Node::Takes(serve))) => {
            serve(link).await;
            None
        }
        (LinkEndpoint::Sender(link), Ok(Node::Gives(serve))) => {
            serve(link).await;
            None
        }
        // A node is found for the direction that the client asks for.
        (_, Ok(_)) => None,
    };
    if let Some(reason) = ended {
        tracing::debug!(reason, "a link ended");
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
