//! A throw-away certificate authority and the server certificate that it signs.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate generator refused.
    #[error("make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused the certificate.
    #[error("use the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// The authority of one run and the certificate of its servers.
#[derive(Debug, Clone)]
pub struct Tls {
    ca_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
}

impl Tls {
    /// A new authority, and a server certificate for these host names (`localhost` and 127.0.0.1 always among them).
    ///
    /// # Errors
    /// If a name is no valid host name.
    pub fn new(host_names: &[&str]) -> Result<Self, TlsError> {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "simulator throw-away root");
        let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

        let mut names: Vec<String> = vec!["localhost".into(), "127.0.0.1".into()];
        names.extend(host_names.iter().map(|name| (*name).to_owned()).filter(|name| name != "localhost"));
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new(names)?;
        // RFC 5280 demands it below the root, and who verifies strictly (Python from 3.13 on) refuses a certificate without it.
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&key, &issuer)?;
        Ok(Self {
            ca_pem: issuer.pem(),
            chain: vec![leaf.der().clone()],
            key: Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    /// The authority's certificate, for the clients to trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A server configuration with TLS 1.2 and 1.3 and session tickets.
    ///
    /// # Errors
    /// If the certificate does not fit its key.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(self.chain.clone(), key)?;
        Ok(Arc::new(config))
    }
}
