//! Expressions and conditions.

use rusqlite::types::Value;

use super::{
    super::{
        ast::Expr,
        convert::hex,
        decimal,
        error::{Sql, SqlError},
        types::Ty,
    },
    Binder, Bound, COLLATION, Coll, Scope, known_collation, quote, sqlite_collation,
};

impl Binder<'_> {
    /// A value.
    pub fn expr(&mut self, expr: &Expr, scope: &Scope<'_>) -> Sql<Bound> {
        match expr {
            Expr::Null => Ok(Bound { null: true, ..Bound::new("NULL", Ty::Int, true) }),
            Expr::Number(text) => number(text),
            Expr::Text(text, national) => {
                let length = super::super::convert::units(text, *national).max(1);
                let ty = match (national, u16::try_from(length).ok()) {
                    (true, n) => Ty::NVarChar(n.filter(|n| *n <= 4000)),
                    (false, n) => Ty::VarChar(n.filter(|n| *n <= 8000)),
                };
                Ok(Bound::new(quote(text), ty, false))
            }
            Expr::Hex(bytes) => {
                let length = u16::try_from(bytes.len().max(1)).ok().filter(|n| *n <= 8000);
                Ok(Bound::new(format!("x'{}'", hex(bytes)), Ty::VarBinary(length), false))
            }
            Expr::Variable(name) => self.variable(name),
            Expr::Column(name) => self.column(name, scope),
            Expr::Unary(op, inner) => {
                let inner = self.expr(inner, scope)?;
                if *op == "~" {
                    return Ok(Bound::new(format!("(~{})", inner.sql), inner.ty, inner.nullable));
                }
                let zero = Bound::new("0", Ty::Int, false);
                self.arithmetic("-", &zero, &inner)
            }
            Expr::Binary(op @ ("=" | "<>" | "<" | ">" | "<=" | ">="), ..) => {
                Err(SqlError::new(102, 15, format!("Incorrect syntax near '{op}'.")))
            }
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.expr(left, scope)?, self.expr(right, scope)?);
                self.arithmetic(op, &left, &right)
            }
            Expr::Subquery(query) => {
                let bound = self.query(query, Some(scope))?;
                let [column] = &bound.columns[..] else {
                    return Err(SqlError::of(
                        116,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                };
                let coll = column.collation.clone().map_or(Coll::Default, Coll::Implicit);
                Ok(Bound { coll, ..Bound::new(format!("({})", bound.sql), column.ty, true) })
            }
            Expr::Case(of, arms, other) => self.case(of.as_deref(), arms, other.as_deref(), scope),
            Expr::Cast { expr, ty, tolerant, style } => {
                let inner = self.expr(expr, scope)?;
                let style = match style {
                    None => "0".to_owned(),
                    Some(style) => self.expr(style, scope)?.sql,
                };
                let function = if *tolerant { "t_try" } else { "t_conv" };
                let sql = if inner.null {
                    "NULL".to_owned()
                } else {
                    format!("{function}({}, {}, {}, {style})", inner.sql, inner.ty.code(), ty.code())
                };
                let coll = if ty.is_text() { inner.coll } else { Coll::Default };
                Ok(Bound { coll, ..Bound::new(sql, *ty, inner.nullable || *tolerant) })
            }
            Expr::Collate(inner, name) => {
                let inner = self.expr(inner, scope)?;
                if !inner.ty.is_text() {
                    return Err(SqlError::of(
                        447,
                        format!("Expression type {} is invalid for COLLATE clause.", inner.ty.name()),
                    ));
                }
                let name = if name.eq_ignore_ascii_case("DATABASE_DEFAULT") { COLLATION } else { name };
                known_collation(name)?;
                Ok(Bound { coll: Coll::Explicit(name.to_owned()), ..inner })
            }
            Expr::Call { name, arguments, distinct, star, over } => {
                self.call(name, arguments, *distinct, *star, over.as_deref(), scope)
            }
            // A condition where a value is wanted.
            _ => Err(SqlError::of(
                4145,
                "An expression of non-boolean type specified in a context where a condition is expected.",
            )),
        }
    }

    fn variable(&mut self, name: &str) -> Sql<Bound> {
        let facts = self.facts;
        let int = |value: i64| Ok(Bound::new(value.to_string(), Ty::Int, false));
        match name {
            "@@trancount" => int(facts.trancount),
            "@@rowcount" => int(facts.rowcount),
            "@@error" => int(facts.last_error.into()),
            "@@spid" => Ok(Bound::new(facts.spid.to_string(), Ty::SmallInt, false)),
            "@@lock_timeout" => int(facts.lock_timeout),
            "@@options" => int(5496),
            "@@fetch_status" => int(-1),
            "@@microsoftversion" => int(0x1000_03e8),
            "@@max_precision" => Ok(Bound::new("38", Ty::TinyInt, false)),
            "@@servername" | "@@servicename" => Ok(Bound::new("'towpath-simulator'", Ty::NVarChar(Some(128)), false)),
            "@@language" => Ok(Bound::new("'us_english'", Ty::NVarChar(Some(128)), false)),
            "@@version" => Ok(Bound::new(
                "'Microsoft SQL Server 2022 (RTM) - 16.0.1000.6 (X64) (Towpath simulator over SQLite)'",
                Ty::NVarChar(Some(300)),
                false,
            )),
            "@@identity" => Ok(Bound::new(
                facts.identity.map_or("NULL".to_owned(), |identity| {
                    format!("t_conv({identity}, 5, {}, 0)", Ty::decimal(38, 0).code())
                }),
                Ty::Decimal { p: 38, s: 0, numeric: true },
                true,
            )),
            _ => match facts.variables.get(name) {
                Some((ty, value)) => {
                    let value: Value = value.clone();
                    let sql = self.param(value);
                    Ok(Bound::new(sql, *ty, true))
                }
                None => Err(SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\"."))),
            },
        }
    }

    pub(super) fn column(&mut self, name: &[String], scope: &Scope<'_>) -> Sql<Bound> {
        match scope.find(name)? {
            Some(bound) => {
                if let Some(grouped) = &self.grouped
                    && !self.in_aggregate
                    && scope.tables.iter().flat_map(|table| &table.columns).any(|column| column.bound.sql == bound.sql)
                    && !grouped.contains(&bound.sql)
                {
                    return Err(SqlError::of(
                        8120,
                        format!(
                            "Column '{}' is invalid in the select list because it is not contained in either an aggregate function or \
                             the GROUP BY clause.",
                            name.join(".")
                        ),
                    ));
                }
                Ok(bound)
            }
            None if name.len() > 1 => {
                Err(SqlError::of(4104, format!("The multi-part identifier \"{}\" could not be bound.", name.join("."))))
            }
            None => Err(SqlError::invalid_column(&name[0])),
        }
    }

    fn case(
        &mut self,
        of: Option<&Expr>,
        arms: &[(Expr, Expr)],
        other: Option<&Expr>,
        scope: &Scope<'_>,
    ) -> Sql<Bound> {
        let of = of.map(|of| self.expr(of, scope)).transpose()?;
        let mut conditions = vec![];
        let mut values = vec![];
        for (when, then) in arms {
            conditions.push(match &of {
                None => self.truth(when, scope)?,
                Some(of) => {
                    let when = self.expr(when, scope)?;
                    self.compare("=", of, &when)?
                }
            });
            values.push(self.expr(then, scope)?);
        }
        let has_other = other.is_some();
        if let Some(other) = other {
            values.push(self.expr(other, scope)?);
        }
        let (ty, coll) = common(&values);
        let mut sql = "CASE".to_owned();
        for (condition, value) in conditions.iter().zip(&values) {
            sql += &format!(" WHEN {condition} THEN {}", self.coerce(value, &ty));
        }
        if has_other && let Some(other) = values.last() {
            sql += &format!(" ELSE {}", self.coerce(other, &ty));
        }
        sql += " END";
        let nullable = !has_other || values.iter().any(|value| value.nullable);
        Ok(Bound { coll, ..Bound::new(sql, ty, nullable) })
    }

    /// A condition, as SQL.
    pub fn truth(&mut self, expr: &Expr, scope: &Scope<'_>) -> Sql<String> {
        Ok(match expr {
            Expr::And(left, right) => format!("({} AND {})", self.truth(left, scope)?, self.truth(right, scope)?),
            Expr::Or(left, right) => format!("({} OR {})", self.truth(left, scope)?, self.truth(right, scope)?),
            Expr::Not(inner) => format!("(NOT {})", self.truth(inner, scope)?),
            Expr::IsNull(inner, not) => {
                format!("({} IS {}NULL)", self.expr(inner, scope)?.sql, if *not { "NOT " } else { "" })
            }
            Expr::Binary(op @ ("=" | "<>" | "<" | ">" | "<=" | ">="), left, right) => {
                let (left, right) = (self.expr(left, scope)?, self.expr(right, scope)?);
                self.compare(op, &left, &right)?
            }
            Expr::Between(of, low, high, not) => {
                let (of, low, high) = (self.expr(of, scope)?, self.expr(low, scope)?, self.expr(high, scope)?);
                let both = format!("({} AND {})", self.compare(">=", &of, &low)?, self.compare("<=", &of, &high)?);
                if *not { format!("(NOT {both})") } else { both }
            }
            Expr::In(of, list, not) => {
                let of = self.expr(of, scope)?;
                let mut any = vec![];
                for item in list {
                    let item = self.expr(item, scope)?;
                    any.push(self.compare("=", &of, &item)?);
                }
                let any = either(&any);
                if *not { format!("(NOT {any})") } else { any }
            }
            Expr::InQuery(of, query, not) => {
                let of = self.expr(of, scope)?;
                let bound = self.query(query, Some(scope))?;
                let [column] = &bound.columns[..] else {
                    return Err(SqlError::of(
                        116,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                };
                let coll = column.collation.clone().map_or(Coll::Default, Coll::Implicit);
                let right = Bound { coll, ..Bound::new("k0", column.ty, column.nullable) };
                let (left, right, collate) = self.comparable(&of, &right, "equal to")?;
                let not = if *not { "NOT " } else { "" };
                format!("({left}{collate} {not}IN (SELECT {right} FROM ({})))", bound.sql)
            }
            Expr::Exists(query) => format!("EXISTS ({})", self.query(query, Some(scope))?.sql),
            Expr::Like(of, pattern, escape, not) => {
                let (of, pattern) = (self.expr(of, scope)?, self.expr(pattern, scope)?);
                let escape = match escape {
                    None => "NULL".to_owned(),
                    Some(escape) => self.expr(escape, scope)?.sql,
                };
                let text = Ty::NVarChar(None);
                let (left, right) = (self.coerce(&of, &text), self.coerce(&pattern, &text));
                let collation = of.coll.name().or(pattern.coll.name()).unwrap_or(COLLATION);
                let insensitive = i32::from(sqlite_collation(collation) == "TSQL_CI");
                let like = format!("t_like({left}, {right}, {escape}, {insensitive})");
                if *not { format!("(NOT {like})") } else { like }
            }
            _ => {
                let bound = self.expr(expr, scope)?;
                if bound.sql.starts_with("t_bool(") {
                    return Ok(bound.sql);
                }
                return Err(SqlError::of(
                    4145,
                    "An expression of non-boolean type specified in a context where a condition is expected.",
                ));
            }
        })
    }

    /// Both sides as SQLite can compare them, and the COLLATE for the left one.
    pub(super) fn comparable(&self, left: &Bound, right: &Bound, what: &str) -> Sql<(String, String, String)> {
        if left.null || right.null {
            return Ok((left.sql.clone(), right.sql.clone(), String::new()));
        }
        if left.ty.is_text() && right.ty.is_text() {
            let collation = match (&left.coll, &right.coll) {
                (Coll::Explicit(a), Coll::Explicit(b)) | (Coll::Implicit(a), Coll::Implicit(b)) if a != b => {
                    return Err(SqlError::of(
                        468,
                        format!(
                            "Cannot resolve the collation conflict between \"{b}\" and \"{a}\" in the {what} operation."
                        ),
                    ));
                }
                (Coll::Explicit(a), _) | (_, Coll::Explicit(a)) => a.as_str(),
                (Coll::Implicit(a), _) | (_, Coll::Implicit(a)) => a.as_str(),
                _ => COLLATION,
            };
            return Ok((left.sql.clone(), right.sql.clone(), format!(" COLLATE {}", sqlite_collation(collation))));
        }
        let (a, b) = (left.ty, right.ty);
        let ticks = |ty: Ty| ty.is_moment() && !matches!(ty, Ty::Time(_) | Ty::DateTimeOffset(_));
        let plain = a == b && !matches!(a, Ty::DateTimeOffset(_))
            || a.is_integer() && b.is_integer()
            || a.is_binary() && b.is_binary()
            || ticks(a) && ticks(b)
            || matches!((a, b), (Ty::Time(_), Ty::Time(_)))
            || matches!((a, b), (Ty::Money | Ty::SmallMoney, Ty::Money | Ty::SmallMoney))
            || matches!((a, b), (Ty::Float | Ty::Real, Ty::Float | Ty::Real))
            || matches!((a, b), (Ty::Decimal { s, .. }, Ty::Decimal { s: t, .. }) if s == t);
        if plain {
            return Ok((left.sql.clone(), right.sql.clone(), String::new()));
        }
        if a.is_moment() && b.is_number() && b != Ty::Int || b.is_moment() && a.is_number() && a != Ty::Int {
            return Err(SqlError::of(
                206,
                format!("Operand type clash: {} is incompatible with {}", a.name(), b.name()),
            ));
        }
        let mut ty = a.common(&b);
        if let Ty::Decimal { s, numeric, .. } = ty {
            ty = Ty::Decimal { p: 38, s, numeric };
        }
        if ty.is_moment() && (a.is_text() || b.is_text()) {
            ty = match ty {
                Ty::DateTime2(_) => Ty::DateTime2(7),
                Ty::Time(_) => Ty::Time(7),
                Ty::DateTimeOffset(_) => Ty::DateTimeOffset(7),
                ty => ty,
            };
        }
        let (left, right) = (self.coerce(left, &ty), self.coerce(right, &ty));
        if matches!(ty, Ty::DateTimeOffset(_)) {
            return Ok((format!("substr({left}, 1, 8)"), format!("substr({right}, 1, 8)"), String::new()));
        }
        Ok((left, right, String::new()))
    }

    /// A comparison, as SQL.
    pub(super) fn compare(&self, op: &str, left: &Bound, right: &Bound) -> Sql<String> {
        let what = match op {
            "=" => "equal to",
            "<>" => "not equal to",
            "<" => "less than",
            ">" => "greater than",
            "<=" => "less than or equal to",
            _ => "greater than or equal to",
        };
        let (left, right, collate) = self.comparable(left, right, what)?;
        Ok(format!("({left}{collate} {op} {right})"))
    }

    pub(super) fn arithmetic(&self, op: &str, left: &Bound, right: &Bound) -> Sql<Bound> {
        let nullable = left.nullable || right.nullable;
        let (a, b) = (left.ty, right.ty);
        let clash = || {
            SqlError::of(
                402,
                format!("The data types {} and {} are incompatible in the {op} operator.", a.name(), b.name()),
            )
        };
        if op == "+" && (a.is_text() && (b.is_text() || right.null) || b.is_text() && left.null) {
            let length = match (a.length(), b.length()) {
                (Some(n), Some(m)) => Some(n.saturating_add(m)),
                _ => None,
            };
            let ty = if a.is_national() || b.is_national() {
                Ty::NVarChar(length.map(|n| n.min(4000)))
            } else {
                Ty::VarChar(length.map(|n| n.min(8000)))
            };
            let coll = if left.coll == Coll::Default { right.coll.clone() } else { left.coll.clone() };
            return Ok(Bound { coll, ..Bound::new(format!("({} || {})", left.sql, right.sql), ty, nullable) });
        }
        if op == "+" && a.is_binary() && b.is_binary() {
            let length = match (a.length(), b.length()) {
                (Some(n), Some(m)) => Some(n.saturating_add(m).min(8000)),
                _ => None,
            };
            let sql = format!("CAST({} || {} AS BLOB)", left.sql, right.sql);
            return Ok(Bound::new(sql, Ty::VarBinary(length), nullable));
        }
        if matches!(a, Ty::DateTime | Ty::SmallDateTime) && (b.is_number() || right.null) && (op == "+" || op == "-") {
            let sign = if op == "-" { "-" } else { "" };
            let days = self.coerce(right, &Ty::Float);
            let sql = format!(
                "t_conv({} + CAST({sign}({days}) * 864000000000 AS INTEGER), {}, {}, 0)",
                left.sql,
                a.code(),
                Ty::DateTime2(7).code()
            );
            let sql = format!("t_conv({sql}, {}, {}, 0)", Ty::DateTime2(7).code(), a.code());
            return Ok(Bound::new(sql, a, nullable));
        }
        let numeric = |bound: &Bound| bound.null || bound.ty.is_number() || bound.ty.is_text();
        if !(numeric(left) && numeric(right)) || a.is_text() && b.is_text() && !left.null && !right.null {
            return Err(clash());
        }
        // NULL and text become what the other is.
        let side = |bound: &Bound, other: Ty| if bound.null || bound.ty.is_text() { other } else { bound.ty };
        let (a, b) = (side(left, b), side(right, a));
        if ["&", "|", "^"].contains(&op) {
            if !a.is_integer() || !b.is_integer() {
                return Err(clash());
            }
            let sql = match op {
                "^" => format!("(({0} | {1}) - ({0} & {1}))", left.sql, right.sql),
                op => format!("({} {op} {})", left.sql, right.sql),
            };
            return Ok(Bound::new(sql, a.common(&b), nullable));
        }
        // A literal has as many digits as are written, where it meets a decimal.
        let literal = |bound: &Bound, ty: Ty, other: Ty| match (other, bound.sql.parse::<i32>()) {
            (Ty::Decimal { .. }, Ok(value)) if ty == Ty::Int => Ty::decimal(decimal::digits(value.into()).max(1), 0),
            _ => ty,
        };
        let ty = result(op, literal(left, a, b), literal(right, b, a));
        let (left, right) = (self.coerce(left, &a), self.coerce(right, &b));
        let sql = format!("t_math('{op}', {left}, {}, {right}, {}, {})", a.code(), b.code(), ty.code());
        Ok(Bound::new(sql, ty, nullable))
    }
}

/// "Precision, scale, and length" (T-SQL reference).
fn result(op: &str, a: Ty, b: Ty) -> Ty {
    let common = a.common(&b);
    let Ty::Decimal { numeric, .. } = common else {
        return if common == Ty::Bit { Ty::Int } else { common };
    };
    let ((p1, s1), (p2, s2)) = (a.precision(), b.precision());
    let [p1, s1, p2, s2] = [p1, s1, p2, s2].map(i32::from);
    let (p, s) = match op {
        "*" => (p1 + p2 + 1, s1 + s2),
        "/" => {
            let s = 6.max(s1 + p2 + 1);
            (p1 - s1 + s2 + s, s)
        }
        "%" => ((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
        _ => (s1.max(s2) + (p1 - s1).max(p2 - s2) + 1, s1.max(s2)),
    };
    let s = if p > 38 { (38 - (p - s)).max(s.min(6)) } else { s };
    let [p, s] = [p.min(38), s].map(|n| u8::try_from(n).unwrap_or(38));
    Ty::Decimal { p, s, numeric }
}

/// The type (and collation) of several values in one place.
pub(super) fn common(values: &[Bound]) -> (Ty, Coll) {
    let mut typed = values.iter().filter(|value| !value.null);
    let first = typed.next();
    let ty = typed.fold(first.map_or(Ty::Int, |first| first.ty), |ty, value| ty.common(&value.ty));
    let coll = values.iter().map(|value| &value.coll).find(|coll| **coll != Coll::Default);
    (ty, coll.cloned().unwrap_or(Coll::Default))
}

fn number(text: &str) -> Sql<Bound> {
    if text.contains(['e', 'E']) {
        let value: f64 = text.parse().map_err(|_| SqlError::syntax(text))?;
        let shown = format!("{value:?}");
        return Ok(Bound::new(shown, Ty::Float, false));
    }
    if let Ok(value) = text.parse::<i32>() {
        return Ok(Bound::new(value.to_string(), Ty::Int, false));
    }
    let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let too_long = || {
        SqlError::new(
            1007,
            15,
            format!("The number '{text}' is out of the range for numeric representation (maximum precision 38)."),
        )
    };
    let scale = u8::try_from(scale).ok().filter(|scale| *scale <= 38).ok_or_else(too_long)?;
    let value = decimal::parse(text, scale).map_err(|_| too_long())?;
    let p = decimal::digits(value).max(scale).max(1);
    if p > 38 {
        return Err(too_long());
    }
    let ty = Ty::Decimal { p, s: scale, numeric: true };
    Ok(Bound::new(format!("x'{}'", hex(&decimal::to_bytes(value))), ty, false))
}

/// One of these holds. As a tree: SQLite goes a thousand levels deep, and a list may be longer.
fn either(any: &[String]) -> String {
    match any {
        [] => "0".to_owned(),
        [one] => format!("({one})"),
        more => {
            let (left, right) = more.split_at(more.len() / 2);
            format!("({} OR {})", either(left), either(right))
        }
    }
}
