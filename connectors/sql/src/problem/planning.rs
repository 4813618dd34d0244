//! What is wrong with a query that cannot be planned, in one sentence of ours for each thing that a query is likely to have wrong.
//!
//! DataFusion gives few kinds of errors and many texts, some of them with its own syntax tree in it; so the texts are what tells the
//! cases apart. A text that is not known here is told as it is, up to where the tree begins.

use arrow_schema::SchemaRef;
use datafusion::{common::SchemaError, error::DataFusionError, sql::sqlparser::parser::ParserError};
use towpath_core::{Error, Name};

use super::{
    Place, at, lower, named, no_table,
    signature::{no_match, unknown},
    types::{plain, undeclared},
};

/// A query, and what it may speak of.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    pub(crate) query: &'a str,
    /// The inputs; without columns where they are not known.
    pub(crate) tables: &'a [(Name, SchemaRef)],
    pub(crate) functions: &'a [String],
}

impl Asked<'_> {
    fn find(&self, word: &str) -> Option<Place> {
        Place::find(self.query, word)
    }
    /// The column of a name with or without a table, where it stands last: conditions stand behind what they are of.
    fn column(&self, name: &str) -> Option<Place> {
        Place::find_last(self.query, name.rsplit('.').next().unwrap_or(name))
    }
}

/// What is wrong with a query that cannot be planned: a Config error, with its place in the query where there is one.
pub(crate) fn of(error: &DataFusionError, asked: &Asked<'_>) -> Error {
    // Of several, the first: the others often follow from it.
    let error = match error {
        DataFusionError::Collection(all) => all.first().unwrap_or(error),
        error => error,
    };
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let span = span.map(|span| Place { line: span.start.line, column: span.start.column });
    match error.find_root() {
        DataFusionError::SQL(parser, _) => syntax(parser, asked),
        DataFusionError::SchemaError(schema, _) => of_names(schema, asked, span),
        DataFusionError::ArrowError(arrow, _) => of_value(&arrow.to_string(), asked, span),
        DataFusionError::NotImplemented(text) if text.contains("a single SQL statement") => {
            at(span, Error::config("it is more than one statement").hint("write one query: `select … from …`"))
        }
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Internal(text)
        | DataFusionError::Execution(text) => of_text(text, asked, span),
        other => at(span, Error::config("it cannot be planned").because(first_line(&lower(&other.strip_backtrace())))),
    }
}

/// What the parser does not understand.
fn syntax(error: &ParserError, asked: &Asked<'_>) -> Error {
    let message = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply",
    };
    let (place, message) = Place::said(message).map_or((None, message), |(place, text)| (Some(place), text));
    let place = place.or_else(|| message.ends_with("found: EOF").then(|| Place::end(asked.query)));
    at(place, Error::config(lower(&message.replace("found: EOF", "found: the end of the query"))))
}

/// Names of columns that are unknown, or that several things have.
fn of_names(error: &SchemaError, asked: &Asked<'_>, span: Option<Place>) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let place = span.or_else(|| asked.find(&field.name));
            let error = Error::config(format!("there is no column '{}'", field.flat_name().replace('"', "")));
            // With its table where the column is asked of one.
            let of_table =
                valid_fields.iter().filter(|valid| field.relation.is_none() || valid.relation == field.relation);
            let mut names: Vec<&str> = of_table.map(|valid| valid.name.as_str()).collect();
            if names.is_empty() {
                names = valid_fields.iter().map(|valid| valid.name.as_str()).collect();
            }
            let mut seen = std::collections::HashSet::new();
            names.retain(|name| seen.insert(*name));
            let quoted = place.is_some_and(|place| place.rest(asked.query).starts_with('"'));
            if quoted && super::nearest(&field.name, &names).is_none() {
                return at(place, error.hint(format!("text stands in single quotes: '{}'", field.name)));
            }
            at(place, named(error, &field.name, &names))
        }
        SchemaError::AmbiguousReference { field } => {
            let place = span.or_else(|| asked.find(&field.name));
            let has = |schema: &SchemaRef| schema.field_with_name(&field.name).is_ok();
            let table = asked.tables.iter().find(|(_, schema)| has(schema)).map_or("orders", |(name, _)| name);
            let error = Error::config(format!("several inputs have a column '{}'", field.name));
            at(place, error.hint(format!("say which: `{table}.{}`", field.name)))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            let error = Error::config(format!("the result of a part of it has several columns '{name}'"));
            at(span.or_else(|| asked.find(name)), error.hint("name each column, as in `orders.id as order_id`"))
        }
    }
}

