//! The source's thread: one query, read from beginning to end in one transaction, handed on piece by piece.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow_schema::{Schema, SchemaRef};
use rusqlite::{
    Connection, OpenFlags, Row,
    types::{Value, ValueRef},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use towpath_core::{Error, Mark, Next, Partition, Piece, Position, Reject, Result, RowPosition};
use towpath_formats::seam;

use crate::{
    cells::{Misfit, Rows, field},
    config::SourceOptions,
    error::During as _,
    table::quote,
};

/// Rows of a piece.
const PIECE: usize = 8192;
/// A piece ends behind so many bytes, however few its rows.
const PIECE_BYTES: u64 = 1 << 20;
/// Where a cursor stands.
pub(crate) type Seam = seam::Seam<Cursor>;

/// A cursor's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Cursor {
    Integer(i64),
    /// In digits, because JSON's numbers lose the last one.
    Real {
        real: String,
    },
    Text(String),
}

impl Cursor {
    fn of(value: ValueRef<'_>) -> Option<Self> {
        Some(match value {
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real { real: format!("{number:?}") },
            ValueRef::Text(text) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Null | ValueRef::Blob(_) => return None,
        })
    }
    fn value(&self) -> Value {
        match self {
            Self::Integer(number) => Value::Integer(*number),
            Self::Real { real } => real.parse().map_or(Value::Null, Value::Real),
            Self::Text(text) => Value::Text(text.clone()),
        }
    }
}

/// What is to be read.
pub(crate) struct Job {
    pub(crate) options: Arc<SourceOptions>,
    pub(crate) partition: Partition,
    pub(crate) run: String,
    /// Begin behind this.
    pub(crate) from: Option<Seam>,
    /// End exactly here, as it is written in the checkpoint.
    pub(crate) until: Option<Position>,
}

/// Opens a file for reading only.
pub(crate) fn open(path: &Path, options: &SourceOptions) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).during("open the database for reading")?;
    db.busy_timeout(options.lock_timeout.0).during("set up the connection")?;
    db.pragma_update(None, "cache_size", -4096).during("set up the connection")?;
    db.pragma_update(None, "temp_store", "FILE").during("set up the connection")?;
    // Whatever a query says: nothing is changed.
    db.pragma_update(None, "query_only", true).during("set up the connection")?;
    Ok(db)
}

/// What is selected from, as SQL.
fn from_clause(options: &SourceOptions) -> String {
    match (&options.table, &options.query) {
        (Some(table), _) => quote(table),
        (None, Some(query)) => format!("(\n{}\n)", query.trim().trim_end_matches(';')),
        (None, None) => String::new(),
    }
}

/// The columns of a query, by their declared types.
pub(crate) fn schema_of(db: &Connection, options: &SourceOptions) -> Result<SchemaRef> {
    let sql = format!("SELECT * FROM {}", from_clause(options));
    let query = db.prepare(&sql).during("prepare the query")?;
    let fields: Vec<_> = query.columns().map(|column| field(column.name(), column.decl_type().unwrap_or(""))).collect();
    let schema = Schema::new(fields);
    if let Some(cursor) = &options.cursor
        && !schema.fields().iter().any(|field| field.name().eq_ignore_ascii_case(cursor))
    {
        return Err(Error::config(format!("cursor: there is no column {cursor}")));
    }
    Ok(Arc::new(schema))
}

/// A row's hash over type and bytes of every cell.
fn hash(row: &Row<'_>, columns: usize, bytes: &mut Vec<u8>) -> rusqlite::Result<u128> {
    bytes.clear();
    for at in 0..columns {
        let (kind, cell): (u8, &[u8]) = match row.get_ref(at)? {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(number) => (1, &number.to_le_bytes()),
            ValueRef::Real(number) => (2, &number.to_le_bytes()),
            ValueRef::Text(text) => (3, text),
            ValueRef::Blob(blob) => (4, blob),
        };
        bytes.push(kind);
        bytes.extend_from_slice(&(cell.len() as u64).to_le_bytes());
        bytes.extend_from_slice(cell);
    }
    Ok(xxhash_rust::xxh3::xxh3_128(bytes))
}

