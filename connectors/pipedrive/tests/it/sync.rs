//! What a run sends, and what the account holds then.

use serde_json::json;
use towpath_core::{Action, Sink as _};
use towpath_testkit::pipedrive::{Entity, Fault, Kind, On};

use crate::common::{Company, customers, orders, rows};

#[tokio::test]
async fn the_missing_are_made_the_unequal_are_changed_the_equal_are_left_alone() {
    for company in Company::both().await {
        let persons =
            || (company.persons(json!({})), vec![customers(&[&["C1", "Ada  Lovelace", "a@x"], &["C2", "Bob", "-"]])]);
        let deals = |total| {
            let batch =
                orders(&[&["O1", "First", total, "C1"], &["O2", "Second", "0.10", "C2"], &["O3", "Third", "-", "-"]]);
            (company.deals(json!({})), vec![batch])
        };
        let outcomes = company.run(vec![persons(), deals("1234567.89")]).await;
        assert_eq!(outcomes.into_iter().map(|outcome| outcome.ok().written).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(company.people(), ["C1 Ada  Lovelace a@x", "C2 Bob -"].map(|line| line.replace("  ", " ")));
        assert_eq!(
            company.sales(),
            ["O1 First 1234567.89 EUR C1 open", "O2 Second 0.1 EUR C2 open", "O3 Third 0 EUR - open"]
        );
        let log = company.server.log();
        log.clear();
        for outcome in company.run(vec![persons(), deals("1234567.89")]).await {
            let outcome = outcome.ok();
            assert_eq!((outcome.written, outcome.known), (0, outcome.equal), "nothing needs anything");
        }
        assert_eq!(log.writes(), 0);
        // Persons are listed once, though the deals look them up as well.
        assert_eq!((log.count(Kind::List), log.count(Kind::Fields), log.len()), (3, 2, 5));

        log.clear();
        let outcomes = company.run(vec![persons(), deals("1234567.88")]).await;
        assert_eq!(outcomes.into_iter().map(|outcome| outcome.ok().written).collect::<Vec<_>>(), [0, 1]);
        let updates: Vec<_> = log.calls().into_iter().filter(|call| call.is_write()).collect();
        assert_eq!(updates.len(), 1);
        assert_eq!(
            (updates[0].method.as_str(), updates[0].body.clone()),
            ("PATCH", Some(json!({ "value": 1234567.88 })))
        );
    }
}

#[tokio::test]
async fn differences_are_said_and_none_is_sent() {
    let [company, _] = Company::both().await;
    company.server.account().add(Entity::Persons, json!({ "name": "Bob", "custom_fields": { "CustomerID": "C2" } }));
    let persons = || (company.persons(json!({})), vec![customers(&[&["C1", "Ada", "a@x"], &["C2", "Bobby", "-"]])]);
    let deals =
        || (company.deals(json!({})), vec![orders(&[&["O1", "First", "7.50", "C1"], &["O2", "Second", "1", "C2"]])]);
    let before = (company.people(), company.sales());
    let planned = company.differences(vec![persons(), deals()]).await;
    assert_eq!((company.people(), company.sales()), before);
    assert_eq!(company.server.log().writes(), 0);
    let shown: Vec<_> = planned.iter().flat_map(|outcome| &outcome.changes).map(|change| json!(change)).collect();
    insta::assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap());
    // The run does what the plan said, word for word.
    let done = company.run(vec![persons(), deals()]).await;
    let changes = |outcomes: &[crate::common::Outcome]| {
        outcomes.iter().flat_map(|outcome| outcome.changes.clone()).collect::<Vec<_>>()
    };
    assert_eq!(changes(&planned), changes(&done));
    assert_eq!(company.server.log().writes(), 4);
}

