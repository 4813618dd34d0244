#![doc = include_str!("../README.md")]

mod answers;
mod budget;
mod cells;
mod client;
mod columns;
mod compare;
mod config;
mod discover;
mod entity;
mod existing;
mod fields;
mod index;
mod page;
mod rows;
mod send;
mod shape;
mod sink;
mod source;
mod value;

use towpath_core::{
    Connector,
    connector::{SinkRole, SourceRole, build},
    inventory,
};

pub use config::{AccountOptions, SinkOptions, SourceOptions};
pub use sink::PipedriveSink;
pub use source::PipedriveSource;

inventory::submit! {
    Connector::new("pipedrive", "Persons, deals and the like of Pipedrive, kept equal or read", include_str!("../README.md"))
        .source(SourceRole::of::<SourceOptions>(|name, options| build(name, options, PipedriveSource::build)))
        .sink(SinkRole::of::<SinkOptions>(|name, options| build(name, options, PipedriveSink::build)).tells_differences())
}
