//! The example of the README is a pipeline that can be planned.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use common::{context, run, write};
use serde_json::Value;
use towpath_core::{Connector, Known, Resume, WriteMode};

#[tokio::test]
async fn the_example_can_be_planned() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.csv", "OrderID,Amount,Ordered\n1,10.50,2026-01-31\n");
    let readme = include_str!("../README.md");
    let example = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let example = example
        .replace("/data/orders", &folder.path().display().to_string())
        .replace("/data/", &format!("{}/", folder.path().display()));
    let pipeline: Value = serde_saphyr::from_str(&example).expect("YAML");
    let options = |role: &str, name: &str| {
        let mut options = pipeline[role][name].as_object().cloned().expect("a component");
        assert_eq!(options.remove("type"), Some("csv".into()));
        options.remove("inputs");
        Value::Object(options)
    };
    let connector = {
        context();
        Connector::find("csv").expect("it is registered")
    };
    let mut source =
        (connector.source.as_ref().expect("a source").build)(&"orders".into(), options("sources", "orders"))
            .expect("a source");
    let plan = source.plan(&context().for_plan(), &run("r1"), &Resume::default()).await.expect("a plan");
    assert_eq!(plan.work.len(), 1);
    let Known::Now(schema) = &plan.schema else { panic!("{:?}", plan.schema) };
    assert_eq!(
        schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
        ["OrderID", "Amount", "Ordered", "_source"]
    );
    let mut sink =
        (connector.sink.as_ref().expect("a sink").build)(&"all_orders".into(), options("sinks", "all_orders"))
            .expect("a sink");
    assert_eq!(sink.plan(&context().for_plan(), &plan.schema).await.expect("a plan").mode, WriteMode::Append);
}

#[test]
fn the_roles_have_schemas_of_their_options() {
    context();
    let connector = Connector::find("csv").expect("it is registered");
    for (role, keys) in [
        (
            towpath_core::pipeline::Role::Source,
            ["path", "url", "auth", "timeouts", "columns", "delimiter", "read"].as_slice(),
        ),
        (towpath_core::pipeline::Role::Sink, ["path", "format", "write"].as_slice()),
    ] {
        let schema = serde_json::to_value(connector.schema(role).expect("a schema")).expect("JSON");
        for key in keys {
            assert!(
                schema["properties"][key].is_object(),
                "{key} is not among {:?}",
                schema["properties"].as_object().map(|all| all.keys().collect::<Vec<_>>())
            );
        }
    }
}
