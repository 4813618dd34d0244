//! Pipeline files as a user writes them: layers, variables, and what is said about mistakes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by that")]

use std::{collections::BTreeMap, fs, path::PathBuf};

mod ends;

use ends::Nothing;
use schemars::JsonSchema;
use serde::Deserialize;
use towpath_config::{Loaded, Problems, Settings, Severity, load};
use towpath_core::{
    Connector, Error, Name, Period, Result, Secret, Source,
    connector::{SinkRole, SourceRole, TransformRole, build},
    inventory,
};

#[allow(dead_code, reason = "read by nobody")]
/// A source with every kind of option that connectors have.
#[derive(Debug, Deserialize, JsonSchema)]
struct Reports {
    /// The server's address.
    url: String,
    /// How to sign in.
    #[serde(default)]
    auth: Option<Auth>,
    #[serde(default)]
    window: Option<Window>,
    /// Values by name.
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    #[serde(flatten)]
    format: Format,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(dead_code, reason = "read by nobody")]
enum Auth {
    /// No sign-in.
    None,
    /// A name and a password.
    Basic { username: String, password: Secret },
    /// A token.
    Bearer { token: Secret },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read by nobody")]
struct Window {
    /// How long a window is.
    size: Period,
    /// How far back is read again.
    #[serde(default)]
    lookback: Option<Period>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "read by nobody")]
enum Parameter {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Format {
    /// The character between values.
    delimiter: Option<char>,
    header: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "read by nobody")]
struct Table {
    path: PathBuf,
    /// The table.
    table: String,
    #[serde(default)]
    write: Write,
    #[serde(default)]
    batch: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Write {
    /// Adds all.
    #[default]
    Append,
    /// Adds what is new.
    InsertNew,
    /// Takes the place of all.
    Replace,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code, reason = "read by nobody")]
struct Keep {
    key: Vec<String>,
}

fn reports(_: &Name, options: Reports) -> Result<Box<dyn Source>> {
    if !options.url.starts_with("http") {
        return Err(Error::config("url: only http and https are spoken here").hint("begin it with https://"));
    }
    if options.parameters.contains_key("Forbidden") {
        return Err(Error::config("parameters.Forbidden: this one is set by the program"));
    }
    Ok(Box::new(Nothing))
}

inventory::submit! {
    Connector::new("reports", "Rows of reports", "").source(SourceRole::of::<Reports>(|name, value| build(name, value, reports)))
}
inventory::submit! {
    Connector::new("table", "Rows into a table", "")
        .sink(SinkRole::of::<Table>(|name, value| build(name, value, |_, _: Table| Ok(Box::new(Nothing) as _))))
}
inventory::submit! {
    Connector::new("keep", "First of a key", "")
        .transform(TransformRole::of::<Keep>(|name, value| build(name, value, |_, _: Keep| Ok(Box::new(Nothing) as _))))
}

/// A folder with a pipeline file in it, and whatever else is wanted.
struct Case {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Case {
    fn new(pipeline: &str) -> Self {
        let case = Self {
            dir: tempfile::tempdir().unwrap(),
            settings: Settings { set: vec![], variables: BTreeMap::new(), unset: Severity::Error },
        };
        case.file("pipelines/orders.yaml", pipeline)
    }
    fn file(self, path: &str, text: &str) -> Self {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }
    fn set(mut self, argument: &str) -> Self {
        self.settings.set.push(argument.to_owned());
        self
    }
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.settings.variables.insert(name.to_owned(), value.to_owned());
        self
    }
    fn unset_is_a_warning(mut self) -> Self {
        self.settings.unset = Severity::Warning;
        self
    }
    fn load(&self) -> std::result::Result<Loaded, Problems> {
        load(&self.dir.path().join("pipelines/orders.yaml"), &self.settings)
    }
    fn right(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }
    /// What is said, without the temporary folder's name.
    fn said(&self) -> String {
        let text = match self.load() {
            Ok(loaded) => loaded.warnings.iter().map(|warning| format!("{warning}\n\n")).collect::<String>() + "right",
            Err(problems) => problems.to_string(),
        };
        let dir = self.dir.path().canonicalize().unwrap();
        text.replace(&format!("{}/", dir.display()), "").replace(&format!("{}/", self.dir.path().display()), "")
    }
}

const RIGHT: &str = "\
version: 1
sources:
  orders:
    type: reports
    url: https://reports.example
    parameters: { Zeta: z, Alpha: [a, b] }
