#![doc = include_str!("../README.md")]

use towpath_core::{
    Connector,
    connector::{SourceRole, build},
    inventory,
    pipeline::Guard,
};

mod answer;
mod answers;
mod config;
mod discover;
mod parameters;
mod server;
mod soap;
mod source;
mod url_access;
mod windows;

pub use config::{End, Given, SsrsOptions, WindowOptions};
pub use source::SsrsSource;

/// One request at a time: an old report server takes no more.
const GUARD: Guard = Guard { max_concurrent: Some(1), min_interval: None, busy_share: None };

inventory::submit! {
    Connector::new("ssrs", "Reports of SQL Server Reporting Services, as CSV by URL access", include_str!("../README.md")).source(
        SourceRole::of::<SsrsOptions>(|name, options| build(name, options, SsrsSource::build)).guard(GUARD),
    )
}
