//! A small The Things Stack, open-source edition: registries, downlink queues, webhooks, for one application.
//!
//! All servers share one plain HTTP listener; the API is below `/api/v3`. Behaviour follows
//! `TheThingsNetwork/lorawan-stack` v3.32.1 as far as a bridge can see it.
//!
//! | module | what it is |
//! |---|---|
//! | `server` | listener, routes, faults |
//! | `auth`, `error` | who may what; errors as the API words them |
//! | `registry`, `devices`, `device_rules`, `field_mask`, `field_paths`, `versions` | end devices on the four servers |
//! | `downlinks`, `downlink_item` | the downlink queue |
//! | `webhooks`, `webhook_registry`, `url` | webhooks and their addresses |
//! | `traffic`, `messages` | simulated end devices and the messages they cause |
//! | `happened`, `overview` | what the local page shows |
//! | `package` | the `azureiothub` package of other editions |

mod auth;
mod counters;
mod device_rules;
mod devices;
mod downlink_item;
mod downlinks;
mod error;
mod fault;
mod field_mask;
mod field_paths;
mod happened;
mod ids;
mod local;
mod messages;
mod overview;
mod package;
mod registry;
mod server;
#[cfg(test)]
mod tests;
mod timestamp;
mod traffic;
mod url;
mod versions;
mod webhook_registry;
mod webhooks;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use auth::ALL_RIGHTS;
pub use counters::Counters;
pub use fault::Fault;
pub use local::LocalDevice;
pub use messages::MESSAGE_TYPES;
pub use registry::{Devices, Registries, Server};
pub use traffic::Transmission;
pub use webhooks::{Webhook, WebhookAnswer};

use crate::faults::Faults;
use crate::happenings::Happenings;
use webhooks::{Body, Delivery};
use world::World;

/// The id under which [`Stack::set_webhook`] keeps its webhook.
const OWN_WEBHOOK: &str = "simulator";

/// How to start.
#[derive(Clone)]
pub struct StackOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The one application.
    pub application_id: String,
    /// Its API key: `NNSXS.<id>.<secret>`.
    pub api_key: String,
    /// The rights of that key at the start.
    pub rights: BTreeSet<String>,
    /// What goes wrong in single calls of the API.
    pub faults: Faults,
    /// Is told what happens.
    pub happenings: Happenings,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            application_id: "greenhouse".to_owned(),
            api_key: "NNSXS.SIMULATEDKEY.SIMULATEDSECRET".to_owned(),
            rights: ALL_RIGHTS.map(str::to_owned).into(),
            faults: Faults::default(),
            happenings: Happenings::default(),
        }
    }
}

impl std::fmt::Debug for StackOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackOptions")
            .field("listen", &self.listen)
            .field("application_id", &self.application_id)
            .field("rights", &self.rights)
            .finish_non_exhaustive()
    }
}

/// Why the servers did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("listen on {address}: {error}; choose another address or port 0")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The application id breaks the rule of The Things Stack.
    #[error("`{0}` is no application id: 3 to 36 characters of a-z, 0-9 and single inner dashes")]
    ApplicationId(String),
    /// The API key has another form.
    #[error("the API key must have the form `NNSXS.<id>.<secret>`")]
    ApiKey,
    /// The client that calls webhooks could not be set up.
    #[error("set up the HTTP client for webhooks: {0}")]
    Client(#[from] reqwest::Error),
}

/// What all parts share.
struct Shared {
    options: StackOptions,
    address: SocketAddr,
    /// The rights that the API key has now.
    rights: Mutex<BTreeSet<String>>,
    /// API keys of users, by id.
    user_keys: Mutex<BTreeMap<String, auth::UserKey>>,
    client: reqwest::Client,
    fault: watch::Sender<Fault>,
    world: Mutex<World>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // The memory stays usable after a panic: every change is complete before the next call that could panic.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rights(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn user_keys(&self) -> MutexGuard<'_, BTreeMap<String, auth::UserKey>> {
        self.user_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Id and secret of the API key.
    fn key_parts(&self) -> (&str, &str) {
        let behind_prefix = self.options.api_key.split_once('.').map_or("", |(_, rest)| rest);
        behind_prefix.split_once('.').unwrap_or_default()
    }
}

