//! The suite that every connector passes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is its message")]

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampSecondArray};
use async_trait::async_trait;
use serde_json::{Value, json};
use towpath_connector_pipedrive::{PipedriveSink, PipedriveSource};
use towpath_core::{Sink, Source, WriteMode};
use towpath_testkit::{
    conformance::{
        Comes, Setup, SinkQuirks, SinkTarget, SinkUnderTest, SourceOrigin, SourceQuirks, SourceUnderTest, TypeQuirk,
        sink_cases, sink_report, source,
    },
    memory::Key,
    pipedrive::{Entity, Fault, FieldType, On, Pipedrive, PipedriveOptions, Plan, Record},
};

const TOKEN: &str = "a-token-nobody-sees";

async fn server() -> Pipedrive {
    let server = Pipedrive::start(PipedriveOptions {
        api_token: TOKEN.to_owned(),
        plan: Plan::Ultimate,
        seats: 100,
        burst: Some(1_000_000),
        starts_at: Some(1_790_000_000),
        ..PipedriveOptions::default()
    })
    .await;
    for (name, kind) in [("ID", FieldType::Varchar), ("Note", FieldType::Text)] {
        server.account().fields(Entity::Persons).add(name, kind);
    }
    server
}

/// Persons of which `id` and `name` are custom fields: the suite's rows have names that are null.
struct Target {
    server: Pipedrive,
    /// The column whose values go into the field `Note`.
    column: &'static str,
}

#[async_trait(?Send)]
impl SinkTarget for Target {
    fn sink(&self, setup: &Setup) -> Box<dyn Sink> {
        let options = json!({
            "url": self.server.url(), "api_token": TOKEN, "entity": "persons", "match_on": "ID", "settle": "0s",
            "fields": { "ID": "id", "Note": self.column, "Name": { "value": "Somebody" } },
            "update": setup.mode == WriteMode::Upsert,
        });
        Box::new(PipedriveSink::new(serde_json::from_value(options).unwrap()).unwrap())
    }
    async fn rows(&self) -> Option<Vec<RecordBatch>> {
        let persons = self.server.account().persons();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let column = |name: &str| {
            Arc::new(persons.iter().map(|person| text(person.custom(name))).collect::<StringArray>()) as ArrayRef
        };
        let columns = [("id", column("ID"), true), (self.column, column("Note"), true)];
        Some(vec![RecordBatch::try_from_iter_with_nullable(columns).unwrap()])
    }
    async fn refuse(&self, _: &Setup, name: &str) -> bool {
        self.server.faults().add(On::writes().body(&format!("\"{name}\"")), .., Fault::Status(400));
        true
    }
}

/// Cases that do not apply, for reasons that stand in the README.
const LEFT_OUT: [(&str, &str); 4] = [
    ("a_new_column_is_stored_or_refused", "only the columns that the config names are written"),
    ("texts_arrive_as_they_are", "Pipedrive takes blanks off both ends of a text"),
    ("closing_at_any_time", "Pipedrive has no transactions: what is written is there"),
    (
        "large_batches_and_values_arrive_whole",
        "twenty thousand writes take longer than the suite waits, and no field takes a million letters",
    ),
];

