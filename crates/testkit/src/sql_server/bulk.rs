//! Bulk loads: `INSERT BULK`, then packets with COLMETADATA, rows, DONE (\[MS-TDS\] 2.2.6.1). Rows go from the wire into one prepared INSERT.
//! A load is one statement: all of it or nothing.

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    sync::atomic::Ordering,
};

use rusqlite::{
    Statement,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    Event, What,
    ast::InsertBulk,
    bind::quote,
    catalog::TableDef,
    constraints::{broken, duplicate_error, key_text},
    error::{Sql, SqlError},
    faults::Occasion,
    locks::Resource,
    run::Flow,
    session::{Session, Store},
    types::Ty,
    values::{WireType, read_type},
    wire::{Bad, Reader, done},
};

/// A load that has begun.
pub(super) struct Bulk {
    table: TableDef,
    named: String,
    statement: InsertBulk,
    /// Bytes that are no whole row yet.
    buffer: Vec<u8>,
    /// Not before there are so many.
    wait_for: usize,
    columns: Option<Columns>,
    rows: u64,
    error: Option<SqlError>,
    /// SQLite's transaction is the load's own.
    own: bool,
    opened: bool,
    over: bool,
    /// All that has come, where the load is a transaction of its own: if somebody else wants the store meanwhile, the load gives way and
    /// begins anew when it is complete. (A real server would let both write.)
    spool: Option<File>,
    deferred: bool,
}

impl Bulk {
    /// Whether it holds the store and can give it up.
    pub fn can_yield(&self) -> bool {
        self.opened && self.own && self.spool.is_some() && !self.deferred && self.error.is_none()
    }
}

struct Columns {
    types: Vec<WireType>,
    /// Ids in the table.
    ids: Vec<i64>,
    sql: String,
}

impl Session {
    pub fn begin_bulk(&mut self, statement: &InsertBulk, _text: &str) -> Sql<()> {
        let table = self.with_binder(|binder| binder.target(&statement.table))?;
        for (name, _) in &statement.columns {
            if table.column(name).is_none() {
                return Err(SqlError::invalid_column(name));
            }
        }
        self.give_up_bulk();
        self.bulk = Some(Bulk {
            named: statement.table.join("."),
            table,
            statement: statement.clone(),
            buffer: vec![],
            wait_for: 0,
            columns: None,
            rows: 0,
            error: None,
            own: false,
            opened: false,
            over: false,
            spool: None,
            deferred: false,
        });
        Ok(())
    }

    /// The client does not go on.
    pub fn give_up_bulk(&mut self) {
        if let Some(bulk) = self.bulk.take() {
            self.close_bulk(&bulk, false);
            self.shared.log.add(self.spid, Event::Bulk { table: bulk.named, rows: None });
        }
    }

    fn close_bulk(&mut self, bulk: &Bulk, keep: bool) {
        self.flags.unchecked.store(false, Ordering::Relaxed);
        if self.store == Store::Idle {
            // The lock may have been taken ahead.
            self.shared.locks.release(self.spid, &Resource::Store);
            return;
        }
        if !bulk.opened {
            return;
        }
        if bulk.own {
            if !keep {
                self.roll_back_store();
            }
        } else if keep {
            let _ = self.conn.execute_batch("RELEASE t_bulk");
        } else {
            let _ = self.conn.execute_batch("ROLLBACK TO t_bulk; RELEASE t_bulk");
        }
    }

    /// A packet of rows; whether the connection is to be cut.
    pub fn bulk_packet(&mut self, bytes: &[u8], last: bool, ignore: bool) -> bool {
        for what in self.shared.faults.due(Occasion::BulkPacket) {
            self.shared.log.add(self.spid, Event::Fault(format!("{what:?}")));
            match what {
                What::CutBefore | What::CutAfter => return true,
                What::ErrorCut(number) => {
                    self.leaving = Some(super::session::Leaving::CutOff);
                    self.fail_bulk(SqlError::ordered(number, self.spid));
                }
                What::Error(number) => self.fail_bulk(SqlError::ordered(number, self.spid)),
                What::Message(number, text) => self.fail_bulk(SqlError::of(number, text)),
                What::Deadlock => self.fail_bulk(SqlError::deadlock(self.spid)),
                What::Stall(pause) => std::thread::sleep(pause),
                _ => {}
            }
        }
        let Some(mut bulk) = self.bulk.take() else {
            if last {
                self.answer_error(&SqlError::of(4002, "The incoming tabular data stream (TDS) protocol stream is incorrect. The stream ended unexpectedly."));
                self.statement_done(done::ERROR, None);
                self.settle(false);
            }
            return false;
        };
        if ignore {
            self.bulk = Some(bulk);
            self.give_up_bulk();
            self.statement_done(0, None);
            self.settle(false);
            return false;
        }
        if bulk.error.is_none()
            && let Err(error) = self.take(&mut bulk, bytes, last)
        {
            bulk.error = Some(error);
            bulk.buffer = vec![];
        }
        if !last {
            self.bulk = Some(bulk);
            self.yield_bulk();
            return false;
        }
        self.end_bulk(bulk)
    }

