//! The AMQP 1.0 endpoint of an Event Hubs namespace, as far as its client libraries need it.
//!
//! | module | what it does |
//! |---|---|
//! | `nodes` | what the namespace contributes to the doors |
//! | `management` | `$management` |
//! | `producer`, `consumer` | the links of producers and consumers |
//! | `readers` | owners of partitions, and how many may read one |
//! | `message` | events on the wire |
//! | `address`, `sas`, `selector` | pure parsing |
//!
//! Connections, `$cbs` and the doors themselves are those of `crate::amqp`. Not imitated: idle links being detached, quotas.

mod address;
mod consumer;
#[cfg(test)]
mod door_tests;
mod management;
mod message;
mod nodes;
mod producer;
mod readers;
mod sas;
mod selector;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nodes::{Broker, Nodes};
pub use sas::SasPolicy;

use super::Namespace;
use crate::amqp::{Door, DoorError, Doors, Fault, Outside, Service};
use crate::entra::Entra;
use crate::faults::Faults;
use crate::tls::Tls;

/// The port that Event Hubs' libraries dial, whatever a connection string says
/// (`Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_pyamqp/_connection.py`).
const AMQPS_PORT: u16 = 5671;

/// Why the endpoint could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AmqpServerError {
    /// A port cannot be opened.
    #[error(transparent)]
    Door(#[from] DoorError),
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

/// How the endpoint is set up.
#[derive(Debug)]
pub struct AmqpOptions<'a> {
    /// Where to listen without TLS.
    pub addr: SocketAddr,
    /// Where to listen with TLS, and the certificate.
    pub tls: Option<(SocketAddr, &'a Tls)>,
    /// Shared access policies; one at least.
    pub policies: Vec<SasPolicy>,
    /// Shared access policies of the hub that may read its built-in endpoint.
    pub hub_policies: Vec<SasPolicy>,
    /// Whose bearer tokens are accepted.
    pub entra: Entra,
    /// What goes wrong with single links.
    pub faults: Faults,
}

impl AmqpOptions<'_> {
    /// Without TLS, and without policies yet.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            tls: None,
            policies: Vec::new(),
            hub_policies: Vec::new(),
            entra: Entra::new(),
            faults: Faults::default(),
        }
    }
}

/// An Event Hubs namespace on ports of this machine. Stops when dropped.
#[derive(Debug)]
pub struct AmqpServer {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    broker: Arc<Broker>,
    doors: Doors,
}

impl AmqpServer {
    /// Serves the namespace.
    ///
    /// # Errors
    /// If an address cannot be listened on, the certificate cannot be used, or there is no policy.
    pub async fn start(options: AmqpOptions<'_>, namespace: Namespace) -> Result<Self, AmqpServerError> {
        Self::start_beside(options, namespace, Vec::new()).await
    }

    /// Serves the namespace, and other brokers behind the same doors.
    pub(crate) async fn start_beside(
        options: AmqpOptions<'_>,
        namespace: Namespace,
        others: Vec<Arc<dyn Service>>,
    ) -> Result<Self, AmqpServerError> {
        if options.policies.is_empty() {
            return Err(AmqpServerError::NoPolicy);
        }
        let broker = Arc::new(Broker {
            namespace,
            policies: options.policies,
            hub_policies: options.hub_policies,
            entra: options.entra,
            outside: Arc::new(Outside::new(options.faults)),
            readers: Arc::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        // A namespace takes any name for an Event Hub, so it is asked last.
        let services = others.into_iter().chain([Arc::new(Nodes(broker.clone())) as Arc<dyn Service>]).collect();
        let plain = Door { addr: options.addr, tls: None };
        let secured = options.tls.map(|(addr, tls)| Door { addr, tls: Some(tls) });
        let wanted: Vec<_> = [plain].into_iter().chain(secured).collect();
        let (doors, addrs) = Doors::open(&wanted, services, &broker.outside).await?;
        Ok(Self { addr: addrs[0], tls_addr: addrs.get(1).copied(), broker, doors })
    }

    /// Where it listens without TLS.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens with TLS.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// A connection string with the first policy, for the port without TLS.
    #[must_use]
    pub fn connection_string(&self) -> String {
        let (addr, SasPolicy { name, key }) = (self.addr, &self.broker.policies[0]);
        format!("Endpoint=sb://{addr};SharedAccessKeyName={name};SharedAccessKey={key};UseDevelopmentEmulator=true;")
    }

    /// A connection string with the first policy, for the port with TLS. Libraries that cannot be told a port dial 5671.
    #[must_use]
    pub fn tls_connection_string(&self) -> Option<String> {
        let SasPolicy { name, key } = &self.broker.policies[0];
        let port = self.tls_addr?.port();
        let host = if port == AMQPS_PORT { "localhost".to_owned() } else { format!("localhost:{port}") };
        Some(format!("Endpoint=sb://{host}/;SharedAccessKeyName={name};SharedAccessKey={key}"))
    }

    /// Misbehaves from now on, or stops misbehaving.
    pub fn set_fault(&self, fault: Fault) {
        self.broker.outside.fault.send_replace(fault);
    }

    /// How it misbehaves now.
    #[must_use]
    pub fn fault(&self) -> Fault {
        *self.broker.outside.fault.borrow()
    }

    /// What has been done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Broker { outside, received, sent, .. } = &*self.broker;
        Counters { connections: read(&outside.connections), received: read(received), sent: read(sent) }
    }

    /// Closes all connections and stops listening; returns when that is done.
    pub async fn shutdown(self) {
        self.doors.shut().await;
    }
}