#[tokio::test]
async fn links_are_shown_by_id_and_key_in_a_plan_as_in_its_run() {
    let [company, _] = Company::both().await;
    let account = company.server.account();
    let person =
        |key: &str| account.add(Entity::Persons, json!({ "name": key, "custom_fields": { "CustomerID": key } }));
    let (ada, bob) = (person("C1"), person("C2"));
    let deal = |key: &str| {
        account.add(Entity::Deals, json!({ "title": "T", "person_id": bob, "custom_fields": { "OrderID": key } }))
    };
    for key in ["O1", "O2", "O3"] {
        deal(key);
    }
    let persons = || {
        let people: [&[&str]; 4] = [&["C1", "C1", "-"], &["C2", "C2", "-"], &["C3", "C3", "-"], &["C4", "C4", "-"]];
        (company.persons(json!({})), vec![customers(&people)])
    };
    // One of them comes twice, linked to what is yet to be made both times.
    let batches = || {
        let first = orders(&[&["O1", "T", "-", "C1"], &["O2", "T", "-", "C3"], &["O3", "T", "-", "-"]]);
        vec![first, orders(&[&["O2", "T", "-", "C4"]])]
    };
    let links = |outcome: &crate::common::Outcome| {
        let fields = outcome.changes.iter().flat_map(|change| &change.fields);
        fields.map(|field| json!([field.old, field.new])).collect::<Vec<_>>()
    };
    let run = async |withholds: bool| {
        let sinks = vec![persons(), (company.deals(json!({})), batches())];
        let outcomes = company.run_as(sinks, withholds, towpath_core::Complete { whole: true, refused: 0 }).await;
        links(&outcomes[1])
    };
    let (key, id) = (|key: &str| json!({ "key": key }), |id: u64| json!({ "id": id }));
    let both = |id: u64| json!({ "id": id, "key": "C1" });
    let expected = [
        json!([id(bob), both(ada)]),
        json!([id(bob), key("C3")]),
        json!([id(bob), null]),
        json!([key("C3"), key("C4")]),
    ];
    assert_eq!(run(true).await, expected);
    // Another one has the key now: it is another change.
    account.delete(Entity::Persons, ada);
    let other = person("C1");
    let changed = run(true).await;
    assert_eq!((&changed[0], &changed[1..]), (&json!([id(bob), both(other)]), &expected[1..]));
    let done = run(false).await;
    assert_eq!(done, changed, "the run reads as its plan, though it has made what it links");
}

#[tokio::test]
async fn an_attempt_after_the_one_that_made_a_record_shows_it_alike() {
    let [company, _] = Company::both().await;
    let run = crate::common::run();
    let mut shown = vec![];
    for _ in 0..2 {
        let persons = (company.persons(json!({})), vec![customers(&[&["C1", "Ada", "-"]])]);
        let deals = (company.deals(json!({})), vec![orders(&[&["O1", "a", "1", "C1"]])]);
        let complete = towpath_core::Complete { whole: true, refused: 0 };
        let outcomes = company.attempt(&run, vec![persons, deals], false, complete).await;
        shown.push(outcomes[1].changes[0].fields.last().unwrap().clone());
        let account = company.server.account();
        account.delete(Entity::Deals, account.deals()[0].id);
    }
    assert_eq!((shown[0].new.clone(), &shown[1]), (Some(json!({ "key": "C1" })), &shown[0]));
}

#[tokio::test]
async fn ten_thousand_that_are_equal_cost_their_pages_only() {
    let [company, _] = Company::both().await;
    company.server.account().seed_demo(10_000, 10_000);
    let value = |n: usize| format!("{}", n as f64 * 1001.0 / 100.0);
    let range = |n: std::ops::Range<usize>| n.map(|n| [format!("C{n}"), format!("Customer {n}"), "-".to_owned()]);
    let people: Vec<_> = range(1..10_001).collect();
    let people: Vec<Vec<&str>> = people.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let people: Vec<&[&str]> = people.iter().map(Vec::as_slice).collect();
    let sales = |changed: usize| {
        let rows: Vec<_> = (1..10_001)
            .map(|n| {
                let title = if n <= changed { format!("New {n}") } else { format!("Order {n}") };
                [format!("O{n}"), title, value(n), format!("C{n}")]
            })
            .collect();
        let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
        orders(&rows)
    };
    let run = async |changed: usize| {
        company.server.log().clear();
        let persons = (company.persons(json!({})), people.chunks(4096).map(customers).collect());
        let deals = (company.deals(json!({})), vec![sales(changed)]);
        company.run(vec![persons, deals]).await.into_iter().map(|outcome| outcome.ok().written).sum::<u64>()
    };
    let log = company.server.log();
    assert_eq!(run(0).await, 0);
    assert_eq!((log.writes(), log.count_of(Kind::List, Entity::Persons)), (0, 20));
    // One of them looks for deals that were put away.
    assert_eq!((log.count_of(Kind::List, Entity::Deals), log.count(Kind::Fields), log.len()), (21, 2, 43));
    assert_eq!(run(100).await, 100);
    assert_eq!((log.count(Kind::Update), log.count(Kind::Create), log.len()), (100, 0, 143));
}

