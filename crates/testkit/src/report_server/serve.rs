//! Connections and requests: sign-in first, then URL access or SOAP.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Manner,
    access::Access,
    faults::{Fault, Faults, On},
    log::{Asked, Log},
    page::{self, RsError},
    render,
    report::{Report, date},
    sign_in::{self, Gate, Sent, State, Step},
    soap::{self, Operation},
};

/// Request line and headers may have so many bytes (`http.sys`).
const MOST_HEAD: usize = 16 * 1024;
/// A connection may be idle for so long (`http.sys`).
const IDLE: Duration = Duration::from_secs(120);
/// A body may have so many bytes (ASP.NET).
const MOST_BODY: usize = 4 * 1024 * 1024;
/// One value may have so many characters.
const MOST_VALUE: usize = 65_520;

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Response<Body>;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub reports: Vec<Report>,
    pub gate: Gate,
    pub manner: Manner,
    pub faults: Faults,
    pub log: Log,
}

/// Takes connections until it is told to stop.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        let (shared, stop, tls) = (Arc::clone(&shared), stop.clone(), tls.clone());
        tasks.spawn(async move {
            // How a connection ends is its client's business.
            let serve = async {
                let connection = Connection::new(Arc::clone(&shared));
                if shared.faults.due(|on| *on == On::Connection).contains(&Fault::Close) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                match tls {
                    None => connection.serve(stream).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            connection.serve(stream).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = serve => {}
            }
        });
    }
}

/// A connection, and how far the sign-in on it is.
struct Connection {
    shared: Arc<Shared>,
    number: u64,
    state: Mutex<State>,
    /// Told to end behind the answer under way.
    closing: Arc<AtomicBool>,
}

/// What is noted of a request besides its answer.
#[derive(Default)]
struct Note {
    account: Option<String>,
    refused: Option<super::Refused>,
    what: &'static str,
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed as told")
    }
}

impl std::error::Error for Closed {}

impl Connection {
    fn new(shared: Arc<Shared>) -> Self {
        let number = shared.log.connected();
        Self { shared, number, state: Mutex::default(), closing: Arc::default() }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let io = TokioIo::new(Closable { stream, closing: Arc::clone(&self.closing) });
        let service = service_fn(|request| self.answer(request));
        let mut http = hyper::server::conn::http1::Builder::new();
        let _ = http.timer(TokioTimer::new()).header_read_timeout(IDLE).serve_connection(io, service).await;
    }

    /// Answers one request and notes it.
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Closed> {
        let at = self.shared.log.now();
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        let mut note = Note::default();
        let mut sent = Sent::Nothing;
        let answer = self.step(request, &mut sent, &mut note).await;
        self.shared.log.asked(Asked {
            connection: self.number,
            at,
            method,
            target,
            sent,
            account: note.account,
            refused: note.refused,
            status: answer.as_ref().map_or(0, |answer| answer.status().as_u16()),
            what: note.what.to_owned(),
        });
        answer
    }

