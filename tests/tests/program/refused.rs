//! Rows that a database refuses, of every kind: each costs itself and nothing more, and says why.

use std::collections::BTreeMap;

use towpath_testkit::sample::{COLUMNS, REFUSED, sample_csv_with_refused_rows};

use crate::kit::*;

const ROWS: u64 = 4_000;
const EVERY: u64 = 20;

#[test]
fn rows_that_the_database_refuses_are_kept_with_its_reason_and_the_rest_goes_in() {
    let (place, warehouse) = (Place::new(), Warehouse::new());
    let mut csv = vec![];
    sample_csv_with_refused_rows(0..ROWS, EVERY, &mut csv).unwrap();
    place.write("log.csv", &String::from_utf8(csv).unwrap());
    warehouse.execute("CREATE TABLE lines (name nvarchar(10) NOT NULL PRIMARY KEY)");
    warehouse.execute("INSERT INTO lines (name) VALUES (N'L01'), (N'L02'), (N'L03'), (N'L04')");
    warehouse.execute(
        "CREATE TABLE log (Timestamp datetime2(3) NOT NULL, Line nvarchar(10) NOT NULL CONSTRAINT FK_line REFERENCES lines (name), \
         Station nvarchar(10) NULL, OrderNo decimal(10,0) NULL, Component nvarchar(50) NULL, \
         SerialNo nvarchar(20) NOT NULL CONSTRAINT UQ_serial UNIQUE, Operator nvarchar(10) NULL, Shift nvarchar(10) NULL, \
         Result nvarchar(5) NULL, Torque float NULL CONSTRAINT CK_torque CHECK (Torque < 50), Temperature float NOT NULL, \
         Remark nvarchar(100) NULL, row_hash binary(16) NOT NULL PRIMARY KEY NONCLUSTERED)",
    );
    // Torque stays text: what is no number is for the sink to find.
    let columns = COLUMNS.replace("  Torque: float64\n", "").replace('\n', "\n    ");
    let url = warehouse.url();
    place.write(
        "p.yaml",
        &format!(
            "version: 1\nsources:\n  log:\n    type: csv\n    path: log.csv\n    {columns}\nsinks:\n  warehouse: {{ type: mssql, inputs: [log], \
             connection: \"{url}\", table: log, write: insert_new, key: row_hash }}\nerrors: {{ stop_after: 10% }}\n"
        ),
    );
    let ran = place.run("p.yaml").expect(0);
    let refused = ROWS / EVERY;
    assert_eq!(warehouse.rows("SELECT COUNT(*) FROM log"), [(ROWS - refused).to_string()], "{}", ran.err);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for letter in place.letters("p") {
        let reason = letter["reason"].as_str().unwrap();
        let column = letter["column"].as_str().unwrap_or("-");
        // What differs from row to row of one kind.
        let reason: String = reason.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
        *kinds.entry(format!("{column}: {reason}")).or_default() += 1;
    }
    let told: String = kinds.iter().map(|(kind, times)| format!("{times} × {kind}\n")).collect();
    assert_eq!(kinds.values().sum::<u64>(), refused, "{told}");
    assert_eq!(kinds.len(), REFUSED.len(), "{told}");
    insta::assert_snapshot!(told);
}
