//! A `towpath` with connectors of one's own: `count` gives numbers, `discard` takes rows and drops them.
//!
//! ```yaml
//! sources:
//!   numbers: { type: count, rows: 1000000, pause: 20ms }
//! sinks:
//!   nowhere: { type: discard, inputs: [numbers] }
//! ```
//! `cargo run --example own_connectors -- run numbers.yaml`

use std::{process::ExitCode, sync::Arc};

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_core::{
    Checkpoint, Connector, Context, Error, Held, Known, Mark, Next, Partition, Period, Piece, Position, Reject, Result,
    Resume, RowPosition, Run, Sink, SinkPlan, Source, SourcePlan, Work, WriteMode, Wrote,
    connector::{SinkRole, SourceRole, build},
    inventory,
    sink::Guarantee,
    source::{Discovery, Replay},
};

fn main() -> ExitCode {
    towpath::main()
}

inventory::submit! {
    Connector::new("count", "Numbers from 0", "# count\n\nGives the numbers from 0 on, in batches of 100.")
        .source(SourceRole::of::<CountOptions>(|name, options| build(name, options, |_, options| Ok(Box::new(Count { options, at: 0 }) as Box<dyn Source>))))
}

inventory::submit! {
    Connector::new("discard", "Drops rows", "# discard\n\nTakes rows and drops them: to try a source.")
        .sink(SinkRole::of::<DiscardOptions>(|name, options| build(name, options, |_, options| Ok(Box::new(Discard(options)) as Box<dyn Sink>))))
}

/// Rows in a piece.
const PIECE: u64 = 100;

/// Options of `count`.
#[derive(Deserialize, JsonSchema)]
struct CountOptions {
    /// How many numbers.
    rows: u64,
    /// How long to wait before each batch. Default: 0s
    #[serde(default)]
    pause: Option<Period>,
    /// How long to wait before each batch but the first. Default: 0s
    #[serde(default)]
    then_pause: Option<Period>,
    /// Give a bad row with each batch. Default: false
    #[serde(default)]
    bad: bool,
}

struct Count {
    options: CountOptions,
    at: u64,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)]))
}

#[async_trait]
impl Source for Count {
    async fn plan(&mut self, _: &Context, _: &Run, _: &Resume) -> Result<SourcePlan> {
        Ok(SourcePlan {
            schema: Known::Now(schema()),
            work: vec![Work {
                what: format!("numbers up to {}", self.options.rows),
                bytes: Some(8 * self.options.rows),
            }],
            complete_work: true,
            replay: Replay::FromPosition,
            carries: false,
            rereads: false,
            identity: "count".to_owned(),
            notes: vec![],
        })
    }

    async fn open(&mut self, ctx: &Context, run: &Run, resume: &Resume) -> Result<()> {
        let position = resume.same_run(run).and_then(|from| from.position(ctx.component(), &Partition::new("numbers")));
        if let Some(position) = position {
            self.at = position.0.parse().map_err(|_| Error::conflict(format!("'{position}' is not a number")))?;
        }
        ctx.expect_bytes(8 * self.options.rows.saturating_sub(self.at));
        Ok(())
    }

    async fn next(&mut self) -> Result<Next> {
        let pause = if self.at > 0 { self.options.then_pause.or(self.options.pause) } else { self.options.pause };
        if self.at >= self.options.rows {
            return Ok(Next::End);
        }
        // Nothing is changed before this await, so the call may be dropped here.
        if let Some(pause) = pause {
            tokio::time::sleep(pause.0).await;
        }
        let end = (self.at + PIECE).min(self.options.rows);
        let numbers: Int64Array = (self.at..end).map(|number| i64::try_from(number).ok()).collect();
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(numbers)])
            .map_err(|error| Error::internal("cannot count").because(error))?;
        let mut piece = Piece::new(rows, Mark::At(Partition::new("numbers"), Position::new(end.to_string())));
        piece.bytes = 8 * (end - self.at);
        if self.options.bad {
            let position = RowPosition { record: end, line: end + 1, byte: 8 * end };
            piece.rejects.push(Reject::bytes("minus one".into(), position, "this is not a number"));
        }
        self.at = end;
        Ok(Next::Piece(Box::new(piece)))
    }

    async fn close(&mut self) -> Result<()> {
        Ok(())
    }

    async fn discover(&mut self, _: &Context) -> Result<Discovery> {
        Ok(Discovery { text: "count:\n  rows: 100\n".to_owned(), items: serde_json::json!({ "rows": 100 }) })
    }
}

/// Options of `discard`.
#[derive(Deserialize, JsonSchema)]
struct DiscardOptions {
    /// Fail at the first row instead. Default: false
    #[serde(default)]
    fail: bool,
    /// Have a defect: panic when it is opened. Default: false
    #[serde(default)]
    panic: bool,
}

struct Discard(DiscardOptions);

#[async_trait]
impl Sink for Discard {
    async fn plan(&mut self, _: &Context, _: &Known) -> Result<SinkPlan> {
        Ok(SinkPlan {
            mode: WriteMode::Append,
            guarantee: Guarantee::AtLeastOnce,
            early_publish: false,
            identity: "discard".to_owned(),
            notes: vec![],
        })
    }
    async fn open(&mut self, _: &Context, _: &Run) -> Result<Held> {
        assert!(!self.0.panic, "a defect of this connector");
        Ok(Held::ByEngine)
    }
    async fn schema(&mut self, _: &SchemaRef) -> Result<Option<String>> {
        Ok(None)
    }
    async fn write(&mut self, _: u64, rows: RecordBatch) -> Result<Wrote> {
        if self.0.fail {
            let full = std::io::Error::other("it is full");
            return Err(Error::new(towpath_core::ErrorKind::NotFound, "cannot drop rows")
                .because(full)
                .hint("take out `fail`"));
        }
        Ok(Wrote { written: rows.num_rows() as u64, ..Wrote::default() })
    }
    async fn flush(&mut self) -> Result<Wrote> {
        Ok(Wrote::default())
    }
    async fn commit(&mut self, _: &Checkpoint) -> Result<()> {
        Ok(())
    }
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
