//! Connections: the handshake, then packets in and answers out. What is asked is executed by a thread of the session's own
//! ([`session`](super::session)); this side only carries, so that it hears an attention while a statement runs.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Event, Shared, TlsMode, What,
    error::SqlError,
    faults::Occasion,
    login::{Login, encryption, prelogin_answer, prelogin_encryption},
    session::{Control, Reply, Request, start},
    tls::Wrapped,
    wire::{Bad, Done, HEADER, Tokens as _, change, done, packet, packets, put_b_varchar, status},
};

/// The packet size until the login has said otherwise.
const FIRST_SIZE: usize = 4096;

/// One packet.
struct Packet {
    kind: u8,
    status: u8,
    body: Vec<u8>,
}

async fn read_packet<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Packet>> {
    let mut header = [0; HEADER];
    if from.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..]).await?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let length = length.checked_sub(HEADER).ok_or_else(|| io::Error::other("a packet shorter than its header"))?;
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(Some(Packet { kind: header[0], status: header[1], body }))
}

/// A whole message; the kind and status of its first packet.
async fn read_message<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Packet>> {
    let Some(mut message) = read_packet(from).await? else { return Ok(None) };
    let mut last = message.status;
    while last & status::END == 0 {
        let Some(more) = read_packet(from).await? else { return Ok(None) };
        message.body.extend_from_slice(&more.body);
        last = more.status;
    }
    Ok(Some(message))
}

/// Accepts connections until stopped.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            () = stop.cancelled() => return,
        };
        let (shared, acceptor, stop) = (Arc::clone(&shared), acceptor.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                // What goes wrong on a connection is the client's to see.
                _ = connection(stream, acceptor, shared) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match (shared.tls, acceptor) {
        (TlsMode::Strict, Some(acceptor)) => {
            let mut stream = acceptor.accept(stream).await?;
            let _ = prelogin(&mut stream, encryption::ON).await?;
            logged_in(stream, shared).await
        }
        (TlsMode::Required, Some(acceptor)) => {
            let mut stream = stream;
            if prelogin(&mut stream, encryption::REQUIRED).await? == encryption::NOT_SUPPORTED {
                return Ok(()); // as the server does: who cannot encrypt is cut off
            }
            let mut stream = acceptor.accept(Wrapped::new(stream)).await?;
            stream.get_mut().0.unwrap_from_now_on();
            logged_in(stream, shared).await
        }
        _ => {
            let mut stream = stream;
            let _ = prelogin(&mut stream, encryption::NOT_SUPPORTED).await?;
            logged_in(stream, shared).await
        }
    }
}

fn protocol(bad: &Bad) -> io::Error {
    io::Error::other(format!("{bad:?}"))
}

async fn prelogin<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, answer: u8) -> io::Result<u8> {
    let message = read_message(stream).await?.filter(|message| message.kind == packet::PRELOGIN);
    let message = message.ok_or_else(|| io::Error::other("no PRELOGIN"))?;
    let theirs = prelogin_encryption(&message.body).map_err(|bad| protocol(&bad))?;
    let mut out = vec![];
    packets(&prelogin_answer(answer), FIRST_SIZE, &mut 0, 0, true, &mut out);
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(theirs)
}

/// Why a login is refused.
fn refuse(login: &Login, shared: &Shared) -> Option<SqlError> {
    let failed = SqlError::new(18456, 14, format!("Login failed for user '{}'.", login.user));
    let struck = shared.faults.due(Occasion::Login);
    if struck.contains(&What::LockAccount) {
        shared.faults.lock_account();
    }
    if shared.faults.is_locked() {
        let text = format!(
            "Login failed for user '{}' because the account is currently locked out. The system administrator can unlock it.",
            login.user
        );
        return Some(SqlError::new(18486, 14, text));
    }
    for what in struck {
        match what {
            What::RefuseLogin => return Some(failed),
            What::Error(number) => return Some(SqlError::ordered(number, 0)),
            What::Message(number, text) => return Some(SqlError::new(number, 14, text)),
            _ => {}
        }
    }
    if login.integrated {
        let text =
            "Login failed. The login is from an untrusted domain and cannot be used with Integrated authentication.";
        return Some(SqlError::new(18452, 14, text));
    }
    if !login.user.eq_ignore_ascii_case(&shared.login) || login.password != shared.password {
        return Some(failed);
    }
    let known = ["master", "tempdb", &shared.database];
    if !login.database.is_empty() && !known.iter().any(|name| name.eq_ignore_ascii_case(&login.database)) {
        let text = format!("Cannot open database \"{}\" requested by the login. The login failed.", login.database);
        return Some(SqlError::new(4060, 11, text));
    }
    None
}