/// A row as JSON, for the dead letters.
fn as_json(row: &Row<'_>, schema: &Schema) -> rusqlite::Result<Vec<u8>> {
    let mut object = serde_json::Map::new();
    for (at, field) in schema.fields().iter().enumerate() {
        let value = match row.get_ref(at)? {
            ValueRef::Null => serde_json::Value::Null,
            ValueRef::Integer(number) => number.into(),
            ValueRef::Real(number) => number.into(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
            ValueRef::Blob(blob) => blob.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        };
        object.insert(field.name().clone(), value);
    }
    Ok(serde_json::Value::Object(object).to_string().into_bytes())
}

/// A piece in the making.
struct Making<'a> {
    job: &'a Job,
    schema: SchemaRef,
    rows: Rows,
    rejects: Vec<Reject>,
    bytes: u64,
    first: u64,
    count: u64,
    to: &'a mpsc::Sender<Result<Next>>,
}

impl Making<'_> {
    fn take(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        if let Err(Misfit { column, reason }) = self.rows.push(row)? {
            let position = RowPosition { record: self.count + 1, line: 0, byte: 0 };
            let json = as_json(row, &self.schema)?;
            self.rejects.push(Reject::bytes(json.into(), position, reason).column(column));
        }
        self.count += 1;
        Ok(())
    }
    fn is_full(&self) -> bool {
        self.rows.count() + self.rejects.len() >= PIECE || self.bytes >= PIECE_BYTES
    }
    /// Hands the piece on. False: nobody takes it any more.
    fn send(&mut self, mark: Mark) -> Result<bool> {
        let mut piece = Piece::new(self.rows.finish()?, mark);
        piece.rejects = std::mem::take(&mut self.rejects);
        piece.bytes = std::mem::take(&mut self.bytes);
        piece.first_row = Some(std::mem::replace(&mut self.first, self.count));
        Ok(self.to.blocking_send(Ok(Next::Piece(Box::new(piece)))).is_ok())
    }
    fn has_rows(&self) -> bool {
        self.count > self.first
    }
}

/// Reads to the end, or until nobody listens.
pub(crate) fn read(db: &Connection, job: &Job, to: &mpsc::Sender<Result<Next>>) -> Result<()> {
    let schema = schema_of(db, &job.options)?;
    let rows = Rows::new(&schema);
    let mut making = Making { job, schema, rows, rejects: vec![], bytes: 0, first: 0, count: 0, to };
    match &job.options.cursor {
        None => whole(db, &mut making),
        Some(cursor) => behind(db, &mut making, cursor),
    }
}

/// Everything, whole or nothing. The position says what it was, so that it can be told whether a second reading gave the same.
fn whole(db: &Connection, making: &mut Making<'_>) -> Result<()> {
    let doing = "read rows";
    let columns = making.schema.fields().len();
    let mut query = db.prepare(&format!("SELECT * FROM {}", from_clause(&making.job.options))).during(doing)?;
    let mut rows = query.query([]).during(doing)?;
    let (mut all, mut bytes) = (xxhash_rust::xxh3::Xxh3::new(), vec![]);
    while let Some(row) = rows.next().during(doing)? {
        let one = hash(row, columns, &mut bytes).during(doing)?;
        all.update(&one.to_le_bytes());
        making.take(row).during(doing)?;
        making.bytes += bytes.len() as u64;
        if making.is_full() && !making.send(Mark::Within(making.job.partition.clone()))? {
            return Ok(());
        }
    }
    let position = Position::new(format!("run={} rows={} hash={:032x}", making.job.run, making.count, all.digest128()));
    if making.job.until.as_ref().is_some_and(|until| *until != position) {
        return Err(changed(making.job));
    }
    making.send(Mark::At(making.job.partition.clone(), position)).map(drop)
}

