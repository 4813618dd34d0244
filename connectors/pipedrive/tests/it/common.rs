//! A company: an account with customers and orders, and sinks that keep it equal to rows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use serde_json::{Value, json};
use towpath_connector_pipedrive::{PipedriveSink, SinkOptions};
use towpath_core::{
    Change, Checkpoint, Complete, Context, Error, Name, Original, Result, Run, Sink, Verdict, change::Changes,
};
use towpath_testkit::pipedrive::{Entity, FieldType, Pipedrive, PipedriveOptions, Plan, Unsettled};

/// Rows as text: names and then values, `-` for NULL.
pub fn rows(names: &[&str], values: &[&[&str]]) -> RecordBatch {
    let column = |at: usize| {
        let cells = values.iter().map(|row| (row[at] != "-").then_some(row[at]));
        Arc::new(cells.collect::<StringArray>()) as ArrayRef
    };
    let columns = names.iter().enumerate().map(|(at, name)| (*name, column(at), true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Customers: id, name, email.
pub fn customers(values: &[&[&str]]) -> RecordBatch {
    rows(&["id", "name", "email"], values)
}

/// Orders: id, title, total, customer.
pub fn orders(values: &[&[&str]]) -> RecordBatch {
    rows(&["id", "title", "total", "customer"], values)
}

/// An account, and what its sinks are like.
pub struct Company {
    pub server: Pipedrive,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    pub written: u64,
    pub known: u64,
    pub removed: u64,
    /// Reasons.
    pub refused: Vec<String>,
    /// As [`Context::propose`] heard them.
    pub changes: Vec<Change>,
    pub equal: u64,
    pub error: Option<Error>,
}

impl Outcome {
    /// Ends the test if something went wrong.
    pub fn ok(self) -> Self {
        assert!(self.error.is_none() && self.refused.is_empty(), "{self:?}");
        self
    }
    pub fn error(&self) -> String {
        self.error.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

/// Hears differences.
#[derive(Default)]
pub struct Heard {
    withholds: bool,
    changes: Mutex<Vec<Change>>,
    equal: AtomicU64,
    ends: Mutex<Vec<Error>>,
}

impl Changes for Heard {
    fn propose(&self, _: &Name, change: &Change) -> Result<Verdict> {
        self.changes.lock().unwrap().push(change.clone());
        Ok(if self.withholds { Verdict::Withheld } else { Verdict::Send })
    }
    fn equal(&self, _: &Name, rows: u64) {
        self.equal.fetch_add(rows, Ordering::Relaxed);
    }
    fn withholds(&self) -> bool {
        self.withholds
    }
    fn would_end(&self, _: &Name, error: Error) -> Result<()> {
        if !self.withholds {
            return Err(error);
        }
        self.ends.lock().unwrap().push(error);
        Ok(())
    }
}

/// Hears what is logged: of all tests, each in its own thread, because a subscriber of one thread may miss what another one meets first.
pub struct Lines;

thread_local! {
    static SAID: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(vec![]) };
}

impl Lines {
    /// Begins to listen.
    pub fn listen() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Self).unwrap());
        Self::said();
    }
    /// What was said in this thread since it was asked last.
    pub fn said() -> Vec<String> {
        SAID.take()
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::INFO
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        SAID.with_borrow_mut(|said| said.push(message.0));
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// A run's identity; no two are alike.
pub fn run() -> Run {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    Run {
        id: format!("r{}", COUNT.fetch_add(1, Ordering::Relaxed)).into(),
        started: jiff::Timestamp::UNIX_EPOCH,
        parameters: BTreeMap::new(),
        fingerprint: BTreeMap::new(),
    }
}

impl Company {
    /// With the fields `CustomerID` of persons, `OrderID` and `Order date` of deals, and so many tokens that no test meets an end
    /// of them that it does not mean.
    pub async fn new(unsettled: Unsettled) -> Self {
        let options = PipedriveOptions {
            plan: Plan::Ultimate,
            seats: 100,
            burst: Some(1_000_000),
            starts_at: Some(1_790_000_000),
            unsettled,
            ..PipedriveOptions::default()
        };
        let server = Pipedrive::start(options).await;
        server.account().add_demo_fields();
        server.account().fields(Entity::Persons).add_options("Tier", FieldType::Enum, &["gold", "silver"]);
        server.account().fields(Entity::Deals).add("Fee", FieldType::Monetary);
        Self { server }
    }
    /// Both settings of what nobody has established.
    pub async fn both() -> [Self; 2] {
        [Self::new(Unsettled::default()).await, Self::new(Unsettled::other_way()).await]
    }

    /// A sink's options, with others on top.
    pub fn options(&self, base: Value, more: Value) -> SinkOptions {
        let mut options = base;
        options["url"] = json!(self.server.url());
        options["api_token"] = json!("towpath-test-token");
        options["settle"] = json!("10ms");
        for (key, value) in more.as_object().unwrap() {
            options[key] = value.clone();
        }
        serde_json::from_value(options).unwrap()
    }
    /// Persons by customer.
    pub fn persons(&self, more: Value) -> SinkOptions {
        let fields = json!({ "CustomerID": "id", "Name": "name", "Email": "email" });
        self.options(json!({ "entity": "persons", "match_on": "CustomerID", "fields": fields }), more)
    }
    /// Deals by order, linked to persons.
    pub fn deals(&self, more: Value) -> SinkOptions {
        let value = json!({ "column": "total", "currency": { "value": "EUR" } });
        let fields = json!({ "OrderID": "id", "Title": "title", "Value": value });
        let link = json!({ "person_id": { "entity": "persons", "match_on": "CustomerID", "from": "customer" } });
        self.options(json!({ "entity": "deals", "match_on": "OrderID", "fields": fields, "link": link }), more)
    }

    /// A run of sinks, one after the other, as `after` has it: each is given its batches, its input's end, and commits.
    pub async fn run(&self, sinks: Vec<(SinkOptions, Vec<RecordBatch>)>) -> Vec<Outcome> {
        self.run_as(sinks, false, Complete { whole: true, refused: 0 }).await
    }
    /// A run for its differences.
    pub async fn differences(&self, sinks: Vec<(SinkOptions, Vec<RecordBatch>)>) -> Vec<Outcome> {
        self.run_as(sinks, true, Complete { whole: true, refused: 0 }).await
    }
    pub async fn run_as(
        &self,
        sinks: Vec<(SinkOptions, Vec<RecordBatch>)>,
        withholds: bool,
        complete: Complete,
    ) -> Vec<Outcome> {
        self.attempt(&run(), sinks, withholds, complete).await
    }
    /// An attempt of a run.
    pub async fn attempt(
        &self,
        run: &Run,
        sinks: Vec<(SinkOptions, Vec<RecordBatch>)>,
        withholds: bool,
        complete: Complete,
    ) -> Vec<Outcome> {
        let mut open = vec![];
        for (at, (options, batches)) in sinks.into_iter().enumerate() {
            let heard = Arc::new(Heard { withholds, ..Heard::default() });
            let ctx = Context::bare(format!("sink{at}")).with_changes(Arc::clone(&heard) as Arc<dyn Changes>);
            let mut sink = PipedriveSink::new(options).unwrap();
            sink.open(&ctx, run).await.unwrap();
            open.push((sink, heard, batches));
        }
        let mut outcomes = vec![];
        for (sink, heard, batches) in &mut open {
            let mut outcome = Outcome::default();
            let ended = drive(sink, batches, complete, withholds, run, &mut outcome).await.err();
            outcome.error = ended.or_else(|| heard.ends.lock().unwrap().pop());
            outcome.changes = heard.changes.lock().unwrap().clone();
            outcome.equal = heard.equal.load(Ordering::Relaxed);
            outcomes.push(outcome);
        }
        for (mut sink, ..) in open {
            sink.close().await.unwrap();
        }
        outcomes
    }
    /// A run of one sink.
    pub async fn one(&self, options: SinkOptions, batch: RecordBatch) -> Outcome {
        self.run(vec![(options, vec![batch])]).await.remove(0)
    }

    /// The persons: customer, name, primary e-mail address.
    pub fn people(&self) -> Vec<String> {
        let account = self.server.account();
        let line = |person: &towpath_testkit::pipedrive::Record| {
            let email = person.get("emails").as_array().and_then(|all| all.iter().find(|one| one["primary"] == true));
            let email = email.map_or("-", |one| one["value"].as_str().unwrap_or("-"));
            format!("{} {} {email}", text(person.custom("CustomerID")), text(person.get("name")))
        };
        account.persons().iter().map(line).collect()
    }
    /// The deals: order, title, value, currency, customer of the person, status.
    pub fn sales(&self) -> Vec<String> {
        let account = self.server.account();
        let line = |deal: &towpath_testkit::pipedrive::Record| {
            let person = deal.get("person_id").as_u64().and_then(|id| account.record(Entity::Persons, id));
            let customer = person.map_or("-".to_owned(), |person| text(person.custom("CustomerID")));
            let [title, value, currency, status] =
                ["title", "value", "currency", "status"].map(|field| text(deal.get(field)));
            format!("{} {title} {value} {currency} {customer} {status}", text(deal.custom("OrderID")))
        };
        account.deals().iter().map(line).collect()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

async fn drive(
    sink: &mut PipedriveSink,
    batches: &[RecordBatch],
    complete: Complete,
    withholds: bool,
    run: &Run,
    outcome: &mut Outcome,
) -> Result<()> {
    let count = |wrote: towpath_core::Wrote, outcome: &mut Outcome| {
        outcome.written += wrote.written;
        outcome.known += wrote.known;
        outcome.removed += wrote.removed;
        for reject in wrote.rejected {
            if let Original::Late(row) = &reject.row {
                assert_eq!(row.num_rows(), 1);
            }
            outcome.refused.push(reject.reason);
        }
    };
    for (seq, batch) in batches.iter().enumerate() {
        if seq == 0 {
            sink.schema(&batch.schema()).await?;
        }
        count(sink.write(seq as u64, batch.clone()).await?, outcome);
    }
    let refused = outcome.refused.len() as u64 + complete.refused;
    count(sink.complete(Complete { refused, ..complete }).await?, outcome);
    count(sink.flush().await?, outcome);
    if !withholds {
        let checkpoint = Checkpoint { run: run.clone(), epoch: 1, last: true, keyed_by: None, at: BTreeMap::new() };
        sink.commit(&checkpoint).await?;
    }
    Ok(())
}
