//! How rows of one schema go into the table: what is made or added, what is cast, and the statements.

use std::sync::Arc;

use arrow_array::{Array as _, BooleanArray, FixedSizeBinaryArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use rusqlite::Connection;
use towpath_core::{Error, ErrorKind, Reject, Result, WriteMode};
use towpath_formats::{
    columns::cast_to,
    row_hash::{keyed_by, row_hashes},
};

use crate::{
    config::SinkOptions,
    error::During as _,
    fence,
    table::{Kind, Table, column_sql, create_sql, quote, quoted},
};

/// Rows inserted by one statement where nothing is expected to be wrong with them: a tenth faster than one by one; more at once is slower again.
pub(crate) const AT_ONCE: usize = 4;
/// Parameters that a statement may have.
const PARAMETERS: usize = 32_766;

/// How rows of one schema go in.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The schema of the rows as they come.
    incoming: SchemaRef,
    /// What they are cast to, if anything is.
    cast: Option<SchemaRef>,
    /// What the column of the table is, by column of the rows; the hash's last.
    pub(crate) kinds: Vec<Kind>,
    /// Columns that must not be null, with why.
    not_null: Vec<(usize, &'static str)>,
    /// Places of the key in the rows, the hash's included.
    pub(crate) key: Vec<usize>,
    /// The name of the hash column, if rows go by their hash.
    hash: Option<String>,
    /// The table the rows go into: the target or the staging table.
    pub(crate) table: String,
    /// Adds a row.
    pub(crate) insert: String,
    /// Adds a row to the staging table, whatever is there already.
    pub(crate) insert_staged: String,
    /// The same for [`AT_ONCE`] rows; `None` where that would be too many parameters.
    pub(crate) insert_staged_many: Option<String>,
    /// Finds a row by its key.
    pub(crate) lookup: Option<String>,
    /// Of several rows of one key in a batch only the last is to go in.
    last_wins: bool,
    /// Its foreign keys are checked only at the commit.
    pub(crate) deferred: bool,
    /// Rows may go into the staging table at once, because their numbers tell later what was committed.
    pub(crate) numbers_rows: bool,
    /// What the keys are computed with.
    pub(crate) keyed_by: Option<String>,
}

/// Rows made ready for the table.
#[derive(Debug)]
pub(crate) struct Ready {
    /// As they came, with their hash if they go by it; without those refused.
    pub(crate) rows: RecordBatch,
    /// The same, cast.
    pub(crate) cast: RecordBatch,
    /// Where each stood in what was handed over; `None`: where it stands now.
    pub(crate) from: Option<Vec<usize>>,
    /// Those refused.
    pub(crate) rejected: Vec<Reject>,
    /// How many a later row of the same key took the place of.
    pub(crate) superseded: u64,
}

impl Ready {
    /// Where a row stood in what was handed over.
    pub(crate) fn origin(&self, row: usize) -> usize {
        self.from.as_ref().and_then(|from| from.get(row).copied()).unwrap_or(row)
    }
}

fn mismatch(message: String) -> Error {
    Error::config(message)
}

impl Shape {
    /// Looks at the table, makes or widens it as the options allow. Call it inside a transaction.
    pub(crate) fn make(db: &Connection, options: &SinkOptions, staging: &str, incoming: &SchemaRef) -> Result<Self> {
        let name = if options.write == WriteMode::Replace { staging } else { &options.table };
        distinct(incoming)?;
        let mut table = open_table(db, options, name, incoming)?;
        if widen(db, options, name, &table, incoming)? {
            table = read(db, name)?;
        }
        let hash = options.by_hash().then(|| options.hash_column.clone());
        let mut columns = vec![];
        for field in incoming.fields() {
            let Some(column) = table.column(field.name()) else { continue };
            if column.generated {
                return Err(mismatch(format!(
                    "column {} of table {} is generated: it takes no values",
                    column.name, options.table
                ))
                .hint("leave it out with a `select` before the sink"));
            }
            if hash.as_ref().is_some_and(|hash| hash.eq_ignore_ascii_case(field.name())) {
                return Err(mismatch(format!("the rows have a column {} of their own", field.name()))
                    .hint("name another hash_column"));
            }
            columns.push(column.clone());
        }
        if let Some(hash) = &hash {
            columns.push(table.column(hash).cloned().ok_or_else(|| {
                mismatch(format!("table {} has no column {hash} for the hash of its rows", options.table))
                    .hint("load into a new table, or name the right hash_column")
            })?);
        }
        for column in &table.columns {
            let filled = columns.iter().any(|other| other.name == column.name);
            let numbered = column.key > 0 && !table.numbers_rows() && !table.without_rowid;
            if column.not_null && !column.has_default && !filled && !column.generated && !numbered {
                return Err(mismatch(format!(
                    "column {} of table {} must not be null, and the rows do not have it",
                    column.name, options.table
                )));
            }
        }
        let key_names = options.key_columns();
        let key = key_names
            .iter()
            .map(|key| {
                let place = columns.iter().position(|column| column.name.eq_ignore_ascii_case(key));
                place.ok_or_else(|| mismatch(format!("key: the rows have no column {key}")))
            })
            .collect::<Result<Vec<_>>>()?;
        if !key.is_empty() && !table.is_unique(&key_names) {
            make_unique(db, options, &key_names)?;
        }
        check_deferred(options, &table)?;

        let not_null = (0..incoming.fields().len()).filter_map(|at| {
            if key.contains(&at) {
                Some((at, "a key must not be null"))
            } else {
                // An INTEGER PRIMARY KEY that is null gets a number.
                let numbered = columns[at].key > 0 && !table.numbers_rows();
                (columns[at].not_null && !numbered).then_some((at, "must not be null"))
            }
        });
        let not_null = not_null.collect();
        let kinds: Vec<Kind> = columns.iter().map(|column| Kind::of(&column.declared)).collect();
        let fields = incoming.fields().iter().zip(&kinds).map(|(field, kind)| {
            let to = match field.data_type() {
                DataType::Dictionary(_, value) => kind.cast(value),
                from => kind.cast(from),
            };
            Field::new(field.name(), to, field.is_nullable())
        });
        let cast = Schema::new(fields.collect::<Vec<_>>());
        let same = cast.fields().iter().zip(incoming.fields()).all(|(a, b)| a.data_type() == b.data_type());
        let keyed_by = match &options.key {
            None => None,
            Some(_) if options.by_hash() => Some(keyed_by(incoming)),
            Some(_) => Some(format!("columns {}", key_names.join(","))),
        };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        Ok(Self {
            incoming: Arc::clone(incoming),
            cast: (!same).then(|| Arc::new(cast)),
            not_null,
            hash,
            table: name.to_owned(),
            insert: insert_sql(options.write, name, &names, &key),
            insert_staged: insert_sql(WriteMode::Append, staging, &names, &key),
            insert_staged_many: insert_many_sql(staging, &names),
            lookup: (options.write == WriteMode::InsertNew).then(|| lookup_sql(name, &key_names)),
            last_wins: options.write == WriteMode::InsertNew && !options.by_hash(),
            kinds,
            key,
            deferred: table.deferred,
            numbers_rows: table.numbers_rows(),
            keyed_by,
        })
    }

    /// Whether these rows are of this shape.
    pub(crate) fn fits(&self, schema: &SchemaRef) -> bool {
        self.incoming == *schema
    }

    /// Whether it costs something to make rows ready.
    pub(crate) fn has_work(&self) -> bool {
        self.hash.is_some() || self.cast.is_some()
    }

    /// Takes out rows that cannot go in, casts the others, adds their hash. No access to the database.
    pub(crate) fn ready(&self, rows: &RecordBatch) -> Result<Ready> {
        let hashes = match &self.hash {
            None => None,
            Some(_) => Some(row_hashes(rows, None)?),
        };
        let (mut cast, mut rejected) = self.cast(rows)?;
        let mut keep = vec![true; rows.num_rows()];
        for reject in &rejected {
            if let towpath_core::Original::Row(row) = reject.row {
                keep[row] = false;
            }
        }
        for &(at, why) in &self.not_null {
            let column = rows.column(at);
            if column.null_count() == 0 {
                continue;
            }
            // Rows the cast has refused already are not in `cast` any more.
            let mut still = Vec::with_capacity(cast.num_rows());
            for (row, keep) in keep.iter_mut().enumerate().filter(|(_, keep)| **keep) {
                *keep = !column.is_null(row);
                still.push(*keep);
                if !*keep {
                    let name = self.incoming.field(at).name();
                    rejected.push(Reject::row(row, format!("column {name}: {why}")).column(name.as_str()));
                }
            }
            cast = filter(&cast, still)?;
        }
        let superseded = if self.last_wins { self.superseded(&cast) } else { vec![] };
        if !superseded.is_empty() {
            let mut still = vec![true; cast.num_rows()];
            superseded.iter().for_each(|&row| still[row] = false);
            let there = keep.iter_mut().filter(|keep| **keep);
            there.zip(&still).for_each(|(keep, still)| *keep = *still);
            cast = filter(&cast, still)?;
        }
        let mut rows = rows.clone();
        let mut from = None;
        if keep.contains(&false) {
            from = Some(keep.iter().enumerate().filter_map(|(row, keep)| keep.then_some(row)).collect::<Vec<_>>());
            rows = filter(&rows, keep)?;
        }
        if let (Some(name), Some(hashes)) = (&self.hash, hashes) {
            let hash = |row: usize| from.as_ref().map_or(row, |from| from[row]);
            let bytes = (0..rows.num_rows()).map(|row| hashes[hash(row)].to_be_bytes());
            let column = Arc::new(
                FixedSizeBinaryArray::try_from_iter(bytes)
                    .or_else(|_| FixedSizeBinaryArray::try_new(16, Default::default(), None))
                    .map_err(inner)?,
            );
            rows = with(&rows, name, &column)?;
            cast = with(&cast, name, &column)?;
        }
        Ok(Ready { rows, cast, from, rejected, superseded: superseded.len() as u64 })
    }

    /// Rows that a later one of the same key takes the place of. None, where a key has no text: such a row will be refused.
    fn superseded(&self, rows: &RecordBatch) -> Vec<usize> {
        let Ok(keys) = row_hashes(rows, Some(&self.key)) else { return vec![] };
        let mut seen = hashbrown::HashSet::with_capacity(keys.len());
        (0..rows.num_rows()).rev().filter(|&row| !seen.insert(keys[row])).collect()
    }

    /// Casts rows that [`ready`](Shape::ready) has let through (with or without their hash).
    pub(crate) fn cast_again(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if self.cast.is_none() {
            return Ok(rows.clone());
        }
        let plain = self.without_hash(rows)?;
        let (mut cast, _) = self.cast(&plain)?;
        if let Some(name) = &self.hash {
            cast = with(&cast, name, rows.column(rows.num_columns() - 1))?;
        }
        Ok(cast)
    }

    /// The rows as they came.
    pub(crate) fn without_hash(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if self.hash.is_none() {
            return Ok(rows.clone());
        }
        rows.project(&(0..rows.num_columns() - 1).collect::<Vec<_>>()).map_err(inner)
    }

    /// The hashes of rows that are ready, if they go by their hash.
    pub(crate) fn hashes<'a>(&self, rows: &'a RecordBatch) -> Option<&'a FixedSizeBinaryArray> {
        self.hash.as_ref()?;
        rows.columns().last()?.as_any().downcast_ref()
    }

    fn cast(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<Reject>)> {
        match &self.cast {
            None => Ok((rows.clone(), vec![])),
            Some(to) => cast_to(&unpacked(rows)?, to),
        }
    }
}