#[tokio::test]
async fn every_type_of_field_is_written_and_comes_back_equal() {
    use towpath_testkit::pipedrive::FieldType;
    for company in Company::both().await {
        let account = company.server.account();
        account.add_user("Jo Doe", "jo@x");
        let (_, stages) = account.add_pipeline("Outlet", &["New", "Done"]);
        let fields = account.fields(Entity::Deals);
        for (name, kind) in [
            ("Text", FieldType::Text),
            ("Double", FieldType::Double),
            ("Time", FieldType::Time),
            ("Phone", FieldType::Phone),
            ("Address", FieldType::Address),
        ] {
            fields.add(name, kind);
        }
        fields.add_options("Set", FieldType::Set, &["a", "b", "c"]);
        fields.add_options("Enum", FieldType::Enum, &["x", "y"]);
        let names = [
            "OrderID",
            "Title",
            "Order date",
            "Text",
            "Double",
            "Time",
            "Phone",
            "Address",
            "Set",
            "Enum",
            "Owner",
            "Pipeline",
            "Stage",
            "Status",
        ];
        let mut map: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!(name))).collect();
        map.insert("Fee".to_owned(), json!({ "column": "fee", "currency": "code" }));
        let columns = [&names[..], &["fee", "code"]].concat();
        let options = || company.deals(json!({ "fields": map, "link": {}, "pipeline": "Outlet" }));
        let full = [
            "O1",
            " A title ",
            "2026-01-31",
            "x\ny",
            "0.30",
            "07:30",
            "+1 2",
            "Main St 1",
            "c, a",
            "y",
            "jo@x",
            "Outlet",
            "Done",
            "won",
            "10.20",
            "usd",
        ];
        company.one(options(), rows(&columns, &[&full])).await.ok();
        let deal = account.deals().remove(0);
        assert_eq!(deal.get("title"), "A title");
        assert_eq!(deal.get("stage_id"), &json!(stages[1]));
        assert_eq!(deal.custom("Fee"), &json!({ "value": 10.2, "currency": "USD" }));
        assert_eq!(deal.custom("Set").as_array().unwrap().len(), 2);
        company.server.log().clear();
        company.one(options(), rows(&columns, &[&full])).await.ok();
        assert_eq!(company.server.log().writes(), 0, "it is equal then");
        let bare =
            ["O1", "A title", "-", "-", "-", "-", "-", "-", "-", "-", "jo@x", "Outlet", "Done", "open", "-", "-"];
        company.one(options(), rows(&columns, &[&bare])).await.ok();
        let deal = account.deals().remove(0);
        assert_eq!(deal.custom.keys().collect::<Vec<_>>(), ["OrderID"], "what is empty is cleared");
        company.server.log().clear();
        company.one(options(), rows(&columns, &[&bare])).await.ok();
        assert_eq!(company.server.log().writes(), 0);
    }
}

