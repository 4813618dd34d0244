//! Nothing but what is ours is logged: the driver's own words about errors that are handled are not. A process of its own, because who listens is the
//! process's matter.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failure in a test is its message")]

mod common;

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use common::{Server, rows, run};
use serde_json::json;
use towpath_core::{Context, Sink as _};
use towpath_testkit::sql_server::{Fault, What, When};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Hears all that is said.
struct Ears(Arc<Mutex<Vec<String>>>);

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {value:?}");
    }
}

impl Subscriber for Ears {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        *of.level() <= Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut words = Words(event.metadata().target().to_owned());
        event.record(&mut words);
        self.0.lock().unwrap().push(words.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_driver_is_not_heard() {
    let heard = Arc::new(Mutex::new(vec![]));
    tracing::subscriber::set_global_default(Ears(Arc::clone(&heard))).unwrap();
    let server = Server::simulated().await;
    let (simulator, place) = (server.simulator.as_ref().unwrap(), server.place().await);
    let errors = || simulator.log().count(|event| matches!(event, towpath_testkit::sql_server::Event::Error { .. }));
    // A row that is found by trying.
    place.ask("CREATE TABLE $.t (id int NOT NULL, a int NULL, CONSTRAINT other CHECK (100 / a > 0))").await;
    let loaded = place.load(json!({"write": "append"}), &[rows("id:int|a:int\n1|1\n2|0\n3|1")]).await.unwrap();
    assert_eq!(loaded.counts(), (2, 0, 1));
    // A bulk load, a reading and a sign-in that the server refuses.
    for (matching, what) in [("INSERT BULK", What::Error(1222)), ("SELECT TOP 0", What::Error(1222))] {
        simulator.faults().add(Fault { when: When::Matching(matching.into(), 0), what });
        let _ = place.load(json!({"write": "append"}), &[rows("id:int|a:int\n4|1")]).await;
    }
    let options = json!({"connection": format!("mssql://sa:wrong@{}/towpath?encrypt=off", simulator.address()), "table": "t", "write": "append"});
    let mut sink =
        towpath_connector_mssql::MssqlSink::new(&"sink".into(), serde_json::from_value(options).unwrap()).unwrap();
    sink.open(&Context::bare("sink"), &run("r")).await.unwrap_err();
    assert!(errors() > 2, "the server has refused something: {}", errors());
    let heard = heard.lock().unwrap();
    assert!(!heard.iter().any(|words| words.starts_with("tiberius")), "{heard:#?}");
}
