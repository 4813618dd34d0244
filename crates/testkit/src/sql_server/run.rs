//! Executes batches: control flow, errors and what they end, results.

use std::time::{Duration, Instant};

use rusqlite::{
    Statement,
    types::{Value, ValueRef},
};

use super::{
    Event, What,
    ast::{Kind, SetOption, Stmt},
    bind::{Binder, Facts, dml::Plan},
    calendar,
    convert::{convert, owned, shown},
    error::{Ends, Sql, SqlError},
    faults::Occasion,
    parse,
    session::{Leaving, Output, Session},
    types::Ty,
    values::put_value,
    wire::{ResultColumn, done},
};

/// Where execution goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
    Return(i32),
    /// An error has ended the batch; it is answered.
    Ended,
    Cancelled,
    /// A fault cuts the connection.
    Cut,
}

/// What a fault leaves to be done after the statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    Cut,
}

/// An answer is sent on when it is so long.
const CHUNK: usize = 48 * 1024;

impl Session {
    /// A batch, or the text of a procedure; whether the connection is to be cut.
    pub fn batch(&mut self, text: &str) -> Flow {
        let statements = match parse::batch(text) {
            Ok(statements) => statements,
            Err(error) => {
                self.answer_error(&error);
                self.statement_done(done::ERROR, None);
                return Flow::Ended;
            }
        };
        self.caught = None;
        match self.statements(&statements, false) {
            Ok(flow) => flow,
            Err(error) => self.failed(error, 0),
        }
    }

    /// The end of the outermost batch: a transaction that can only be rolled back is.
    pub fn end_of_batch(&mut self) {
        if self.doomed {
            self.answer_error(&SqlError::of(
                3998,
                "Uncommittable transaction is detected at the end of the batch. The transaction is rolled back.",
            ));
            self.roll_back();
            self.statement_done(done::ERROR, None);
        }
    }

