//! For any rows and any state of the account: after a run it holds what the rows and the policies say, less what was refused; a second
//! run writes nothing; and the plan said before what the run did.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use towpath_core::Change;
use towpath_testkit::pipedrive::{Entity, Unsettled};

use crate::common::{Company, Outcome, customers, orders};

/// A person of the account: customer, name, address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Person {
    key: Option<String>,
    name: String,
    email: Option<String>,
}

/// A deal of the account: order, title, cents, customer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deal {
    key: Option<String>,
    title: String,
    cents: i64,
    customer: Option<String>,
}

#[derive(Clone, Debug)]
struct Policies {
    on_duplicate: &'static str,
    only_empty: bool,
    create: bool,
    update: bool,
    deletes: bool,
}

#[derive(Clone, Debug)]
struct Case {
    other_way: bool,
    persons: Vec<Person>,
    deals: Vec<(Option<String>, String, i64, Option<usize>)>,
    customers: Vec<(Option<String>, Option<String>, Option<String>)>,
    orders: Vec<(Option<String>, String, i64, Option<String>)>,
    policies: Policies,
}

fn key(prefix: &'static str) -> impl Strategy<Value = Option<String>> {
    prop_oneof![1 => Just(None), 12 => (0..6u8).prop_map(move |n| Some(format!("{prefix}{n}")))]
}

fn policies() -> impl Strategy<Value = Policies> {
    let duplicates = prop_oneof![Just("error"), Just("first"), Just("newest")];
    let often = || prop_oneof![4 => Just(true), 1 => Just(false)];
    (duplicates, any::<bool>(), often(), often(), any::<bool>()).prop_map(
        |(on_duplicate, only_empty, create, update, deletes)| Policies {
            on_duplicate,
            only_empty,
            create,
            update,
            deletes,
        },
    )
}

prop_compose! {
    fn case()(
        other_way in any::<bool>(),
        persons in prop::collection::vec((key("C"), "[a-c]", prop::option::of("[xy]@z")), 0..7),
        deals in prop::collection::vec((key("O"), "[a-c]", 0..400i64, prop::option::of(0..7usize)), 0..7),
        customers in prop::collection::vec((key("C"), prop::option::weighted(0.9, "[a-c]"), prop::option::of("[xy]@z")), 0..8),
        orders in prop::collection::vec((key("O"), "[a-c]", 0..400i64, key("C")), 0..8),
        policies in policies(),
    ) -> Case {
        let person = |(key, name, email)| Person { key, name, email };
        Case { other_way, persons: persons.into_iter().map(person).collect(), deals, customers, orders, policies }
    }
}

/// Rows that count: the last one of each key; and how many have none.
fn last<T: Clone>(rows: &[T], key: impl Fn(&T) -> Option<String>) -> (Vec<T>, usize) {
    let counts = |(at, row): (usize, &T)| {
        let mine = key(row)?;
        (!rows[at + 1..].iter().any(|later| key(later).as_ref() == Some(&mine))).then(|| row.clone())
    };
    let keyless = rows.iter().filter(|row| key(row).is_none()).count();
    (rows.iter().enumerate().filter_map(counts).collect(), keyless)
}

/// Which of several has the key; an error if nothing says which.
fn the_one(all: &[usize], policy: &str) -> Result<Option<usize>, ()> {
    match (all, policy) {
        ([], _) => Ok(None),
        ([one], _) | ([one, ..], "first") | ([.., one], "newest") => Ok(Some(*one)),
        _ => Err(()),
    }
}

