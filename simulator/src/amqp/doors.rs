//! The ports: plain, and over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::connection;
use super::fault::{self, Fault};
use super::service::Service;
use crate::faults::Faults;
use crate::tls::{Tls, TlsError};

/// Connections to a namespace of the standard tier (<https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>).
const MAX_CONNECTIONS: usize = 5000;
/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);
/// Out of file descriptors, accepting fails until one is given back: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Python's library copies every option of a fresh socket onto itself, the segment size too
/// (`Azure/azure-sdk-for-python sdk/eventhub/azure-eventhub/azure/eventhub/_pyamqp/_transport.py`). On the loopback device
/// that size can be 65 483, and Linux takes no more than this: the connection would fail by chance.
const MAX_SEGMENT_BYTES: u32 = 32 * 1024 - 1;

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address cannot be listened on.
    #[error("listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A port to open.
pub(crate) struct Door<'a> {
    /// Where to listen; port 0 takes any.
    pub(crate) addr: SocketAddr,
    /// The certificate, for a door that speaks TLS.
    pub(crate) tls: Option<&'a Tls>,
}

/// What the doors share with those who opened them.
#[derive(Debug)]
pub(crate) struct Outside {
    /// The fault of the moment.
    pub(crate) fault: watch::Sender<Fault>,
    /// What goes wrong with single links.
    pub(crate) faults: Faults,
    /// Connections accepted, refused ones included.
    pub(crate) connections: AtomicU64,
}

impl Outside {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { fault: watch::Sender::new(Fault::None), faults, connections: AtomicU64::new(0) }
    }
}

/// Open doors. They close when dropped.
#[derive(Debug)]
pub(crate) struct Doors {
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Doors {
    /// Opens the doors to the services; returns where they are, in the order given.
    pub(crate) async fn open(
        doors: &[Door<'_>],
        services: Arc<[Arc<dyn Service>]>,
        outside: &Arc<Outside>,
    ) -> Result<(Self, Vec<SocketAddr>), DoorError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut addrs = Vec::new();
        let mut listeners = Vec::new();
        for Door { addr, tls } in doors {
            let failed = |error| DoorError::Listen { addr: *addr, error };
            let listener = TcpListener::bind(addr).await.map_err(failed)?;
            SockRef::from(&listener).set_tcp_mss(MAX_SEGMENT_BYTES).map_err(failed)?;
            addrs.push(listener.local_addr().map_err(failed)?);
            let tls = tls.map(Tls::server_config).transpose()?.map(TlsAcceptor::from);
            let (services, outside, room) = (services.clone(), outside.clone(), room.clone());
            let entrance = Entrance { tls, services, outside, room, tasks: tasks.clone(), stop: stop.clone() };
            listeners.push((listener, entrance));
        }
        for (listener, entrance) in listeners {
            tasks.spawn(stop.clone().run_until_cancelled_owned(entrance.listen(listener)));
        }
        Ok((Self { tasks, _stop_on_drop: stop.clone().drop_guard(), stop }, addrs))
    }

    /// Closes all connections and stops listening; returns when that is done.
    pub(crate) async fn shut(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// One door from the inside.
#[derive(Clone)]
struct Entrance {
    tls: Option<TlsAcceptor>,
    services: Arc<[Arc<dyn Service>]>,
    outside: Arc<Outside>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Entrance {
    async fn listen(self, listener: TcpListener) {
        loop {
            let tcp = match listener.accept().await {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::warn!(%error, "accept an AMQP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            self.outside.connections.fetch_add(1, Ordering::Relaxed);
            let Ok(place) = self.room.clone().try_acquire_owned() else {
                tracing::warn!("an AMQP connection is refused: there are {MAX_CONNECTIONS} already");
                continue;
            };
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!(%error, "switch off nagle's algorithm");
            }
            self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(self.clone().welcome(tcp, place)));
        }
    }

    async fn welcome(self, tcp: TcpStream, _place: OwnedSemaphorePermit) {
        // The fault is nearest to the wire: it holds for a handshake too.
        fault::interruptible(tcp, self.outside.fault.subscribe(), move |stream| self.serve(stream)).await;
    }

    async fn serve(self, stream: DuplexStream) {
        let faults = self.outside.faults.clone();
        let Some(tls) = &self.tls else { return connection::serve(stream, self.services, faults).await };
        match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => connection::serve(stream, self.services, faults).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a client took too long for its TLS handshake"),
        }
    }
}
