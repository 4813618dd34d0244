//! The page people read: its example is built and planned, and what is said of the options is what the schema says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use common::{Place, ctx, run};
use serde_json::Value;
use towpath_connector_sqlite as _;
use towpath_core::{Connector, Known, Resume, pipeline::Role};

#[tokio::test]
async fn the_example_plans() {
    let connector = Connector::find("sqlite").unwrap();
    let yaml = connector.readme.split("```yaml").nth(1).unwrap().split("```").next().unwrap();
    let example: Value = serde_saphyr::from_str(yaml).unwrap();
    let place = Place::new();
    place.sql("CREATE TABLE readings (id INTEGER PRIMARY KEY, station TEXT, taken_at DATETIME, torque REAL)");
    let options = |role: &str, name: &str| {
        let mut options = example[role][name].clone();
        let object = options.as_object_mut().unwrap();
        assert_eq!(object.remove("type").unwrap(), "sqlite");
        object.remove("inputs");
        object.insert("path".to_owned(), place.path().to_str().unwrap().into());
        options
    };
    let (name, role) = ("machines".into(), connector.source.as_ref().unwrap());
    let mut source = (role.build)(&name, options("sources", "machines")).unwrap();
    let plan = source.plan(&ctx().for_plan(), &run("r"), &Resume::default()).await.unwrap();
    assert!(plan.carries && matches!(plan.schema, Known::Now(_)));
    let (name, role) = ("log".into(), connector.sink.as_ref().unwrap());
    let mut sink = (role.build)(&name, options("sinks", "log")).unwrap();
    let plan = sink.plan(&ctx().for_plan(), &plan.schema).await.unwrap();
    assert!(plan.early_publish);
    assert_eq!(
        plan.notes,
        [
            "makes table production_log: CREATE TABLE \"production_log\" (\n  \"id\" INTEGER,\n  \"station\" TEXT,\n  \"taken_at\" TEXT,\n  \
          \"torque\" REAL,\n  \"row_hash\" BLOB NOT NULL\n) STRICT"
        ]
    );
    assert!(plan.identity.ends_with("data.db table=production_log insert_new key=row_hash"), "{}", plan.identity);
    assert_eq!(place.ask("SELECT name FROM sqlite_schema"), ["readings"], "a plan changes nothing");
}

#[test]
fn unknown_and_missing_options_are_refused() {
    let connector = Connector::find("sqlite").unwrap();
    for (role, options, expect) in [
        (Role::Sink, r#"{"path": "x", "table": "t", "write": "append", "keys": []}"#, "unknown field `keys`"),
        (Role::Sink, r#"{"path": "x", "table": "t", "write": "merge"}"#, "write: unknown variant `merge`"),
        (Role::Sink, r#"{"path": ":memory:", "table": "t", "write": "append"}"#, "path: must name a file"),
        (Role::Source, r#"{"path": "x"}"#, "a sqlite source reads either a `table` or a `query`"),
        (
            Role::Source,
            r#"{"path": "x", "table": "t", "query": "q"}"#,
            "a sqlite source reads either a `table` or a `query`",
        ),
    ] {
        let error = connector.check(role, &"x".into(), serde_json::from_str(options).unwrap()).unwrap_err();
        assert!(error.to_string().contains(expect), "{error}");
    }
}

#[test]
fn every_option_is_documented() {
    let connector = Connector::find("sqlite").unwrap();
    for role in [Role::Source, Role::Sink] {
        let schema = connector.schema(role).unwrap();
        for (name, option) in schema.get("properties").and_then(Value::as_object).unwrap() {
            assert!(option.get("description").is_some(), "{name}");
        }
    }
}
