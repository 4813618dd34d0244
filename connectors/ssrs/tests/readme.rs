//! The example of the README can be planned.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use serde_json::Value;
use towpath_core::{Connector, Context, Resume, pipeline::Role};

mod support;
use support::{NAME, PASSWORD, make, run, server};

/// The first YAML block.
fn example() -> Value {
    let readme = Connector::find("ssrs").unwrap().readme;
    let text = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    serde_saphyr::from_str(text).unwrap()
}

#[tokio::test]
async fn the_example_is_planned() {
    let server = server().start().await;
    let mut options = example()["sources"][NAME].clone();
    for of_every_component in ["type", "guard"] {
        assert!(options.as_object_mut().unwrap().remove(of_every_component).is_some());
    }
    options["url"] = server.url().into();
    options["auth"]["password"] = PASSWORD.into();
    Connector::find("ssrs").unwrap().check(Role::Source, &NAME.into(), options.clone()).unwrap();
    let mut source = make(options).unwrap();
    let run = run("r", "2026-03-02T05:20:00Z");
    let plan = source.plan(&Context::bare(NAME).for_plan(), &run, &Resume::default()).await.unwrap();
    assert_eq!(plan.work.len(), 1);
    assert_eq!(plan.notes, ["Line: all is 3 values now"]);
}