/// What the account should hold, by a simpler way of thinking.
fn expected(case: &Case) -> (Vec<Person>, Vec<Deal>, [usize; 2]) {
    let Policies { on_duplicate, only_empty, create, update, deletes } = case.policies;
    let mut persons: Vec<Option<Person>> = case.persons.iter().cloned().map(Some).collect();
    let with = |persons: &[Option<Person>], key: &str| -> Vec<usize> {
        let is = |person: &Option<Person>| person.as_ref().is_some_and(|person| person.key.as_deref() == Some(key));
        (0..persons.len()).filter(|at| is(&persons[*at])).collect()
    };
    let (rows, mut refused) = last(&case.customers, |row| row.0.clone());
    for (key, name, email) in &rows {
        let key = key.clone().unwrap();
        let Some(name) = name.clone() else {
            refused += 1;
            continue;
        };
        match the_one(&with(&persons, &key), on_duplicate) {
            Err(()) => refused += 1,
            Ok(None) if create => persons.push(Some(Person { key: Some(key), name, email: email.clone() })),
            Ok(Some(at)) if update => {
                let person = persons[at].as_mut().unwrap();
                if !only_empty {
                    person.name = name;
                }
                if email.is_some() && (!only_empty || person.email.is_none()) {
                    person.email = email.clone();
                }
            }
            Ok(_) => {}
        }
    }
    if deletes && refused == 0 {
        let given: Vec<_> = rows.iter().filter_map(|row| row.0.clone()).collect();
        for person in &mut persons {
            let gone = person.as_ref().and_then(|person| person.key.clone()).is_some_and(|key| !given.contains(&key));
            if gone {
                *person = None;
            }
        }
    }
    // Whether a deal keeps the id of a person that was deleted is not looked at.
    let mut deals: Vec<Deal> = case
        .deals
        .iter()
        .map(|(key, title, cents, person)| {
            let there =
                person.filter(|at| *at < case.persons.len()).and_then(|at| persons.get(at)).and_then(Option::as_ref);
            let customer = there.map(|person| person.key.clone().unwrap_or("-".to_owned()));
            Deal { key: key.clone(), title: title.clone(), cents: *cents, customer }
        })
        .collect();
    let (rows, mut deals_refused) = last(&case.orders, |row| row.0.clone());
    for (key, title, cents, customer) in rows {
        if let Some(customer) = &customer
            && !matches!(the_one(&with(&persons, customer), "first"), Ok(Some(_)))
        {
            deals_refused += 1;
            continue;
        }
        let same: Vec<usize> = (0..deals.len()).filter(|at| deals[*at].key == key).collect();
        let deal = Deal { key, title, cents, customer };
        match the_one(&same, "first") {
            Ok(Some(at)) => deals[at] = deal,
            _ => deals.push(deal),
        }
    }
    (persons.into_iter().flatten().collect(), deals, [refused, deals_refused])
}

async fn prepared(case: &Case) -> Company {
    let company = Company::new(if case.other_way { Unsettled::other_way() } else { Unsettled::default() }).await;
    let account = company.server.account();
    let mut ids = vec![];
    for Person { key, name, email } in &case.persons {
        let emails = email.iter().map(|email| json!({ "value": email, "primary": true })).collect::<Vec<_>>();
        ids.push(
            account.add(
                Entity::Persons,
                json!({ "name": name, "emails": emails, "custom_fields": { "CustomerID": key } }),
            ),
        );
    }
    for (key, title, cents, person) in &case.deals {
        let person = person.and_then(|at| ids.get(at));
        let value = *cents as f64 / 100.0;
        account.add(
            Entity::Deals,
            json!({ "title": title, "value": value, "person_id": person, "custom_fields": { "OrderID": key } }),
        );
    }
    company.server.log().clear();
    company
}

