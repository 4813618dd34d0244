//! Every statement that the sink sends, but for those that only look (`catalog.rs`).
//!
//! Written in what SQL Server 2012 and later and Azure SQL take, and in the plainest words that do: no MERGE, no hints that a result depends on. Read
//! against learn.microsoft.com/sql/t-sql; what was thought through is said at each.
//!
//! * **Staging** is a plain table in the target's schema: several connections load into it, another publishes from it, and a retry finds it again; a
//!   temporary table is one connection's alone, and would have tempdb's collation. Text columns carry the collation of the target's where that is
//!   not the database's, so that comparing the two is no collation conflict (error 468).
//! * **Types**: a key is compared in the target's type (`CONVERT` on the staging side), because of two types the one of lower precedence is converted
//!   (nvarchar over varchar, datetime2 over datetime): the target's column would be, and its index of no use. What is inserted is left to the
//!   conversion of the assignment, which refuses a text too long where CONVERT would cut it.
//! * **XACT_ABORT is on** in every session: an error of a statement undoes the transaction and ends the batch, so that there is no transaction
//!   in doubt (XACT_STATE -1). Only [`probe`] asks by TRY and CATCH, and undoes everything itself.

mod questions;

use std::time::Duration;

use towpath_core::WriteMode;

use crate::{
    catalog::{Column, TableName, literal, quote, quoted},
    types::SqlType,
};

/// The column of a staging table that numbers its rows.
pub(crate) const ROW: &str = "towpath_row";
/// Which of several rows of one key a row is.
const TURN: &str = "towpath_turn";
/// The staged rows in an UPDATE, where the target goes by its own name: one that no target has.
const STAGED: &str = "towpath_staged";

/// A column that is loaded: as it is in the target, and as it is staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) column: Column,
    pub(crate) staged: SqlType,
}

impl Loaded {
    /// Its value on the staging side, in the target's type.
    fn value(&self, alias: &str) -> String {
        let name = quote(&self.column.name);
        if self.staged == self.column.of {
            format!("{alias}.{name}")
        } else {
            format!("CONVERT({}, {alias}.{name})", self.column.of)
        }
    }
    fn definition(&self) -> String {
        let collation = self.column.collation.as_ref().filter(|_| self.staged.is_text());
        let collation = collation.map(|name| format!(" COLLATE {name}")).unwrap_or_default();
        format!("{} {}{collation} NULL", quote(&self.column.name), self.staged)
    }
}

/// Where rows go and by what they are told apart.
#[derive(Clone, Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) target: &'a TableName,
    pub(crate) staging: &'a TableName,
    pub(crate) columns: &'a [Loaded],
    /// Names of the key's columns; none for `append` and `replace`.
    pub(crate) key: &'a [String],
    /// A key may be staged more than once: of those the first goes in (`insert_new`), or the last (`upsert`).
    pub(crate) repeats: bool,
}

