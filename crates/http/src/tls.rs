//! Encryption: whom to trust. One rustls stack (ring) for both kinds of connection.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};
use towpath_core::{Error, Result};

use crate::options::{HttpOptions, Pin};

/// The protocol list of a connection that may speak HTTP/2.
pub(crate) const ANY_HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The protocol list of a connection that must not.
pub(crate) const HTTP_1: [&[u8]; 1] = [b"http/1.1"];

/// The rustls config for the options.
pub(crate) fn of(options: &HttpOptions, protocols: &[&[u8]]) -> Result<ClientConfig> {
    config(options.ca_file.as_deref(), options.pinned_certificate.as_ref(), protocols, rustls::DEFAULT_VERSIONS)
}

/// The rustls config for whom to trust: the system's authorities and those of `ca_file`, or one pinned certificate alone. A certificate that
/// stands in `ca_file` itself is trusted too: a server that signed its own is known by it. Protocols are those of ALPN.
///
/// # Errors
/// Config, if a file cannot be read or holds no certificate.
pub fn config(
    ca_file: Option<&Path>,
    pinned: Option<&Pin>,
    protocols: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = match pinned {
        Some(Pin::Sha256(fingerprint)) => Trust::Pinned(*fingerprint),
        Some(Pin::File(path)) => match certificates(path)?.first() {
            Some(certificate) => Trust::Pinned(fingerprint(certificate)),
            None => return Err(none_in(path)),
        },
        None => {
            let known = ca_file.map(certificates).transpose()?.unwrap_or_default();
            let themselves = known.iter().map(fingerprint).collect();
            Trust::Authorities { verifier: authorities(ca_file, known, &provider)?, themselves }
        }
    };
    let verifier = Verifier { trust, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| Error::internal("cannot set up tls").because(error))?
        .dangerous() // Named so for every verifier of one's own; ours is stricter than or equal to the usual one.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn authorities(
    ca_file: Option<&Path>,
    known: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>> {
    let mut roots = RootCertStore::empty();
    // A broken certificate among the system's is not ours to complain about.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        for certificate in known {
            roots.add(certificate).map_err(|error| {
                Error::config(format!("a certificate in ca_file {} cannot be used", path.display())).because(error)
            })?;
        }
    }
    if roots.is_empty() {
        // Not an error yet: plain http needs none.
        return Ok(None);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    verifier.map(Some).map_err(|error| Error::internal("cannot set up tls").because(error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |error| Error::config(format!("cannot read certificates from {}", path.display())).because(error);
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() { Err(none_in(path)) } else { Ok(found) }
}

fn none_in(path: &Path) -> Error {
    Error::config(format!("{} holds no certificate", path.display()))
        .hint("give a PEM file: -----BEGIN CERTIFICATE-----")
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

#[derive(Debug)]
enum Trust {
    Pinned([u8; 32]),
    Authorities {
        verifier: Option<Arc<WebPkiServerVerifier>>,
        /// Certificates trusted by themselves, whoever signed them.
        themselves: Vec<[u8; 32]>,
    },
}

/// Trusts one certificate, or those that authorities vouch for; tells the fingerprint of what it does not trust.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

/// Why a certificate was not taken.
#[derive(Debug)]
pub(crate) struct NotTrusted {
    fingerprint: Pin,
    why: String,
    pinned: bool,
}

impl fmt::Display for NotTrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's certificate ({}) is not trusted: {}", self.fingerprint, self.why)
    }
}

impl std::error::Error for NotTrusted {}

impl NotTrusted {
    /// As an error for people.
    fn error(&self) -> Error {
        Error::config(self.to_string()).hint(if self.pinned {
            "if the server has a new certificate, and you know it to be the server's, change pinned_certificate".to_owned()
        } else {
            format!(
                "set ca_file to the certificate of the authority that signed it; or, if you know it to be the server's, set \
                 pinned_certificate: {}",
                self.fingerprint
            )
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = fingerprint(end_entity);
        let (why, pinned) = match &self.trust {
            Trust::Pinned(pin) if *pin == shown => return Ok(ServerCertVerified::assertion()),
            Trust::Pinned(pin) => (format!("pinned is {}", Pin::Sha256(*pin)), true),
            Trust::Authorities { themselves, .. } if themselves.contains(&shown) => {
                return Ok(ServerCertVerified::assertion());
            }
            Trust::Authorities { verifier: None, .. } => {
                ("this machine has no certificates of authorities".to_owned(), false)
            }
            Trust::Authorities { verifier: Some(inner), .. } => {
                match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                    Ok(verified) => return Ok(verified),
                    Err(rustls::Error::InvalidCertificate(why)) => (reason(&why), false),
                    Err(error) => return Err(error),
                }
            }
        };
        let why = NotTrusted { fingerprint: Pin::Sha256(shown), why, pinned };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

fn reason(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer => "nobody we trust signed it".to_owned(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is an authority's certificate, not a server's".to_owned()
        }
        other => other.to_string(),
    }
}

/// The error for a TLS failure somewhere under `error`; `None` if there is none. A certificate that is not trusted is a matter of the
/// config and not tried again.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(match tls {
                rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => {
                    match why.downcast_ref::<NotTrusted>() {
                        Some(why) => why.error(),
                        None => Error::config(format!("the server's certificate is not trusted: {why}")),
                    }
                }
                rustls::Error::InvalidCertificate(why) => {
                    Error::config(format!("the server's certificate is not trusted: {}", reason(why)))
                }
                other => Error::unavailable(format!("cannot agree on encryption: {other}")),
            });
        }
        // An io::Error passes over what it wraps when asked for its source.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}
