//! SIGKILL at random moments: whatever the write mode, table and dead letters are exact in the end, and nothing else is left.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::kit::*;

/// Kills that must hit a run under way, over all modes of a target.
const KILLS: usize = 52;

/// Where the rows go.
trait Target {
    /// How many there are: enough that a run takes as long as a process needs to be hit.
    const ROWS: u64;
    /// Whether `append` and `replace` keep the order in which rows came.
    const KEEPS_ORDER: bool;
    fn new(place: &Place) -> Self;
    /// What the file says of it, without mode and key.
    fn sink(&self) -> String;
    /// The rows of the table, in the order of their ids, or as they came.
    fn table(&self, place: &Place, by_id: bool) -> Vec<String>;
    /// Nothing but the table and the checkpoints.
    fn check_what_is_left(&self, place: &Place);
}

/// A file with a folder for itself.
struct Sqlite;

impl Target for Sqlite {
    const ROWS: u64 = 24_000;
    const KEEPS_ORDER: bool = true;
    fn new(place: &Place) -> Self {
        place.write("base/README", "the database has this folder for itself");
        Self
    }
    fn sink(&self) -> String {
        "type: sqlite, path: base/out.db, table: t".to_owned()
    }
    fn table(&self, place: &Place, by_id: bool) -> Vec<String> {
        let order = if by_id { "id" } else { "rowid" };
        place.try_rows("base/out.db", &format!("SELECT id, name, weight FROM t ORDER BY {order}")).unwrap()
    }
    fn check_what_is_left(&self, place: &Place) {
        let tables = place.rows("base/out.db", "SELECT name FROM sqlite_schema WHERE type <> 'index' ORDER BY name");
        assert_eq!(tables, ["t", "towpath_checkpoint"], "nothing of a staging table is left");
        let mut files = place.names("base");
        files.retain(|name| !name.starts_with("out.db"));
        assert_eq!(files, ["README"], "nothing beside the database is left");
    }
}

/// A server that outlives whoever is killed.
impl Target for Warehouse {
    const ROWS: u64 = 12_000;
    const KEEPS_ORDER: bool = false;
    fn new(_: &Place) -> Self {
        Self::new()
    }
    fn sink(&self) -> String {
        format!("type: mssql, connection: '{}', table: dbo.t", self.url())
    }
    fn table(&self, _: &Place, _: bool) -> Vec<String> {
        self.rows("SELECT id, name, weight FROM dbo.t ORDER BY id")
    }
    fn check_what_is_left(&self, _: &Place) {
        assert_eq!(self.tables(), ["t", "towpath_checkpoint"], "nothing of a staging table is left");
        until("the end of what was killed", || self.open_transactions() == 0);
    }
}

/// A generator of its own, so that a failure can be had again. The times are the system's all the same.
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The records that are refused: a number that is none, a field too many.
fn is_bad(record: u64) -> bool {
    record.is_multiple_of(997) || record.is_multiple_of(1_009)
}

/// A file with the ids from `first`; each id stands there once, in no order.
fn file(first: u64, rows: u64, name: &str) -> String {
    let mut text = "id,name,weight\n".to_owned();
    for record in 1..=rows {
        // 7919 is prime, and no divisor of the rows there are.
        let id = first + record * 7_919 % rows;
        let (bad, more) = (
            if record.is_multiple_of(997) { "x" } else { "" },
            if record.is_multiple_of(1_009) { ",more" } else { "" },
        );
        writeln!(text, "{bad}{id},\"{name}, {id}\",{}.5{more}", id % 100).unwrap();
    }
    text
}

/// What of it reaches a sink, in order.
fn good(first: u64, rows: u64, name: &str) -> Vec<(u64, String)> {
    let of = |record: u64| first + record * 7_919 % rows;
    (1..=rows)
        .filter(|record| !is_bad(*record))
        .map(|record| (of(record), format!("{}|{name}, {}|{}.5", of(record), of(record), of(record) % 100)))
        .collect()
}

struct Case<T> {
    mode: &'static str,
    place: Place,
    target: T,
    before: Vec<(u64, String)>,
    new: Vec<(u64, String)>,
    /// The run that filled the table.
    earlier: String,
}

impl<T: Target> Case<T> {
    /// A table with rows of an earlier run, half of whose keys the new file has too.
    fn new(mode: &'static str) -> Self {
        let place = Place::new();
        let target = T::new(&place);
        let key = if matches!(mode, "insert_new" | "upsert") { ", key: [id]" } else { "" };
        let pipeline = format!(
            "commit: {{ every: 1ms, rows: 500 }}
sources:
  file: {{ type: csv, path: in.csv, columns: {{ id: int64, weight: float64 }} }}
sinks:
  table: {{ {}, inputs: [file], write: {mode}{key} }}
",
            target.sink()
        );
        place.write("p.yaml", &pipeline);
        place.write("in.csv", &file(0, 2_000, "old"));
        let ran = place.run("p.yaml").expect(0);
        assert_eq!(ran.report()["dead_letters"], 3);
        place.write("in.csv", &file(1_000, T::ROWS, "new"));
        let earlier = place.last_run("p").0;
        Self { mode, place, target, before: good(0, 2_000, "old"), new: good(1_000, T::ROWS, "new"), earlier }
    }

