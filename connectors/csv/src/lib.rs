#![doc = include_str!("../README.md")]

mod config;
mod discover;
mod encode;
mod input;
mod ledger;
mod listing;
mod position;
mod reader;
mod sink;
mod source;
mod stub;

use towpath_core::{
    Connector,
    connector::{SinkRole, SourceRole, build},
    inventory,
};

pub use config::{Compression, Format, OneOrMany, Read, SinkOptions, SourceOptions};
pub use sink::CsvSink;
pub use source::CsvSource;

inventory::submit! {
    Connector::new("csv", "CSV files, on disk or over HTTP", include_str!("../README.md"))
        .source(SourceRole::of::<SourceOptions>(|name, options| build(name, options, CsvSource::new)))
        .sink(SinkRole::of::<SinkOptions>(|name, options| build(name, options, CsvSink::new)))
}
