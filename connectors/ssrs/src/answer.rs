//! A report that is arriving: bytes to rows, in bounded memory, whole or an error.

use arrow_schema::SchemaRef;
use towpath_core::{Error, Result, Retry};
use towpath_formats::csv::{CsvDecoder, CsvOptions, Decoded};

use crate::server::Rendering;

/// A report on its way into rows.
pub struct Answer {
    rendering: Rendering,
    decoder: CsvDecoder,
    /// All bytes have come.
    ended: bool,
    /// The last bytes pushed: the server ends each record, so they end a line.
    tail: [u8; 2],
    /// Held back until it is known whether it is the last.
    held: Option<Decoded>,
    /// Bytes off the wire that a part has been told of.
    told: u64,
}

/// A part of a report.
pub enum Part {
    /// Rows, and more come.
    More(Decoded),
    /// The last rows, if the report has any. Everything has come.
    Last(Option<Decoded>),
}

impl Answer {
    /// Reads a rendering.
    ///
    /// # Errors
    /// Config, if the options of the CSV contradict each other.
    pub fn new(mut rendering: Rendering, options: &CsvOptions) -> Result<Self> {
        let mut decoder = CsvDecoder::new(options)?;
        let mut tail = [0; 2];
        if let Some(beginning) = rendering.beginning.take() {
            keep(&mut tail, &beginning);
            decoder.push(beginning);
        }
        Ok(Self { rendering, decoder, ended: false, tail, held: None, told: 0 })
    }

    /// The next part. Cancel-safe.
    ///
    /// # Errors
    /// Of the wire; Data, if the CSV cannot be read as a whole or ends inside a row.
    pub async fn next(&mut self) -> Result<Part> {
        loop {
            let decoded = if self.ended { self.decoder.finish()? } else { self.decoder.next()? };
            match decoded {
                Some(decoded) => match self.held.replace(decoded) {
                    Some(ready) => return Ok(Part::More(ready)),
                    None => continue,
                },
                None if self.ended => return Ok(Part::Last(self.held.take())),
                None => {}
            }
            match self.rendering.response.chunk().await? {
                Some(chunk) => {
                    keep(&mut self.tail, &chunk);
                    self.decoder.push(chunk);
                }
                None => {
                    self.whole()?;
                    self.ended = true;
                }
            }
        }
    }

    /// The renderer ends every record: an answer that ends otherwise was cut off by something that hid it.
    fn whole(&self) -> Result<()> {
        let [before, last] = self.tail;
        let ends_line = |byte| matches!(byte, b'\n' | b'\r');
        // In UTF-16 either half of the line's end may stand last.
        if ends_line(last) || (last == 0 && (ends_line(before) || before == 0)) {
            return Ok(());
        }
        let hint = "run it again; if it comes back, look at the report server's log at this time";
        Err(Error::data("the report ends inside a row: the server broke off and did not say so")
            .retry(Retry::Again)
            .hint(hint))
    }

    /// Bytes off the wire since this was asked last.
    pub fn new_bytes(&mut self) -> u64 {
        let all = self.rendering.response.wire_bytes();
        all - std::mem::replace(&mut self.told, all)
    }

    /// The columns, once the header has come.
    pub fn schema(&self) -> Option<SchemaRef> {
        self.decoder.schema()
    }

    /// The server is done with it, or will be as soon as it sees that nobody listens.
    pub fn done(self) {
        let Rendering { response, lease, .. } = self.rendering;
        drop(response);
        lease.done();
    }

    /// It broke off.
    pub fn failed(self, error: &Error) {
        self.rendering.lease.failed(error);
    }
}

/// Keeps the last two bytes.
fn keep(tail: &mut [u8; 2], bytes: &[u8]) {
    for byte in bytes.iter().skip(bytes.len().saturating_sub(2)) {
        *tail = [tail[1], *byte];
    }
}
