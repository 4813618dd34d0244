#![doc = include_str!("../README.md")]

mod adopt;
mod bulk;
mod catalog;
mod changes;
mod checkpoints;
mod client;
mod config;
pub mod console;
mod encode;
mod encrypt;
mod error;
mod known;
mod load;
mod login;
mod moments;
mod overheard;
mod refuse;
mod shape;
mod sink;
mod source;
mod statements;
mod transaction;
mod types;

pub use config::{ConnectionOptions, Encrypt, SinkOptions, SourceOptions};
pub use sink::MssqlSink;
use towpath_core::{
    Connector,
    connector::{SinkRole, SourceRole, build},
    inventory,
};

fn sink(name: &towpath_core::Name, options: SinkOptions) -> towpath_core::Result<Box<dyn towpath_core::Sink>> {
    Ok(Box::new(MssqlSink::new(name, options)?))
}

fn source(name: &towpath_core::Name, options: SourceOptions) -> towpath_core::Result<Box<dyn towpath_core::Source>> {
    Ok(Box::new(MssqlSource::new(name, options)?))
}

inventory::submit! {
    Connector::new("mssql", "SQL Server tables as source and sink.", include_str!("../README.md"))
        .source(SourceRole::of::<SourceOptions>(|name, value| build(name, value, source)))
        .sink(SinkRole::of::<SinkOptions>(|name, value| build(name, value, sink)))
}
pub use source::MssqlSource;
