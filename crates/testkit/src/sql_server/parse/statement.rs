//! Statements that are no DDL.

use super::{
    super::{
        ast::{Delete, Exec, Expr, Insert, InsertBulk, Isolation, Kind, Output, SetOption, Source, Stmt, Update},
        error::{Sql, SqlError},
        lexer::Tok,
    },
    Parser,
};

impl Parser<'_> {
    /// One statement, with the semicolons behind it.
    pub(super) fn statement(&mut self) -> Sql<Stmt> {
        self.eat_semicolons();
        self.depth += 1;
        if self.depth > 200 {
            return Err(SqlError::new(191, 15, "Some part of your SQL statement is nested too deeply."));
        }
        let (start, line) = (self.start(), self.line());
        let kind = self.kind()?;
        let text = self.text[start..self.end()].trim_end_matches(';').to_owned();
        self.eat_semicolons();
        self.depth -= 1;
        Ok(Stmt { kind, text, line })
    }

    fn kind(&mut self) -> Sql<Kind> {
        let Tok::Word(word) = self.peek().clone() else {
            // `sp_rename …` as the first of a batch would come with EXEC; a parenthesis begins a query.
            if self.is_op("(") {
                return self.select_statement(vec![]);
            }
            return Err(self.unexpected());
        };
        match word.to_ascii_uppercase().as_str() {
            "SELECT" => self.select_statement(vec![]),
            "WITH" => {
                let ctes = self.ctes()?;
                if self.is("INSERT") {
                    self.insert(ctes)
                } else if self.is("UPDATE") {
                    self.update(ctes)
                } else if self.is("DELETE") {
                    self.delete(ctes)
                } else {
                    self.select_statement(ctes)
                }
            }
            "INSERT" if self.is_at(1, "BULK") => self.insert_bulk(),
            "INSERT" => self.insert(vec![]),
            "UPDATE" if self.is_at(1, "STATISTICS") => {
                self.at += 2;
                self.object()?;
                Ok(Kind::Option(SetOption::Other))
            }
            "UPDATE" => self.update(vec![]),
            "DELETE" => self.delete(vec![]),
            "CREATE" => self.create(),
            "ALTER" => self.alter(),
            "DROP" => self.drop(),
            "TRUNCATE" => {
                self.at += 1;
                self.expect("TABLE")?;
                Ok(Kind::Truncate(self.object()?))
            }
            "DECLARE" => self.declare(),
            "SET" => self.set(),
            "USE" => {
                self.at += 1;
                Ok(Kind::Use(self.name()?))
            }
            "IF" => {
                self.at += 1;
                let condition = self.expr()?;
                let then = Box::new(self.statement()?);
                let other = if self.eat("ELSE") { Some(Box::new(self.statement()?)) } else { None };
                Ok(Kind::If(condition, then, other))
            }
            "WHILE" => {
                self.at += 1;
                Ok(Kind::While(self.expr()?, Box::new(self.statement()?)))
            }
            "BREAK" => {
                self.at += 1;
                Ok(Kind::Break)
            }
            "CONTINUE" => {
                self.at += 1;
                Ok(Kind::Continue)
            }
            "BEGIN" => self.begin(),
            "COMMIT" => {
                self.at += 1;
                self.transaction_name();
                Ok(Kind::Commit)
            }
            "ROLLBACK" => {
                self.at += 1;
                Ok(Kind::Rollback(self.transaction_name()))
            }
            "SAVE" => {
                self.at += 1;
                if !(self.is("TRAN") || self.is("TRANSACTION")) {
                    return Err(self.unexpected());
                }
                match self.transaction_name() {
                    Some(name) => Ok(Kind::Save(name)),
                    None => Err(self.unexpected()),
                }
            }
            "EXEC" | "EXECUTE" => {
                self.at += 1;
                self.exec().map(|exec| Kind::Exec(Box::new(exec)))
            }
            "THROW" => {
                self.at += 1;
                if self.is_op(";") || *self.peek() == Tok::End || self.is("END") {
                    return Ok(Kind::Throw(None));
                }
                let number = self.expr()?;
                self.expect_op(",")?;
                let text = self.expr()?;
                self.expect_op(",")?;
                Ok(Kind::Throw(Some([number, text, self.expr()?])))
            }
            "RAISERROR" => {
                self.at += 1;
                self.expect_op("(")?;
                let arguments = self.list()?;
                self.expect_op(")")?;
                if self.eat("WITH") {
                    self.name()?;
                }
                Ok(Kind::RaiseError(arguments))
            }
            "WAITFOR" => {
                self.at += 1;
                self.expect("DELAY")?;
                Ok(Kind::WaitFor(self.expr()?))
            }
            "PRINT" => {
                self.at += 1;
                Ok(Kind::Print(self.expr()?))
            }
            "RETURN" => {
                self.at += 1;
                let value = matches!(self.peek(), Tok::Number(_) | Tok::Variable(_) | Tok::Op("-" | "("));
                Ok(Kind::Return(if value { Some(self.expr()?) } else { None }))
            }
            "CHECKPOINT" => {
                self.at += 1;
                Ok(Kind::Option(SetOption::Other))
            }
            // A procedure may be called without EXEC where it begins the batch.
            _ if self.at == 0 && word.to_ascii_lowercase().starts_with("sp_") => {
                self.exec().map(|exec| Kind::Exec(Box::new(exec)))
            }
            "MERGE" => Err(SqlError::unsupported("MERGE")),
            _ => Err(self.unexpected()),
        }
    }

    /// `TRAN[SACTION] [name]` or `WORK`, after the verb.
    fn transaction_name(&mut self) -> Option<String> {
        if self.eat("WORK") {
            return None;
        }
        if self.eat("TRAN") || self.eat("TRANSACTION") {
            if let Tok::Variable(name) = self.peek().clone() {
                self.at += 1;
                return Some(name);
            }
            return self.name().ok();
        }
        None
    }

    fn begin(&mut self) -> Sql<Kind> {
        self.at += 1;
        if self.eat("TRAN") || self.eat("TRANSACTION") {
            let _ = self.name();
            return Ok(Kind::Begin);
        }
        if self.eat("TRY") {
            let body = self.until_end()?;
            self.expect("TRY")?;
            self.eat_semicolons();
            self.expect("BEGIN")?;
            self.expect("CATCH")?;
            let handler = self.until_end()?;
            self.expect("CATCH")?;
            return Ok(Kind::Try(body, handler));
        }
        self.until_end().map(Kind::Block)
    }

    fn until_end(&mut self) -> Sql<Vec<Stmt>> {
        let mut out = vec![];
        loop {
            if self.eat_semicolons() {
                return Err(self.unexpected());
            }
            if self.eat("END") {
                return Ok(out);
            }
            out.push(self.statement()?);
        }
    }

    fn select_statement(&mut self, ctes: Vec<super::super::ast::Cte>) -> Sql<Kind> {
        // `SELECT @x = …`
        let first = if self.is("SELECT") { 1 } else { 0 };
        if matches!(self.peek_at(first), Tok::Variable(_)) && matches!(self.peek_at(first + 1), Tok::Op("=")) {
            return self.assign(ctes);
        }
        let (query, into) = self.query_after(ctes)?;
        Ok(Kind::Select(Box::new(query), into))
    }

    /// `SELECT @a = x, @b = y FROM …`: read as `SELECT x, y FROM …` by taking the names out.
    fn assign(&mut self, ctes: Vec<super::super::ast::Cte>) -> Sql<Kind> {
        let mut names = vec![];
        let mut depth = 0_i32;
        let mut at = self.at + 1;
        let mut first = true;
        while at + 1 < self.tokens.len() {
            match &self.tokens[at].tok {
                Tok::Op("(") => depth += 1,
                Tok::Op(")") => depth -= 1,
                Tok::Op(",") if depth == 0 => {
                    first = true;
                    at += 1;
                    continue;
                }
                Tok::Variable(name) if depth == 0 && first && self.tokens[at + 1].tok == Tok::Op("=") => {
                    names.push(name.clone());
                    self.tokens.drain(at..at + 2);
                    first = false;
                    continue;
                }
                Tok::Word(word)
                    if depth == 0 && ["FROM", "WHERE", "ORDER"].contains(&word.to_ascii_uppercase().as_str()) =>
                {
                    break;
                }
                Tok::Op(";") => break,
                _ => {}
            }
            first = false;
            at += 1;
        }
        let (query, _) = self.query_after(ctes)?;
        match &query.body {
            super::super::ast::Body::Select(select) if select.items.len() == names.len() => {}
            _ => {
                return Err(SqlError::new(
                    141,
                    15,
                    "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.",
                ));
            }
        }
        Ok(Kind::Assign(names, Box::new(query)))
    }

    fn output(&mut self) -> Sql<Option<Output>> {
        if !self.eat("OUTPUT") {
            return Ok(None);
        }
        let items = self.items()?;
        let into = if self.eat("INTO") {
            let name = self.object()?;
            let columns = if self.is_op("(") { Some(self.names()?) } else { None };
            Some((name, columns))
        } else {
            None
        };
        Ok(Some(Output { items, into }))
    }

    fn insert(&mut self, ctes: Vec<super::super::ast::Cte>) -> Sql<Kind> {
        self.expect("INSERT")?;
        self.eat("INTO");
        let table = self.object()?;
        self.hints()?;
        let columns = if self.is_op("(") && !self.is_at(1, "SELECT") { Some(self.names()?) } else { None };
        let output = self.output()?;
        let source = if self.eat("DEFAULT") {
            self.expect("VALUES")?;
            Source::Default
        } else if self.eat("VALUES") {
            let mut rows = vec![];
            loop {
                self.expect_op("(")?;
                let mut row = vec![];
                loop {
                    row.push(if self.eat("DEFAULT") { None } else { Some(self.expr()?) });
                    if !self.eat_op(",") {
                        break;
                    }
                }
                self.expect_op(")")?;
                rows.push(row);
                if !self.eat_op(",") {
                    break;
                }
            }
            if self.eat("OPTION") {
                self.skip_parentheses()?;
            }
            Source::Values(rows)
        } else if self.eat("EXEC") || self.eat("EXECUTE") {
            self.exec()?;
            Source::Exec
        } else {
            Source::Query(self.query()?)
        };
        Ok(Kind::Insert(Box::new(Insert { ctes, table, columns, output, source })))
    }

    fn update(&mut self, ctes: Vec<super::super::ast::Cte>) -> Sql<Kind> {
        self.expect("UPDATE")?;
        let top = self.top()?;
        let target = self.object()?;
        self.hints()?;
        self.expect("SET")?;
        let (mut set, mut variables) = (vec![], vec![]);
        loop {
            if let Tok::Variable(name) = self.peek().clone() {
                self.at += 1;
                self.expect_op("=")?;
                variables.push((name, self.expr()?));
            } else {
                let column = self.object()?;
                let op = ["+=", "-=", "*=", "/="].into_iter().find(|op| self.is_op(op));
                if let Some(op) = op {
                    self.at += 1;
                    let value = self.expr()?;
                    let op = match op {
                        "+=" => "+",
                        "-=" => "-",
                        "*=" => "*",
                        _ => "/",
                    };
                    let value = Expr::Binary(op, Box::new(Expr::Column(column.clone())), Box::new(value));
                    set.push((column, Some(value)));
                } else {
                    self.expect_op("=")?;
                    set.push((column, if self.eat("DEFAULT") { None } else { Some(self.expr()?) }));
                }
            }
            if !self.eat_op(",") {
                break;
            }
        }
        let output = self.output()?;
        let from = if self.eat("FROM") { self.tables()? } else { vec![] };
        let filter = if self.eat("WHERE") { Some(self.expr()?) } else { None };
        if self.eat("OPTION") {
            self.skip_parentheses()?;
        }
        Ok(Kind::Update(Box::new(Update { ctes, target, top, set, output, from, filter, variables })))
    }

    fn delete(&mut self, ctes: Vec<super::super::ast::Cte>) -> Sql<Kind> {
        self.expect("DELETE")?;
        let top = self.top()?;
        self.eat("FROM");
        let target = self.object()?;
        self.hints()?;
        let output = self.output()?;
        let from = if self.eat("FROM") { self.tables()? } else { vec![] };
        let filter = if self.eat("WHERE") { Some(self.expr()?) } else { None };
        if self.eat("OPTION") {
            self.skip_parentheses()?;
        }
        Ok(Kind::Delete(Box::new(Delete { ctes, target, top, output, from, filter })))
    }

    fn insert_bulk(&mut self) -> Sql<Kind> {
        self.at += 2;
        let table = self.object()?;
        let mut columns = vec![];
        if self.eat_op("(") {
            loop {
                let name = self.name()?;
                let ty = self.ty()?;
                if self.eat("COLLATE") {
                    self.name()?;
                }
                let _ = self.eat_all(&["NOT", "NULL"]) || self.eat("NULL");
                columns.push((name, ty));
                if !self.eat_op(",") {
                    break;
                }
            }
            self.expect_op(")")?;
        }
        let (mut keep_nulls, mut check) = (false, false);
        if self.eat("WITH") {
            self.expect_op("(")?;
            loop {
                match self.name()?.to_ascii_uppercase().as_str() {
                    "KEEP_NULLS" => keep_nulls = true,
                    "CHECK_CONSTRAINTS" => check = true,
                    "TABLOCK" | "FIRE_TRIGGERS" => {}
                    "ROWS_PER_BATCH" | "KILOBYTES_PER_BATCH" => {
                        self.expect_op("=")?;
                        self.integer()?;
                    }
                    "ORDER" => self.skip_parentheses()?,
                    _ => {
                        self.at -= 1;
                        return Err(self.unexpected());
                    }
                }
                if !self.eat_op(",") {
                    break;
                }
                if self.eat("ORDER") {
                    self.skip_parentheses()?;
                    if !self.eat_op(",") {
                        break;
                    }
                }
            }
            self.expect_op(")")?;
        }
        Ok(Kind::InsertBulk(Box::new(InsertBulk { table, columns, keep_nulls, check })))
    }

    fn declare(&mut self) -> Sql<Kind> {
        self.at += 1;
        let mut out = vec![];
        loop {
            let name = self.variable()?;
            self.eat("AS");
            if self.is("TABLE") || self.is("CURSOR") {
                return Err(self.unexpected());
            }
            let ty = self.ty()?;
            let value = if self.eat_op("=") { Some(self.expr()?) } else { None };
            out.push((name, ty, value));
            if !self.eat_op(",") {
                return Ok(Kind::Declare(out));
            }
        }
    }

    fn on(&mut self) -> Sql<bool> {
        if self.eat("ON") {
            Ok(true)
        } else {
            self.expect("OFF")?;
            Ok(false)
        }
    }

    fn set(&mut self) -> Sql<Kind> {
        self.at += 1;
        if let Tok::Variable(name) = self.peek().clone() {
            self.at += 1;
            let op =
                ["=", "+=", "-=", "*=", "/="].into_iter().find(|op| self.is_op(op)).ok_or_else(|| self.unexpected())?;
            self.at += 1;
            let value = self.expr()?;
            let compound = match op {
                "+=" => "+",
                "-=" => "-",
                "*=" => "*",
                "/=" => "/",
                _ => return Ok(Kind::Set(name, value)),
            };
            let value = Expr::Binary(compound, Box::new(Expr::Variable(name.clone())), Box::new(value));
            return Ok(Kind::Set(name, value));
        }
        let Tok::Word(word) = self.next() else { return Err(self.unexpected()) };
        let option = match word.to_ascii_uppercase().as_str() {
            "XACT_ABORT" => SetOption::XactAbort(self.on()?),
            "NOCOUNT" => SetOption::NoCount(self.on()?),
            "LOCK_TIMEOUT" => SetOption::LockTimeout(self.integer()?),
            "TRANSACTION" => {
                self.expect("ISOLATION")?;
                self.expect("LEVEL")?;
                SetOption::Isolation(if self.eat("SNAPSHOT") {
                    Isolation::Snapshot
                } else if self.eat("SERIALIZABLE") || self.eat_all(&["REPEATABLE", "READ"]) {
                    Isolation::Serializable
                } else if self.eat_all(&["READ", "COMMITTED"]) || self.eat_all(&["READ", "UNCOMMITTED"]) {
                    Isolation::ReadCommitted
                } else {
                    return Err(self.unexpected());
                })
            }
            "IDENTITY_INSERT" => {
                let table = self.object()?;
                SetOption::IdentityInsert(table, self.on()?)
            }
            "ANSI_NULLS"
            | "ANSI_PADDING"
            | "ANSI_WARNINGS"
            | "ANSI_NULL_DFLT_ON"
            | "ANSI_DEFAULTS"
            | "ARITHABORT"
            | "CONCAT_NULL_YIELDS_NULL"
            | "QUOTED_IDENTIFIER"
            | "NUMERIC_ROUNDABORT"
            | "IMPLICIT_TRANSACTIONS"
            | "CURSOR_CLOSE_ON_COMMIT"
            | "FMTONLY"
            | "NOEXEC"
            | "ARITHIGNORE" => {
                let mut names = 1;
                while self.eat_op(",") {
                    self.name()?;
                    names += 1;
                }
                let on = self.on()?;
                let refused =
                    ["IMPLICIT_TRANSACTIONS", "FMTONLY", "NOEXEC"].iter().any(|name| word.eq_ignore_ascii_case(name));
                if on && refused && names == 1 {
                    return Err(SqlError::unsupported(&word));
                }
                SetOption::Other
            }
            "DATEFORMAT" | "LANGUAGE" | "TEXTSIZE" | "ROWCOUNT" | "DATEFIRST" | "DEADLOCK_PRIORITY"
            | "CONTEXT_INFO" => {
                let value = self.next();
                if word.eq_ignore_ascii_case("ROWCOUNT") && value != Tok::Number("0".to_owned()) {
                    return Err(SqlError::unsupported("ROWCOUNT"));
                }
                SetOption::Other
            }
            _ => return Err(SqlError::new(195, 15, format!("'{word}' is not a recognized SET option."))),
        };
        Ok(Kind::Option(option))
    }

    fn exec(&mut self) -> Sql<Exec> {
        let mut result = None;
        if self.eat_op("(") {
            let dynamic = Some(self.expr()?);
            self.expect_op(")")?;
            return Ok(Exec { procedure: vec![], result, arguments: vec![], dynamic });
        }
        if matches!(self.peek(), Tok::Variable(_)) && matches!(self.peek_at(1), Tok::Op("=")) {
            result = Some(self.variable()?);
            self.at += 1;
        }
        let procedure = self.object()?;
        let mut arguments = vec![];
        let ends = |parser: &Self| match parser.peek() {
            Tok::End | Tok::Op(";") => true,
            Tok::Word(word) => super::RESERVED
                .iter()
                .any(|reserved| word.eq_ignore_ascii_case(reserved) && !["NULL", "DEFAULT"].contains(reserved)),
            _ => false,
        };
        while !ends(self) {
            let name = if matches!(self.peek(), Tok::Variable(_)) && matches!(self.peek_at(1), Tok::Op("=")) {
                let name = self.variable()?;
                self.at += 1;
                Some(name)
            } else {
                None
            };
            // A word stands for a text: `sp_helpindex t`.
            let value = match self.peek().clone() {
                Tok::Word(word) if !word.eq_ignore_ascii_case("NULL") => {
                    self.at += 1;
                    Expr::Text(word, true)
                }
                _ => self.expr()?,
            };
            let output = self.eat("OUTPUT") || self.eat("OUT");
            arguments.push((name, value, output));
            if !self.eat_op(",") {
                break;
            }
        }
        Ok(Exec { procedure, result, arguments, dynamic: None })
    }
}
