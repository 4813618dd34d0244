//! What there is to read: tables and views with their columns, keys and sizes.

use std::collections::BTreeMap;

use serde_json::json;
use towpath_core::{Result, source::Discovery};

use crate::{
    catalog::TableName,
    client::{Session, number, text},
    types::SqlType,
};

/// `sys.partitions` counts the rows of a table in its heap or clustered index: 0 or 1.
const TABLES: &str = "SELECT o.object_id, s.name, o.name, o.type, SUM(p.rows) FROM sys.objects o \
     JOIN sys.schemas s ON s.schema_id = o.schema_id \
     LEFT JOIN sys.partitions p ON p.object_id = o.object_id AND p.index_id IN (0, 1) \
     WHERE o.type IN ('U', 'V') AND o.is_ms_shipped = 0 GROUP BY o.object_id, s.name, o.name, o.type ORDER BY s.name, o.name";

/// A type of somebody's own is told by the type beneath it: only of those are `system_type_id` and `user_type_id` the same.
const COLUMNS: &str = "SELECT c.object_id, c.name, t.name, c.max_length, c.precision, c.scale, c.is_nullable FROM sys.columns c \
     JOIN sys.objects o ON o.object_id = c.object_id LEFT JOIN sys.types t ON t.user_type_id = c.system_type_id \
     WHERE o.type IN ('U', 'V') AND o.is_ms_shipped = 0 ORDER BY c.object_id, c.column_id";

const KEYS: &str = "SELECT i.object_id, i.is_primary_key, i.index_id, c.name FROM sys.indexes i \
     JOIN sys.objects o ON o.object_id = i.object_id \
     JOIN sys.index_columns ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id \
     JOIN sys.columns c ON c.object_id = ic.object_id AND c.column_id = ic.column_id \
     WHERE i.is_unique = 1 AND i.has_filter = 0 AND ic.is_included_column = 0 AND o.type IN ('U', 'V') AND o.is_ms_shipped = 0 \
     ORDER BY i.object_id, i.index_id, ic.key_ordinal";

/// A table or view.
#[derive(Debug, Default)]
pub(super) struct Found {
    name: String,
    view: bool,
    /// As the server counts them; it may be a little behind. Not of a view.
    rows: Option<i64>,
    columns: Vec<(String, SqlType, bool)>,
    primary: Vec<String>,
    unique: Vec<Vec<String>>,
}

/// Looks.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<Found>> {
    let doing = "list the tables";
    let mut found = vec![];
    let mut places = BTreeMap::new();
    for row in session.ask(doing, TABLES, &[]).await? {
        let name = TableName { schema: text(&row, 1), name: text(&row, 2).unwrap_or_default() };
        // Ours: checkpoints and the like.
        if name.name.to_ascii_lowercase().starts_with("towpath_") {
            continue;
        }
        let view = text(&row, 3).is_some_and(|kind| kind.trim() == "V");
        places.insert(number(&row, 0), found.len());
        let rows = if view { None } else { number(&row, 4) };
        found.push(Found { name: plain(&name), view, rows, ..Found::default() });
    }
    for row in session.ask(doing, COLUMNS, &[]).await? {
        let Some(table) = places.get(&number(&row, 0)).and_then(|at| found.get_mut(*at)) else { continue };
        let size = |at| number(&row, at).unwrap_or_default();
        let of = SqlType::of(&text(&row, 2).unwrap_or_default(), size(3), size(4), size(5));
        table.columns.push((text(&row, 1).unwrap_or_default(), of, size(6) != 0));
    }
    let mut last = None;
    for row in session.ask(doing, KEYS, &[]).await? {
        let Some(table) = places.get(&number(&row, 0)).and_then(|at| found.get_mut(*at)) else { continue };
        let column = text(&row, 3).unwrap_or_default();
        if number(&row, 1) == Some(1) {
            table.primary.push(column);
            continue;
        }
        let index = (number(&row, 0), number(&row, 2));
        match table.unique.last_mut().filter(|_| last == Some(index)) {
            Some(unique) => unique.push(column),
            None => table.unique.push(vec![column]),
        }
        last = Some(index);
    }
    Ok(found)
}

