//! The AMQP 1.0 endpoint of an Event Hubs namespace, as far as its client libraries need it.
//!
//! | module | what it does |
//! |---|---|
//! | `connection` | connections, sessions and which node a link gets |
//! | `requests` | `$cbs` and `$management` |
//! | `producer`, `consumer` | the links of producers and consumers |
//! | `message` | events on the wire |
//! | `address`, `sas`, `selector` | pure parsing |
//! | `fault` | a stream that a fault can interrupt |
//!
//! Not imitated: consumer epochs, idle links being detached, quotas, tokens of Microsoft Entra.

mod address;
mod connection;
mod consumer;
mod fault;
mod message;
mod producer;
mod requests;
mod sas;
mod selector;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use fault::Fault;

use super::Namespace;

/// Out of file descriptors, accepting fails until one is given back: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the endpoint could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AmqpServerError {
    /// The address cannot be listened on.
    #[error("listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A client needs one shared access policy at least.
    #[error("the namespace needs a shared access policy: name one with its key")]
    NoPolicy,
}

/// What the endpoint has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted, refused ones included.
    pub connections: u64,
    /// Events taken from producers.
    pub received: u64,
    /// Events given to consumers.
    pub sent: u64,
}

/// What all connections share.
#[derive(Debug)]
struct Broker {
    namespace: Namespace,
    policies: Vec<(String, String)>,
    fault: watch::Sender<Fault>,
    connections: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// An Event Hubs namespace on a port of this machine. Stops when dropped.
#[derive(Debug)]
pub struct AmqpServer {
    addr: SocketAddr,
    broker: Arc<Broker>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl AmqpServer {
    /// Serves the namespace; tokens are checked against these shared access policies (name, key).
    ///
    /// # Errors
    /// If the address cannot be listened on, or there is no policy.
    pub async fn start(
        addr: SocketAddr,
        namespace: Namespace,
        policies: Vec<(String, String)>,
    ) -> Result<Self, AmqpServerError> {
        if policies.is_empty() {
            return Err(AmqpServerError::NoPolicy);
        }
        let failed = |error| AmqpServerError::Listen { addr, error };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let broker = Arc::new(Broker {
            namespace,
            policies,
            fault: watch::Sender::new(Fault::None),
            connections: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let listening = listen(listener, broker.clone(), tasks.clone(), stop.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(listening));
        Ok(Self { addr, broker, tasks, _stop_on_drop: stop.clone().drop_guard(), stop })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A connection string with the first policy.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let (addr, (name, key)) = (self.addr, &self.broker.policies[0]);
        format!("Endpoint=sb://{addr};SharedAccessKeyName={name};SharedAccessKey={key};UseDevelopmentEmulator=true;")
    }

    /// Misbehaves from now on, or stops misbehaving.
    pub fn set_fault(&self, fault: Fault) {
        self.broker.fault.send_replace(fault);
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Broker { connections, received, sent, .. } = &*self.broker;
        Counters { connections: read(connections), received: read(received), sent: read(sent) }
    }

    /// Closes all connections and stops listening; returns when that is done.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn listen(listener: TcpListener, broker: Arc<Broker>, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "accept a connection to the event hubs namespace");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        broker.connections.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "switch off nagle's algorithm");
        }
        // TLS would be accepted here: all that follows takes any stream.
        let serving = fault::interruptible(tcp, broker.fault.subscribe(), {
            let broker = broker.clone();
            move |stream| connection::serve(stream, broker)
        });
        tasks.spawn(stop.clone().run_until_cancelled_owned(serving));
    }
}
