//! People who work in the CRM meanwhile, rows that are wrong, two runs at once.

use serde_json::json;
use towpath_testkit::pipedrive::{Entity, Fault, FieldType, On};

use super::*;

#[test]
fn a_second_run_at_the_same_time_sends_nothing() {
    let company = Company::unpaced(Shop::of(30, 60));
    company.crm.faults().add(On::route("GET", "/api/v2/persons"), 0..1, Fault::Slow(std::time::Duration::from_secs(2)));
    let first = company.place.start(&["run", FILE, "--json"]);
    until("the first call", || {
        !company.crm.log().is_empty() || company.place.last_run("csv_to_pipedrive").1 == "running"
    });
    let second = company.run(&[]).expect(4);
    assert!(second.err.contains("another run"), "{second:?}");
    first.end().expect(0);
    company.check();
    assert_eq!(company.crm.log().writes(), 90);
}

#[test]
fn a_person_deleted_by_hand_comes_back_when_all_is_compared_again() {
    let company = Company::unpaced(Shop::of(5, 20));
    company.run(&[]).expect(0);
    let account = company.crm.account();
    let gone = account.persons().iter().find(|person| person.custom("CustomerID") == "C3").unwrap().id;
    account.delete(Entity::Persons, gone);
    company.crm.log().clear();
    company.run(&[]).expect(0);
    assert!(company.crm.log().is_empty(), "no file has changed");
    company.run(&["--full"]).expect(0);
    company.check();
    assert_eq!(company.run(&["--set", "verify_every=1ms"]).expect(0).report()["sinks"]["deals"]["written"], 0);
}

#[test]
fn a_name_that_means_another_field_stops_the_run_before_it_sends_anything() {
    let mut company = Company::unpaced(Shop::of(5, 9));
    company.run(&[]).expect(0);
    let account = company.crm.account();
    let fields = account.fields(Entity::Persons);
    let key = fields.key("CustomerID").unwrap();
    company.shop.customers.get_mut("C1").unwrap().0.push_str(" the First");
    company.publish();
    company.crm.log().clear();
    let stopped = |what: &str, says: &[&str]| {
        let ran = company.run(&["--full"]);
        assert!(ran.code() != 0, "{what}: {ran:?}");
        assert!(says.iter().all(|text| ran.err.contains(text)), "{what}: {}", ran.err);
        assert_eq!(company.crm.log().writes(), 0, "{what}");
    };
    assert!(fields.rename(&key, "Customer number"));
    stopped("renamed", &["CustomerID"]);
    let other = fields.add("CustomerID", FieldType::Varchar);
    stopped("another of its name", &[&format!("Customer number ({key})"), &format!("CustomerID ({other})")]);
    assert!(fields.rename(&key, "CustomerID"));
    stopped("two of one name", &["CustomerID"]);
    assert!(fields.remove(&other));
    company.run(&["--full"]).expect(0);
    company.check();
    assert_eq!(
        company.crm.log().writes(),
        1 + company.shop.orders.values().filter(|(customer, _)| customer == "C1").count()
    );
}

#[test]
fn duplicates_in_the_crm_are_named_and_left_alone() {
    let mut company = Company::unpaced(Shop::of(5, 20));
    company.run(&[]).expect(0);
    let account = company.crm.account();
    account.add(Entity::Persons, json!({ "name": "Twin", "custom_fields": { "CustomerID": "C2" } }));
    let mut expected = people(&account);
    for name in ["C1", "C2"] {
        company.shop.customers.get_mut(name).unwrap().1 = "new@example.com".to_owned();
    }
    company.publish();
    company.run(&[]).expect(0);
    expected
        .iter_mut()
        .filter(|line| line.starts_with("C1|"))
        .for_each(|line| *line = "C1|Customer 1|new@example.com".to_owned());
    same(&people(&account), &expected);
    let letters = company.place.letters("csv_to_pipedrive");
    let of = |component: &str| letters.iter().filter(|letter| letter["component"] == component).count();
    let linked = company.shop.orders.values().filter(|(customer, _)| customer == "C2").count();
    assert_eq!((of("persons"), of("deals")), (1, linked), "{letters:#?}");
    assert!(letters[0]["reason"].as_str().unwrap().contains("2 persons"), "{letters:#?}");
}