async fn logged_in<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let (read, mut write) = tokio::io::split(stream);
    let mut read = BufReader::with_capacity(1 << 16, read);
    let message = read_message(&mut read).await?.filter(|message| message.kind == packet::LOGIN7);
    let message = message.ok_or_else(|| io::Error::other("no LOGIN7"))?;
    let login = Login::read(&message.body).map_err(|bad| protocol(&bad))?;
    let spid = shared.next_spid.fetch_add(1, Ordering::Relaxed);
    let refused = refuse(&login, &shared);
    shared.log.add(
        spid,
        Event::Login {
            user: login.user.clone(),
            application: login.application.clone(),
            refused: refused.as_ref().map(|error| error.number),
        },
    );
    let mut size = usize::try_from(login.packet_size).unwrap_or(FIRST_SIZE);
    if size == 0 {
        size = FIRST_SIZE;
    }
    let size = size.clamp(512, 32_767);
    let mut answer = vec![];
    if let Some(refused) = &refused {
        answer.error(refused, "");
        answer.done(Done::Batch, done::ERROR, None);
    } else {
        greet(&login, &shared, size, &mut answer);
    }
    let mut out = vec![];
    packets(&answer, FIRST_SIZE, &mut 0, spid, true, &mut out);
    write.write_all(&out).await?;
    write.flush().await?;
    if refused.is_some() {
        return write.shutdown().await;
    }
    let (control, requests, replies) = start(Arc::clone(&shared), spid, login.application);
    let mut carrier =
        Carrier { write, shared, spid, size, control, requests, replies, pending: vec![], number: 0, rate: None };
    let (sender, mut received) = mpsc::channel(64);
    let reader = tokio::spawn(async move {
        while let Ok(Some(packet)) = read_packet(&mut read).await {
            if sender.send(packet).await.is_err() {
                return;
            }
        }
    });
    let outcome = carrier.run(&mut received).await;
    reader.abort();
    carrier.control.close();
    outcome
}

fn greet(login: &Login, shared: &Shared, size: usize, answer: &mut Vec<u8>) {
    answer.changed(change::DATABASE, &shared.database, "master");
    answer.changed_collation();
    let mut body = vec![1];
    // 7.4, or 8.0 in strict mode, or the older one that the client asks for.
    let ours = if shared.tls == TlsMode::Strict { 0x0800_0000 } else { 0x7400_0004 };
    let version = if login.version == 0 { ours } else { ours.min(login.version) };
    body.extend_from_slice(&version.to_be_bytes());
    put_b_varchar("Microsoft SQL Server", &mut body);
    body.extend_from_slice(&[16, 0, 0x03, 0xe8]);
    answer.token(0xad, &body);
    answer.changed(change::PACKET_SIZE, &size.to_string(), &FIRST_SIZE.to_string());
    answer.done(Done::Batch, 0, None);
}

/// A connection that is logged in.
struct Carrier<W> {
    write: W,
    shared: Arc<Shared>,
    spid: u16,
    size: usize,
    control: Arc<Control>,
    requests: mpsc::Sender<Request>,
    replies: mpsc::Receiver<Reply>,
    /// Tokens that do not fill a packet yet.
    pending: Vec<u8>,
    number: u8,
    rate: Option<u64>,
}

/// How a request ended.
#[derive(PartialEq, Eq)]
enum Ended {
    Well,
    /// The connection is over.
    Over,
}

