//! For any three files, any state of the CRM and any policies: after a run it holds what the join and the policies say, less the dead
//! letters; after a second run that compares everything, nothing was written.
//!
//! `TOWPATH_CRM_CASES` says how many are drawn, `TOWPATH_CRM_SEED` from which seed: a failure names its own.

mod draw;
mod model;

use std::{collections::BTreeMap, fmt::Write as _};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::Value;
use towpath_testkit::pipedrive::{Account, Call, Entity, Record, Unsettled};

use super::*;

use self::{draw::Case, model::Expected};

const ANY: &str = "any.yaml";

/// So many are drawn, unless the environment says otherwise.
const CASES: u32 = 12;
/// From this seed.
const SEED: u64 = 5;

fn from_environment<T: std::str::FromStr>(name: &str, or: T) -> T {
    std::env::var(name).ok().map_or(or, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn any_files_and_any_account_come_to_what_the_join_and_the_policies_say() {
    let (cases, seed) = (from_environment("TOWPATH_CRM_CASES", CASES), from_environment("TOWPATH_CRM_SEED", SEED));
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 150, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let held = runner.run(&draw::case(), |case| holds(&case).map_err(TestCaseError::fail));
    match held {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("seed {seed}: {why}\n{case:#?}"),
        Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
    }
}

/// `-12.34`.
fn decimal(cents: i64) -> String {
    format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
}

/// The pipeline with these policies. Rows of one key are made one in the query, so that it is known which counts.
fn pipeline(case: &Case) -> String {
    let source =
        |name: &str, more: &str| format!("  {name}: {{ type: csv, url: '${{CRM_FILES}}/{name}.csv'{more} }}\n");
    let account = "url: '${PIPEDRIVE_URL}', api_token: '${PIPEDRIVE_API_TOKEN}', budget: {}";
    let sources = [
        source("customers", ""),
        source("orders", ", columns: { ordered: date, fee: 'decimal(12,2)' }"),
        source("payments", ", columns: { amount: 'decimal(12,2)' }"),
    ];
    format!(
        "version: 1
sources:
{}transforms:
  orders_paid:
    type: sql
    inputs: [customers, orders, payments]
    query: |
      with paid as (
        select order_id, sum(amount) as paid,
               case when min(currency) = max(currency) then min(currency) else min(currency) || '+' || max(currency) end as currency
        from payments group by order_id
      ),
      c as (select customer_id, max(name) as name from customers group by customer_id),
      o as (
        select order_id, max(customer_id) as customer_id, max(ordered) as ordered, max(fee) as fee, max(fee_currency) as fee_currency
        from orders group by order_id
      )
      select o.*, 'Order ' || o.order_id || coalesce(', ' || c.name, '') as title,
             coalesce(p.paid, 0) as paid, coalesce(p.currency, 'EUR') as currency
      from o left join c on c.customer_id = o.customer_id left join paid p on p.order_id = o.order_id
sinks:
  persons: {{ type: pipedrive, inputs: [customers], {account}, entity: persons, match_on: CustomerID,
    fields: {{ CustomerID: customer_id, Name: name, Email: email, Tier: tier, Tags: tags, Note: note }}, {} }}
  deals: {{ type: pipedrive, inputs: [orders_paid], after: [persons], {account}, entity: deals, match_on: OrderID,
    fields: {{ OrderID: order_id, Title: title, Order date: ordered, Value: {{ column: paid, currency: currency }},
      Fee: {{ column: fee, currency: fee_currency }} }},
    link: {{ person_id: {{ entity: persons, match_on: CustomerID, from: customer_id, on_duplicate_match: {} }} }}, {} }}
",
        sources.concat(),
        case.persons.yaml(),
        case.linked,
        case.deals.yaml()
    )
}

fn prepared(case: &Case) -> Company {
    let unsettled = if case.other_way { Unsettled::other_way() } else { Unsettled::default() };
    let company = Company::of(
        Shop::default(),
        PipedriveOptions {
            plan: Plan::Ultimate,
            seats: 1_000,
            burst: Some(1_000_000),
            unsettled,
            ..PipedriveOptions::default()
        },
    );
    company.place.write(ANY, &pipeline(case));
    case.files().iter().for_each(|(name, text)| company.files.put(name, text));
    case.seed(&company.crm.account());
    company
}

/// Err: what is not as it should be.
fn holds(case: &Case) -> Result<(), String> {
    let company = prepared(case);
    let (account, log) = (company.crm.account(), company.crm.log());
    let expected = model::expected(case);
    let code = if expected.fails { 1 } else { 0 };
    let ran = |more: &[&str]| {
        let ran = company.place.towpath(&[&["run", ANY, "--json"], more].concat());
        if ran.code() == code {
            Ok(())
        } else {
            Err(format!("it ended with {}, not {code}\n{}{}", ran.code(), ran.out, ran.err))
        }
    };
    // With a person that is deleted the vendor may take links away, which then need not be cleared: not what the plan says.
    if case.planned && !(expected.fails || expected.deletes_persons || expected.vendor_refuses) {
        let plan = company.place.towpath(&["plan", ANY, "--diff", "--out", "plan.json"]);
        if (plan.code(), log.writes()) != (0, 0) {
            return Err(format!("the plan: {plan:?}, {} writes", log.writes()));
        }
        ran(&["--plan", "plan.json"])?;
    } else {
        ran(&[])?;
    }
    as_expected(&account, case, &expected).map_err(|why| format!("after the run: {why}"))?;
    if !expected.fails {
        let mut refused = BTreeMap::<String, usize>::new();
        let letters = company.place.letters("any");
        let of = |letter: &Value| letter["component"].as_str().unwrap_or_default().to_owned();
        letters.iter().for_each(|letter| *refused.entry(of(letter)).or_default() += 1);
        let should: BTreeMap<String, usize> =
            expected.refused.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        if refused != should {
            return Err(format!("the dead letters are of {refused:?}, not of {should:?}: {letters:#?}"));
        }
    }
    log.clear();
    ran(&["--full"])?;
    as_expected(&account, case, &expected).map_err(|why| format!("after the second run: {why}"))?;
    // What the vendor refuses is sent again, and refused again.
    let done: Vec<Call> = log.calls().into_iter().filter(|call| call.is_write() && call.executed).collect();
    if done.is_empty() { Ok(()) } else { Err(format!("the second run wrote: {done:#?}")) }
}

/// Lines that are there and should not be, and the other way round.
fn as_expected(account: &Account, case: &Case, expected: &Expected) -> Result<(), String> {
    let (is, should) = (held(account, case), lines(expected));
    let mut text = String::new();
    for (sign, these, those) in [("+", &is, &should), ("-", &should, &is)] {
        let mut left = those.clone();
        for line in these {
            match left.iter().position(|other| other == line) {
                Some(at) => drop(left.swap_remove(at)),
                None => writeln!(text, "{sign} {line}").unwrap(),
            }
        }
    }
    if text.is_empty() {
        Ok(())
    } else {
        Err(format!("the account holds (+) what it should not, and not (-) what it should\n{text}"))
    }
}

/// The double that is nearest to the decimal: what the vendor keeps.
fn double(cents: i64) -> f64 {
    decimal(cents).parse().unwrap()
}

/// What is expected, a line each.
fn lines(expected: &Expected) -> Vec<String> {
    let person = |person: &model::Person| {
        let model::Person { id, key, name, email, other_emails, tier, tags, note, gone } = person;
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let email = email.as_deref().unwrap_or_default();
        format!("person {id:?} {key:?} {name:?} {email} {other_emails:?} {tier} {tags:?} {note:?} gone: {gone}")
    };
    let deal = |deal: &model::Deal| {
        let person = deal.person.map(|at| &expected.persons[at]).map(|person| (person.id, person.key.clone()));
        let model::Deal { id, key, title, cents, currency, day, fee, status, archived, gone, .. } = deal;
        let fee = fee.as_ref().map(|(cents, currency)| (double(*cents), currency.clone()));
        format!(
            "deal {id:?} {key:?} {title:?} {:?} {currency} {day} fee {fee:?} of {person:?} {status} archived: {archived} gone: {gone}",
            double(*cents)
        )
    };
    expected.persons.iter().map(person).chain(expected.deals.iter().map(deal)).collect()
}

/// What an account holds, as [`lines`] has it.
fn held(account: &Account, case: &Case) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = |entity: Entity| account.records(entity).into_iter().chain(account.deleted(entity)).collect::<Vec<_>>();
    let known = |id: u64, seeds: usize| (id as usize <= seeds).then_some(id);
    let (persons, deals) = (all(Entity::Persons), all(Entity::Deals));
    let options = account.fields(Entity::Persons);
    let label = |field: &str, id: &Value| {
        let key = options.key(field).unwrap();
        let labels = ["Gold", "Silver", "a", "b", "x,y"].into_iter();
        let found = labels.filter(|label| options.option(&key, label) == id.as_u64() && id.is_u64());
        found.map(str::to_owned).collect::<String>()
    };
    let person = |one: &Record| {
        let emails = one.get("emails").as_array().cloned().unwrap_or_default();
        let (first, others): (Vec<_>, Vec<_>) = emails.iter().partition(|email| email["primary"] == true);
        let tags = one.custom("Tags").as_array().cloned().unwrap_or_default();
        model::Person {
            id: known(one.id, case.had_persons.len()),
            key: text(one.custom("CustomerID")),
            name: text(one.get("name")),
            email: first.first().map(|email| text(&email["value"])),
            other_emails: others.iter().map(|email| text(&email["value"])).collect(),
            tier: label("Tier", one.custom("Tier")),
            tags: tags.iter().map(|tag| label("Tags", tag)).collect(),
            note: text(one.custom("Note")),
            gone: one.is_deleted,
        }
    };
    let cents = |value: &Value| {
        let double = value.as_f64().unwrap();
        let cents = (double * 100.0).round() as i64;
        assert_eq!(double.to_bits(), self::double(cents).to_bits(), "{double} is not the double nearest to its cents");
        cents
    };
    let deal = |one: &Record| {
        let fee = one.custom("Fee");
        model::Deal {
            id: known(one.id, case.had_deals.len()),
            key: text(one.custom("OrderID")),
            title: text(one.get("title")),
            cents: cents(one.get("value")),
            currency: text(one.get("currency")),
            day: text(one.custom("Order date")),
            fee: fee.is_object().then(|| (cents(&fee["value"]), text(&fee["currency"]))),
            person: one.get("person_id").as_u64().map(|id| persons.iter().position(|person| person.id == id).unwrap()),
            status: text(one.get("status")),
            archived: one.is_archived,
            gone: one.is_deleted,
        }
    };
    let found = Expected {
        persons: persons.iter().map(person).collect(),
        deals: deals.iter().map(deal).collect(),
        ..Expected::default()
    };
    lines(&found)
}