/// A value in the query that is not of the type it is compared with or cast to.
fn of_value(text: &str, asked: &Asked<'_>, span: Option<Place>) -> Error {
    let text = text.trim_start_matches("Cast error: ").trim_start_matches("Parser error: ");
    let value = text.split_once("string '").and_then(|(_, rest)| rest.split_once('\''));
    let place = span.or_else(|| asked.find(&format!("'{}'", value?.0)));
    let of = value.and_then(|(_, rest)| rest.trim().strip_prefix("to value of ")?.strip_suffix(" type"));
    at(
        place,
        match (value, of) {
            (Some((value, _)), Some(of)) => Error::config(format!("'{value}' is no {}", plain(of))),
            _ => Error::config(lower(&plain(first_line(text)))),
        },
    )
}

/// Everything that comes as a text only.
fn of_text(text: &str, asked: &Asked<'_>, span: Option<Place>) -> Error {
    let known = no_match(text, asked, span)
        .or_else(|| unknown(text, asked, span))
        .or_else(|| of_tables(text, asked, span))
        .or_else(|| of_operators(text, asked, span))
        .or_else(|| of_groups(text, asked, span))
        .or_else(|| of_other(text, asked, span));
    known.unwrap_or_else(|| at(span, Error::config(lower(&plain(without_tree(text))))))
}

/// Tables that are no inputs.
fn of_tables(text: &str, asked: &Asked<'_>, span: Option<Place>) -> Option<Error> {
    let table = match text.strip_prefix("table '") {
        Some(table) => table.split('\'').next()?,
        None => text.strip_prefix("Invalid qualifier ")?,
    };
    let table = table.rsplit('.').next().unwrap_or(table);
    let names: Vec<Name> = asked.tables.iter().map(|(name, _)| name.clone()).collect();
    Some(no_table(table, span.or_else(|| asked.find(table)), &names))
}

/// Operators and conditions over types they are not for.
fn of_operators(text: &str, asked: &Asked<'_>, span: Option<Place>) -> Option<Error> {
    let between = |before: &str, after: &str| {
        let (_, rest) = text.split_once(before)?;
        if after.is_empty() { Some(first_line(rest)) } else { rest.split_once(after).map(|(inside, _)| inside) }
    };
    let told = |place: Option<Place>, message: String, of: &str| {
        Some(at(place, undeclared(Error::config(message), of, place, asked.query, asked.tables)))
    };
    // `Utf8 / Int64`
    let operation = between("Cannot coerce arithmetic expression ", " to valid types").or_else(|| {
        let (_, operation) = between("Cannot infer common argument type for ", "")?.split_once(" operation ")?;
        Some(operation)
    });
    if let Some(operation) = operation {
        // The pattern's side is text by right.
        let of = if operation.contains('~') { "" } else { operation };
        return told(span, format!("there is no `{}`", plain(operation)), of);
    }
    if let Some(types) = between("There isn't a common type to coerce ", " expression") {
        let (types, operator) = types.rsplit_once(" in ")?;
        let (left, right) = types.split_once(" and ")?;
        let place = span.or_else(|| Place::find_any_case(asked.query, operator));
        let message = format!("there is no `{} {} {}`", plain(left), operator.to_lowercase(), plain(right));
        return told(place, message, "");
    }
    if let Some(operator) = between("Unary operator '", "'") {
        let of = if operator == "NOT" { "Utf8 Boolean" } else { "Utf8" };
        let column = span.map(|place| place.rest(asked.query)).unwrap_or_default();
        let text = super::types::is_text_column(column, asked.tables);
        let needs = if operator == "NOT" { "a condition" } else { "a number" };
        return told(span, format!("`{}` needs {needs}", operator.to_lowercase()), if text { of } else { "" });
    }
    if let Some(column) = between("Cannot create filter with non-boolean predicate '", "'") {
        let of = between(" returning ", "")?;
        let place = span.or_else(|| asked.column(column));
        let message = format!("a condition is true or false, and '{column}' is {}", plain(of));
        return told(place, message, &format!("{of} Boolean"));
    }
    if let Some(of) = between("Join condition must be boolean type, but got ", "") {
        return told(span, format!("the condition of a join is true or false, and this one is {}", plain(of)), "");
    }
    if let Some(types) = between("Unsupported CAST from ", "") {
        let (from, to) = types.split_once(" to ")?;
        return told(
            span.or_else(|| Place::find_any_case(asked.query, "cast")),
            format!("{} cannot be cast to {}", plain(from), plain(to)),
            "",
        );
    }
    if let Some(of) = between("is not Struct, Map, or Null", "").and_then(|_| between(": type ", " is not ")) {
        let error = Error::config(format!("a value of type {} has no fields", plain(of)));
        return Some(at(span, error.hint("a column of an input is written `input.column`")));
    }
    None
}

