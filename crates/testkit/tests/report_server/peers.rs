//! Sign-in, tried by curl and by pyspnego.

use std::{collections::HashMap, path::PathBuf};

use tokio::process::Command;
use towpath_testkit::report_server::{Fault, On, Refused, Report, ReportServer, Scheme, Sent};

use crate::{LOG, signed, url};

/// Whether a peer is there; without it a test is skipped, or fails where peers are required.
fn there(name: &str, found: bool) -> bool {
    let required = std::env::var("REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(found || !required, "{name} is not here, and REQUIRE_PEERS=1");
    if !found {
        println!("skipped: {name} is not here");
    }
    found
}

async fn curl_is_there() -> bool {
    let version = Command::new("curl").arg("-V").output().await;
    there("curl with NTLM", version.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("NTLM")))
}

/// What curl got.
struct Got {
    /// 0: nothing.
    status: u16,
    body: String,
    ok: bool,
}

async fn curl(arguments: &[&str], user: &str, url: &str) -> Got {
    let mut command = Command::new("curl");
    command.args(["-s", "-S", "-g", "--max-time", "60", "-w", "\n%{http_code}"]).args(arguments);
    let out = command.args(["-u", user, url]).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    Got { status: status.parse().unwrap(), body: body.to_owned(), ok: out.status.success() }
}

const USER: &str = r"CORP\loader:s3cret";

#[tokio::test]
async fn curl_signs_in_by_ntlm() {
    if !curl_is_there().await {
        return;
    }
    let server = signed(&[Scheme::Negotiate, Scheme::Ntlm]).await;
    let got = curl(&["--ntlm"], USER, &url(&server, LOG)).await;
    assert_eq!((got.status, got.ok, got.body.matches("\r\n").count()), (200, true, 201));
    assert_eq!(server.log().outcomes(), [("loader".to_owned(), None, 1)]);
    assert_eq!(server.log().connections(), 1, "one handshake, one connection");
    // curl sends its form with the proof only.
    let (path, form) = LOG.split_once('&').unwrap();
    let got = curl(&["--ntlm", "-d", form], USER, &url(&server, path)).await;
    assert_eq!((got.status, got.body.matches("\r\n").count()), (200, 201));
}

#[tokio::test]
async fn wrong_passwords_lock_the_account_and_look_like_a_missing_right() {
    if !curl_is_there().await {
        return;
    }
    let server = signed(&[Scheme::Ntlm]).await;
    let ask = async |user: &str| curl(&["--ntlm"], user, &url(&server, LOG)).await.status;
    assert_eq!(ask(r"CORP\nobody:x").await, 401);
    assert_eq!(ask(r"OTHER\loader:s3cret").await, 401);
    for _ in 0..3 {
        assert!(!server.is_locked("Loader"));
        assert_eq!(ask(r"CORP\loader:wrong").await, 401);
    }
    assert!(server.is_locked("Loader"));
    assert_eq!(ask(USER).await, 401, "the right one does not help any more");
    let mut outcomes: HashMap<_, usize> = HashMap::new();
    for (account, refused, count) in server.log().outcomes() {
        *outcomes.entry((account, refused.map(|refused| format!("{refused:?}")))).or_default() += count;
    }
    let expect = [
        ("nobody", "UnknownAccount", 1),
        ("loader", "UnknownAccount", 1),
        ("loader", "WrongPassword", 3),
        ("loader", "LockedOut", 1),
    ];
    let expect = expect.map(|(account, refused, count)| ((account.to_owned(), Some(refused.to_owned())), count));
    assert_eq!(outcomes, HashMap::from(expect));
    assert_eq!((server.log().wrong_passwords(), server.log().proofs()), (3, 6));
    server.unlock("loader");
    assert_eq!(ask(USER).await, 200);

    let denied = ReportServer::builder().report(Report::production_log(1)).account("", "loader", "pw");
    let denied = denied.deny("LOADER", "/Manufacturing/Production log").start().await;
    let got = curl(&["--ntlm"], "loader:pw", &url(&denied, LOG)).await;
    assert_eq!(got.status, 401);
    assert!(got.body.contains("(rsAccessDenied)"), "{}", got.body);
    assert_eq!(denied.log().outcomes(), [("loader".to_owned(), None, 1)], "the proof itself was right");
}

#[tokio::test]
async fn a_connection_closed_between_the_messages_is_never_a_wrong_password() {
    if !curl_is_there().await {
        return;
    }
    for fault in [Fault::CloseAfter, Fault::CloseAnnounced, Fault::Close] {
        let server = signed(&[Scheme::Ntlm]).await;
        server.faults().add(On::Challenge, .., fault.clone());
        let got = curl(&["--ntlm"], USER, &url(&server, LOG)).await;
        assert_ne!(got.status, 200, "{fault:?}");
        assert_eq!(server.log().wrong_passwords(), 0, "{fault:?}");
        assert!(server.log().renders().is_empty());
    }
    let server = signed(&[Scheme::Ntlm]).await;
    server.faults().add(On::Proof, 0..1, Fault::Close);
    // curl tries again by itself when a connection it had used before ends without an answer.
    assert_eq!(curl(&["--ntlm"], USER, &url(&server, LOG)).await.status, 200);
    let proofs = server.log().requests().into_iter().filter(|asked| asked.sent == Sent::Type3);
    assert_eq!(proofs.map(|asked| asked.status).collect::<Vec<_>>(), [0, 200], "the first got no answer");
}