impl Publish<'_> {
    fn names(&self) -> String {
        quoted(self.columns.iter().map(|loaded| loaded.column.name.as_str()))
    }
    fn is_key(&self, loaded: &Loaded) -> bool {
        self.key.iter().any(|key| key.to_lowercase() == loaded.column.name.to_lowercase())
    }
    fn keys(&self) -> impl Iterator<Item = &Loaded> {
        self.columns.iter().filter(|loaded| self.is_key(loaded))
    }
    /// `t.[k] = s.[k] AND …`
    fn same_key(&self, target: &str, staged: &str) -> String {
        let pairs =
            self.keys().map(|loaded| format!("{target}.{} = {}", quote(&loaded.column.name), loaded.value(staged)));
        pairs.collect::<Vec<_>>().join(" AND ")
    }
    /// The staged rows that count, as `s`.
    fn staged(&self, newest: bool, alias: &str) -> (String, String) {
        if !self.repeats {
            return (format!("{} AS {alias}", self.staging), String::new());
        }
        let keys = self.keys().map(|loaded| loaded.value("d")).collect::<Vec<_>>().join(", ");
        let order = if newest { "DESC" } else { "ASC" };
        let from = format!(
            "(SELECT d.*, ROW_NUMBER() OVER (PARTITION BY {keys} ORDER BY d.{row} {order}) AS {turn} FROM {} AS d) AS {alias}",
            self.staging,
            row = quote(ROW),
            turn = quote(TURN),
        );
        (from, format!("{alias}.{} = 1", quote(TURN)))
    }

    /// The statements that bring staged rows into the target, in their order. Each touches what it counts; `replace` begins by taking out what was there.
    ///
    /// `insert_new` and `upsert` need no lock against others who insert the same key: the unique index refuses the second, and the publish is made
    /// again, which then finds the row.
    pub(crate) fn statements(&self, mode: WriteMode) -> Vec<String> {
        let (target, names) = (self.target, self.names());
        let values = self
            .columns
            .iter()
            .map(|loaded| format!("s.{}", quote(&loaded.column.name)))
            .collect::<Vec<_>>()
            .join(", ");
        match mode {
            WriteMode::Append => {
                vec![format!("INSERT INTO {target} ({names}) SELECT {values} FROM {} AS s", self.staging)]
            }
            WriteMode::Replace => vec![
                format!("DELETE FROM {target}"),
                format!("INSERT INTO {target} ({names}) SELECT {values} FROM {} AS s", self.staging),
            ],
            WriteMode::InsertNew => vec![self.insert_missing(&names, &values, false)],
            WriteMode::Upsert => {
                let set = self.columns.iter().filter(|loaded| !self.is_key(loaded)).map(|loaded| {
                    let name = quote(&loaded.column.name);
                    format!("{name} = {STAGED}.{name}")
                });
                let set = set.collect::<Vec<_>>().join(", ");
                let mut statements = vec![];
                if !set.is_empty() {
                    let (from, turn) = self.staged(true, STAGED);
                    let turn = if turn.is_empty() { String::new() } else { format!(" AND {turn}") };
                    // The target is not named in FROM: its columns go by its own name.
                    statements.push(format!(
                        "UPDATE {target} SET {set} FROM {from} WHERE {}{turn}",
                        self.same_key(&quote(&target.name), STAGED)
                    ));
                }
                statements.push(self.insert_missing(&names, &values, true));
                statements
            }
        }
    }

    fn insert_missing(&self, names: &str, values: &str, newest: bool) -> String {
        let (from, turn) = self.staged(newest, "s");
        let turn = if turn.is_empty() { String::new() } else { format!("{turn} AND ") };
        format!(
            "INSERT INTO {target} ({names}) SELECT {values} FROM {from} WHERE {turn}NOT EXISTS (SELECT 1 FROM {target} AS t WHERE {})",
            self.same_key("t", "s"),
            target = self.target,
        )
    }

    /// Whether the rows from `first` to `last` would go in; undone in any case. Comes back with the error's number and words, or with 0; and with 1, or with
    /// 0 if it came not as far as the rows.
    ///
    /// `alone`: of an upsert, what the target has under the keys of the other staged rows is out of the way. These will leave values of unique indexes
    /// that rows of this part take, and a part is not to fail for want of them.
    pub(crate) fn probe(&self, mode: WriteMode, (first, last): (i64, i64), alone: bool) -> String {
        // What stands there already is not deleted for a trial.
        let mode = if mode == WriteMode::Replace { WriteMode::Append } else { mode };
        let row = quote(ROW);
        let part = format!("(SELECT * FROM {} WHERE {row} BETWEEN {first} AND {last})", self.staging);
        let statements: Vec<_> = self
            .statements(mode)
            .into_iter()
            .map(|statement| statement.replace(&format!("{} AS ", self.staging), &format!("{part} AS ")))
            .collect();
        let mut others = String::new();
        if alone {
            let (target, staging, name) = (self.target, self.staging, quote(&self.target.name));
            others = format!(
                "DELETE FROM {target} WHERE EXISTS (SELECT 1 FROM {staging} AS o WHERE {other}) AND NOT EXISTS (SELECT 1 FROM {part} AS i WHERE {here}); ",
                other = self.same_key(&name, "o"),
                here = self.same_key(&name, "i"),
            );
        }
        format!(
            "DECLARE @rows int; SET @rows = 0; BEGIN TRY BEGIN TRANSACTION; {others}SET @rows = 1; {}; ROLLBACK TRANSACTION; SELECT 0, N'', @rows, N''; END TRY \
             BEGIN CATCH IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION; SELECT ERROR_NUMBER(), ERROR_MESSAGE(), @rows, ERROR_PROCEDURE(); END CATCH",
            statements.join("; ")
        )
    }
}

/// Takes staged rows out by their numbers.
pub(crate) fn take_out(staging: &TableName, rows: &[i64]) -> String {
    let rows = rows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("DELETE FROM {staging} WHERE {} IN ({rows})", quote(ROW))
}

