//! How rows of one schema go into the table: what is made or added, and what each column is cast to.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, BooleanArray, FixedSizeBinaryArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use arrow_select::filter::filter_record_batch;
use towpath_core::{Error, Original, Reject, Result, WriteMode};
use towpath_formats::{
    columns::cast_to,
    row_hash::{keyed_by, row_hashes},
};

use crate::{
    catalog::Table,
    config::SinkOptions,
    encode::{Cells, cast_type},
    statements::Loaded,
    types::SqlType,
};

/// How rows of one schema go in.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The schema of the rows as they come.
    pub(crate) incoming: SchemaRef,
    /// What they are cast to; the names are the target's.
    cast: SchemaRef,
    /// By column of the rows; the hash's last.
    pub(crate) columns: Vec<Loaded>,
    /// Columns that must not be null, with why.
    not_null: Vec<(usize, &'static str)>,
    /// Places of the key in the rows, the hash's included.
    pub(crate) key: Vec<usize>,
    /// The name of the hash column, if rows go by their hash.
    hash: Option<String>,
    /// What the keys are computed with.
    pub(crate) keyed_by: Option<String>,
    /// A row may be refused when it is staged already.
    late: bool,
    mode: WriteMode,
}

/// Rows made ready.
#[derive(Debug)]
pub(crate) struct Ready {
    /// As they came, with their hash if they go by it; without those refused or known.
    pub(crate) rows: RecordBatch,
    /// The same, cast.
    pub(crate) cast: RecordBatch,
    pub(crate) rejected: Vec<Reject>,
    /// How many a later row of the same key in the batch took the place of.
    pub(crate) superseded: u64,
    /// The keys: row hashes, or hashes of the key columns. Empty without key.
    pub(crate) keys: Vec<u128>,
}

impl Shape {
    /// How rows go into a table as it is.
    pub(crate) fn of(options: &SinkOptions, table: &Table, incoming: &SchemaRef) -> Result<Self> {
        let target = &table.name;
        let hash = options.by_hash().then(|| options.hash_column.clone());
        let (mut columns, mut fields) = (vec![], vec![]);
        for field in incoming.fields() {
            let Some(column) = table.column(field.name()) else {
                return Err(Error::internal(format!("column {} is in no table", field.name())));
            };
            if column.generated {
                return Err(mismatch(format!(
                    "column {} of {target} is computed by the server: it takes no values",
                    column.name
                ))
                .hint("leave it out with a `select` before the sink"));
            }
            if hash.as_ref().is_some_and(|hash| hash.to_lowercase() == field.name().to_lowercase()) {
                return Err(mismatch(format!("the rows have a column {} of their own", field.name()))
                    .hint("name another hash_column"));
            }
            let Some(staged) = column.of.staged() else {
                return Err(Error::unsupported(format!(
                    "column {} of {target} is of type {}, which cannot be loaded",
                    column.name, column.of
                ))
                .hint("leave it out with a `select` before the sink"));
            };
            let from = match field.data_type() {
                DataType::Dictionary(_, value) => value,
                other => other,
            };
            fields.push(Field::new(&column.name, cast_type(from, &staged), true));
            columns.push(Loaded { column: column.clone(), staged });
        }
        if let Some(hash) = &hash {
            let column = table.column(hash).ok_or_else(|| {
                mismatch(format!("table {target} has no column {hash} for the hash of its rows"))
                    .hint("write `add_columns: true`, load into a new table, or name the right hash_column")
            })?;
            if !matches!(column.of, SqlType::Binary(16) | SqlType::VarBinary(Some(16..) | None)) {
                return Err(mismatch(format!(
                    "column {hash} of {target} is {}, where a hash needs binary(16)",
                    column.of
                )));
            }
            columns.push(Loaded { column: column.clone(), staged: SqlType::Binary(16) });
        }
        for column in &table.columns {
            let filled = columns.iter().any(|loaded| loaded.column.name == column.name);
            if !column.nullable && !column.has_default && !filled && !column.generated && !column.identity {
                return Err(mismatch(format!(
                    "column {} of {target} must not be null, and the rows do not have it",
                    column.name
                ))
                .hint("give the rows that column before the sink, or the table a default for it"));
            }
        }
        let key_names = options.key_columns();
        let key = key_names.iter().map(|key| {
            let place = columns.iter().position(|loaded| loaded.column.name.to_lowercase() == key.to_lowercase());
            place.ok_or_else(|| {
                let there = incoming.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
                mismatch(format!("key: the rows have no column {key}")).hint(format!("name one of theirs: {there}"))
            })
        });
        let key = key.collect::<Result<Vec<_>>>()?;
        let in_key = |name: &str| key_names.iter().any(|key| key.to_lowercase() == name.to_lowercase());
        if let Some(updated) = columns.iter().find(|loaded| loaded.column.identity && !in_key(&loaded.column.name))
            && options.write == WriteMode::Upsert
        {
            return Err(mismatch(format!(
                "column {} of {target} is an identity: it cannot be updated",
                updated.column.name
            ))
            .hint("leave it out with a `select` before the sink, or make it the key"));
        }
        let not_null = columns.iter().enumerate().take(incoming.fields().len()).filter_map(|(at, loaded)| {
            if key.contains(&at) {
                Some((at, "a key must not be null"))
            } else {
                (!loaded.column.nullable).then_some((at, "must not be null"))
            }
        });
        let is_key = |unique: &crate::catalog::Unique| {
            unique.columns.len() == key_names.len() && unique.columns.iter().all(|column| in_key(column))
        };
        let by_server = |loaded: &Loaded| loaded.column.of == SqlType::Xml || loaded.column.of.has_code_page();
        let late = !table.checks.is_empty()
            || !table.foreign.is_empty()
            || !table.uniques.iter().all(is_key)
            || columns.iter().any(by_server);
        let keyed_by = match &options.key {
            None => None,
            Some(_) if options.by_hash() => Some(keyed_by(incoming)),
            Some(_) => Some(format!("columns {}", key_names.join(","))),
        };
        Ok(Self {
            incoming: Arc::clone(incoming),
            cast: Arc::new(Schema::new(fields)),
            not_null: not_null.collect(),
            key,
            hash,
            keyed_by,
            late,
            mode: options.write,
            columns,
        })
    }