/// `dbo.Orders`, in brackets only where they are needed.
fn plain(name: &TableName) -> String {
    let plain = |part: &str| {
        let mut chars = part.chars();
        chars.next().is_some_and(|first| first.is_alphabetic() || first == '_')
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    };
    let part = |part: &str| if plain(part) { part.to_owned() } else { crate::catalog::quote(part) };
    name.schema.iter().map(String::as_str).chain([name.name.as_str()]).map(part).collect::<Vec<_>>().join(".")
}

/// For a person and for a program.
pub(super) fn written(found: &[Found], place: &str) -> Discovery {
    use std::fmt::Write as _;
    let (mut text, mut items) = (String::new(), vec![]);
    for table in found {
        let kind = if table.view { "view" } else { "table" };
        let rows = table.rows.map(|rows| format!(", {rows} rows")).unwrap_or_default();
        let _ = writeln!(text, "{} ({kind}{rows})", table.name);
        let mut columns = vec![];
        for (name, of, nullable) in &table.columns {
            let key = table.primary.contains(name);
            let _ = writeln!(
                text,
                "  {name}: {of}{}{}",
                if key { ", key" } else { "" },
                if *nullable { "" } else { ", not null" }
            );
            columns.push(json!({"name": name, "type": of.to_string(), "key": key, "not_null": !nullable}));
        }
        for unique in &table.unique {
            let _ = writeln!(text, "  unique: {}", unique.join(", "));
        }
        items.push(json!({
            "name": table.name, "kind": kind, "rows": table.rows, "columns": columns, "key": table.primary, "unique": table.unique,
        }));
    }
    match found.iter().find(|table| !table.view).or(found.first()) {
        Some(first) => {
            let name = serde_json::to_string(&first.name).unwrap_or_default();
            let _ =
                writeln!(text, "\nsources:\n  rows:\n    type: mssql\n    connection: \"${{MSSQL_URL}}\"    # {place}");
            let _ = writeln!(text, "    table: {name}");
            if let Some(column) = grows(first) {
                let _ = writeln!(text, "    # read only what is new in each run:\n    # cursor: {column}");
            }
        }
        None => text.push_str("no tables that the login may see\n"),
    }
    Discovery { text, items: items.into() }
}

/// A column that looks like one that only grows: a rowversion, or a whole number that is the key.
fn grows(table: &Found) -> Option<&str> {
    let version = table.columns.iter().find(|(_, of, _)| *of == SqlType::RowVersion);
    let number = table.columns.iter().find(|(name, of, _)| {
        matches!(of, SqlType::Int | SqlType::BigInt) && matches!(table.primary.as_slice(), [key] if key == name)
    });
    version.or(number).map(|(name, ..)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_can_be_pasted() {
        let column = |name: &str, of, nullable| (name.to_owned(), of, nullable);
        let found = [
            Found {
                name: plain(&TableName { schema: Some("dbo".to_owned()), name: "big view".to_owned() }),
                view: true,
                columns: vec![column("id", SqlType::Int, true)],
                ..Found::default()
            },
            Found {
                name: plain(&TableName { schema: Some("dbo".to_owned()), name: "Orders".to_owned() }),
                rows: Some(7),
                columns: vec![column("id", SqlType::BigInt, false), column("total", SqlType::Decimal(10, 2), true)],
                primary: vec!["id".to_owned()],
                unique: vec![vec!["a".to_owned(), "b".to_owned()]],
                ..Found::default()
            },
        ];
        let written = written(&found, "mssql://db:1433/shop");
        insta::assert_snapshot!(written.text);
        assert_eq!(written.items[1]["columns"][1]["type"], "decimal(10, 2)");
        assert_eq!(super::written(&[], "x").text, "no tables that the login may see\n");
    }

    #[test]
    fn what_is_asked_of_the_catalog() {
        let all = [("tables", TABLES), ("columns", COLUMNS), ("keys", KEYS)];
        insta::assert_snapshot!(all.map(|(what, sql)| format!("-- {what}\n{sql}\n")).join("\n"));
    }
}
