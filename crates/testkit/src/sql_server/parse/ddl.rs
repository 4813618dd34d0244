//! CREATE, ALTER, DROP.

use super::{
    super::{
        ast::{Alter, ColumnDef, Constraint, ConstraintKind, CreateIndex, CreateTable, Kind},
        error::{Sql, SqlError},
        lexer::Tok,
        types::Ty,
    },
    Parser,
};

impl Parser<'_> {
    pub(super) fn create(&mut self) -> Sql<Kind> {
        self.expect("CREATE")?;
        if self.eat("TABLE") {
            return self.create_table();
        }
        if self.eat("SCHEMA") {
            let name = self.name()?;
            if self.eat("AUTHORIZATION") {
                self.name()?;
            }
            return Ok(Kind::CreateSchema(name));
        }
        let alter = self.eat_all(&["OR", "ALTER"]);
        if self.eat("VIEW") {
            let name = self.object()?;
            let columns = if self.is_op("(") { self.names()? } else { vec![] };
            if self.eat("WITH") {
                self.name()?;
            }
            self.expect("AS")?;
            let start = self.start();
            self.query()?;
            if alter {
                return Err(SqlError::unsupported("OR ALTER"));
            }
            return Ok(Kind::CreateView(name, columns, self.text[start..self.end()].to_owned()));
        }
        let unique = self.eat("UNIQUE");
        let clustered = self.clustered().unwrap_or(false);
        self.eat("COLUMNSTORE");
        self.expect("INDEX")?;
        let name = self.name()?;
        self.expect("ON")?;
        let table = self.object()?;
        self.index_tail(name, table, unique, clustered).map(|index| Kind::CreateIndex(Box::new(index)))
    }

    fn index_tail(&mut self, name: String, table: Vec<String>, unique: bool, clustered: bool) -> Sql<CreateIndex> {
        let columns = if self.is_op("(") { self.key_columns()? } else { vec![] };
        let include = if self.eat("INCLUDE") { self.names()? } else { vec![] };
        let filter = if self.eat("WHERE") { Some(self.expr()?) } else { None };
        let options = self.with_options()?;
        let ignore_duplicates = options.to_ascii_uppercase().replace(' ', "").contains("IGNORE_DUP_KEY=ON");
        if self.eat("ON") {
            self.name()?;
        }
        Ok(CreateIndex { name, table, unique, clustered, columns, include, ignore_duplicates, filter })
    }

    fn with_options(&mut self) -> Sql<String> {
        if self.is("WITH") && matches!(self.peek_at(1), Tok::Op("(")) {
            self.at += 1;
            return self.parenthesised();
        }
        Ok(String::new())
    }

    fn clustered(&mut self) -> Option<bool> {
        if self.eat("CLUSTERED") {
            Some(true)
        } else if self.eat("NONCLUSTERED") {
            Some(false)
        } else {
            None
        }
    }

    fn key_columns(&mut self) -> Sql<Vec<(String, bool)>> {
        self.expect_op("(")?;
        let mut out = vec![];
        loop {
            let name = self.name()?;
            let descending = self.eat("DESC");
            if !descending {
                self.eat("ASC");
            }
            out.push((name, descending));
            if !self.eat_op(",") {
                break;
            }
        }
        self.expect_op(")")?;
        Ok(out)
    }

    fn create_table(&mut self) -> Sql<Kind> {
        let name = self.object()?;
        self.expect_op("(")?;
        let (mut columns, mut constraints, mut indexes) = (vec![], vec![], vec![]);
        loop {
            if self.is("INDEX") && !matches!(self.peek_at(1), Tok::Op(_)) && !self.is_type_at(1) {
                self.at += 1;
                let index = self.name()?;
                let unique = self.eat("UNIQUE");
                let clustered = self.clustered().unwrap_or(false);
                indexes.push(self.index_tail(index, name.clone(), unique, clustered)?);
            } else if let Some(constraint) = self.table_constraint()? {
                constraints.push(constraint);
            } else {
                columns.push(self.column(&mut constraints)?);
            }
            if !self.eat_op(",") || self.is_op(")") {
                break;
            }
        }
        self.expect_op(")")?;
        if self.eat("ON") {
            self.name()?;
        }
        if self.eat("TEXTIMAGE_ON") {
            self.name()?;
        }
        self.with_options()?;
        Ok(Kind::CreateTable(Box::new(CreateTable { name, columns, constraints, indexes })))
    }

    fn is_type_at(&self, ahead: usize) -> bool {
        match self.peek_at(ahead) {
            Tok::Word(word) | Tok::Quoted(word) => Ty::parse(word, &[]).is_ok(),
            _ => false,
        }
    }

    fn table_constraint(&mut self) -> Sql<Option<Constraint>> {
        let mark = self.at;
        let name = if self.eat("CONSTRAINT") { Some(self.name()?) } else { None };
        let kind = if self.eat("PRIMARY") {
            self.expect("KEY")?;
            Some(self.key(true)?)
        } else if self.eat("UNIQUE") {
            Some(self.key(false)?)
        } else if self.eat("CHECK") {
            Some(ConstraintKind::Check(self.parenthesised()?))
        } else if self.eat("FOREIGN") {
            self.expect("KEY")?;
            let columns = self.names()?;
            Some(self.references(columns)?)
        } else if self.eat("DEFAULT") {
            let start = self.start();
            self.expr()?;
            let expr = self.text[start..self.end()].to_owned();
            self.expect("FOR")?;
            Some(ConstraintKind::Default { expr, column: self.name()? })
        } else {
            None
        };
        if kind.is_none() {
            if name.is_some() {
                return Err(self.unexpected());
            }
            self.at = mark;
        }
        Ok(kind.map(|kind| Constraint { name, kind }))
    }

    fn key(&mut self, primary: bool) -> Sql<ConstraintKind> {
        let clustered = self.clustered();
        let columns = self.key_columns()?;
        self.with_options()?;
        if self.eat("ON") {
            self.name()?;
        }
        Ok(ConstraintKind::Key { primary, clustered, columns })
    }

    fn references(&mut self, columns: Vec<String>) -> Sql<ConstraintKind> {
        self.expect("REFERENCES")?;
        let table = self.object()?;
        let references = if self.is_op("(") { self.names()? } else { vec![] };
        while self.eat("ON") {
            self.next();
            if !self.eat_all(&["NO", "ACTION"]) {
                return Err(SqlError::unsupported("CASCADE"));
            }
        }
        Ok(ConstraintKind::Foreign { columns, table, references })
    }

    fn column(&mut self, constraints: &mut Vec<Constraint>) -> Sql<ColumnDef> {
        let mut column = ColumnDef { name: self.name()?, ..ColumnDef::default() };
        if self.eat("AS") {
            let text = self.parenthesised()?;
            column.computed = Some((text, self.eat("PERSISTED")));
            if self.eat_all(&["NOT", "NULL"]) {
                column.nullable = Some(false);
            }
            return Ok(column);
        }
        if self.is("rowversion") || self.is("timestamp") {
            self.at += 1;
            column.rowversion = true;
            column.ty = Some(Ty::Binary(8));
            column.nullable = Some(false);
            self.eat_all(&["NOT", "NULL"]);
            return Ok(column);
        }
        column.ty = Some(self.ty()?);
        loop {
            if self.eat("COLLATE") {
                column.collation = Some(self.name()?);
            } else if self.eat_all(&["NOT", "NULL"]) {
                column.nullable = Some(false);
            } else if self.eat("NULL") {
                column.nullable = Some(true);
            } else if self.eat("SPARSE") || self.eat("ROWGUIDCOL") {
            } else if self.eat("IDENTITY") {
                let mut numbers = (1, 1);
                if self.eat_op("(") {
                    numbers.0 = self.integer()?;
                    self.expect_op(",")?;
                    numbers.1 = self.integer()?;
                    self.expect_op(")")?;
                }
                column.identity = Some(numbers);
                self.eat_all(&["NOT", "FOR", "REPLICATION"]);
            } else {
                let name = if self.eat("CONSTRAINT") { Some(self.name()?) } else { None };
                let key = |parser: &mut Self, primary: bool| {
                    let clustered = parser.clustered();
                    let columns =
                        if parser.is_op("(") { parser.key_columns()? } else { vec![(column.name.clone(), false)] };
                    parser.with_options()?;
                    Ok::<_, SqlError>(ConstraintKind::Key { primary, clustered, columns })
                };
                let kind = if self.eat("DEFAULT") {
                    let start = self.start();
                    self.default_value()?;
                    let expr = self.text[start..self.end()].to_owned();
                    column.default = Some((name, expr));
                    self.eat_all(&["WITH", "VALUES"]);
                    continue;
                } else if self.eat_all(&["PRIMARY", "KEY"]) {
                    key(self, true)?
                } else if self.eat("UNIQUE") {
                    key(self, false)?
                } else if self.eat("CHECK") {
                    ConstraintKind::Check(self.parenthesised()?)
                } else if self.eat_all(&["FOREIGN", "KEY"]) || self.is("REFERENCES") {
                    self.references(vec![column.name.clone()])?
                } else if name.is_some() {
                    return Err(self.unexpected());
                } else {
                    return Ok(column);
                };
                constraints.push(Constraint { name, kind });
            }
        }
    }

    /// What stands after DEFAULT: no condition, so that a NOT behind it is the column's.
    fn default_value(&mut self) -> Sql<()> {
        match self.peek() {
            Tok::Op("(") => self.skip_parentheses(),
            Tok::Op("-" | "+") => {
                self.at += 2;
                Ok(())
            }
            Tok::Number(_) | Tok::Text(..) | Tok::Hex(_) => {
                self.at += 1;
                Ok(())
            }
            _ => {
                if self.eat("NULL") || self.eat("CURRENT_TIMESTAMP") || self.eat("SYSTEM_USER") {
                    return Ok(());
                }
                self.object()?;
                if self.is_op("(") { self.skip_parentheses() } else { Err(self.unexpected()) }
            }
        }
    }

    pub(super) fn alter(&mut self) -> Sql<Kind> {
        self.expect("ALTER")?;
        if self.eat("SCHEMA") {
            let schema = self.name()?;
            self.expect("TRANSFER")?;
            return Ok(Kind::AlterTable(self.object()?, Alter::Transfer(schema)));
        }
        if self.eat("INDEX") {
            // REBUILD, REORGANIZE: nothing to do.
            self.name()?;
            self.expect("ON")?;
            let table = self.object()?;
            if !(self.eat("REBUILD") || self.eat("REORGANIZE")) {
                return Err(self.unexpected());
            }
            self.with_options()?;
            return Ok(Kind::AlterTable(table, Alter::Nothing));
        }
        self.expect("TABLE")?;
        let table = self.object()?;
        let check = self.eat_all(&["WITH", "CHECK"]) || self.eat_all(&["WITH", "NOCHECK"]);
        if self.eat("ADD") {
            let (mut columns, mut constraints) = (vec![], vec![]);
            loop {
                if let Some(constraint) = self.table_constraint()? {
                    constraints.push(constraint);
                } else {
                    columns.push(self.column(&mut constraints)?);
                }
                if !self.eat_op(",") {
                    break;
                }
            }
            return Ok(Kind::AlterTable(table, Alter::Add(columns, constraints)));
        }
        if self.is("CHECK") || self.is("NOCHECK") {
            let enable = self.is("CHECK");
            self.at += 1;
            self.expect("CONSTRAINT")?;
            let name = if self.eat("ALL") { None } else { Some(self.name()?) };
            return Ok(Kind::AlterTable(table, Alter::Enable(name, enable)));
        }
        if check {
            return Err(self.unexpected());
        }
        if self.eat_all(&["ALTER", "COLUMN"]) {
            let mut none = vec![];
            return Ok(Kind::AlterTable(table, Alter::Column(self.column(&mut none)?)));
        }
        if self.eat("DROP") {
            if self.eat("COLUMN") {
                let exists = self.eat_all(&["IF", "EXISTS"]);
                return Ok(Kind::AlterTable(table, Alter::DropColumn(self.name_list()?, exists)));
            }
            self.eat("CONSTRAINT");
            let exists = self.eat_all(&["IF", "EXISTS"]);
            return Ok(Kind::AlterTable(table, Alter::DropConstraint(self.name_list()?, exists)));
        }
        if self.eat("REBUILD") {
            self.with_options()?;
            return Ok(Kind::AlterTable(table, Alter::Nothing));
        }
        if self.eat("SET") {
            self.skip_parentheses()?;
            return Ok(Kind::AlterTable(table, Alter::Nothing));
        }
        if self.eat("SWITCH") {
            self.expect("TO")?;
            return Ok(Kind::AlterTable(table, Alter::Switch(self.object()?)));
        }
        Err(self.unexpected())
    }

    fn name_list(&mut self) -> Sql<Vec<String>> {
        let mut names = vec![self.name()?];
        while self.eat_op(",") {
            names.push(self.name()?);
        }
        Ok(names)
    }

    pub(super) fn drop(&mut self) -> Sql<Kind> {
        self.expect("DROP")?;
        let what = self.name()?.to_ascii_uppercase();
        let exists = self.eat_all(&["IF", "EXISTS"]);
        match what.as_str() {
            "TABLE" | "VIEW" => {
                let mut names = vec![self.object()?];
                while self.eat_op(",") {
                    names.push(self.object()?);
                }
                Ok(if what == "TABLE" { Kind::DropTable(names, exists) } else { Kind::DropView(names, exists) })
            }
            "INDEX" => {
                let mut out = vec![];
                loop {
                    let name = self.name()?;
                    self.expect("ON")?;
                    out.push((name, self.object()?));
                    if !self.eat_op(",") {
                        break;
                    }
                }
                self.with_options()?;
                Ok(Kind::DropIndex(out, exists))
            }
            "SCHEMA" => Ok(Kind::DropSchema(self.name()?, exists)),
            _ => {
                self.at -= 1;
                Err(self.unexpected())
            }
        }
    }
}
