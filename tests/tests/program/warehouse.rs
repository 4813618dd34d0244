//! The pipelines of `config/` as they stand there, into a SQL Server: a report every hour, one database into another.

use std::collections::BTreeSet;

use serde_json::json;
use towpath_testkit::report_server::{COLUMNS, Report, ReportServer};

use crate::kit::*;

/// One row in so many lacks a field.
const RAGGED: u64 = 20;

/// The files that people start from, and the variables they need.
fn config(file: &str, variables: &[(&str, &str)]) -> Place {
    let place = Place::new();
    let text = match file {
        "production_report.yaml" => include_str!("../../../config/pipelines/production_report.yaml"),
        "db_to_db.yaml" => include_str!("../../../config/pipelines/db_to_db.yaml"),
        other => panic!("{other}"),
    };
    place.write(file, text);
    place.write(".env", &variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>());
    place
}

fn serve(report: &Report) -> Reports {
    Reports::of(ReportServer::builder().report(report.clone()).account("CORP", "loader", PASSWORD))
}

fn report_config(reports: &Reports, warehouse: &Warehouse) -> Place {
    let (report, url) = (reports.url().to_string(), warehouse.url());
    config("production_report.yaml", &[("REPORT_SERVER", &report), ("SSRS_PASSWORD", PASSWORD), ("MSSQL_URL", &url)])
}

/// Runs it without the five minutes between two requests.
fn run_report(place: &Place) -> Ran {
    let at_once = "sources.production.guard.min_interval=0s";
    place.towpath(&["run", "production_report.yaml", "--json", "--set", at_once])
}

/// The windows that were asked for.
fn windows_of(reports: &Reports) -> BTreeSet<(String, String)> {
    let renders = reports.log().renders();
    let window = |name, at: usize| renders[at].value(name).unwrap().to_owned();
    (0..renders.len()).map(|at| (window("From", at), window("To", at))).collect()
}

/// Fields of a record of the production log.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for char in line.chars() {
        match char {
            '"' => {
                // Two in a row are one: the first closes, the second opens again.
                if !quoted && fields.last().is_some_and(|field| !field.is_empty()) {
                    fields.last_mut().unwrap().push('"');
                }
                quoted = !quoted;
            }
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().unwrap().push(other),
        }
    }
    fields
}

/// The rows of these windows: as the table should have them, and how many lack a field.
fn given(report: &Report, windows: &BTreeSet<(String, String)>) -> (Vec<String>, usize) {
    let (mut rows, mut ragged) = (vec![], 0);
    for (from, to) in windows {
        for line in report.csv(from.parse().unwrap(), to.parse().unwrap()).lines().skip(1) {
            let mut fields = fields(line);
            if fields.len() < COLUMNS.len() {
                ragged += 1;
                continue;
            }
            fields[0] = fields[0].replace('T', " ");
            for number in [9, 10] {
                fields[number] = fields[number].parse::<f64>().unwrap().to_string();
            }
            rows.push(fields.join("|"));
        }
    }
    rows.sort();
    (rows, ragged)
}

fn table(warehouse: &Warehouse) -> Vec<String> {
    let columns = COLUMNS.map(|name| format!("[{name}]")).join(", ");
    let columns = columns.replace("[Timestamp]", "CONVERT(nvarchar(23), [Timestamp], 121)");
    let mut rows = warehouse.rows(&format!("SELECT {columns} FROM dbo.ProductionLog"));
    rows.sort();
    rows
}