#[tokio::test]
async fn the_sink_keeps_the_contract() {
    let quirks = SinkQuirks {
        by_engine: Some("Pipedrive has no place for a checkpoint"),
        visible_early: Some("Pipedrive has no transactions: what is written is there"),
        cannot_be_dropped: Some("persons cannot be dropped as a whole"),
        empty_is_null: Some("Pipedrive keeps no empty text"),
        no_empty_table: Some("there is always a list of persons"),
        ..SinkQuirks::default()
    };
    let setups = [WriteMode::Upsert, WriteMode::InsertNew];
    let setups = setups.map(|mode| Setup { mode, key: Key::columns(["id"]) }).to_vec();
    let (mut passed, mut broken) = (0, vec![]);
    for case in sink_cases().into_iter().filter(|case| !LEFT_OUT.iter().any(|(out, _)| out == case)) {
        let test = SinkUnderTest::new("pipedrive", || async { Target { server: server().await, column: "name" } });
        let test = test.setups(setups.clone()).quirks(quirks.clone()).secret(TOKEN).only(case);
        let report = sink_report(&test).await;
        passed += report.passed.len();
        broken.extend(report.broken.iter().map(|broken| format!("{}: {}", broken.case, broken.found)));
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(passed >= 20, "only {passed} cases ran");
}

#[tokio::test]
async fn every_type_is_written_as_its_text() {
    let quirk = |of, comes, reason| TypeQuirk { of, comes, reason };
    let quirks = SinkQuirks {
        empty_is_null: Some("Pipedrive keeps no empty text"),
        types: vec![quirk("binary", Comes::Refused, "bytes have no text")],
        ..SinkQuirks::default()
    };
    let test = SinkUnderTest::new("pipedrive", || async { Target { server: server().await, column: "value" } });
    let setup = Setup { mode: WriteMode::Upsert, key: Key::columns(["id"]) };
    let report = sink_report(&test.setups(vec![setup]).quirks(quirks).only("type_")).await;
    assert!(report.passed.len() > 10, "{report}");
    report.check();
}

struct Origin {
    server: Pipedrive,
    more: Value,
}

fn stamp(record: &Record) -> i64 {
    record.update_time.parse::<jiff::Timestamp>().unwrap().as_second()
}

#[async_trait(?Send)]
impl SourceOrigin for Origin {
    fn source(&self) -> Box<dyn Source> {
        let mut options = json!({
            "url": self.server.url(), "api_token": TOKEN, "entity": "persons", "page_size": 20,
            "fields": ["name", "ID", "is_deleted"],
        });
        for (key, value) in self.more.as_object().unwrap() {
            options[key] = value.clone();
        }
        let options = serde_json::from_value(options).unwrap();
        Box::new(PipedriveSource::new(&"origin".into(), options).unwrap())
    }
    async fn rows(&self) -> Vec<RecordBatch> {
        let persons = self.server.account().persons();
        let ids = persons.iter().map(|person| person.id as i64).collect::<Int64Array>();
        let times = TimestampSecondArray::from_iter_values(persons.iter().map(stamp)).with_timezone("UTC");
        let names = persons.iter().map(|person| person.get("name").as_str()).collect::<StringArray>();
        let keys = persons.iter().map(|person| person.custom("ID").as_str()).collect::<StringArray>();
        let columns: [(&str, ArrayRef, bool); 5] = [
            ("id", Arc::new(ids), true),
            ("update_time", Arc::new(times), true),
            ("name", Arc::new(names), true),
            ("ID", Arc::new(keys), true),
            ("is_deleted", Arc::new(BooleanArray::from(vec![false; persons.len()])), true),
        ];
        vec![RecordBatch::try_from_iter_with_nullable(columns).unwrap()]
    }
    async fn change(&self) -> bool {
        let account = self.server.account();
        self.server.clock().advance(std::time::Duration::from_secs(60));
        for person in account.persons() {
            account.edit(Entity::Persons, person.id, json!({ "name": "Other" }));
        }
        true
    }
    async fn truncate(&self) -> bool {
        self.server.faults().add(On::route("GET", "/api/v2/persons"), 2.., Fault::CutBody(50));
        true
    }
}

async fn origin(more: Value) -> Origin {
    let server = server().await;
    let account = server.account();
    // Seconds with one record, with a few, and with more than a page has.
    for (seconds, each) in [(25, 1), (4, 7), (1, 60)] {
        for _ in 0..seconds {
            server.clock().advance(std::time::Duration::from_secs(1));
            let first = account.persons().len();
            account.seed(
                Entity::Persons,
                (0..each).map(|n| json!({ "name": format!("P{}", first + n), "custom_fields": { "ID": format!("{}", first + n) } })),
            );
        }
    }
    Origin { server, more }
}

#[tokio::test]
async fn the_source_keeps_the_contract() {
    for more in [json!({}), json!({ "incremental": false })] {
        let quirks =
            SourceQuirks { unordered: Some("records of one second come in no order"), ..SourceQuirks::default() };
        let given = more.clone();
        let test = SourceUnderTest::new("pipedrive", move || origin(given.clone())).quirks(quirks).secret(TOKEN);
        source(&test).await;
    }
}