impl<W: AsyncWrite + Unpin> Carrier<W> {
    async fn run(&mut self, received: &mut mpsc::Receiver<Packet>) -> io::Result<()> {
        let mut message: Option<Packet> = None;
        while let Some(mut packet) = received.recv().await {
            match packet.kind {
                packet::ATTENTION => {
                    message = None;
                    // A bulk load that has begun is given up by it.
                    self.shared.log.add(self.spid, Event::Attention);
                    if self.ask(Request::GiveUp, received).await? == Ended::Over {
                        return Ok(());
                    }
                    self.acknowledge().await?;
                }
                packet::BULK => {
                    let (last, ignore) = (packet.status & status::END != 0, packet.status & status::IGNORE != 0);
                    let request = Request::Bulk { bytes: packet.body, last, ignore };
                    if last {
                        if self.ask(request, received).await? == Ended::Over {
                            return Ok(());
                        }
                    } else if self.requests.send(request).await.is_err() || self.was_cut() {
                        return Ok(());
                    }
                }
                packet::BATCH | packet::RPC | packet::TRANSACTION => {
                    let last = packet.status & status::END != 0;
                    let ignore = packet.status & status::IGNORE != 0;
                    let whole = match message.take() {
                        Some(mut first) => {
                            first.body.append(&mut packet.body);
                            first
                        }
                        None => packet,
                    };
                    if !last {
                        message = Some(whole);
                        continue;
                    }
                    if ignore {
                        // The client thought better of it before it had sent all.
                        continue;
                    }
                    let reset = whole.status & (status::RESET | status::RESET_KEEP) != 0;
                    let request = Request::Message { kind: whole.kind, body: whole.body, reset };
                    if self.ask(request, received).await? == Ended::Over {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether a fault has cut the connection while rows came in.
    fn was_cut(&mut self) -> bool {
        matches!(self.replies.try_recv(), Ok(Reply::Cut | Reply::Leave { .. }))
    }

    /// Hands a request over and carries its answer, listening for an attention.
    async fn ask(&mut self, request: Request, received: &mut mpsc::Receiver<Packet>) -> io::Result<Ended> {
        let quiet = matches!(request, Request::GiveUp);
        self.control.begin();
        if self.requests.send(request).await.is_err() {
            return Ok(Ended::Over);
        }
        let mut attention = false;
        let mut listening = true;
        loop {
            tokio::select! {
                reply = self.replies.recv() => match reply {
                    Some(Reply::Tokens(tokens)) if !attention => self.put(&tokens).await?,
                    Some(Reply::Tokens(_)) => {}
                    Some(Reply::Rate(rate)) => self.rate = Some(rate),
                    Some(Reply::End) => break,
                    Some(Reply::Leave { whole }) => {
                        self.send(whole, whole || !self.pending.is_empty()).await?;
                        return Ok(Ended::Over);
                    }
                    Some(Reply::Cut) | None => return Ok(Ended::Over),
                },
                packet = received.recv(), if listening => match packet {
                    Some(packet) if packet.kind == packet::ATTENTION => {
                        self.shared.log.add(self.spid, Event::Attention);
                        attention = true;
                        self.control.cancel();
                    }
                    // Nothing else may come while a request runs.
                    Some(_) | None => {
                        listening = false;
                        self.control.close();
                        self.control.cancel();
                    }
                },
            }
        }
        self.rate = None;
        if quiet {
            return Ok(Ended::Well);
        }
        if !listening {
            return Ok(Ended::Over);
        }
        if attention {
            self.acknowledge().await?
        } else {
            self.flush(true).await?
        }
        Ok(Ended::Well)
    }

    /// DONE with the attention bit (2.2.7.6).
    async fn acknowledge(&mut self) -> io::Result<()> {
        self.pending.done(Done::Batch, done::ATTENTION, None);
        self.flush(true).await
    }

    async fn put(&mut self, tokens: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(tokens);
        self.flush(false).await
    }

    /// Sends the packets that are full, or all.
    async fn flush(&mut self, end: bool) -> io::Result<()> {
        self.send(end, end).await
    }

    /// `end`: the answer ends with them.
    async fn send(&mut self, end: bool, all: bool) -> io::Result<()> {
        let room = self.size - HEADER;
        let whole = if all { self.pending.len() } else { self.pending.len() / room * room };
        if whole == 0 && !end {
            return Ok(());
        }
        let mut out = Vec::with_capacity(whole + (whole / room + 1) * HEADER);
        packets(&self.pending[..whole], self.size, &mut self.number, self.spid, end, &mut out);
        self.pending.drain(..whole);
        if end {
            self.number = 0;
        }
        match self.rate {
            None => self.write.write_all(&out).await?,
            Some(rate) => {
                let slice = usize::try_from(rate / 20).unwrap_or(1).max(1);
                for part in out.chunks(slice) {
                    self.write.write_all(part).await?;
                    self.write.flush().await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        self.write.flush().await
    }
}
