#![doc = include_str!("../README.md")]

mod bind;
mod config;
mod error;
mod fence;
mod formats_stub;
mod load;
mod shape;
mod sink;
mod stage;
mod swap;
mod table;
mod worker;

pub use config::{KeySpec, RowHash, SinkOptions, SourceOptions};
pub use sink::SqliteSink;
use towpath_core::{
    Connector,
    connector::{SinkRole, build},
    inventory,
};

fn sink(name: &towpath_core::Name, options: SinkOptions) -> towpath_core::Result<Box<dyn towpath_core::Sink>> {
    Ok(Box::new(SqliteSink::new(name, options)?))
}

inventory::submit! {
    Connector::new("sqlite", "SQLite tables as source and sink.", include_str!("../README.md"))
        .sink(SinkRole::of::<SinkOptions>(|name, value| build(name, value, sink)))
}
