#![doc = include_str!("../README.md")]

mod answers;
mod budget;
mod cells;
mod client;
mod compare;
mod config;
mod entity;
mod existing;
mod fields;
mod index;
mod page;
mod rows;
mod send;
mod shape;
mod sink;
mod value;

use towpath_core::{
    Connector,
    connector::{SinkRole, build},
    inventory,
};

pub use config::{AccountOptions, SinkOptions, SourceOptions};
pub use sink::PipedriveSink;

inventory::submit! {
    Connector::new("pipedrive", "Persons, deals and the like of Pipedrive, kept equal or read", include_str!("../README.md"))
        .sink(SinkRole::of::<SinkOptions>(|name, options| build(name, options, PipedriveSink::build)).tells_differences())
}
