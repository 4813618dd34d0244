//! From tokens to a tree: the T-SQL that loaders and tests of loaders speak. Anything else is error 102 with the word at which it stopped.

mod ddl;
mod expr;
mod query;
mod statement;

use super::{
    ast::{Name, Stmt},
    error::{Sql, SqlError},
    lexer::{Spanned, Tok, lex},
    types::Ty,
};

/// Parses a batch.
pub(super) fn batch(text: &str) -> Sql<Vec<Stmt>> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, text, depth: 0 };
    let mut out = vec![];
    while !parser.eat_semicolons() {
        let line = parser.line();
        out.push(parser.statement().map_err(|mut error| {
            if error.line == 0 {
                error.line = parser.line().max(line);
            }
            error
        })?);
    }
    Ok(out)
}

/// Parses an expression that stands alone: a default, a check, a computed column.
pub(super) fn expression(text: &str) -> Sql<super::ast::Expr> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, text, depth: 0 };
    let expr = parser.expr()?;
    parser.expect_end()?;
    Ok(expr)
}

/// Parses the query of a view.
pub(super) fn view(text: &str) -> Sql<super::ast::Query> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, text, depth: 0 };
    let query = parser.query()?;
    parser.expect_end()?;
    Ok(query)
}

/// Parses the declarations of `sp_executesql`: names, types, whether they are outputs.
pub(super) fn parameters(text: &str) -> Sql<Vec<(String, Ty, bool)>> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, text, depth: 0 };
    let mut out = vec![];
    while parser.peek() != &Tok::End {
        let name = parser.variable()?;
        parser.eat("AS");
        let ty = parser.ty()?;
        let output = parser.eat("OUTPUT") || parser.eat("OUT");
        out.push((name, ty, output));
        if !parser.eat_op(",") {
            break;
        }
    }
    parser.expect_end()?;
    Ok(out)
}

pub(super) struct Parser<'a> {
    tokens: Vec<Spanned>,
    at: usize,
    text: &'a str,
    /// How deep expressions and queries are nested.
    depth: usize,
}

/// Words that end an expression or a table and so are never an alias without AS.
const RESERVED: [&str; 73] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "HAVING",
    "ORDER",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "ON",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "OUTER",
    "WITH",
    "OPTION",
    "INSERT",
    "UPDATE",
    "DELETE",
    "SET",
    "VALUES",
    "INTO",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "LIKE",
    "BETWEEN",
    "EXISTS",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVE",
    "IF",
    "WHILE",
    "DECLARE",
    "EXEC",
    "EXECUTE",
    "CREATE",
    "ALTER",
    "DROP",
    "TRUNCATE",
    "USE",
    "RETURN",
    "PRINT",
    "THROW",
    "RAISERROR",
    "WAITFOR",
    "OUTPUT",
    "DEFAULT",
    "PRIMARY",
    "UNIQUE",
    "FOREIGN",
    "CHECK",
    "CONSTRAINT",
    "DISTINCT",
    "TOP",
    "FOR",
    "MERGE",
    "GO",
    "COLLATE",
    "GOTO",
];

