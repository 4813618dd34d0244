//! Reading with a source, and what came of it.

use serde_json::{Value, json};
use towpath_connector_mssql::MssqlSource;
use towpath_core::{Checkpoint, Context, Mark, Next, Partition, Position, Result, Resume, Source as _};

use crate::common::{Place, run, text};

/// What a source gave.
#[derive(Debug, Default)]
pub struct Given {
    pub rows: Vec<String>,
    pub rejects: Vec<String>,
    /// Marks, with how many rows had been given by then.
    pub marks: Vec<(usize, Mark)>,
}

impl Given {
    pub fn last(&self) -> Option<Position> {
        self.marks.iter().rev().find_map(|(_, mark)| match mark {
            Mark::At(_, position) => Some(position.clone()),
            _ => None,
        })
    }
    pub fn sorted(mut self) -> Vec<String> {
        self.rows.sort();
        self.rows
    }
}

pub fn ctx() -> Context {
    Context::bare("source")
}

/// A source of a place; its table is `t`, if the options name none. `$` stands for the schema.
pub fn source(place: &Place, mut options: Value) -> MssqlSource {
    options["connection"] = json!(place.url);
    if options.get("query").is_none() && options.get("table").is_none() {
        options["table"] = json!("$.t");
    }
    for option in ["query", "table"] {
        if let Some(text) = options.get(option).and_then(Value::as_str).map(|text| text.replace('$', &place.schema)) {
            options[option] = json!(text);
        }
    }
    MssqlSource::new(&"source".into(), serde_json::from_value(options).unwrap()).unwrap()
}

/// Reads with a new source from `open` to the end.
pub async fn read(place: &Place, options: Value, run_id: &str, resume: &Resume) -> Result<Given> {
    let mut source = source(place, options);
    let read = to_end(&mut source, run_id, resume).await;
    source.close().await?;
    read
}

async fn to_end(source: &mut MssqlSource, run_id: &str, resume: &Resume) -> Result<Given> {
    let mut given = Given::default();
    source.open(&ctx(), &run(run_id), resume).await?;
    let mut count = 0;
    loop {
        match source.next().await? {
            Next::Piece(piece) => {
                assert_eq!(piece.first_row, Some(count));
                count += piece.rows.num_rows() as u64;
                given.rows.extend(text(&piece.rows));
                given.rejects.extend(piece.rejects.into_iter().map(|reject| reject.reason));
                given.marks.push((given.rows.len(), piece.mark));
            }
            Next::Idle => panic!("a table is never idle"),
            Next::End => return Ok(given),
        }
    }
}

fn at(place: &Place, run_id: &str, position: &Position) -> Checkpoint {
    let partitions =
        [format!("{}.t", place.schema), "query".to_owned()].map(|name| (Partition::new(name), position.clone()));
    Checkpoint {
        run: run(run_id),
        epoch: 1,
        last: false,
        keyed_by: None,
        at: [("source".into(), partitions.into())].into(),
    }
}

/// Behind a position that another run has reached.
pub fn behind(place: &Place, position: &Position) -> Resume {
    Resume { from: Some(at(place, "run-0", position)), ..Resume::default() }
}

/// From one position to another, of the same run.
pub fn between(place: &Place, from: Option<&Position>, until: &Position) -> Resume {
    let from = from.map(|from| at(place, "run-1", from));
    Resume { from, until: Some(at(place, "run-1", until)), whole: false }
}
