//! Functions.

use super::{
    super::{
        ast::{Expr, Over},
        catalog::{find, find_id, resolve},
        error::{Sql, SqlError},
        types::Ty,
    },
    Binder, Bound, COLLATION, Coll, Scope,
    expr::common,
    quote,
};

const NTEXT: Ty = Ty::NVarChar(None);

/// A part of a date, by any of its names.
fn part(expr: &Expr) -> Sql<&'static str> {
    let Expr::Column(name) = expr else {
        return Err(SqlError::of(1023, "Invalid parameter 1 specified for datepart."));
    };
    let word = name.last().map(|word| word.to_ascii_lowercase()).unwrap_or_default();
    Ok(match word.as_str() {
        "year" | "yy" | "yyyy" => "year",
        "quarter" | "qq" | "q" => "quarter",
        "month" | "mm" | "m" => "month",
        "dayofyear" | "dy" | "y" => "dayofyear",
        "day" | "dd" | "d" => "day",
        "week" | "wk" | "ww" => "week",
        "weekday" | "dw" => "weekday",
        "hour" | "hh" => "hour",
        "minute" | "mi" | "n" => "minute",
        "second" | "ss" | "s" => "second",
        "millisecond" | "ms" => "millisecond",
        "microsecond" | "mcs" => "microsecond",
        "nanosecond" | "ns" => "nanosecond",
        _ => return Err(SqlError::of(155, format!("'{word}' is not a recognized datepart option."))),
    })
}

