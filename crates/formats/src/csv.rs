//! Delimited text.
//!
//! # Reading
//! [`CsvDecoder`] is pushed bytes as they come and gives batches. What a record is: fields between delimiters, ended by LF, CRLF or
//! CR, in any mixture; empty lines are no records. A field that begins with a quote ends with one, and may hold delimiters, line
//! ends and doubled quotes; a quote inside a field that does not begin with one is a character like any other. NUL is a character
//! too.
//!
//! # What is wrong with a record costs that record
//! A record with too few or too many fields, with something behind a closing quote, with a quote that never closes, with bytes
//! that are not of the encoding, with a value that is not of its column's type, or longer than `max_record`, is **one** rejected
//! row; its original is the bytes as they came, without the line end. Of a record past `max_record` the first 64 KiB are kept.
//!
//! A stray quote swallows the lines behind it, so where such a record spans lines, reading goes on at the first line end inside its
//! quotes behind which a well-formed line with the right number of fields stands; if there is none, where the record ends by
//! its quotes. Thus a forgotten quote costs the line it stands in, and a text of several lines with a fault stays one reject.
//!
//! A header that is missing or different is an error, before any row.

mod decode;
mod encode;
mod encoding;
mod header;
mod options;
mod record;
mod scan;

pub use decode::{CsvDecoder, Decoded};
pub use encode::CsvEncoder;
pub use options::{CsvOptions, Encoding, Header};
