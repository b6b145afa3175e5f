//! An IoT hub: devices over MQTT, the service API, message routing.
//!
//! | module | idea |
//! |---|---|
//! | `accept`, `codec`, `session` | sockets, MQTT packets, one device connection |
//! | `connect`, `sas`, `hub_name` | who may connect or call, and the names that the hub answers to |
//! | `sessions` | one connection per device, and the subscriptions that outlive it |
//! | `topic`, `property_bag`, `telemetry` | what a device publishes, and the event it becomes |
//! | `twin` | the twin rules, without I/O |
//! | `registry`, `identity`, `bulk` | devices, etags, preconditions |
//! | `rest`, `service_amqp` | the service API, and cloud-to-device messages over AMQP |
//! | `query` | queries for twins |
//! | `routing` | route conditions, and the events that the hub makes |
//! | `lexis` | what the languages of both have in common |
//! | `devicebound` | cloud-to-device messages: queues, locks, outcomes |
//! | `methods`, `will` | direct methods, and what is sent for a device that died |
//! | `hub` | all of it behind one lock |
//! | `clock` | the hub's time, which a story can set wrong |
//! | `limits` | tiers: rates, day quota, and the meter |
//! | `error` | the hub's error codes, and how REST and MQTT show them |
//! | `fault`, `counters`, `happened` | what stories switch, read and watch |
//! | `injected_fault` | the faults that a device orders for itself |
//!
//! What is not there is listed in `simulator/README.md`.

mod accept;
mod bulk;
mod clock;
mod codec;
mod connect;
mod counters;
mod devicebound;
mod error;
mod fault;
#[doc(hidden)]
pub mod fuzzing;
mod happened;
mod hub;
mod hub_name;
mod identity;
mod injected_fault;
mod lexis;
mod limits;
mod methods;
mod property_bag;
mod query;
mod registry;
mod rest;
mod routing;
mod sas;
mod service_amqp;
mod session;
mod sessions;
mod telemetry;
mod topic;
mod twin;
mod will;

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

use crate::entra::{Access, Entra};
use crate::event_hubs::Namespace;
use crate::faults::Faults;
use crate::happenings::Happenings;
use crate::tls::{Tls, TlsError};
pub(crate) use error::HubError;
use hub::Hub;

