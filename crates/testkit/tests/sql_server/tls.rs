//! Encryption, with a bare rustls client: the handshake in PRELOGIN packets, and TLS first.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use towpath_testkit::sql_server::{SqlServer, SqlServerOptions, TlsMode};

fn connector(server: &SqlServer, alpn: Option<&[u8]>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let path = server.certificate_pem_path().unwrap();
    roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// A PRELOGIN that says this of encryption, and what comes back.
async fn prelogin<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S, encryption: u8) -> Vec<u8> {
    let mut packet = vec![0x12, 1, 0, 20, 0, 0, 0, 0];
    packet.extend_from_slice(&[1, 0, 11, 0, 1, 0xff, 0, 0, 0, 0, 0, encryption]);
    stream.write_all(&packet).await.unwrap();
    stream.flush().await.unwrap();
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(header[0], 4);
    body
}

async fn start(tls: TlsMode) -> SqlServer {
    SqlServer::start(SqlServerOptions { tls, ..SqlServerOptions::default() }).await
}

#[tokio::test]
async fn strict_begins_with_tls() {
    let server = start(TlsMode::Strict).await;
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector(&server, Some(b"tds/8.0")).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"tds/8.0"[..]));
    assert!(!prelogin(&mut stream, 1).await.is_empty());
    assert!(server.url().contains("encrypt=strict&trust="));
}

#[tokio::test]
async fn who_cannot_encrypt_is_cut_off() {
    let server = start(TlsMode::Required).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let answer = prelogin(&mut stream, 2).await;
    assert_eq!(answer[26 + 6], 3, "encryption is required");
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}
