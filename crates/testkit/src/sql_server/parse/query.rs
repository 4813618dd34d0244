//! SELECT and what it is made of.

use super::{
    super::{
        ast::{Body, Cte, Expr, Item, Query, Select, Table},
        error::{Sql, SqlError},
        lexer::Tok,
    },
    Parser,
};

impl Parser<'_> {
    pub(super) fn ctes(&mut self) -> Sql<Vec<Cte>> {
        let mut out = vec![];
        if self.eat("WITH") {
            loop {
                let name = self.name()?;
                let columns = if self.is_op("(") { self.names()? } else { vec![] };
                self.expect("AS")?;
                self.expect_op("(")?;
                let query = self.query()?;
                self.expect_op(")")?;
                out.push(Cte { name, columns, query });
                if !self.eat_op(",") {
                    break;
                }
            }
        }
        Ok(out)
    }

    /// A query, with what may stand before and after it.
    pub(super) fn query(&mut self) -> Sql<Query> {
        let ctes = self.ctes()?;
        self.query_after(ctes).map(|(query, _)| query)
    }

    /// A query whose CTEs are read; with the INTO of its first SELECT.
    pub(super) fn query_after(&mut self, ctes: Vec<Cte>) -> Sql<(Query, Option<Vec<String>>)> {
        self.depth += 1;
        if self.depth > 100 {
            return Err(SqlError::new(191, 15, "Some part of your SQL statement is nested too deeply."));
        }
        let mut into = None;
        let body = self.union(&mut into)?;
        let order = if self.is("ORDER") { self.order_by()? } else { vec![] };
        let (mut offset, mut fetch) = (None, None);
        if self.eat("OFFSET") {
            offset = Some(self.expr()?);
            if !(self.eat("ROWS") || self.eat("ROW")) {
                return Err(self.unexpected());
            }
            if self.eat("FETCH") {
                if !(self.eat("NEXT") || self.eat("FIRST")) {
                    return Err(self.unexpected());
                }
                fetch = Some(self.expr()?);
                if !(self.eat("ROWS") || self.eat("ROW")) {
                    return Err(self.unexpected());
                }
                self.expect("ONLY")?;
            }
        }
        if self.eat("OPTION") {
            self.skip_parentheses()?;
        }
        if self.is("FOR") {
            return Err(SqlError::unsupported("FOR"));
        }
        self.depth -= 1;
        Ok((Query { ctes, body, order, offset, fetch }, into))
    }

    fn union(&mut self, into: &mut Option<Vec<String>>) -> Sql<Body> {
        let mut left = self.intersect(into)?;
        loop {
            let op = if self.eat("UNION") {
                if self.eat("ALL") { "UNION ALL" } else { "UNION" }
            } else if self.eat("EXCEPT") {
                "EXCEPT"
            } else {
                return Ok(left);
            };
            left = Body::Set(op, Box::new(left), Box::new(self.intersect(into)?));
        }
    }

    fn intersect(&mut self, into: &mut Option<Vec<String>>) -> Sql<Body> {
        let mut left = self.term(into)?;
        while self.eat("INTERSECT") {
            left = Body::Set("INTERSECT", Box::new(left), Box::new(self.term(into)?));
        }
        Ok(left)
    }

    fn term(&mut self, into: &mut Option<Vec<String>>) -> Sql<Body> {
        if self.eat_op("(") {
            let query = self.query()?;
            self.expect_op(")")?;
            return Ok(Body::Query(Box::new(query)));
        }
        self.select(into).map(|select| Body::Select(Box::new(select)))
    }

    pub(super) fn top(&mut self) -> Sql<Option<Expr>> {
        if !self.eat("TOP") {
            return Ok(None);
        }
        let top = if self.eat_op("(") {
            let top = self.expr()?;
            self.expect_op(")")?;
            top
        } else {
            Expr::Number(self.integer()?.to_string())
        };
        if self.is("PERCENT") || self.is("WITH") && self.is_at(1, "TIES") {
            return Err(SqlError::unsupported("PERCENT"));
        }
        Ok(Some(top))
    }

    fn select(&mut self, into: &mut Option<Vec<String>>) -> Sql<Select> {
        self.expect("SELECT")?;
        let distinct = self.eat("DISTINCT");
        if !distinct {
            self.eat("ALL");
        }
        let top = self.top()?;
        let items = self.items()?;
        if self.eat("INTO") {
            *into = Some(self.object()?);
        }
        let from = if self.eat("FROM") { self.tables()? } else { vec![] };
        let filter = if self.eat("WHERE") { Some(self.expr()?) } else { None };
        let group = if self.eat_all(&["GROUP", "BY"]) { self.list()? } else { vec![] };
        let having = if self.eat("HAVING") { Some(self.expr()?) } else { None };
        Ok(Select { distinct, top, items, from, filter, group, having })
    }

    pub(super) fn items(&mut self) -> Sql<Vec<Item>> {
        let mut out = vec![self.item()?];
        while self.eat_op(",") {
            out.push(self.item()?);
        }
        Ok(out)
    }

    fn item(&mut self) -> Sql<Item> {
        if self.eat_op("*") {
            return Ok(Item::All(None));
        }
        // `t.*`
        let mark = self.at;
        if let Ok(first) = self.name() {
            let mut parts = vec![first];
            while self.eat_op(".") {
                if self.eat_op("*") {
                    return Ok(Item::All(Some(parts)));
                }
                match self.name() {
                    Ok(part) => parts.push(part),
                    Err(_) => break,
                }
            }
            self.at = mark;
            // `alias = expr`
            if matches!(self.peek_at(1), Tok::Op("=")) && parts.len() == 1 {
                self.at += 2;
                return Ok(Item::Expr(self.expr()?, parts.pop()));
            }
        }
        self.at = mark;
        let expr = self.expr()?;
        let alias = if self.eat("AS") {
            Some(match self.peek().clone() {
                Tok::Text(text, _) => {
                    self.at += 1;
                    text
                }
                _ => self.name()?,
            })
        } else {
            self.name().ok()
        };
        Ok(Item::Expr(expr, alias))
    }

    pub(super) fn tables(&mut self) -> Sql<Vec<Table>> {
        let mut out = vec![self.joined()?];
        while self.eat_op(",") {
            out.push(self.joined()?);
        }
        Ok(out)
    }

    fn joined(&mut self) -> Sql<Table> {
        let mut left = self.table()?;
        loop {
            let kind = if self.eat_all(&["CROSS", "JOIN"]) {
                "CROSS JOIN"
            } else if self.is("CROSS") || self.is("OUTER") {
                return Err(SqlError::unsupported("APPLY"));
            } else if self.eat("JOIN") || self.eat_join("INNER") {
                "JOIN"
            } else if self.eat_join("LEFT") {
                "LEFT JOIN"
            } else if self.eat_join("RIGHT") {
                "RIGHT JOIN"
            } else if self.eat_join("FULL") {
                "FULL JOIN"
            } else {
                return Ok(left);
            };
            let right = self.table_in_join()?;
            let on = if kind == "CROSS JOIN" {
                None
            } else {
                self.expect("ON")?;
                Some(self.expr()?)
            };
            left = Table::Join { kind, left: Box::new(left), right: Box::new(right), on };
        }
    }

    /// `LEFT [OUTER] [HASH | LOOP | MERGE] JOIN`.
    fn eat_join(&mut self, word: &str) -> bool {
        let mark = self.at;
        if self.eat(word) {
            self.eat("OUTER");
            let _ = self.eat("HASH") || self.eat("LOOP") || self.eat("MERGE");
            if self.eat("JOIN") {
                return true;
            }
        }
        self.at = mark;
        false
    }

    fn table_in_join(&mut self) -> Sql<Table> {
        self.table()
    }

    fn table(&mut self) -> Sql<Table> {
        if self.eat_op("(") {
            if self.is("SELECT") || self.is("WITH") {
                let query = self.query()?;
                self.expect_op(")")?;
                let (alias, columns) = self.derived_alias()?;
                return Ok(Table::Derived { query, alias, columns });
            }
            if self.eat("VALUES") {
                let mut rows = vec![];
                loop {
                    self.expect_op("(")?;
                    rows.push(self.list()?);
                    self.expect_op(")")?;
                    if !self.eat_op(",") {
                        break;
                    }
                }
                self.expect_op(")")?;
                let (alias, columns) = self.derived_alias()?;
                return Ok(Table::Values { rows, alias, columns });
            }
            let inner = self.joined()?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        if matches!(self.peek(), Tok::Variable(_)) {
            return Err(SqlError::unsupported("table variable"));
        }
        let name = self.object()?;
        if self.is_op("(") && !(matches!(self.peek_at(1), Tok::Word(_))) {
            return Err(SqlError::unsupported(&format!("{}(", name.join("."))));
        }
        let mut hints = self.hints()?;
        let alias = if self.eat("AS") { Some(self.name()?) } else { self.name().ok() };
        hints.extend(self.hints()?);
        Ok(Table::Named { name, alias, hints })
    }

    fn derived_alias(&mut self) -> Sql<(String, Vec<String>)> {
        self.eat("AS");
        let alias = self.name()?;
        let columns = if self.is_op("(") { self.names()? } else { vec![] };
        Ok((alias, columns))
    }

    /// `WITH (TABLOCK, …)`, in capitals.
    pub(super) fn hints(&mut self) -> Sql<Vec<String>> {
        const HINTS: [&str; 14] = [
            "NOLOCK",
            "TABLOCK",
            "TABLOCKX",
            "UPDLOCK",
            "HOLDLOCK",
            "ROWLOCK",
            "READPAST",
            "XLOCK",
            "SERIALIZABLE",
            "READCOMMITTED",
            "READCOMMITTEDLOCK",
            "PAGLOCK",
            "NOWAIT",
            "SNAPSHOT",
        ];
        let old = !self.is("WITH")
            && self.is_op("(")
            && matches!(self.peek_at(1), Tok::Word(word) if HINTS.contains(&word.to_ascii_uppercase().as_str()));
        let new = self.is("WITH") && matches!(self.peek_at(1), Tok::Op("("));
        if !new && !old {
            return Ok(vec![]);
        }
        self.eat("WITH");
        self.expect_op("(")?;
        let mut hints = vec![];
        loop {
            let hint = self.next();
            let Tok::Word(word) = hint else { return Err(self.unexpected()) };
            let word = word.to_ascii_uppercase();
            match word.as_str() {
                "INDEX" | "FORCESEEK" | "FORCESCAN" | "KEEPIDENTITY" | "KEEPDEFAULTS" | "IGNORE_CONSTRAINTS" => {
                    if self.is_op("(") {
                        self.skip_parentheses()?;
                    } else if self.eat_op("=") {
                        self.next();
                    }
                }
                word if HINTS.contains(&word) || word == "READUNCOMMITTED" || word == "REPEATABLEREAD" => {}
                _ => {
                    self.at -= 1;
                    return Err(SqlError::new(321, 15, format!("\"{word}\" is not a recognized table hints option.")));
                }
            }
            hints.push(word);
            if !self.eat_op(",") && !matches!(self.peek(), Tok::Word(_)) {
                break;
            }
        }
        self.expect_op(")")?;
        Ok(hints)
    }
}
