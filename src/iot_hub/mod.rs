//! Azure IoT Hub: SAS, TLS, one device session, the pool of sessions, twins, registry, pacing.

mod address;
mod ask;
mod create;
mod error;
mod lane;
mod pace;
mod pool;
mod registry;
mod sas;
mod session;
#[cfg(test)]
mod tests;
mod tls;
mod topic;
pub mod twin;

use std::sync::Arc;

use bytes::Bytes;
use rustls_pki_types::ServerName;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

pub use error::HubError;
pub use pace::Share;

use crate::config::HubConfig;
use crate::ids::{ApplicationId, DeviceId, EndDevice};

/// Largest device-to-cloud message: body, system property values, application property names and values
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-messages-construct.md`).
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// One device-to-cloud message. Its content type is JSON and its encoding UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// The body.
    pub body: Bytes,
    /// Message id: ASCII, at most 128 characters.
    pub message_id: String,
    /// Creation time, RFC 3339.
    pub creation_time: Option<String>,
    /// Application properties.
    pub properties: Vec<(&'static str, String)>,
}

/// One twin request of a flight.
#[derive(Clone, Debug, PartialEq)]
pub enum TwinCall {
    /// Read desired and reported properties.
    Read,
    /// Merge into the reported properties.
    Patch {
        /// The merge patch, already within the twin rules.
        reported: Map<String, Value>,
        /// Only if reported `$version` is still this one.
        if_version: Option<u64>,
    },
}

/// What leaves together in one session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flight {
    /// A message to send.
    pub telemetry: Option<Telemetry>,
    /// A twin request to make.
    pub twin: Option<TwinCall>,
}

/// What the hub answered to a twin request.
#[derive(Clone, Debug, PartialEq)]
pub enum TwinAnswer {
    /// 200 to a read: the reported properties without `$version`, and that version.
    Read {
        /// Reported properties.
        reported: Map<String, Value>,
        /// Their version.
        version: u64,
    },
    /// 204 to a patch: the new version.
    Patched {
        /// Version of the reported properties.
        version: u64,
    },
}

/// What became of a flight, part by part. A part that was not asked for is `None`.
#[derive(Debug, Default)]
pub struct Landing {
    /// PUBACK received, or why not.
    pub telemetry: Option<Result<(), HubError>>,
    /// The twin's answer, or why there is none.
    pub twin: Option<Result<TwinAnswer, HubError>>,
}

/// A device identity of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its etag, as the hub wrote it, without quotes.
    pub etag: String,
    /// Tells lives of one id apart.
    pub generation_id: String,
    /// Whether it may connect.
    pub enabled: bool,
}

/// A device twin as the service API shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Twin {
    /// Its etag, without quotes.
    pub etag: String,
    /// Tags.
    pub tags: Map<String, Value>,
    /// Desired properties without `$metadata` and `$version`.
    pub desired: Map<String, Value>,
    /// Their version.
    pub desired_version: u64,
    /// Reported properties without `$metadata` and `$version`.
    pub reported: Map<String, Value>,
    /// Their version.
    pub reported_version: u64,
}

/// A client of one hub: device sessions and the service API.
///
/// Clones and views share everything but the part of the hub's rates that they may use.
#[derive(Clone)]
pub struct IotHub {
    pool: Arc<pool::Pool>,
    paces: [(Share, Arc<pace::Pace>); 3],
    pace: Arc<pace::Pace>,
}

impl IotHub {
    /// A client with the share of [`Share::UplinkIngress`]. No connection to the hub is opened yet.
    ///
    /// Must be called within a tokio runtime: a managed identity begins to fetch its token.
    ///
    /// # Errors
    /// If the roots cannot be read, or TLS or the managed identity cannot be set up.
    pub fn new(config: &HubConfig, application: &ApplicationId) -> Result<Self, HubError> {
        let roots = tls::roots(config.ca_file.as_deref())?;
        let server_name = ServerName::try_from(config.dial_host.clone())
            .map_err(|error| HubError::Setup(format!("dial `{}`: {error}", config.dial_host)))?;
        let key = Arc::clone(&config.policy_key);
        let shared = lane::Shared {
            hostname: config.hostname.clone(),
            prefix: config.device_prefix.clone(),
            address: address::Address::new(&config.dial_host, config.mqtt_port),
            server_name,
            tls: TlsConnector::from(tls::client_config(&roots)?),
            tokens: sas::Tokens::for_devices(&config.hostname, &config.policy_name, key),
            pipeline: config.pipeline,
            linger: config.session_linger,
            registry: registry::Registry::new(config, &roots)?,
            application: application.clone(),
            denials: create::Denials::new(),
            sessions: Semaphore::new(pool::MAX_SESSIONS),
            closing: CancellationToken::new(),
        };
        let paces = Share::ALL.map(|share| (share, Arc::new(pace::Pace::new(config.sku, config.units, share))));
        let pace = Arc::clone(&paces[0].1);
        Ok(Self { pool: pool::Pool::new(shared), paces, pace })
    }

    /// The same client for another share of the hub's rates.
    #[must_use]
    pub fn with_share(&self, share: Share) -> Self {
        let mut view = self.clone();
        if let Some((_, pace)) = self.paces.iter().find(|(of, _)| *of == share) {
            view.pace = Arc::clone(pace);
        }
        view
    }

    /// Makes the flight in a session of the device: the open one, or a new one. Creates a device that the hub does not know.
    /// Returns by the deadline, whatever the hub does.
    pub async fn fly(&self, device: &EndDevice, flight: Flight, deadline: Instant) -> Landing {
        self.pool.fly(device, flight, deadline, &self.pace).await
    }

    /// Reads an identity; `None` if there is none.
    ///
    /// # Errors
    /// If the service API cannot be reached or refuses.
    pub async fn identity(&self, id: &DeviceId) -> Result<Option<Identity>, HubError> {
        self.registry().identity(&self.pace, id).await
    }

    /// Deletes an identity if its etag is still this one; gone already is fine.
    ///
    /// # Errors
    /// If the service API cannot be reached or refuses; [`HubError::is_stale`] if the etag is another one by now.
    pub async fn delete_identity(&self, id: &DeviceId, etag: &str) -> Result<(), HubError> {
        self.registry().delete_identity(&self.pace, id, etag).await
    }

    /// Reads a twin; `None` if there is none.
    ///
    /// # Errors
    /// If the service API cannot be reached or refuses.
    pub async fn twin(&self, id: &DeviceId) -> Result<Option<Twin>, HubError> {
        self.registry().twin(&self.pace, id).await
    }

    /// Merges into the tags; with an etag only if it is still the twin's.
    ///
    /// # Errors
    /// If the service API cannot be reached or refuses; [`HubError::is_stale`] if the etag is another one by now,
    /// [`HubError::is_missing`] if there is no such twin.
    pub async fn patch_tags(&self, id: &DeviceId, tags: &Value, if_match: Option<&str>) -> Result<Twin, HubError> {
        self.registry().patch_tags(&self.pace, id, tags, if_match).await
    }

    /// Takes no more flights and ends every open session in order.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn registry(&self) -> &registry::Registry {
        &self.pool.shared.registry
    }
}

impl std::fmt::Debug for IotHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IotHub").field("hostname", &self.pool.shared.hostname).finish_non_exhaustive()
    }
}