/// Makes a table of this connection alone for the numbers of staged rows that are to go, when there are too many to name them in one statement.
pub(crate) const CREATE_TAKEN_OUT: &str = "IF OBJECT_ID(N'tempdb..#towpath_taken_out') IS NOT NULL DROP TABLE #towpath_taken_out; \
     CREATE TABLE #towpath_taken_out (n bigint NOT NULL PRIMARY KEY)";

/// Puts numbers into it.
pub(crate) fn list_taken_out(rows: &[i64]) -> String {
    let rows = rows.iter().map(|row| format!("({row})")).collect::<Vec<_>>().join(", ");
    format!("INSERT INTO #towpath_taken_out (n) VALUES {rows}")
}

/// Takes out the staged rows whose numbers are in it, and it too.
pub(crate) fn take_out_listed(staging: &TableName) -> String {
    format!(
        "DELETE FROM {staging} WHERE {} IN (SELECT n FROM #towpath_taken_out); DROP TABLE #towpath_taken_out",
        quote(ROW)
    )
}

/// Makes the staging table. A heap: rows come in no order that matters, and are read as a whole.
pub(crate) fn create_staging(staging: &TableName, columns: &[Loaded]) -> String {
    let columns = columns.iter().map(|loaded| format!(", {}", loaded.definition())).collect::<String>();
    format!("CREATE TABLE {staging} ({} bigint NOT NULL{columns})", quote(ROW))
}

/// Adds columns to it, each by a statement of its own.
pub(crate) fn widen_staging(staging: &TableName, columns: &[&Loaded]) -> String {
    columns.iter().map(|loaded| format!("ALTER TABLE {staging} ADD {}; ", loaded.definition())).collect()
}

/// Adds one row to the staging table by parameters, nulls in their place: for values that a bulk load of the driver does not take.
pub(crate) fn insert_staged(staging: &TableName, names: &[&str], nulls: &[bool]) -> String {
    let mut next = 1;
    let values = nulls.iter().map(|null| {
        if *null {
            return "NULL".to_owned();
        }
        next += 1;
        format!("@P{next}")
    });
    let values = values.collect::<Vec<_>>().join(", ");
    format!("INSERT INTO {staging} ({}, {}) VALUES (@P1, {values})", quote(ROW), quoted(names.iter().copied()))
}

/// The definition of a table of ours.
pub(crate) fn create_table(target: &TableName, columns: &[(String, SqlType)], key: &[String], by_hash: bool) -> String {
    let is_key = |name: &str| key.iter().any(|key| key.to_lowercase() == name.to_lowercase());
    let mut lines: Vec<_> = columns
        .iter()
        .map(|(name, of)| format!("  {} {of} {}", quote(name), if is_key(name) { "NOT NULL" } else { "NULL" }))
        .collect();
    if !key.is_empty() {
        // Hashes come in no order: a clustered index of them would be torn with every load.
        let how = if by_hash { "PRIMARY KEY NONCLUSTERED" } else { "PRIMARY KEY" };
        lines.push(format!("  {how} ({})", quoted(key.iter().map(String::as_str))));
    }
    format!("CREATE TABLE {target} (\n{}\n)", lines.join(",\n"))
}

/// Adds columns to the target, each by a statement of its own.
pub(crate) fn add_columns(target: &TableName, columns: &[(String, SqlType)]) -> String {
    columns.iter().map(|(name, of)| format!("ALTER TABLE {target} ADD {} {of} NULL; ", quote(name))).collect()
}

/// Numbers the rows of a table that has no identity.
pub(crate) fn add_number(target: &TableName, number: &str) -> String {
    format!(
        "IF COL_LENGTH({}, {}) IS NULL ALTER TABLE {target} ADD {} bigint IDENTITY(1,1) NOT NULL",
        literal(&target.to_string()),
        literal(number),
        quote(number)
    )
}

/// Takes a column away.
pub(crate) fn drop_column(target: &TableName, column: &str) -> String {
    format!("ALTER TABLE {target} DROP COLUMN {}", quote(column))
}

/// Gives rows their hashes, by their numbers: by the name of the number in the target, and in the staging table.
pub(crate) fn take_hashes(target: &TableName, staging: &TableName, (there, here): (&str, &str), hash: &str) -> String {
    let hash = quote(hash);
    format!(
        "UPDATE {target} SET {hash} = {STAGED}.{hash} FROM {staging} AS {STAGED} WHERE {}.{} = {STAGED}.{}",
        quote(&target.name),
        quote(there),
        quote(here)
    )
}

