//! What is sent: as little as can be.

use serde_json::json;
use towpath_testkit::pipedrive::{Entity, Fault, Kind, On};

use super::*;

/// Every call of 10,000 persons and 10,000 deals that are as the files say: the definitions of fields and pages of 500, and one that says
/// that no deal is archived.
const UNCHANGED: usize = 2 + 20 + 20 + 1;

#[test]
fn ten_thousand_that_are_equal_cost_their_pages_and_a_hundred_that_changed_one_call_each() {
    let mut company = Company::new(Shop::of(10_000, 10_000));
    company.shop.seed(&company.crm.account());
    let log = company.crm.log();
    let report = company.run(&[]).expect(0).report();
    let known = |sink: &str| (report["sinks"][sink]["written"].clone(), report["sinks"][sink]["skipped"].clone());
    assert_eq!(["persons", "deals"].map(known), [(json!(0), json!(10_000)), (json!(0), json!(10_000))], "{report}");
    assert_eq!((log.writes(), log.len(), log.answered(200)), (0, UNCHANGED, UNCHANGED));
    assert_eq!((log.count(Kind::List), log.count(Kind::Fields), log.tokens()), (41, 2, 440));

    // No file has changed: not a call. Asked for, all is compared again.
    log.clear();
    company.files.asked();
    company.run(&[]).expect(0);
    assert!(log.is_empty());
    assert!(company.files.asked().iter().all(|asked| asked.starts_with("HEAD")));
    company.run(&["--full"]).expect(0);
    assert_eq!((log.writes(), log.len()), (0, UNCHANGED));

    // One in a hundred changes: so many calls more, with the fields that changed.
    log.clear();
    for (at, (_, email)) in company.shop.customers.values_mut().enumerate() {
        if at % 100 == 0 {
            email.insert_str(0, "new.");
        }
    }
    company.shop.payments.extend((1..=100).map(|n| (format!("O{}", n * 100 - 1), 1, "EUR")));
    company.publish();
    let report = company.run(&[]).expect(0).report();
    assert_eq!(report["sinks"]["persons"]["written"], 100, "{report}");
    assert_eq!(report["sinks"]["deals"]["written"], 100, "{report}");
    assert_eq!((log.writes(), log.len()), (200, UNCHANGED + 200));
    assert_eq!((log.count_of(Kind::Update, Entity::Persons), log.count_of(Kind::Update, Entity::Deals)), (100, 100));
    for body in company.bodies("PATCH") {
        let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys == ["emails"] || keys == ["value"], "{body}");
    }
    company.check();
    assert_eq!(log.answered(429), 0);
}

#[test]
fn the_first_sync_makes_everything_once_and_sums_to_the_cent() {
    let company = Company::unpaced(Shop::of(150, 400));
    company.place.towpath(&["validate", FILE]).expect(0);
    let plan = company.place.towpath(&["plan", FILE]).expect(0);
    assert!(plan.out.contains("orders_paid") && plan.out.contains("deals"), "{}", plan.out);
    company.run(&[]).expect(0);
    company.check();
    let log = company.crm.log();
    assert_eq!((log.count(Kind::Create), log.writes()), (550, 550));
    // What is sent is the decimal, not what adding doubles makes of it.
    assert!(
        company.bodies("POST").iter().filter_map(|body| body.get("value")).all(|value| value.to_string().len() <= 8)
    );
    log.clear();
    company.run(&["--full"]).expect(0);
    assert_eq!(log.writes(), 0);
}

#[test]
fn what_the_plan_says_is_what_the_run_does() {
    let mut company = Company::unpaced(Shop::of(8, 20));
    company.run(&[]).expect(0);
    let log = company.crm.log();
    company.shop.customers.insert("C9".to_owned(), ("Ada".to_owned(), "ada@example.com".to_owned()));
    company.shop.orders.insert("O21".to_owned(), ("C9".to_owned(), "2026-06-01".to_owned()));
    company.shop.payments.push(("O3".to_owned(), 5, "EUR"));
    company.publish();
    log.clear();
    let diff = company.place.towpath(&["plan", FILE, "--diff", "--out", "plan.json"]).expect(0);
    assert_eq!(log.writes(), 0);
    for said in ["create persons C9", "create deals O21", "update deals O3"] {
        assert!(diff.out.contains(said), "{said}: {}", diff.out);
    }
    // Somebody is faster: what was planned is not what would be done, so nothing is.
    let account = company.crm.account();
    let deal = account.deals().into_iter().find(|deal| deal.custom("OrderID") == "O5").unwrap();
    account.edit(Entity::Deals, deal.id, json!({ "title": "mine" }));
    let refused = company.run(&["--plan", "plan.json"]).expect(5);
    assert!(refused.err.contains("O5") || refused.out.contains("O5"), "{refused:?}");
    assert_eq!(log.writes(), 0);
    account.edit(Entity::Deals, deal.id, json!({ "title": deal.get("title") }));
    let report = company.run(&["--plan", "plan.json"]).expect(0).report();
    assert_eq!(log.writes(), 3);
    assert_eq!(
        (report["sinks"]["persons"]["written"].clone(), report["sinks"]["deals"]["written"].clone()),
        (json!(1), json!(2))
    );
    company.check();
}

