//! The suite that every connector passes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use std::sync::Arc;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use common::{Place, Server};
use serde_json::json;
use towpath_core::Sink;
use towpath_testkit::{
    conformance::{Comes, Setup, SinkQuirks, SinkTarget, SinkUnderTest, TypeQuirk, sink},
    memory::Key,
};

struct Target(Place);

#[async_trait(?Send)]
impl SinkTarget for Target {
    fn sink(&self, setup: &Setup) -> Box<dyn Sink> {
        let mut options = json!({ "write": setup.mode, "add_columns": true });
        match &setup.key {
            Key::None => {}
            Key::Columns(columns) => options["key"] = json!(columns),
            Key::RowHash => options["key"] = "row_hash".into(),
        }
        Box::new(self.0.sink(options))
    }
    async fn rows(&self) -> Option<Vec<RecordBatch>> {
        if self.0.ask("SELECT 1 FROM sys.objects WHERE object_id = OBJECT_ID(N'$.t')").await.is_empty() {
            return None;
        }
        let batches = self.0.read(json!({})).await.into_iter().map(|rows| {
            let keep: Vec<usize> =
                (0..rows.num_columns()).filter(|at| rows.schema().field(*at).name() != "row_hash").collect();
            rows.project(&keep).unwrap()
        });
        Some(batches.collect())
    }
    async fn refuse(&self, setup: &Setup, name: &str) -> bool {
        let hash = if setup.key == Key::RowHash { ", row_hash binary(16) NOT NULL UNIQUE" } else { "" };
        let key = if matches!(setup.key, Key::Columns(_)) { " NOT NULL UNIQUE" } else { "" };
        self.0
            .ask(&format!("CREATE TABLE $.t (id bigint{key}, name nvarchar(100) CHECK (name <> '{name}'){hash})"))
            .await;
        true
    }
    async fn drop_table(&self) -> bool {
        self.0.ask("IF OBJECT_ID(N'$.t') IS NOT NULL DROP TABLE $.t").await;
        true
    }
}

fn micros(text: &str) -> String {
    text.strip_suffix("58.999999999").map_or_else(|| text.to_owned(), |text| format!("{text}58.999999"))
}

fn in_utc(text: &str) -> String {
    let moment: jiff::Timestamp = text.parse().unwrap();
    let text = moment.to_string();
    // The canonical text has three digits, or six.
    text.replace(".25Z", ".250Z")
}

fn quirks(simulated: bool) -> SinkQuirks {
    let locks = simulated.then_some("the simulator has one writer at a time: from flush to commit it is the sink");
    let quirk = |of, comes, reason| TypeQuirk { of, comes, reason };
    let types = vec![
        quirk("float64_special", Comes::Rejected(&["NaN", "inf", "-inf"]), "SQL Server has neither NaN nor infinity"),
        quirk("timestamp_ns", Comes::As(micros), "SQL Server's times end at 100 ns, and are read to the microsecond"),
        quirk(
            "timestamp_us_offset",
            Comes::As(in_utc),
            "a moment is kept in UTC, without the offset it was written with",
        ),
    ];
    SinkQuirks { types, locks, ..SinkQuirks::default() }
}

async fn the_suite(server: Server) {
    let simulated = server.simulator.is_some();
    let server = Arc::new(server);
    let target = move || {
        let server = Arc::clone(&server);
        async move { Target(server.place().await) }
    };
    let only = std::env::var("TOWPATH_ONLY").unwrap_or_default();
    sink(&SinkUnderTest::new("mssql", target).quirks(quirks(simulated)).only(&only).secret(common::PASSWORD)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sink_keeps_the_promises() {
    the_suite(Server::simulated().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sink_keeps_the_promises_on_a_server() {
    if let Some(server) = Server::real().await {
        the_suite(server).await;
    }
}
