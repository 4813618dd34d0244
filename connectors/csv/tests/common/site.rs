//! A web server that can do what files on the web need, each part of which can be switched off.

use std::sync::{Arc, Mutex, PoisonError};

use towpath_http::Url;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers::any};

/// What the server says of its files, and what it understands.
#[derive(Clone, Debug)]
pub struct Manner {
    /// `Some(weak)`: an ETag made of the content.
    pub etag: Option<bool>,
    pub last_modified: bool,
    pub ranges: bool,
    pub conditional: bool,
    pub head: bool,
}

pub const PROPER: Manner =
    Manner { etag: Some(false), last_modified: true, ranges: true, conditional: true, head: true };

/// By path.
type Contents = Vec<(String, Vec<u8>)>;

#[derive(Clone)]
struct Files {
    manner: Manner,
    files: Arc<Mutex<Contents>>,
}

pub struct Site {
    pub server: MockServer,
    files: Files,
}

impl Site {
    pub async fn new(manner: Manner) -> Self {
        let server = MockServer::start().await;
        let files = Files { manner, files: Arc::default() };
        Mock::given(any()).respond_with(files.clone()).mount(&server).await;
        Self { server, files }
    }
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) -> String {
        let mut files = self.files.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(name, _)| name != path);
        files.push((path.to_owned(), content.as_ref().to_vec()));
        format!("{}{path}", self.server.uri())
    }
    /// Method, path and range of all requests so far; forgets them.
    pub async fn asked(&self) -> Vec<String> {
        let requests = self.server.received_requests().await.unwrap_or_default();
        self.server.reset().await;
        Mock::given(any()).respond_with(self.files.clone()).mount(&self.server).await;
        let line = |request: &Request| {
            let header = |name: &str| {
                request.headers.get(name).and_then(|value| value.to_str().ok()).map(|value| format!(" {value}"))
            };
            let range = header("range").unwrap_or_default();
            let condition =
                if request.headers.contains_key("if-none-match") || request.headers.contains_key("if-modified-since") {
                    " if changed"
                } else {
                    ""
                };
            let same = if request.headers.contains_key("if-range") { " if same" } else { "" };
            format!("{} {}{range}{condition}{same}", request.method, request.url.path())
        };
        requests.iter().map(line).collect()
    }
}

fn tag(content: &[u8]) -> u64 {
    content.iter().fold(7, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

impl Respond for Files {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let Manner { etag, last_modified, ranges, conditional, head } = self.manner;
        let url: &Url = &request.url;
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, content)) = files.iter().find(|(name, _)| name == url.path()) else {
            return ResponseTemplate::new(404);
        };
        let is_head = request.method.as_str() == "HEAD";
        if is_head && !head {
            return ResponseTemplate::new(405);
        }
        let asked = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let etag = etag.map(|weak| format!("{}\"{:x}\"", if weak { "W/" } else { "" }, tag(content)));
        // As good as a time: it changes with the content.
        let modified = format!("Sat, 21 Nov 2026 07:{:02}:{:02} GMT", tag(content) / 60 % 60, tag(content) % 60);
        let with = |mut response: ResponseTemplate| {
            if let Some(etag) = &etag {
                response = response.insert_header("etag", etag.as_str());
            }
            if last_modified {
                response = response.insert_header("last-modified", modified.as_str());
            }
            if ranges { response.insert_header("accept-ranges", "bytes") } else { response }
        };
        let known = asked("if-none-match")
            .map_or(asked("if-modified-since") == Some(&modified), |tag| Some(tag) == etag.as_deref());
        if conditional && known {
            return with(ResponseTemplate::new(304));
        }
        let same = asked("if-range").is_none_or(|tag| Some(tag) == etag.as_deref());
        let range =
            asked("range").filter(|_| ranges && same).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        if is_head {
            // The length without the body.
            return with(ResponseTemplate::new(200).insert_header("content-length", content.len().to_string()));
        }
        let Some((first, last)) = range else {
            return with(ResponseTemplate::new(200).set_body_bytes(content.clone()));
        };
        let first: usize = first.parse().unwrap_or(0);
        let last = last.parse().unwrap_or(usize::MAX).min(content.len().saturating_sub(1));
        if first >= content.len() {
            return with(
                ResponseTemplate::new(416).insert_header("content-range", format!("bytes */{}", content.len())),
            );
        }
        let part = content[first..=last].to_vec();
        with(
            ResponseTemplate::new(206)
                .set_body_bytes(part)
                .insert_header("content-range", format!("bytes {first}-{last}/{}", content.len())),
        )
    }
}
