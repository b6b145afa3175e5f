//! Whom we trust, and the one TLS configuration that all sessions share.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::HubError;

/// The roots of the chains that IoT Hub uses or announces: two RSA, two ECC
/// (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-tls-support.md`, `Azure/azure-iot-sdk-c certs/certs.c`).
const HUB_ROOTS: [&str; 4] = [
    "DigiCert Global Root G2",
    "Microsoft RSA Root Certificate Authority 2017",
    "DigiCert Global Root G3",
    "Microsoft ECC Root Certificate Authority 2017",
];

/// Tickets remembered for resumption: `rustls` keeps eight of a server, and there is one hub.
const REMEMBERED_TICKETS: usize = 8;

/// The roots of this file, or those of IoT Hub's public chains.
pub(super) fn roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, HubError> {
    let Some(path) = ca_file else { return Ok(hub_roots()) };
    let failed = |reason: String| HubError::Setup(format!("IOTHUB_CA_FILE `{}`: {reason}", path.display()));
    let roots = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failed(error.to_string()))?;
    if roots.is_empty() {
        return Err(failed("it has no PEM certificate".to_owned()));
    }
    Ok(roots)
}

/// A root is self-signed: the only name in it is its own.
fn hub_roots() -> Vec<CertificateDer<'static>> {
    let is_ours = |root: &&CertificateDer<'static>| HUB_ROOTS.iter().any(|name| contains(root, name.as_bytes()));
    TLS_SERVER_ROOT_CERTS.iter().filter(is_ours).cloned().collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// TLS 1.2 and 1.3 with resumption. Sharing it is what lets one device's session resume another's.
pub(super) fn client_config(roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, HubError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| HubError::Setup(format!("use a root certificate: {error}")))?;
    }
    // The hub knows these two groups; a post-quantum share would only make every hello longer.
    let groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| HubError::Setup(format!("set up TLS: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(REMEMBERED_TICKETS);
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_of_iot_hub_is_known() {
        let roots = hub_roots();
        for name in HUB_ROOTS {
            let found = roots.iter().filter(|root| contains(root, name.as_bytes())).count();
            assert_eq!(found, 1, "{name}");
        }
        assert_eq!(roots.len(), HUB_ROOTS.len());
        assert!(client_config(&roots).is_ok());
    }

    #[test]
    fn a_missing_or_empty_ca_file_is_named() {
        let missing = roots(Some(Path::new("/nowhere/ca.pem"))).expect_err("no such file");
        assert!(missing.to_string().contains("IOTHUB_CA_FILE `/nowhere/ca.pem`"), "{missing}");
        let empty = roots(Some(Path::new("/dev/null"))).expect_err("no certificate");
        assert!(empty.to_string().contains("no PEM certificate"), "{empty}");
    }
}
