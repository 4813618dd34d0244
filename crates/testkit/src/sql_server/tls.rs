//! TLS as TDS speaks it: up to 7.4 the handshake goes in PRELOGIN packets and everything after it does not (\[MS-TDS\] 2.2.6.5, 3.3.5.1);
//! with 8.0 ("strict") TLS comes first, and ALPN says `tds/8.0`.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;

use super::wire::{HEADER, packet, status};

/// A certificate of its own making, and the acceptor that shows it.
pub(super) struct Certificate {
    pub acceptor: TlsAcceptor,
    pub pem: String,
}

impl Certificate {
    /// For `localhost` and `127.0.0.1`.
    pub fn new(strict: bool) -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let certificate = params.and_then(|params| params.self_signed(&key)).map_err(io::Error::other)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // In TLS 1.3 the server's tickets come after the handshake, where nothing says whether they are wrapped: SQL Server too offers
        // 1.3 with TDS 8.0 only.
        let versions: &[&rustls::SupportedProtocolVersion] =
            if strict { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS12] };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .map_err(io::Error::other)?;
        if strict {
            config.alpn_protocols = vec![b"tds/8.0".to_vec()];
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), pem: certificate.pem() })
    }
}

/// A stream whose bytes go in PRELOGIN packets, until [`Wrapped::unwrap`].
pub(super) struct Wrapped<S> {
    inner: S,
    wrapping: bool,
    header: [u8; HEADER],
    header_read: usize,
    /// Bytes of the packet that are to be read yet.
    left: usize,
    /// What is written since the last flush, and how much of it (framed) has gone.
    writing: Vec<u8>,
    framed: Vec<u8>,
    gone: usize,
}

impl<S> Wrapped<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            wrapping: true,
            header: [0; HEADER],
            header_read: 0,
            left: 0,
            writing: vec![],
            framed: vec![],
            gone: 0,
        }
    }
    /// The handshake is over.
    pub fn unwrap_from_now_on(&mut self) {
        self.wrapping = false;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wrapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.wrapping {
            return Pin::new(&mut this.inner).poll_read(cx, out);
        }
        while this.left == 0 {
            let mut rest = ReadBuf::new(&mut this.header[this.header_read..]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut rest))?;
            let read = rest.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            this.header_read += read;
            if this.header_read == HEADER {
                if this.header[0] != packet::PRELOGIN {
                    return Poll::Ready(Err(io::Error::other("a packet of another kind in the TLS handshake")));
                }
                this.header_read = 0;
                this.left = usize::from(u16::from_be_bytes([this.header[2], this.header[3]])).saturating_sub(HEADER);
            }
        }
        let room = this.left.min(out.remaining());
        let mut part = ReadBuf::new(out.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        out.advance(read);
        this.left -= read;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Wrapped<S> {
    fn poll_framed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.framed.is_empty() && !self.writing.is_empty() {
            let mut parts = self.writing.chunks(4096 - HEADER).peekable();
            while let Some(part) = parts.next() {
                let last = if parts.peek().is_none() { status::END } else { 0 };
                let [high, low] = u16::try_from(part.len() + HEADER).unwrap_or(u16::MAX).to_be_bytes();
                self.framed.extend_from_slice(&[packet::PRELOGIN, last, high, low, 0, 0, 0, 0]);
                self.framed.extend_from_slice(part);
            }
            self.writing.clear();
        }
        while self.gone < self.framed.len() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.framed[self.gone..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += written;
        }
        self.framed.clear();
        self.gone = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wrapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.wrapping {
            return Pin::new(&mut self.inner).poll_write(cx, bytes);
        }
        self.writing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wrapping {
            ready!(self.poll_framed(cx))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
