//! What a message asks for: a batch, a procedure, the transaction manager (\[MS-TDS\] 2.2.6.6–2.2.6.9); and the procedures there are.

use rusqlite::types::{Value, ValueRef};

use super::{
    Event,
    ast::{Exec, Expr},
    convert::{convert, owned, shown},
    error::{Sql, SqlError},
    locks::{Mode, Resource},
    parse,
    run::Flow,
    session::Session,
    types::Ty,
    values::{put_type, put_value, read_type},
    wire::{Bad, Done, Reader, Tokens as _, done, packet, put_b_varchar, utf16},
};

/// An argument of a call.
#[derive(Clone, Debug)]
struct Argument {
    name: String,
    output: bool,
    ty: Ty,
    value: Value,
}

/// Ids of procedures that are called by number (2.2.6.6).
fn by_id(id: u16) -> &'static str {
    match id {
        1 => "sp_cursor",
        2 => "sp_cursoropen",
        3 => "sp_cursorprepare",
        10 => "sp_executesql",
        11 => "sp_prepare",
        12 => "sp_execute",
        13 => "sp_prepexec",
        14 => "sp_prepexecrpc",
        15 => "sp_unprepare",
        _ => "?",
    }
}

impl Session {
    /// Executes a message and leaves its answer to be sent; whether the connection is to be cut.
    pub fn message(&mut self, kind: u8, body: &[u8]) -> bool {
        self.procedure = false;
        // What was announced and did not come is forgotten.
        self.give_up_bulk();
        let flow = match kind {
            packet::BATCH => self.sql_batch(body),
            packet::RPC => self.rpc(body),
            _ => self.manage(body),
        };
        let flow = flow.unwrap_or_else(|bad| {
            self.answer_error(&bad.into());
            self.statement_done(done::ERROR, None);
            Flow::Ended
        });
        if flow == Flow::Cut {
            return true;
        }
        if flow != Flow::Cancelled {
            self.end_of_batch();
            if self.pending.is_none() {
                self.pending = Some((Done::Batch, 0, None));
            }
        }
        self.settle(false);
        false
    }

    fn sql_batch(&mut self, body: &[u8]) -> Result<Flow, Bad> {
        let mut reader = Reader::new(body);
        reader.all_headers()?;
        let text = utf16(&body[reader.at()..]);
        self.shared.log.add(self.spid, Event::Batch(text.clone()));
        self.variables.clear();
        Ok(self.batch(&text))
    }

