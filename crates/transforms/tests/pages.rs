//! Each transform's page: its example is one that the config takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use serde_json::Value;
use towpath_core::{Connector, pipeline::Role};

#[test]
fn the_examples_of_the_pages_are_taken() {
    towpath_transforms::link();
    let names = ["cast", "dedupe", "filter", "rename", "select"];
    let registered: Vec<_> = Connector::all().iter().map(|connector| connector.name).collect();
    assert_eq!(registered, names);
    for connector in Connector::all() {
        let name = connector.name;
        assert!(connector.readme.starts_with(&format!("# {name}\n")), "{name}: the page's title");
        let example = connector.readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let example = common::options(example);
        let transforms = example["transforms"].as_object().unwrap();
        assert!(!transforms.is_empty());
        for (component, options) in transforms {
            let mut options = options.as_object().unwrap().clone();
            assert_eq!(options.shift_remove("type"), Some(Value::from(name)));
            assert!(options.shift_remove("inputs").is_some());
            connector.check(Role::Transform, &component.as_str().into(), Value::Object(options)).unwrap();
        }
        let schema = serde_json::to_value(connector.schema(Role::Transform).unwrap()).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{name}");
        for (option, schema) in schema["properties"].as_object().unwrap() {
            let text = schema.to_string();
            assert!(text.contains("\"description\""), "{name}: {option} says nothing: {text}");
        }
    }
}