fn inner(error: arrow_schema::ArrowError) -> Error {
    Error::internal("cannot put rows together").because(error)
}

/// Dictionaries become what they stand for.
fn unpacked(rows: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (vec![], vec![]);
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let (mut to, mut plain) = (field.data_type().clone(), Arc::clone(column));
        if let DataType::Dictionary(_, value) = field.data_type() {
            (to, plain) = ((**value).clone(), arrow_cast::cast(column, value).map_err(inner)?);
        }
        fields.push(Field::new(field.name(), to, true));
        columns.push(plain);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(inner)
}

/// The rows marked.
pub(crate) fn filter(rows: &RecordBatch, keep: Vec<bool>) -> Result<RecordBatch> {
    filter_record_batch(rows, &BooleanArray::from(keep)).map_err(inner)
}

fn with(rows: &RecordBatch, name: &str, column: &(impl Clone + IntoColumn)) -> Result<RecordBatch> {
    let mut fields: Vec<_> = rows.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(name, DataType::FixedSizeBinary(16), false)));
    let mut columns = rows.columns().to_vec();
    columns.push(column.clone().into_column());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(inner)
}

/// What can stand in a batch.
trait IntoColumn {
    fn into_column(self) -> arrow_array::ArrayRef;
}
impl IntoColumn for arrow_array::ArrayRef {
    fn into_column(self) -> arrow_array::ArrayRef {
        self
    }
}
impl IntoColumn for Arc<FixedSizeBinaryArray> {
    fn into_column(self) -> arrow_array::ArrayRef {
        self
    }
}