/// Groups, aggregates and windows.
fn of_groups(text: &str, asked: &Asked<'_>, span: Option<Place>) -> Option<Error> {
    if let Some((_, column)) = text.split_once("column \"").filter(|(_, rest)| rest.contains("in the GROUP BY clause"))
    {
        let column = column.split('"').next()?;
        let error = Error::config(format!("'{column}' is neither in `group by` nor inside of an aggregate"));
        let place = span.or_else(|| asked.column(column));
        return Some(at(place, error.hint(format!("add it to `group by`, or write `max({column})`"))));
    }
    if text.contains("aggregate function calls cannot be nested")
        || text.contains("Aggregate function calls cannot be nested")
    {
        let error = Error::config("an aggregate cannot stand inside of another");
        return Some(at(span, error.hint("let a subquery compute the inner one: `with inner as (select …) select …`")));
    }
    if text.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        let error = Error::config("an aggregate cannot stand in `where`");
        return Some(at(span, error.hint("write it in `having`, behind `group by`")));
    }
    if text.contains("does not support logical expression WindowFunction") {
        let error = Error::config("a function over a window can only stand in `select` and `order by`");
        return Some(at(span, error.hint("let a subquery compute it, or write the condition in `qualify`")));
    }
    if let Some(window) = text.strip_prefix("The window ").and_then(|rest| rest.strip_suffix(" is not defined!")) {
        let error = Error::config(format!("there is no window '{window}'"));
        return Some(at(
            span.or_else(|| asked.find(window)),
            error.hint(format!("define it: `window {window} as (…)`")),
        ));
    }
    let position = text.strip_prefix("Cannot find column with position ").and_then(|rest| {
        let (position, rest) = rest.split_once(" in SELECT clause. Valid columns: 1 to ")?;
        Some(("group by", position, rest))
    });
    let position = position.or_else(|| {
        let (position, most) =
            text.strip_prefix("Order by column out of bounds, specified: ")?.split_once(", max: ")?;
        Some(("order by", position, most))
    });
    let (clause, position, most) = position?;
    let error = Error::config(format!("`{clause} {position}`: the result's columns are counted from 1 to {most}"));
    Some(at(span.or_else(|| asked.column(position)), error))
}

/// What else a query is likely to have wrong.
fn of_other(text: &str, asked: &Asked<'_>, span: Option<Place>) -> Option<Error> {
    if text.contains("require unique expression names") {
        let error = Error::config("the result of a part of it has two columns of one name");
        return Some(at(span, error.hint("name each column, as in `orders.id as order_id`")));
    }
    if let Some(columns) = text.strip_prefix("Too many columns! The subquery should only return one column: ") {
        return Some(at(
            span,
            Error::config(format!("a subquery gives one column here, not {}", columns.replace(", ", " and "))),
        ));
    }
    if let Some(kind) = text.strip_prefix("Unsupported SQL type ") {
        let kind = first_line(kind);
        let error = Error::config(format!("there is no type '{kind}'"));
        let hint = "there are varchar, int, bigint, double, decimal(12,2), boolean, date, timestamp and others of PostgreSQL's";
        return Some(at(span.or_else(|| asked.find(kind)), error.hint(hint)));
    }
    if text.starts_with("Decimal(precision = ") {
        let error = Error::config("such a decimal is not possible");
        let hint = "write decimal(digits, digits behind the point): at most 76 digits, and no more behind the point than in all";
        return Some(at(span.or_else(|| Place::find_any_case(asked.query, "decimal")), error.hint(hint)));
    }
    if let Some(placeholder) = text.strip_prefix("Placeholder '").and_then(|rest| rest.split('\'').next()) {
        let error = Error::config(format!("there is no value for '{placeholder}'"));
        let place = span.or_else(|| Place::find(asked.query, placeholder));
        return Some(at(place, error.hint("write the value itself, or `${NAME}`, which the environment fills in")));
    }
    if text.starts_with("Could not plan array literal") || text.starts_with("GetFieldAccess not supported") {
        return Some(at(span, Error::config("lists and their elements are not supported")));
    }
    // The name of a node of the syntax tree, such as `Pivot`, or of a clause, such as `TOP`.
    let node =
        text.strip_prefix("Unsupported ast node in sqltorel: ").or_else(|| text.strip_prefix("Unsupported ast node "));
    let clause = node.map(|node| node.split(|c: char| !c.is_alphanumeric()).next().unwrap_or(node));
    let clause =
        clause.or_else(|| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b' ').then_some(text))?;
    let error = Error::config(format!("`{}` is not supported", clause.to_lowercase()));
    let place = span.or_else(|| Place::find_any_case(asked.query, clause));
    Some(at(place, if clause == "TOP" { error.hint("write `limit` at the query's end") } else { error }))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text).trim_end_matches(['.', ' '])
}

/// A text up to where DataFusion's own syntax tree begins in it, or advice to whoever builds DataFusion.
fn without_tree(text: &str) -> &str {
    let text = first_line(text);
    let text = text.split(". Hint: ").next().unwrap_or(text);
    let Some((before, _)) = text.split_once(" { ") else { return text };
    // `… is not valid Substring { expr: Identifier(…` and `…: Identifier(Ident { value: …`
    let before = before.rsplit_once(' ').map_or(before, |(before, _)| before);
    before.trim_end_matches([':', ' '])
}