#[test]
fn a_report_hour_after_hour() {
    let report = Report::production_log(60).ragged_every(RAGGED);
    let (reports, warehouse) = (serve(&report), Warehouse::new());
    let place = report_config(&reports, &warehouse);
    let plan = place.towpath(&["plan", "production_report.yaml"]).expect(0);
    assert!(plan.out.contains("makes table [dbo].[ProductionLog]"), "{}", plan.out);
    // What it knows to be wrong is in its exit code as well.
    let sink = place.towpath(&["plan", "production_report.yaml", "--set", "sinks.warehouse.create=false"]).expect(1);
    assert!(sink.out.contains("the run will fail") && sink.err.contains("error: warehouse: "), "{sink:?}");
    assert_eq!((reports.log().renders().len(), warehouse.tables().len()), (0, 0), "a plan costs nothing");

    run_report(&place).expect(0);
    // The hour may turn between two runs: then the next one has something new.
    let again = loop {
        let before = windows_of(&reports);
        let ran = run_report(&place).expect(0);
        if windows_of(&reports) == before {
            break ran.report();
        }
    };
    let (rows, ragged) = given(&report, &windows_of(&reports));
    assert_eq!(table(&warehouse), rows);
    assert_eq!(again["status"], "completed");
    assert_eq!(again["sinks"]["warehouse"]["written"], 0, "{again}");
    assert!(again["sinks"]["warehouse"]["skipped"].as_u64().unwrap() > 0, "the look-back was read: {again}");
    // Once for each time that the window was read.
    let letters = place.letters("production_report");
    assert!(letters.len() > ragged && letters.len().is_multiple_of(ragged), "{} of {ragged}", letters.len());
    assert_eq!(warehouse.tables(), ["ProductionLog", "towpath_checkpoint"]);
    let (proofs, log) = (reports.log().wrong_passwords(), reports.log());
    assert_eq!((proofs, log.most_renders_at_once()), (0, 1));
    let status = place.towpath(&["status", "production_report.yaml"]).expect(0);
    assert!(status.out.contains("completed"), "{}", status.out);
}

#[test]
fn a_row_that_the_database_refuses_costs_itself() {
    let report = Report::production_log(60);
    let (reports, warehouse) = (serve(&report), Warehouse::new());
    warehouse.execute(
        "CREATE TABLE dbo.ProductionLog ([Timestamp] datetime2(3) NOT NULL, Line nvarchar(2) NOT NULL, Station nvarchar(10) NOT NULL, \
         OrderNo varchar(20) NOT NULL, Component nvarchar(50) NOT NULL, \
         SerialNo char(12) NOT NULL CONSTRAINT not_a_seven CHECK (SerialNo NOT LIKE '%7'), Operator nvarchar(10) NULL, \
         Shift nvarchar(10) NULL, Result nchar(4) NOT NULL, Torque float NULL, Temperature float NULL, Remark nvarchar(100) NULL, \
         row_hash binary(16) NOT NULL CONSTRAINT one_row PRIMARY KEY)",
    );
    let place = report_config(&reports, &warehouse);
    let ran = run_report(&place).expect(0).report();
    let (rows, _) = given(&report, &windows_of(&reports));
    let (bad, good): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.split('|').nth(5).unwrap().ends_with('7'));
    assert!(!bad.is_empty() && !good.is_empty());
    assert_eq!(table(&warehouse), good);
    assert_eq!(
        ran["sinks"]["warehouse"],
        json!({ "written": good.len(), "skipped": 0, "rejected": bad.len() }),
        "{ran}"
    );
    let letters = place.letters("production_report");
    assert_eq!(letters.len(), bad.len());
    assert!(letters.iter().all(|letter| letter["reason"].as_str().unwrap().contains("not_a_seven")), "{letters:#?}");
}

#[test]
fn when_it_is_not_the_rows_the_run_stops() {
    let report = Report::production_log(3_000).ragged_every(RAGGED);
    let (reports, warehouse) = (serve(&report), Warehouse::new());
    let place = report_config(&reports, &warehouse);
    let ran = run_report(&place).expect(3).report();
    assert_eq!(ran["status"], "stopped", "{ran}");
    assert!(!warehouse.tables().iter().any(|name| name.starts_with("towpath_stage")), "{:?}", warehouse.tables());
}

