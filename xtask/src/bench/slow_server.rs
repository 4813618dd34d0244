//! A server whose report takes its time, and that knows when its last byte left.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::Fallible;

/// So often a piece is sent.
const TICK: Duration = Duration::from_millis(20);

/// Serves one file to whoever asks, evenly over some time. Its thread ends with the program.
pub(super) struct SlowServer {
    pub(super) url: String,
    last_byte: Arc<Mutex<Option<Instant>>>,
}

impl SlowServer {
    pub(super) fn start(file: &Path, takes: Duration) -> Fallible<Self> {
        let body = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        let last_byte: Arc<Mutex<Option<Instant>>> = Arc::default();
        let sent = Arc::clone(&last_byte);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who hangs up has had enough.
                if let Ok(true) = answer(stream, &body, takes) {
                    *sent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
            }
        });
        Ok(Self { url: format!("http://127.0.0.1:{port}/report.csv"), last_byte })
    }

    /// When the last byte was taken; `None` if the report was never sent to its end.
    pub(super) fn last_byte(&self) -> Option<Instant> {
        *self.last_byte.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the whole report was sent.
fn answer(mut stream: TcpStream, body: &[u8], takes: Duration) -> std::io::Result<bool> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let asked = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len())?;
    if asked.starts_with("HEAD") {
        return Ok(false);
    }
    let (began, mut sent) = (Instant::now(), 0);
    while sent < body.len() {
        let due = began.elapsed().as_secs_f64() / takes.as_secs_f64() * body.len() as f64;
        let due = (due as usize).min(body.len());
        stream.write_all(&body[sent..due])?;
        sent = due;
        std::thread::sleep(TICK);
    }
    stream.flush()?;
    Ok(true)
}