/// Whether there is a row: 1 or 0.
pub(crate) fn any_row(target: &TableName) -> String {
    format!("SELECT CASE WHEN EXISTS (SELECT 1 FROM {target}) THEN 1 ELSE 0 END")
}

/// How many rows have the hash of another one: staged hashes, and those that rows have already where the column is `there`.
pub(crate) fn rows_twice(target: &TableName, staging: &TableName, hash: &str, there: bool) -> String {
    let hash = quote(hash);
    let more =
        if there { format!(" UNION ALL SELECT {hash} FROM {target} WHERE {hash} IS NOT NULL") } else { String::new() };
    format!("SELECT COUNT_BIG(*) - COUNT_BIG(DISTINCT a.{hash}) FROM (SELECT {hash} FROM {staging}{more}) AS a")
}

/// The unique index of the key.
pub(crate) fn create_key(target: &TableName, key: &[String]) -> String {
    let mut name = format!("towpath_key_{}", target.name);
    name.truncate(name.char_indices().nth(120).map_or(name.len(), |(at, _)| at));
    format!("CREATE UNIQUE INDEX {} ON {target} ({})", quote(&name), quoted(key.iter().map(String::as_str)))
}

/// The table of fences and checkpoints; one row for each sink of each pipeline.
pub(crate) fn create_checkpoints(table: &TableName) -> String {
    format!(
        "IF OBJECT_ID({}) IS NULL CREATE TABLE {table} (owner varchar(32) NOT NULL PRIMARY KEY, pipeline nvarchar(400) NOT NULL, \
         sink nvarchar(400) NOT NULL, fence bigint NOT NULL, publish bigint NOT NULL, target_id bigint NULL, staging nvarchar(128) NULL, \
         staged_run nvarchar(100) NULL, staged_rows bigint NULL, checkpoint_text nvarchar(max) NULL, changed_at datetime2(3) NOT NULL)",
        literal(&table.to_string())
    )
}

/// Raises the fence and reads the checkpoint, in one transaction: a commit of an earlier process either is there before, and read, or finds the fence
/// raised. @@ROWCOUNT is that of the UPDATE.
pub(crate) fn raise_fence(table: &TableName, owner: &str, pipeline: &str, sink: &str, target: &TableName) -> String {
    format!(
        "BEGIN TRANSACTION; UPDATE {table} SET fence = fence + 1, changed_at = SYSUTCDATETIME() WHERE owner = '{owner}'; \
         IF @@ROWCOUNT = 0 INSERT INTO {table} (owner, pipeline, sink, fence, publish, changed_at) \
         VALUES ('{owner}', {}, {}, 1, 0, SYSUTCDATETIME()); \
         SELECT fence, publish, target_id, staging, staged_run, staged_rows, checkpoint_text, OBJECT_ID({}) \
         FROM {table} WHERE owner = '{owner}'; COMMIT TRANSACTION;",
        literal(pipeline),
        literal(sink),
        literal(&target.to_string())
    )
}

/// Staging tables of the schema, and how many days old they are.
pub(crate) fn stagings(schema: &str) -> String {
    format!(
        "SELECT o.name, DATEDIFF(day, o.create_date, GETDATE()) FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id \
         WHERE s.name = {} AND o.type = 'U' AND o.name LIKE N'towpath[_]stage[_]%'",
        literal(schema)
    )
}

/// Takes a stale table away, without much patience: its process may still be dying.
pub(crate) fn sweep_table(table: &TableName, patience: Duration) -> String {
    format!("SET LOCK_TIMEOUT 1000; {}; SET LOCK_TIMEOUT {};", drop_table(table), patience.as_millis())
}

/// Takes a table away, if it is there.
pub(crate) fn drop_table(table: &TableName) -> String {
    format!("IF OBJECT_ID({}) IS NOT NULL DROP TABLE {table}", literal(&table.to_string()))
}

/// Begins the publish: one at a time for each target, whoever asks. The lock is the transaction's and goes with it.
pub(crate) fn begin_publish(target: &TableName, wait: Duration) -> String {
    format!(
        "BEGIN TRANSACTION; DECLARE @lock int; EXEC @lock = sp_getapplock @Resource = {}, @LockMode = N'Exclusive', \
         @LockOwner = N'Transaction', @LockTimeout = {}; SELECT @lock;",
        literal(&format!("towpath {target}")),
        wait.as_millis()
    )
}