    /// Takes a packet in.
    fn take(&mut self, bulk: &mut Bulk, bytes: &[u8], last: bool) -> Sql<()> {
        let lost = |error: std::io::Error| SqlError::of(50_001, format!("simulator: {error}"));
        if !bulk.opened && !bulk.deferred {
            bulk.own = self.trancount == 0;
            if bulk.own && !bulk.table.is_temp() {
                bulk.spool = Some(tempfile::tempfile().map_err(lost)?);
                bulk.deferred = !self.try_store();
            }
        }
        if let Some(spool) = &mut bulk.spool {
            spool.write_all(bytes).map_err(lost)?;
        }
        if !bulk.deferred {
            bulk.buffer.extend_from_slice(bytes);
            if last || bulk.buffer.len() >= bulk.wait_for {
                self.load(bulk, last)?;
            }
            return Ok(());
        }
        if !last {
            return Ok(());
        }
        let Some(mut spool) = bulk.spool.take() else { return Ok(()) };
        let mut left = spool.stream_position().map_err(lost)?;
        spool.rewind().map_err(lost)?;
        let mut chunk = vec![0; 1 << 18];
        while left > 0 {
            let read = spool.read(&mut chunk).map_err(lost)?;
            left = if read == 0 { 0 } else { left - u64::try_from(read).unwrap_or(left).min(left) };
            bulk.buffer.extend_from_slice(&chunk[..read]);
            if left == 0 || bulk.buffer.len() >= bulk.wait_for {
                self.load(bulk, left == 0)?;
            }
        }
        Ok(())
    }

    /// Gives the store up if somebody waits for it.
    pub fn yield_bulk(&mut self) {
        let wanted = self.shared.locks.is_wanted(self.spid, &Resource::Store);
        if wanted && let Some(bulk) = self.bulk.as_mut().filter(|bulk| bulk.can_yield()) {
            (bulk.deferred, bulk.opened, bulk.over, bulk.rows) = (true, false, false, 0);
            (bulk.columns, bulk.buffer, bulk.wait_for) = (None, vec![], 0);
            self.flags.unchecked.store(false, Ordering::Relaxed);
            self.roll_back_store();
        }
    }

    fn fail_bulk(&mut self, error: SqlError) {
        if let Some(bulk) = &mut self.bulk {
            bulk.error.get_or_insert(error);
        }
    }

    fn end_bulk(&mut self, mut bulk: Bulk) -> bool {
        let mut cut = false;
        match self.strike_plain(&format!("BULK LOAD {}", bulk.named), false) {
            Ok(Ok(after)) => cut = after,
            Ok(Err(flow)) => {
                self.close_bulk(&bulk, false);
                return flow == Flow::Cut;
            }
            Err(error) => {
                bulk.error.get_or_insert(error);
            }
        }
        if bulk.error.is_none() && self.control.is_cancelled() {
            bulk.error = Some(SqlError::cancelled());
        }
        self.close_bulk(&bulk, bulk.error.is_none());
        if bulk.error.is_none() && bulk.own {
            bulk.error = self.commit_store().err();
        }
        let rows = bulk.error.is_none().then_some(bulk.rows);
        self.shared.log.add(self.spid, Event::Bulk { table: bulk.named.clone(), rows });
        match bulk.error {
            None => {
                self.rowcount = i64::try_from(bulk.rows).unwrap_or(i64::MAX);
                self.statement_done(0, Some(bulk.rows));
            }
            Some(error) if error.is_cancelled() => {
                if self.xact_abort {
                    self.roll_back();
                }
            }
            Some(error) => {
                self.answer_error(&error);
                if self.xact_abort || error.ends() == super::error::Ends::Transaction {
                    self.roll_back();
                }
                self.statement_done(done::ERROR, None);
                cut |= self.leaves_by(&error);
            }
        }
        self.settle(false);
        cut
    }

