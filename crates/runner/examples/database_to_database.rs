//! Database → logic → database, where the logic is a closure in Rust: what `config/pipelines/db_to_db.yaml` says with expressions, and a
//! step more. The connectors and their options are those of a file; the closure stands where a transform would.
//!
//! `cargo run -p towpath --example database_to_database` with SOURCE_URL and MSSQL_URL set.
#![allow(clippy::print_stdout, reason = "it shows what came of it")]

use std::{path::Path, sync::Arc};

use arrow_array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, cast::AsArray};
use arrow_schema::ArrowError;
use serde_json::json;
// Named, so that the linker keeps the connectors.
use towpath_bundle as _;
use towpath_core::{
    Error, Reject, Result, Share,
    pipeline::{ErrorsSpec, StopAfter, Workers},
};
use towpath_engine::{Engine, Graph, Pipeline, RunOptions};

#[tokio::main]
async fn main() -> Result<()> {
    // Whoever comes first decides which cryptography TLS uses.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = |name: &str| std::env::var(name).map_err(|error| Error::config(name.to_owned()).because(error));
    let graph = graded(&url("SOURCE_URL")?, &url("MSSQL_URL")?)?;
    // Where a run stands, and its dead letters: the next one goes on from there.
    let engine = Engine::open(Path::new("towpath-state"))?;
    println!("{}", engine.plan_graph(&graph).await?);
    let report = engine.run_graph(&graph, RunOptions::default()).await;
    println!("{:?}: {} rows went to the dead letters", report.status, report.dead_letters);
    report.error.map_or(Ok(()), Err)
}

/// Measurements that are new or have changed, graded by four workers, into a table with one row for each.
///
/// # Errors
/// Config: parts that do not fit together.
pub fn graded(source: &str, target: &str) -> Result<Graph> {
    Pipeline::new("graded")
        .source_of(
            "measured",
            "mssql",
            json!({ "connection": source, "table": "dbo.Measurement", "cursor": "Version" }),
        )
        .transform_of(
            "slim",
            &["measured"],
            "select",
            json!({ "columns": ["MeasurementId", "Serial", "Reading", "Limit"] }),
        )
        .try_map("grades", &["slim"], grade)
        .workers(Workers::Fixed(4))
        .sink_of(
            "warehouse",
            &["grades"],
            "mssql",
            json!({ "connection": target, "table": "dbo.Grade", "write": "upsert", "key": ["MeasurementId"] }),
        )
        .errors(ErrorsSpec { stop_after: Some(StopAfter::Share(Share(0.01))), dead_letters: None })
        .build()
}

/// Reads both numbers of each row and says how far the one is from the other, and what that is worth. A row whose reading is no number is
/// faulty: it goes to the dead letters with the reason, and the rest goes on.
fn grade(rows: RecordBatch, faulty: &mut Vec<Reject>) -> Result<RecordBatch> {
    let wrong = |error: ArrowError| Error::internal("the measurements are not as expected").because(error);
    let column = |name: &str| rows.column_by_name(name).map(|column| column.as_string::<i32>());
    let (Some(readings), Some(limits)) = (column("Reading"), column("Limit")) else {
        return Err(Error::config("the measurements lack a reading or a limit"));
    };
    let (mut keep, mut shares, mut grades) = (vec![], vec![], vec![]);
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<f64>().ok());
    for (row, (reading, limit)) in readings.iter().zip(limits).enumerate() {
        let share = number(reading).zip(number(limit)).map(|(reading, limit)| reading / limit);
        keep.push(share.is_some());
        match share {
            None => faulty.push(Reject::row(row, "reading or limit is no number").column("Reading")),
            Some(share) => {
                shares.push(share);
                grades.push(if share <= 0.5 { "good" } else { "worn" });
            }
        }
    }
    let kept = arrow_select::filter::filter_record_batch(&rows, &BooleanArray::from(keep)).map_err(wrong)?;
    let more: [(&str, ArrayRef); 2] =
        [("Share", Arc::new(Float64Array::from(shares))), ("Grade", Arc::new(StringArray::from(grades)))];
    let schema = kept.schema();
    let named = schema.fields().iter().map(|field| field.name().as_str()).zip(kept.columns().iter().cloned());
    RecordBatch::try_from_iter(named.chain(more)).map_err(wrong)
}
