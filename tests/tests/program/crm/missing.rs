//! Records that no row stands for any more: closed, deleted, or too many.

use serde_json::json;
use towpath_testkit::pipedrive::{Account, Kind};

use super::*;

/// Orders whose deals are lost.
fn lost(account: &Account) -> Vec<String> {
    let deals = account.deals().into_iter().filter(|deal| deal.get("status") == "lost");
    let mut lost: Vec<_> = deals.map(|deal| deal.custom("OrderID").as_str().unwrap().to_owned()).collect();
    lost.sort();
    lost
}

/// So many orders less than there were.
fn without(shop: &mut Shop, orders: &[&str]) {
    shop.orders.retain(|order, _| !orders.contains(&order.as_str()));
    shop.payments.retain(|(order, ..)| !orders.contains(&order.as_str()));
}

fn policy<'a>(on_missing: &'a str, max_deletes: &'a str) -> [&'a str; 4] {
    ["--set", on_missing, "--set", max_deletes]
}

#[test]
fn deals_of_orders_that_are_gone_are_closed_and_deleted_once() {
    let mut company = Company::unpaced(Shop::of(5, 20));
    company.run(&[]).expect(0);
    // Nobody's.
    company.crm.account().add(towpath_testkit::pipedrive::Entity::Deals, json!({ "title": "by hand" }));
    let (account, log) = (company.crm.account(), company.crm.log());
    let before = sales(&account);
    without(&mut company.shop, &["O3", "O7"]);
    company.publish();
    let close = policy("sinks.deals.on_missing=close", "sinks.deals.max_deletes=10%");
    log.clear();
    let report = company.run(&close).expect(0).report();
    assert_eq!((lost(&account), log.writes()), (vec!["O3".to_owned(), "O7".to_owned()], 2));
    assert_eq!(
        (report["sinks"]["deals"]["removed"].clone(), company.bodies("PATCH")),
        (json!(2), vec![json!({ "status": "lost" }); 2])
    );
    // Nothing else of them has changed.
    same(&sales(&account), &before);
    log.clear();
    company.run(&[&close[..], &["--full"]].concat()).expect(0);
    assert_eq!((log.writes(), lost(&account).len()), (0, 2), "closed is closed");

    let delete = policy("sinks.deals.on_missing=delete", "sinks.deals.max_deletes=10%");
    company.run(&[&delete[..], &["--full"]].concat()).expect(0);
    assert_eq!((log.writes(), log.count(Kind::Delete)), (2, 2));
    let left: Vec<_> = sales(&account).into_iter().filter(|line| !line.starts_with('|')).collect();
    same(&left, &company.shop.sales());
    assert_eq!(account.deals().len(), 19, "what has no key is nobody's");
    log.clear();
    company.run(&[&delete[..], &["--full"]].concat()).expect(0);
    assert_eq!(log.writes(), 0);
}

#[test]
fn a_run_that_would_delete_too_many_deletes_none_and_its_plan_shows_them_all() {
    let mut company = Company::unpaced(Shop::of(5, 20));
    company.run(&[]).expect(0);
    let (account, log) = (company.crm.account(), company.crm.log());
    let gone = ["O11", "O12", "O13", "O14", "O15", "O16", "O17", "O18", "O19", "O2", "O20", "O3"];
    without(&mut company.shop, &gone);
    // The last customer goes as well: already the persons would be too many, and the deals are compared all the same.
    company.shop.customers.remove("C5");
    company.shop.orders.retain(|_, (customer, _)| customer != "C5");
    let (order, (_, day)) = company.shop.orders.iter_mut().next().unwrap();
    *day = "2027-01-01".to_owned();
    let changed = format!("update deals {order} ");
    company.publish();
    let persons = policy("sinks.persons.on_missing=delete", "sinks.persons.max_deletes=5%");
    let deals = policy("sinks.deals.on_missing=delete", "sinks.deals.max_deletes=5%");
    let held = (people(&account), sales(&account));
    log.clear();
    let plan = [&["plan", FILE, "--diff", "--out", "plan.json"][..], &persons, &deals].concat();
    let diff = company.place.towpath(&plan).expect(1);
    let deletes = 20 - company.shop.orders.len();
    for said in ["delete persons C5", changed.as_str(), &format!("delete     {deletes:9}"), "a run would not do this"] {
        assert!(diff.out.contains(said), "{said}: {}", diff.out);
    }
    for said in
        ["error: persons: no row stands for 1 of 5", &format!("error: deals: no row stands for {deletes} of 20")]
    {
        assert!(diff.err.contains(said), "{said}: {}", diff.err);
    }
    let kept = std::fs::read_to_string(company.place.path("plan.json")).unwrap();
    let kept = kept.lines().filter(|line| line.starts_with("{\"sink\"") && line.contains("\"action\":\"delete\""));
    assert_eq!(kept.count(), 1 + deletes, "all of them can be looked at");
    // Kept is not allowed.
    let bound = company.run(&[&["--plan", "plan.json"][..], &persons, &deals].concat()).expect(1);
    assert!(bound.err.contains("no row stands for 1 of 5"), "{}", bound.err);
    assert_eq!(log.writes(), 0);

    // The run ends so: the persons are before the deals.
    let ran = company.run(&[&persons[..], &deals].concat()).expect(1);
    assert!(ran.err.contains("no row stands for 1 of 5"), "{}", ran.err);
    assert_eq!((log.writes(), (people(&account), sales(&account))), (0, held));
    // What has changed is written, and none of them is deleted.
    let ran = company.run(&[&deals[..], &["--full"]].concat()).expect(1);
    assert!(ran.err.contains(&format!("no row stands for {deletes} of 20")), "{}", ran.err);
    assert_eq!((log.writes(), log.count(Kind::Delete), account.deals().len()), (1, 0, 20));

    let all = policy("sinks.deals.max_deletes=100%", "sinks.persons.max_deletes=100%");
    let more = ["--set", "sinks.deals.on_missing=delete", "--set", "sinks.persons.on_missing=delete", "--full"];
    company.run(&[&all[..], &more].concat()).expect(0);
    company.check();
}
