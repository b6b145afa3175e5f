//! Where the hub is, and who may do what there.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use simulator::iot_hub::{Policy, Rights};
use tokio_rustls::TlsConnector;

use super::Failure;

/// Most devices of one bulk call.
const BULK: usize = 100;
/// How long a call may take.
const CALL_TIME: Duration = Duration::from_secs(60);

/// The hub as its clients see it.
pub(crate) struct Hub {
    /// Its name in user names and tokens.
    pub(crate) name: String,
    /// Where devices connect.
    pub(crate) mqtt: (String, u16),
    pub(crate) tls: TlsConnector,
    /// A token that is good for every device.
    pub(crate) fleet_token: String,
    https: String,
    owner_token: String,
    http: reqwest::Client,
}

impl Hub {
    /// Reads it from the description of the world.
    pub(crate) fn new(world: &Value) -> Result<Self, Failure> {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("the description of the world lacks a text");
        let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).ok_or("a port is missing");
        let pem = std::fs::read(text(&world["ca_file"])?)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem)?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let ca = reqwest::Certificate::from_pem(&pem)?;
        let name = text(&world["hub_host_name"])?;
        let expiry = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 24 * 3600;
        Ok(Self {
            mqtt: (text(&world["mqtt"]["host"])?, port(&world["mqtt"]["port"])?),
            https: format!("https://{}:{}", text(&world["hub_https"]["host"])?, port(&world["hub_https"]["port"])?),
            tls: TlsConnector::from(Arc::new(config)),
            fleet_token: policy(world, "device")?.token(&format!("{name}/devices"), expiry),
            owner_token: policy(world, "iothubowner")?.token(&name, expiry),
            http: reqwest::Client::builder().tls_certs_only([ca]).timeout(CALL_TIME).build()?,
            name,
        })
    }

    /// Creates the devices.
    pub(crate) async fn create(&self, ids: &[String]) -> Result<(), Failure> {
        for ids in ids.chunks(BULK) {
            let device =
                |id: &String| json!({"id": id, "importMode": "create", "status": "enabled", "tags": {"fleet": true}});
            let devices: Vec<_> = ids.iter().map(device).collect();
            let url = format!("{}/devices?api-version=2021-04-12", self.https);
            let call = self.http.post(url).header("Authorization", &self.owner_token).json(&devices);
            let answer = call.send().await?;
            if !answer.status().is_success() {
                return Err(format!("bulk call: {}: {}", answer.status(), answer.text().await?).into());
            }
        }
        Ok(())
    }
}

fn policy(world: &Value, name: &str) -> Result<Policy, Failure> {
    let policies = world["policies"].as_array().ok_or("the description of the world lacks policies")?;
    let policy = policies.iter().find(|policy| policy["name"] == name).ok_or("a policy is missing")?;
    let key = BASE64_STANDARD.decode(policy["key"].as_str().ok_or("a policy has no key")?)?;
    Ok(Policy { name: name.to_owned(), key, rights: Rights::default() })
}