    /// Whether the run that reads the new file has completed.
    fn is_done(&self) -> bool {
        let (run, status) = self.place.last_run("p");
        run != self.earlier && status == "completed"
    }

    fn table(&self) -> Vec<String> {
        self.in_order(self.target.table(&self.place, !matches!(self.mode, "append" | "replace")))
    }

    /// In the order in which they can be compared: of rows without a key not every target keeps the order.
    fn in_order(&self, mut rows: Vec<String>) -> Vec<String> {
        if !T::KEEPS_ORDER {
            rows.sort_by(|a, b| id(a).cmp(&id(b)).then_with(|| a.cmp(b)));
        }
        rows
    }

    /// What the table must hold when so many of the new rows are in it.
    fn expected(&self, so_many: usize) -> Vec<String> {
        let (old, new) = (self.before.iter(), self.new[..so_many].iter());
        let text = |(_, text): &(u64, String)| text.clone();
        self.in_order(match self.mode {
            "append" => old.chain(new).map(text).collect(),
            "replace" if so_many == 0 => old.map(text).collect(),
            "replace" => new.map(text).collect(),
            "insert_new" => new.chain(old).cloned().collect::<BTreeMap<_, _>>().into_values().collect(),
            "upsert" => old.chain(new).cloned().collect::<BTreeMap<_, _>>().into_values().collect(),
            other => panic!("{other}"),
        })
    }

    /// In between there are whole commits, never a row that does not belong there. Whether any of the new ones are in it.
    fn check_in_between(&self) -> bool {
        let rows = self.table();
        match self.mode {
            "append" => assert_eq!(rows, self.expected(rows.len() - self.before.len()), "append"),
            "replace" => assert!(
                rows == self.expected(0) || rows == self.expected(self.new.len()),
                "replace: {} rows",
                rows.len()
            ),
            // Which of them are in it is not told by their number alone: an old one may have been met.
            _ => {
                let (old, all) = (self.expected(0), self.expected(self.new.len()));
                let known = |row: &String| {
                    old.binary_search_by(|other| id(other).cmp(&id(row))).is_ok_and(|at| old[at] == *row)
                };
                let given = |row: &String| {
                    all.binary_search_by(|other| id(other).cmp(&id(row))).is_ok_and(|at| all[at] == *row)
                };
                assert!(rows.iter().all(|row| known(row) || given(row)), "{}", self.mode);
                assert!(rows.windows(2).all(|pair| id(&pair[0]) < id(&pair[1])), "{}", self.mode);
            }
        }
        rows != self.expected(0)
    }

    fn check_the_end(&self) {
        assert_eq!(self.table(), self.expected(self.new.len()), "{}", self.mode);
        let bad = |rows: u64| (1..=rows).filter(|record| is_bad(*record));
        assert_eq!(self.place.letter_records("p"), bad(2_000).chain(bad(T::ROWS)).collect::<Vec<_>>(), "{}", self.mode);
        self.target.check_what_is_left(&self.place);
    }
}

fn id(row: &str) -> u64 {
    row.split('|').next().unwrap().parse().unwrap()
}

/// Kills a mode's runs until enough were hit; each run is taken up until it is done, and then another table begins.
fn killed<T: Target>(mode: &'static str, kills: usize) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ mode.len() as u64);
    let (mut hit, mut between) = (0, 0);
    // How long it takes undisturbed, here and now.
    let clean = Case::<T>::new(mode);
    let began = Instant::now();
    clean.place.run("p.yaml").expect(0);
    let seconds = began.elapsed().as_secs_f64();
    clean.check_the_end();
    while hit < kills {
        let case = Case::<T>::new(mode);
        let mut taken_up = None;
        for _ in 0..4 {
            let running = case.place.start(&["run", "p.yaml", "--json"]);
            sleep(Duration::from_secs_f64(dice.roll() * seconds));
            running.signal("KILL");
            let was_killed = running.end().was_killed();
            // The kill may have come between the last commit and the program's end: then the run is over, and another would read anew.
            if !was_killed || case.is_done() {
                break;
            }
            hit += 1;
            let (run, status) = case.place.last_run("p");
            if status == "running" {
                assert_eq!(*taken_up.get_or_insert(run.clone()), run, "{mode}: the same run is taken up");
            }
            between += usize::from(case.check_in_between());
        }
        if !case.is_done() {
            case.place.run("p.yaml").expect(0);
        }
        case.check_the_end();
    }
    assert!(mode == "replace" || between > 0, "{mode}: no kill came between two commits");
}

/// Each mode is a test of its own, so that they run side by side.
macro_rules! modes {
    ($($module:ident: $target:ty;)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn append() {
                killed::<$target>("append", KILLS / 4);
            }

            #[test]
            fn insert_new() {
                killed::<$target>("insert_new", KILLS / 4);
            }

            #[test]
            fn upsert() {
                killed::<$target>("upsert", KILLS / 4);
            }

            #[test]
            fn replace() {
                killed::<$target>("replace", KILLS / 4);
            }
        }
    )*};
}

modes! {
    sqlite: Sqlite;
    sql_server: Warehouse;
}