#[test]
fn a_deal_whose_customer_failed_waits_in_the_dead_letters_until_both_are_sent_again() {
    let company = Company::unpaced(Shop::of(5, 20));
    company.crm.faults().add(On::route("POST", "/api/v2/persons").body("\"C2\""), .., Fault::Status(400));
    company.run(&[]).expect(0);
    let account = company.crm.account();
    let is_of = |line: &&String| line.starts_with("C2|") || line.split('|').nth(3) == Some("C2");
    let but = |lines: Vec<String>| lines.into_iter().filter(|line| !is_of(&line)).collect::<Vec<_>>();
    same(&people(&account), &but(company.shop.people()));
    same(&sales(&account), &but(company.shop.sales()));
    let failed = 1 + company.shop.sales().iter().filter(is_of).count();
    assert_eq!(company.place.letters("csv_to_pipedrive").len(), failed);
    // The vendor's fault is over.
    company.crm.faults().clear();
    for sink in ["persons", "deals"] {
        company.place.towpath(&["dlq", "replay", FILE, "--component", sink]).expect(0);
    }
    company.check();
    company.crm.log().clear();
    company.run(&["--full"]).expect(0);
    assert_eq!(company.crm.log().writes(), 0);
}

#[test]
fn rows_that_make_no_sense_are_refused_with_the_reason_and_the_others_go_on() {
    let company = Company::unpaced(Shop::of(5, 20));
    // In no file; in two currencies; no amount; no day.
    let mut shop = company.shop.clone();
    shop.orders.insert("O21".to_owned(), ("C99".to_owned(), "2026-01-01".to_owned()));
    shop.orders.insert("O22".to_owned(), ("C1".to_owned(), "2026-01-01".to_owned()));
    shop.payments.extend([("O22".to_owned(), 100, "EUR"), ("O22".to_owned(), 100, "USD")]);
    shop.orders.insert("O23".to_owned(), ("C1".to_owned(), "someday".to_owned()));
    for (name, mut text) in shop.files() {
        if name == "payments.csv" {
            text.push_str("999,O1,much,EUR\n");
        }
        company.files.put(name, &text);
    }
    company.run(&[]).expect(0);
    company.check();
    let letters = company.place.letters("csv_to_pipedrive");
    let mut reasons: Vec<_> = letters
        .iter()
        .map(|letter| format!("{}: {}", letter["component"].as_str().unwrap(), letter["reason"].as_str().unwrap()))
        .collect();
    reasons.sort();
    insta::assert_snapshot!(reasons.join("\n"));
}

#[test]
fn a_column_that_a_failed_run_missed_is_not_missed_by_a_plan_once_it_is_back() {
    let company = Company::unpaced(Shop::of(5, 20));
    for (name, text) in company.shop.files() {
        company.files.put(name, &text.replacen("id,name,email", "id,Name,email", 1));
    }
    let failed = company.run(&[]).expect(2);
    assert!(failed.err.contains("no column 'name'"), "{}", failed.err);
    company.publish();
    let plan = company.place.towpath(&["plan", FILE]).expect(0);
    assert!(plan.out.contains("by the columns of the last run, ") && plan.out.contains("sink deals"), "{}", plan.out);
    company.run(&[]).expect(0);
    company.check();
}

#[test]
fn a_file_of_bad_rows_does_not_empty_what_is_made_of_it() {
    let company = Company::unpaced(Shop::of(5, 30));
    company.run(&[]).expect(0);
    for (name, text) in company.shop.files() {
        // Every amount is spoilt.
        company.files.put(name, &if name == "payments.csv" { text.replace(",EUR", "x,EUR") } else { text });
    }
    company.crm.log().clear();
    let stopped = company.run(&[]).expect(3);
    assert!(stopped.err.contains("too many rejected rows"), "{}", stopped.err);
    company.check();
    assert_eq!(company.crm.log().writes(), 0);
}
