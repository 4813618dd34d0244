//! Expressions and conditions.

use super::{
    super::{
        ast::{Expr, Over},
        error::{Sql, SqlError},
        lexer::Tok,
    },
    Parser,
};

impl Parser<'_> {
    /// An expression or a condition.
    pub(super) fn expr(&mut self) -> Sql<Expr> {
        self.depth += 1;
        if self.depth > 200 {
            return Err(SqlError::new(191, 15, "Some part of your SQL statement is nested too deeply."));
        }
        let mut left = self.and()?;
        while self.eat("OR") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Sql<Expr> {
        let mut left = self.not()?;
        while self.eat("AND") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Sql<Expr> {
        if self.eat("NOT") {
            return Ok(Expr::Not(Box::new(self.not()?)));
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Sql<Expr> {
        let left = self.sum()?;
        for op in ["=", "<>", "<=", ">=", "!=", "!<", "!>", "<", ">"] {
            if self.eat_op(op) {
                let op = match op {
                    "!=" => "<>",
                    "!<" => ">=",
                    "!>" => "<=",
                    op => op,
                };
                return Ok(Expr::Binary(op, Box::new(left), Box::new(self.sum()?)));
            }
        }
        if self.eat("IS") {
            let not = self.eat("NOT");
            self.expect("NULL")?;
            return Ok(Expr::IsNull(Box::new(left), not));
        }
        let not = self.is("NOT") && (self.is_at(1, "IN") || self.is_at(1, "LIKE") || self.is_at(1, "BETWEEN"));
        self.at += usize::from(not);
        if self.eat("IN") {
            self.expect_op("(")?;
            let left = Box::new(left);
            let found = if self.is("SELECT") || self.is("WITH") {
                Expr::InQuery(left, Box::new(self.query()?), not)
            } else {
                Expr::In(left, self.list()?, not)
            };
            self.expect_op(")")?;
            return Ok(found);
        }
        if self.eat("LIKE") {
            let pattern = Box::new(self.sum()?);
            let escape = if self.eat("ESCAPE") { Some(Box::new(self.sum()?)) } else { None };
            return Ok(Expr::Like(Box::new(left), pattern, escape, not));
        }
        if self.eat("BETWEEN") {
            let low = Box::new(self.sum()?);
            self.expect("AND")?;
            return Ok(Expr::Between(Box::new(left), low, Box::new(self.sum()?), not));
        }
        Ok(left)
    }

    fn sum(&mut self) -> Sql<Expr> {
        let mut left = self.product()?;
        loop {
            let Some(op) = ["+", "-", "&", "|", "^"].into_iter().find(|op| self.is_op(op)) else { return Ok(left) };
            self.at += 1;
            left = Expr::Binary(op, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Sql<Expr> {
        let mut left = self.unary()?;
        loop {
            let Some(op) = ["*", "/", "%"].into_iter().find(|op| self.is_op(op)) else { return Ok(left) };
            self.at += 1;
            left = Expr::Binary(op, Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Sql<Expr> {
        for op in ["-", "+", "~"] {
            if self.eat_op(op) {
                let inner = self.unary()?;
                return Ok(match inner {
                    Expr::Number(text) if op == "-" && !text.starts_with('-') => Expr::Number(format!("-{text}")),
                    inner if op == "+" => inner,
                    inner => Expr::Unary(op, Box::new(inner)),
                });
            }
        }
        let mut expr = self.primary()?;
        while self.eat("COLLATE") {
            expr = Expr::Collate(Box::new(expr), self.name()?);
        }
        Ok(expr)
    }

    pub(super) fn list(&mut self) -> Sql<Vec<Expr>> {
        let mut out = vec![self.expr()?];
        while self.eat_op(",") {
            out.push(self.expr()?);
        }
        Ok(out)
    }

    fn primary(&mut self) -> Sql<Expr> {
        match self.peek().clone() {
            Tok::Number(text) => {
                self.at += 1;
                Ok(Expr::Number(text))
            }
            Tok::Text(text, national) => {
                self.at += 1;
                Ok(Expr::Text(text, national))
            }
            Tok::Hex(bytes) => {
                self.at += 1;
                Ok(Expr::Hex(bytes))
            }
            Tok::Variable(name) => {
                self.at += 1;
                Ok(Expr::Variable(name))
            }
            Tok::Op("(") => {
                self.at += 1;
                let inner = if self.is("SELECT") || self.is("WITH") {
                    Expr::Subquery(Box::new(self.query()?))
                } else {
                    self.expr()?
                };
                self.expect_op(")")?;
                Ok(inner)
            }
            Tok::Word(word) => self.word(&word.to_ascii_uppercase()),
            Tok::Quoted(_) => self.reference(),
            _ => Err(self.unexpected()),
        }
    }

    fn word(&mut self, word: &str) -> Sql<Expr> {
        match word {
            "NULL" => {
                self.at += 1;
                Ok(Expr::Null)
            }
            "CASE" => self.case(),
            "EXISTS" => {
                self.at += 1;
                self.expect_op("(")?;
                let query = self.query()?;
                self.expect_op(")")?;
                Ok(Expr::Exists(Box::new(query)))
            }
            "CAST" | "TRY_CAST" if matches!(self.peek_at(1), Tok::Op("(")) => {
                self.at += 2;
                let expr = Box::new(self.expr()?);
                self.expect("AS")?;
                let ty = self.cast_type()?;
                self.expect_op(")")?;
                Ok(Expr::Cast { expr, ty, tolerant: word == "TRY_CAST", style: None })
            }
            "CONVERT" | "TRY_CONVERT" if matches!(self.peek_at(1), Tok::Op("(")) => {
                self.at += 2;
                let ty = self.cast_type()?;
                self.expect_op(",")?;
                let expr = Box::new(self.expr()?);
                let style = if self.eat_op(",") { Some(Box::new(self.expr()?)) } else { None };
                self.expect_op(")")?;
                Ok(Expr::Cast { expr, ty, tolerant: word == "TRY_CONVERT", style })
            }
            // Functions whose names are reserved words.
            "LEFT" | "RIGHT" if matches!(self.peek_at(1), Tok::Op("(")) => {
                self.at += 1;
                self.call(vec![word.to_owned()])
            }
            "CURRENT_TIMESTAMP" => {
                self.at += 1;
                let name = vec!["GETDATE".to_owned()];
                Ok(Expr::Call { name, arguments: vec![], distinct: false, star: false, over: None })
            }
            "SYSTEM_USER" | "SESSION_USER" | "CURRENT_USER" if !matches!(self.peek_at(1), Tok::Op("(")) => {
                self.at += 1;
                let name = vec!["SUSER_SNAME".to_owned()];
                Ok(Expr::Call { name, arguments: vec![], distinct: false, star: false, over: None })
            }
            _ => self.reference(),
        }
    }

    /// A type in CAST, where a length left out is 30.
    fn cast_type(&mut self) -> Sql<super::super::types::Ty> {
        use super::super::types::Ty;
        let before = self.at;
        let ty = self.ty()?;
        let bare = !self.tokens[before..self.at].iter().any(|token| token.tok == Tok::Op("("));
        let sysname = self.tokens[before..self.at]
            .iter()
            .any(|token| matches!(&token.tok, Tok::Word(w) if w.eq_ignore_ascii_case("sysname")));
        Ok(match ty {
            _ if !bare || sysname => ty,
            Ty::Char(_) => Ty::Char(30),
            Ty::NChar(_) => Ty::NChar(30),
            Ty::Binary(_) => Ty::Binary(30),
            Ty::VarChar(Some(_)) => Ty::VarChar(Some(30)),
            Ty::NVarChar(Some(_)) => Ty::NVarChar(Some(30)),
            Ty::VarBinary(Some(_)) => Ty::VarBinary(Some(30)),
            ty => ty,
        })
    }

    fn case(&mut self) -> Sql<Expr> {
        self.expect("CASE")?;
        let of = if self.is("WHEN") { None } else { Some(Box::new(self.expr()?)) };
        let mut arms = vec![];
        while self.eat("WHEN") {
            let when = self.expr()?;
            self.expect("THEN")?;
            arms.push((when, self.expr()?));
        }
        if arms.is_empty() {
            return Err(self.unexpected());
        }
        let other = if self.eat("ELSE") { Some(Box::new(self.expr()?)) } else { None };
        self.expect("END")?;
        Ok(Expr::Case(of, arms, other))
    }

    fn reference(&mut self) -> Sql<Expr> {
        let name = self.object()?;
        if self.is_op("(") { self.call(name) } else { Ok(Expr::Column(name)) }
    }

    fn call(&mut self, name: Vec<String>) -> Sql<Expr> {
        self.expect_op("(")?;
        let (mut distinct, mut star, mut arguments) = (false, false, vec![]);
        if self.eat_op("*") {
            star = true;
        } else if !self.is_op(")") {
            distinct = self.eat("DISTINCT");
            arguments = self.list()?;
        }
        self.expect_op(")")?;
        if self.eat_all(&["WITHIN", "GROUP"]) {
            return Err(SqlError::unsupported("WITHIN GROUP"));
        }
        let over = if self.eat("OVER") { Some(Box::new(self.over()?)) } else { None };
        Ok(Expr::Call { name, arguments, distinct, star, over })
    }

    fn over(&mut self) -> Sql<Over> {
        self.expect_op("(")?;
        let partition = if self.eat_all(&["PARTITION", "BY"]) { self.list()? } else { vec![] };
        let order = if self.is("ORDER") { self.order_by()? } else { vec![] };
        let frame = if self.is("ROWS") || self.is("RANGE") {
            let start = self.start();
            while !self.is_op(")") && *self.peek() != Tok::End {
                if !matches!(self.peek(), Tok::Word(_) | Tok::Number(_)) {
                    return Err(self.unexpected());
                }
                self.at += 1;
            }
            Some(self.text[start..self.end()].to_owned())
        } else {
            None
        };
        self.expect_op(")")?;
        Ok(Over { partition, order, frame })
    }

    pub(super) fn order_by(&mut self) -> Sql<Vec<(Expr, bool)>> {
        self.expect("ORDER")?;
        self.expect("BY")?;
        let mut out = vec![];
        loop {
            let expr = self.expr()?;
            let descending = self.eat("DESC");
            if !descending {
                self.eat("ASC");
            }
            out.push((expr, descending));
            if !self.eat_op(",") {
                return Ok(out);
            }
        }
    }
}
