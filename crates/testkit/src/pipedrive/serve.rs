//! Connections and calls: sign-in, budget, then the account.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, HeaderName},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Account, Clock, PipedriveOptions,
    budget::{Budget, Caller, Left, Stop},
    control,
    faults::{Fault, Faults},
    log::{Call, Kind, Log},
    oauth::Tokens,
    options::{Burst429, RequestsLeft},
    query::Query,
    refusal::Refusal,
    route::{Payload, Route},
    state::State,
};

/// A connection may be idle for so long.
const IDLE: Duration = Duration::from_secs(75);
/// A body may have so many bytes.
const MOST_BODY: usize = 1024 * 1024;

const JSON: &str = "application/json; charset=utf-8";

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub options: PipedriveOptions,
    pub host: String,
    pub clock: Clock,
    pub state: Mutex<State>,
    pub budget: Mutex<Budget>,
    pub tokens: Mutex<Tokens>,
    pub faults: Faults,
    pub log: Log,
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

/// Takes connections until it is told to stop.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        let (shared, stop, calls) = (Arc::clone(&shared), stop.clone(), tasks.clone());
        tasks.spawn(async move {
            // How a connection ends is its client's business.
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(shared, stream, &stop, &calls) => {}
            }
        });
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, stop: &CancellationToken, calls: &TaskTracker) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        // A call that has come is carried out, though its client may be gone meanwhile.
        let call = calls.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => Err(Closed),
                answer = answer(shared, request) => answer,
            }
        });
        async { call.await.unwrap_or(Err(Closed)) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let _ =
        http.timer(TokioTimer::new()).header_read_timeout(IDLE).serve_connection(TokioIo::new(stream), service).await;
}