    /// Rows of these columns, staged as they are.
    pub(crate) fn of_columns(columns: Vec<Loaded>) -> Self {
        Self {
            incoming: Arc::new(Schema::empty()),
            cast: Arc::new(Schema::empty()),
            columns,
            not_null: vec![],
            key: vec![],
            hash: None,
            keyed_by: None,
            late: false,
            mode: WriteMode::Append,
        }
    }

    /// Whether these rows, without a hash, are of this shape.
    pub(crate) fn fits(&self, schema: &SchemaRef) -> bool {
        self.incoming == *schema
    }

    /// Takes out rows that cannot go in, casts the others, adds their hash. No access to the server.
    pub(crate) fn ready(&self, rows: &RecordBatch) -> Result<Ready> {
        let hashes = if self.hash.is_some() { row_hashes(rows, None)? } else { vec![] };
        let (mut cast, mut rejected) = self.cast(rows)?;
        let mut keep = vec![true; rows.num_rows()];
        for reject in &rejected {
            if let Original::Row(row) = reject.row {
                keep[row] = false;
            }
        }
        // By row of `cast`, which has only those that are still kept.
        let mut still = vec![true; cast.num_rows()];
        let origin: Vec<usize> = (0..rows.num_rows()).filter(|row| keep[*row]).collect();
        let mut refuse = |row: usize, column: usize, why: &str| {
            if std::mem::replace(&mut still[row], false) {
                let name = self.incoming.field(column).name();
                rejected.push(Reject::row(origin[row], format!("column {name}: {why}")).column(name.as_str()));
            }
        };
        for &(at, why) in &self.not_null {
            let column = cast.column(at);
            if column.null_count() > 0 {
                (0..column.len()).filter(|row| column.is_null(*row)).for_each(|row| refuse(row, at, why));
            }
        }
        for (at, loaded) in self.columns.iter().enumerate().take(self.incoming.fields().len()) {
            let cells = Cells::of(cast.column(at), &loaded.staged)?;
            if cells.may_be_unfit(&loaded.column.of) {
                for row in 0..cast.num_rows() {
                    if let Some(why) = cells.unfit(&loaded.column.of, row) {
                        refuse(row, at, &why);
                    }
                }
            }
        }
        // Of one key in a batch the last row counts. Rows of one hash are the same row, and the second is known when the first is staged.
        let same = self.hash.is_some() && self.mode == WriteMode::InsertNew;
        let mut keys = match (self.hash.is_some(), self.key.is_empty()) {
            (true, _) => origin.iter().map(|row| hashes[*row]).collect(),
            (false, false) => row_hashes(&cast, Some(&self.key))?,
            (false, true) => vec![],
        };
        let mut superseded = 0;
        if !keys.is_empty() && !same && !self.refuses_late() {
            let mut seen = hashbrown::HashSet::with_capacity(keys.len());
            for row in (0..keys.len()).rev() {
                if still[row] && !seen.insert(keys[row]) {
                    still[row] = false;
                    superseded += 1;
                }
            }
        }
        let mut rows = rows.clone();
        if still.contains(&false) || origin.len() < rows.num_rows() {
            for (row, still) in origin.iter().zip(&still) {
                keep[*row] = *still;
            }
            rows = filter(&rows, &keep)?;
            cast = filter(&cast, &still)?;
            let mut marks = still.iter();
            keys.retain(|_| marks.next() == Some(&true));
        }
        if self.refuses_late() && self.mode == WriteMode::InsertNew {
            // Of one key the first that is staged goes in, and of one batch it is to be the last.
            let back = arrow_array::UInt64Array::from_iter_values((0..rows.num_rows() as u64).rev());
            let turned = |rows: &RecordBatch| arrow_select::take::take_record_batch(rows, &back).map_err(inner);
            (rows, cast) = (turned(&rows)?, turned(&cast)?);
            keys.reverse();
        }
        let mut ready = Ready { rows, cast, rejected, superseded, keys };
        if let Some(name) = &self.hash {
            let column: ArrayRef = hash_column(&ready.keys)?;
            ready.rows = with(&ready.rows, name, &column)?;
            ready.cast = with(&ready.cast, name, &column)?;
        }
        Ok(ready)
    }

