//! The sqlite3 shell, which is not of our making, reads what the program wrote.

use std::process::{Command, Stdio};

use crate::kit::*;

/// The shell's answer; `None` where there is no shell. With `REQUIRE_PEERS=1` there must be one.
fn shell(place: &Place, file: &str, sql: &str) -> Option<String> {
    let output = Command::new("sqlite3").arg("-readonly").arg(place.path(file)).arg(sql).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        assert!(std::env::var("REQUIRE_PEERS").as_deref() != Ok("1"), "the sqlite3 shell is missing");
        eprintln!("SKIPPED: there is no sqlite3 shell on this machine");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_shell_reads_what_was_written() {
    for (write, rows) in
        [("append", "8"), ("replace", "4"), ("insert_new, key: row_hash", "4"), ("upsert, key: [id]", "4")]
    {
        let place = Place::new();
        place.write(
            "p.yaml",
            &format!(
                "sources:
  file:
    type: csv
    path: in.csv
    columns: {{ id: int64, weight: float64, price: 'decimal(10,2)', ok: bool, day: date, at: timestamp }}
sinks:
  table: {{ type: sqlite, inputs: [file], path: out.db, table: t, write: {write} }}
"
            ),
        );
        place.write(
            "in.csv",
            "id,name,weight,price,ok,day,at\n\
             1,\"it's \"\"quoted\"\", and long\",0.5,0.10,true,2026-01-31,2026-01-31T23:59:59.5\n\
             2,Prüfung ∅,-1e3,99999999.99,false,1999-12-31,1999-12-31 00:00:00\n\
             3,\"two\nlines\",,,,,\n\
             4,,0,-0.01,true,2000-02-29,2000-02-29T12:00\n\
             x,not a number,0,0,true,2026-01-01,2026-01-01T00:00:00\n",
        );
        for _ in 0..2 {
            place.run("p.yaml").expect(0);
        }
        let Some(count) = shell(&place, "out.db", "SELECT count(*) FROM t") else { return };
        assert_eq!(count.trim(), rows, "{write}");
        let sql =
            "SELECT DISTINCT id, name, weight, price, ok, day, at, typeof(weight), typeof(price) FROM t ORDER BY id";
        insta::allow_duplicates! {
            insta::assert_snapshot!(shell(&place, "out.db", sql).unwrap());
        }
        for (sql, expect) in [
            ("PRAGMA integrity_check", "ok"),
            ("PRAGMA journal_mode", "wal"),
            ("SELECT date(day, '+1 day') FROM t WHERE id = 4", "2000-03-01"),
            ("SELECT json_extract(checkpoint, '$.last') FROM towpath_checkpoint", "1"),
        ] {
            assert_eq!(shell(&place, "out.db", sql).unwrap().lines().next(), Some(expect), "{write}: {sql}");
        }
    }
}