#[tokio::test]
async fn rows_of_one_key_are_counted_and_said_once() {
    let [company, _] = Company::both().await;
    let batches = || {
        let first: [&[&str]; 5] =
            [&["C1", "a", "-"], &["C2", "a", "-"], &["C1", "b", "-"], &["C3", "-", "-"], &["C1", "c", "-"]];
        vec![customers(&first), customers(&[&["C2", "a", "-"], &["C4", "a", "-"]])]
    };
    for withholds in [true, false] {
        crate::common::Lines::listen();
        let complete = towpath_core::Complete { whole: true, refused: 0 };
        let sinks = vec![(company.persons(json!({})), batches())];
        let outcome = company.run_as(sinks, withholds, complete).await.remove(0);
        let counts = (outcome.written, outcome.known, outcome.equal, outcome.refused.len(), outcome.changes.len());
        assert_eq!(counts, (3, 3, 3, 1, 3), "seven rows: {outcome:?}");
        let said = crate::common::Lines::said();
        let about: Vec<_> = said.iter().filter(|line| line.contains("have given way")).collect();
        assert_eq!(
            about,
            [
                "persons: 3 rows have given way to later ones of the same CustomerID, with 2 keys such as C1, C2; make them one in the query, or those \
                 that are far apart are written in every run"
            ]
        );
    }
    let mut people = company.people();
    people.sort();
    assert_eq!(people, ["C1 c -", "C2 a -", "C4 a -"]);
}

#[tokio::test]
async fn an_amount_without_a_currency_is_in_the_companys() {
    for company in Company::both().await {
        let part = |column: &str| json!({ "column": column, "currency": "code" });
        let fields = json!({ "OrderID": "id", "Title": "id", "Value": part("total"), "Fee": part("total") });
        let run = async |total: &str| {
            company.server.log().clear();
            let rows = rows(&["id", "total", "code"], &[&["O1", total, "-"], &["O2", total, "usd"]]);
            let outcome = company.one(company.deals(json!({ "fields": fields, "link": {} })), rows).await.ok();
            let sent = company.server.log().calls().into_iter().filter(|call| call.is_write());
            (outcome.written, sent.map(|call| call.body.unwrap()["value"].clone()).collect::<Vec<_>>())
        };
        assert_eq!(run("10").await, (2, vec![json!(10), json!(10)]));
        assert_eq!(run("10").await, (0, vec![]), "it is equal then");
        assert_eq!(run("11").await, (2, vec![json!(11), json!(11)]));
        assert_eq!(run("11").await, (0, vec![]));
        assert_eq!(company.sales(), ["O1 O1 11 EUR - open", "O2 O2 11 USD - open"]);
        let fee = company.server.account().deals()[0].custom("Fee").clone();
        assert_eq!(fee, json!({ "value": 11, "currency": "EUR" }));
    }
}

#[tokio::test]
async fn rows_are_refused_for_reasons_of_their_own_and_the_run_goes_on() {
    let [company, _] = Company::both().await;
    let fields = json!({ "CustomerID": "id", "Name": "name", "Tier": "tier" });
    let batch = rows(
        &["id", "name", "tier"],
        &[
            &["C1", "Ada", "gold"],
            &["C2", "Bob", "iron"],
            &["-", "Nobody", "-"],
            &["C3", "-", "-"],
            &["C4", &"x".repeat(300), "-"],
            &["C5", "Old", "-"],
            &["C5", "New", "silver"],
        ],
    );
    let outcome = company.one(company.persons(json!({ "fields": fields })), batch).await;
    assert_eq!((outcome.written, outcome.known), (2, 1), "{outcome:?}");
    insta::assert_snapshot!(outcome.refused.join("\n"));
    assert_eq!(company.people(), ["C1 Ada -", "C5 New -"]);
    // A deal whose customer failed fails as well, and no other.
    let outcome =
        company.one(company.deals(json!({})), orders(&[&["O1", "a", "1", "C2"], &["O2", "b", "2", "C1"]])).await;
    assert_eq!(outcome.refused, ["person_id: there is no person with CustomerID = C2"]);
    assert_eq!(company.sales(), ["O2 b 2 EUR C1 open"]);
}

