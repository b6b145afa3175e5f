//! Everything around the bridge, started together: the one place that knows how the parts are wired.
//!
//! | module | idea |
//! |---|---|
//! | `plan` | what the hub and the Event Hubs are to be: by default, or by a template |
//! | `settings` | the app settings of the handler: by default, or by a template |
//! | `minted` | keys that are made up |
//! | `description` | how clients reach what runs |

mod description;
mod minted;
mod plan;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::entra::{Entra, IdentityEndpoint};
use crate::event_hubs::{AmqpOptions, AmqpServer, Namespace, RETAINED_BYTES, SasPolicy};
use crate::faults::Faults;
use crate::functions_host::{FunctionsHost, HostOptions, LogSink};
use crate::happenings::{Happenings, Kind};
use crate::infra::Infra;
use crate::iot_hub::{IotHub, IotHubOptions, Policy, ServiceNodes, Tier};
use crate::stack::{ALL_RIGHTS, Stack, StackOptions, Webhook};
use crate::tls::Tls;
use minted::{random_api_key, random_key, random_word};
use plan::Plan;
use settings::{Started, application_of};

/// The one application of the simulated The Things Stack, unless a template names another: see [`World::application_id`].
pub const APPLICATION_ID: &str = "greenhouse";

/// The Event Hub that the hub's own events are routed to, as the bridge's functions and the template name it.
pub const STACK_EVENTS: &str = "stack-events";
/// The Event Hub of uplinks that wait for the hub.
pub const PARKED_UPLINKS: &str = "parked-uplinks";
/// The Event Hub of what can never be delivered.
pub const DEAD_LETTERS: &str = "dead-letters";

/// Who works at the simulated hub by hand: the page's user, and the operator of the story. With a template this one may do all in
/// hub and Event Hubs, as a person who gave themself the roles IoT Hub Data Contributor and Azure Event Hubs Data Owner.
pub const LOCAL_USER: &str = "local-user";

/// Why the world did not start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// The ports of the services; 0 picks a free one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// MQTT over TLS.
    pub mqtt: u16,
    /// Service API of the hub.
    pub hub_https: u16,
    /// The Things Stack.
    pub stack: u16,
    /// Event Hubs, AMQP without TLS.
    pub event_hubs: u16,
    /// Event Hubs and the hub's service side, AMQP over TLS.
    pub amqps: u16,
    /// The Functions host.
    pub functions: u16,
}

/// How the Event Hubs are set up.
#[derive(Clone, Debug)]
pub struct EventHubsOptions {
    /// Consumer groups beside `$Default`.
    pub consumer_groups: Vec<String>,
    /// Bytes of events that each partition keeps.
    pub retained_bytes: u64,
}

impl Default for EventHubsOptions {
    fn default() -> Self {
        Self { consumer_groups: Vec::new(), retained_bytes: RETAINED_BYTES }
    }
}

/// How the handler runs.
#[derive(Clone, Debug)]
pub enum Handler {
    /// The Functions host starts this program.
    Program(PathBuf),
    /// It starts the executable that `host.json` names.
    OfApp,
    /// Someone starts it by hand on the port that the settings name.
    ByHand,
}

/// What to start.
pub struct WorldOptions {
    /// The ports.
    pub ports: Ports,
    /// The Event Hubs.
    pub event_hubs: EventHubsOptions,
    /// What a template makes of Azure: names, policies, routes, Event Hubs, roles and app settings are its own then.
    pub infra: Option<Infra>,
    /// Folder with `host.json` and the functions.
    pub app_root: PathBuf,
    /// How the handler runs.
    pub handler: Handler,
    /// App settings of the handler beside those that the world makes; they win.
    pub settings: BTreeMap<String, String>,
    /// The rates and the daily quota of this size; `None`: none. How many routes and endpoints the hub may have, a template's own
    /// size says.
    pub limits: Option<Tier>,
    /// Rights that the API key of The Things Stack lacks.
    pub without_stack_rights: Vec<String>,
    /// Takes the lines of the host and the handler.
    pub log: LogSink,
}

