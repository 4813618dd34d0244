#![doc = include_str!("../README.md")]

mod bridge;
mod compact;
mod config;
mod driver;
mod input;
mod join;
mod problem;
mod query;
mod rule;
mod shuffle;
mod spill;
mod store;
mod transform;

#[doc(hidden)]
pub use config::Narrow;
pub use config::SqlOptions;
use towpath_core::{
    Connector, Name, Result, Transform,
    connector::{TransformRole, build},
    inventory,
};
pub use transform::Sql;

fn make(_: &Name, options: SqlOptions) -> Result<Box<dyn Transform>> {
    Ok(Box::new(Sql::new(options)?))
}

inventory::submit! {
    Connector::new("sql", "Joins and sums inputs by a query, in little memory", include_str!("../README.md"))
        .transform(TransformRole::of::<SqlOptions>(|name, value| build(name, value, make)))
}
