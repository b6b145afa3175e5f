//! Settings of Azure IoT Hub.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretBox;

use super::Reader;
use super::reader::shown;
use crate::ids::DevicePrefix;

/// When the flight of a session leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipeline {
    /// Behind CONNACK: proven.
    Connack,
    /// Together with CONNECT: one round trip less, allowed by MQTT 3.1.1, unproven on the live hub.
    Connect,
}

/// The tier of a hub, which sets its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sku {
    /// Free.
    F1,
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

/// How the service API (registry and twins) is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAuth {
    /// With the shared access policy; it then needs the rights RegistryWrite and ServiceConnect.
    Policy,
    /// With the app's managed identity.
    ManagedIdentity {
        /// Client id of a user-assigned identity; the system-assigned one if absent.
        client_id: Option<String>,
    },
}

/// The decoded key of a shared access policy. `Debug` shows nothing of it.
pub type PolicyKey = SecretBox<[u8]>;

/// How IoT Hub is reached.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The hub's own host name: goes into user names and tokens.
    pub hostname: String,
    /// The host to dial.
    pub dial_host: String,
    /// Port of MQTT over TLS.
    pub mqtt_port: u16,
    /// Port of the service API.
    pub https_port: u16,
    /// Roots to trust in place of the hub's public ones.
    pub ca_file: Option<PathBuf>,
    /// Name of the shared access policy.
    pub policy_name: String,
    /// Key of the shared access policy.
    pub policy_key: std::sync::Arc<PolicyKey>,
    /// How the service API is reached.
    pub service_auth: ServiceAuth,
    /// What stands before the ids of The Things Stack in those of the hub.
    pub device_prefix: DevicePrefix,
    /// When the flight of a session leaves.
    pub pipeline: Pipeline,
    /// The tier.
    pub sku: Sku,
    /// Units of the tier.
    pub units: u32,
    /// How long an idle session stays open.
    pub session_linger: Duration,
}

/// The three parts that a connection string or three settings give.
struct Parts {
    hostname: String,
    gateway: Option<String>,
    policy_name: String,
    policy_key: PolicyKey,
}

impl HubConfig {
    pub(super) fn read(read: &mut Reader) -> Option<Self> {
        let parts = parts(read);
        let gateway = gateway(read);
        let service_auth = service_auth(read);
        let device_prefix = device_prefix(read);
        let mqtt_port = read.number("IOTHUB_MQTT_PORT", 1..=u16::MAX, 8883);
        let https_port = read.number("IOTHUB_HTTPS_PORT", 1..=u16::MAX, 443);
        let ca_file = read.optional("IOTHUB_CA_FILE").map(PathBuf::from);
        let pipeline = read.choice(
            "IOTHUB_PIPELINE",
            &[("connack", Pipeline::Connack), ("connect", Pipeline::Connect)],
            Pipeline::Connack,
        );
        let skus = [("F1", Sku::F1), ("S1", Sku::S1), ("S2", Sku::S2), ("S3", Sku::S3)];
        let sku = read.choice("IOTHUB_SKU", &skus, Sku::S1);
        let units = read.number("IOTHUB_UNITS", 1..=200, 1);
        let linger_ms = read.number("SESSION_LINGER_MS", 0..=5000, 250);
        let parts = parts?;
        Some(Self {
            dial_host: gateway?.or(parts.gateway).unwrap_or_else(|| parts.hostname.clone()),
            hostname: parts.hostname,
            mqtt_port: mqtt_port?,
            https_port: https_port?,
            ca_file,
            policy_name: parts.policy_name,
            policy_key: std::sync::Arc::new(parts.policy_key),
            service_auth: service_auth?,
            device_prefix: device_prefix?,
            pipeline: pipeline?,
            sku: sku?,
            units: units?,
            session_linger: Duration::from_millis(linger_ms?),
        })
    }
}

/// The host to dial, if one is given.
fn gateway(read: &mut Reader) -> Option<Option<String>> {
    const NAME: &str = "IOTHUB_GATEWAY_HOSTNAME";
    match read.optional(NAME) {
        Some(name) => read.hostname(NAME, &name).map(Some),
        None => Some(None),
    }
}

const SETTING: &str = "IOTHUB_CONNECTION_STRING";

fn parts(read: &mut Reader) -> Option<Parts> {
    if read.is_given(SETTING) {
        let text = read.optional(SETTING)?;
        return from_connection_string(read, &text);
    }
    const REMEDY: &str =
        "give IOTHUB_CONNECTION_STRING, or IOTHUB_HOSTNAME with IOTHUB_POLICY_NAME and IOTHUB_POLICY_KEY";
    let hostname = read.required("IOTHUB_HOSTNAME", REMEDY);
    let policy_name = read.required("IOTHUB_POLICY_NAME", REMEDY);
    let key = read.required("IOTHUB_POLICY_KEY", REMEDY);
    let policy_key = key.and_then(|key| decode_key(read, "IOTHUB_POLICY_KEY", &key));
    let hostname = hostname.and_then(|name| read.hostname("IOTHUB_HOSTNAME", &name));
    Some(Parts { hostname: hostname?, gateway: None, policy_name: policy_name?, policy_key: policy_key? })
}

fn from_connection_string(read: &mut Reader, text: &str) -> Option<Parts> {
    let field = |name: &str| {
        text.split(';')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    if field("DeviceId").is_some() {
        read.problem(SETTING, "is that of one device; give the one of a shared access policy");
        return None;
    }
    let mut part = |name: &str| {
        let value = field(name);
        if value.is_none() {
            read.problem(SETTING, format_args!("has no {name}; copy it whole from the hub's shared access policy"));
        }
        value
    };
    let (hostname, policy_name, key) = (part("HostName"), part("SharedAccessKeyName"), part("SharedAccessKey"));
    let hostname = hostname.and_then(|name| read.hostname(SETTING, &name));
    let policy_key = key.and_then(|key| decode_key(read, SETTING, &key));
    let gateway = match field("GatewayHostName") {
        Some(name) => Some(read.hostname(SETTING, &name)?),
        None => None,
    };
    Some(Parts { hostname: hostname?, gateway, policy_name: policy_name?, policy_key: policy_key? })
}

/// The key is base64 of 16 to 64 bytes; its text is never repeated in a problem.
fn decode_key(read: &mut Reader, setting: &str, key: &str) -> Option<PolicyKey> {
    match STANDARD.decode(key) {
        Ok(bytes) if (16..=64).contains(&bytes.len()) => Some(PolicyKey::new(bytes.into_boxed_slice())),
        _ => {
            read.problem(setting, "its key is not base64 of 16 to 64 bytes; copy the policy's primary key again");
            None
        }
    }
}

fn service_auth(read: &mut Reader) -> Option<ServiceAuth> {
    let managed = read.choice("IOTHUB_CREDENTIAL", &[("managedidentity", true)], false)?;
    let client_id = read.optional("IOTHUB_CLIENT_ID");
    Some(if managed { ServiceAuth::ManagedIdentity { client_id } } else { ServiceAuth::Policy })
}

fn device_prefix(read: &mut Reader) -> Option<DevicePrefix> {
    const NAME: &str = "DEVICE_ID_PREFIX";
    let Some(text) = read.optional(NAME) else {
        return (!read.is_given(NAME)).then(DevicePrefix::default);
    };
    let prefix = DevicePrefix::parse(&text);
    if prefix.is_err() {
        const WHAT: &str = "cannot stand before a device id: 64 characters of a-z, 0-9, `-`, `_` and `.` at most";
        read.problem(NAME, format_args!("{} {WHAT}", shown(&text)));
    }
    prefix.ok()
}