/// Nobody is there twice, however an answer got lost.
#[test]
fn answers_that_are_lost_cost_no_record_and_make_none_twice() {
    for fault in [Fault::CutBefore, Fault::CutAfter, Fault::CutBody(9), Fault::Status(502), Fault::StatusAfter(504)] {
        let mut company = Company::unpaced(Shop::of(12, 30));
        let strike = |which: std::ops::Range<u64>| company.crm.faults().add(On::writes(), which, fault.clone());
        strike(3..5);
        strike(20..22);
        company.crm.faults().add(On::route("GET", "/api/v2/deals"), 0..1, fault.clone());
        let set: Vec<_> = ["persons", "deals"]
            .iter()
            .flat_map(|sink| [format!("sinks.{sink}.settle=50ms"), format!("sinks.{sink}.retry.initial=50ms")])
            .flat_map(|set| ["--set".to_owned(), set])
            .collect();
        let settle: Vec<&str> = set.iter().map(String::as_str).collect();
        company.run(&settle).expect(0);
        company.check();
        company.crm.faults().clear();
        company.shop.customers.values_mut().for_each(|(name, _)| name.push('a'));
        company.publish();
        company.crm.faults().add(On::writes(), 5..7, fault.clone());
        company.run(&settle).expect(0);
        company.check();
    }
}

#[test]
fn pages_that_shift_meanwhile_make_nothing_twice() {
    let company = Company::unpaced(Shop::of(40, 90));
    company.shop.seed(&company.crm.account());
    let account = company.crm.account();
    let first = account.deals()[2].id;
    let shift = Fault::afterwards(move |account| {
        if account.record(Entity::Deals, first).is_some_and(|deal| !deal.is_deleted) {
            account.delete(Entity::Deals, first);
        }
    });
    company.crm.faults().add(On::route("GET", "/api/v2/deals"), 0..1, shift);
    company.run(&["--set", "sinks.deals.page_size=10"]).expect(0);
    company.crm.faults().clear();
    // The one that was deleted while it was looked at comes back with the next comparison.
    company.run(&["--full"]).expect(0);
    company.check();
}

#[test]
fn files_that_are_published_before_all_sinks_have_the_last_ones_are_taken_as_they_are() {
    for again in [false, true] {
        let mut company = Company::unpaced(Shop::of(12, 30));
        // Persons are done, deals are not.
        let ran = company.run(&["--set", "sinks.deals.fields.Value.column=payd"]);
        assert_ne!(ran.code(), 0);
        let log = company.crm.log();
        assert_eq!((log.count_of(Kind::Create, Entity::Persons), log.count_of(Kind::Create, Entity::Deals)), (12, 0));
        if again {
            company.shop.customers.values_mut().for_each(|(_, email)| email.insert_str(0, "new."));
        }
        // Also what is published again as it was is another file.
        company.publish();
        company.run(&[]).expect(0);
        company.check();
        assert_eq!(log.count_of(Kind::Create, Entity::Persons), 12, "none twice");
    }
}

#[test]
fn a_pipeline_that_says_something_else_is_compared_anew() {
    let company = Company::unpaced(Shop::of(6, 9));
    company.run(&[]).expect(0);
    let log = company.crm.log();
    let text = std::fs::read_to_string(company.place.path(FILE)).unwrap();
    let edited = text.replace("Name: name,", "Name: email,");
    assert_ne!(edited, text, "the fields have changed");
    company.place.write(FILE, &edited);
    log.clear();
    // No file has changed.
    let ran = company.run(&[]).expect(0);
    assert_eq!(log.count_of(Kind::Update, Entity::Persons), 6, "{}", ran.err);
    log.clear();
    company.run(&[]).expect(0);
    assert!(log.is_empty());

    // A run that is taken up with other fields gives them to those, too, who had all their rows.
    company.run(&["--full", "--set", "sinks.deals.fields.Value.column=payd"]);
    company.place.write(FILE, &text);
    company.run(&[]).expect(0);
    company.check();
}
