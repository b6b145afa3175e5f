//! An IoT hub: devices over MQTT, the service API, message routing.
//!
//! | module | idea |
//! |---|---|
//! | `accept`, `codec`, `session` | sockets, MQTT packets, one device connection |
//! | `connect`, `sas` | who may connect or call |
//! | `sessions` | one connection per device, and the subscriptions that outlive it |
//! | `topic`, `property_bag`, `telemetry` | what a device publishes, and the event it becomes |
//! | `twin` | the twin rules, without I/O |
//! | `registry`, `identity` | devices, etags, preconditions |
//! | `rest` | the service API |
//! | `routing` | route conditions, and the events that the hub makes |
//! | `hub` | all of it behind one lock |
//! | `fault`, `counters` | what stories switch and read |
//!
//! Cloud-to-device messages, direct methods, wills, modules, queries, bulk calls, throttles and quotas are not there.

mod accept;
mod codec;
mod connect;
mod counters;
mod error;
mod fault;
mod hub;
mod hub_name;
mod identity;
mod property_bag;
mod registry;
mod rest;
mod routing;
mod sas;
mod session;
mod sessions;
mod telemetry;
mod topic;
mod twin;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::event_hubs::Namespace;
use crate::tls::{Tls, TlsError};
use hub::Hub;

pub use counters::Counters;
pub use fault::Fault;
pub use routing::{BUILT_IN_EVENTS, Route, RouteError, RouteSource};
pub use sas::{Policy, Rights};

/// REST sockets that wait for the server to take them.
const MAX_WAITING_SOCKETS: usize = 64;

/// How a hub is set up.
#[derive(Clone, Debug)]
pub struct IotHubOptions {
    /// The name in user names and tokens, say `sim.azure-devices.net`.
    pub host_name: String,
    /// Where devices connect; port 0 takes any.
    pub mqtt_addr: SocketAddr,
    /// Where the service API is; port 0 takes any.
    pub https_addr: SocketAddr,
    /// The shared access policies.
    pub policies: Vec<Policy>,
    /// The message routes.
    pub routes: Vec<Route>,
    /// Whether telemetry that matches no route goes to [`BUILT_IN_EVENTS`].
    pub fallback: bool,
}

/// Why a hub cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A route cannot be used.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// A running hub. Its tasks end with the last handle, or on [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct IotHub {
    hub: Arc<Hub>,
    mqtt_addr: SocketAddr,
    https_addr: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    _stop_with_the_last_handle: Arc<DropGuard>,
}

impl fmt::Debug for IotHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IotHub")
            .field("mqtt_addr", &self.mqtt_addr)
            .field("https_addr", &self.https_addr)
            .finish_non_exhaustive()
    }
}

impl IotHub {
    /// Starts a hub whose telemetry and events go to the Event Hubs of the namespace.
    ///
    /// # Errors
    /// If an address cannot be had, or a route or the certificate cannot be used.
    pub async fn start(options: IotHubOptions, tls: &Tls, namespace: Namespace) -> Result<Self, StartError> {
        let router = routing::Router::new(options.routes, options.fallback, &namespace)?;
        let acceptor = TlsAcceptor::from(tls.server_config()?);
        let (mqtt, mqtt_addr) = listen(options.mqtt_addr).await?;
        let (https, https_addr) = listen(options.https_addr).await?;

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let hub = Arc::new(Hub::new(&options.host_name, options.policies, router, stop.clone()));
        spawn_mqtt(&hub, mqtt, acceptor.clone(), &tasks, &stop);
        spawn_rest(&hub, https, https_addr, acceptor, &tasks, &stop);
        tasks.close();
        let guard = Arc::new(stop.clone().drop_guard());
        Ok(Self { hub, mqtt_addr, https_addr, stop, tasks, _stop_with_the_last_handle: guard })
    }

    /// Closes every socket and returns when the ports are free again. What the hub knows stays readable.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Where devices connect.
    #[must_use]
    pub fn mqtt_addr(&self) -> SocketAddr {
        self.mqtt_addr
    }

    /// Where the service API is.
    #[must_use]
    pub fn https_addr(&self) -> SocketAddr {
        self.https_addr
    }

    /// What the hub has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.hub.counters.snapshot()
    }

    /// A twin as the service API shows it.
    #[must_use]
    pub fn twin(&self, id: &str) -> Option<Value> {
        self.hub.twin(id).ok()
    }

    /// The ids of all devices, in order.
    #[must_use]
    pub fn device_ids(&self) -> Vec<String> {
        self.hub.device_ids()
    }

    /// Enables or disables a device; a disabled one is disconnected. Returns whether the device is there.
    pub fn set_device_enabled(&self, id: &str, enabled: bool) -> bool {
        self.hub.set_device_enabled(id, enabled)
    }

    /// Switches a fault on, in place of the one before.
    pub fn set_fault(&self, fault: Fault) {
        self.hub.fault.set(fault);
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bind = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind.await.map_err(|source| StartError::Listen { address, source })
}

fn spawn_mqtt(hub: &Arc<Hub>, listener: TcpListener, tls: TlsAcceptor, tasks: &TaskTracker, stop: &CancellationToken) {
    let serve = {
        let hub = hub.clone();
        move |socket| session::serve(hub.clone(), socket)
    };
    tasks.spawn(accept::accept(listener, tls, hub.clone(), tasks.clone(), stop.clone(), serve));
}

fn spawn_rest(
    hub: &Arc<Hub>,
    listener: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let (sender, sockets) = mpsc::channel(MAX_WAITING_SOCKETS);
    let hand_over = move |socket| {
        let sender = sender.clone();
        async move {
            // Fails only when the server has stopped; then the socket closes.
            let _ = sender.send(socket).await;
        }
    };
    tasks.spawn(accept::accept(listener, tls, hub.clone(), tasks.clone(), stop.clone(), hand_over));
    let server = axum::serve(rest::SocketListener { sockets, address }, rest::router(hub.clone()));
    let stop = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            served = server.into_future() => {
                if let Err(error) = served {
                    tracing::error!(%error, "the service API stopped");
                }
            }
        }
    });
}