transforms:
  first:
    type: keep
    inputs: [orders]
    key: [id]
sinks:
  warehouse:
    type: table
    inputs: [first]
    path: orders.db
    table: orders
";

#[test]
fn a_right_file_becomes_a_pipeline() {
    let Loaded { spec, warnings, .. } = Case::new(RIGHT).right();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(spec.name.as_deref(), Some("orders"), "the file's stem");
    let names: Vec<String> = spec
        .components()
        .map(|(role, part)| format!("{} {} {} {:?}", role.name(), part.name, part.kind, part.inputs))
        .collect();
    assert_eq!(
        names,
        ["source orders reports []", "transform first keep [\"orders\"]", "sink warehouse table [\"first\"]"]
    );
    let options = spec.sources[0].options.to_string();
    assert_eq!(
        options, r#"{"url":"https://reports.example","parameters":{"Zeta":"z","Alpha":["a","b"]}}"#,
        "in the file's order"
    );
    assert_eq!(spec.run.drain, Period::seconds(25));
}

/// Each layer is stronger than the one before.
#[test]
fn layers() {
    let shared = ("towpath.yaml", "drain: 1s\nheartbeat: 1s\ncommit: { rows: 1, every: 1s }\ndeadline: 1s\n");
    let nearer = ("pipelines/towpath.yaml", "drain: 2s\n");
    let own = format!("{RIGHT}deadline: 3s\ncommit: {{ rows: 3 }}\n");
    let run = |case: Case| {
        let run = case.right().spec.run;
        format!("drain {:?}, deadline {:?}, commit {:?}/{}", run.drain, run.deadline, run.commit.every, run.commit.rows)
    };
    let case = || Case::new(&own);
    assert_eq!(run(case()), "drain 25s, deadline Some(3s), commit 10s/3");
    assert_eq!(run(case().file(shared.0, shared.1)), "drain 1s, deadline Some(3s), commit 1s/3", "merged key by key");
    let both = || case().file(shared.0, shared.1).file(nearer.0, nearer.1);
    assert_eq!(run(both()), "drain 2s, deadline Some(3s), commit 10s/3", "the nearest shared file, alone");
    let environment =
        || both().variable("TOWPATH__DRAIN", "4s").variable("TOWPATH__COMMIT__ROWS", "4").variable("TOWPATH_LOG", "x");
    assert_eq!(run(environment()), "drain 4s, deadline Some(3s), commit 10s/4", "one underscore is no config");
    assert_eq!(
        run(environment().set("commit.rows=5").set("commit={every: 6s}")),
        "drain 4s, deadline Some(3s), commit 6s/5"
    );
    assert_eq!(
        run(environment().set("commit.rows=5").set("commit.rows=7")),
        "drain 4s, deadline Some(3s), commit 10s/7",
        "the last flag"
    );
}

