//! Settings of the Event Hubs namespace: the same ones that the Functions host reads for its triggers.

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{Reader, is_loopback};

/// How the namespace is reached.
#[derive(Clone, Debug)]
pub enum EventHubsAuth {
    /// A connection string.
    ConnectionString(SecretString),
    /// The app's managed identity.
    ManagedIdentity {
        /// Host name of the namespace.
        namespace: String,
        /// Client id of a user-assigned identity; the system-assigned one if absent.
        client_id: Option<String>,
        /// Where to dial in place of the namespace, with its port. `amqp` (without TLS) is of this machine only.
        endpoint: Option<Url>,
    },
}

/// The Event Hubs namespace of the bridge.
#[derive(Clone, Debug)]
pub struct EventHubsConfig {
    /// How it is reached.
    pub auth: EventHubsAuth,
    /// Failed attempts after which a parked uplink is dead-lettered while others pass.
    pub parked_max_attempts: u32,
}

impl EventHubsConfig {
    pub(super) fn read(read: &mut Reader) -> Option<Self> {
        let auth = auth(read);
        let parked_max_attempts = read.number("PARKED_MAX_ATTEMPTS", 1..=1000, 20);
        Some(Self { auth: auth?, parked_max_attempts: parked_max_attempts? })
    }
}

/// Ports of AMQP (<https://www.iana.org/assignments/service-names-port-numbers>).
const TLS_PORT: u16 = 5671;
pub(crate) const PLAIN_PORT: u16 = 5672;

const ENDPOINT: &str = "EVENTHUBS_ENDPOINT";

fn auth(read: &mut Reader) -> Option<EventHubsAuth> {
    const NAME: &str = "StackEvents";
    const NAMESPACE: &str = "StackEvents__fullyQualifiedNamespace";
    if read.is_given(NAMESPACE) {
        let namespace = read.optional(NAMESPACE).and_then(|name| read.hostname(NAMESPACE, &name));
        let client_id = read.optional("StackEvents__clientId");
        let endpoint = endpoint(read);
        return Some(EventHubsAuth::ManagedIdentity { namespace: namespace?, client_id, endpoint: endpoint? });
    }
    if read.is_given(ENDPOINT) {
        read.problem(
            ENDPOINT,
            "is given without StackEvents__fullyQualifiedNamespace; a connection string says itself where to connect, leave this one out",
        );
    }
    let text = read.required(NAME, "give StackEvents__fullyQualifiedNamespace, or a connection string here")?;
    let secret = SecretString::from(text);
    let lower = secret.expose_secret().to_ascii_lowercase();
    if !(lower.contains("endpoint=sb://") && lower.contains("sharedaccesskey")) {
        read.problem(NAME, "is no connection string of an Event Hubs namespace: one begins with `Endpoint=sb://` and holds SharedAccessKeyName and SharedAccessKey");
        return None;
    }
    Some(EventHubsAuth::ConnectionString(secret))
}

/// The address to dial, if one is given. A bearer token opens the namespace for whoever reads it, so it leaves this machine
/// encrypted only: the library would put it on a plain connection to any host.
fn endpoint(read: &mut Reader) -> Option<Option<Url>> {
    let Some(text) = read.optional(ENDPOINT) else {
        return (!read.is_given(ENDPOINT)).then_some(None);
    };
    let Some(mut url) = parse_endpoint(&text) else {
        // It is not repeated: it may be a connection string.
        const WHAT: &str = "is no address to dial; give `amqps://host` or `amqps://host:port`, without a path";
        read.problem(ENDPOINT, WHAT);
        return None;
    };
    let encrypted = url.scheme() == "amqps";
    if !encrypted && !is_loopback(&url) {
        read.problem(ENDPOINT, "amqp:// would send the token of the managed identity unprotected; use amqps://");
        return None;
    }
    if url.port().is_none() {
        let port = if encrypted { TLS_PORT } else { PLAIN_PORT };
        url.set_port(Some(port)).ok()?;
    }
    Some(Some(url))
}

fn parse_endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "amqp" | "amqps"))?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    (bare && anonymous && url.port() != Some(0) && url.host_str().is_some_and(|host| !host.is_empty())).then_some(url)
}
