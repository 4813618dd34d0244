//! A wrong credential goes over the wire once: over tries, pipelines, processes and kills.
#![allow(clippy::unwrap_used, reason = "it is what makes a test fail")]

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use towpath_core::{ErrorKind, Secret, context::Credentials as _};
use towpath_engine::{
    StateStore,
    credentials::{FRESH, UNKNOWN},
    state::clock::{Clock, Moment},
};

const SERVER: &str = "https://reports.example:443";

#[derive(Default)]
struct Turned(AtomicI64, Mutex<u32>);

impl Clock for Turned {
    fn now(&self) -> Moment {
        Moment { boot: self.1.lock().unwrap().to_string().into(), ms: self.0.load(Ordering::SeqCst) }
    }
}

fn open(dir: &Path, clock: &Arc<Turned>) -> StateStore {
    StateStore::open_with(dir, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

#[tokio::test]
async fn what_may_be_sent_after_what() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Turned::default());
    let store = open(dir.path(), &clock);
    let ask = async |password: &str| {
        open(dir.path(), &clock).admit(SERVER, "CORP\\loader", &Secret::new(password.to_owned())).await
    };
    let kind = async |password: &str| ask(password).await.err().map(|error| error.kind());
    let later = |period: Duration| {
        let _ = clock.0.fetch_add(period.as_millis() as i64, Ordering::SeqCst);
    };

    ask("wrong").await.unwrap().refused();
    let error = ask("wrong").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let words = format!("{error} {error:?}");
    assert!(words.contains("refused the credential of CORP\\loader") && !words.contains("wrong"), "{words}");
    later(Duration::from_secs(400 * 24 * 3600));
    *clock.1.lock().unwrap() += 1;
    assert_eq!(kind("wrong").await, Some(ErrorKind::Auth), "for ever, also after a reboot");

    // Another one of the same account is not held up, and proves nothing about the first.
    ask("right").await.unwrap().proven();
    assert_eq!(kind("wrong").await, Some(ErrorKind::Auth));
    drop(ask("right").await.unwrap());
    ask("right").await.unwrap().proven();
    // The password was changed on the server.
    later(FRESH);
    ask("right").await.unwrap().refused();
    assert_eq!(kind("right").await, Some(ErrorKind::Auth));

    // It never went out: nothing is known, nothing is lost.
    ask("unsent").await.unwrap().unsent();
    ask("unsent").await.unwrap().unsent();

    // It went out, and nobody saw what came of it.
    drop(ask("dropped").await.unwrap());
    let error = ask("dropped").await.err().unwrap();
    assert!(error.to_string().contains("nobody saw what came of it; it may be sent again in 15m"), "{error}");
    later(UNKNOWN - Duration::from_secs(1));
    assert_eq!(kind("dropped").await, Some(ErrorKind::Auth));
    later(Duration::from_secs(1));
    ask("dropped").await.unwrap().proven();

    assert_eq!(store.reset_credentials(Some("https://elsewhere:443")).unwrap(), 0);
    assert_eq!(store.reset_credentials(Some(SERVER)).unwrap(), 2);
    ask("wrong").await.unwrap().unsent();

    // What is kept shows no password.
    let shown = serde_json::to_string(&store.show().unwrap()).unwrap();
    for name in ["state.db", "state.db-wal"] {
        let bytes = std::fs::read(dir.path().join(name)).unwrap();
        for password in ["wrong", "right", "dropped"] {
            assert!(!bytes.windows(password.len()).any(|part| part == password.as_bytes()), "{name}");
            assert!(!shown.contains(password));
        }
    }
}

