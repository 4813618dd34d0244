//! A client that does nothing by itself.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use towpath_testkit::report_server::ReportServer;

/// What came.
#[derive(Debug)]
pub struct Reply {
    /// 0: nothing.
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// How the body ended.
    pub end: End,
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Clean,
    Broken,
    /// Nothing came for three seconds.
    Silent,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Asks on a connection of its own.
pub async fn get(server: &ReportServer, target: &str, headers: &[(&str, &str)]) -> Reply {
    ask(server, "GET", target, headers, "").await
}

pub async fn ask(server: &ReportServer, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(target).header("host", "reports");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut reply = Reply { status: 0, headers: HeaderMap::new(), body: vec![], end: End::Broken };
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    if let Ok(answer) = sender.send_request(request).await {
        let (head, mut body) = answer.into_parts();
        (reply.status, reply.headers) = (head.status.as_u16(), head.headers);
        reply.end = loop {
            match tokio::time::timeout(Duration::from_secs(3), body.frame()).await {
                Err(_) => break End::Silent,
                Ok(None) => break End::Clean,
                Ok(Some(Err(_))) => break End::Broken,
                Ok(Some(Ok(frame))) => reply.body.extend_from_slice(&frame.into_data().unwrap_or_default()),
            }
        };
    }
    drop(sender);
    connection.abort();
    reply
}