    async fn step(&self, request: Request<Incoming>, sent: &mut Sent, note: &mut Note) -> Result<Answer, Closed> {
        let (head, body) = request.into_parts();
        let length = head.uri.to_string().len()
            + head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
        if length > MOST_HEAD {
            let long = "Bad Request - Request Too Long";
            return Ok(self.shared.page(400, page::foreign(long)));
        }
        let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        if head.method == "POST" && !framed.iter().any(|name| head.headers.contains_key(name)) {
            return Ok(self.shared.page(411, page::foreign("Length Required")));
        }
        // A body is read whole before anything is answered, or the connection could not be kept.
        let Ok(body) = body.collect().await else { return Err(Closed) };
        let body = body.to_bytes();

        let header = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (seen, step) =
            self.shared.gate.step(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), header);
        *sent = seen;
        let faults = match seen {
            Sent::Type1 => self.shared.faults.due(|on| *on == On::Challenge),
            Sent::Type3 => self.shared.faults.due(|on| *on == On::Proof),
            _ => vec![],
        };
        let (user, token) = match step {
            Step::Pass { user, token } => (user, token),
            Step::Offer => {
                let mut answer = self.shared.page(401, page::foreign("Unauthorized"));
                self.shared.offer(answer.headers_mut());
                return self.finish(answer, &faults).await;
            }
            Step::Challenge(challenge) => {
                let mut answer = self.shared.page(401, page::foreign("Unauthorized"));
                put(answer.headers_mut(), header::WWW_AUTHENTICATE, &challenge);
                return self.finish(answer, &faults).await;
            }
            Step::Refused(user, why) => {
                (note.account, note.refused) = (Some(user), Some(why));
                let mut answer = self.shared.page(401, page::foreign("Unauthorized"));
                let negotiated = header.is_some_and(|header| header.starts_with("Negotiate"));
                if self.shared.manner.refusal_token && negotiated {
                    put(answer.headers_mut(), header::WWW_AUTHENTICATE, &sign_in::refusal());
                } else {
                    self.shared.offer(answer.headers_mut());
                }
                return self.finish(answer, &faults).await;
            }
        };
        note.account = Some(user.clone());
        let delays = |fault: &Fault| matches!(fault, Fault::CloseAfter | Fault::CloseAnnounced | Fault::FirstByte(_));
        if !faults.iter().all(delays) {
            let answer = self.shared.page(200, page::foreign("Signed in"));
            return self.finish(answer, &faults).await;
        }
        let of_proof = faults;
        if body.len() > MOST_BODY {
            return Ok(self.shared.page(500, page::foreign("Maximum request length exceeded.")));
        }
        let path = head.uri.path().to_ascii_lowercase();
        let query = head.uri.query().unwrap_or_default();
        let form = String::from_utf8_lossy(&body);
        let (mut answer, mut faults) = match path.trim_end_matches('/') {
            "/reportserver" => self.by_url(&head.method, query, &form, &head.headers, &user, note),
            "/reportserver/reportservice2010.asmx" => self.by_soap(&form, &head.headers, &user, note),
            _ => (self.shared.page(404, page::foreign("Not Found")), vec![]),
        };
        faults.extend(of_proof);
        if note.what == "render" && answer.headers().contains_key("fileextension") {
            tokio::time::sleep(self.shared.manner.first_byte).await;
        }
        if let Some(token) = token {
            put(answer.headers_mut(), header::WWW_AUTHENTICATE, &token);
        }
        self.finish(answer, &faults).await
    }

    /// Lets those faults happen that are not a rendering's own.
    async fn finish(&self, mut answer: Answer, faults: &[Fault]) -> Result<Answer, Closed> {
        for fault in faults {
            match fault {
                Fault::Close => return Err(Closed),
                Fault::CloseAfter => self.closing.store(true, Ordering::Release),
                Fault::CloseAnnounced => put(answer.headers_mut(), header::CONNECTION, "close"),
                Fault::FirstByte(after) => tokio::time::sleep(*after).await,
                Fault::Status(status) => answer = self.shared.page(*status, page::foreign("Service Unavailable")),
                Fault::RetryAfter(status, seconds) => {
                    answer = self.shared.page(*status, page::foreign("Service Unavailable"));
                    put(answer.headers_mut(), header::RETRY_AFTER, &seconds.to_string());
                }
                Fault::Rs(code, text) => answer = self.shared.error(&RsError::new(code, *text)),
                Fault::Html => answer = self.shared.page(200, page::foreign("Sign in")),
                Fault::Rate(_) | Fault::CutAfter(_) | Fault::StallAfter(_) | Fault::EndAfter(_) => {}
            }
        }
        Ok(answer)
    }

    fn by_url(
        &self,
        method: &hyper::Method,
        query: &str,
        form: &str,
        headers: &HeaderMap,
        user: &str,
        note: &mut Note,
    ) -> (Answer, Vec<Fault>) {
        let shared = &*self.shared;
        let (manner, form) = (&shared.manner, if method == "POST" { form } else { "" });
        let mut access = Access::read(query, form, manner.raw_colon);
        let Some(report) = shared.reports.iter().find(|report| report.path.eq_ignore_ascii_case(&access.item)) else {
            return (shared.error(&RsError::item_not_found(&access.item)), vec![]);
        };
        let command = access.command("rs:command").unwrap_or("Render");
        if !command.eq_ignore_ascii_case("Render") {
            let text = format!("The command '{command}' is not one of a report.");
            return (shared.error(&RsError::new("rsInvalidCommand", text)), vec![]);
        }
        note.what = "render";
        let faults = shared.faults.due(|on| *on == On::Render);
        if shared.is_denied(user, &report.path) {
            return (shared.error(&RsError::access_denied(user)), faults);
        }
        let Some(format) = access.command("rs:format") else {
            return (shared.page(200, page::foreign("Report Viewer")), faults);
        };
        if !format.eq_ignore_ascii_case("CSV") {
            let text = format!("The rendering extension '{format}' is not simulated.");
            return (shared.error(&RsError::new("rsRenderingExtensionNotFound", text)), faults);
        }
        if access.parameters.iter().filter_map(|(_, value)| value.as_ref()).any(|value| value.len() > MOST_VALUE) {
            return (shared.page(500, page::foreign("Invalid URI: The Uri string is too long.")), faults);
        }
        let language = access.command("rs:parameterlanguage");
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let accepted = accepted.and_then(|languages| languages.split([',', ';']).next());
        let language = language.or(accepted).unwrap_or(&manner.language).to_owned();
        access.localise(report, &language);
        if let Some(error) = page::wrong_parameter(report, &access) {
            return (shared.error(&error), faults);
        }
        if manner.session_redirect && method == "GET" && access.command("rs:sessionid").is_none() {
            let mut answer = shared.page(302, page::foreign("Object moved"));
            let to = format!("/ReportServer?{query}&rs:SessionID=towpath{}", self.number);
            put(answer.headers_mut(), header::LOCATION, &to);
            note.what = "redirect";
            return (answer, faults);
        }
        (shared.rendering(report, access, headers, &faults), faults)
    }

    fn by_soap(&self, body: &str, headers: &HeaderMap, user: &str, note: &mut Note) -> (Answer, Vec<Fault>) {
        let shared = &*self.shared;
        let action = headers.get("soapaction").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let operation = match Operation::read(action, body) {
            Ok(operation) => operation,
            Err(error) => return (xml(500, soap::fault(&error)), vec![]),
        };
        note.what = operation.name();
        let faults = match operation {
            Operation::Parameters { .. } => shared.faults.due(|on| *on == On::Parameters),
            Operation::List { .. } => shared.faults.due(|on| *on == On::List),
        };
        if let Some(Fault::Rs(code, text)) = faults.iter().find(|fault| matches!(fault, Fault::Rs(..))) {
            // By this way, an error is a fault in XML.
            let others = faults.iter().filter(|fault| !matches!(fault, Fault::Rs(..))).cloned().collect();
            return (xml(500, soap::fault(&RsError::new(code, *text))), others);
        }
        let answer = if shared.is_denied(user, operation.item()) {
            Err(RsError::access_denied(user))
        } else {
            shared.soap(&operation)
        };
        let answer = match answer {
            Ok(body) => xml(200, body),
            Err(error) => xml(500, soap::fault(&error)),
        };
        (answer, faults)
    }
}