/// One call, read.
struct Asked {
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Answers one call and notes it.
async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Closed> {
    let (head, body) = request.into_parts();
    // A body is read whole before anything is answered, or the connection could not be kept.
    let Ok(body) = body.collect().await else { return Err(Closed) };
    let asked = Asked {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    if asked.path.starts_with(control::PATH) {
        return Ok(match control::answer(&shared, &asked.method, &asked.path, &asked.body) {
            Ok(body) => whole(200, &body),
            Err(refusal) => refused(refusal),
        });
    }
    let text = String::from_utf8_lossy(&asked.body);
    let faults = shared.faults.due(|on| on.fits(&asked.method, &asked.path, &asked.query, &text));
    let mut call = Call {
        at: shared.clock.elapsed(),
        method: asked.method.clone(),
        path: asked.path.clone(),
        query: asked.query.clone(),
        body: serde_json::from_slice(&asked.body).ok(),
        status: 0,
        tokens: 0,
        kind: Kind::Other,
        entity: None,
        executed: false,
        oauth: false,
    };
    if let Ok(route) = Route::of(&asked.method, &asked.path) {
        (call.kind, call.entity, _) = route.price();
    }
    let slow = faults.iter().filter_map(|fault| if let Fault::Slow(by) = fault { Some(*by) } else { None });
    let wait: Duration = shared.options.latency + slow.sum::<Duration>();
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    for fault in &faults {
        let early = match fault {
            Fault::CutBefore => {
                shared.log.add(call);
                return Err(Closed);
            }
            Fault::StallBefore => {
                shared.log.add(call);
                return std::future::pending().await;
            }
            Fault::Status(429) => burst(&shared.options, 2),
            Fault::Status(status) => unknown(*status),
            Fault::RetryAfter(status, seconds) => {
                let mut answer = if *status == 429 { burst(&shared.options, 2) } else { unknown(*status) };
                put(answer.headers_mut(), header::RETRY_AFTER, &seconds.to_string());
                answer
            }
            Fault::Html403 => page(403, "Access denied", "You have been blocked."),
            Fault::Daily429 => daily(&shared, shared.with_budget(|budget, seconds| budget.day_ends_in(seconds))),
            _ => continue,
        };
        call.status = early.status().as_u16();
        shared.log.add(call);
        return Ok(early);
    }
    let mut answer = step(&shared, &asked, &faults, &mut call);
    for fault in &faults {
        match fault {
            Fault::CutAfter => {
                shared.log.add(call);
                return Err(Closed);
            }
            Fault::StallAfter => {
                shared.log.add(call);
                return std::future::pending().await;
            }
            Fault::CutBody(bytes) => answer = cut(answer, *bytes).await,
            Fault::StatusAfter(status) => answer = unknown(*status),
            Fault::Html200 => answer = page(200, "Maintenance", "We will be back shortly."),
            _ => {}
        }
    }
    call.status = answer.status().as_u16();
    shared.log.add(call);
    Ok(answer)
}

/// Sign-in, budget, the account.
fn step(shared: &Arc<Shared>, asked: &Asked, faults: &[Fault], call: &mut Call) -> Answer {
    let now = shared.clock.elapsed();
    if asked.path == "/oauth/token" {
        call.kind = Kind::Token;
        let Some(app) = &shared.options.oauth else { return refused(Refusal::no_route()) };
        if asked.method != "POST" {
            return refused(Refusal::not_allowed());
        }
        let form = String::from_utf8_lossy(&asked.body);
        let basic = asked.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let mut tokens = shared.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, body) = tokens.grant(app, basic, &form, &shared.host, now);
        call.executed = status == 200;
        return whole(status, &body);
    }
    let Some(caller) = shared.caller(asked, now) else { return refused(Refusal::unauthorized()) };
    call.oauth = caller.oauth;
    if shared.with_state(|state| state.closed) {
        return refused(Refusal::closed());
    }
    let route = match Route::of(&asked.method, &asked.path) {
        Ok(route) => route,
        Err(refusal) => return refused(refusal),
    };
    let (kind, _, cost) = route.price();
    let seconds = shared.clock.seconds();
    let entered = shared.with_budget(|budget, _| budget.enter(&caller, kind, cost, seconds, now));
    if let Err(stop) = entered {
        let mut answer = match stop {
            Stop::Blocked => return page(403, "Access denied", "You have been blocked."),
            Stop::Daily(rest) => daily(shared, rest),
            Stop::Burst => {
                let left = shared.with_budget(|budget, _| budget.tell(&caller, kind, seconds, now));
                burst(&shared.options, left.reset)
            }
        };
        shared.tell(&caller, kind, now, answer.headers_mut());
        return answer;
    }
    for fault in faults {
        if let Fault::Before(meanwhile) = fault {
            meanwhile.happen(&Account(Arc::clone(shared)));
        }
    }
    let outcome = shared.carry_out(&route, asked);
    call.executed = outcome.is_ok();
    if outcome.is_ok() || shared.options.unsettled.failures_cost {
        call.tokens = cost;
        shared.with_budget(|budget, _| budget.pay(cost));
    }
    for fault in faults {
        if let Fault::After(meanwhile) = fault {
            meanwhile.happen(&Account(Arc::clone(shared)));
        }
    }
    let mut answer = match outcome {
        Ok((status, Payload::Json(body))) => whole(status, &body),
        Ok((status, Payload::Written(body))) => text(status, JSON, body),
        Err(refusal) => refused(refusal),
    };
    shared.tell(&caller, kind, now, answer.headers_mut());
    answer
}

impl Shared {
    pub(super) fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// With the time, in seconds since 1970.
    pub(super) fn with_budget<T>(&self, work: impl FnOnce(&mut Budget, i64) -> T) -> T {
        work(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner), self.clock.seconds())
    }

