//! A pipeline built in Rust: a channel as source, a closure as transform, a sink. Run it with
//! `cargo run -p towpath-engine --example pipeline`.
#![allow(clippy::print_stdout, reason = "it shows what came of it")]

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use towpath_core::{Error, Result, WriteMode};
use towpath_engine::{Engine, Pipeline, RunOptions};
use towpath_testkit::memory::{Key, MemoryTarget};

#[tokio::main]
async fn main() -> Result<()> {
    let (sender, batches) = tokio::sync::mpsc::channel(4);
    let target = MemoryTarget::new();
    let table = target.clone();
    let graph = Pipeline::new("squares")
        .channel("numbers", batches)
        .map("squared", &["numbers"], |rows| {
            numbers(rows.column(0).as_primitive::<Int64Type>().iter().flatten().map(|n| n * n))
        })
        .sink("table", &["squared"], move || Ok(table.sink(WriteMode::Append, Key::None)))
        .build()?;
    tokio::spawn(async move {
        for start in (0..1000).step_by(100) {
            // Fails when the run has ended early: then nobody wants the rest.
            let Ok(()) = sender.send(numbers(start..start + 100)?).await else { break };
        }
        Ok::<_, Error>(())
    });
    let report = Engine::in_memory()?.run_graph(&graph, RunOptions::default()).await;
    println!("{:?}: {} rows in the table", report.status, target.rows().map_or(0, |rows| rows.len()));
    report.error.map_or(Ok(()), Err)
}

fn numbers(values: impl IntoIterator<Item = i64>) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    RecordBatch::try_from_iter([("n", column)]).map_err(|error| Error::internal("no batch").because(error))
}