    /// The rows as they came, without their hash.
    pub(crate) fn without_hash(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if self.hash.is_none() {
            return Ok(rows.clone());
        }
        rows.project(&(0..rows.num_columns() - 1).collect::<Vec<_>>()).map_err(inner)
    }

    /// Casts rows that [`ready`](Shape::ready) has let through.
    pub(crate) fn cast_again(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let (cast, _) = self.cast(&self.without_hash(rows)?)?;
        match &self.hash {
            Some(name) => with(&cast, name, rows.column(rows.num_columns() - 1)),
            None => Ok(cast),
        }
    }

    fn cast(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<Reject>)> {
        // By position: the target may write a name with other capitals.
        let rows = renamed(&unpacked(rows)?, &self.cast)?;
        let (cast, mut rejected) = cast_to(&rows, &self.cast)?;
        for reject in &mut rejected {
            if let Some(column) = &mut reject.column
                && let Ok(at) = self.cast.index_of(column)
            {
                self.incoming.field(at).name().clone_into(column);
            }
        }
        Ok((cast, rejected))
    }

    /// Whether only the server can tell that two keys are the same: it compares text by a collation, rounds times, knows two zeros.
    pub(crate) fn key_by_server(&self) -> bool {
        use SqlType as T;
        let exact =
            |of: &T| matches!(of, T::Bit | T::TinyInt | T::SmallInt | T::Int | T::BigInt | T::Decimal(..) | T::Date);
        self.hash.is_none() && self.key.iter().any(|at| !exact(&self.columns[*at].column.of))
    }

    /// Whether the table may refuse a row for what it is beside others, or for what only the server can see. Not asked of rows that go by their hash:
    /// another of the same hash is the same row.
    pub(crate) fn refuses_late(&self) -> bool {
        self.late && self.hash.is_none()
    }

    /// The hashes of rows, where they go by it.
    pub(crate) fn hashes(&self, rows: &RecordBatch) -> Vec<u128> {
        let column = rows.columns().last().filter(|_| self.hash.is_some());
        let column = column.and_then(|column| column.as_any().downcast_ref::<FixedSizeBinaryArray>());
        let hashes = column.into_iter().flat_map(|column| column.iter().flatten());
        hashes.filter_map(|hash| hash.try_into().ok()).map(u128::from_be_bytes).collect()
    }

    /// The write mode.
    pub(crate) fn mode(&self) -> WriteMode {
        self.mode
    }
}

pub(crate) fn mismatch(message: String) -> Error {
    Error::config(message)
}

fn inner(error: arrow_schema::ArrowError) -> Error {
    Error::internal("cannot put rows together").because(error)
}

/// The rows marked.
pub(crate) fn filter(rows: &RecordBatch, keep: &[bool]) -> Result<RecordBatch> {
    filter_record_batch(rows, &BooleanArray::from(keep.to_vec())).map_err(inner)
}

fn hash_column(keys: &[u128]) -> Result<ArrayRef> {
    let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_be_bytes()).collect();
    Ok(Arc::new(FixedSizeBinaryArray::try_new(16, bytes.into(), None).map_err(inner)?))
}

fn with(rows: &RecordBatch, name: &str, column: &ArrayRef) -> Result<RecordBatch> {
    let mut fields: Vec<_> = rows.schema_ref().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(name, DataType::FixedSizeBinary(16), false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::clone(column));
    // What the fields are said to be besides is a part of the schema by which rows are known again.
    let schema = Schema::new_with_metadata(fields, rows.schema_ref().metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns).map_err(inner)
}

/// Dictionaries become what they stand for.
fn unpacked(rows: &RecordBatch) -> Result<RecordBatch> {
    if !rows.columns().iter().any(|column| matches!(column.data_type(), DataType::Dictionary(..))) {
        return Ok(rows.clone());
    }
    let (mut fields, mut columns) = (vec![], vec![]);
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let plain = match field.data_type() {
            DataType::Dictionary(_, value) => arrow_cast::cast(column, value).map_err(inner)?,
            _ => Arc::clone(column),
        };
        fields.push(Field::new(field.name(), plain.data_type().clone(), true));
        columns.push(plain);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(inner)
}

fn renamed(rows: &RecordBatch, as_in: &SchemaRef) -> Result<RecordBatch> {
    let same = rows.schema_ref().fields().iter().zip(as_in.fields()).all(|(have, want)| have.name() == want.name());
    if same {
        return Ok(rows.clone());
    }
    let fields: Vec<_> = rows
        .schema_ref()
        .fields()
        .iter()
        .zip(as_in.fields())
        .map(|(have, want)| Arc::new(have.as_ref().clone().with_name(want.name())))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), rows.columns().to_vec()).map_err(inner)
}
