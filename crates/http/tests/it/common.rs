//! What the tests share: a memory of credentials, and a server that says exactly what it is told.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use towpath_core::{
    Context, Error, Lease, Result, Secret,
    context::{Admission, Attempt, Call, Credentials, Door},
};
use towpath_http::{HttpOptions, Proxy, Url};

/// Remembers what was said of credentials, and keeps a refused one back.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Vec<&'static str>>>);

struct Noted {
    memory: Memory,
    said: bool,
}

impl Memory {
    /// A context that asks this memory.
    pub fn context(&self) -> Context {
        Context::new("test".into(), "a".into(), Arc::new(Open), Arc::new(self.clone()), CancellationToken::new())
    }
    /// What was said so far: proven, refused, unsent, unknown.
    pub fn said(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Credentials for Memory {
    async fn admit(&self, _: &str, _: &str, _: &Secret) -> Result<Box<dyn Admission>> {
        if self.said().contains(&"refused") {
            return Err(Error::auth("refused before"));
        }
        Ok(Box::new(Noted { memory: self.clone(), said: false }))
    }
}

impl Noted {
    fn say(&mut self, what: &'static str) {
        self.said = true;
        self.memory.0.lock().unwrap().push(what);
    }
}

impl Admission for Noted {
    fn proven(mut self: Box<Self>) {
        self.say("proven");
    }
    fn refused(mut self: Box<Self>) {
        self.say("refused");
    }
    fn unsent(mut self: Box<Self>) {
        self.say("unsent");
    }
    fn unproven(&self) -> bool {
        !self.memory.said().contains(&"proven")
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if !self.said {
            self.say("unknown");
        }
    }
}

struct Open;

#[async_trait]
impl Door for Open {
    async fn pass<'a>(&self, _: &Call, attempt: &mut (dyn FnMut() -> Attempt<'a> + Send)) -> Result<Lease> {
        attempt().await?;
        Ok(Lease::new(|_| {}))
    }
}

/// Options that do not look at the environment.
pub fn plain() -> HttpOptions {
    HttpOptions { proxy: Proxy::Direct, ..HttpOptions::default() }
}

/// A server that reads one request per connection, writes `answer` byte for byte, then closes or, with `stall`, keeps silent.
pub struct Raw {
    pub url: Url,
    _task: AbortOnDropHandle<()>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    pub async fn start(answer: impl Into<Vec<u8>>, stall: bool) -> Self {
        let (answer, heads) = (answer.into(), Arc::<Mutex<Vec<String>>>::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(speak(stream, answer.clone(), stall, Arc::clone(&seen)));
            }
        });
        Self { url, _task: AbortOnDropHandle::new(task), heads }
    }

    /// The heads of the requests, as they came.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// One request, one answer.
pub async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: Vec<u8>,
    stall: bool,
    seen: Arc<Mutex<Vec<String>>>,
) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    seen.lock().unwrap().push(String::from_utf8(head).unwrap());
    let _ = stream.write_all(&answer).await;
    let _ = stream.flush().await;
    if stall {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
    // Until the other side has seen it; else the rest could be lost to a reset.
    let _ = stream.read_u8().await;
}
