//! What changes between runs and under them: files, tables, the folder of the database.

use std::fs;

use towpath_testkit::report_server::Report;

use crate::kit::*;

fn changed(write: &str) -> String {
    format!(
        "sources:
  files: {{ type: csv, path: 'in/*.csv', read: changed, columns: {{ id: int64 }} }}
sinks:
  table: {{ type: sqlite, inputs: [files], path: out.db, table: t, write: {write} }}
"
    )
}

fn rows(ids: std::ops::Range<u64>, name: &str) -> String {
    ids.fold("id,name\n".to_owned(), |text, id| format!("{text}{id},{name}\n"))
}

fn three_files(place: &Place) {
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let first = at as u64 * 10;
        place.write(&format!("in/{name}.csv"), &rows(first..first + 10, name));
    }
}

fn read(ran: Ran) -> u64 {
    ran.expect(0).report()["sources"]["files"]["rows"].as_u64().unwrap()
}

#[test]
fn only_changed_files_are_read() {
    let place = Place::new();
    place.write("p.yaml", &changed("upsert, key: [id]"));
    three_files(&place);
    assert_eq!(read(place.run("p.yaml")), 30);
    assert_eq!(read(place.run("p.yaml")), 0, "nothing has changed");
    place.write("in/b.csv", &rows(10..21, "newer"));
    place.write("in/d.csv", &rows(30..35, "d"));
    assert_eq!(read(place.run("p.yaml")), 11 + 5);
    // One that has gone takes none of its rows with it.
    fs::remove_file(place.path("in/a.csv")).unwrap();
    assert_eq!(read(place.run("p.yaml")), 0);
    let rows = place.rows("out.db", "SELECT name, count(*) FROM t GROUP BY name ORDER BY name");
    // 20 was c's, until b's newer file had it too.
    assert_eq!(rows, ["a|10", "c|9", "d|5", "newer|11"]);
}

#[test]
fn with_replace_any_change_means_all_files_and_none_means_none() {
    let place = Place::new();
    place.write("p.yaml", &changed("replace"));
    three_files(&place);
    assert_eq!(read(place.run("p.yaml")), 30);
    assert_eq!(read(place.run("p.yaml")), 0);
    assert_eq!(place.count("out.db", "t"), 30, "nothing is touched");
    place.write("in/b.csv", &rows(10..12, "newer"));
    assert_eq!(read(place.run("p.yaml")), 22);
    assert_eq!(
        place.rows("out.db", "SELECT name, count(*) FROM t GROUP BY name ORDER BY name"),
        ["a|10", "c|10", "newer|2"]
    );
    fs::remove_file(place.path("in/a.csv")).unwrap();
    assert_eq!(read(place.run("p.yaml")), 12, "one that has gone is a change");
    assert_eq!(place.count("out.db", "t"), 12);
}

#[test]
fn a_dropped_table_has_no_checkpoint() {
    for write in ["append", "upsert, key: [id]", "replace"] {
        let place = Place::new();
        place.write("p.yaml", &changed(write));
        three_files(&place);
        assert_eq!(read(place.run("p.yaml")), 30, "{write}");
        rusqlite::Connection::open(place.path("out.db")).unwrap().execute_batch("DROP TABLE t").unwrap();
        let ran = place.run("p.yaml");
        assert!(ran.err.contains("warn") || ran.err.contains("WARN"), "{write}: it is said aloud: {}", ran.err);
        assert_eq!(read(ran), 30, "{write}");
        assert_eq!(place.rows("out.db", "SELECT count(*), count(DISTINCT id) FROM t"), ["30|30"], "{write}");
        assert_eq!(read(place.run("p.yaml")), 0, "{write}");
        // The same of the whole file.
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(place.path(&format!("out.db{end}")));
        }
        assert_eq!(read(place.run("p.yaml")), 30, "{write}");
        assert_eq!(place.count("out.db", "t"), 30, "{write}");
    }
}

/// What becomes of the database while a run is under way.
fn disturbed(disturb: impl Fn(&Place)) -> (Place, Ran) {
    let place = Place::new();
    let reports = Reports::of(builder().first_byte(std::time::Duration::from_millis(100)));
    let source = reports.source(&format!("{}, deadline: 2s", windows(15)));
    let pipeline = format!(
        "commit: {{ every: 1ms }}
restarts: 1
sources:
  production: {source}
sinks:
  table: {{ type: sqlite, inputs: [production], path: base/out.db, table: t, write: append, lock_timeout: 1s }}
"
    );
    place.write("p.yaml", &pipeline);
    fs::create_dir(place.path("base")).unwrap();
    let running = place.start(&["run", "p.yaml", "--json"]);
    until("a commit", || place.count("base/out.db", "t") > 0);
    disturb(&place);
    let ran = running.end();
    // And then everything is put right.
    fs::create_dir_all(place.path("base")).unwrap();
    let last = place.run("p.yaml").expect(0);
    drop(last);
    (place, ran)
}

fn expect_all(place: &Place) {
    let stamps = place.rows("base/out.db", "SELECT Timestamp FROM t ORDER BY rowid");
    let expect: Vec<_> = production(&Report::production_log(60), 15).iter().map(|line| line[..23].to_owned()).collect();
    assert_eq!(stamps[..expect.len().min(stamps.len())], expect);
}

#[test]
fn a_table_dropped_under_a_run() {
    let (place, ran) = disturbed(|place| {
        let db = rusqlite::Connection::open(place.path("base/out.db")).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        db.execute_batch("DROP TABLE t").unwrap();
    });
    eprintln!("{ran:#?}");
    expect_all(&place);
}

#[test]
fn a_folder_removed_under_a_run() {
    let (place, ran) = disturbed(|place| fs::remove_dir_all(place.path("base")).unwrap());
    // A database without a name takes rows that nobody will ever see: that must not be called done.
    assert_eq!(ran.code(), 1, "{ran:#?}");
    expect_all(&place);
}

#[test]
fn a_database_locked_by_another_under_a_run() {
    let lock = std::cell::RefCell::new(None);
    let place = Place::new();
    let reports = Reports::of(builder().first_byte(std::time::Duration::from_millis(50)));
    let source = reports.source(&format!("{}, deadline: 2s", windows(6)));
    let pipeline = format!(
        "commit: {{ every: 1ms }}
restarts: 0
sources:
  production: {source}
sinks:
  table: {{ type: sqlite, inputs: [production], path: out.db, table: t, write: append, lock_timeout: 300ms }}
"
    );
    place.write("p.yaml", &pipeline);
    let running = place.start(&["run", "p.yaml", "--json"]);
    until("a commit", || place.count("out.db", "t") > 0);
    let db = rusqlite::Connection::open(place.path("out.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    *lock.borrow_mut() = Some(db);
    let ran = running.end().expect(1);
    assert!(ran.err.contains("lock"), "{}", ran.err);
    drop(lock);
    place.run("p.yaml").expect(0);
    let rows = place.count("out.db", "t");
    assert!(rows >= 360 && rows.is_multiple_of(60), "{rows}");
    assert_eq!(place.rows("out.db", "SELECT count(DISTINCT SerialNo) FROM t"), [rows.to_string()]);
}
