//! Pipelines built in Rust that do not fit together are refused in words, before anything is opened.
#![allow(clippy::unwrap_used, reason = "it is what makes a test fail")]

use towpath_core::{ErrorKind, Result, WriteMode};
use towpath_engine::{Engine, Graph, Pipeline};
use towpath_testkit::memory::{Key, MemoryOrigin, MemoryTarget};

/// A source `s` and a sink `k`, and whatever else is built.
fn build(more: impl FnOnce(Pipeline) -> Pipeline) -> Result<Graph> {
    let origin = MemoryOrigin::new();
    more(Pipeline::new("p").source("s", move || Ok(origin.source()))).build()
}

fn sink(pipeline: Pipeline, name: &str, inputs: &[&str]) -> Pipeline {
    let target = MemoryTarget::new();
    pipeline.sink(name, inputs, move || Ok(target.sink(WriteMode::Append, Key::RowHash)))
}

#[test]
fn parts_that_do_not_fit_together() {
    let pass = |pipeline: Pipeline, name: &str, inputs: &[&str]| pipeline.map(name, inputs, Ok);
    type More = Box<dyn FnOnce(Pipeline) -> Pipeline>;
    let cases: [(&str, More); 12] = [
        ("pipeline p: a pipeline needs at least one source and one sink", Box::new(|p| p)),
        ("two components are called 's'", Box::new(|p| sink(p, "s", &["s"]))),
        ("'a/b' is not a component's name: leave out '+' and '/'", Box::new(|p| sink(p, "a/b", &["s"]))),
        ("sink k: it has no inputs", Box::new(|p| sink(p, "k", &[]))),
        ("sink k: its input 'x' is not a source or transform", Box::new(|p| sink(p, "k", &["s", "x"]))),
        ("'t' leads to no sink", Box::new(move |p| sink(pass(p, "t", &["s"]), "k", &["s"]))),
        (
            "inputs of 't', 'u' are missing, unknown or go round in a circle",
            Box::new(move |p| sink(pass(pass(p, "t", &["u"]), "u", &["t"]), "k", &["u"])),
        ),
        ("inputs of 't' are missing", Box::new(move |p| sink(pass(p, "t", &["nowhere"]), "k", &["t"]))),
        ("inputs of 't' are missing", Box::new(move |p| sink(pass(p, "t", &[]), "k", &["t"]))),
        (
            "pipeline p: sink k: there is no sink of type 'nothing'",
            Box::new(|p| p.sink_of("k", &["s"], "nothing", serde_json::json!({}))),
        ),
        ("`after` of 'k' names an unknown sink", Box::new(|p| sink(p, "k", &["s"]).after(&["nobody"]))),
        (
            "`after` of 'k', 'l' names an unknown sink or goes round in a circle",
            Box::new(|p| sink(sink(p, "k", &["s"]).after(&["l"]), "l", &["s"]).after(&["k"])),
        ),
    ];
    for (says, more) in cases {
        let error = build(more).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    build(move |p| sink(pass(p, "t", &["s"]), "k", &["t", "s"])).unwrap();
}

#[tokio::test]
async fn a_channel_is_read_once() {
    let (to, batches) = tokio::sync::mpsc::channel(1);
    drop(to);
    let target = MemoryTarget::new();
    let graph = Pipeline::new("p")
        .channel("s", batches)
        .sink("k", &["s"], move || Ok(target.sink(WriteMode::Append, Key::RowHash)))
        .build()
        .unwrap();
    let engine = Engine::in_memory().unwrap();
    assert_eq!(engine.run_graph(&graph, Default::default()).await.exit_code(), 0);
    let report = engine.run_graph(&graph, Default::default()).await;
    assert!(report.error.unwrap().to_string().contains("a channel can be read only once"));
}
