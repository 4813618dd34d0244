//! SQL Server through the program: answers that are lost, an account that is locked.

use std::time::Duration;

use towpath_testkit::sql_server::{Fault, What, When};

use crate::kit::*;

/// The answer to a commit is lost, whichever it is: of the fence, of a publish in the middle, of the last one. Every row is there once.
#[test]
fn a_commit_whose_answer_is_lost_is_made_once() {
    for (write, key) in [("insert_new", ", key: row_hash"), ("append", "")] {
        let (mut struck, mut nth) = (0, 0);
        loop {
            let (place, warehouse) = (Place::new(), Warehouse::new());
            let reports = Reports::of(builder().first_byte(Duration::from_millis(20)));
            let (source, url) = (reports.source(&windows(4)), warehouse.url());
            place.write(
                "p.yaml",
                &format!(
                    "commit: {{ every: 1ms, publish: 1ms }}\nsources:\n  production: {source}\n\
                     sinks:\n  table: {{ type: mssql, inputs: [production], connection: '{url}', table: dbo.t, write: {write}{key}, retry: {{ initial: 10ms }} }}\n"
                ),
            );
            warehouse.faults().add(Fault { when: When::NthCommit(nth), what: What::CutAfter });
            let ran = place.run("p.yaml").expect(0);
            let counts = warehouse.rows("SELECT COUNT(*), COUNT(DISTINCT SerialNo) FROM dbo.t");
            assert_eq!(counts, ["240|240"], "{write}, commit {nth}: {}", ran.err);
            assert_eq!(warehouse.tables(), ["t", "towpath_checkpoint"], "{write}, commit {nth}");
            until("the end of all sessions", || warehouse.open_sessions() == 0);
            assert_eq!(warehouse.open_transactions(), 0, "{write}, commit {nth}");
            if warehouse.faults().pending() > 0 {
                break;
            }
            (struck, nth) = (struck + 1, nth + 1);
        }
        assert!(struck >= 3, "{write}: only {struck} commits, one of them the fence's");
    }
}

/// A locked account is asked for once, and not again by later runs, until somebody says so.
#[test]
fn a_locked_account_is_left_alone() {
    let (place, warehouse) = (Place::new(), Warehouse::new());
    place.write("p.csv", "id\n1\n2\n");
    place.write(
        "p.yaml",
        &format!(
            "sources:\n  file: {{ type: csv, path: p.csv, columns: {{ id: int64 }} }}\n\
             sinks:\n  table: {{ type: mssql, inputs: [file], connection: '{}', table: dbo.t, write: append, workers: 4, retry: {{ initial: 10ms }} }}\n",
            warehouse.url()
        ),
    );
    warehouse.faults().add(Fault { when: When::NthLogin(0), what: What::LockAccount });
    let first = place.run("p.yaml").expect(1);
    assert!(first.err.contains("locked out") && first.err.contains("error 18486"), "{}", first.err);
    for _ in 0..2 {
        let again = place.run("p.yaml").expect(1);
        assert!(again.err.contains("state reset credentials"), "{}", again.err);
    }
    assert_eq!(warehouse.log().refused(), 1, "it was tried once");
    warehouse.faults().unlock();
    place.towpath(&["state", "reset", "credentials"]).expect(0);
    place.run("p.yaml").expect(0);
    assert_eq!(warehouse.rows("SELECT id FROM dbo.t ORDER BY id"), ["1", "2"]);
    assert_eq!(warehouse.log().refused(), 1);
}