/// Everything around the bridge.
pub struct World {
    /// What goes wrong in single exchanges, at any of the parts.
    pub faults: Faults,
    /// The hub.
    pub iot_hub: IotHub,
    /// The Event Hubs of the bridge and the hub's built-in endpoint.
    pub events: Namespace,
    /// The AMQP door to them.
    pub event_hubs: AmqpServer,
    /// The Things Stack.
    pub stack: Stack,
    /// The Functions host.
    pub functions: FunctionsHost,
    /// Issuer of the bearer tokens that the services take.
    pub entra: Entra,
    /// What happens in all of them.
    pub happenings: Happenings,
    /// The app settings that the handler was given.
    pub settings: BTreeMap<String, String>,
    /// What the platform added to them.
    platform: BTreeMap<String, String>,
    _identity_endpoint: Option<IdentityEndpoint>,
    hub_host: String,
    policies: Vec<Policy>,
    api_key: String,
    function_key: String,
    webhook_secret: String,
    folder: TempDir,
}

impl World {
    /// Starts the services, then the Functions host with the handler.
    ///
    /// # Errors
    /// If a port is taken, a certificate cannot be made, or the handler cannot be started.
    pub async fn start(options: WorldOptions) -> Result<Self, StartError> {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ports = options.ports;
        let happenings = Happenings::new();
        let stack_rights = rights_without(&options.without_stack_rights)?;
        let application_id = options.infra.as_ref().map(application_of).transpose()?.unwrap_or(APPLICATION_ID);
        let size = options.infra.as_ref().map(Infra::tier).transpose()?;
        let Plan { hub_host, namespace_host, policies, routes, fallback, events, hub_access, identities } =
            match &options.infra {
                Some(infra) => Plan::of(infra, &happenings)?,
                None => Plan::plain(&options.event_hubs.consumer_groups),
            };
        let events = events.with_retention(options.event_hubs.retained_bytes);
        tell(&events, &happenings);
        let tls = Tls::new(&[&hub_host, &namespace_host])?;
        let entra = Entra::new();
        let folder = tempfile::Builder::new().prefix("tts-iot-hub-simulator-").tempdir()?;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, tls.ca_pem())?;

        let faults = Faults::default();
        let iot_hub = IotHub::start(
            IotHubOptions {
                host_name: hub_host.clone(),
                mqtt_addr: address(ports.mqtt),
                https_addr: address(ports.hub_https),
                policies: policies.clone(),
                routes,
                fallback,
                size,
                limits: options.limits,
                faults: faults.clone(),
                entra: entra.clone(),
                access: hub_access.clone(),
                happenings: happenings.clone(),
            },
            &tls,
            events.clone(),
        )
        .await?;
        let event_hubs = AmqpServer::start_beside(
            AmqpOptions {
                addr: address(ports.event_hubs),
                tls: Some((address(ports.amqps), &tls)),
                policies: vec![SasPolicy { name: "bridge".to_owned(), key: STANDARD.encode(random_key(32)) }],
                hub_policies: readers_of_telemetry(&policies),
                entra: entra.clone(),
                faults: faults.clone(),
            },
            events.clone(),
            vec![Arc::new(ServiceNodes::new(iot_hub.clone(), entra.clone(), hub_access))],
        )
        .await?;
        let api_key = random_api_key();
        let stack = Stack::start(StackOptions {
            listen: address(ports.stack),
            application_id: application_id.to_owned(),
            api_key: api_key.clone(),
            rights: stack_rights,
            faults: faults.clone(),
            happenings: happenings.clone(),
        })
        .await?;
        let identity_endpoint = match &options.infra {
            Some(_) => Some(IdentityEndpoint::start(entra.clone(), identities.clone()).await?),
            None => None,
        };
        let platform: BTreeMap<String, String> = identity_endpoint
            .iter()
            .flat_map(IdentityEndpoint::environment)
            .map(|(name, value)| (name.to_owned(), value))
            .collect();

        let function_key = random_word(20);
        let started = Started {
            stack_url: stack.base_url(),
            application_id,
            api_key: &api_key,
            hub_host: &hub_host,
            hub: &iot_hub,
            event_hubs: &event_hubs,
            ca_file: &ca_file,
            policies: &policies,
        };
        let mut settings = match &options.infra {
            Some(infra) => started.settings_of(infra, &happenings)?,
            None => started.plain_settings(),
        };
        settings.extend(options.settings);
        // A webhook carries one in any case; a handler without the setting does not look at it.
        let webhook_secret = settings.get(settings::WEBHOOK_SECRET).cloned().unwrap_or_else(|| random_word(16));