    /// Stores what there is of whole rows.
    fn load(&mut self, bulk: &mut Bulk, last: bool) -> Sql<()> {
        if bulk.over {
            return Ok(());
        }
        let mut start = 0;
        if bulk.columns.is_none() {
            let mut reader = Reader::new(&bulk.buffer);
            match read_columns(&mut reader) {
                Ok(columns) => {
                    start = reader.at();
                    bulk.columns = Some(self.prepare_bulk(bulk, columns)?);
                }
                Err(Bad::Short) if !last => return Ok(()),
                Err(bad) => return Err(bad.into()),
            }
        }
        if !bulk.opened {
            self.open_store(!bulk.table.is_temp())?;
            bulk.opened = true;
            if !bulk.own {
                self.conn.execute_batch("SAVEPOINT t_bulk")?;
            }
            self.flags.unchecked.store(!bulk.statement.check, Ordering::Relaxed);
        }
        let Some(columns) = &bulk.columns else { return Ok(()) };
        let mut statement = self.conn.prepare_cached(&columns.sql)?;
        let mut scratch = Vec::new();
        let mut at = start;
        while at < bulk.buffer.len() {
            let mut reader = Reader::new(&bulk.buffer[at..]);
            match read_row(&mut reader, columns, &mut scratch, &mut statement) {
                Ok(true) => {
                    if let Err(error) = statement.raw_execute() {
                        return Err(self.explain_bulk(error, bulk, columns, at));
                    }
                    bulk.rows += 1;
                    at += reader.at();
                }
                Ok(false) => {
                    bulk.over = true;
                    at = bulk.buffer.len();
                }
                Err(Row::Bad(Bad::Short)) if !last => break,
                Err(Row::Bad(bad)) => return Err(bad.into()),
                Err(Row::Sql(error)) => return Err(error),
            }
            if self.control.is_cancelled() {
                return Err(SqlError::cancelled());
            }
        }
        drop(statement);
        bulk.buffer.drain(..at);
        // A long value is not read again with each packet, but when there is half as much again.
        bulk.wait_for = if bulk.buffer.len() > 1 << 16 { bulk.buffer.len() * 3 / 2 } else { 0 };
        if last && !bulk.over {
            return Err(SqlError::of(
                4002,
                "The incoming tabular data stream (TDS) protocol stream is incorrect. The stream ended unexpectedly.",
            ));
        }
        Ok(())
    }

    /// Where the columns of the stream go, and the INSERT that takes them there.
    fn prepare_bulk(&self, bulk: &Bulk, columns: Vec<(String, WireType)>) -> Sql<Columns> {
        let table = &bulk.table;
        let listed = &bulk.statement.columns;
        if !listed.is_empty() && listed.len() != columns.len() {
            return Err(SqlError::of(
                4802,
                "The SINGLE_LOB, SINGLE_CLOB, and SINGLE_NCLOB options: the number of columns is not the one announced.",
            ));
        }
        let (mut names, mut values, mut ids, mut types) = (vec![], vec![], vec![], vec![]);
        self.with_binder(|binder| {
            for (at, (name, wire)) in columns.into_iter().enumerate() {
                let name = listed.get(at).map_or(name, |(listed, _)| listed.clone());
                let column = table.column(&name).ok_or_else(|| SqlError::invalid_column(&name))?;
                if column.computed.is_some() || column.rowversion {
                    return Err(SqlError::of(271, format!("The column \"{name}\" cannot be modified because it is either a computed column or is the result of a UNION operator.")));
                }
                let (from, to) = (wire.ty, column.ty());
                let mut value = format!("?{}", at + 1);
                let padded = matches!(to, Ty::Char(_) | Ty::NChar(_) | Ty::Binary(_));
                if from != to && (padded || !to.takes(&from)) {
                    value = format!("t_store({value}, {}, {}, {})", from.code(), to.code(), quote(&binder.place(table, column)));
                } else if padded {
                    // Padded, and what is longer than announced is refused.
                    value = format!("t_store({value}, {}, {}, {})", unbounded(from).code(), to.code(), quote(&binder.place(table, column)));
                }
                if !bulk.statement.keep_nulls
                    && column.identity.is_none()
                    && let Some(default) = binder.default_of(table, column)?
                {
                    value = format!("ifnull({value}, {default})");
                }
                names.push(column.sql());
                values.push(value);
                ids.push(column.id);
                types.push(wire);
            }
            for column in &table.columns {
                if column.computed.is_none()
                    && !ids.contains(&column.id)
                    && let Some(value) = binder.default_of(table, column)?
                {
                    names.push(column.sql());
                    values.push(value);
                }
            }
            Ok(())
        })?;
        let sql = format!("INSERT INTO {} ({}) VALUES ({})", table.sql(), names.join(", "), values.join(", "));
        Ok(Columns { types, ids, sql })
    }