fn changed(job: &Job) -> Error {
    Error::conflict(format!("the rows of {} are not those that another sink has been given already", job.partition))
        .hint("start over with `towpath run --new-run`")
}

/// What a cursor has not read yet, the value it stands at included: rows may have come with the same value since.
fn behind(db: &Connection, making: &mut Making<'_>, cursor: &str) -> Result<()> {
    let doing = "read rows";
    let job = making.job;
    let columns = making.schema.fields().len();
    let at = making.schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(cursor)).unwrap_or(0);
    let until = job.until.as_ref().map(Seam::read).transpose()?;
    let name = quote(cursor);
    let mut sql = format!("SELECT * FROM {} WHERE {name} IS NOT NULL", from_clause(&job.options));
    let mut bounds = vec![];
    for (sign, seam) in [(">=", &job.from), ("<=", &until)] {
        if let Some(seam) = seam {
            bounds.push(seam.cursor.value());
            sql.push_str(&format!(" AND {name} {sign} ?{}", bounds.len()));
        }
    }
    sql.push_str(&format!(" ORDER BY {name}"));
    let mut query = db.prepare(&sql).during(doing)?;
    let mut rows = query.query(rusqlite::params_from_iter(bounds)).during(doing)?;

    let mut stand = job.from.clone();
    // Of the value we begin at: what was read before. Of the value we end at: what belongs to it.
    let mut before = job.from.as_ref().map(|from| from.seen.clone()).unwrap_or_default();
    let mut wanted = until.as_ref().map(|until| until.seen.clone()).unwrap_or_default();
    if let (Some(from), Some(until)) = (&job.from, &until)
        && from.cursor == until.cursor
    {
        for (hash, count) in &from.seen {
            seam::take(&mut wanted, hash, *count);
        }
    }
    let mut bytes = vec![];
    while let Some(row) = rows.next().during(doing)? {
        let Some(value) = Cursor::of(row.get_ref(at).during(doing)?) else {
            return Err(Error::data(format!("column {cursor}: a blob cannot be a cursor")));
        };
        let key = seam::key(hash(row, columns, &mut bytes).during(doing)?);
        let same = stand.as_ref().is_some_and(|stand| stand.cursor == value);
        if same && job.from.as_ref().is_some_and(|from| from.cursor == value) && seam::take(&mut before, &key, 1) {
            continue;
        }
        if until.as_ref().is_some_and(|until| until.cursor == value) && !seam::take(&mut wanted, &key, 1) {
            // Came later; the run after this one reads it.
            continue;
        }
        // Before this row is taken in, the piece may end: exactly where the value changes, or among a few of one value.
        if making.is_full() {
            let short = stand.as_ref().is_some_and(Seam::is_short);
            let mark = match &stand {
                Some(stand) if short || !same => Mark::At(job.partition.clone(), stand.position()?),
                _ => Mark::Within(job.partition.clone()),
            };
            if !making.send(mark)? {
                return Ok(());
            }
        }
        match &mut stand {
            Some(stand) if same => *stand.seen.entry(key).or_default() += 1,
            _ => stand = Some(Seam { cursor: value, seen: BTreeMap::from([(key, 1)]) }),
        }
        if let Some(stand) = &stand {
            stand.check(&job.partition, cursor)?;
        }
        making.take(row).during(doing)?;
        making.bytes += bytes.len() as u64;
    }
    if !wanted.is_empty() {
        return Err(changed(job));
    }
    match (&job.until, &stand) {
        // In the checkpoint's own words, so that it is equal to the letter.
        (Some(until), _) => making.send(Mark::At(job.partition.clone(), until.clone())).map(drop),
        (None, Some(stand)) if making.has_rows() => {
            making.send(Mark::At(job.partition.clone(), stand.position()?)).map(drop)
        }
        _ => Ok(()),
    }
}