/// What machines measure, and what is made of it.
#[test]
fn one_database_into_another() {
    let (machines, warehouse) = (Warehouse::new(), Warehouse::new());
    machines.execute(
        "CREATE TABLE dbo.Measurement (MeasurementId int IDENTITY(1,1) NOT NULL PRIMARY KEY, Serial nvarchar(20) NULL, \
         Station nvarchar(10) NOT NULL, Reading nvarchar(20) NULL, Limit nvarchar(20) NULL, State nvarchar(10) NOT NULL, \
         MeasuredAt datetime2(3) NOT NULL, Version rowversion NOT NULL)",
    );
    let insert = |rows: &[&str]| {
        machines.execute(&format!(
            "INSERT INTO dbo.Measurement (Serial, Station, Reading, Limit, State, MeasuredAt) VALUES {}",
            rows.iter().map(|row| format!("({row}, '2026-01-31 05:00:00.123')")).collect::<Vec<_>>().join(", ")
        ));
    };
    insert(&[
        "N'SN1', N'S11', N'4.5', N'9', N'finished'",
        "N'SN2', N'S11', N'n/a', N'9', N'finished'",
        "N'SN3', N'S12', N'5.5', N'9', N'open'",
        "NULL, N'S12', N'6.5', N'9', N'finished'",
        "N'SN5', N'S21', NULL, N'9.25', N'finished'",
    ]);
    let urls = [machines.url(), warehouse.url()];
    let place = config("db_to_db.yaml", &[("SOURCE_URL", &urls[0]), ("MSSQL_URL", &urls[1])]);
    let torque = || warehouse.rows("SELECT Id, Serial, Station, Torque, TorqueLimit FROM dbo.Torque ORDER BY Id");
    let counts = || {
        let ran = place.run("db_to_db.yaml").expect(0).report();
        (ran["sources"]["measured"]["rows"].as_u64().unwrap(), ran["sinks"]["warehouse"]["written"].as_u64().unwrap())
    };

    place.towpath(&["plan", "db_to_db.yaml"]).expect(0);
    assert_eq!(warehouse.tables(), [""; 0], "a plan makes nothing");
    assert_eq!(counts(), (5, 2));
    assert_eq!(torque(), ["1|SN1|S11|4.5|9", "5|SN5|S21|∅|9.25"]);
    let letters = place.letters("db_to_db");
    assert_eq!((letters.len(), &letters[0]["column"]), (1, &json!("Reading")), "{letters:#?}");
    assert_eq!(counts(), (0, 0), "nothing has changed");

    machines.execute(
        "UPDATE dbo.Measurement SET State = N'finished' WHERE MeasurementId = 3; \
         UPDATE dbo.Measurement SET Reading = N'4.75' WHERE MeasurementId = 1; \
         UPDATE dbo.Measurement SET Reading = N'7' WHERE MeasurementId = 2",
    );
    insert(&["N'SN6', N'S31', N'8', N'9', N'finished'"]);
    assert_eq!(counts(), (4, 4), "what is new, and what was changed");
    assert_eq!(torque(), ["1|SN1|S11|4.75|9", "2|SN2|S11|7|9", "3|SN3|S12|5.5|9", "5|SN5|S21|∅|9.25", "6|SN6|S31|8|9"]);
    assert_eq!(place.letters("db_to_db").len(), 1);
    assert_eq!(
        warehouse.rows("SELECT DISTINCT CONVERT(nvarchar(23), MeasuredAt, 121) FROM dbo.Torque"),
        ["2026-01-31 05:00:00.123"]
    );
    assert_eq!(counts(), (0, 0));
    assert_eq!(warehouse.tables(), ["Torque", "towpath_checkpoint"]);
    for server in [&machines, &warehouse] {
        until("the end of all sessions", || server.open_sessions() == 0);
        assert_eq!(server.open_transactions(), 0);
    }
}