impl Binder<'_> {
    #[expect(clippy::too_many_lines, reason = "one arm per function")]
    pub(super) fn call(
        &mut self,
        name: &[String],
        arguments: &[Expr],
        distinct: bool,
        star: bool,
        over: Option<&Over>,
        scope: &Scope<'_>,
    ) -> Sql<Bound> {
        let upper = name.last().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let unknown = || SqlError::of(195, format!("'{upper}' is not a recognized built-in function name."));
        if name.len() > 1 && !name[0].eq_ignore_ascii_case("sys") {
            return Err(SqlError::of(
                4121,
                format!(
                    "Cannot find either column \"{}\" or the user-defined function or aggregate \"{}\", or the name is ambiguous.",
                    name[0],
                    name.join(".")
                ),
            ));
        }
        if let Some(bound) = self.aggregate(&upper, arguments, distinct, star, over, scope)? {
            return Ok(bound);
        }
        let count = |low: usize, high: usize| {
            if (low..=high).contains(&arguments.len()) && !star {
                Ok(())
            } else {
                Err(SqlError::of(
                    174,
                    format!("The {} function requires {low} argument(s).", upper.to_ascii_lowercase()),
                ))
            }
        };
        // Those whose first argument is a word.
        match upper.as_str() {
            "DATEDIFF" | "DATEDIFF_BIG" => {
                count(3, 3)?;
                let part = part(&arguments[0])?;
                let (a, b) = (self.moment(&arguments[1], scope)?, self.moment(&arguments[2], scope)?);
                let ty = if upper == "DATEDIFF" { Ty::Int } else { Ty::BigInt };
                let sql = format!("t_datediff('{part}', {}, {}, {})", a.sql, b.sql, ty.code());
                return Ok(Bound::new(sql, ty, a.nullable || b.nullable));
            }
            "DATEADD" => {
                count(3, 3)?;
                let part = part(&arguments[0])?;
                let n = self.expr(&arguments[1], scope)?;
                let at = self.expr(&arguments[2], scope)?;
                let ty = if at.ty.is_moment() { at.ty } else { Ty::DateTime };
                let sql = format!(
                    "t_dateadd('{part}', {}, {}, {})",
                    self.coerce(&n, &Ty::Int),
                    self.coerce(&at, &ty),
                    ty.code()
                );
                return Ok(Bound::new(sql, ty, true));
            }
            "DATEPART" | "DATENAME" => {
                count(2, 2)?;
                let part = part(&arguments[0])?;
                let at = self.moment(&arguments[1], scope)?;
                let sql = format!("t_datepart('{part}', {})", at.sql);
                return Ok(if upper == "DATEPART" {
                    Bound::new(sql, Ty::Int, at.nullable)
                } else {
                    Bound::new(format!("t_datename('{part}', {})", at.sql), Ty::NVarChar(Some(30)), at.nullable)
                });
            }
            "IIF" => {
                count(3, 3)?;
                let arms = vec![(arguments[0].clone(), arguments[1].clone())];
                return self.expr(&Expr::Case(None, arms, Some(Box::new(arguments[2].clone()))), scope);
            }
            _ => {}
        }
        let mut bound = vec![];
        for argument in arguments {
            bound.push(self.expr(argument, scope)?);
        }
        let nullable = bound.iter().any(|argument| argument.nullable);
        let text =
            |binder: &Self, at: usize| bound.get(at).map_or("NULL".to_owned(), |bound| binder.coerce(bound, &NTEXT));
        let int =
            |binder: &Self, at: usize| bound.get(at).map_or("NULL".to_owned(), |bound| binder.coerce(bound, &Ty::Int));
        // What a function of text gives: the argument's family.
        let like = |at: usize| match bound.get(at).map(|bound| bound.ty) {
            Some(ty @ (Ty::NVarChar(_) | Ty::VarChar(_))) => ty,
            Some(Ty::NChar(n)) => Ty::NVarChar(Some(n)),
            Some(Ty::Char(n)) => Ty::VarChar(Some(n)),
            _ => Ty::NVarChar(Some(4000)),
        };
        let coll = bound.first().map_or(Coll::Default, |bound| bound.coll.clone());
        let made = |sql: String, ty: Ty| Ok(Bound::new(sql, ty, nullable));
        let made_text = |sql: String, ty: Ty| Ok(Bound { coll: coll.clone(), ..Bound::new(sql, ty, nullable) });
        let facts = self.facts;
        let literal = |at: usize| bound.get(at).map(|bound| bound.sql.clone()).unwrap_or_default();
        match upper.as_str() {
            "ISNULL" => {
                count(2, 2)?;
                let ty = if bound[0].null { bound[1].ty } else { bound[0].ty };
                let sql = format!("ifnull({}, {})", bound[0].sql, self.coerce(&bound[1], &ty));
                Ok(Bound { coll, ..Bound::new(sql, ty, bound[1].nullable) })
            }
            "COALESCE" => {
                count(2, 100)?;
                let (ty, coll) = common(&bound);
                let all: Vec<String> = bound.iter().map(|bound| self.coerce(bound, &ty)).collect();
                let nullable = bound.iter().all(|bound| bound.nullable);
                Ok(Bound { coll, ..Bound::new(format!("coalesce({})", all.join(", ")), ty, nullable) })
            }
            "NULLIF" => {
                count(2, 2)?;
                let same = self.compare("=", &bound[0], &bound[1])?;
                let sql = format!("CASE WHEN {same} THEN NULL ELSE {} END", bound[0].sql);
                Ok(Bound { coll, ..Bound::new(sql, bound[0].ty, true) })
            }
            "CONCAT" => {
                count(2, 254)?;
                let all: Vec<String> = (0..bound.len()).map(|at| format!("ifnull({}, '')", text(self, at))).collect();
                Ok(Bound::new(format!("({})", all.join(" || ")), Ty::NVarChar(Some(4000)), false))
            }
            "LEN" => count(1, 1).and_then(|()| made(format!("t_len({})", text(self, 0)), Ty::Int)),
            "DATALENGTH" => {
                count(1, 1)?;
                let ty = bound[0].ty;
                made(
                    format!("t_datalength({}, {})", bound[0].sql, ty.code()),
                    if ty.length().is_none() && (ty.is_text() || ty.is_binary()) { Ty::BigInt } else { Ty::Int },
                )
            }
            "SUBSTRING" => {
                count(3, 3)?;
                if bound[0].ty.is_binary() {
                    let ty = Ty::VarBinary(bound[0].ty.length());
                    return made(format!("t_substring({}, {}, {})", bound[0].sql, int(self, 1), int(self, 2)), ty);
                }
                made_text(format!("t_substring({}, {}, {})", text(self, 0), int(self, 1), int(self, 2)), like(0))
            }
            "LEFT" => count(2, 2)
                .and_then(|()| made_text(format!("t_substring({}, 1, {})", text(self, 0), int(self, 1)), like(0))),
            "RIGHT" => {
                count(2, 2).and_then(|()| made_text(format!("t_right({}, {})", text(self, 0), int(self, 1)), like(0)))
            }
            "CHARINDEX" => {
                count(2, 3)?;
                let start = if bound.len() > 2 { int(self, 2) } else { "1".to_owned() };
                made(format!("t_charindex({}, {}, {start})", text(self, 0), text(self, 1)), Ty::Int)
            }
            "REPLACE" => {
                count(3, 3)?;
                made_text(format!("t_replace({}, {}, {})", text(self, 0), text(self, 1), text(self, 2)), like(0))
            }
            "UPPER" | "LOWER" | "LTRIM" | "RTRIM" | "TRIM" | "REVERSE" => {
                count(1, 1)?;
                made_text(format!("t_text('{upper}', {})", text(self, 0)), like(0))
            }
            "REPLICATE" => {
                count(2, 2)?;
                made_text(format!("t_replicate({}, {})", text(self, 0), int(self, 1)), like(0))
            }
            "SPACE" => {
                count(1, 1).and_then(|()| made(format!("t_replicate(' ', {})", int(self, 0)), Ty::VarChar(Some(8000))))
            }
            "CHAR" | "NCHAR" => count(1, 1).and_then(|()| {
                made(format!("char({})", int(self, 0)), if upper == "CHAR" { Ty::Char(1) } else { Ty::NChar(1) })
            }),
            "UNICODE" | "ASCII" => count(1, 1).and_then(|()| made(format!("unicode({})", text(self, 0)), Ty::Int)),
            "QUOTENAME" => {
                count(1, 1)?;
                made(format!("('[' || replace({}, ']', ']]') || ']')", text(self, 0)), Ty::NVarChar(Some(258)))
            }
            "ABS" | "SIGN" | "CEILING" | "FLOOR" => {
                count(1, 1)?;
                let ty = if bound[0].ty.is_number() { bound[0].ty } else { Ty::Float };
                made(format!("t_number('{upper}', {}, {}, 0)", self.coerce(&bound[0], &ty), ty.code()), ty)
            }
            "ROUND" => {
                count(2, 2)?;
                let ty = if bound[0].ty.is_number() { bound[0].ty } else { Ty::Float };
                made(format!("t_number('ROUND', {}, {}, {})", self.coerce(&bound[0], &ty), ty.code(), int(self, 1)), ty)
            }
            "YEAR" | "MONTH" | "DAY" => {
                let at = self.moment(&arguments[0], scope)?;
                made(format!("t_datepart('{}', {})", upper.to_ascii_lowercase(), at.sql), Ty::Int)
            }
            "GETDATE" | "GETUTCDATE" => {
                let now = super::super::calendar::round_datetime(facts.now);
                Ok(Bound::new(now.to_string(), Ty::DateTime, false))
            }
            "SYSDATETIME" | "SYSUTCDATETIME" => Ok(Bound::new(facts.now.to_string(), Ty::DateTime2(7), false)),
            "SYSDATETIMEOFFSET" => {
                let bytes = super::super::values::offset_bytes(facts.now, 0);
                Ok(Bound::new(format!("x'{}'", super::super::convert::hex(&bytes)), Ty::DateTimeOffset(7), false))
            }
            "NEWID" | "NEWSEQUENTIALID" => Ok(Bound::new("t_newid()", Ty::Guid, false)),
            "MIN_ACTIVE_ROWVERSION" => Ok(Bound::new("t_active_rowversion()", Ty::Binary(8), false)),
            "RAND" => Ok(Bound::new("t_rand()", Ty::Float, false)),
            "ISNUMERIC" => made(format!("(t_try({}, {}, 7, 0) IS NOT NULL)", text(self, 0), NTEXT.code()), Ty::Int),
            "ISDATE" => made(
                format!("(t_try({}, {}, {}, 0) IS NOT NULL)", text(self, 0), NTEXT.code(), Ty::DateTime.code()),
                Ty::Int,
            ),
            "HASHBYTES" => {
                count(2, 2)?;
                let ty = bound[1].ty;
                made(format!("t_hash({}, {}, {})", text(self, 0), bound[1].sql, ty.code()), Ty::VarBinary(Some(8000)))
            }
            "XACT_STATE" => Ok(Bound::new(facts.xact_state.to_string(), Ty::SmallInt, false)),
            "ERROR_NUMBER" | "ERROR_SEVERITY" | "ERROR_STATE" | "ERROR_LINE" => {
                let value = facts.caught.map(|error| match upper.as_str() {
                    "ERROR_NUMBER" => i64::from(error.number),
                    "ERROR_SEVERITY" => error.class.into(),
                    "ERROR_STATE" => error.state.into(),
                    _ => error.line.into(),
                });
                Ok(Bound::new(value.map_or("NULL".to_owned(), |value| value.to_string()), Ty::Int, true))
            }
            "ERROR_MESSAGE" => Ok(Bound::new(
                facts.caught.map_or("NULL".to_owned(), |error| quote(&error.message)),
                Ty::NVarChar(Some(4000)),
                true,
            )),
            "ERROR_PROCEDURE" => {
                let name = facts.caught.and_then(|error| error.procedure.as_deref());
                Ok(Bound::new(name.map_or("NULL".to_owned(), quote), Ty::NAME, true))
            }
            "ROWCOUNT_BIG" => Ok(Bound::new(facts.rowcount.to_string(), Ty::BigInt, false)),
            "SCOPE_IDENTITY" | "IDENT_CURRENT" => self.variable_identity(),
            "DB_NAME" => Ok(Bound::new(quote(facts.database), Ty::NAME, true)),
            "DB_ID" => Ok(Bound::new("5", Ty::SmallInt, true)),
            "SUSER_SNAME" | "SUSER_NAME" | "ORIGINAL_LOGIN" => Ok(Bound::new(quote(facts.login), Ty::NAME, true)),
            "USER_NAME" => Ok(Bound::new("'dbo'", Ty::NAME, true)),
            "USER_ID" => Ok(Bound::new("1", Ty::Int, true)),
            "HOST_NAME" => Ok(Bound::new("'localhost'", Ty::NAME, true)),
            "APP_NAME" => Ok(Bound::new(quote(facts.application), Ty::NAME, true)),
            "IS_SRVROLEMEMBER" | "IS_MEMBER" | "IS_ROLEMEMBER" => Ok(Bound::new("1", Ty::Int, true)),
            "HAS_PERMS_BY_NAME" => Ok(Bound::new("1", Ty::Int, true)),
            "HAS_DBACCESS" => Ok(Bound::new("1", Ty::Int, true)),
            "SCHEMA_NAME" => {
                let id = if bound.is_empty() { "1".to_owned() } else { int(self, 0) };
                Ok(Bound::new(format!("(SELECT s.name FROM main.sys_schemas s WHERE s.id = {id})"), Ty::NAME, true))
            }
            "SCHEMA_ID" => {
                let name = if bound.is_empty() { "'dbo'".to_owned() } else { text(self, 0) };
                Ok(Bound::new(
                    format!("(SELECT s.id FROM main.sys_schemas s WHERE s.name = {name} COLLATE NOCASE)"),
                    Ty::Int,
                    true,
                ))
            }
            "OBJECT_NAME" => {
                count(1, 2)?;
                let id = int(self, 0);
                let sql = format!(
                    "ifnull((SELECT o.name FROM main.sys_objects o WHERE o.id = {id}), (SELECT o.name FROM temp.sys_objects o WHERE o.id = {id}))"
                );
                Ok(Bound::new(sql, Ty::NAME, true))
            }
            "OBJECT_SCHEMA_NAME" => {
                count(1, 2)?;
                let sql = format!("(SELECT o.schema FROM main.sys_objects o WHERE o.id = {})", int(self, 0));
                Ok(Bound::new(sql, Ty::NAME, true))
            }
            "TYPE_NAME" => {
                let types = "(SELECT v0 FROM (SELECT column1 AS v0, column2 AS v1 FROM (VALUES ('uniqueidentifier', 36), ('date', 40),
                    ('time', 41), ('datetime2', 42), ('datetimeoffset', 43), ('tinyint', 48), ('smallint', 52), ('int', 56),
                    ('smalldatetime', 58), ('real', 59), ('money', 60), ('datetime', 61), ('float', 62), ('bit', 104), ('decimal', 106),
                    ('numeric', 108), ('smallmoney', 122), ('bigint', 127), ('varbinary', 165), ('varchar', 167), ('binary', 173),
                    ('char', 175), ('nvarchar', 231), ('nchar', 239), ('xml', 241)))";
                Ok(Bound::new(format!("{types} WHERE v1 = {})", int(self, 0)), Ty::NAME, true))
            }
            "OBJECT_ID" => {
                count(1, 2)?;
                let name = self.constant_text(&bound[0])?;
                let kind = bound.get(1).map(|kind| self.constant_text(kind)).transpose()?.flatten();
                let id = match name {
                    None => None,
                    Some(name) => self.object_id(&name, kind.as_deref())?,
                };
                Ok(Bound::new(id.map_or("NULL".to_owned(), |id| id.to_string()), Ty::Int, true))
            }
            "COL_LENGTH" => {
                count(2, 2)?;
                let (table, column) = (self.constant_text(&bound[0])?, self.constant_text(&bound[1])?);
                let mut length = None;
                if let (Some(table), Some(column)) = (table, column)
                    && let Some(id) = self.object_id(&table, None)?
                    && let Some(table) = find_id(facts.conn, id)?
                {
                    length = table.column(&column).map(|column| column.max_length);
                }
                Ok(Bound::new(length.map_or("NULL".to_owned(), |n| n.to_string()), Ty::SmallInt, true))
            }
            "COL_NAME" => {
                let sql = format!(
                    "(SELECT c.value ->> '$.name' FROM main.sys_objects o, json_each(o.def, '$.columns') c WHERE o.id = {} AND c.value ->> '$.id' = {})",
                    int(self, 0),
                    int(self, 1)
                );
                Ok(Bound::new(sql, Ty::NAME, true))
            }
            "SERVERPROPERTY" | "DATABASEPROPERTYEX" => {
                let property = self.constant_text(&bound[bound.len() - 1])?.unwrap_or_default().to_ascii_lowercase();
                let value = match property.as_str() {
                    "productversion" => "16.0.1000.6",
                    "productmajorversion" => "16",
                    "productlevel" => "RTM",
                    "edition" => "Developer Edition (64-bit)",
                    "engineedition" => "3",
                    "servername" | "machinename" => "towpath-simulator",
                    "collation" => COLLATION,
                    "updateability" => "READ_WRITE",
                    "status" => "ONLINE",
                    "recovery" => "SIMPLE",
                    "isxtpsupported" => "0",
                    _ => return Ok(Bound::new("NULL", Ty::NVarChar(Some(128)), true)),
                };
                Ok(Bound::new(quote(value), Ty::NVarChar(Some(128)), true))
            }
            "APPLOCK_MODE" => Err(SqlError::unsupported("APPLOCK_MODE")),
            _ => {
                let _ = literal(0);
                Err(unknown())
            }
        }
    }

    fn variable_identity(&mut self) -> Sql<Bound> {
        self.expr(&Expr::Variable("@@identity".to_owned()), &Scope::default())
    }

    /// An argument as a moment: text becomes one.
    fn moment(&mut self, expr: &Expr, scope: &Scope<'_>) -> Sql<Bound> {
        let bound = self.expr(expr, scope)?;
        let local = |sql: String| format!("t_conv({sql}, {}, {}, 0)", bound.ty.code(), Ty::DateTime2(7).code());
        let sql = match bound.ty {
            Ty::DateTimeOffset(_) => local(bound.sql.clone()),
            ty if ty.is_moment() => bound.sql.clone(),
            _ => local(bound.sql.clone()),
        };
        Ok(Bound { sql, ty: Ty::DateTime2(7), ..bound })
    }

    /// The value of an expression without columns.
    fn constant_text(&self, bound: &Bound) -> Sql<Option<String>> {
        let mut statement = self.facts.conn.prepare(&format!("SELECT {}", bound.sql))?;
        for index in 1..=statement.parameter_count() {
            if let Some(value) = self.params.get(index - 1) {
                statement.raw_bind_parameter(index, value)?;
            }
        }
        let mut rows = statement.raw_query();
        let Some(row) = rows.next()? else { return Ok(None) };
        let value = row.get_ref(0)?;
        Ok(super::super::convert::shown(value, &bound.ty))
    }

    /// `OBJECT_ID`: of a table, a view, or a constraint.
    fn object_id(&self, name: &str, kind: Option<&str>) -> Sql<Option<i64>> {
        let Ok(tokens) = super::super::parse::object_name(name) else { return Ok(None) };
        let Ok(resolved) = resolve(&tokens, self.facts.database) else { return Ok(None) };
        let kind = kind.map(|kind| kind.trim().to_ascii_uppercase());
        if let Some(table) = find(self.facts.conn, &resolved)? {
            let is = if table.view.is_some() { "V" } else { "U" };
            return Ok(kind.is_none_or(|kind| kind == is).then_some(table.id));
        }
        let db = if resolved.temp { "temp" } else { "main" };
        let sql = format!(
            "SELECT id FROM (SELECT i.value ->> '$.name' AS name, i.value ->> '$.constraint' AS id FROM {db}.sys_objects o, json_each(o.def, '$.indexes') i
             UNION ALL SELECT i.value ->> '$.name', i.value ->> '$.id' FROM {db}.sys_objects o, json_each(o.def, '$.checks') i
             UNION ALL SELECT i.value ->> '$.name', i.value ->> '$.id' FROM {db}.sys_objects o, json_each(o.def, '$.foreign') i
             UNION ALL SELECT i.value ->> '$.default[0]', i.value ->> '$.default[2]' FROM {db}.sys_objects o, json_each(o.def, '$.columns') i)
             WHERE id IS NOT NULL AND name = ?1 COLLATE NOCASE LIMIT 1"
        );
        use rusqlite::OptionalExtension as _;
        Ok(self.facts.conn.prepare_cached(&sql)?.query_row([&resolved.name], |row| row.get(0)).optional()?)
    }

    /// Aggregates and window functions.
    fn aggregate(
        &mut self,
        upper: &str,
        arguments: &[Expr],
        distinct: bool,
        star: bool,
        over: Option<&Over>,
        scope: &Scope<'_>,
    ) -> Sql<Option<Bound>> {
        let aggregate = ["COUNT", "COUNT_BIG", "SUM", "AVG", "MIN", "MAX", "STRING_AGG"].contains(&upper);
        let window =
            ["ROW_NUMBER", "RANK", "DENSE_RANK", "NTILE", "LAG", "LEAD", "FIRST_VALUE", "LAST_VALUE"].contains(&upper);
        if !aggregate && !window {
            return Ok(None);
        }
        if window && over.is_none() {
            return Err(SqlError::of(
                10753,
                format!("The function '{}' must have an OVER clause.", upper.to_ascii_lowercase()),
            ));
        }
        if aggregate && over.is_none() {
            if self.in_aggregate {
                return Err(SqlError::of(
                    130,
                    "Cannot perform an aggregate function on an expression containing an aggregate or a subquery.",
                ));
            }
            self.aggregates = true;
        }
        let before = self.in_aggregate;
        self.in_aggregate |= aggregate && over.is_none();
        let mut bound = vec![];
        for argument in arguments {
            bound.push(self.expr(argument, scope)?);
        }
        self.in_aggregate = before;
        let all = if distinct { "DISTINCT " } else { "" };
        let first = bound.first().cloned().unwrap_or_else(|| Bound::new("*", Ty::Int, false));
        let collate = if first.ty.is_text() && first.column.is_none() { " COLLATE TSQL_CI" } else { "" };
        let mut made = match upper {
            "COUNT" | "COUNT_BIG" => {
                if !star && bound.len() != 1 {
                    return Err(SqlError::of(174, "The count function requires 1 argument(s)."));
                }
                let what = if star { "*" } else { &first.sql };
                Bound::new(
                    format!("count({all}{what}{collate})"),
                    if upper == "COUNT" { Ty::Int } else { Ty::BigInt },
                    true,
                )
            }
            "SUM" | "AVG" => {
                let of = first.ty;
                if !of.is_number() || of == Ty::Bit {
                    return Err(SqlError::of(
                        8117,
                        format!(
                            "Operand data type {} is invalid for {} operator.",
                            of.name(),
                            upper.to_ascii_lowercase()
                        ),
                    ));
                }
                let sum = upper == "SUM";
                match of {
                    Ty::Real | Ty::Float => {
                        Bound::new(format!("{}({all}{})", upper.to_ascii_lowercase(), first.sql), Ty::Float, true)
                    }
                    Ty::Decimal { s, numeric, .. } => {
                        let ty = Ty::Decimal { p: 38, s: if sum { s } else { s.max(6) }, numeric };
                        Bound::new(
                            format!(
                                "t_sum_decimal({all}{}, {}, {})",
                                first.sql,
                                i32::from(!sum) * (i32::from(ty.precision().1) + 1),
                                s
                            ),
                            ty,
                            true,
                        )
                    }
                    Ty::Money | Ty::SmallMoney => {
                        let sql = if sum {
                            format!("sum({all}{})", first.sql)
                        } else {
                            format!("(sum({all}{0}) / count({all}{0}))", first.sql)
                        };
                        Bound::new(sql, Ty::Money, true)
                    }
                    _ => {
                        let ty = if of == Ty::BigInt { Ty::BigInt } else { Ty::Int };
                        let sql = if sum {
                            format!("t_conv(sum({all}{}), {}, {}, 0)", first.sql, Ty::BigInt.code(), ty.code())
                        } else {
                            format!("(sum({all}{0}) / count({all}{0}))", first.sql)
                        };
                        // A window needs the bare function in front of OVER.
                        let sql = if over.is_some() && sum { format!("sum({all}{})", first.sql) } else { sql };
                        Bound::new(sql, ty, true)
                    }
                }
            }
            "MIN" | "MAX" => Bound {
                coll: first.coll.clone(),
                ..Bound::new(format!("{}({}{collate})", upper.to_ascii_lowercase(), first.sql), first.ty, true)
            },
            "STRING_AGG" => {
                let text = Ty::NVarChar(None);
                let separator = bound.get(1).map_or("','".to_owned(), |bound| bound.sql.clone());
                Bound::new(format!("group_concat({}, {separator})", self.coerce(&first, &text)), text, true)
            }
            "ROW_NUMBER" | "RANK" | "DENSE_RANK" => {
                Bound::new(format!("{}()", upper.to_ascii_lowercase()), Ty::BigInt, true)
            }
            "NTILE" => Bound::new(format!("ntile({})", first.sql), Ty::BigInt, true),
            _ => {
                let rest: Vec<String> = bound.iter().skip(1).map(|bound| format!(", {}", bound.sql)).collect();
                let sql = format!("{}({}{})", upper.to_ascii_lowercase(), first.sql, rest.concat());
                Bound { coll: first.coll.clone(), ..Bound::new(sql, first.ty, true) }
            }
        };
        if let Some(over) = over {
            if made.sql.starts_with('(') || made.sql.starts_with("t_") {
                return Err(SqlError::unsupported(&format!("{upper} OVER")));
            }
            let mut clause = String::new();
            let mut partition = vec![];
            for expr in &over.partition {
                let bound = self.expr(expr, scope)?;
                partition.push(self.sortable(&bound));
            }
            if !partition.is_empty() {
                clause += &format!("PARTITION BY {} ", partition.join(", "));
            }
            let mut order = vec![];
            for (expr, descending) in &over.order {
                // `ORDER BY (SELECT NULL)`: no order.
                let bound = self.expr(expr, scope)?;
                order.push(format!("{}{}", self.sortable(&bound), if *descending { " DESC" } else { "" }));
            }
            if !order.is_empty() {
                clause += &format!("ORDER BY {} ", order.join(", "));
            } else if upper == "ROW_NUMBER" {
                return Err(SqlError::of(4112, "The function 'ROW_NUMBER' must have an OVER clause with ORDER BY."));
            }
            clause += over.frame.as_deref().unwrap_or_default();
            made.sql = format!("{} OVER ({clause})", made.sql);
        }
        Ok(Some(made))
    }

    /// An expression to sort or group by.
    pub(super) fn sortable(&self, bound: &Bound) -> String {
        if !bound.ty.is_text() {
            return bound.sql.clone();
        }
        let collation = bound.coll.name().unwrap_or(COLLATION);
        format!("{} COLLATE {}", bound.sql, super::sqlite_collation(collation))
    }
}