fn distinct(schema: &Schema) -> Result<()> {
    for (at, field) in schema.fields().iter().enumerate() {
        if let Some(other) = schema.fields()[..at].iter().find(|other| other.name().eq_ignore_ascii_case(field.name()))
        {
            return Err(mismatch(format!(
                "the rows have two columns {} and {}, which are one to SQLite",
                other.name(),
                field.name()
            ))
            .hint("rename one before the sink"));
        }
    }
    Ok(())
}

fn read(db: &Connection, name: &str) -> Result<Table> {
    Table::read(db, name)?.ok_or_else(|| Error::conflict(format!("table {name} was dropped in this very moment")))
}

/// The table the rows go into, made if need be.
fn open_table(db: &Connection, options: &SinkOptions, name: &str, incoming: &Schema) -> Result<Table> {
    if let Some(table) = Table::read(db, name)? {
        return if table.plain { Ok(table) } else { Err(not_plain(name)) };
    }
    let target = if name == options.table { None } else { Table::read(db, &options.table)? };
    let making = format!("make table {}", options.table);
    match target {
        Some(target) if !target.plain => return Err(not_plain(&options.table)),
        Some(target) => {
            let sql = target.sql_as(name).ok_or_else(|| not_plain(&options.table))?;
            db.execute_batch(&sql).during(&making)?;
            // The staging table refuses what the target would.
            for (at, columns) in target.unique.iter().enumerate() {
                let index = quote(&format!("{name}_{at}"));
                let sql = format!(
                    "CREATE UNIQUE INDEX {index} ON {} ({})",
                    quote(name),
                    quoted(columns.iter().map(String::as_str))
                );
                if !read(db, name)?.is_unique(columns) {
                    db.execute_batch(&sql).during(&making)?;
                }
            }
        }
        None if !options.create => {
            return Err(
                Error::not_found(format!("there is no table {}", options.table)).hint("make it, or say `create: true`")
            );
        }
        None => db.execute_batch(&create_sql(name, incoming, options)?).during(&making)?,
    }
    let made = read(db, name)?;
    if let Some(column) = made.columns.first() {
        fence::new_mark(db, name, &column.name)?;
    }
    Ok(made)
}