    fn manage(&mut self, body: &[u8]) -> Result<Flow, Bad> {
        let mut reader = Reader::new(body);
        reader.all_headers()?;
        let kind = reader.u16()?;
        let (text, commit) = match kind {
            5 => ("BEGIN TRANSACTION", false),
            7 => ("COMMIT", true),
            8 => ("ROLLBACK", false),
            9 => ("SAVE TRANSACTION", false),
            _ => return Err(Bad::Wrong(format!("the request {kind} of the transaction manager"))),
        };
        let cut = match self.strike_plain(text, commit) {
            Ok(Ok(cut)) => cut,
            Ok(Err(flow)) => return Ok(flow),
            Err(error) => return Ok(self.manage_failed(&error)),
        };
        let outcome = match kind {
            5 => {
                let isolation = reader.u8()?;
                self.isolation = match isolation {
                    3 | 4 => super::ast::Isolation::Serializable,
                    5 => super::ast::Isolation::Snapshot,
                    1 | 2 => super::ast::Isolation::ReadCommitted,
                    _ => self.isolation,
                };
                self.begin();
                Ok(())
            }
            7 => self.commit(),
            8 => {
                let name = reader.b_varchar()?;
                if self.trancount == 0 {
                    Err(SqlError::of(3903, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."))
                } else if name.is_empty() {
                    self.roll_back();
                    Ok(())
                } else {
                    self.roll_back_to(&name)
                }
            }
            _ => {
                let name = reader.b_varchar()?;
                self.save_point(&name)
            }
        };
        if cut {
            return Ok(Flow::Cut);
        }
        if let Err(error) = outcome {
            return Ok(self.manage_failed(&error));
        }
        if (kind == 7 || kind == 8) && self.trancount == 0 {
            // fBeginXact: the next transaction begins at once.
            if kind == 7 {
                reader.b_varchar()?;
            }
            if reader.u8().is_ok_and(|flags| flags & 1 == 1) {
                self.begin();
            }
        }
        self.statement_done(0, None);
        Ok(Flow::Next)
    }

    fn manage_failed(&mut self, error: &SqlError) -> Flow {
        if error.is_cancelled() {
            return Flow::Cancelled;
        }
        self.answer_error(error);
        if self.xact_abort || error.ends() == super::error::Ends::Transaction {
            self.roll_back();
        }
        self.statement_done(done::ERROR, None);
        if self.leaves_by(error) { Flow::Cut } else { Flow::Ended }
    }

    fn rpc(&mut self, body: &[u8]) -> Result<Flow, Bad> {
        let mut reader = Reader::new(body);
        reader.all_headers()?;
        loop {
            let name = match reader.u16()? {
                0xffff => by_id(reader.u16()?).to_owned(),
                units => reader.utf16(units.into())?,
            };
            reader.u16()?;
            let mut arguments = vec![];
            while !reader.is_empty() && !matches!(reader.peek(), Some(0x80 | 0xff)) {
                let name = reader.b_varchar()?.to_lowercase();
                let status = reader.u8()?;
                let wire = read_type(&mut reader)?;
                let mut scratch = vec![];
                let value = owned(wire.read(&mut reader, &mut scratch)?);
                arguments.push(Argument { name, output: status & 1 == 1, ty: wire.ty, value });
            }
            self.procedure = true;
            let flow = self.called(&name, arguments);
            if flow != Flow::Next && !matches!(flow, Flow::Return(_) | Flow::Ended) {
                return Ok(flow);
            }
            // Several calls in one message.
            if reader.u8().is_err() {
                return Ok(Flow::Next);
            }
        }
    }

    fn called(&mut self, name: &str, arguments: Vec<Argument>) -> Flow {
        let short = name.rsplit('.').next().unwrap_or(name).trim_matches(['[', ']']).to_lowercase();
        let mut arguments = arguments;
        let mut flow = Flow::Next;
        let mut status = 0;
        if short == "sp_executesql" {
            let text = arguments
                .first()
                .and_then(|argument| shown(ValueRef::from(&argument.value), &argument.ty))
                .unwrap_or_default();
            self.shared.log.add(self.spid, Event::Rpc(text.clone()));
            let saved = std::mem::take(&mut self.variables);
            match self.declare(&mut arguments) {
                Ok(()) => flow = self.nested(&text),
                Err(error) => {
                    self.answer_error(&error);
                    flow = Flow::Ended;
                }
            }
            let own = std::mem::replace(&mut self.variables, saved);
            for argument in arguments.iter_mut().skip(2) {
                if let Some((ty, value)) = own.get(&argument.name) {
                    (argument.ty, argument.value) = (*ty, value.clone());
                }
            }
        } else {
            self.shared.log.add(self.spid, Event::Rpc(name.to_owned()));
            match self.procedure(&short, &arguments) {
                Ok(returned) => status = i32::try_from(returned).unwrap_or(0),
                Err(error) => {
                    if error.is_cancelled() {
                        return Flow::Cancelled;
                    }
                    self.answer_error(&error);
                    if self.xact_abort || error.ends() == super::error::Ends::Transaction {
                        self.roll_back();
                    }
                    flow = Flow::Ended;
                }
            }
        }
        match flow {
            Flow::Cut | Flow::Cancelled => return flow,
            Flow::Return(value) => status = value,
            _ => {}
        }
        self.settle(true);
        let failed = flow == Flow::Ended;
        self.return_status(if failed && status == 0 { self.last_error } else { status });
        for (at, argument) in arguments.iter().enumerate().filter(|(_, argument)| argument.output) {
            let mut token = vec![0xac];
            token.extend_from_slice(&u16::try_from(at).unwrap_or(0).to_le_bytes());
            put_b_varchar(&argument.name, &mut token);
            token.extend_from_slice(&[1, 0, 0, 0, 0, 1, 0]);
            put_type(&argument.ty, true, None, &mut token);
            put_value(&argument.ty, true, ValueRef::from(&argument.value), &mut token);
            self.out().extend_from_slice(&token);
        }
        self.settle(true);
        self.pending = Some((Done::Procedure, if failed { done::ERROR } else { 0 }, None));
        flow
    }

    /// Declares the parameters of `sp_executesql`, of the types that its second argument gives them.
    fn declare(&mut self, arguments: &mut [Argument]) -> Sql<()> {
        let Some(list) = arguments.get(1).and_then(|list| shown(ValueRef::from(&list.value), &list.ty)) else {
            return Ok(());
        };
        let declared = parse::parameters(&list)?;
        for (at, (name, ty, _)) in declared.iter().enumerate() {
            let given = arguments.iter().skip(2).position(|argument| argument.name == *name);
            let given = given.or_else(|| arguments.get(at + 2).filter(|argument| argument.name.is_empty()).map(|_| at));
            let value = match given.and_then(|at| arguments.get_mut(at + 2)) {
                Some(argument) => {
                    argument.name.clone_from(name);
                    convert(ValueRef::from(&argument.value), &argument.ty, ty, 0)?
                }
                None => {
                    return Err(SqlError::of(
                        8178,
                        format!(
                            "The parameterized query '({list})' expects the parameter '{name}', which was not supplied."
                        ),
                    ));
                }
            };
            self.variables.insert(name.clone(), (*ty, value));
        }
        Ok(())
    }

    /// A batch inside of another: what it sets and the `#tables` it makes end with it.
    fn nested(&mut self, text: &str) -> Flow {
        let saved = (self.xact_abort, self.nocount, self.lock_timeout, self.isolation);
        let outer = std::mem::take(&mut self.temps);
        let before = self.trancount;
        self.depth += 1;
        let flow = if self.depth > 32 {
            self.answer_error(&SqlError::of(
                217,
                "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
            ));
            Flow::Ended
        } else {
            self.batch(text)
        };
        self.depth -= 1;
        (self.xact_abort, self.nocount, self.lock_timeout, self.isolation) = saved;
        for id in std::mem::replace(&mut self.temps, outer) {
            let _ = self.drop_temp(id);
        }
        if self.trancount != before && !matches!(flow, Flow::Cut | Flow::Cancelled | Flow::Ended) {
            let error = SqlError::of(
                266,
                format!(
                    "Transaction count after EXECUTE indicates a mismatching number of BEGIN and COMMIT statements. Previous count = \
                     {before}, current count = {}.",
                    self.trancount
                ),
            );
            self.answer_error(&error);
        }
        flow
    }

    /// EXEC.
    pub fn exec(&mut self, exec: &Exec, in_try: bool) -> Sql<Flow> {
        if let Some(dynamic) = &exec.dynamic {
            let text = self.text_of(dynamic)?;
            return self.inner(&text, in_try);
        }
        let name = exec.procedure.last().map(|name| name.to_lowercase()).unwrap_or_default();
        let mut arguments = vec![];
        for (name, expr, output) in &exec.arguments {
            let (value, ty) = self.scalar(expr, None)?;
            let source = if let Expr::Variable(name) = expr { Some(name.clone()) } else { None };
            arguments.push((Argument { name: name.clone().unwrap_or_default(), output: *output, ty, value }, source));
        }
        if name == "sp_executesql" {
            let mut plain: Vec<Argument> = arguments.iter().map(|(argument, _)| argument.clone()).collect();
            let text = plain
                .first()
                .and_then(|argument| shown(ValueRef::from(&argument.value), &argument.ty))
                .unwrap_or_default();
            let saved = std::mem::take(&mut self.variables);
            let flow = match self.declare(&mut plain) {
                Ok(()) => self.inner(&text, in_try),
                Err(error) => Err(error),
            };
            let own = std::mem::replace(&mut self.variables, saved);
            for (argument, (_, source)) in plain.iter().zip(&arguments).filter(|(argument, _)| argument.output) {
                if let (Some(source), Some((from, value))) = (source, own.get(&argument.name))
                    && let Some((ty, place)) = self.variables.get_mut(source)
                {
                    *place = convert(ValueRef::from(value), from, ty, 0)?;
                }
            }
            return flow;
        }
        let plain: Vec<Argument> = arguments.into_iter().map(|(argument, _)| argument).collect();
        let status = self.procedure(&name, &plain)?;
        if let Some(result) = &exec.result {
            match self.variables.get_mut(result) {
                Some((_, place)) => *place = Value::Integer(status),
                None => return Err(SqlError::new(137, 15, format!("Must declare the scalar variable \"{result}\"."))),
            }
        }
        Ok(Flow::Next)
    }

    /// A batch inside of a batch; its errors are the TRY's around it.
    fn inner(&mut self, text: &str, in_try: bool) -> Sql<Flow> {
        if !in_try {
            let variables = std::mem::take(&mut self.variables);
            self.variables.clone_from(&variables);
            let flow = self.nested(text);
            self.variables = variables;
            return Ok(match flow {
                Flow::Return(_) => Flow::Next,
                flow => flow,
            });
        }
        let statements = parse::batch(text)?;
        self.depth += 1;
        let flow = self.statements(&statements, true);
        self.depth -= 1;
        Ok(match flow? {
            Flow::Return(_) => Flow::Next,
            flow => flow,
        })
    }

    /// The procedures that there are; what they return.
    fn procedure(&mut self, name: &str, arguments: &[Argument]) -> Sql<i64> {
        let argument = |at: usize, name: &str| {
            let named = arguments.iter().find(|argument| argument.name == name);
            let found = named.or_else(|| arguments.get(at).filter(|argument| argument.name.is_empty()));
            found.and_then(|argument| shown(ValueRef::from(&argument.value), &argument.ty))
        };
        match name {
            "sp_getapplock" => {
                let resource = argument(0, "@resource").unwrap_or_default();
                let mode = argument(1, "@lockmode").unwrap_or_default().to_ascii_lowercase();
                let mode = match mode.as_str() {
                    "shared" | "intentshared" => Mode::Shared,
                    "exclusive" | "update" | "intentexclusive" => Mode::Exclusive,
                    _ => return Ok(-999),
                };
                let owner = argument(2, "@lockowner").unwrap_or_else(|| "Transaction".to_owned());
                let of_session = owner.eq_ignore_ascii_case("session");
                if !of_session && self.trancount == 0 {
                    return Err(SqlError::of(
                        15_247,
                        "You attempted to acquire a transactional application lock without an active transaction.",
                    ));
                }
                let timeout = argument(3, "@locktimeout").and_then(|timeout| timeout.parse().ok()).unwrap_or(-1);
                self.app_lock(&resource, mode, of_session, timeout)
            }
            "sp_releaseapplock" => {
                let resource = argument(0, "@resource").unwrap_or_default().to_lowercase();
                let at = self.app_locks.iter().position(|(name, _)| *name == resource);
                let Some(at) = at else {
                    return Err(SqlError::of(
                        1223,
                        format!(
                            "Cannot release the application lock (Database Principal: 'public', Resource: '{resource}') because it is not currently held."
                        ),
                    ));
                };
                self.app_locks.remove(at);
                if !self.app_locks.iter().any(|(name, _)| *name == resource) {
                    self.shared.locks.release(self.spid, &Resource::App(resource));
                }
                Ok(0)
            }
            "sp_rename" => {
                let (from, to) =
                    (argument(0, "@objname").unwrap_or_default(), argument(1, "@newname").unwrap_or_default());
                self.rename(&from, &to, argument(2, "@objtype").as_deref())?;
                self.answer_error(&SqlError::new(
                    15_477,
                    10,
                    "Caution: Changing any part of an object name could break scripts and stored procedures.",
                ));
                Ok(0)
            }
            "sp_reset_connection" | "sp_set_session_context" => Ok(0),
            _ => Err(SqlError::of(2812, format!("Could not find stored procedure '{name}'."))),
        }
    }
}