/// What a process of [`spawn`] does, in the environment of this test: asks, and writes a line for each credential it sends.
#[tokio::test]
async fn as_a_process() {
    let Ok(dir) = std::env::var("TEST_CREDENTIALS_DIR") else { return };
    let dir = Path::new(&dir);
    let store = StateStore::open(dir).unwrap();
    let Ok(leave) = store.admit(SERVER, "loader", &Secret::new("wrong".to_owned())).await else { return };
    // Sent: one byte more in the file.
    use std::io::Write as _;
    std::fs::OpenOptions::new().append(true).create(true).open(dir.join("wire")).unwrap().write_all(b"!").unwrap();
    if std::env::var_os("TEST_CREDENTIALS_HANG").is_some() {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    leave.refused();
}

fn spawn(dir: &Path, hang: bool) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "as_a_process", "--nocapture"]).env("TEST_CREDENTIALS_DIR", dir).stdout(Stdio::null());
    if hang {
        command.env("TEST_CREDENTIALS_HANG", "1");
    }
    command.spawn().unwrap()
}

fn sent(dir: &Path) -> usize {
    std::fs::read(dir.join("wire")).map_or(0, |wire| wire.len())
}

#[test]
fn ten_processes_at_once_send_one_wrong_password() {
    let dir = tempfile::tempdir().unwrap();
    let processes: Vec<_> = (0..10).map(|_| spawn(dir.path(), false)).collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(sent(dir.path()), 1);
}

#[test]
fn one_that_is_killed_in_between_has_sent_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = spawn(dir.path(), true);
    while sent(dir.path()) == 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let waiting = spawn(dir.path(), false);
    std::thread::sleep(Duration::from_millis(300));
    first.kill().unwrap();
    first.wait().unwrap();
    for mut process in [waiting, spawn(dir.path(), false)] {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(sent(dir.path()), 1);
}

mod exchange {
    use towpath_core::context::StoredToken;

    use super::*;

    fn token(access: &str) -> StoredToken {
        StoredToken {
            access: Secret::new(access.to_owned()),
            refresh: Some(Secret::new(format!("{access}-refresh"))),
            issued: "2026-11-21T17:00:00Z".parse().unwrap(),
            expires: Some("2026-11-21T18:00:00Z".parse().unwrap()),
            seed: "seed".to_owned(),
            generation: 0,
        }
    }

    #[tokio::test]
    async fn a_token_is_stored_before_others_see_it_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Turned::default());
        let mut hold = open(dir.path(), &clock).exchange(SERVER, "app").await.unwrap();
        assert!(hold.stored().unwrap().is_none());
        assert_eq!(hold.store(token("first")).unwrap(), 1);
        assert_eq!(hold.store(token("second")).unwrap(), 2);
        let prints = ["a", "a", "b"].map(|text| hold.fingerprint(&Secret::new(text.to_owned())).unwrap());
        assert!(prints[0] == prints[1] && prints[0] != prints[2] && !prints[0].is_empty());
        drop(hold);
        let hold = open(dir.path(), &clock).exchange(SERVER, "app").await.unwrap();
        let stored = hold.stored().unwrap().unwrap();
        assert_eq!((stored.access.expose().as_str(), stored.generation), ("second", 2));
        assert_eq!(stored.refresh.unwrap().expose(), "second-refresh");
        assert_eq!((stored.issued, stored.expires), (token("").issued, token("").expires));
        let other = open(dir.path(), &clock).exchange(SERVER, "another app").await.unwrap();
        assert!(other.stored().unwrap().is_none());
        let shown = open(dir.path(), &clock).show().unwrap();
        assert!(!format!("{shown} {shown:?}").contains("second"), "{shown}");
    }

    #[tokio::test]
    async fn only_one_holds_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Turned::default());
        let inside = Arc::new(Mutex::new((0, 0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, inside) = (open(dir.path(), &clock), Arc::clone(&inside));
            tasks.spawn(async move {
                let mut hold = store.exchange(SERVER, "app").await.unwrap();
                inside.lock().unwrap().0 += 1;
                assert_eq!(inside.lock().unwrap().0, 1, "two hold it");
                tokio::task::yield_now().await;
                let generation = hold.stored().unwrap().map_or(0, |token| token.generation);
                assert_eq!(hold.store(token("next")).unwrap(), generation + 1);
                let mut inside = inside.lock().unwrap();
                *inside = (inside.0 - 1, inside.1 + 1);
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(*inside.lock().unwrap(), (0, 8));
    }
}
