//! Pipelines that are built in Rust: the connectors by their names, the logic a closure.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use towpath_engine::{Engine, RunOptions};
use towpath_testkit::sql_server::{SqlServer, SqlServerOptions};

// The very example that people start from.
#[allow(dead_code, reason = "it is a program too")]
#[path = "../../crates/runner/examples/database_to_database.rs"]
mod example;

const MEASURED: u64 = 3_000;

#[tokio::test(flavor = "multi_thread")]
async fn database_to_database_with_a_closure_between() {
    towpath_transforms::link();
    let (machines, warehouse) =
        (SqlServer::start(SqlServerOptions::default()).await, SqlServer::start(SqlServerOptions::default()).await);
    machines.execute(
        "CREATE TABLE dbo.Measurement (MeasurementId int IDENTITY(1,1) NOT NULL PRIMARY KEY, Serial nvarchar(20) NOT NULL, \
         Reading nvarchar(20) NULL, Limit nvarchar(20) NOT NULL, Version rowversion NOT NULL)",
    );
    let faulty = |id: u64| id.is_multiple_of(500);
    let rows: Vec<String> = (1..=MEASURED)
        .map(|id| {
            format!("(N'SN{id}', {}, N'100')", if faulty(id) { "N'?'".to_owned() } else { format!("N'{}'", id % 100) })
        })
        .collect();
    for rows in rows.chunks(500) {
        machines.execute(&format!("INSERT INTO dbo.Measurement (Serial, Reading, Limit) VALUES {}", rows.join(", ")));
    }
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(folder.path()).unwrap();
    let run = async || {
        let graph = example::graded(&machines.url(), &warehouse.url()).unwrap();
        let plan = engine.plan_graph(&graph).await.unwrap().to_string();
        assert!(plan.contains("exactly once"), "{plan}");
        let report = engine.run_graph(&graph, RunOptions::default()).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        (report.sinks["warehouse"].written, report.dead_letters)
    };
    let expect = |worn_above: u64| -> Vec<Vec<Option<String>>> {
        let row = |id: u64| {
            let grade = if id % 100 > worn_above { "worn" } else { "good" };
            vec![Some(id.to_string()), Some(format!("SN{id}")), Some(grade.to_owned())]
        };
        (1..=MEASURED).filter(|id| !faulty(*id)).map(row).collect()
    };
    let grades = || warehouse.query("SELECT MeasurementId, Serial, Grade FROM dbo.Grade ORDER BY MeasurementId");

    let refused = MEASURED / 500;
    assert_eq!(run().await, (MEASURED - refused, refused));
    assert_eq!(grades(), expect(50));
    assert_eq!(run().await, (0, 0), "nothing has changed");
    machines.execute("UPDATE dbo.Measurement SET Limit = N'200' WHERE Reading <> N'?'");
    assert_eq!(run().await, (MEASURED - refused, 0));
    assert_eq!(grades(), expect(100));
    assert_eq!((machines.open_transactions(), warehouse.open_transactions()), (0, 0));
}
