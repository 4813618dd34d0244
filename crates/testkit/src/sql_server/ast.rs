//! What a batch says, as a tree.

use super::types::Ty;

/// A name of one to four parts, the last the object's.
pub(super) type Name = Vec<String>;

#[derive(Clone, Debug)]
pub(super) struct Stmt {
    pub kind: Kind,
    /// As it is written.
    pub text: String,
    pub line: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Select(Box<Query>, Option<Name>),
    /// `SELECT @a = …, @b = … FROM …`.
    Assign(Vec<String>, Box<Query>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    InsertBulk(Box<InsertBulk>),
    CreateTable(Box<CreateTable>),
    AlterTable(Name, Alter),
    CreateIndex(Box<CreateIndex>),
    CreateSchema(String),
    CreateView(Name, Vec<String>, String),
    DropTable(Vec<Name>, bool),
    DropView(Vec<Name>, bool),
    DropIndex(Vec<(String, Name)>, bool),
    DropSchema(String, bool),
    Truncate(Name),
    Declare(Vec<(String, Ty, Option<Expr>)>),
    Set(String, Expr),
    Option(SetOption),
    Use(String),
    If(Expr, Box<Stmt>, Option<Box<Stmt>>),
    While(Expr, Box<Stmt>),
    Break,
    Continue,
    Block(Vec<Stmt>),
    Try(Vec<Stmt>, Vec<Stmt>),
    Begin,
    Commit,
    Rollback(Option<String>),
    Save(String),
    Exec(Box<Exec>),
    Throw(Option<[Expr; 3]>),
    RaiseError(Vec<Expr>),
    WaitFor(Expr),
    Print(Expr),
    Return(Option<Expr>),
}

#[derive(Clone, Debug)]
pub(super) enum SetOption {
    XactAbort(bool),
    NoCount(bool),
    LockTimeout(i64),
    Isolation(Isolation),
    IdentityInsert(Name, bool),
    /// Taken and without effect here.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    ReadCommitted,
    Serializable,
    Snapshot,
}

#[derive(Clone, Debug)]
pub(super) struct Exec {
    pub procedure: Name,
    pub result: Option<String>,
    pub arguments: Vec<(Option<String>, Expr, bool)>,
    /// `EXEC ('…')`.
    pub dynamic: Option<Expr>,
}

#[derive(Clone, Debug)]
pub(super) struct Insert {
    pub ctes: Vec<Cte>,
    pub table: Name,
    pub columns: Option<Vec<String>>,
    pub output: Option<Output>,
    pub source: Source,
}

#[derive(Clone, Debug)]
pub(super) enum Source {
    Values(Vec<Vec<Option<Expr>>>),
    Query(Query),
    Default,
    /// Read, and refused.
    Exec,
}

#[derive(Clone, Debug)]
pub(super) struct Output {
    pub items: Vec<Item>,
    pub into: Option<(Name, Option<Vec<String>>)>,
}

#[derive(Clone, Debug)]
pub(super) struct Update {
    pub ctes: Vec<Cte>,
    pub target: Name,
    pub top: Option<Expr>,
    pub set: Vec<(Name, Option<Expr>)>,
    pub output: Option<Output>,
    pub from: Vec<Table>,
    pub filter: Option<Expr>,
    /// Compound operators, `+=`, are written out; variables are not set here.
    pub variables: Vec<(String, Expr)>,
}

#[derive(Clone, Debug)]
pub(super) struct Delete {
    pub ctes: Vec<Cte>,
    pub target: Name,
    pub top: Option<Expr>,
    pub output: Option<Output>,
    pub from: Vec<Table>,
    pub filter: Option<Expr>,
}

#[derive(Clone, Debug)]
pub(super) struct InsertBulk {
    pub table: Name,
    pub columns: Vec<(String, Ty)>,
    pub keep_nulls: bool,
    pub check: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ColumnDef {
    pub name: String,
    pub ty: Option<Ty>,
    pub nullable: Option<bool>,
    pub collation: Option<String>,
    pub identity: Option<(i64, i64)>,
    pub default: Option<(Option<String>, String)>,
    pub computed: Option<(String, bool)>,
    pub rowversion: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Constraint {
    pub name: Option<String>,
    pub kind: ConstraintKind,
}

#[derive(Clone, Debug)]
pub(super) enum ConstraintKind {
    Key { primary: bool, clustered: Option<bool>, columns: Vec<(String, bool)> },
    Check(String),
    Foreign { columns: Vec<String>, table: Name, references: Vec<String> },
    Default { expr: String, column: String },
}

#[derive(Clone, Debug)]
pub(super) struct CreateTable {
    pub name: Name,
    pub columns: Vec<ColumnDef>,
    pub constraints: Vec<Constraint>,
    pub indexes: Vec<CreateIndex>,
}

#[derive(Clone, Debug)]
pub(super) enum Alter {
    Add(Vec<ColumnDef>, Vec<Constraint>),
    Column(ColumnDef),
    DropConstraint(Vec<String>, bool),
    DropColumn(Vec<String>, bool),
    /// `CHECK CONSTRAINT` / `NOCHECK CONSTRAINT`.
    Enable(Option<String>, bool),
    /// Rebuilding, lock escalation: nothing to do.
    Nothing,
    /// `SWITCH TO other`.
    Switch(Name),
    /// `ALTER SCHEMA x TRANSFER y`: the table is the name.
    Transfer(String),
}

#[derive(Clone, Debug)]
pub(super) struct CreateIndex {
    pub name: String,
    pub table: Name,
    pub unique: bool,
    pub clustered: bool,
    pub columns: Vec<(String, bool)>,
    pub include: Vec<String>,
    pub ignore_duplicates: bool,
    pub filter: Option<Expr>,
}

#[derive(Clone, Debug)]
pub(super) struct Cte {
    pub name: String,
    pub columns: Vec<String>,
    pub query: Query,
}

#[derive(Clone, Debug)]
pub(super) struct Query {
    pub ctes: Vec<Cte>,
    pub body: Body,
    pub order: Vec<(Expr, bool)>,
    pub offset: Option<Expr>,
    pub fetch: Option<Expr>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Select(Box<Select>),
    Set(&'static str, Box<Body>, Box<Body>),
    Query(Box<Query>),
}

#[derive(Clone, Debug)]
pub(super) struct Select {
    pub distinct: bool,
    pub top: Option<Expr>,
    pub items: Vec<Item>,
    pub from: Vec<Table>,
    pub filter: Option<Expr>,
    pub group: Vec<Expr>,
    pub having: Option<Expr>,
}

#[derive(Clone, Debug)]
pub(super) enum Item {
    /// `*` or `t.*`.
    All(Option<Name>),
    Expr(Expr, Option<String>),
}

#[derive(Clone, Debug)]
pub(super) enum Table {
    Named { name: Name, alias: Option<String>, hints: Vec<String> },
    Derived { query: Query, alias: String, columns: Vec<String> },
    Values { rows: Vec<Vec<Expr>>, alias: String, columns: Vec<String> },
    Join { kind: &'static str, left: Box<Table>, right: Box<Table>, on: Option<Expr> },
}

#[derive(Clone, Debug)]
pub(super) enum Expr {
    Null,
    Number(String),
    Text(String, bool),
    Hex(Vec<u8>),
    Variable(String),
    Column(Name),
    Unary(&'static str, Box<Expr>),
    /// Arithmetic, bits and comparisons.
    Binary(&'static str, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>, bool),
    In(Box<Expr>, Vec<Expr>, bool),
    InQuery(Box<Expr>, Box<Query>, bool),
    Between(Box<Expr>, Box<Expr>, Box<Expr>, bool),
    Like(Box<Expr>, Box<Expr>, Option<Box<Expr>>, bool),
    Exists(Box<Query>),
    Subquery(Box<Query>),
    Case(Option<Box<Expr>>, Vec<(Expr, Expr)>, Option<Box<Expr>>),
    Cast {
        expr: Box<Expr>,
        ty: Ty,
        tolerant: bool,
        style: Option<Box<Expr>>,
    },
    Collate(Box<Expr>, String),
    Call {
        name: Name,
        arguments: Vec<Expr>,
        distinct: bool,
        star: bool,
        over: Option<Box<Over>>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Over {
    pub partition: Vec<Expr>,
    pub order: Vec<(Expr, bool)>,
    pub frame: Option<String>,
}