fn not_plain(name: &str) -> Error {
    mismatch(format!("{name} is a view or a virtual table")).hint("rows go into plain tables only")
}

/// Adds columns that are missing. Says whether there were any.
pub(crate) fn widen(
    db: &Connection,
    options: &SinkOptions,
    name: &str,
    table: &Table,
    incoming: &Schema,
) -> Result<bool> {
    let missing: Vec<_> = incoming.fields().iter().filter(|field| table.column(field.name()).is_none()).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    if !options.add_columns {
        let names: Vec<_> = missing.iter().map(|field| field.name().as_str()).collect();
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("table {} has no column {}", options.table, names.join(", ")),
        )
        .hint("say `add_columns: true`, or leave them out with a `select` before the sink"));
    }
    for field in missing {
        let sql = format!("ALTER TABLE {} ADD COLUMN {}", quote(name), column_sql(field)?);
        db.execute_batch(&sql).during(&format!("add column {}", field.name()))?;
    }
    Ok(true)
}

fn make_unique(db: &Connection, options: &SinkOptions, key: &[String]) -> Result<()> {
    let columns = quoted(key.iter().map(String::as_str));
    if !options.create {
        return Err(mismatch(format!("table {} has no unique index on ({columns})", options.table))
            .hint("make one, or say `create: true`"));
    }
    let index = quote(&format!("{}_{}", options.table, key.join("_")));
    let sql = format!("CREATE UNIQUE INDEX {index} ON {} ({columns})", quote(&options.table));
    db.execute_batch(&sql).during(&format!("make a unique index on ({columns}) of table {}", options.table)).map_err(
        |error| {
            if error.kind() == ErrorKind::Conflict {
                error.hint("the table holds a key twice: clean it, or name another key")
            } else {
                error
            }
        },
    )
}

