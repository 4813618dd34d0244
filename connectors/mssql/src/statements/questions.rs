//! What is asked of the staging table before its rows are published: which of them the target would refuse.

use std::fmt::Write as _;

use towpath_core::WriteMode;

use super::{Loaded, Publish, ROW};
use crate::{
    catalog::{CheckConstraint, Column, ForeignKey, Unique, quote},
    types::SqlType,
};

impl Publish<'_> {
    /// Rows from `first` on whose text is another one in the column's code page: cut because it needs more bytes, or with a question mark for a
    /// character that has no place there. By way of bytes, so that no server keeps the text as it is until it is stored. Compared by a binary collation, to which a letter and its look-alike are two.
    pub(crate) fn not_in_code_page(&self, loaded: &Loaded, first: i64) -> Option<String> {
        let of = match &loaded.column.of {
            SqlType::Text => SqlType::VarChar(None),
            of if of.has_code_page() => of.clone(),
            _ => return None,
        };
        let name = quote(&loaded.column.name);
        let collation = loaded.column.collation.as_ref().map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        let there = format!("CONVERT({of}, s.{name}{collation})");
        // Bytes are read back in the database's code page, so that way is open only to columns that have it too.
        let there = match &loaded.column.collation {
            None => format!("CONVERT({of}, CONVERT(varbinary(max), {there}))"),
            Some(_) => there,
        };
        Some(format!(
            "SELECT s.{row} FROM {} AS s WHERE s.{row} >= {first} AND CONVERT(nvarchar(max), {there}) COLLATE Latin1_General_BIN2 \
             <> s.{name} COLLATE Latin1_General_BIN2",
            self.staging,
            row = quote(ROW)
        ))
    }

    /// Rows from `first` on that do not convert to the type of the column.
    pub(crate) fn not_convertible(&self, loaded: &Loaded, first: i64) -> Option<String> {
        if loaded.column.of != SqlType::Xml {
            return None;
        }
        let (name, of) = (quote(&loaded.column.name), &loaded.column.of);
        Some(format!(
            "SELECT s.{row} FROM {} AS s WHERE s.{row} >= {first} AND s.{name} IS NOT NULL AND TRY_CONVERT({of}, s.{name}) IS NULL",
            self.staging,
            row = quote(ROW)
        ))
    }

    /// Rows from `first` on that a CHECK constraint refuses: where it is false, not where it is unknown. `None`: it looks at a column that is not
    /// loaded, and so at the same value for every row.
    pub(crate) fn refused_by(&self, check: &CheckConstraint, all: &[Column], first: i64) -> Option<String> {
        let mentions = |column: &Column| check.mentions(&column.name);
        let loaded = |column: &Column| self.columns.iter().any(|loaded| loaded.column.name == column.name);
        if all.iter().any(|column| mentions(column) && !loaded(column)) {
            return None;
        }
        // As they will be in the target: a time cut to seconds, a text of a fixed length.
        let columns = self.columns.iter().filter(|loaded| mentions(&loaded.column));
        let columns: Vec<_> =
            columns.map(|loaded| format!("{} AS {}", loaded.value("d"), quote(&loaded.column.name))).collect();
        if columns.is_empty() {
            return None;
        }
        Some(format!(
            "SELECT s.{row} FROM (SELECT d.{row}, {} FROM {} AS d WHERE d.{row} >= {first}) AS s WHERE NOT ({})",
            columns.join(", "),
            self.staging,
            check.definition,
            row = quote(ROW)
        ))
    }

    /// Rows from `first` on that point to a row that is not there. Where the table points to itself, a row may come with the same load.
    pub(crate) fn orphans(&self, key: &ForeignKey, first: i64) -> Option<String> {
        let of = |name: &str| self.columns.iter().find(|loaded| loaded.column.name == name);
        let pairs: Option<Vec<(&Loaded, &str)>> =
            key.columns.iter().map(|(here, there)| Some((of(here)?, there.as_str()))).collect();
        let pairs = pairs?;
        let row = quote(ROW);
        let given: Vec<_> =
            pairs.iter().map(|(here, _)| format!("s.{} IS NOT NULL", quote(&here.column.name))).collect();
        let there = |alias: &str| {
            let pairs = pairs.iter().map(|(here, there)| format!("{alias}.{} = {}", quote(there), here.value("s")));
            pairs.collect::<Vec<_>>().join(" AND ")
        };
        let mut sql = format!(
            "SELECT s.{row} FROM {} AS s WHERE s.{row} >= {first} AND {} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})",
            self.staging,
            given.join(" AND "),
            key.parent,
            there("p")
        );
        if key.parent == *self.target && pairs.iter().all(|(_, there)| of(there).is_some()) {
            let _ = write!(sql, " AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {})", self.staging, there("p"));
        }
        Some(sql)
    }

    /// Rows from `first` on whose value of a unique index, not the key's, is taken: by a row of the target that stays as it is, or by an earlier row of
    /// the load. Asked of the rows that count: of one key the first (`insert_new`) or the last (`upsert`). Whether the next one of the key counts when
    /// that is refused is for the next asking to say.
    pub(crate) fn taken(&self, unique: &Unique, mode: WriteMode, first: i64) -> Option<String> {
        let columns = self.beside_the_key(unique)?;
        let by_an_earlier = self.taken_by_an_earlier(&columns, mode, first);
        Some(match mode {
            // What is in the target goes.
            WriteMode::Replace => by_an_earlier,
            _ => format!("{} UNION {by_an_earlier}", self.taken_in_the_target(&columns, mode, first)),
        })
    }

    /// Whether rows may take values of a unique index from one another.
    pub(crate) fn moves(&self, unique: &Unique) -> bool {
        self.beside_the_key(unique).is_some()
    }

    /// The columns of a unique index, where all of them are loaded and it is not the key's.
    fn beside_the_key(&self, unique: &Unique) -> Option<Vec<&Loaded>> {
        let columns: Option<Vec<&Loaded>> =
            unique.columns.iter().map(|name| self.columns.iter().find(|loaded| loaded.column.name == *name)).collect();
        columns.filter(|_| !unique.is_of(self.key))
    }

    /// The staged rows that count, and what else is asked of them, with ` AND ` behind it.
    fn counting(&self, mode: WriteMode, alias: &str) -> (String, String) {
        let (from, turn) = self.staged(mode == WriteMode::Upsert, alias);
        let turn = if turn.is_empty() { turn } else { format!("{turn} AND ") };
        // Rows that are there by their key are in nobody's way: they are not inserted.
        let unknown = if mode == WriteMode::InsertNew {
            format!("NOT EXISTS (SELECT 1 FROM {} AS t WHERE {}) AND ", self.target, self.same_key("t", alias))
        } else {
            String::new()
        };
        (from, format!("{turn}{unknown}"))
    }

    /// Those whose values another row of the target has. Of `upsert` only a row that is not overwritten: an upsert may move a value from one key to
    /// another, and one that stays where it is [comes first](Self::taken_by_an_earlier) among the staged ones.
    fn taken_in_the_target(&self, columns: &[&Loaded], mode: WriteMode, first: i64) -> String {
        let (from, which) = self.counting(mode, "s");
        let same = columns.iter().map(|loaded| same_value(loaded, "s")).collect::<Vec<_>>().join(" AND ");
        let stays = if mode == WriteMode::Upsert {
            let overwritten = self.same_key("t", "o");
            format!(
                " AND NOT ({}) AND NOT EXISTS (SELECT 1 FROM {} AS o WHERE {overwritten})",
                self.same_key("t", "s"),
                self.staging
            )
        } else {
            String::new()
        };
        // The rarest first, for servers that take it as it is written.
        let which = which.strip_suffix(" AND ").map(|which| format!(" AND {which}")).unwrap_or_default();
        format!(
            "SELECT s.{row} FROM {from} WHERE s.{row} >= {first} AND EXISTS (SELECT 1 FROM {} AS t WHERE {same}{stays}){which}",
            self.target,
            row = quote(ROW)
        )
    }

    /// Those whose values an earlier one of them has. Of `upsert` the row whose key has the value in the target comes before all others. By one sort of
    /// what is staged, because no index says which rows share a value. Nulls are a value too: to a unique index, and to PARTITION BY.
    fn taken_by_an_earlier(&self, columns: &[&Loaded], mode: WriteMode, first: i64) -> String {
        let (row, (mut from, which)) = (quote(ROW), self.counting(mode, "d"));
        let values: Vec<_> = columns.iter().map(|loaded| loaded.value("d")).collect();
        let mut order = format!("d.{row}");
        if mode == WriteMode::Upsert {
            let _ = write!(from, " LEFT JOIN {} AS t ON {}", self.target, self.same_key("t", "d"));
            // A row that is not there has nulls, which are not its values.
            let there = self.keys().map(|key| format!("t.{} IS NOT NULL", quote(&key.column.name)));
            let has =
                there.chain(columns.iter().map(|loaded| same_value(loaded, "d"))).collect::<Vec<_>>().join(" AND ");
            order = format!("CASE WHEN {has} THEN 0 ELSE 1 END, {order}");
        }
        let which = which.strip_suffix(" AND ").map(|which| format!(" WHERE {which}")).unwrap_or_default();
        format!(
            "SELECT s.{row} FROM (SELECT d.{row}, COUNT(*) OVER (PARTITION BY {} ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS [towpath_place] \
             FROM {from}{which}) AS s WHERE s.{row} >= {first} AND s.[towpath_place] > 1",
            values.join(", ")
        )
    }
}

/// Whether a row of the target, as `t`, has the value of a staged one. To a unique index two nulls are one.
fn same_value(loaded: &Loaded, staged: &str) -> String {
    let (there, here) = (format!("t.{}", quote(&loaded.column.name)), loaded.value(staged));
    if !loaded.column.nullable {
        return format!("{there} = {here}");
    }
    format!("({there} = {here} OR {there} IS NULL AND {here} IS NULL)")
}