        let (executable, external_port) = match options.handler {
            Handler::Program(program) => (Some(program), None),
            Handler::OfApp => (None, None),
            Handler::ByHand => (None, Some(free_port()?)),
        };
        if let Some(port) = external_port {
            settings.insert("FUNCTIONS_CUSTOMHANDLER_PORT".to_owned(), port.to_string());
        }
        let functions = FunctionsHost::start(HostOptions {
            executable,
            external_port,
            settings: settings.clone(),
            platform: platform.clone(),
            identities,
            listen: address(ports.functions),
            function_key: function_key.clone(),
            master_key: random_word(20),
            fully_qualified_namespace: namespace_host,
            log: options.log,
            happenings: happenings.clone(),
            ..HostOptions::new(options.app_root, events.clone())
        })
        .await?;
        let mut webhook = Webhook::new(format!("{}/uplink{{/devID}}", functions.base_url()));
        webhook.headers = vec![
            ("x-functions-key".to_owned(), function_key.clone()),
            ("X-Webhook-Secret".to_owned(), webhook_secret.clone()),
        ];
        stack.set_webhook(&webhook);
        stack.set_package(true);
        Ok(Self {
            faults,
            iot_hub,
            events,
            event_hubs,
            stack,
            functions,
            entra,
            happenings,
            settings,
            platform,
            _identity_endpoint: identity_endpoint,
            hub_host,
            policies,
            api_key,
            function_key,
            webhook_secret,
            folder,
        })
    }

    /// File with the certificate of the authority that signed the hub's certificate; gone with the world.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The host name of the hub, in user names and tokens.
    #[must_use]
    pub fn hub_host(&self) -> &str {
        &self.hub_host
    }

    /// The one application of the simulated The Things Stack: [`APPLICATION_ID`], or what the template names.
    #[must_use]
    pub fn application_id(&self) -> &str {
        self.stack.application_id()
    }

    /// The policy of this name.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.name == name)
    }

    /// The URL and the headers that a webhook needs.
    #[must_use]
    pub fn webhook(&self) -> (String, [(&'static str, &str); 2]) {
        let url = format!("{}/uplink", self.functions.base_url());
        (url, [("x-functions-key", &self.function_key), ("X-Webhook-Secret", &self.webhook_secret)])
    }

    /// Stops the handler and the services; The Things Stack stops with the last handle to it.
    pub async fn shutdown(self) {
        self.functions.shutdown().await;
        self.iot_hub.shutdown().await;
        self.event_hubs.shutdown().await;
    }
}

/// Lets the Event Hubs of the bridge tell what they get; the built-in endpoint's telemetry is told by the hub itself.
fn tell(events: &Namespace, happenings: &Happenings) {
    for (name, kind) in [(STACK_EVENTS, Kind::Event), (PARKED_UPLINKS, Kind::Parked), (DEAD_LETTERS, Kind::DeadLetter)]
    {
        if let Some(hub) = events.hub(name) {
            hub.tell(kind, happenings.clone());
        }
    }
}

/// The policies of the hub that may read its built-in endpoint
/// (<https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas>: ServiceConnect).
fn readers_of_telemetry(policies: &[Policy]) -> Vec<SasPolicy> {
    let readers = policies.iter().filter(|policy| policy.rights.service_connect);
    readers.map(|policy| SasPolicy { name: policy.name.clone(), key: STANDARD.encode(&policy.key) }).collect()
}

/// All rights of the API key but these.
fn rights_without(missing: &[String]) -> Result<BTreeSet<String>, StartError> {
    let mut rights: BTreeSet<String> = ALL_RIGHTS.map(str::to_owned).into();
    match missing.iter().find(|right| !ALL_RIGHTS.contains(&right.as_str())) {
        Some(unknown) => Err(format!("the API key has no right {unknown}: known are {}", ALL_RIGHTS.join(", ")).into()),
        None => {
            rights.retain(|right| !missing.contains(right));
            Ok(rights)
        }
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The folder of the project that this simulator belongs to: the nearest one at or above `from` that holds `host.json`.
#[must_use]
pub fn find_app_root(from: &Path) -> Option<PathBuf> {
    from.ancestors().find(|folder| folder.join("host.json").is_file()).map(Path::to_owned)
}