/// One of the [statements](Publish::statements), and how many rows it touched: not those that triggers touch, and whatever the server's `user options`
/// say of counting.
pub(crate) fn counted(statement: &str) -> String {
    format!("{statement}; SELECT ROWCOUNT_BIG()")
}

/// The fence as it is.
pub(crate) fn read_fence(table: &TableName, owner: &str) -> String {
    format!("SELECT fence, publish FROM {table} WHERE owner = '{owner}'")
}

/// What a commit stores beside the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) fence: i64,
    pub(crate) publish: i64,
    /// `replace`: the staging table whose rows count, whose they are, and up to which.
    pub(crate) staging: Option<(&'a str, &'a str, i64)>,
}

/// Writes the checkpoint (@P1) where the fence is ours: one row, or none if somebody else has raised it since. Nulls are literals: the driver's
/// parameters have no type for them.
pub(crate) fn store_checkpoint(table: &TableName, owner: &str, target: &TableName, stored: &Stored<'_>) -> String {
    let (name, run, rows) = match stored.staging {
        Some((name, run, rows)) => (literal(name), literal(run), rows.to_string()),
        None => ("NULL".to_owned(), "NULL".to_owned(), "NULL".to_owned()),
    };
    format!(
        "UPDATE {table} SET publish = {}, staging = {name}, staged_run = {run}, staged_rows = {rows}, checkpoint_text = @P1, \
         target_id = OBJECT_ID({}), changed_at = SYSUTCDATETIME() WHERE owner = '{owner}' AND fence = {}",
        stored.publish,
        literal(&target.to_string()),
        stored.fence
    )
}

/// Empties the staging table, with the transaction.
pub(crate) fn empty_staging(staging: &TableName) -> String {
    format!("TRUNCATE TABLE {staging}")
}

/// Takes everything out of the target, if it is there: the rows of a run that had none.
pub(crate) fn empty_target(target: &TableName) -> String {
    format!("IF OBJECT_ID({}) IS NOT NULL DELETE FROM {target}", literal(&target.to_string()))
}

/// Takes out what was staged behind a row.
pub(crate) fn cut_staging(staging: &TableName, last: i64) -> String {
    format!("DELETE FROM {staging} WHERE {} > {last}", quote(ROW))
}

/// Lets explicit values into an identity column, or not any more. A session may have this for one table only.
pub(crate) fn identity_insert(target: &TableName, on: bool) -> String {
    format!("SET IDENTITY_INSERT {target} {}", if on { "ON" } else { "OFF" })
}

