//! A certificate of our own making, and the acceptor that shows it.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use super::ntlm;

pub(super) struct Tls {
    pub acceptor: TlsAcceptor,
    /// The certificate as PEM.
    pub certificate: String,
    /// What a sign-in over this channel is bound to.
    pub bindings: [u8; 16],
}

impl Tls {
    pub fn new() -> std::io::Result<Self> {
        let key = KeyPair::generate().map_err(std::io::Error::other)?;
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let certificate = params.and_then(|params| params.self_signed(&key)).map_err(std::io::Error::other)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .map_err(std::io::Error::other)?;
        // Signed with SHA-256, and so hashed with it (RFC 5929, section 4.1).
        let bindings = ntlm::channel_bindings(&Sha256::digest(certificate.der()));
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), certificate: certificate.pem(), bindings })
    }
}
