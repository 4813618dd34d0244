//! NTLM and Negotiate against a server not of our making: pyspnego's acceptor. `TOWPATH_PEERS_PYTHON` names an interpreter that has it.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::common::{Memory, plain};
use futures::stream;
use towpath_core::{Context, ErrorKind, Result, Secret};
use towpath_http::{Auth, Body, Client, HttpOptions, Method, Pin, Request, Url};

/// The interpreter, or `None` after saying that the test is skipped.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("TOWPATH_PEERS_PYTHON").map(PathBuf::from);
    let found = python.filter(|python| {
        let asked = Command::new(python).args(["-c", "import spnego"]).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    });
    if found.is_none() {
        let required = std::env::var("REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_PEERS=1, but TOWPATH_PEERS_PYTHON names no python with pyspnego");
        println!("SKIPPED: TOWPATH_PEERS_PYTHON names no python with pyspnego");
    }
    found
}

/// The server; ends with the test.
struct Peer {
    child: Child,
    base: Url,
    folder: tempfile::TempDir,
    pin: Option<Pin>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    fn start(python: &PathBuf, args: &[&str], tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users");
        std::fs::write(&users, "CORP:loader:right\n").unwrap();
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/ntlm_server.py"));
        command.args(args).arg("--users").arg(users);
        let mut pin = None;
        if tls {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
            std::fs::write(&cert, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            command.arg("--cert").arg(&cert).arg("--key").arg(key);
            pin = Some(Pin::File(cert));
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let scheme = if tls { "https" } else { "http" };
        let base = format!("{scheme}://127.0.0.1:{}", line.trim()).parse().unwrap();
        Self { child, base, folder, pin }
    }

    fn url(&self, path: &str) -> Url {
        self.base.join(path).unwrap()
    }

    fn options(&self, auth: Auth) -> HttpOptions {
        HttpOptions { auth, pinned_certificate: self.pin.clone(), ..plain() }
    }

    /// What the server saw so far.
    async fn log(&self) -> serde_json::Value {
        let client = Client::new(&self.options(Auth::None), &Context::bare("log")).unwrap();
        let text = client.send(Request::get(self.url("/log"))).await.unwrap().text(1 << 20).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// How many messages of a kind it saw.
    async fn count(&self, name: &str) -> u64 {
        self.log().await[name].as_u64().unwrap()
    }
}

fn ntlm(password: &str) -> Auth {
    Auth::Ntlm {
        domain: Some("CORP".to_owned()),
        username: "loader".to_owned(),
        password: Secret::new(password.to_owned()),
    }
}

fn negotiate(password: &str) -> Auth {
    Auth::Negotiate { domain: None, username: "CORP\\loader".to_owned(), password: Secret::new(password.to_owned()) }
}

async fn hello(client: &Client, peer: &Peer) -> Result<String> {
    client.send(Request::get(peer.url("/hello"))).await?.text(1000).await
}

#[tokio::test]
async fn the_right_password_signs_in_once_per_connection() {
    let Some(python) = python() else { return };
    for (offer, auth) in [
        ("NTLM", ntlm("right")),
        ("Negotiate", negotiate("right")),
        ("Negotiate,NTLM", ntlm("right")),
        ("Negotiate,NTLM", negotiate("right")),
    ] {
        let peer = Peer::start(&python, &["--offer", offer], false);
        let memory = Memory::default();
        let client = Client::new(&peer.options(auth), &memory.context()).unwrap();
        for _ in 0..5 {
            assert_eq!(hello(&client, &peer).await.unwrap(), "hello CORP\\loader", "{offer}");
        }
        let redirected = client.send(Request::get(peer.url("/away"))).await.unwrap();
        assert_eq!(redirected.url.path(), "/hello");
        drop(redirected);
        let log = peer.log().await;
        assert_eq!((&log["type1"], &log["type3"]), (&1.into(), &1.into()), "{offer}: {log}");
        assert_eq!(memory.said(), ["proven"], "{offer}");
    }
}

#[tokio::test]
async fn a_wrong_password_goes_out_once() {
    let Some(python) = python() else { return };
    for (offer, auth) in [("NTLM", ntlm("wrong")), ("Negotiate", negotiate("wrong"))] {
        let peer = Peer::start(&python, &["--offer", offer], false);
        let memory = Memory::default();
        let client = Client::new(&peer.options(auth), &memory.context()).unwrap();
        let error = hello(&client, &peer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        let text = error.to_string();
        assert!(text.contains("refused CORP\\loader") && text.contains("401 Access is denied"), "{text}");
        assert!(!text.contains("wrong\""), "{text}");
        assert!(error.what_to_do().unwrap().contains("towpath state reset credentials"));
        for _ in 0..20 {
            assert_eq!(hello(&client, &peer).await.unwrap_err().kind(), ErrorKind::Auth);
        }
        assert_eq!(memory.said(), ["refused"]);
        let log = peer.log().await;
        assert_eq!((&log["type1"], &log["type3"]), (&1.into(), &1.into()), "{offer}: {log}");
    }
}

#[tokio::test]
async fn a_server_that_offers_only_the_other_says_what_to_set() {
    let Some(python) = python() else { return };
    for (offer, auth, advice) in [
        ("Negotiate", ntlm("right"), "set auth.type to negotiate"),
        ("NTLM", negotiate("right"), "set auth.type to ntlm"),
        ("NTLM", Auth::None, "set auth.type to ntlm"),
        (
            "Negotiate,NTLM",
            Auth::Basic { username: "loader".to_owned(), password: Secret::new("right".to_owned()) },
            "set auth.type to ntlm or negotiate",
        ),
    ] {
        let peer = Peer::start(&python, &["--offer", offer], false);
        let memory = Memory::default();
        let none = matches!(auth, Auth::None);
        let client = Client::new(&peer.options(auth), &memory.context()).unwrap();
        let error = hello(&client, &peer).await.unwrap_err();
        assert_eq!((error.kind(), error.what_to_do()), (ErrorKind::Auth, Some(advice)), "{offer}: {error}");
        assert_eq!(memory.said(), if none { vec![] } else { vec!["unsent"] }, "{offer}");
        assert_eq!(peer.count("type3").await, 0);
    }
}

#[tokio::test]
async fn a_missing_right_is_not_a_wrong_password() {
    let Some(python) = python() else { return };
    let peer = Peer::start(&python, &["--offer", "NTLM"], false);
    for path in ["/denied", "/forbidden"] {
        let memory = Memory::default();
        let client = Client::new(&peer.options(ntlm("right")), &memory.context()).unwrap();
        let request = Request::get(peer.url(path)).denied(|body| body.contains("rsAccessDenied"));
        let error = client.send(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(error.to_string().contains("CORP\\loader, whose sign-in was accepted, lacks the right"), "{error}");
        assert_eq!(memory.said(), ["proven"], "{path}");
        assert_eq!(hello(&client, &peer).await.unwrap(), "hello CORP\\loader", "the account is not held up");
    }
}

#[tokio::test]
async fn bodies_go_both_ways_over_a_signed_in_connection() {
    let Some(python) = python() else { return };
    let peer = Peer::start(&python, &["--offer", "NTLM"], false);
    let client = Client::new(&peer.options(ntlm("right")), &Context::bare("a")).unwrap();
    for _ in 0..2 {
        let size = 64 << 20;
        let mut big = client.send(Request::get(peer.url(&format!("/big?{size}")))).await.unwrap();
        assert_eq!(big.content_length(), Some(size));
        let mut at = 0u64;
        while let Some(chunk) = big.chunk().await.unwrap() {
            assert!(chunk.iter().zip(at..).all(|(byte, at)| u64::from(*byte) == at % 256));
            at += chunk.len() as u64;
        }
        assert_eq!((at, big.wire_bytes()), (size, size));
    }
    assert_eq!(peer.count("type3").await, 1);
    let echo = |body: Body| {
        let request = Request::new(Method::POST, peer.url("/echo")).body(body);
        async { client.send(request).await.unwrap().text(1000).await.unwrap() }
    };
    let pieces = || stream::iter((0..1000u32).map(|i| Ok(i.to_be_bytes().repeat(100).into())));
    let expected = "400000 ";
    assert!(echo(Body::stream(pieces(), None)).await.starts_with(expected));
    assert!(echo(Body::stream(pieces(), Some(400_000))).await.starts_with(expected));
    assert!(echo(Body::Bytes(vec![7; 400_000].into())).await.starts_with(expected));
    assert!(echo(Body::Empty).await.starts_with("0 "));
}

#[tokio::test]
async fn many_at_once_have_a_connection_each() {
    let Some(python) = python() else { return };
    let peer = Peer::start(&python, &["--offer", "NTLM"], false);
    let client = Client::new(&peer.options(ntlm("right")), &Context::bare("a")).unwrap();
    let all = futures::future::join_all((0..8).map(|_| hello(&client, &peer))).await;
    assert!(all.into_iter().all(|answer| answer.unwrap() == "hello CORP\\loader"));
    let log = peer.log().await;
    assert_eq!(log["type1"], log["type3"], "{log}");
    assert_eq!(log["signed_in"], log["type3"], "{log}");
}

#[tokio::test]
async fn a_server_that_forgets_is_signed_in_to_each_time() {
    let Some(python) = python() else { return };
    let peer = Peer::start(&python, &["--offer", "NTLM", "--forget"], false);
    let memory = Memory::default();
    let client = Client::new(&peer.options(ntlm("right")), &memory.context()).unwrap();
    for _ in 0..3 {
        assert_eq!(hello(&client, &peer).await.unwrap(), "hello None");
    }
    assert_eq!(peer.count("type3").await, 3);
    assert_eq!(memory.said(), ["proven"; 3]);
}

#[tokio::test]
async fn a_connection_closed_between_the_messages_puts_no_password_on_the_wire() {
    let Some(python) = python() else { return };
    let peer = Peer::start(&python, &["--offer", "NTLM", "--close"], false);
    let memory = Memory::default();
    let client = Client::new(&peer.options(ntlm("right")), &memory.context()).unwrap();
    let error = hello(&client, &peer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("closes the connection in the middle of the sign-in"), "{error}");
    assert_eq!(memory.said(), ["unsent"]);
    assert_eq!(peer.count("type3").await, 0);
}

#[tokio::test]
async fn over_tls_a_sign_in_is_bound_to_the_certificate() {
    let Some(python) = python() else { return };
    for (offer, auth) in [("NTLM", ntlm("right")), ("Negotiate", negotiate("right"))] {
        let peer = Peer::start(&python, &["--offer", offer], true);
        let client = Client::new(&peer.options(auth), &Context::bare("a")).unwrap();
        for _ in 0..3 {
            assert_eq!(hello(&client, &peer).await.unwrap(), "hello CORP\\loader", "{offer}");
        }
        let log = peer.log().await;
        assert_eq!((&log["type3"], &log["bound"]), (&1.into(), &1.into()), "{offer}: {log}");
        assert!(peer.folder.path().exists());
    }
}