/// The most recent hashes of the target, or any, as many as fit.
pub(crate) fn known_hashes(target: &TableName, hash: &str, most: usize, order: Option<&str>) -> String {
    let order = order.map(|order| format!(" ORDER BY {} DESC", quote(order))).unwrap_or_default();
    format!("SELECT TOP ({most}) {hash} FROM {target} WHERE {hash} IS NOT NULL{order}", hash = quote(hash))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::catalog::{CheckConstraint, ForeignKey, Unique};

    fn column(name: &str, of: SqlType) -> Column {
        Column {
            name: name.into(),
            of,
            nullable: true,
            identity: false,
            generated: false,
            has_default: false,
            collation: None,
        }
    }

    fn loaded(name: &str, of: SqlType) -> Loaded {
        Loaded { staged: of.staged().unwrap(), column: column(name, of) }
    }

    #[test]
    fn what_is_sent() {
        let target = TableName { schema: Some("dbo".into()), name: "Odd ]table".into() };
        let staging = TableName { schema: Some("dbo".into()), name: "towpath_stage_0123456789abcdef_7".into() };
        let checkpoints = TableName { schema: Some("dbo".into()), name: "towpath_checkpoint".into() };
        let mut columns = vec![
            loaded("id", SqlType::Int),
            loaded("größe", SqlType::Decimal(10, 2)),
            loaded("code", SqlType::VarChar(Some(20))),
            loaded("at", SqlType::DateTime),
            loaded("doc", SqlType::Xml),
        ];
        columns[2].column.collation = Some("Latin1_General_CS_AS".into());
        let all: Vec<Column> =
            columns.iter().map(|loaded| loaded.column.clone()).chain([column("more", SqlType::Int)]).collect();
        let mut out = String::new();
        let mut show = |what: &str, sql: &str| {
            writeln!(out, "-- {what}\n{sql}\n").unwrap();
        };
        show("session", &crate::client::set_up_sql(Duration::from_secs(30)));
        show("create checkpoints", &create_checkpoints(&checkpoints));
        show("raise the fence", &raise_fence(&checkpoints, "0123456789abcdef", "it's", "sink", &target));
        show("staging tables", &stagings("dbo"));
        show("drop", &drop_table(&staging));
        show("sweep", &sweep_table(&staging, Duration::from_secs(30)));
        let own = [("id".to_owned(), SqlType::BigInt), ("text".to_owned(), SqlType::NVarChar(None))];
        show("create", &create_table(&target, &own, &["ID".into()], false));
        let hashed = [("text".to_owned(), SqlType::NVarChar(None)), ("row_hash".to_owned(), SqlType::Binary(16))];
        show("create by hash", &create_table(&target, &hashed, &["row_hash".into()], true));
        show("add columns", &add_columns(&target, &own));
        show("key", &create_key(&target, &["id".into(), "code".into()]));
        show("number rows", &add_number(&target, "towpath_no"));
        show("take hashes", &take_hashes(&target, &staging, ("no", "towpath_no"), "row_hash"));
        show("any row", &any_row(&target));
        show("rows twice", &rows_twice(&target, &staging, "row_hash", false));
        show("rows twice, with those of before", &rows_twice(&target, &staging, "row_hash", true));
        show("drop column", &drop_column(&target, "towpath_no"));
        show("create staging", &create_staging(&staging, &columns));
        show("widen staging", &widen_staging(&staging, &[&columns[1], &columns[2]]));
        show("insert one", &insert_staged(&staging, &["id", "code", "doc"], &[false, true, false]));
        show("known", &known_hashes(&target, "row_hash", 1000, Some("at")));
        show("begin", &begin_publish(&target, Duration::from_secs(30)));
        show("counted", &counted("UPDATE …"));
        show("fence", &read_fence(&checkpoints, "0123456789abcdef"));
        for (mode, key, repeats) in [
            (WriteMode::Append, vec![], false),
            (WriteMode::Replace, vec![], false),
            (WriteMode::InsertNew, vec!["id".to_owned(), "code".to_owned()], false),
            (WriteMode::InsertNew, vec!["at".to_owned()], true),
            (WriteMode::Upsert, vec!["id".to_owned()], false),
            (WriteMode::Upsert, vec!["id".to_owned()], true),
        ] {
            let publish = Publish { target: &target, staging: &staging, columns: &columns, key: &key, repeats };
            let what = format!("{mode:?} by {key:?}{}", if repeats { ", with repeats" } else { "" });
            show(&what, &publish.statements(mode).join(";\n"));
            show(&format!("{what}: probe"), &publish.probe(mode, (7, 9), mode == WriteMode::Upsert));
            let unique = Unique { name: "U".into(), primary: false, columns: vec!["code".into(), "at".into()] };
            show(&format!("{what}: taken"), &publish.taken(&unique, mode, 7).unwrap());
        }
        let publish = Publish { target: &target, staging: &staging, columns: &columns, key: &[], repeats: false };
        show("code page", &publish.not_in_code_page(&columns[2], 7).unwrap());
        show("convert", &publish.not_convertible(&columns[4], 7).unwrap());
        let check = |definition: &str| CheckConstraint { name: "CK".into(), definition: definition.into() };
        show("check", &publish.refused_by(&check("([größe]>(0) AND [at]<getdate())"), &all, 7).unwrap());
        assert_eq!(publish.refused_by(&check("([more]>(0))"), &all, 7), None);
        let parent = TableName { schema: Some("dbo".into()), name: "parent".into() };
        let key = |parent: &TableName| ForeignKey {
            name: "FK".into(),
            parent: parent.clone(),
            columns: vec![("code".into(), "code".into())],
        };
        show("orphans", &publish.orphans(&key(&parent), 7).unwrap());
        show("orphans of oneself", &publish.orphans(&key(&target), 7).unwrap());
        show("take out", &take_out(&staging, &[7, 9]));
        show("take out many", &[CREATE_TAKEN_OUT, &list_taken_out(&[7, 9]), &take_out_listed(&staging)].join("\n"));
        show("identity", &identity_insert(&target, true));
        let mut stored = Stored { fence: 7, publish: 3, staging: None };
        show("checkpoint", &store_checkpoint(&checkpoints, "0123456789abcdef", &target, &stored));
        stored.staging = Some((&staging.name, "run", 9));
        show("checkpoint of replace", &store_checkpoint(&checkpoints, "0123456789abcdef", &target, &stored));
        show("empty", &empty_staging(&staging));
        show("cut", &cut_staging(&staging, 7));
        insta::assert_snapshot!(out);
    }
}
