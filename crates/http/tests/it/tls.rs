//! Whom to trust: authorities, one pinned certificate, nobody else; and ways through a proxy.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use towpath_core::{Context, Error, ErrorKind, Result, Secret};
use towpath_http::{Auth, Client, HttpOptions, Pin, Proxy, Request, Url};

use crate::common::{plain, speak};

/// A server that shows one certificate; answers `yes`, or, to NTLM, refuses.
struct Server {
    url: Url,
    certificate: CertificateDer<'static>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes".to_vec();
                    speak(stream, answer, false, Arc::default()).await;
                });
            }
        });
        Self { url, certificate, _task: AbortOnDropHandle::new(task) }
    }

    async fn self_signed(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self::start(certificate.der().clone(), &key).await
    }

    fn pin(&self) -> Pin {
        Pin::Sha256(Sha256::digest(&self.certificate).into())
    }

    async fn ask(&self, options: &HttpOptions) -> Result<String> {
        ask(&self.url, options).await
    }
}

async fn ask(url: &Url, options: &HttpOptions) -> Result<String> {
    let client = Client::new(options, &Context::bare("a"))?;
    client.send(Request::get(url.clone())).await?.text(100).await
}

fn pem(folder: &Path, name: &str, certificate: &CertificateDer<'_>) -> PathBuf {
    let path = folder.join(name);
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
    std::fs::write(&path, format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")).unwrap();
    path
}

/// Both kinds of connection: reqwest's and our own.
fn both(options: &HttpOptions) -> [HttpOptions; 2] {
    let ntlm = Auth::Ntlm { domain: None, username: "joe".to_owned(), password: Secret::new("x".to_owned()) };
    [options.clone(), HttpOptions { auth: ntlm, ..options.clone() }]
}

fn not_trusted(error: &Error, server: &Server) -> bool {
    error.kind() == ErrorKind::Config
        && !error.can_retry()
        && error.to_string().contains(&format!("the server's certificate ({}) is not trusted", server.pin()))
}

#[tokio::test]
async fn an_authority_of_ours_is_trusted_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, other) = (authority("ours"), authority("other"));
    let signed = async |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Server::start(params.signed_by(&key, &ours).unwrap().der().clone(), &key).await
    };
    let (right, wrong_name) = (signed("localhost").await, signed("elsewhere.example").await);
    let trusting = |issuer: &CertifiedIssuer<'_, KeyPair>, name| HttpOptions {
        ca_file: Some(pem(folder.path(), name, issuer.der())),
        ..plain()
    };
    for options in both(&trusting(&ours, "ours.pem")) {
        assert_eq!(right.ask(&options).await.unwrap(), "yes");
        let error = wrong_name.ask(&options).await.unwrap_err();
        assert!(not_trusted(&error, &wrong_name), "{error}");
    }
    for options in [plain(), trusting(&other, "other.pem")].iter().flat_map(both) {
        let error = right.ask(&options).await.unwrap_err();
        assert!(not_trusted(&error, &right), "{error}");
        let hint = error.what_to_do().unwrap();
        assert!(hint.contains("ca_file") && hint.contains(&format!("pinned_certificate: {}", right.pin())), "{hint}");
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_the_only_one() {
    let folder = tempfile::tempdir().unwrap();
    // What intranets have: marked as an authority's, for another name, long past its time.
    let odd = Server::self_signed(&["old.example"], |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let (odd, other) = (odd.await, Server::self_signed(&["localhost"], |_| {}).await);
    for pin in [odd.pin(), Pin::File(pem(folder.path(), "odd.pem", &odd.certificate))] {
        for options in both(&HttpOptions { pinned_certificate: Some(pin.clone()), ..plain() }) {
            assert_eq!(odd.ask(&options).await.unwrap(), "yes", "{pin}");
            let error = other.ask(&options).await.unwrap_err();
            assert!(not_trusted(&error, &other) && error.to_string().contains("pinned is sha256:"), "{error}");
            assert!(error.what_to_do().unwrap().contains("change pinned_certificate"));
        }
    }
}

#[tokio::test]
async fn a_file_without_a_certificate_is_a_wrong_config() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, missing) = (folder.path().join("empty"), folder.path().join("missing"));
    std::fs::write(&empty, "nothing").unwrap();
    for path in [empty, missing] {
        let name = path.display().to_string();
        for options in [
            HttpOptions { ca_file: Some(path.clone()), ..plain() },
            HttpOptions { pinned_certificate: Some(Pin::File(path.clone())), ..plain() },
        ] {
            let error = Client::new(&options, &Context::bare("a")).unwrap_err();
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains(&name), "{error}");
        }
    }
}

/// A proxy that opens tunnels, and notes what it was asked.
async fn proxy() -> (String, Arc<std::sync::Mutex<Vec<String>>>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let asked = Arc::<std::sync::Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&asked);
    let task = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut head = vec![];
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let to = head.strip_prefix("CONNECT ").unwrap().split(' ').next().unwrap().to_owned();
                seen.lock().unwrap().push(head);
                let mut far = TcpStream::connect(to).await.unwrap();
                near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (format!("http://joe:hunter2@{at}"), asked, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn a_tunnel_leads_through_a_proxy() {
    let server = Server::self_signed(&["localhost"], |_| {}).await;
    let (url, asked, _task) = proxy().await;
    let through = Proxy::Url(Secret::new(url));
    let options = HttpOptions { pinned_certificate: Some(server.pin()), proxy: through, ..HttpOptions::default() };
    for (i, options) in both(&options).iter().enumerate() {
        assert_eq!(server.ask(options).await.unwrap(), "yes");
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked.len(), i + 1);
        let head = asked.last().unwrap().to_lowercase();
        assert!(head.contains("proxy-authorization: basic am9lomh1bnrlcji="), "{head}");
    }
    // The port of plain http is told too.
    let plain_server = crate::common::Raw::start("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", false).await;
    let [_, ntlm] = both(&options);
    assert_eq!(ask(&plain_server.url, &ntlm).await.unwrap(), "yes");
}