async fn run(company: &Company, case: &Case, plan: bool) -> Vec<Outcome> {
    let Policies { on_duplicate, only_empty, create, update, deletes } = &case.policies;
    let missing = if *deletes { "delete" } else { "keep" };
    let persons = company.persons(json!({
        "on_duplicate_match": on_duplicate, "only_empty": only_empty, "create": create, "update": update,
        "on_missing": missing, "max_deletes": "100%",
    }));
    let first = "first";
    let person = json!({
        "entity": "persons", "match_on": "CustomerID", "from": "customer", "on_duplicate_match": first,
    });
    let deals = company.deals(json!({ "on_duplicate_match": first, "link": { "person_id": person } }));
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let customer_rows: Vec<[String; 3]> =
        case.customers.iter().map(|(key, name, email)| [text(key), text(name), text(email)]).collect();
    let order_rows: Vec<[String; 4]> = case
        .orders
        .iter()
        .map(|(key, title, cents, customer)| {
            [text(key), title.clone(), format!("{}.{:02}", cents / 100, cents % 100), text(customer)]
        })
        .collect();
    let customer_rows: Vec<Vec<&str>> =
        customer_rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let order_rows: Vec<Vec<&str>> = order_rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let customer_rows = customers(&customer_rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let order_rows = orders(&order_rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let sinks = vec![(persons, vec![customer_rows]), (deals, vec![order_rows])];
    if plan { company.differences(sinks).await } else { company.run(sinks).await }
}

fn held(company: &Company) -> (Vec<Person>, Vec<Deal>) {
    let account = company.server.account();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let persons = account.persons().into_iter().map(|person| {
        let emails = person.get("emails").as_array().cloned().unwrap_or_default();
        let email = emails.iter().find(|email| email["primary"] == true).and_then(|email| text(&email["value"]));
        Person { key: text(person.custom("CustomerID")), name: text(person.get("name")).unwrap(), email }
    });
    let deals = account.deals().into_iter().map(|deal| {
        let person = deal.get("person_id").as_u64().and_then(|id| account.record(Entity::Persons, id));
        let person = person.filter(|person| !person.is_deleted);
        let cents = (deal.get("value").as_f64().unwrap() * 100.0).round() as i64;
        Deal {
            key: text(deal.custom("OrderID")),
            title: text(deal.get("title")).unwrap(),
            cents,
            customer: person.map(|person| text(person.custom("CustomerID")).unwrap_or("-".to_owned())),
        }
    });
    (sorted(persons.collect()), sorted(deals.collect()))
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort();
    all
}

fn changes(outcomes: &[Outcome]) -> Vec<String> {
    let text = |change: &Change| json!(change).to_string();
    sorted(outcomes.iter().flat_map(|outcome| outcome.changes.iter().map(text)).collect())
}

async fn holds(case: &Case) {
    let company = prepared(case).await;
    let planned = run(&company, case, true).await;
    assert_eq!(company.server.log().writes(), 0, "a plan writes nothing");
    let done = run(&company, case, false).await;
    assert!(done.iter().all(|outcome| outcome.error.is_none()), "{done:?}");
    let (persons, deals, refused) = expected(case);
    assert_eq!(held(&company), (sorted(persons), sorted(deals)), "what the account holds");
    assert_eq!([done[0].refused.len(), done[1].refused.len()], refused, "{done:?}");
    if case.policies.deletes {
        // A person that is deleted may take its links along: what is left of them need not be cleared any more. The rest is as planned.
        let records = |outcomes: &[Outcome]| {
            let all = outcomes.iter().flat_map(|outcome| &outcome.changes);
            all.map(|change| (change.action, change.entity.clone(), change.key.clone(), change.id.clone()))
                .collect::<BTreeSet<_>>()
        };
        let (planned, did) = (records(&planned), records(&done));
        assert!(did.is_subset(&planned), "what was done had been said: {did:?}, {planned:?}");
    } else {
        assert_eq!(changes(&planned), changes(&done), "the plan said what was done");
    }
    company.server.log().clear();
    let again = run(&company, case, false).await;
    assert!(again.iter().all(|outcome| outcome.error.is_none()), "{again:?}");
    assert_eq!(company.server.log().writes(), 0, "a second run writes nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn after_a_run_the_account_is_what_rows_and_policies_say(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(holds(&case));
    }
}