pub use counters::Counters;
pub use devicebound::{Ack, CloudMessage, Feedback};
pub use fault::Fault;
pub use limits::{Billed, Sku, Tier, TierError};
pub use routing::{BUILT_IN_EVENTS, Delivery, Route, RouteError, RouteSource, RoutingLimits};
pub use sas::{Policy, Rights};
pub(crate) use service_amqp::ServiceNodes;

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
    /// The size by which routes and endpoints are counted; `None`: that of the limits, or a paid one.
    pub size: Option<Tier>,
    /// The rates and the daily quota of this size; `None`: none.
    pub limits: Option<Tier>,
    /// What goes wrong in single exchanges.
    pub faults: Faults,
    /// Whose bearer tokens the service API takes.
    pub entra: Entra,
    /// What those that they name may do.
    pub access: Access,
    /// Is told what happens.
    pub happenings: Happenings,
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
        let routing_limits = match options.size.or(options.limits) {
            Some(tier) if tier.is_free() => RoutingLimits::FREE,
            _ => RoutingLimits::PAID,
        };
        let router = routing::Router::new(options.routes, options.fallback, &namespace, routing_limits)?;
        let router = router.telling(options.happenings.clone());
        let acceptor = TlsAcceptor::from(tls.server_config()?);
        let (mqtt, mqtt_addr) = listen(options.mqtt_addr).await?;
        let (https, https_addr) = listen(options.https_addr).await?;

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let limits = limits::Limits::new(options.limits);
        let hub = Hub::new(&options.host_name, options.policies, router, stop.clone(), options.faults, limits);
        let hub = Arc::new(hub.telling(options.happenings));
        let bearers = rest::Bearers { entra: options.entra, access: options.access };
        spawn_mqtt(&hub, mqtt, acceptor.clone(), &tasks, &stop);
        spawn_rest(&hub, bearers, (https, https_addr), acceptor, &tasks, &stop);
        spawn_mailbox_watch(&hub, &tasks, &stop);
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

    /// What Microsoft would bill for what the hub has done so far.
    #[must_use]
    pub fn billed(&self) -> Billed {
        self.hub.billed()
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

    /// Puts a message into the queue of a device, as soon as the hub's tier lets it.
    ///
    /// # Errors
    /// `ThrottlingException`, `IotHubQuotaExceeded`, `DeviceNotFound`, `DeviceMaximumQueueDepthExceeded`, `MessageTooLarge` or `ArgumentInvalid`: the error's code has the
    /// name and the number.
    pub(crate) async fn send_to_device(&self, id: &str, message: CloudMessage) -> Result<(), HubError> {
        self.hub.admit(limits::Operation::C2dSend, 1).await?;
        self.hub.send_to_device(id, message)
    }

    /// Waits for outcomes that senders asked for, and takes up to 100 of them, the oldest first. Each is taken once; the hub
    /// keeps 10 000, then the oldest give way.
    pub(crate) async fn feedback(&self) -> Vec<Feedback> {
        self.hub.feedback.take().await
    }

    /// Whether a token opens `path` of the service API for services, as of now: for doors other than REST.
    fn check_service_token(&self, token: &str, path: &str) -> Result<(), sas::SasError> {
        self.hub.authorise_service(token, sas::Right::ServiceConnect, path)
    }

    /// The time of the hub's clock.
    fn now(&self) -> time::OffsetDateTime {
        self.hub.clock.now()
    }

    /// Closes the connection of a device as a newer one of it would; its session is treated as then. Returns whether it
    /// had one.
    pub fn take_over(&self, id: &str) -> bool {
        self.hub.take_over(id)
    }

    /// The devices whose ids contain `part`, at most `limit` of them, as JSON without keys; how many there are; and as
    /// `device` the `chosen` one, wherever it stands, or `null`.
    #[must_use]
    pub fn overview(&self, part: &str, limit: usize, chosen: Option<&str>) -> Value {
        self.hub.overview(part, limit, chosen)
    }

    /// Merges into the desired properties as the service API does.
    ///
    /// # Errors
    /// Status and message of the hub's refusal.
    pub fn patch_desired(&self, id: &str, patch: &Value) -> Result<Value, (u16, String)> {
        self.hub.patch_desired(id, patch).map_err(|error| (error.code.status().as_u16(), error.to_string()))
    }

    /// The fault that holds now.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.hub.fault.now()
    }

    /// Delivers events once, twice or merged from now on. What was held back to be merged is told first.
    pub fn set_delivery(&self, delivery: Delivery) {
        self.hub.set_delivery(delivery);
    }

    /// Sets the hub's clock this many seconds before the machine's, or behind it if negative; 0 sets it right again.
    /// Tokens, messages and whatever else ends at a time follow it.
    pub fn skew_clock(&self, seconds: i64) {
        self.hub.clock.skew(time::Duration::seconds(seconds));
    }

    /// How many seconds the hub's clock is before the machine's, or behind it if negative.
    #[must_use]
    pub fn clock_skew(&self) -> i64 {
        self.hub.clock.skewed_by().whole_seconds()
    }

    /// Takes the hub away as a whole, or brings it back. For faults in single exchanges there is [`IotHubOptions::faults`].
    pub fn set_fault(&self, fault: Fault) {
        self.hub.fault.set(fault);
    }
}

fn spawn_mailbox_watch(hub: &Arc<Hub>, tasks: &TaskTracker, stop: &CancellationToken) {
    let (hub, stop) = (hub.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = hub.watch_mailboxes() => {}
        }
    });
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
    bearers: rest::Bearers,
    (listener, address): (TcpListener, SocketAddr),
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
    let server = axum::serve(
        rest::SocketListener { sockets, address },
        rest::router(hub.clone(), bearers).into_make_service_with_connect_info::<rest::Door>(),
    );
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
