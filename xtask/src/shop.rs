//! A shop for the CRM's demo and figures: customers, orders and payments as three files on a server of this program's own, and what a
//! simulator tells of who asked it.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use crate::Fallible;

/// So many of each. Payments of an order are in one currency and sum to its number times 10.01.
#[derive(Clone, Copy)]
pub(crate) struct Shop {
    pub(crate) customers: u64,
    pub(crate) orders: u64,
}

impl Shop {
    /// Writes `customers.csv`, `orders.csv` and `payments.csv`. Orders are of the customers in turn.
    pub(crate) fn write(self, folder: &Path) -> Fallible {
        let [mut customers, mut orders, mut payments] =
            ["customer_id,name,email\n", "order_id,customer_id,ordered\n", "payment_id,order_id,amount,currency\n"]
                .map(str::to_owned);
        let line =
            |text: &mut String, line: std::fmt::Arguments<'_>| text.write_fmt(line).map_err(|error| error.to_string());
        for n in 1..=self.customers {
            line(&mut customers, format_args!("C{n},Customer {n},\n"))?;
        }
        for n in 1..=self.orders {
            line(&mut orders, format_args!("O{n},C{},2026-01-31\n", 1 + (n - 1) % self.customers.max(1)))?;
            let (first, rest) = (n % 1000 + 1, n * 1001 - n % 1000 - 1);
            for (part, cents) in [first, rest].into_iter().enumerate() {
                let (number, whole, cents) = (2 * n + part as u64 - 1, cents / 100, cents % 100);
                line(&mut payments, format_args!("{number},O{n},{whole}.{cents:02},EUR\n"))?;
            }
        }
        for (name, text) in [("customers.csv", customers), ("orders.csv", orders), ("payments.csv", payments)] {
            let path = folder.join(name);
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

/// Serves a folder's files, each with an ETag; its URL. The thread ends with the program.
pub(crate) fn serve(folder: &Path) -> Fallible<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            // Who hangs up has had enough.
            std::thread::spawn(move || drop(answer(stream, &folder)));
        }
    });
    Ok(format!("http://{address}"))
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let asked = lines.next().transpose()?.unwrap_or_default();
    let mut known = String::new();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("if-none-match")
        {
            value.clone_into(&mut known);
        }
    }
    let mut words = asked.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some((content, tag)) = file(folder, path.trim_start_matches('/')) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    if known == tag {
        return write!(stream, "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\nConnection: close\r\n\r\n");
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/csv; charset=utf-8\r\nConnection: close\r\n";
    write!(stream, "{head}ETag: {tag}\r\nContent-Length: {}\r\n\r\n", content.len())?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(&content) }
}

/// A file and its tag: by length and the moment of its last change.
fn file(folder: &Path, name: &str) -> Option<(Vec<u8>, String)> {
    // One of this folder, whatever is asked for.
    let path: PathBuf = folder.join(Path::new(name).file_name()?);
    let changed = fs::metadata(&path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let content = fs::read(&path).ok()?;
    let tag = format!("\"{:x}-{:x}\"", content.len(), changed.as_nanos());
    Some((content, tag))
}

/// Asks a simulator for something of its own (`GET /simulator/log`), or tells it something; what it answers.
pub(crate) fn ask(url: &str, method: &str, path: &str, body: &str) -> Fallible<serde_json::Value> {
    let failed = |error: std::io::Error| format!("{url}{path}: {error}");
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).map_err(failed)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{url}{path}: no answer"))?;
    serde_json::from_str(body).map_err(|error| format!("{url}{path}: {error}: {body}"))
}

/// What the simulator says of its calls.
pub(crate) struct Log(serde_json::Value);

impl Log {
    /// So far, or since it was [forgotten](forget).
    pub(crate) fn of(url: &str) -> Fallible<Self> {
        ask(url, "GET", "/simulator/log", "").map(Self)
    }
    /// A number of it, 0 where it is not there: `calls`, `writes`, `tokens`, `statuses/429`, `kinds/create`.
    pub(crate) fn number(&self, path: &str) -> f64 {
        self.0.pointer(&format!("/{path}")).and_then(serde_json::Value::as_f64).unwrap_or(0.0)
    }
}

/// Makes the simulator forget its calls.
pub(crate) fn forget(url: &str) -> Fallible {
    ask(url, "DELETE", "/simulator/log", "").map(drop)
}