    /// The error of a row that the store refuses, with the key if it is a duplicate.
    fn explain_bulk(&self, error: rusqlite::Error, bulk: &Bulk, columns: &Columns, at: usize) -> SqlError {
        let text = error.to_string();
        let Some(index) = text.split("UNIQUE constraint failed: ").nth(1).and_then(|rest| broken(&bulk.table, rest))
        else {
            return self.explain(error, &bulk.table, "BULK INSERT", None);
        };
        // The row is read once more, for its key.
        let mut reader = Reader::new(&bulk.buffer[at..]);
        let mut shown = vec![None; columns.ids.len()];
        let mut scratch = vec![];
        if let Ok(nulls) = row_start(&mut reader, columns.types.len()) {
            for (at, wire) in columns.types.iter().enumerate() {
                let null = nulls.as_ref().is_some_and(|nulls| nulls[at / 8] >> (at % 8) & 1 == 1);
                let value = if null { Ok(ValueRef::Null) } else { wire.read(&mut reader, &mut scratch) };
                if let Ok(value) = value {
                    shown[at] = Some(key_text(value, &wire.ty));
                }
            }
        }
        let key: Option<Vec<String>> = index
            .columns
            .iter()
            .map(|(id, _)| columns.ids.iter().position(|other| other == id).and_then(|at| shown[at].clone()))
            .collect();
        duplicate_error(&bulk.table, index, key.map(|key| key.join(", ")).as_deref())
    }
}

/// The same type without its length.
fn unbounded(ty: Ty) -> Ty {
    match ty {
        Ty::Char(_) | Ty::VarChar(_) => Ty::VarChar(None),
        Ty::NChar(_) | Ty::NVarChar(_) => Ty::NVarChar(None),
        Ty::Binary(_) | Ty::VarBinary(_) => Ty::VarBinary(None),
        ty => ty,
    }
}

fn read_columns(reader: &mut Reader<'_>) -> Result<Vec<(String, WireType)>, Bad> {
    if reader.u8()? != 0x81 {
        return Err(Bad::Wrong("a bulk load without COLMETADATA".to_owned()));
    }
    let count = reader.u16()?;
    let mut out = vec![];
    for _ in 0..count {
        reader.u32()?;
        reader.u16()?;
        let ty = read_type(reader)?;
        if ty.names_table() {
            reader.us_varchar()?;
        }
        out.push((reader.b_varchar()?, ty));
    }
    Ok(out)
}

enum Row {
    Bad(Bad),
    Sql(SqlError),
}

impl From<Bad> for Row {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

/// The token of a row, and its NULLs where it tells them by bits (NBCROW).
fn row_start(reader: &mut Reader<'_>, columns: usize) -> Result<Option<Vec<u8>>, Bad> {
    match reader.u8()? {
        0xd1 => Ok(None),
        0xd2 => Ok(Some(reader.take(columns.div_ceil(8))?.to_vec())),
        token => Err(Bad::Wrong(format!("the token 0x{token:02x} among the rows of a bulk load"))),
    }
}

/// Reads and binds a row; `false`: it was the DONE at the end.
fn read_row(
    reader: &mut Reader<'_>,
    columns: &Columns,
    scratch: &mut Vec<u8>,
    statement: &mut Statement<'_>,
) -> Result<bool, Row> {
    if reader.peek() == Some(0xfd) {
        return Ok(false);
    }
    let nulls = row_start(reader, columns.types.len())?;
    for (at, wire) in columns.types.iter().enumerate() {
        let null = nulls.as_ref().is_some_and(|nulls| nulls[at / 8] >> (at % 8) & 1 == 1);
        let value = match null {
            true => ValueRef::Null,
            false => wire.read(reader, scratch).map_err(|bad| match bad {
                Bad::Wrong(why) if why.contains("longer than") => Row::Sql(SqlError::of(
                    4815,
                    format!("Received an invalid column length from the bcp client for colid {}.", at + 1),
                )),
                bad => Row::Bad(bad),
            })?,
        };
        statement.raw_bind_parameter(at + 1, ToSqlOutput::Borrowed(value)).map_err(|error| Row::Sql(error.into()))?;
    }
    Ok(true)
}