#[test]
fn overrides_reach_into_components() {
    let case = Case::new(&RIGHT.replace("warehouse", "Ware_House"))
        .variable("TOWPATH__SINKS__WARE_HOUSE__TABLE", "007")
        .variable("TOWPATH__SOURCES__ORDERS__PARAMETERS__ALPHA", "[c]")
        .set("sinks.Ware_House.path=12")
        .set("sinks.Ware_House.batch=12")
        .set("name=mine");
    let spec = case.right().spec;
    assert_eq!(
        spec.sinks[0].options.to_string(),
        r#"{"path":"12","table":"007","batch":12}"#,
        "text stays text, numbers numbers"
    );
    assert_eq!(spec.sources[0].options["parameters"].to_string(), r#"{"Zeta":"z","Alpha":["c"]}"#);
    assert_eq!(spec.name.as_deref(), Some("mine"));
}

#[test]
fn variables_come_from_the_environment_and_from_a_file_beside_the_pipeline() {
    let file =
        RIGHT.replace("https://reports.example", "https://${HOST}/${DIR:-reports}").replace("orders.db", "${DB}");
    let case =
        Case::new(&file).file("pipelines/.env", "HOST=from-file\nDB='a b.db'\n").variable("HOST", "from-environment");
    let spec = case.right().spec;
    assert_eq!(spec.sources[0].options["url"], "https://from-environment/reports");
    assert_eq!(spec.sinks[0].options["path"], "a b.db");
}

#[test]
fn an_unset_variable_is_a_warning_where_nothing_is_touched() {
    let file = RIGHT.replace("https://reports.example", "${HOST}");
    assert_eq!(Case::new(&file).load().unwrap_err().count(), (1, 0));
    let loaded = Case::new(&file).unset_is_a_warning().right();
    assert_eq!((loaded.warnings.len(), loaded.unset), (1, vec!["orders".to_owned()]));
}

/// The mistakes people make, each as it is told.
#[test]
fn mistakes() {
    let with = |from: &str, to: &str| Case::new(&RIGHT.replacen(from, to, 1));
    let auth = |auth: &str| with("    parameters", &format!("    auth: {auth}\n    parameters"));
    let cases = [
        ("unknown key at the top", Case::new(&format!("{RIGHT}deadlin: 5m\n"))),
        ("unknown key of a connector, flattened", with("url:", "delimeter: \";\"\n    url:")),
        ("unknown key that was meant for a missing one", with("url:", "ulr:")),
        ("unknown key deep inside", with("    parameters", "    window: { size: 1h, loockback: 2h }\n    parameters")),
        ("unknown type", with("type: reports", "type: report")),
        ("type of another role", with("type: table", "type: reports")),
        ("type missing", with("    type: keep\n", "")),
        ("unknown input", with("inputs: [first]", "inputs: [frist]")),
        ("unknown after", with("    path:", "    after: [people]\n    path:")),
        ("missing field", with("    table: orders\n", "")),
        ("wrong type", with("path: orders.db", "path: [orders.db]")),
        ("a number where text is asked for", with("table: orders", "table: 12")),
        ("text where a list is asked for", with("inputs: [first]", "inputs: first")),
        ("bad unit", Case::new(&format!("{RIGHT}drain: 25\n"))),
        ("bad unit with a unit", with("    parameters", "    window: { size: 1 hour }\n    parameters")),
        ("bad share", Case::new(&format!("{RIGHT}errors: {{ stop_after: 1x% }}\n"))),
        ("word of a few", with("path:", "write: insert-new\n    path:")),
        ("number out of range", with("path:", "batch: -5\n    path:")),
        ("unknown kind of sign-in", auth("{ type: basik, username: me, password: hunter22 }")),
        ("missing in the chosen kind", auth("{ type: basic, username: me }")),
        ("key of another kind", auth("{ type: bearer, token: hunter22, username: me }")),
        ("a secret of the wrong type", auth("{ type: bearer, token: [hunter22] }")),
        ("duplicate key", with("    table: orders\n", "    table: orders\n    table: others\n")),
        ("unset variable", with("orders.db", "${ORDERS_DB}")),
        ("what the connector itself says", with("https://reports.example", "ftp://reports.example")),
        ("what the connector itself says, deeper", with("Zeta: z", "Forbidden: z")),
        ("not YAML", with("[orders]", "[orders")),
        ("a variable in braces", auth("{ type: bearer, token: ${TOKEN} }")),
        ("a tab", with("    url", "\turl")),
        ("schedule", Case::new(&format!("{RIGHT}schedule: {{ cron: \"0 25 * * *\", time_zone: Europe/Berlim }}\n"))),
        ("schedule of both", Case::new(&format!("{RIGHT}schedule: {{ every: 1h, cron: \"0 5 * * *\" }}\n"))),
        ("schedule of neither", Case::new(&format!("{RIGHT}schedule: {{ overlap: wait }}\n"))),
        ("a name twice", with("  first:", "  orders:")),
        ("nothing takes the rows", with("inputs: [first]", "inputs: [orders]")),
        (
            "a circle",
            with(
                "inputs: [orders]",
                "inputs: [other, orders]\n    key: [id]\n  other:\n    type: keep\n    inputs: [first]",
            ),
        ),
        ("no sink", Case::new(RIGHT.split("sinks:").next().unwrap())),
        ("an empty file", Case::new("")),
        ("an old version", with("version: 1", "version: 2")),
        ("environment", Case::new(RIGHT).variable("TOWPATH__SINKS__WAREHOUSE__WRITE", "apend")),
        ("environment, unknown", Case::new(RIGHT).variable("TOWPATH__DRIAN", "5s")),
        ("flag", Case::new(RIGHT).set("sinks.warehouse.batch=many")),
        ("flag, unknown component", Case::new(RIGHT).set("sinks.warehous.batch=12")),
        ("flag without a value", Case::new(RIGHT).set("sinks.warehouse.batch")),
        ("flag with a secret", Case::new(RIGHT).set("sources.orders.auth={type: bearer, tokn: hunter22}")),
        ("shared file", Case::new(RIGHT).file("towpath.yaml", "drain: soon\n")),
        ("shared file with a pipeline", Case::new(RIGHT).file("towpath.yaml", "sources: {}\n")),
    ];
    let mut all = String::new();
    for (name, case) in cases {
        let said = case.said();
        assert!(!said.contains("hunter22"), "{name}: {said}");
        all.push_str(&format!("=== {name}\n{said}\n\n"));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let file = "\
sources:
  orders:
    type: reports
    ulr: https://reports.example
    window: { size: 1 hour }
    guard: { max_concurent: 1, busy_share: 30 }
sinks:
  warehouse:
    type: tabel
    inputs: [ordres]
  other:
    type: table
    inputs: [orders]
    path: ${DB}
    write: upsert
drain: 25
";
    insta::assert_snapshot!(Case::new(file).set("retries=3").said());
}

/// Secrets do not show, wherever they come from and whatever is wrong beside them.
#[test]
fn secrets_never_show() {
    let auth = |auth: &str| RIGHT.replacen("    parameters", &format!("    auth: {auth}\n    parameters"), 1);
    let plain = auth("{ type: basic, password: hunter22, usrname: me }");
    let variable = auth("{ type: basic, password: \"${PASSWORD}\", usrname: me }");
    let url = RIGHT.replace("https://reports.example", "ftp://me:hunter22@reports.example");
    let cases = [
        Case::new(&plain),
        Case::new(&variable).variable("PASSWORD", "hunter22"),
        Case::new(&variable).file("pipelines/.env", "PASSWORD=hunter22"),
        Case::new(&url),
        Case::new(&auth("{ type: basic, username: me }")).set("sources.orders.auth.password=[hunter22"),
        Case::new(&auth("{ type: basic, username: me }")).set("sources.orders.auth.password={a: hunter22}"),
        Case::new(&auth("{ type: basic, username: [a] }"))
            .variable("TOWPATH__SOURCES__ORDERS__AUTH__PASSWORD", "hunter22"),
        Case::new(&RIGHT.replacen(
            "    parameters",
            "    auth:\n      type: basic\n      password: hunter22: x\n    parameters",
            1,
        )),
        Case::new(&RIGHT.replace("https://reports.example", "${SOME}")).variable("SOME", "hunter22"),
    ];
    for (index, case) in cases.iter().enumerate() {
        let said = case.said();
        assert!(said.contains("error"), "case {index} is wrong on purpose: {said}");
        assert!(!said.contains("hunter22"), "case {index}: {said}");
    }
}

/// Whatever a slip of the finger makes of a file: an answer, and no secret in it.
#[test]
fn no_slip_breaks_it_or_shows_a_secret() {
    let whole = "\
version: 1
sources:
  orders:
    type: reports
    url: https://me:first-secret@reports.example
    auth: { type: basic, username: me, password: second-secret }
  others:
    type: reports
    url: ${URL:-https://reports.example}
    auth:
      type: bearer
      token: |
        third-secret
sinks:
  warehouse: &w
    type: table
    inputs: [orders, others]
    path: orders.db
    table: \"${TABLE}\"
";
    let case = Case::new(whole).variable("TABLE", "fourth-secret");
    let file = case.dir.path().join("pipelines/orders.yaml");
    let (mut wrong, mut shown) = (0, Vec::new());
    let mut slip = |text: String| {
        fs::write(&file, &text).unwrap();
        let said = case.said();
        // Half of a secret is one too.
        for part in ["first-s", "t-secre", "second-s", "third-s", "fourth-s"] {
            if said.contains(part) {
                shown.push(format!("{part} shows in\n{said}\nof\n{text}"));
            }
        }
        wrong += usize::from(said.contains("error"));
    };
    for (at, letter) in whole.char_indices() {
        slip(format!("{}{}", &whole[..at], &whole[at + letter.len_utf8()..]));
        for insert in [":", "{", "}", "[", "\"", "'", " #", "\t", "\n", "${", "*x ", ","] {
            slip(format!("{}{insert}{}", &whole[..at], &whole[at..]));
        }
    }
    let lines: Vec<&str> = whole.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        for change in [vec![], vec![*line, *line], vec![line.trim_start()], vec!["  x", *line]] {
            slip([&lines[..index], &change, &lines[index + 1..]].concat().join("\n"));
        }
    }
    assert!(shown.is_empty(), "{} times, such as\n{}", shown.len(), shown[0]);
    assert!(wrong > 1000, "{wrong}");
}

#[test]
fn the_schema_of_the_file() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&towpath_config::schema()).unwrap());
}
