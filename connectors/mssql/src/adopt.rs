//! A table that has no hash column yet gets one, and its rows their hashes.
//!
//! The hash is not one that a server can compute, so rows are read, hashed here as rows of the source would be, and the hashes go back by way of a staging
//! table. What tells the rows apart meanwhile is the table's identity column, or one that is added for the time. Whatever breaks off in the middle is
//! taken up by the next run: rows without a hash are those still to be done.

use std::{sync::Arc, time::Duration};

use arrow_array::{Array as _, ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt as _;
use towpath_core::{Error, Result};
use towpath_formats::row_hash::row_hashes;

use crate::{
    bulk::{Bulk, Staged},
    catalog::{Column, Table, TableName, quote, quoted},
    client::{Pool, first_number},
    config::SinkOptions,
    error::failed,
    shape::Shape,
    source::cells::Rows,
    statements::{self, Loaded},
    types::SqlType,
};

/// The column that numbers the rows of a table without an identity, as long as it is needed.
const NUMBER: &str = "towpath_no";

/// Whether a table is to get a hash column, or the rest of its hashes.
pub(crate) fn is_due(options: &SinkOptions, table: &Table) -> bool {
    options.by_hash() && options.add_columns && table.is_table() && !table.is_unique(&options.key_columns())
}

/// What a plan says of it.
pub(crate) fn note(options: &SinkOptions, table: &Table) -> Option<String> {
    (is_due(options, table) && table.column(&options.hash_column).is_none()).then(|| {
        format!(
            "adds {} binary(16) to table {}, and hashes the rows that are there over the columns that come, as their values are read back: numbers with all \
             digits of their scale, times as 2026-01-31T10:00:00.5, no spaces behind text of a fixed length. A row that the source writes in another way comes again. \
             Equal rows are looked for first: if there are any, nothing is added and the run fails",
            options.hash_column, table.name
        )
    })
}

/// Gives a table its hash column.
pub(crate) async fn adopt(
    pool: &Pool,
    options: &SinkOptions,
    staging: &TableName,
    table: &Table,
    incoming: &SchemaRef,
) -> Result<()> {
    let (target, hash) = (&table.name, options.hash_column.as_str());
    let there = table.column(hash).is_some();
    let doing = format!("give table {target} the column {hash}");
    let mut session = pool.session().await?;
    let own = table
        .columns
        .iter()
        .find(|column| column.identity && column.name.to_lowercase() != NUMBER)
        .map(|column| column.name.clone());
    let number = own.clone().unwrap_or_else(|| NUMBER.to_owned());
    if own.is_none() {
        session.batch(&doing, &statements::add_number(target, NUMBER)).await?;
    }
    let columns = |name: &str, of: SqlType| Loaded {
        staged: of.clone(),
        column: Column {
            name: name.to_owned(),
            of,
            nullable: true,
            identity: false,
            generated: false,
            has_default: false,
            collation: None,
        },
    };
    let hashes = Shape::of_columns(vec![columns(NUMBER, SqlType::BigInt), columns(hash, SqlType::Binary(16))]);
    let create =
        format!("{}; {}", statements::drop_table(staging), statements::create_staging(staging, &hashes.columns));
    session.batch(&doing, &create).await?;
    drop(session);
    let read = Read { target, number: &number, hash, there, table, incoming };
    send(pool, options.timeout.0, staging, Arc::new(hashes), read).await?;
    let mut session = pool.session().await?;
    let twice = session.batch(&doing, &statements::rows_twice(target, staging, hash, there)).await?;
    let twice = first_number(&twice).unwrap_or_default();
    if twice == 0 {
        if !there {
            let column = [(hash.to_owned(), SqlType::Binary(16))];
            session.batch(&doing, &statements::add_columns(target, &column)).await?;
        }
        session.execute(&doing, &statements::take_hashes(target, staging, (&number, NUMBER), hash), &[]).await?;
    }
    session.batch(&doing, &statements::drop_table(staging)).await?;
    if own.is_none() {
        session.batch(&doing, &statements::drop_column(target, NUMBER)).await?;
    }
    if twice == 0 {
        return Ok(());
    }
    let names = quoted(incoming.fields().iter().map(|field| field.name().as_str()));
    Err(Error::conflict(format!("{twice} rows of table {target} are equal to others, so their hash cannot be a key")).hint(
        format!(
            "take them out, or load into a new table; to see them: SELECT {names}, COUNT(*) FROM {target} GROUP BY {names} HAVING COUNT(*) > 1"
        ),
    ))
}

/// What is read to be hashed.
struct Read<'a> {
    target: &'a TableName,
    number: &'a str,
    hash: &'a str,
    /// Whether that column is there: rows that have their hash are not read.
    there: bool,
    table: &'a Table,
    incoming: &'a SchemaRef,
}

