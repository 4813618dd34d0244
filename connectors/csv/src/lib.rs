#![doc = include_str!("../README.md")]

mod config;
mod discover;
mod encode;
mod input;
mod ledger;
mod listing;
mod position;
mod raw;
mod reader;
mod sink;
mod source;
mod unpack;

use towpath_core::{
    Connector, Name, Result, Sink, Source,
    connector::{SinkRole, SourceRole, build},
    inventory,
};

pub use config::{Compression, Format, OneOrMany, Read, SinkOptions, SourceOptions};
pub use sink::CsvSink;
pub use source::CsvSource;

fn source(_: &Name, options: SourceOptions) -> Result<Box<dyn Source>> {
    Ok(Box::new(CsvSource::new(options)?))
}

fn sink(_: &Name, options: SinkOptions) -> Result<Box<dyn Sink>> {
    Ok(Box::new(CsvSink::new(options)?))
}

inventory::submit! {
    Connector::new("csv", "CSV files, on disk or over HTTP", include_str!("../README.md"))
        .source(SourceRole::of::<SourceOptions>(|name, value| build(name, value, source)))
        .sink(SinkRole::of::<SinkOptions>(|name, value| build(name, value, sink)))
}
