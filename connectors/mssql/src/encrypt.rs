//! The wire up to the sign-in: TCP, the pre-login, encryption.
//!
//! Until version 8, TDS agrees on encryption in a message of its own, the pre-login, and carries the TLS handshake inside further pre-login
//! packets (MS-TDS 2.2.6.5 and 3.2.5.1). The driver can do that too, but with a crypto library and with rules of trust of its own; so it is
//! done here, with those of every other connection of Towpath, and the driver is handed an open channel. Its own pre-login is answered with what the
//! server has said to ours.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use towpath_core::{Error, Result};
use towpath_http::tls;

use crate::{config::Encrypt, login::Login};

/// A packet's header: type, status, length (big-endian, header included), channel, number, window.
const HEADER: usize = 8;
const PRELOGIN: u8 = 0x12;
const END_OF_MESSAGE: u8 = 1;
/// More than any server's answer to a pre-login.
const ANSWER_AT_MOST: usize = 8192;
/// The payload of a packet that carries a piece of the handshake; servers take 4096 with the header before the sign-in.
const PIECE: usize = 4096 - HEADER;

/// What the pre-login says of encryption (MS-TDS 2.2.6.5, ENCRYPTION).
const ENCRYPT_ON: u8 = 1;
const NOT_SUPPORTED: u8 = 2;
const REQUIRED: u8 = 3;

/// What there is to do where the pre-login is not answered.
const NOT_AS_WE_SPEAK: &str = "check host and port of the connection; a server that takes TDS 8 alone (Force Strict Encryption) wants `encrypt=strict` in it";

/// A stream of bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Wire for S {}

/// An open channel, ready for the driver.
pub type Channel = Replay<Box<dyn Wire>>;

/// Connects to `host:port` and agrees on encryption as the login wants it.
///
/// # Errors
/// Unavailable: nobody there. Config: a certificate that is not trusted, encryption that one side wants and the other has not.
pub(crate) async fn open(login: &Login, host: &str, port: u16) -> Result<Channel> {
    let tcp = TcpStream::connect((host, port)).await;
    // The reason is a part of the message: a door that is shut afterwards repeats no more than that.
    let mut tcp = tcp.map_err(|error| {
        Error::unavailable(format!("cannot connect to {host}:{port}: {error}"))
            .hint("check host and port of the connection; is the server up, does it listen on TCP, is the port open?")
    })?;
    let _ = tcp.set_nodelay(true);
    let at = &login.at;
    let connector = |protocols: &[&[u8]], versions| -> Result<_> {
        let config = tls::config(at.trust.as_deref(), at.pin.as_ref(), protocols, versions)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            Error::config(format!("connection: '{host}' cannot be the name in a certificate")).because(error)
        })?;
        Ok((TlsConnector::from(Arc::new(config)), name))
    };
    let (wire, answer): (Box<dyn Wire>, Bytes) = match at.encrypt {
        Encrypt::Off => {
            let (answer, says) = pre_login(&mut tcp, NOT_SUPPORTED).await?;
            if matches!(says, ENCRYPT_ON | REQUIRED) {
                return Err(Error::config("the server takes encrypted connections only")
                    .hint("leave `encrypt=off` out of the connection"));
            }
            (Box::new(tcp), answer)
        }
        Encrypt::On => {
            let (answer, says) = pre_login(&mut tcp, ENCRYPT_ON).await?;
            if !matches!(says, ENCRYPT_ON | REQUIRED) {
                return Err(Error::config("the server does not encrypt").hint(
                    "give it a certificate; or write `encrypt=off`, if the network may see the password and the data",
                ));
            }
            // Inside pre-login packets, a session ticket of TLS 1.3 behind the handshake would find no packet to stand in.
            let (connector, name) = connector(&[], &[&rustls::version::TLS12])?;
            let mut stream = connector.connect(name, Wrapped::new(tcp)).await.map_err(untrusted)?;
            stream.get_mut().0.wrapping = false;
            (Box::new(stream), answer)
        }
        Encrypt::Strict => {
            let (connector, name) = connector(&[b"tds/8.0"], rustls::ALL_VERSIONS)?;
            let stream = connector.connect(name, tcp).await;
            let mut stream = stream.map_err(|error| knows_no_version_8(untrusted(error)))?;
            let (answer, _) = pre_login(&mut stream, REQUIRED).await.map_err(knows_no_version_8)?;
            (Box::new(stream), answer)
        }
    };
    let version_8 = (at.encrypt == Encrypt::Strict).then(Version8::default);
    Ok(Replay { inner: wire, head: [0; 4], seen: 0, swallowing: true, answer, version_8 })
}

fn untrusted(error: io::Error) -> Error {
    match tls::failure(&error) {
        Some(error) if error.what_to_do().is_some() => {
            let hint = "add `trust=FILE` (a PEM file with the certificate of the authority, or the server's own) to the connection; or, once you \
                        know the certificate to be the server's, `pin=` and its fingerprint";
            error.hint(hint)
        }
        Some(error) => error,
        None => Error::unavailable("the connection broke while encryption was agreed on").because(error),
    }
}