impl Parser<'_> {
    fn peek(&self) -> &Tok {
        &self.tokens[self.at.min(self.tokens.len() - 1)].tok
    }
    fn peek_at(&self, ahead: usize) -> &Tok {
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].tok
    }
    fn line(&self) -> u32 {
        self.tokens[self.at.min(self.tokens.len() - 1)].line
    }
    fn start(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].start
    }
    /// Where the last token ended.
    fn end(&self) -> usize {
        self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(0, |token| token.end)
    }
    fn next(&mut self) -> Tok {
        let tok = self.peek().clone();
        if self.at < self.tokens.len() - 1 {
            self.at += 1;
        }
        tok
    }
    fn is(&self, word: &str) -> bool {
        matches!(self.peek(), Tok::Word(text) if text.eq_ignore_ascii_case(word))
    }
    fn is_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Tok::Word(text) if text.eq_ignore_ascii_case(word))
    }
    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Tok::Op(other) if *other == op)
    }
    fn eat(&mut self, word: &str) -> bool {
        let there = self.is(word);
        self.at += usize::from(there);
        there
    }
    fn eat_op(&mut self, op: &str) -> bool {
        let there = self.is_op(op);
        self.at += usize::from(there);
        there
    }
    /// All of these words, or none.
    fn eat_all(&mut self, words: &[&str]) -> bool {
        let there = words.iter().enumerate().all(|(ahead, word)| self.is_at(ahead, word));
        if there {
            self.at += words.len();
        }
        there
    }
    fn expect(&mut self, word: &str) -> Sql<()> {
        if self.eat(word) { Ok(()) } else { Err(self.unexpected()) }
    }
    fn expect_op(&mut self, op: &str) -> Sql<()> {
        if self.eat_op(op) { Ok(()) } else { Err(self.unexpected()) }
    }
    fn expect_end(&mut self) -> Sql<()> {
        self.eat_semicolons();
        if *self.peek() == Tok::End { Ok(()) } else { Err(self.unexpected()) }
    }
    /// Whether the batch is at its end.
    fn eat_semicolons(&mut self) -> bool {
        while self.eat_op(";") {}
        *self.peek() == Tok::End
    }
    fn unexpected(&self) -> SqlError {
        let token = &self.tokens[self.at.min(self.tokens.len() - 1)];
        let mut error = match &token.tok {
            Tok::Word(word) if RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved)) => {
                SqlError::new(156, 15, format!("Incorrect syntax near the keyword '{word}'."))
            }
            Tok::End => SqlError::syntax(self.text[..token.start].split_whitespace().last().unwrap_or_default()),
            _ => SqlError::syntax(self.text[token.start..token.end].trim_matches(['[', ']', '\''])),
        };
        error.line = token.line;
        error
    }
    /// A name, quoted or not reserved.
    fn name(&mut self) -> Sql<String> {
        match self.peek() {
            Tok::Quoted(name) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            Tok::Word(word) if !RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved)) => {
                let name = word.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }
    /// `a.b.c`, with parts that may be left out: `tempdb..#t`.
    fn object(&mut self) -> Sql<Name> {
        let mut parts = vec![self.name()?];
        while self.eat_op(".") {
            while self.eat_op(".") {
                parts.push(String::new());
            }
            parts.push(self.name()?);
        }
        Ok(parts)
    }
    fn variable(&mut self) -> Sql<String> {
        match self.peek() {
            Tok::Variable(name) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }
    fn integer(&mut self) -> Sql<i64> {
        let negative = self.eat_op("-");
        match self.peek() {
            Tok::Number(text) => {
                let value = text.parse::<i64>().map_err(|_| self.unexpected())?;
                self.at += 1;
                Ok(if negative { -value } else { value })
            }
            _ => Err(self.unexpected()),
        }
    }
    fn names(&mut self) -> Sql<Vec<String>> {
        self.expect_op("(")?;
        let mut names = vec![self.name()?];
        while self.eat_op(",") {
            names.push(self.name()?);
        }
        self.expect_op(")")?;
        Ok(names)
    }
    /// A type: `nvarchar(max)`, `decimal(10, 2)`, `sys.[int]`.
    fn ty(&mut self) -> Sql<Ty> {
        let name = self.object()?;
        let mut arguments = vec![];
        if self.eat_op("(") {
            loop {
                if self.eat("MAX") {
                    arguments.push(u32::MAX);
                } else {
                    arguments.push(u32::try_from(self.integer()?).map_err(|_| self.unexpected())?);
                }
                if !self.eat_op(",") {
                    break;
                }
            }
            self.expect_op(")")?;
        }
        if name.last().is_some_and(|name| name.eq_ignore_ascii_case("double")) && self.eat("PRECISION") {
            return Ok(Ty::Float);
        }
        Ty::parse(name.last().map(String::as_str).unwrap_or_default(), &arguments)
    }
    /// `( … )` passed over, such as options.
    fn skip_parentheses(&mut self) -> Sql<()> {
        self.expect_op("(")?;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Tok::Op("(") => depth += 1,
                Tok::Op(")") => depth -= 1,
                Tok::End => return Err(self.unexpected()),
                _ => {}
            }
        }
        Ok(())
    }
    /// What stands in parentheses, as text.
    fn parenthesised(&mut self) -> Sql<String> {
        let start = self.start();
        self.skip_parentheses()?;
        let whole = &self.text[start..self.end()];
        Ok(whole[1..whole.len() - 1].trim().to_owned())
    }
}

/// The parts of a name that is given as text: `[dbo].[t]`.
pub(super) fn object_name(text: &str) -> Sql<Name> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, text, depth: 0 };
    let name = parser.object()?;
    parser.expect_end()?;
    Ok(name)
}