    pub fn statements(&mut self, all: &[Stmt], in_try: bool) -> Sql<Flow> {
        for stmt in all {
            let flow = match self.statement(stmt, in_try) {
                Ok(flow) => flow,
                Err(error) if in_try && !error.is_cancelled() && error.class < 20 && self.leaving.is_none() => {
                    return Err(located(error, stmt.line));
                }
                Err(error) => self.failed(error, stmt.line),
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// Answers an error outside of TRY; whether the batch goes on.
    fn failed(&mut self, error: SqlError, line: u32) -> Flow {
        if error.is_cancelled() {
            if self.xact_abort {
                self.roll_back();
            }
            return Flow::Cancelled;
        }
        let error = located(error, line);
        self.answer_error(&error);
        let ends = error.ends();
        self.rowcount = 0;
        if self.xact_abort || ends == Ends::Transaction {
            self.roll_back();
        }
        self.statement_done(done::ERROR, None);
        if self.leaves_by(&error) {
            return Flow::Cut;
        }
        if self.xact_abort || ends != Ends::Statement { Flow::Ended } else { Flow::Next }
    }

    /// Whether an error ends the connection.
    pub fn leaves_by(&mut self, error: &SqlError) -> bool {
        if error.class >= 20 {
            self.leaving.get_or_insert(Leaving::Saying);
        }
        self.leaving.is_some()
    }

    fn statement(&mut self, stmt: &Stmt, in_try: bool) -> Sql<Flow> {
        if self.control.is_cancelled() {
            return Err(SqlError::cancelled());
        }
        match &stmt.kind {
            Kind::Block(all) => self.statements(all, in_try),
            Kind::If(condition, then, other) => {
                let holds = self.holds(condition).map_err(|error| located(error, stmt.line))?;
                match (holds, other) {
                    (true, _) => self.statements(std::slice::from_ref(then), in_try),
                    (false, Some(other)) => self.statements(std::slice::from_ref(other), in_try),
                    _ => Ok(Flow::Next),
                }
            }
            Kind::While(condition, body) => {
                while self.holds(condition)? {
                    match self.statements(std::slice::from_ref(body), in_try)? {
                        Flow::Next | Flow::Continue => {}
                        Flow::Break => break,
                        flow => return Ok(flow),
                    }
                }
                Ok(Flow::Next)
            }
            Kind::Try(body, handler) => {
                let error = match self.statements(body, true) {
                    Ok(flow) => return Ok(flow),
                    Err(error) => error,
                };
                if self.trancount > 0 && (self.xact_abort || error.ends() == Ends::Transaction) {
                    self.doomed = true;
                }
                self.last_error = error.number;
                let outer = self.caught.replace(error);
                let flow = self.statements(handler, in_try);
                self.caught = outer;
                flow
            }
            _ => {
                let commit = matches!(stmt.kind, Kind::Commit);
                let after = match self.strike(&stmt.text, commit)? {
                    Ok(after) => after,
                    Err(flow) => return Ok(flow),
                };
                let flow = self.leaf(stmt, in_try);
                if after == After::Cut {
                    return Ok(Flow::Cut);
                }
                if matches!(flow, Ok(Flow::Next)) {
                    self.last_error = 0;
                }
                flow
            }
        }
    }

    /// Counts a statement and lets the faults strike that wait for it, for those that are no part of a batch.
    pub fn strike_plain(&mut self, text: &str, commit: bool) -> Sql<Result<bool, Flow>> {
        Ok(self.strike(text, commit)?.map(|after| after == After::Cut))
    }

    fn strike(&mut self, text: &str, commit: bool) -> Sql<Result<After, Flow>> {
        if matches!(self.output, Output::Kept { .. }) {
            return Ok(Ok(After::Nothing));
        }
        self.shared.log.add(self.spid, Event::Statement(text.to_owned()));
        let mut after = After::Nothing;
        for what in self.shared.faults.due(Occasion::Statement { text, commit }) {
            self.shared.log.add(self.spid, Event::Fault(format!("{what:?}")));
            match what {
                What::Error(number) => return Err(SqlError::ordered(number, self.spid)),
                What::Trigger(name, text) => {
                    let mut error = SqlError::of(50_000, text);
                    error.procedure = Some(name);
                    return Err(error);
                }
                What::ErrorCut(number) => {
                    self.leaving = Some(Leaving::CutOff);
                    return Err(SqlError::ordered(number, self.spid));
                }
                What::Message(number, text) => return Err(SqlError::of(number, text)),
                What::Deadlock => return Err(SqlError::deadlock(self.spid)),
                What::CutBefore => return Ok(Err(Flow::Cut)),
                What::CutAfter => after = After::Cut,
                What::Stall(pause) => self.pause(Some(pause))?,
                What::Hold => self.pause(None)?,
                What::SlowRead(rate) => self.slow(rate),
                What::RefuseLogin | What::LockAccount => {}
            }
        }
        Ok(Ok(after))
    }

    /// Waits, until it is over or cancelled; without an end, until [`Faults::release`](super::Faults::release).
    fn pause(&mut self, pause: Option<Duration>) -> Sql<()> {
        let (start, releases) = (Instant::now(), self.shared.faults.releases());
        loop {
            let over = match pause {
                Some(pause) => start.elapsed() >= pause,
                None => self.shared.faults.releases() > releases,
            };
            if over {
                return Ok(());
            }
            if self.control.is_cancelled() {
                return Err(SqlError::cancelled());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn leaf(&mut self, stmt: &Stmt, in_try: bool) -> Sql<Flow> {
        match &stmt.kind {
            Kind::Select(query, None) => {
                let (sql, params, columns, locks, permanent) = self.with_binder(|binder| {
                    let bound = binder.query(query, None)?;
                    Ok((bound.sql, std::mem::take(&mut binder.params), bound.columns, binder.locks, binder.permanent))
                })?;
                self.before_read(locks, permanent)?;
                self.select(&sql, &params, &columns)?;
            }
            Kind::Select(query, Some(into)) => self.select_into(query, into)?,
            Kind::Assign(names, query) => self.assign(names, query)?,
            Kind::Insert(insert) => {
                let (plan, params) =
                    self.with_binder(|binder| Ok((binder.insert(insert)?, std::mem::take(&mut binder.params))))?;
                self.change(&plan, &params, "INSERT")?;
            }
            Kind::Update(update) => {
                let (plan, params) =
                    self.with_binder(|binder| Ok((binder.update(update)?, std::mem::take(&mut binder.params))))?;
                self.change(&plan, &params, "UPDATE")?;
            }
            Kind::Delete(delete) => {
                let (plan, params) =
                    self.with_binder(|binder| Ok((binder.delete(delete)?, std::mem::take(&mut binder.params))))?;
                self.change(&plan, &params, "DELETE")?;
            }
            Kind::InsertBulk(bulk) => {
                self.begin_bulk(bulk, &stmt.text)?;
                self.statement_done(0, None);
            }
            Kind::Declare(all) => {
                for (name, ty, value) in all {
                    let value = match value {
                        Some(expr) => self.scalar(expr, Some(ty))?.0,
                        None => Value::Null,
                    };
                    self.variables.insert(name.clone(), (*ty, value));
                }
            }
            Kind::Set(name, expr) => {
                let Some((ty, _)) = self.variables.get(name).cloned() else {
                    return Err(SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\".")));
                };
                let (value, _) = self.scalar(expr, Some(&ty))?;
                self.variables.insert(name.clone(), (ty, value));
                self.rowcount = 1;
            }
            Kind::Option(option) => self.option(option)?,
            Kind::Use(database) => self.use_database(database)?,
            Kind::Begin => {
                self.begin();
                self.statement_done(0, None);
            }
            Kind::Commit => {
                self.commit()?;
                self.statement_done(0, None);
            }
            Kind::Rollback(None) => {
                if self.trancount == 0 {
                    return Err(SqlError::of(
                        3903,
                        "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
                    ));
                }
                self.roll_back();
                self.statement_done(0, None);
            }
            Kind::Rollback(Some(name)) => {
                self.roll_back_to(name)?;
                self.statement_done(0, None);
            }
            Kind::Save(name) => {
                self.save_point(name)?;
                self.statement_done(0, None);
            }
            Kind::Exec(exec) => return self.exec(exec, in_try),
            Kind::Throw(None) => {
                return Err(self.caught.clone().unwrap_or_else(|| {
                    SqlError::new(
                        10704,
                        15,
                        "To rethrow an error, a THROW statement must be used inside a CATCH block.",
                    )
                }));
            }
            Kind::Throw(Some([number, text, state])) => {
                let (number, text, state) = (self.text_of(number)?, self.text_of(text)?, self.text_of(state)?);
                let number = number.parse().unwrap_or(50_000);
                if number < 50_000 {
                    return Err(SqlError::of(
                        35_100,
                        format!("Error number {number} in the THROW statement is outside the valid range."),
                    ));
                }
                let mut error = SqlError::of(number, text);
                error.state = state.parse().unwrap_or(1);
                return Err(error);
            }
            Kind::RaiseError(arguments) => self.raise(arguments, stmt.line, in_try)?,
            Kind::WaitFor(delay) => {
                let text = self.text_of(delay)?;
                let parsed = calendar::parse(&text).ok().and_then(|parsed| parsed.time);
                let ticks = parsed.ok_or_else(|| {
                    SqlError::new(148, 15, format!("Incorrect time syntax in time string '{text}' used with WAITFOR."))
                })?;
                self.pause(Some(Duration::from_micros(u64::try_from(ticks / 10).unwrap_or(0))))?;
            }
            Kind::Print(expr) => {
                let text = self.text_of(expr)?;
                self.answer_error(&SqlError::new(0, 0, text));
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
            Kind::Return(value) => {
                let value = match value {
                    Some(expr) => self.text_of(expr)?.parse().unwrap_or(0),
                    None => 0,
                };
                return Ok(Flow::Return(value));
            }
            Kind::Block(_) | Kind::If(..) | Kind::While(..) | Kind::Try(..) => {}
            ddl => self.ddl(ddl)?,
        }
        Ok(Flow::Next)
    }

    /// Binds something with all that is known of the session.
    pub fn with_binder<T>(&self, work: impl FnOnce(&mut Binder<'_>) -> Sql<T>) -> Sql<T> {
        let facts = Facts {
            conn: &self.conn,
            database: &self.shared.database,
            login: &self.shared.login,
            application: &self.application,
            spid: self.spid,
            variables: &self.variables,
            trancount: self.trancount,
            rowcount: self.rowcount,
            xact_state: if self.doomed { -1 } else { i64::from(self.trancount > 0) },
            identity: self.identity,
            caught: self.caught.as_ref(),
            last_error: self.last_error,
            now: calendar::now(),
            lock_timeout: self.lock_timeout,
            identity_insert: self.identity_insert,
        };
        work(&mut Binder::new(&facts))
    }

    fn holds(&mut self, condition: &super::ast::Expr) -> Sql<bool> {
        let (sql, params, locks, permanent) = self.with_binder(|binder| {
            Ok((binder.condition(condition)?, std::mem::take(&mut binder.params), binder.locks, binder.permanent))
        })?;
        self.before_read(locks, permanent)?;
        let mut statement = self.conn.prepare(&sql)?;
        bind(&mut statement, &params)?;
        let mut rows = statement.raw_query();
        let Some(row) = rows.next()? else { return Ok(false) };
        Ok(matches!(row.get_ref(0)?, ValueRef::Integer(n) if n != 0))
    }

    /// The value of an expression.
    pub fn scalar(&mut self, expr: &super::ast::Expr, to: Option<&Ty>) -> Sql<(Value, Ty)> {
        let ((sql, ty), params, locks, permanent) = self.with_binder(|binder| {
            Ok((binder.scalar(expr, to)?, std::mem::take(&mut binder.params), binder.locks, binder.permanent))
        })?;
        self.before_read(locks, permanent)?;
        let mut statement = self.conn.prepare(&sql)?;
        bind(&mut statement, &params)?;
        let mut rows = statement.raw_query();
        let value = match rows.next()? {
            Some(row) => owned(row.get_ref(0)?),
            None => Value::Null,
        };
        Ok((value, ty))
    }

    /// An expression as text; NULL is empty.
    pub fn text_of(&mut self, expr: &super::ast::Expr) -> Sql<String> {
        let (value, ty) = self.scalar(expr, None)?;
        Ok(shown(ValueRef::from(&value), &ty).unwrap_or_default())
    }

    fn assign(&mut self, names: &[String], query: &super::ast::Query) -> Sql<()> {
        let mut to = vec![];
        for name in names {
            let (ty, _) = self
                .variables
                .get(name)
                .ok_or_else(|| SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\".")))?;
            to.push(*ty);
        }
        let (sql, params, columns, locks, permanent) = self.with_binder(|binder| {
            let bound = binder.query(query, None)?;
            Ok((bound.sql, std::mem::take(&mut binder.params), bound.columns, binder.locks, binder.permanent))
        })?;
        self.before_read(locks, permanent)?;
        let mut last: Option<Vec<Value>> = None;
        let mut count = 0;
        {
            let mut statement = self.conn.prepare(&sql)?;
            bind(&mut statement, &params)?;
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next()? {
                count += 1;
                let mut values = vec![];
                for (index, (column, ty)) in columns.iter().zip(&to).enumerate() {
                    values.push(convert(row.get_ref(index)?, &column.ty, ty, 0)?);
                }
                last = Some(values);
            }
        }
        for ((name, ty), value) in names.iter().zip(to).zip(last.into_iter().flatten()) {
            self.variables.insert(name.clone(), (ty, value));
        }
        self.rowcount = count;
        Ok(())
    }

    /// Executes a SELECT and answers its rows.
    fn select(&mut self, sql: &str, params: &[Value], columns: &[ResultColumn]) -> Sql<()> {
        // The statement borrows the connection, and answering needs the session: what is answered is taken out meanwhile.
        self.settle(true);
        let mut sink = Sink::new(self, columns);
        let outcome = rows_into(&self.conn, sql, params, columns, &mut sink);
        let (count, tokens, kept) = sink.finish();
        self.tokens = tokens;
        if let Output::Kept { rows, .. } = &mut self.output {
            rows.extend(kept);
        }
        outcome?;
        self.rowcount = i64::try_from(count).unwrap_or(i64::MAX);
        self.statement_done(0, Some(count));
        Ok(())
    }

    /// Executes what changes a table.
    fn change(&mut self, plan: &Plan, params: &[Value], what: &str) -> Sql<()> {
        let writes = !plan.table.is_temp();
        let outcome = self.atomically(writes, |session| {
            let changed = match session.changed_rows(plan, params) {
                Err(error) if what == "UPDATE" && error.to_string().contains("UNIQUE constraint failed") => {
                    session.changed_as_a_whole(plan, params)
                }
                changed => changed,
            };
            changed.map_err(|error| {
                if let Some((rows, ids)) = &plan.rows {
                    session.explain(error, &plan.table, what, Some((rows, ids, params)))
                } else {
                    session.explain(error, &plan.table, what, None)
                }
            })
        });
        let count = outcome?;
        self.rowcount = i64::try_from(count).unwrap_or(i64::MAX);
        if what == "INSERT" && plan.table.columns.iter().any(|column| column.identity.is_some()) {
            if plan.gives_identity {
                self.raise_identity(&plan.table)?;
            }
            self.identity = self.shared.last_identity(plan.table.id);
        }
        let silent = self.nocount && plan.output.is_none();
        self.statement_done(0, (!silent).then_some(count));
        Ok(())
    }

    /// The same, looking at unique indexes when all rows are changed, as the server does: SQLite looks at each row on the way there.
    fn changed_as_a_whole(&mut self, plan: &Plan, params: &[Value]) -> Result<u64, rusqlite::Error> {
        let (db, table) = (if plan.table.is_temp() { "temp" } else { "main" }, plan.table.id.abs());
        let indexes: Vec<(String, String)> = {
            let mut all = self.conn.prepare(&format!(
                "SELECT name, sql FROM {db}.sqlite_master WHERE type = 'index' AND tbl_name = 't{table}' AND sql LIKE 'CREATE UNIQUE %'"
            ))?;
            all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?
        };
        for (name, _) in &indexes {
            self.conn.execute_batch(&format!("DROP INDEX {db}.{name}"))?;
        }
        let count = self.changed_rows(plan, params)?;
        for (name, sql) in &indexes {
            self.conn.execute_batch(&sql.replacen(&format!(" {name} "), &format!(" {db}.{name} "), 1))?;
        }
        Ok(count)
    }

    fn changed_rows(&mut self, plan: &Plan, params: &[Value]) -> Result<u64, rusqlite::Error> {
        if let Some(before) = &plan.before {
            self.conn.execute_batch("DROP TABLE IF EXISTS temp.t_output")?;
            let mut statement = self.conn.prepare(before)?;
            bind(&mut statement, params)?;
            statement.raw_execute()?;
        }
        let Some(columns) = &plan.output else {
            let mut statement = self.conn.prepare_cached(&plan.sql)?;
            bind(&mut statement, params)?;
            return Ok(u64::try_from(statement.raw_execute()?).unwrap_or(0));
        };
        self.settle(true);
        if let Some(after) = &plan.after {
            let mut statement = self.conn.prepare(&plan.sql)?;
            bind(&mut statement, params)?;
            statement.raw_execute()?;
            drop(statement);
            let mut sink = Sink::new(self, columns);
            let outcome = rows_into(&self.conn, after, params, columns, &mut sink);
            let (count, tokens, kept) = sink.finish();
            self.tokens = tokens;
            self.keep(kept);
            outcome?;
            self.conn.execute_batch("DROP TABLE IF EXISTS temp.t_output")?;
            return Ok(count);
        }
        let mut sink = Sink::new(self, columns);
        let outcome = rows_into(&self.conn, &plan.sql, params, columns, &mut sink);
        let (count, tokens, kept) = sink.finish();
        self.tokens = tokens;
        self.keep(kept);
        outcome.map(|()| count)
    }

    fn keep(&mut self, kept: Vec<Vec<Option<String>>>) {
        if let Output::Kept { rows, .. } = &mut self.output {
            rows.extend(kept);
        }
    }

    fn option(&mut self, option: &SetOption) -> Sql<()> {
        match option {
            SetOption::XactAbort(on) => self.xact_abort = *on,
            SetOption::NoCount(on) => self.nocount = *on,
            SetOption::LockTimeout(timeout) => self.lock_timeout = *timeout,
            SetOption::Isolation(isolation) => self.isolation = *isolation,
            SetOption::IdentityInsert(name, on) => {
                let table = self.with_binder(|binder| binder.target(name))?;
                self.identity_insert = on.then_some(table.id);
            }
            SetOption::Other => {}
        }
        Ok(())
    }

    fn use_database(&mut self, database: &str) -> Sql<()> {
        use super::wire::{Tokens as _, change};
        if !database.eq_ignore_ascii_case(&self.shared.database) {
            return Err(SqlError::of(
                911,
                format!("Database '{database}' does not exist. Make sure that the name is entered correctly."),
            ));
        }
        let name = self.shared.database.clone();
        self.changed(change::DATABASE, &name, &name);
        self.answer_error(&SqlError::new(5701, 10, format!("Changed database context to '{name}'.")));
        self.statement_done(0, None);
        Ok(())
    }

    /// RAISERROR: it ends nothing, outside of TRY.
    fn raise(&mut self, arguments: &[super::ast::Expr], line: u32, in_try: bool) -> Sql<()> {
        let [text, severity, state, values @ ..] = arguments else { return Err(SqlError::syntax("RAISERROR")) };
        let mut message = self.text_of(text)?;
        for value in values {
            let value = self.text_of(value)?;
            let at = ["%s", "%d", "%i", "%u"].iter().filter_map(|place| message.find(place)).min();
            if let Some(at) = at {
                message.replace_range(at..at + 2, &value);
            }
        }
        let class = self.text_of(severity)?.parse::<u8>().unwrap_or(16).min(19);
        let mut error = SqlError::new(50_000, class, message);
        error.state = self.text_of(state)?.parse().unwrap_or(1);
        error.line = line;
        if class > 10 && in_try {
            return Err(error);
        }
        self.answer_error(&error);
        if class > 10 {
            self.statement_done(done::ERROR, None);
            self.last_error = 50_000;
        }
        Ok(())
    }
}

fn located(mut error: SqlError, line: u32) -> SqlError {
    if error.line == 0 {
        error.line = line;
    }
    error
}

/// Binds parameters, as many as the statement has.
pub(super) fn bind(statement: &mut Statement<'_>, params: &[Value]) -> rusqlite::Result<()> {
    for (index, value) in params.iter().enumerate().take(statement.parameter_count()) {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}

/// Takes rows while a statement holds the connection.
struct Sink {
    tokens: Vec<u8>,
    sender: Option<tokio::sync::mpsc::Sender<super::session::Reply>>,
    control: std::sync::Arc<super::session::Control>,
    kept: Vec<Vec<Option<String>>>,
    columns: bool,
    count: u64,
}

impl Sink {
    fn new(session: &mut Session, _columns: &[ResultColumn]) -> Self {
        let sender = match &session.output {
            Output::Wire(sender) => Some(sender.clone()),
            Output::Kept { .. } => None,
        };
        let tokens = std::mem::take(&mut session.tokens);
        let control = std::sync::Arc::clone(&session.control);
        Self { tokens, sender, control, kept: vec![], columns: false, count: 0 }
    }
    fn finish(self) -> (u64, Vec<u8>, Vec<Vec<Option<String>>>) {
        (self.count, self.tokens, self.kept)
    }
}

fn rows_into(
    conn: &rusqlite::Connection,
    sql: &str,
    params: &[Value],
    columns: &[ResultColumn],
    sink: &mut Sink,
) -> rusqlite::Result<()> {
    use super::wire::Tokens as _;
    let mut statement = conn.prepare_cached(sql)?;
    bind(&mut statement, params)?;
    let mut rows = statement.raw_query();
    sink.tokens.columns(columns);
    sink.columns = true;
    let types: Vec<(Ty, bool)> = columns.iter().map(|column| (column.ty, column.nullable)).collect();
    while let Some(row) = rows.next()? {
        sink.count += 1;
        let Some(sender) = &sink.sender else {
            let mut values = Vec::with_capacity(types.len());
            for (index, (ty, _)) in types.iter().enumerate() {
                values.push(shown(row.get_ref(index)?, ty));
            }
            sink.kept.push(values);
            continue;
        };
        sink.tokens.push(0xd1);
        for (index, (ty, nullable)) in types.iter().enumerate() {
            put_value(ty, *nullable, row.get_ref(index)?, &mut sink.tokens);
        }
        if sink.tokens.len() >= CHUNK {
            let tokens = std::mem::replace(&mut sink.tokens, Vec::with_capacity(CHUNK + 4096));
            let gone = sender.blocking_send(super::session::Reply::Tokens(tokens)).is_err();
            if gone || sink.control.is_cancelled() {
                return Err(SqlError::cancelled().into());
            }
        }
    }
    Ok(())
}
