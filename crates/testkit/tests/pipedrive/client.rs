//! A client that does nothing by itself.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Nothing came for so long: nothing will.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    pub headers: Vec<(String, String)>,
    pub patience: Duration,
}

/// What came.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// Null where it is not JSON.
    pub body: Value,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Why nothing came.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    Closed,
    Silent,
}

impl Client {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, headers: vec![("x-api-token".to_owned(), token.to_owned())], patience: PATIENCE }
    }

    /// One call on a connection of its own.
    pub async fn try_call(&self, method: &str, target: &str, kind: &str, body: String) -> Result<Reply, Lost> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target).header("host", "localhost");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header("content-type", kind);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let whole = async {
            let answer = sender.send_request(request).await.map_err(|_| Lost::Closed)?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|_| Lost::Closed)?.to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let body = serde_json::from_str(&text).unwrap_or_default();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, text, body })
        };
        tokio::time::timeout(self.patience, whole).await.unwrap_or(Err(Lost::Silent))
    }

    pub async fn call(&self, method: &str, target: &str, body: Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.try_call(method, target, "application/json", body).await.unwrap()
    }
    /// A GET that succeeds.
    pub async fn get(&self, target: &str) -> Value {
        let reply = self.call("GET", target, Value::Null).await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text);
        reply.body
    }
    /// A write that succeeds: its data.
    pub async fn send(&self, method: &str, target: &str, body: Value) -> Value {
        let reply = self.call(method, target, body).await;
        assert!(matches!(reply.status, 200 | 201), "{method} {target}: {} {}", reply.status, reply.text);
        reply.body["data"].clone()
    }
}