    fn caller(&self, asked: &Asked, now: Duration) -> Option<Caller> {
        let header = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
        let by_query = || {
            let query = Query::new(&asked.query);
            let token = query.get("api_token").map(str::to_owned);
            token.filter(|_| !asked.path.starts_with("/api/v2"))
        };
        if let Some(token) = header("x-api-token").map(str::to_owned).or_else(by_query) {
            let burst = self.options.burst.unwrap_or(self.options.plan.burst());
            return (token == self.options.api_token).then_some(Caller { token, oauth: false, burst });
        }
        let token = header("authorization")?.strip_prefix("Bearer ")?.to_owned();
        let good = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).is_good(&token, now);
        // All access tokens are of one user, whose calls are counted together.
        let burst = self.options.burst.unwrap_or(self.options.plan.burst_of_oauth());
        good.then(|| Caller { token: "oauth".to_owned(), oauth: true, burst })
    }

    fn carry_out(&self, route: &Route, asked: &Asked) -> Result<(u16, Payload), Refusal> {
        if asked.body.len() > MOST_BODY {
            return Err(Refusal::is(413, "Payload too large"));
        }
        let body: Option<Value> = if asked.body.is_empty() {
            None
        } else {
            Some(
                serde_json::from_slice(&asked.body)
                    .map_err(|_| Refusal::is(400, "Invalid JSON in the request body"))?,
            )
        };
        let query = Query::new(&asked.query);
        self.with_state(|state| route.carry_out(state, &query, body.as_ref(), &self.host))
    }

    /// What the headers tell of budgets.
    fn tell(&self, caller: &Caller, kind: Kind, now: Duration, headers: &mut HeaderMap) {
        let unsettled = &self.options.unsettled;
        let left: Left = self.with_budget(|budget, seconds| budget.tell(caller, kind, seconds, now));
        let mut set = |name: &'static str, value: u64| put(headers, HeaderName::from_static(name), &value.to_string());
        if unsettled.burst_headers {
            set("x-ratelimit-limit", left.burst_limit as u64);
            set("x-ratelimit-remaining", left.burst_left as u64);
            set("x-ratelimit-reset", left.reset);
        }
        match unsettled.requests_left {
            _ if caller.oauth => {}
            RequestsLeft::Tokens => set("x-daily-requests-left", left.tokens),
            RequestsLeft::Writes => set("x-daily-requests-left", left.tokens / 5),
            RequestsLeft::Absent => {}
        }
        if unsettled.token_headers {
            set("x-daily-ratelimit-token-limit", left.limit);
            set("x-daily-ratelimit-token-remaining", left.tokens);
        }
    }
}

/// Sets a header; a value that cannot stand in one is left out.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = header::HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text(status: u16, kind: &str, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    put(answer.headers_mut(), header::CONTENT_TYPE, kind);
    answer
}

fn whole(status: u16, body: &Value) -> Answer {
    text(status, JSON, body.to_string())
}

fn refused(refusal: Refusal) -> Answer {
    whole(refusal.status, &refusal.body)
}

fn page(status: u16, title: &str, line: &str) -> Answer {
    let html = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{line}</p></body></html>\n"
    );
    text(status, "text/html; charset=UTF-8", html)
}

/// What the vendor says when it does not know itself.
fn unknown(status: u16) -> Answer {
    let error = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
    whole(status, &json!({ "success": false, "error": error, "code": "ERR_UNKNOWN" }))
}

fn burst(options: &PipedriveOptions, reset: u64) -> Answer {
    let mut answer = match options.unsettled.burst_429 {
        Burst429::Json => refused(Refusal::is(429, "Rate limit exceeded")),
        Burst429::Text => text(429, "text/plain; charset=utf-8", "Too Many Requests\n"),
        Burst429::Html => page(429, "Too many requests", "Slow down."),
        Burst429::Empty => text(429, "text/plain; charset=utf-8", ""),
    };
    if options.unsettled.burst_retry_after {
        put(answer.headers_mut(), header::RETRY_AFTER, &reset.to_string());
    }
    answer
}

fn daily(shared: &Shared, rest: i64) -> Answer {
    let mut answer = refused(Refusal::is(429, "daily request budget exceeded"));
    if shared.options.unsettled.daily_retry_after {
        put(answer.headers_mut(), header::RETRY_AFTER, &rest.to_string());
    }
    answer
}

/// The answer with its length told, and the connection broken behind so many bytes.
async fn cut(answer: Answer, bytes: usize) -> Answer {
    let (mut head, body) = answer.into_parts();
    let Ok(body) = body.collect().await else { return unknown(500) };
    let body = body.to_bytes();
    put(&mut head.headers, header::CONTENT_LENGTH, &body.len().to_string());
    let part = body.slice(..bytes.min(body.len()));
    let frames = futures::stream::iter([
        Ok(Frame::data(part)),
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut as told")),
    ]);
    Response::from_parts(head, StreamBody::new(frames).boxed_unsync())
}