/// What a server that does not begin with encryption makes of one who does looks like a broken connection.
fn knows_no_version_8(error: Error) -> Error {
    if !error.can_retry() {
        return error;
    }
    error.hint("does the server know TDS 8 (SQL Server 2022 and later)? If not, write `encrypt=on` in place of `encrypt=strict`")
}

/// Sends a pre-login; returns the server's answer as it came, and what it says of encryption.
async fn pre_login(wire: &mut (impl AsyncRead + AsyncWrite + Unpin), encryption: u8) -> Result<(Bytes, u8)> {
    // Options: token, offset, length; then their data. Version, encryption, instance (none), thread (none), one statement at a time.
    let options: [(u8, &[u8]); 5] = [(0, &[0; 6]), (1, &[encryption]), (2, &[0]), (3, &[0; 4]), (4, &[0])];
    let mut offset = options.len() * 5 + 1;
    let (mut message, mut data) = (vec![], vec![]);
    for (token, bytes) in options {
        message.push(token);
        message.extend(u16::try_from(offset).unwrap_or_default().to_be_bytes());
        message.extend(u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
        offset += bytes.len();
        data.extend_from_slice(bytes);
    }
    message.push(0xff);
    message.extend(data);
    let broke = |error: io::Error| {
        Error::unavailable("the connection broke before the sign-in").because(error).hint(NOT_AS_WE_SPEAK)
    };
    wire.write_all(&packet(&message, true)).await.map_err(broke)?;
    wire.flush().await.map_err(broke)?;

    let (mut raw, mut payload) = (vec![], vec![]);
    loop {
        let mut head = [0; HEADER];
        wire.read_exact(&mut head).await.map_err(broke)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let body = length.checked_sub(HEADER).filter(|_| raw.len() + length <= ANSWER_AT_MOST);
        let Some(body) = body else { return Err(no_answer()) };
        let mut bytes = vec![0; body];
        wire.read_exact(&mut bytes).await.map_err(broke)?;
        raw.extend_from_slice(&head);
        raw.extend_from_slice(&bytes);
        payload.extend_from_slice(&bytes);
        if head[1] & END_OF_MESSAGE != 0 {
            break;
        }
    }
    let says = encryption_of(&payload).ok_or_else(no_answer)?;
    Ok((raw.into(), says))
}

fn no_answer() -> Error {
    Error::unavailable("what listens there does not answer as a SQL Server does").hint(NOT_AS_WE_SPEAK)
}

fn encryption_of(payload: &[u8]) -> Option<u8> {
    let mut at = 0;
    loop {
        match payload.get(at)? {
            0xff => return None,
            1 => {
                let offset = u16::from_be_bytes([*payload.get(at + 1)?, *payload.get(at + 2)?]);
                return payload.get(usize::from(offset)).copied();
            }
            _ => at += 5,
        }
    }
}

fn packet(payload: &[u8], last: bool) -> Vec<u8> {
    let length = u16::try_from(payload.len() + HEADER).unwrap_or(u16::MAX).to_be_bytes();
    let mut packet = vec![PRELOGIN, u8::from(last), length[0], length[1], 0, 0, 1, 0];
    packet.extend_from_slice(payload);
    packet
}

/// Carries a TLS handshake in pre-login packets: what is written goes out as one message when it is flushed or an answer is asked for.
struct Wrapped<S> {
    inner: S,
    wrapping: bool,
    /// Written, not yet put into packets.
    waiting: Vec<u8>,
    /// Packets on their way out.
    sending: Bytes,
    head: [u8; HEADER],
    head_read: usize,
    /// What is left of the packet being read.
    left: usize,
}

impl<S> Wrapped<S> {
    fn new(inner: S) -> Self {
        Self { inner, wrapping: true, waiting: vec![], sending: Bytes::new(), head: [0; HEADER], head_read: 0, left: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wrapped<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sending.is_empty() && !self.waiting.is_empty() {
            let pieces = self.waiting.chunks(PIECE);
            let last = pieces.len() - 1;
            self.sending = pieces.enumerate().flat_map(|(at, piece)| packet(piece, at == last)).collect();
            self.waiting.clear();
        }
        while !self.sending.is_empty() {
            let sent = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.sending))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sending.advance(sent);
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wrapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.wrapping {
            return Pin::new(&mut this.inner).poll_read(cx, to);
        }
        ready!(this.poll_send(cx))?;
        while this.left == 0 {
            let mut head = ReadBuf::new(&mut this.head[this.head_read..]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut head))?;
            let read = head.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            this.head_read += read;
            if this.head_read == HEADER {
                this.head_read = 0;
                let length = usize::from(u16::from_be_bytes([this.head[2], this.head[3]]));
                this.left = length.checked_sub(HEADER).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            }
        }
        // A handshake is small: a copy costs less than care.
        let mut piece = [0; 2048];
        let room = this.left.min(to.remaining()).min(piece.len());
        let mut piece = ReadBuf::new(&mut piece[..room]);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
        this.left -= piece.filled().len();
        to.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wrapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.wrapping {
            return Pin::new(&mut self.inner).poll_write(cx, bytes);
        }
        self.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wrapping {
            return self.poll_send(cx);
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Keeps the driver's pre-login to itself and answers it with what the server has said before. Where encryption came first, the sign-in is made one of
/// TDS 8 on its way.
#[derive(Debug)]
pub struct Replay<S> {
    inner: S,
    head: [u8; 4],
    /// How much of the driver's message has been written.
    seen: usize,
    swallowing: bool,
    answer: Bytes,
    version_8: Option<Version8>,
}

/// TDS 8 is TDS 7.4 inside of TLS, but for the version in the sign-in (MS-TDS 2.2.6.4, at byte 4 of LOGIN7) and in its acknowledgement (2.2.7.14), which
/// the driver knows only together with a TLS stack of its own.
#[derive(Debug, Default)]
struct Version8 {
    /// Bytes of the sign-in that have gone out.
    sent: usize,
    /// The answer to it, until it is whole.
    held: Vec<u8>,
    acknowledged: bool,
}

/// As they stand in LOGIN7: low byte first.
const LOGIN_8: [u8; 4] = [0, 0, 0, 8];
/// Where: behind the packet's header and the message's length.
const LOGIN_AT: std::ops::Range<usize> = HEADER + 4..HEADER + 8;
/// In LOGINACK: high byte first. The token before it, its length in between; the language behind that is SQL.
const LOGIN_ACK: u8 = 0xad;
const ACK_8: [u8; 5] = [1, 8, 0, 0, 0];
const ACK_7_4: [u8; 5] = [1, 0x74, 0, 0, 4];
/// More than any server's answer to a sign-in.
const SIGN_IN_AT_MOST: usize = 1 << 20;

impl Version8 {
    /// The next bytes of the sign-in as they go out, if any of them is the version's.
    fn outgoing<'a>(&self, bytes: &'a [u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
        if self.sent >= LOGIN_AT.end {
            return None;
        }
        let take = bytes.len().min(LOGIN_AT.end - self.sent);
        let mut bytes = bytes.get(..take)?.to_vec();
        for (at, byte) in bytes.iter_mut().enumerate() {
            if LOGIN_AT.contains(&(self.sent + at)) {
                *byte = LOGIN_8[self.sent + at - LOGIN_AT.start];
            }
        }
        Some(bytes.into())
    }

    /// The answer, when it is whole.
    fn incoming(&mut self) -> Option<Bytes> {
        let mut at = 0;
        loop {
            let head = self.held.get(at..at + HEADER)?;
            at += usize::from(u16::from_be_bytes([head[2], head[3]])).max(HEADER);
            if head[1] & END_OF_MESSAGE != 0 {
                break;
            }
        }
        if self.held.len() < at {
            return None;
        }
        let mut answer = std::mem::take(&mut self.held);
        let found = answer.windows(8).position(|bytes| bytes[0] == LOGIN_ACK && bytes[3..] == ACK_8);
        if let Some(at) = found {
            answer[at + 3..at + 8].copy_from_slice(&ACK_7_4);
        }
        self.acknowledged = true;
        Some(answer.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.answer.is_empty() {
            let Some(version) = this.version_8.as_mut().filter(|version| !version.acknowledged) else {
                return Pin::new(&mut this.inner).poll_read(cx, to);
            };
            let mut piece = [0; 4096];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() || version.held.len() > SIGN_IN_AT_MOST {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            version.held.extend_from_slice(piece.filled());
            this.answer = version.incoming().unwrap_or_default();
        }
        let take = this.answer.len().min(to.remaining());
        to.put_slice(&this.answer.split_to(take));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !this.swallowing {
            let Some(version) = &mut this.version_8 else { return Pin::new(&mut this.inner).poll_write(cx, bytes) };
            let changed = version.outgoing(bytes);
            let sent = ready!(Pin::new(&mut this.inner).poll_write(cx, changed.as_deref().unwrap_or(bytes)))?;
            version.sent = version.sent.saturating_add(sent);
            return Poll::Ready(Ok(sent));
        }
        let mut taken = 0;
        for &byte in bytes {
            if let Some(slot) = this.head.get_mut(this.seen) {
                *slot = byte;
            }
            this.seen += 1;
            taken += 1;
            let length = usize::from(u16::from_be_bytes([this.head[2], this.head[3]]));
            if this.seen >= HEADER && this.seen == length {
                // Of several packets only the last ends the message.
                this.seen = 0;
                if this.head[1] & END_OF_MESSAGE != 0 {
                    this.swallowing = false;
                    break;
                }
            }
        }
        Poll::Ready(Ok(taken))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