#[tokio::test]
async fn parameters_and_lists_are_asked_for_by_soap() {
    if !curl_is_there().await {
        return;
    }
    let server = signed(&[Scheme::Ntlm]).await;
    let namespace = "http://schemas.microsoft.com/sqlserver/reporting/2010/03/01/ReportServer";
    let ask = async |operation: &str, inner: &str| {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
             <{operation} xmlns=\"{namespace}\">{inner}</{operation}></s:Body></s:Envelope>"
        );
        let action = format!("SOAPAction: \"{namespace}/{operation}\"");
        let arguments = ["--ntlm", "-H", "Content-Type: text/xml; charset=utf-8", "-H", &action, "-d", &body];
        curl(&arguments, USER, &url(&server, "/ReportServer/ReportService2010.asmx")).await
    };
    let got = ask("ListChildren", "<ItemPath>/</ItemPath><Recursive>true</Recursive>").await;
    assert!(
        got.status == 200 && got.body.contains("<Path>/Manufacturing/Production log</Path><TypeName>Report"),
        "{}",
        got.body
    );
    let item = "<ItemPath>/Manufacturing/Production log</ItemPath><ForRendering>true</ForRendering>";
    let got = ask("GetItemParameters", item).await;
    assert!(got.body.contains("<ParameterStateName>HasOutstandingDependencies<"), "{}", got.body);
    let values = "<Values><ParameterValue><Name>Line</Name><Value>L2</Value></ParameterValue></Values>";
    let got = ask("GetItemParameters", &format!("{item}{values}")).await;
    assert!(got.body.contains("<Value>S21</Value>") && !got.body.contains("HasOutstanding"), "{}", got.body);
    let got = ask("GetItemParameters", "<ItemPath>/Nowhere</ItemPath>").await;
    assert_eq!(got.status, 500);
    assert!(got.body.contains(">rsItemNotFound</ErrorCode>"), "{}", got.body);
    assert_eq!((server.log().count("ListChildren"), server.log().count("GetItemParameters")), (1, 3));
}

#[tokio::test]
async fn curl_signs_in_over_tls() {
    if !curl_is_there().await {
        return;
    }
    let server = ReportServer::builder().report(Report::production_log(100)).account("CORP", "loader", "s3cret");
    let server = server.tls().start().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, server.certificate().unwrap()).unwrap();
    let ca = ca.to_str().unwrap();
    let got = curl(&["--ntlm", "--cacert", ca], USER, &url(&server, LOG)).await;
    assert_eq!((got.status, got.body.matches("\r\n").count()), (200, 201));
}

fn python() -> Option<PathBuf> {
    let python = std::env::var_os("TOWPATH_PEERS_PYTHON").map(PathBuf::from).filter(|path| path.exists());
    there("pyspnego (TOWPATH_PEERS_PYTHON)", python.is_some()).then_some(python).flatten()
}

/// Asks as pyspnego does; `(status, whether its side is complete, lines of the body)`.
async fn spnego(
    server: &ReportServer,
    protocol: &str,
    password: &str,
    ca: Option<&str>,
) -> Option<(u16, String, usize)> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/ntlm_client.py");
    let mut command = Command::new(python()?);
    command.args([script, &url(server, LOG), protocol, r"CORP\prüfer", password]).args(ca).kill_on_drop(true);
    let out = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let words: Vec<_> = text.split_whitespace().collect();
    let [status, complete, lines] = words[..] else { panic!("{}", String::from_utf8_lossy(&out.stderr)) };
    Some((status.parse().unwrap(), complete.to_owned(), lines.parse().unwrap()))
}

#[tokio::test]
async fn pyspnego_signs_in_raw_and_wrapped() {
    for (scheme, protocol) in [(Scheme::Ntlm, "ntlm"), (Scheme::Negotiate, "negotiate")] {
        let server = signed(&[scheme]).await;
        let Some(got) = spnego(&server, protocol, "s3cret Ü", None).await else { return };
        assert_eq!(got, (200, "complete".to_owned(), 201), "{protocol}");
        assert_eq!(server.log().outcomes(), [("prüfer".to_owned(), None, 1)]);
        let Some((status, ..)) = spnego(&server, protocol, "wrong", None).await else { return };
        assert_eq!((status, server.log().wrong_passwords()), (401, 1), "{protocol}");
    }
}

#[tokio::test]
async fn a_refusal_with_a_token_is_the_last_word() {
    let server = ReportServer::builder().report(Report::production_log(1)).account("CORP", "prüfer", "s3cret Ü");
    let server = server.offer([Scheme::Negotiate]).refusal_token().start().await;
    let Some((status, ..)) = spnego(&server, "negotiate", "wrong", None).await else { return };
    assert_eq!((status, server.log().proofs(), server.log().wrong_passwords()), (401, 1, 1));
}

#[tokio::test]
async fn pyspnego_is_bound_to_its_channel() {
    let server = ReportServer::builder().report(Report::production_log(100)).account("CORP", "loader", "s3cret");
    let server = server.account("CORP", "prüfer", "s3cret Ü");
    let server = server.tls().bindings_required().offer([Scheme::Negotiate, Scheme::Ntlm]).start().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, server.certificate().unwrap()).unwrap();
    for protocol in ["ntlm", "negotiate"] {
        let Some((status, ..)) = spnego(&server, protocol, "s3cret Ü", ca.to_str()).await else { return };
        assert_eq!(status, 200, "{protocol}");
    }
    // curl does not bind with NTLM: it is refused for that, and not for its password.
    if curl_is_there().await {
        let got = curl(&["--ntlm", "--cacert", ca.to_str().unwrap()], USER, &url(&server, LOG)).await;
        assert_eq!((got.status, server.log().refused(Refused::WrongChannel)), (401, 1));
    }
}