#[tokio::test]
async fn what_is_wrong_with_the_config_is_said_before_anything_is_sent() {
    let [company, _] = Company::both().await;
    let account = company.server.account();
    account.fields(Entity::Persons).add("Twice", towpath_testkit::pipedrive::FieldType::Varchar);
    account.fields(Entity::Persons).add("Twice", towpath_testkit::pipedrive::FieldType::Varchar);
    let batch = customers(&[&["C1", "Ada", "-"]]);
    let mut said = vec![];
    for more in [
        json!({ "match_on": "Customer ID", "fields": { "Customer ID": "id", "Name": "name" } }),
        json!({ "fields": { "CustomerID": "id", "Name": "name", "Twice": "email" } }),
        json!({ "fields": { "CustomerID": "id", "Name": "nam" } }),
        json!({ "fields": { "CustomerID": "id" } }),
        json!({ "owner": "Nobody" }),
        json!({ "fields": { "CustomerID": "id", "First name": "name" }, "create": false }),
    ] {
        let outcome = company.one(company.persons(more), batch.clone()).await;
        let hint = outcome.error.as_ref().and_then(|error| error.what_to_do()).unwrap_or_default();
        let key = account.fields(Entity::Persons).key("Twice").unwrap();
        said.push(format!("{}\n  {hint}", outcome.error()).replace(&key, "[key]"));
    }
    let said = said.join("\n");
    insta::with_settings!({ filters => vec![("[0-9a-f]{40}", "[key]")] }, { insta::assert_snapshot!(said); });
    assert_eq!(company.server.log().writes(), 0);
}

#[tokio::test]
async fn keys_are_kept_with_their_account() {
    let [company, _] = Company::both().await;
    let keyed_by = async || {
        let mut sink = towpath_connector_pipedrive::PipedriveSink::new(company.persons(json!({}))).unwrap();
        sink.open(&towpath_core::Context::bare("persons"), &crate::common::run()).await.unwrap();
        sink.schema(&customers(&[]).schema()).await.unwrap().unwrap()
    };
    let fields = company.server.account().fields(Entity::Persons);
    let before = keyed_by().await;
    let key = fields.key("CustomerID").unwrap();
    assert!(before.ends_with(&format!("persons {key}")) && before.contains(&company.server.url()), "{before}");
    // Another field takes the name: the engine compares, and stops.
    fields.rename(&key, "Old CustomerID");
    fields.add("CustomerID", towpath_testkit::pipedrive::FieldType::Varchar);
    assert_ne!(keyed_by().await, before);
}

#[tokio::test]
async fn pages_that_shift_make_nothing_twice() {
    for company in Company::both().await {
        let account = company.server.account();
        let body = |n: u32| json!({ "name": format!("P{n}"), "custom_fields": { "CustomerID": format!("C{n}") } });
        let ids = account.seed(Entity::Persons, (0..30).map(body));
        // Between two pages somebody deletes a record of the first one, and makes another.
        let (gone, extra) = (ids[3], body(99));
        let change = Fault::afterwards(move |account| {
            account.delete(Entity::Persons, gone);
            account.add(Entity::Persons, extra.clone());
        });
        company.server.faults().add(On::route("GET", "/api/v2/persons"), 0..1, change);
        let names: Vec<_> = (0..31).map(|n| [format!("C{n}"), format!("P{n}")]).collect();
        let values: Vec<[&str; 3]> = names.iter().map(|[id, name]| [id.as_str(), name.as_str(), "-"]).collect();
        let values: Vec<&[&str]> = values.iter().map(<[&str; 3]>::as_slice).collect();
        let outcome = company.one(company.persons(json!({ "page_size": 10 })), customers(&values)).await.ok();
        let mut people = company.people();
        people.sort();
        people.dedup();
        assert_eq!(people.len(), company.people().len(), "nobody is there twice");
        // The one who was deleted in between is known to be there; the next run makes it again.
        assert!(outcome.written <= 2, "{outcome:?}");
        company.one(company.persons(json!({})), customers(&values)).await.ok();
        assert_eq!(company.people().len(), 32);
        let creates = company.one(company.persons(json!({})), customers(&values)).await.changes;
        assert!(creates.iter().all(|change| change.action != Action::Create));
    }
}
