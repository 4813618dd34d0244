#![doc = include_str!("../README.md")]

mod bind;
mod cells;
mod config;
mod error;
mod fence;
mod first;
mod load;
mod reader;
mod shape;
mod sink;
mod source;
mod swap;
mod table;
mod worker;

pub use config::{SinkOptions, SourceOptions};
pub use sink::SqliteSink;
pub use source::SqliteSource;
use towpath_core::{
    Connector,
    connector::{SinkRole, SourceRole, build},
    inventory,
};

fn sink(name: &towpath_core::Name, options: SinkOptions) -> towpath_core::Result<Box<dyn towpath_core::Sink>> {
    Ok(Box::new(SqliteSink::new(name, options)?))
}

fn source(name: &towpath_core::Name, options: SourceOptions) -> towpath_core::Result<Box<dyn towpath_core::Source>> {
    Ok(Box::new(SqliteSource::new(name, options)?))
}

inventory::submit! {
    Connector::new("sqlite", "SQLite tables as source and sink.", include_str!("../README.md"))
        .source(SourceRole::of::<SourceOptions>(|name, value| build(name, value, source)))
        .sink(SinkRole::of::<SinkOptions>(|name, value| build(name, value, sink)))
}
