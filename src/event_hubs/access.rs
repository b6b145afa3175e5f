//! How the namespace is reached: connection string or managed identity, TLS or the plain port of an emulator.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_messaging_eventhubs::{ConnectionString, ProducerClient, RetryOptions};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::EventHubsError;
use crate::config::{EventHubsAuth, PLAIN_PORT};
use crate::managed_identity::ManagedIdentity;

/// Scope of tokens for Event Hubs: the one that the client library asks for
/// (`Azure/azure-sdk-for-rust sdk/eventhubs/azure_messaging_eventhubs/src/common/authorizer.rs`).
const SCOPE: &str = "https://eventhubs.azure.net/.default";

/// How producers are opened.
#[derive(Clone)]
pub(super) enum Access {
    Key { connection_string: SecretString, endpoint: Option<String> },
    Identity { namespace: String, endpoint: Option<Url>, credential: Arc<dyn TokenCredential> },
}

impl Access {
    pub(super) fn new(auth: &EventHubsAuth) -> Result<Self, EventHubsError> {
        match auth {
            EventHubsAuth::ConnectionString(connection_string) => Self::by_key(connection_string),
            EventHubsAuth::ManagedIdentity { namespace, client_id, endpoint } => {
                let credential = Arc::new(ManagedIdentity::new(client_id.as_deref(), SCOPE)?);
                Ok(Self::Identity { namespace: namespace.clone(), endpoint: endpoint.clone(), credential })
            }
        }
    }

    fn by_key(connection_string: &SecretString) -> Result<Self, EventHubsError> {
        let text = connection_string.expose_secret();
        // The library's errors name fields, never their values.
        let parsed: ConnectionString =
            text.parse().map_err(|error: azure_core::Error| EventHubsError::ConnectionString(error.to_string()))?;
        if parsed.entity_path.is_some() {
            let problem =
                "it is that of one event hub (EntityPath); take the namespace's, for the bridge writes to several";
            return Err(EventHubsError::ConnectionString(problem.to_owned()));
        }
        let endpoint = endpoint(&parsed.endpoint, is_emulator(text))?;
        Ok(Self::Key { connection_string: connection_string.clone(), endpoint })
    }

    /// Opens a connection. The library does not try again by itself: its user does, within a deadline.
    pub(super) async fn open(&self, hub: &str) -> azure_messaging_eventhubs::Result<ProducerClient> {
        let once = RetryOptions { max_retries: 0, ..RetryOptions::default() };
        let mut builder = ProducerClient::builder().with_retry_options(once);
        match self {
            Self::Key { connection_string, endpoint } => {
                if let Some(endpoint) = endpoint {
                    builder = builder.with_custom_endpoint(endpoint.clone());
                }
                builder.open_with_connection_string(connection_string.expose_secret(), Some(hub)).await
            }
            // The token's audience and the connection's host name stay the namespace's, whatever is dialled.
            Self::Identity { namespace, endpoint, credential } => {
                if let Some(endpoint) = endpoint {
                    builder = builder.with_custom_endpoint(endpoint.to_string());
                }
                builder.open(namespace, hub, credential.clone()).await
            }
        }
    }
}

fn is_emulator(connection_string: &str) -> bool {
    connection_string.split(';').filter_map(|field| field.split_once('=')).any(|(name, value)| {
        name.trim().eq_ignore_ascii_case("UseDevelopmentEmulator") && value.trim().eq_ignore_ascii_case("true")
    })
}

/// Where to connect, if not to the TLS port of the namespace: the library drops the port of `Endpoint`.
fn endpoint(endpoint: &str, emulator: bool) -> Result<Option<String>, EventHubsError> {
    let invalid = || EventHubsError::ConnectionString("its Endpoint is no URL with a host".to_owned());
    let url = Url::parse(endpoint.trim()).map_err(|_| invalid())?;
    let host = url.host_str().ok_or_else(invalid)?;
    Ok(match (emulator, url.port()) {
        (true, port) => Some(format!("amqp://{host}:{}", port.unwrap_or(PLAIN_PORT))),
        (false, Some(port)) => Some(format!("amqps://{host}:{port}")),
        (false, None) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint_of(text: &str) -> Result<Option<String>, EventHubsError> {
        match Access::by_key(&SecretString::from(text))? {
            Access::Key { endpoint, .. } => Ok(endpoint),
            Access::Identity { .. } => Ok(None),
        }
    }

    #[test]
    fn a_connection_string_says_where_to_connect_and_whether_with_tls() {
        let key = "SharedAccessKeyName=n;SharedAccessKey=a2V5==";
        for (text, expected) in [
            (format!("Endpoint=sb://ns.servicebus.windows.net/;{key}"), None),
            (format!("{key};endpoint=sb://localhost;USEDEVELOPMENTEMULATOR=True;"), Some("amqp://localhost:5672")),
            (format!("Endpoint=sb://127.0.0.1:4711/;{key};UseDevelopmentEmulator=true"), Some("amqp://127.0.0.1:4711")),
            (format!("Endpoint=sb://[::1]:4711;{key};UseDevelopmentEmulator=true"), Some("amqp://[::1]:4711")),
            (format!("Endpoint=sb://host:5671;{key};UseDevelopmentEmulator=false"), Some("amqps://host:5671")),
        ] {
            assert_eq!(endpoint_of(&text), Ok(expected.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn a_connection_string_that_cannot_work_is_refused_without_repeating_its_key() {
        for text in [
            "",
            "Endpoint=sb://h",
            "Endpoint=sb://h;SharedAccessKeyName=n",
            "Endpoint=;SharedAccessKeyName=n;SharedAccessKey=s3cret",
            "Endpoint=nothing;SharedAccessKeyName=n;SharedAccessKey=s3cret",
            "SharedAccessKeyName=n;SharedAccessKey=s3cret",
            "Endpoint=sb://h;SharedAccessKeyName=n;SharedAccessKey=s3cret;EntityPath=stack-events",
        ] {
            let error = endpoint_of(text).expect_err(text).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