async fn send(pool: &Pool, deadline: Duration, staging: &TableName, shape: Arc<Shape>, read: Read<'_>) -> Result<()> {
    let Read { target, number, hash, there, table, incoming } = read;
    let columns = incoming.fields().iter().map(|field| {
        let column = table.column(field.name());
        column.ok_or_else(|| {
            Error::config(format!("table {target} has no column {}: its rows cannot be hashed over it", field.name()))
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let mut fields = vec![Field::new(NUMBER, DataType::Int64, false)];
    // By the names that come: they are part of the hash.
    fields.extend(
        incoming.fields().iter().zip(&columns).map(|(field, column)| Field::new(field.name(), column.of.arrow(), true)),
    );
    let (schema, hashed) = (Arc::new(Schema::new(fields)), (1..=columns.len()).collect::<Vec<_>>());
    let names = quoted(columns.iter().map(|column| column.name.as_str()));
    let sql = format!(
        "SELECT CONVERT(bigint, {}) AS {}, {names} FROM {target}{}",
        quote(number),
        quote(NUMBER),
        if there { format!(" WHERE {} IS NULL", quote(hash)) } else { String::new() }
    );
    let doing = format!("read table {target} for its hashes");
    let broke = |error| failed(&doing, error);
    let mut session = pool.session().await?;
    let mut bulk = Bulk::begin(pool, staging, (1, false), deadline);
    let mut first = 1;
    let ended = {
        let mut rows = session.driver().simple_query(sql).await.map_err(broke)?.into_row_stream();
        let mut batch = Rows::new(&schema);
        loop {
            let row = rows.try_next().await.map_err(broke)?;
            if let Some(row) = &row {
                batch.push(row)?;
            }
            if batch.is_full() || (row.is_none() && batch.count() > 0) {
                let staged =
                    Staged { first, rows: hashes(&batch.finish()?.rows, &hashed, hash)?, shape: Arc::clone(&shape) };
                first += i64::try_from(staged.rows.num_rows()).unwrap_or_default();
                if !bulk.send(staged).await {
                    break false;
                }
            }
            if row.is_none() {
                break true;
            }
        }
    };
    if ended {
        session.calm();
    }
    bulk.finish().await
}

/// The numbers of rows and their hashes.
fn hashes(rows: &RecordBatch, columns: &[usize], name: &str) -> Result<RecordBatch> {
    let inner = |error| Error::internal("cannot put hashes together").because(error);
    let bytes: Vec<u8> = row_hashes(rows, Some(columns))?.into_iter().flat_map(u128::to_be_bytes).collect();
    let hashes: ArrayRef = Arc::new(FixedSizeBinaryArray::try_new(16, bytes.into(), None).map_err(inner)?);
    let numbers = rows.column(0).as_any().downcast_ref::<Int64Array>();
    let numbers = numbers.filter(|numbers| numbers.null_count() == 0).cloned();
    let numbers: ArrayRef = Arc::new(numbers.ok_or_else(|| Error::internal("rows without a number"))?);
    RecordBatch::try_from_iter([(NUMBER, numbers), (name, hashes)]).map_err(inner)
}