impl Shared {
    fn offer(&self, headers: &mut HeaderMap) {
        for scheme in &self.gate.schemes {
            headers.append(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(scheme.name()));
        }
    }

    fn is_denied(&self, user: &str, item: &str) -> bool {
        let user = user.to_lowercase();
        self.manner.denied.iter().any(|(denied, path)| *denied == user && path.eq_ignore_ascii_case(item))
    }

    fn page(&self, status: u16, page: String) -> Answer {
        whole(status, "text/html; charset=utf-8", page)
    }

    fn error(&self, error: &RsError) -> Answer {
        let told = if error.code == "rsAccessDenied" { self.manner.denied_status } else { self.manner.error_status };
        let status = told.unwrap_or(error.status());
        let mut answer = self.page(status, error.page());
        if status == 401 {
            self.offer(answer.headers_mut());
        }
        answer
    }

    fn soap(&self, operation: &Operation) -> Result<String, RsError> {
        match operation {
            Operation::Parameters { item, rendering, values } => {
                let report = self.reports.iter().find(|report| report.path.eq_ignore_ascii_case(item));
                let report = report.ok_or_else(|| RsError::item_not_found(item))?;
                Ok(soap::parameters(report, *rendering, values))
            }
            Operation::List { item, recursive } => soap::children(&self.reports, item, *recursive),
        }
    }

    /// A CSV, begun.
    fn rendering(&self, report: &Report, access: Access, headers: &HeaderMap, faults: &[Fault]) -> Answer {
        let bound = |name: &str| {
            let given = access.parameters.iter().find(|(given, _)| given == name);
            given.and_then(|(_, value)| date(value.as_deref()?))
        };
        let window = report.window.as_ref().and_then(|(from, to)| Some((bound(from)?, bound(to)?)));
        let is = |name: &str, value: &str| access.command(name).is_some_and(|given| given.eq_ignore_ascii_case(value));
        let name = report.path.rsplit('/').next().unwrap_or_default();
        let shape = render::Shape {
            span: report.span(window),
            textboxes: report.textboxes,
            ragged_every: report.ragged_every,
            bom: self.manner.bom,
            no_header: is("rc:noheader", "true"),
            title: (!is("rc:excelmode", "false")).then(|| name.to_owned()),
        };
        let accepts = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let gzip = self.manner.gzip && accepts.is_some_and(|accepts| accepts.contains("gzip"));
        let length = (self.manner.content_length && !gzip).then(|| shape.length());
        let entry = self.log.rendering(&report.path, access.parameters);
        let body = render::Body::new(&shape, gzip, faults, self.manner.rate, entry).into_stream();
        let body = StreamBody::new(futures::StreamExt::map(body, |chunk| chunk.map(Frame::data)));
        let mut answer = Response::new(body.boxed_unsync());
        let headers = answer.headers_mut();
        put(headers, header::CONTENT_TYPE, "text/csv; charset=utf-8");
        put(headers, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}.csv\""));
        put(headers, header::HeaderName::from_static("fileextension"), "csv");
        put(headers, header::CACHE_CONTROL, "private");
        if gzip {
            put(headers, header::CONTENT_ENCODING, "gzip");
        }
        if let Some(length) = length {
            put(headers, header::CONTENT_LENGTH, &length.to_string());
        }
        answer
    }
}

/// Sets a header; a value that cannot stand in one is left out.
fn put(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn whole(status: u16, kind: &str, body: String) -> Answer {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    put(answer.headers_mut(), header::CONTENT_TYPE, kind);
    answer
}

fn xml(status: u16, body: String) -> Answer {
    whole(status, "text/xml; charset=utf-8", body)
}

/// A stream that seems to have been closed by the client once it is told so: the answer under way is still written.
struct Closable<S> {
    stream: S,
    closing: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Closable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closing.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Closable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
