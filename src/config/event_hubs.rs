//! Settings of the Event Hubs namespace: the same ones that the Functions host reads for its triggers.

use secrecy::{ExposeSecret as _, SecretString};

use super::Reader;

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

fn auth(read: &mut Reader) -> Option<EventHubsAuth> {
    const NAME: &str = "StackEvents";
    const NAMESPACE: &str = "StackEvents__fullyQualifiedNamespace";
    if read.is_given(NAMESPACE) {
        let namespace = read.optional(NAMESPACE).and_then(|name| read.hostname(NAMESPACE, &name));
        let client_id = read.optional("StackEvents__clientId");
        return Some(EventHubsAuth::ManagedIdentity { namespace: namespace?, client_id });
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
