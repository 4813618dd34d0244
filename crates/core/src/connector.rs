//! Registration: how a connector or transform becomes a `type` of the config.
//!
//! A connector crate submits one [`Connector`]; the linker collects them; the config finds them by name. Cargo drops
//! crates that nobody names, so the bundle names them.
//!
//! ```
//! use towpath_core::{Connector, connector::SourceRole, inventory};
//! # use towpath_core::*;
//! # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Options { url: String }
//! # struct Mine; impl Mine { fn new(_: &Name, _: Options) -> Result<Box<dyn Source>> { Err(Error::unsupported("")) } }
//! inventory::submit! {
//!     Connector::new("mine", "Rows from my service", include_str!("../Cargo.toml"))
//!         .source(SourceRole::of::<Options>(|name, value| connector::build(name, value, Mine::new)))
//! }
//! ```

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    pipeline::{Guard, Name, Role},
    sink::Sink,
    source::Source,
    transform::Transform,
};

/// A connector or transform, as it registers itself.
pub struct Connector {
    /// The `type` in the config.
    pub name: &'static str,
    /// One line: what it is for.
    pub summary: &'static str,
    /// Its README: the crate's documentation and the reference page.
    pub readme: &'static str,
    /// As a source.
    pub source: Option<SourceRole>,
    /// As a transform.
    pub transform: Option<TransformRole>,
    /// As a sink.
    pub sink: Option<SinkRole>,
}

inventory::collect!(Connector);

/// Makes a component from its name in the pipeline and its options.
pub type Build<T> = fn(&Name, Value) -> Result<Box<T>>;

/// One role of a connector.
pub struct RoleOf<T: ?Sized> {
    /// The JSON Schema of its options: names, types, documentation.
    pub schema: fn() -> Schema,
    /// Makes one.
    pub build: Build<T>,
    /// The limits it keeps where the config sets none.
    pub guard: Guard,
    /// A sink that [proposes](crate::Context::propose) every change before it sends it, so that a plan can show them.
    pub differences: bool,
}

/// The role of a source.
pub type SourceRole = RoleOf<dyn Source>;
/// The role of a transform.
pub type TransformRole = RoleOf<dyn Transform>;
/// The role of a sink.
pub type SinkRole = RoleOf<dyn Sink>;

impl<T: ?Sized> RoleOf<T> {
    /// A role whose options are a `C`.
    pub const fn of<C: JsonSchema>(build: Build<T>) -> Self {
        Self {
            schema: schema_of::<C>,
            build,
            guard: Guard { max_concurrent: None, min_interval: None, busy_share: None },
            differences: false,
        }
    }
    /// The limits it keeps where the config sets none.
    #[must_use]
    pub const fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }
    /// As a sink it [proposes](crate::Context::propose) every change before it sends it, keeps its checkpoint [by the
    /// engine](crate::Held::ByEngine), and goes on where a change is withheld as if it had been sent.
    #[must_use]
    pub const fn tells_differences(mut self) -> Self {
        self.differences = true;
        self
    }
}

impl Connector {
    /// A connector without roles.
    pub const fn new(name: &'static str, summary: &'static str, readme: &'static str) -> Self {
        Self { name, summary, readme, source: None, transform: None, sink: None }
    }
    /// Adds the source.
    #[must_use]
    pub const fn source(mut self, role: SourceRole) -> Self {
        self.source = Some(role);
        self
    }
    /// Adds the transform.
    #[must_use]
    pub const fn transform(mut self, role: TransformRole) -> Self {
        self.transform = Some(role);
        self
    }
    /// Adds the sink.
    #[must_use]
    pub const fn sink(mut self, role: SinkRole) -> Self {
        self.sink = Some(role);
        self
    }

    /// All connectors linked into this program, by name.
    pub fn all() -> Vec<&'static Self> {
        let mut all: Vec<_> = inventory::iter::<Self>.into_iter().collect();
        all.sort_by_key(|connector| connector.name);
        all
    }
    /// The connector of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        inventory::iter::<Self>.into_iter().find(|connector| connector.name == name)
    }
    /// The schema of its options in a role, if it has that role.
    pub fn schema(&self, role: Role) -> Option<Schema> {
        match role {
            Role::Source => self.source.as_ref().map(|role| (role.schema)()),
            Role::Transform => self.transform.as_ref().map(|role| (role.schema)()),
            Role::Sink => self.sink.as_ref().map(|role| (role.schema)()),
        }
    }
    /// Whether options make a component, without keeping it.
    pub fn check(&self, role: Role, name: &Name, options: Value) -> Result<()> {
        let none = || Error::config(format!("'{}' is no {}", self.name, role.name()));
        match role {
            Role::Source => self.source.as_ref().ok_or_else(none)?.build_checked(name, options).map(drop),
            Role::Transform => self.transform.as_ref().ok_or_else(none)?.build_checked(name, options).map(drop),
            Role::Sink => self.sink.as_ref().ok_or_else(none)?.build_checked(name, options).map(drop),
        }
    }
}

impl<T: ?Sized> RoleOf<T> {
    fn build_checked(&self, name: &Name, options: Value) -> Result<Box<T>> {
        (self.build)(name, options)
    }
}

fn schema_of<C: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    SchemaGenerator::new(settings).into_root_schema_for::<C>()
}

/// Reads options into `C` and makes a component from it. Errors name the key: `parameters.From: …`.
pub fn build<C: DeserializeOwned, T: ?Sized>(
    name: &Name,
    options: Value,
    make: impl Fn(&Name, C) -> Result<Box<T>>,
) -> Result<Box<T>> {
    let options: C = serde_path_to_error::deserialize(options).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." { Error::config(inner.to_string()) } else { Error::config(format!("{path}: {inner}")) }
    })?;
    make(name, options)
}

/// The connectors that have a role, by name: for messages.
pub fn names(role: Role) -> Vec<&'static str> {
    let has = |connector: &&'static Connector| match role {
        Role::Source => connector.source.is_some(),
        Role::Transform => connector.transform.is_some(),
        Role::Sink => connector.sink.is_some(),
    };
    Connector::all().into_iter().filter(has).map(|connector| connector.name).collect()
}