/// Stops the servers with the last handle.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A handle of the running servers. They stop when the last handle is dropped.
#[derive(Clone)]
pub struct Stack {
    shared: Arc<Shared>,
    _running: Arc<Running>,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Stack {
    /// Starts the servers.
    ///
    /// # Errors
    /// If the options are invalid or the address is taken.
    pub async fn start(options: StackOptions) -> Result<Self, StartError> {
        if !ids::is_stack_id(&options.application_id) {
            return Err(StartError::ApplicationId(options.application_id));
        }
        let key: Vec<&str> = options.api_key.split('.').collect();
        if key.len() != 3 || key[0] != "NNSXS" || key.contains(&"") {
            return Err(StartError::ApiKey);
        }
        let address = options.listen;
        let in_use = |error| StartError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(in_use)?;
        let address = listener.local_addr().map_err(in_use)?;
        let client = reqwest::Client::builder().timeout(webhooks::TIMEOUT).no_proxy().build()?;
        let (fault, fault_now) = watch::channel(Fault::None);
        let faults = options.faults.clone();
        let rights = Mutex::new(options.rights.clone());
        let user_keys = Mutex::default();
        let shared = Arc::new(Shared { options, address, rights, user_keys, client, fault, world: Mutex::default() });
        let router = server::router(Arc::clone(&shared));
        let running = Running(tokio::spawn(server::accept(listener, router, fault_now, faults)));
        Ok(Self { shared, _running: Arc::new(running) })
    }

    /// `http://127.0.0.1:PORT`, without `/api/v3`.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.shared.base_url()
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// Takes a right from the API key; whether it had that right.
    pub fn take_right(&self, right: &str) -> bool {
        self.shared.rights().remove(right)
    }

    /// Makes an API key `NNSXS.<id>.<secret>` of a user who has these rights for the application.
    pub fn add_user_key(&self, user: &str, id: &str, secret: &str, rights: &[&str]) {
        let rights = rights.iter().map(|right| (*right).to_owned()).collect();
        let key = auth::UserKey { user: user.to_owned(), secret: secret.to_owned(), rights };
        self.shared.user_keys().insert(id.to_owned(), key);
    }

    /// The application.
    #[must_use]
    pub fn application_id(&self) -> &str {
        &self.shared.options.application_id
    }

    /// Sets the webhook up, in place of one set before; others come and go by the API.
    pub fn set_webhook(&self, webhook: &Webhook) {
        let mut document = webhook.document();
        document["ids"] = json!({
            "application_ids": {"application_id": self.shared.options.application_id},
            "webhook_id": OWN_WEBHOOK,
        });
        self.shared.world().webhooks.insert(OWN_WEBHOOK.to_owned(), document);
    }

    /// Sends one `ApplicationUp` to the webhook and waits for the answer.
    pub async fn send(&self, up: &Value) -> WebhookAnswer {
        self.shared.publish(up).await
    }

    /// Sends exactly these bytes, which need not be a message; the address is that of the device and, where no type can be
    /// read, of an `uplink_message`.
    pub async fn send_raw(&self, bytes: &[u8], device: &str) -> WebhookAnswer {
        let kind = serde_json::from_slice(bytes).ok().and_then(|message| messages::kind(&message));
        let kind = kind.unwrap_or("uplink_message");
        let end_device_ids = self.shared.world().end_device_ids(&self.shared.options.application_id, device);
        self.shared.deliver(Delivery { kind, end_device_ids: &end_device_ids, body: Body::Bytes(bytes) }).await
    }

    /// What each server knows of the end devices.
    #[must_use]
    pub fn devices(&self) -> Registries {
        self.shared.world().registries.clone()
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.world().counters.clone()
    }

    /// How the API fails now.
    #[must_use]
    pub fn fault(&self) -> Fault {
        *self.shared.fault.borrow()
    }

    /// Lets the API fail in this way from now on, until it is set again. For faults in single calls there is
    /// [`StackOptions::faults`].
    pub fn set_fault(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Switches the edition: with or without the `azureiothub` package. It starts without.
    pub fn set_package(&self, has_package: bool) {
        self.shared.world().has_package = has_package;
    }

    /// The events that were submitted to the `azureiothub` package.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.shared.world().events.clone()
    }
}
