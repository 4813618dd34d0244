//! The suite that every source passes.

use arrow_array::RecordBatch;
use async_trait::async_trait;
use serde_json::{Value, json};
use towpath_connector_mssql::MssqlSource;
use towpath_core::Source;
use towpath_testkit::conformance::{SourceOrigin, SourceQuirks, SourceUnderTest, source};

use crate::common::{PASSWORD, Place, Server};

struct Origin {
    place: Place,
    options: Value,
}

#[async_trait(?Send)]
impl SourceOrigin for Origin {
    fn source(&self) -> Box<dyn Source> {
        let mut options = self.options.clone();
        options["connection"] = json!(self.place.url);
        options["table"] = json!(format!("{}.t", self.place.schema));
        Box::new(MssqlSource::new(&"origin".into(), serde_json::from_value(options).unwrap()).unwrap())
    }
    async fn rows(&self) -> Vec<RecordBatch> {
        self.place.read(json!({"cursor": "id"})).await
    }
    async fn change(&self) -> bool {
        if self.options.get("cursor").is_some() {
            return false;
        }
        self.place.ask("UPDATE $.t SET name = name + N'!'").await;
        true
    }
}

/// The suite on a server, for each way of reading.
pub async fn suite(url: &str) {
    for options in
        [json!({}), json!({"cursor": "id"}), json!({"partitions": 3}), json!({"partitions": 3, "cursor": "id"})]
    {
        let cursor = options.get("cursor").is_some();
        let ranges = options.get("partitions").is_some();
        let quirks = SourceQuirks {
            never_changes: cursor.then_some("rows that change behind the cursor are not seen"),
            never_truncated: Some("tried apart, by cutting the connection"),
            unordered: (ranges || !cursor).then_some("a table has no order of its own"),
            ..SourceQuirks::default()
        };
        let url = url.to_owned();
        let origin = move || {
            let (options, url) = (options.clone(), url.clone());
            async move {
                let place = Place::new(&url).await;
                place.ask("CREATE TABLE $.t (id int PRIMARY KEY, name nvarchar(20))").await;
                place.ask("INSERT INTO $.t VALUES (1, N'n1')").await;
                let mut have = 1;
                while have < 30_000 {
                    let more = have.min(30_000 - have);
                    let sql = format!(
                        "INSERT INTO $.t SELECT id + {have}, N'n' + CONVERT(nvarchar(10), id + {have}) FROM $.t WHERE id <= {more}"
                    );
                    place.ask(&sql).await;
                    have += more;
                }
                Origin { place, options }
            }
        };
        let only = std::env::var("TOWPATH_ONLY").unwrap_or_default();
        source(&SourceUnderTest::new("mssql", origin).quirks(quirks).only(&only).secret(PASSWORD)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_source_keeps_its_promises_on_a_real_server() {
    if let Some(server) = Server::real().await {
        suite(&server.url).await;
    }
}
