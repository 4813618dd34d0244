//! What SQLite does not know of a table: T-SQL's types, constraints, identities. One row of JSON per object, in a table beside the data
//! (`main.sys_objects`, and `temp.sys_objects` for a session's `#tables`), so that DDL is rolled back with everything else; the catalog
//! views (`sys.tables` and so on) read the same rows.

use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::{
    ast::Name,
    error::{Sql, SqlError},
    types::Ty,
};

/// A table or a view.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct TableDef {
    pub id: i64,
    pub schema: String,
    pub name: String,
    /// The query of a view.
    pub view: Option<String>,
    pub columns: Vec<ColumnMeta>,
    pub indexes: Vec<IndexMeta>,
    pub checks: Vec<CheckMeta>,
    pub foreign: Vec<ForeignMeta>,
    pub next_column: i64,
    pub created: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ColumnMeta {
    pub id: i64,
    pub name: String,
    /// [`Ty::code`].
    pub ty: i64,
    pub nullable: bool,
    pub collation: Option<String>,
    pub identity: Option<(i64, i64)>,
    pub computed: Option<String>,
    pub persisted: bool,
    /// Name, expression and object id.
    pub default: Option<(String, String, i64)>,
    pub rowversion: bool,
    /// For `sys.columns`.
    pub system_id: i64,
    pub max_length: i64,
    pub precision: i64,
    pub scale: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct IndexMeta {
    pub id: i64,
    /// Where it stands for a constraint, that one's id.
    pub constraint: Option<i64>,
    pub name: String,
    pub unique: bool,
    pub primary: bool,
    pub clustered: bool,
    pub ignore_duplicates: bool,
    /// Ids of columns, and whether they go down.
    pub columns: Vec<(i64, bool)>,
    pub include: Vec<i64>,
    pub filtered: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct CheckMeta {
    pub id: i64,
    pub name: String,
    pub expr: String,
    pub disabled: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ForeignMeta {
    pub id: i64,
    pub name: String,
    pub columns: Vec<i64>,
    pub target: i64,
    pub references: Vec<i64>,
    pub disabled: bool,
}

impl ColumnMeta {
    pub fn ty(&self) -> Ty {
        Ty::from_code(self.ty)
    }
    /// Its name in SQLite.
    pub fn sql(&self) -> String {
        format!("c{}", self.id)
    }
    pub fn set_type(&mut self, ty: Ty) {
        self.ty = ty.code();
        self.system_id = ty.system_id();
        (self.max_length, self.precision, self.scale) = ty.catalog();
    }
}

impl TableDef {
    pub fn is_temp(&self) -> bool {
        self.name.starts_with('#')
    }
    /// Its name in SQLite.
    pub fn sql(&self) -> String {
        if self.is_temp() { format!("temp.t{}", self.id.abs()) } else { format!("main.t{}", self.id) }
    }
    pub fn column(&self, name: &str) -> Option<&ColumnMeta> {
        self.columns.iter().find(|column| same(&column.name, name))
    }
    pub fn column_of(&self, id: i64) -> Option<&ColumnMeta> {
        self.columns.iter().find(|column| column.id == id)
    }
    /// `dbo.t`, as messages name it.
    pub fn full(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// Whether two names are one, under the database's collation.
pub(super) fn same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

/// The tables of the catalog in a new database or session.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS {db}.sys_objects (id INTEGER PRIMARY KEY, schema TEXT NOT NULL, name TEXT NOT NULL,
        lower TEXT NOT NULL, kind TEXT NOT NULL, def TEXT NOT NULL);
    CREATE UNIQUE INDEX IF NOT EXISTS {db}.sys_objects_name ON sys_objects (lower);
";
/// Schemas, in the database.
pub(super) const SCHEMAS: &str = "
    CREATE TABLE IF NOT EXISTS main.sys_schemas (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT OR IGNORE INTO main.sys_schemas VALUES (1, 'dbo'), (4, 'sys');
";

/// A name with its parts told apart.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub schema: String,
    pub name: String,
    pub temp: bool,
}

/// Tells the parts of a name apart. An unknown database is error 208.
pub(super) fn resolve(name: &Name, database: &str) -> Sql<Resolved> {
    let shown = || SqlError::invalid_object(&name.join("."));
    let last = name.last().cloned().unwrap_or_default();
    let schema = match name.len() {
        1 => String::new(),
        2 => name[0].clone(),
        3 => name[1].clone(),
        _ => return Err(shown()),
    };
    let schema = if schema.is_empty() { "dbo".to_owned() } else { schema };
    let mut temp = last.starts_with('#');
    if name.len() == 3 {
        let tempdb = same(&name[0], "tempdb");
        if !(tempdb
            || name[0].is_empty()
            || same(&name[0], database)
            || (same(&name[0], "master") && same(&schema, "sys")))
        {
            return Err(shown());
        }
        temp |= tempdb;
    }
    Ok(Resolved { schema, name: last, temp })
}

impl Resolved {
    fn lower(&self) -> String {
        format!("{}.{}", self.schema.to_lowercase(), self.name.to_lowercase())
    }
    fn db(&self) -> &'static str {
        if self.temp { "temp" } else { "main" }
    }
}

/// Looks an object up; nothing if there is none.
pub(super) fn find(conn: &Connection, name: &Resolved) -> Sql<Option<TableDef>> {
    let sql = format!("SELECT def FROM {}.sys_objects WHERE lower = ?1", name.db());
    let json: Option<String> = conn.prepare_cached(&sql)?.query_row([name.lower()], |row| row.get(0)).optional()?;
    json.map(|json| parse(&json)).transpose()
}

/// Looks an object up by its id.
pub(super) fn find_id(conn: &Connection, id: i64) -> Sql<Option<TableDef>> {
    let db = if id < 0 { "temp" } else { "main" };
    let sql = format!("SELECT def FROM {db}.sys_objects WHERE id = ?1");
    let json: Option<String> = conn.prepare_cached(&sql)?.query_row([id], |row| row.get(0)).optional()?;
    json.map(|json| parse(&json)).transpose()
}

/// All tables that refer to this one.
pub(super) fn referring(conn: &Connection, id: i64) -> Sql<Vec<TableDef>> {
    let sql = "SELECT def FROM main.sys_objects WHERE EXISTS
               (SELECT 1 FROM json_each(def, '$.foreign') f WHERE f.value ->> '$.target' = ?1)";
    let mut statement = conn.prepare_cached(sql)?;
    let all = statement.query_map([id], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    all.iter().map(|json| parse(json)).collect()
}

fn parse(json: &str) -> Sql<TableDef> {
    serde_json::from_str(json).map_err(|error| SqlError::of(50001, format!("simulator: catalog: {error}")))
}

/// Writes an object's row.
pub(super) fn save(conn: &Connection, table: &TableDef) -> Sql<()> {
    let db = if table.is_temp() { "temp" } else { "main" };
    let json =
        serde_json::to_string(table).map_err(|error| SqlError::of(50001, format!("simulator: catalog: {error}")))?;
    let lower = format!("{}.{}", table.schema.to_lowercase(), table.name.to_lowercase());
    let kind = if table.view.is_some() { "V" } else { "U" };
    conn.execute(
        &format!("INSERT OR REPLACE INTO {db}.sys_objects (id, schema, name, lower, kind, def) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"),
        params![table.id, table.schema, table.name, lower, kind, json],
    )?;
    Ok(())
}

/// Removes an object's row.
pub(super) fn remove(conn: &Connection, table: &TableDef) -> Sql<()> {
    let db = if table.is_temp() { "temp" } else { "main" };
    conn.execute(&format!("DELETE FROM {db}.sys_objects WHERE id = ?1"), [table.id])?;
    Ok(())
}

/// Whether there is such a schema; its id.
pub(super) fn schema_id(conn: &Connection, name: &str) -> Sql<Option<i64>> {
    let sql = "SELECT id FROM main.sys_schemas WHERE lower(name) = lower(?1)";
    Ok(conn.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?)
}

/// Name, type, and whether it may be NULL.
pub(super) type ViewColumn = (&'static str, Ty, bool);

/// A catalog view: its query over `{o}.sys_objects`, and its columns. As Microsoft Learn documents them ("System catalog views"), as far
/// as loaders ask.
pub(super) fn view(name: &str) -> Option<(&'static str, Vec<ViewColumn>)> {
    const INT: Ty = Ty::Int;
    const NAME: Ty = Ty::NAME;
    const BIT: Ty = Ty::Bit;
    const KIND: Ty = Ty::Char(2);
    const AT: Ty = Ty::DateTime;
    let text = Ty::NVarChar(None);
    let object = || {
        vec![
            ("name", NAME, false),
            ("object_id", INT, false),
            ("schema_id", INT, false),
            ("parent_object_id", INT, false),
            ("type", KIND, true),
            ("type_desc", Ty::NVarChar(Some(60)), true),
            ("create_date", AT, false),
            ("modify_date", AT, false),
            ("is_ms_shipped", BIT, false),
        ]
    };
    Some(match name.to_ascii_lowercase().as_str() {
        "schemas" => (
            "SELECT name AS v0, id AS v1, 1 AS v2 FROM main.sys_schemas",
            vec![("name", NAME, false), ("schema_id", INT, false), ("principal_id", INT, true)],
        ),
        "databases" => (
            "SELECT column1 AS v0, column2 AS v1, 16*10 AS v2, 'ONLINE' AS v3, 'SQL_Latin1_General_CP1_CI_AS' AS v4,
             0 AS v5, 1 AS v6, 'SIMPLE' AS v7, 0 AS v8 FROM (VALUES ('master', 1), ('tempdb', 2), ({database}, 5))",
            vec![
                ("name", NAME, false),
                ("database_id", INT, false),
                ("compatibility_level", Ty::TinyInt, false),
                ("state_desc", Ty::NVarChar(Some(60)), true),
                ("collation_name", NAME, true),
                ("is_read_committed_snapshot_on", BIT, true),
                ("snapshot_isolation_state", Ty::TinyInt, true),
                ("recovery_model_desc", Ty::NVarChar(Some(60)), true),
                ("is_read_only", BIT, true),
            ],
        ),
        "objects" | "all_objects" => (
            "SELECT * FROM ({objects})",
            object(),
        ),
        "tables" => ("SELECT * FROM ({objects}) WHERE v4 = 'U '", object()),
        "views" => ("SELECT * FROM ({objects}) WHERE v4 = 'V '", object()),
        "columns" | "all_columns" => (
            "SELECT o.id AS v0, c.value ->> '$.name' AS v1, c.value ->> '$.id' AS v2, c.value ->> '$.system_id' AS v3,
             c.value ->> '$.system_id' AS v4, c.value ->> '$.max_length' AS v5, c.value ->> '$.precision' AS v6,
             c.value ->> '$.scale' AS v7, c.value ->> '$.collation' AS v8, c.value ->> '$.nullable' AS v9,
             (c.value ->> '$.identity') IS NOT NULL AS v10, (c.value ->> '$.computed') IS NOT NULL AS v11,
             ifnull(c.value ->> '$.default[2]', 0) AS v12, 0 AS v13, 0 AS v14, 0 AS v15
             FROM {o}.sys_objects o, json_each(o.def, '$.columns') c",
            vec![
                ("object_id", INT, false),
                ("name", NAME, true),
                ("column_id", INT, false),
                ("system_type_id", Ty::TinyInt, false),
                ("user_type_id", INT, false),
                ("max_length", Ty::SmallInt, false),
                ("precision", Ty::TinyInt, false),
                ("scale", Ty::TinyInt, false),
                ("collation_name", NAME, true),
                ("is_nullable", BIT, true),
                ("is_identity", BIT, false),
                ("is_computed", BIT, false),
                ("default_object_id", INT, false),
                ("is_rowguidcol", BIT, false),
                ("is_hidden", BIT, true),
                ("generated_always_type", Ty::TinyInt, true),
            ],
        ),
        "computed_columns" => (
            "SELECT o.id AS v0, c.value ->> '$.name' AS v1, c.value ->> '$.id' AS v2, c.value ->> '$.computed' AS v3,
             c.value ->> '$.persisted' AS v4 FROM {o}.sys_objects o, json_each(o.def, '$.columns') c WHERE v3 IS NOT NULL",
            vec![
                ("object_id", INT, false),
                ("name", NAME, true),
                ("column_id", INT, false),
                ("definition", text, true),
                ("is_persisted", BIT, false),
            ],
        ),
        "identity_columns" => (
            "SELECT o.id AS v0, c.value ->> '$.name' AS v1, c.value ->> '$.id' AS v2, c.value ->> '$.identity[0]' AS v3,
             c.value ->> '$.identity[1]' AS v4 FROM {o}.sys_objects o, json_each(o.def, '$.columns') c WHERE v3 IS NOT NULL",
            vec![
                ("object_id", INT, false),
                ("name", NAME, true),
                ("column_id", INT, false),
                ("seed_value", Ty::BigInt, true),
                ("increment_value", Ty::BigInt, true),
            ],
        ),
        "types" => (
            "SELECT column1 AS v0, column2 AS v1, column2 AS v2, 4 AS v3, 0 AS v4, 1 AS v5 FROM (VALUES ('image', 34), ('text', 35),
             ('uniqueidentifier', 36), ('date', 40), ('time', 41), ('datetime2', 42), ('datetimeoffset', 43), ('tinyint', 48),
             ('smallint', 52), ('int', 56), ('smalldatetime', 58), ('real', 59), ('money', 60), ('datetime', 61), ('float', 62),
             ('ntext', 99), ('bit', 104), ('decimal', 106), ('numeric', 108), ('smallmoney', 122), ('bigint', 127),
             ('timestamp', 189), ('varbinary', 165), ('varchar', 167), ('binary', 173), ('char', 175), ('nvarchar', 231), ('nchar', 239), ('xml', 241))",
            vec![
                ("name", NAME, false),
                ("system_type_id", Ty::TinyInt, false),
                ("user_type_id", INT, false),
                ("schema_id", INT, false),
                ("is_user_defined", BIT, false),
                ("is_nullable", BIT, true),
            ],
        ),
        "indexes" => (
            "SELECT o.id AS v0, i.value ->> '$.name' AS v1, i.value ->> '$.id' AS v2, 2 - (i.value ->> '$.clustered') AS v3,
             iif(i.value ->> '$.clustered', 'CLUSTERED', 'NONCLUSTERED') AS v4, i.value ->> '$.unique' AS v5,
             i.value ->> '$.ignore_duplicates' AS v6, i.value ->> '$.primary' AS v7,
             (i.value ->> '$.constraint') IS NOT NULL AND NOT (i.value ->> '$.primary') AS v8, 0 AS v9, 0 AS v10,
             i.value ->> '$.filtered' AS v11
             FROM {o}.sys_objects o, json_each(o.def, '$.indexes') i
             UNION ALL SELECT o.id, NULL, 0, 0, 'HEAP', 0, 0, 0, 0, 0, 0, 0 FROM {o}.sys_objects o WHERE o.kind = 'U' AND NOT EXISTS
             (SELECT 1 FROM json_each(o.def, '$.indexes') i WHERE i.value ->> '$.clustered')",
            vec![
                ("object_id", INT, false),
                ("name", NAME, true),
                ("index_id", INT, false),
                ("type", Ty::TinyInt, false),
                ("type_desc", Ty::NVarChar(Some(60)), true),
                ("is_unique", BIT, true),
                ("ignore_dup_key", BIT, true),
                ("is_primary_key", BIT, true),
                ("is_unique_constraint", BIT, true),
                ("is_disabled", BIT, true),
                ("is_hypothetical", BIT, true),
                ("has_filter", BIT, true),
            ],
        ),
        "index_columns" => (
            "SELECT o.id AS v0, i.value ->> '$.id' AS v1, c.key + 1 AS v2, c.value ->> '$[0]' AS v3, c.key + 1 AS v4,
             c.value ->> '$[1]' AS v5, 0 AS v6
             FROM {o}.sys_objects o, json_each(o.def, '$.indexes') i, json_each(i.value, '$.columns') c
             UNION ALL SELECT o.id, i.value ->> '$.id', c.key + 1 + json_array_length(i.value, '$.columns'), c.value, 0, 0, 1
             FROM {o}.sys_objects o, json_each(o.def, '$.indexes') i, json_each(i.value, '$.include') c",
            vec![
                ("object_id", INT, false),
                ("index_id", INT, false),
                ("index_column_id", INT, false),
                ("column_id", INT, false),
                ("key_ordinal", Ty::TinyInt, false),
                ("is_descending_key", BIT, true),
                ("is_included_column", BIT, true),
            ],
        ),
        "key_constraints" => (
            "SELECT i.value ->> '$.name' AS v0, i.value ->> '$.constraint' AS v1, o.id AS v2,
             iif(i.value ->> '$.primary', 'PK', 'UQ') AS v3, i.value ->> '$.id' AS v4
             FROM {o}.sys_objects o, json_each(o.def, '$.indexes') i WHERE v1 IS NOT NULL",
            vec![
                ("name", NAME, false),
                ("object_id", INT, false),
                ("parent_object_id", INT, false),
                ("type", KIND, true),
                ("unique_index_id", INT, true),
            ],
        ),
        "check_constraints" => (
            "SELECT k.value ->> '$.name' AS v0, k.value ->> '$.id' AS v1, o.id AS v2, '(' || (k.value ->> '$.expr') || ')' AS v3,
             k.value ->> '$.disabled' AS v4, 0 AS v5, 0 AS v6 FROM {o}.sys_objects o, json_each(o.def, '$.checks') k",
            vec![
                ("name", NAME, false),
                ("object_id", INT, false),
                ("parent_object_id", INT, false),
                ("definition", text, true),
                ("is_disabled", BIT, false),
                ("is_not_trusted", BIT, false),
                ("parent_column_id", INT, false),
            ],
        ),
        "default_constraints" => (
            "SELECT c.value ->> '$.default[0]' AS v0, c.value ->> '$.default[2]' AS v1, o.id AS v2, c.value ->> '$.id' AS v3,
             '(' || (c.value ->> '$.default[1]') || ')' AS v4
             FROM {o}.sys_objects o, json_each(o.def, '$.columns') c WHERE v1 IS NOT NULL",
            vec![
                ("name", NAME, false),
                ("object_id", INT, false),
                ("parent_object_id", INT, false),
                ("parent_column_id", INT, false),
                ("definition", text, true),
            ],
        ),
        "foreign_keys" => (
            "SELECT f.value ->> '$.name' AS v0, f.value ->> '$.id' AS v1, o.id AS v2, f.value ->> '$.target' AS v3,
             f.value ->> '$.disabled' AS v4, 0 AS v5, (SELECT s.id FROM main.sys_schemas s WHERE s.name = o.schema COLLATE NOCASE) AS v6
             FROM {o}.sys_objects o, json_each(o.def, '$.foreign') f",
            vec![
                ("name", NAME, false),
                ("object_id", INT, false),
                ("parent_object_id", INT, false),
                ("referenced_object_id", INT, true),
                ("is_disabled", BIT, false),
                ("is_not_trusted", BIT, false),
                ("schema_id", INT, false),
            ],
        ),
        "foreign_key_columns" => (
            "SELECT f.value ->> '$.id' AS v0, c.key + 1 AS v1, o.id AS v2, c.value AS v3, f.value ->> '$.target' AS v4,
             json_extract(f.value, '$.references[' || c.key || ']') AS v5
             FROM {o}.sys_objects o, json_each(o.def, '$.foreign') f, json_each(f.value, '$.columns') c",
            vec![
                ("constraint_object_id", INT, false),
                ("constraint_column_id", INT, false),
                ("parent_object_id", INT, false),
                ("parent_column_id", INT, false),
                ("referenced_object_id", INT, false),
                ("referenced_column_id", INT, false),
            ],
        ),
        "partitions" => (
            "SELECT o.id AS v0, o.id AS v1, 1 - NOT EXISTS (SELECT 1 FROM json_each(o.def, '$.indexes') i
             WHERE i.value ->> '$.clustered') AS v2, 1 AS v3, {rows} AS v4 FROM {o}.sys_objects o WHERE o.kind = 'U'",
            vec![
                ("partition_id", Ty::BigInt, false),
                ("object_id", INT, false),
                ("index_id", INT, false),
                ("partition_number", INT, false),
                ("rows", Ty::BigInt, true),
            ],
        ),
        "triggers" => (
            "SELECT '' AS v0, 0 AS v1, 0 AS v2, 0 AS v3, 0 AS v4 WHERE 0",
            vec![
                ("name", NAME, false),
                ("object_id", INT, false),
                ("parent_id", INT, false),
                ("is_disabled", BIT, false),
                ("is_instead_of_trigger", BIT, false),
            ],
        ),
        _ => return None,
    })
}

/// Everything that is an object, for `{objects}` in [`view`]: tables, views, and constraints.
pub(super) const OBJECTS: &str = "
    SELECT o.name AS v0, o.id AS v1, s.id AS v2, 0 AS v3, o.kind || ' ' AS v4, iif(o.kind = 'U', 'USER_TABLE', 'VIEW') AS v5,
        CAST(o.def ->> '$.created' AS INTEGER) AS v6, CAST(o.def ->> '$.created' AS INTEGER) AS v7, 0 AS v8
    FROM {o}.sys_objects o JOIN main.sys_schemas s ON s.name = o.schema COLLATE NOCASE
    UNION ALL SELECT i.value ->> '$.name', i.value ->> '$.constraint', s.id, o.id, iif(i.value ->> '$.primary', 'PK', 'UQ'),
        iif(i.value ->> '$.primary', 'PRIMARY_KEY_CONSTRAINT', 'UNIQUE_CONSTRAINT'), CAST(o.def ->> '$.created' AS INTEGER), CAST(o.def ->> '$.created' AS INTEGER), 0
    FROM {o}.sys_objects o JOIN main.sys_schemas s ON s.name = o.schema COLLATE NOCASE, json_each(o.def, '$.indexes') i
    WHERE i.value ->> '$.constraint' IS NOT NULL
    UNION ALL SELECT i.value ->> '$.name', i.value ->> '$.id', s.id, o.id, 'C ', 'CHECK_CONSTRAINT', CAST(o.def ->> '$.created' AS INTEGER), CAST(o.def ->> '$.created' AS INTEGER), 0
    FROM {o}.sys_objects o JOIN main.sys_schemas s ON s.name = o.schema COLLATE NOCASE, json_each(o.def, '$.checks') i
    UNION ALL SELECT i.value ->> '$.name', i.value ->> '$.id', s.id, o.id, 'F ', 'FOREIGN_KEY_CONSTRAINT', CAST(o.def ->> '$.created' AS INTEGER), CAST(o.def ->> '$.created' AS INTEGER), 0
    FROM {o}.sys_objects o JOIN main.sys_schemas s ON s.name = o.schema COLLATE NOCASE, json_each(o.def, '$.foreign') i
    UNION ALL SELECT i.value ->> '$.default[0]', i.value ->> '$.default[2]', s.id, o.id, 'D ', 'DEFAULT_CONSTRAINT', CAST(o.def ->> '$.created' AS INTEGER), CAST(o.def ->> '$.created' AS INTEGER), 0
    FROM {o}.sys_objects o JOIN main.sys_schemas s ON s.name = o.schema COLLATE NOCASE, json_each(o.def, '$.columns') i
    WHERE i.value ->> '$.default[2]' IS NOT NULL";