fn check_deferred(options: &SinkOptions, table: &Table) -> Result<()> {
    let why = if !table.deferred {
        return Ok(());
    } else if table.without_rowid {
        "without row numbers"
    } else if matches!(options.write, WriteMode::Upsert | WriteMode::Replace) {
        "by upsert or replace"
    } else {
        return Ok(());
    };
    Err(Error::unsupported(format!(
        "table {} has a foreign key that is checked only at the commit: rows cannot be refused one by one {why}",
        options.table
    ))
    .hint("make the foreign key immediate, which is the default"))
}

fn insert_sql(mode: WriteMode, table: &str, columns: &[&str], key: &[usize]) -> String {
    let places = (1..=columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    let into = format!("INSERT OR ABORT INTO {} ({}) VALUES ({places})", quote(table), quoted(columns.iter().copied()));
    let keys = quoted(key.iter().map(|&at| columns[at]));
    let rest: Vec<_> = (0..columns.len()).filter(|at| !key.contains(at)).map(|at| quote(columns[at])).collect();
    match mode {
        WriteMode::Append | WriteMode::Replace => into,
        WriteMode::Upsert if !rest.is_empty() => {
            let sets = rest.iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
            format!("{into} ON CONFLICT ({keys}) DO UPDATE SET {sets}")
        }
        WriteMode::InsertNew | WriteMode::Upsert => format!("{into} ON CONFLICT ({keys}) DO NOTHING"),
    }
}

fn insert_many_sql(table: &str, columns: &[&str]) -> Option<String> {
    let count = columns.len();
    let row = |nth: usize| (1..=count).map(|at| format!("?{}", nth * count + at)).collect::<Vec<_>>().join(", ");
    let rows = (0..AT_ONCE).map(|nth| format!("({})", row(nth))).collect::<Vec<_>>().join(", ");
    let into = format!("INSERT OR ABORT INTO {} ({}) VALUES {rows}", quote(table), quoted(columns.iter().copied()));
    (count * AT_ONCE <= PARAMETERS).then_some(into)
}

fn lookup_sql(table: &str, key: &[String]) -> String {
    let tests = key.iter().enumerate().map(|(at, name)| format!("{} = ?{}", quote(name), at + 1));
    format!("SELECT 1 FROM {} WHERE {}", quote(table), tests.collect::<Vec<_>>().join(" AND "))
}
