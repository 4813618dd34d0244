//! What the policies say.

use serde_json::json;
use towpath_core::{Action, Complete};
use towpath_testkit::pipedrive::{Entity, Kind};

use crate::common::{Company, customers, orders};

#[tokio::test]
async fn duplicates_are_refused_or_one_of_them_is_the_one() {
    for (policy, refused, names) in
        [("error", 1, ["One", "Two"]), ("first", 0, ["New", "Two"]), ("newest", 0, ["One", "New"])]
    {
        let [company, _] = Company::both().await;
        for name in ["One", "Two"] {
            company
                .server
                .account()
                .add(Entity::Persons, json!({ "name": name, "custom_fields": { "CustomerID": "C1" } }));
        }
        let options = company.persons(json!({ "on_duplicate_match": policy }));
        let outcome = company.one(options, customers(&[&["C1", "New", "-"], &["C2", "Other", "-"]])).await;
        assert_eq!(outcome.refused.len(), refused, "{outcome:?}");
        assert!(outcome.error.is_none());
        let found: Vec<_> =
            company.server.account().persons().iter().map(|person| person.get("name").clone()).collect();
        assert_eq!(found, [names[0], names[1], "Other"], "{policy}");
        assert!(outcome.changes.iter().any(|change| change.action == Action::Duplicate), "{policy}: it is reported");
    }
}

#[tokio::test]
async fn which_of_several_is_linked_the_link_says() {
    for (policy, expected) in [
        (
            "error",
            Err(
                "person_id: several persons have CustomerID = C1 (ids 1, 2); merge them, or set link.person_id.on_duplicate_match to first or newest",
            ),
        ),
        ("first", Ok(1)),
        ("newest", Ok(2)),
    ] {
        let [company, _] = Company::both().await;
        let account = company.server.account();
        for name in ["One", "Two"] {
            account.add(Entity::Persons, json!({ "name": name, "custom_fields": { "CustomerID": "C1" } }));
        }
        let mut link =
            json!({ "entity": "persons", "match_on": "CustomerID", "from": "customer", "on_duplicate_match": policy });
        if policy == "error" {
            // It is what goes without saying, whatever the sink says of its own.
            link.as_object_mut().unwrap().remove("on_duplicate_match");
        }
        let options = company.deals(json!({ "link": { "person_id": link }, "on_duplicate_match": "newest" }));
        let outcome = company.one(options, orders(&[&["O1", "a", "1", "C1"]])).await;
        let linked = account.deals().first().and_then(|deal| deal.get("person_id").as_u64());
        let said = outcome.refused.first().map_or(Ok(linked.unwrap_or_default()), |why| Err(why.as_str()));
        assert_eq!(said, expected, "{policy}");
    }
}

#[tokio::test]
async fn what_no_row_stands_for_is_kept_closed_or_deleted_within_bounds() {
    let company = async || {
        let [company, _] = Company::both().await;
        company.server.account().seed_demo(4, 20);
        company.server.account().add(Entity::Deals, json!({ "title": "By hand" }));
        company
    };
    let given = |n: usize| {
        let rows: Vec<_> = (1..=n)
            .map(|n| [format!("O{n}"), format!("Order {n}"), format!("{}", n as f64 * 1001.0 / 100.0)])
            .collect();
        let rows: Vec<[&str; 4]> =
            rows.iter().map(|[id, title, total]| [id.as_str(), title.as_str(), total.as_str(), "-"]).collect();
        let rows: Vec<&[&str]> = rows.iter().map(<[&str; 4]>::as_slice).collect();
        orders(&rows)
    };
    let count = |company: &Company, status: &str| {
        company.server.account().deals().iter().filter(|deal| deal.get("status") == status).count()
    };
    let more = |policy: &str, most: &str| json!({ "on_missing": policy, "max_deletes": most, "link": {} });
    let here = company().await;
    let removed = async |policy, most| here.one(here.deals(more(policy, most)), given(18)).await.ok().removed;
    assert_eq!((removed("keep", "5%").await, here.server.log().writes()), (0, 0));
    assert_eq!(removed("close", "10%").await, 2);
    assert_eq!((count(&here, "lost"), count(&here, "open")), (2, 19), "what has no key is nobody's");
    here.server.log().clear();
    assert_eq!((removed("close", "10%").await, here.server.log().writes()), (0, 0), "closed is closed");
    assert_eq!(removed("delete", "10%").await, 2);
    assert_eq!((here.server.account().deals().len(), here.server.log().count(Kind::Delete)), (19, 2));

    let here = company().await;
    let outcome = here.one(here.deals(more("delete", "5%")), given(18)).await;
    let expected =
        "no row stands for 2 of 20 deals, and max_deletes (5%) lets 1 be closed or deleted: O19 (id 19), O20 (id 20)";
    assert_eq!(outcome.error(), expected);
    // A plan tells the same, and shows every one of them all the same.
    let outcome = here.differences(vec![(here.deals(more("delete", "5%")), vec![given(8)])]).await.remove(0);
    let many = outcome.error();
    assert!(many.contains("12 of 20") && many.ends_with("O17 (id 17), O18 (id 18), …"), "{many}");
    let deletes = outcome.changes.iter().filter(|change| change.action == Action::Delete).count();
    assert_eq!((deletes, outcome.changes.len(), outcome.removed), (12, 12, 0));
    assert_eq!(here.server.log().writes(), 0);
    // What was deleted before something stopped the run is counted.
    let here = company().await;
    let one = towpath_testkit::pipedrive::On::route("DELETE", "/api/v2/deals/*");
    here.server.faults().add(one, 1.., towpath_testkit::pipedrive::Fault::Status(401));
    let outcome = here.one(here.deals(more("delete", "10%")), given(18)).await;
    assert_eq!((outcome.removed, outcome.error.is_some()), (1, true), "{outcome:?}");
    let here = company().await;
    // Where not every row was given, nobody knows what is missing.
    for complete in [Complete { whole: false, refused: 0 }, Complete { whole: true, refused: 1 }] {
        let outcome = here.run_as(vec![(here.deals(more("delete", "50%")), vec![given(18)])], false, complete).await;
        assert!(outcome[0].error.is_none());
        assert_eq!(here.server.log().writes(), 0);
    }
    // In a plan they are shown, and stay.
    let outcome = here.differences(vec![(here.deals(more("delete", "50%")), vec![given(18)])]).await;
    let keys: Vec<_> = outcome[0].changes.iter().map(|change| (change.action, change.key.as_str())).collect();
    assert_eq!(keys, [(Action::Delete, "O19"), (Action::Delete, "O20")]);
    assert_eq!(here.server.log().writes(), 0);
}

#[tokio::test]
async fn what_people_have_set_is_left_to_them() {
    let [company, _] = Company::both().await;
    let account = company.server.account();
    let emails = json!([{ "value": "own@x", "primary": true }]);
    account.add(Entity::Persons, json!({ "name": "Own", "emails": emails, "custom_fields": { "CustomerID": "C1" } }));
    account.add(Entity::Persons, json!({ "name": "Own", "custom_fields": { "CustomerID": "C2" } }));
    let batch = || customers(&[&["C1", "Ours", "ours@x"], &["C2", "Ours", "ours@x"], &["C3", "Ours", "-"]]);
    let more = json!({ "only_empty": true, "create": false });
    company.one(company.persons(more.clone()), batch()).await.ok();
    assert_eq!(company.people(), ["C1 Own own@x", "C2 Own ours@x"]);
    company.one(company.persons(json!({ "only_empty": ["Email"], "update": false })), batch()).await.ok();
    assert_eq!(company.people(), ["C1 Own own@x", "C2 Own ours@x", "C3 Ours -"]);
    company.one(company.persons(json!({ "only_empty": ["Email"] })), batch()).await.ok();
    assert_eq!(company.people(), ["C1 Ours own@x", "C2 Ours ours@x", "C3 Ours -"]);
}

#[tokio::test]
async fn new_records_get_an_owner_and_a_place_and_others_keep_theirs() {
    let [company, _] = Company::both().await;
    let account = company.server.account();
    let jo = account.add_user("Jo Doe", "jo@x");
    let (pipeline, stages) = account.add_pipeline("Outlet", &["New", "Done"]);
    let there = account.add(Entity::Deals, json!({ "title": "There", "custom_fields": { "OrderID": "O1" } }));
    let place = |id: u64| {
        let deal = account.record(Entity::Deals, id).unwrap();
        ["owner_id", "pipeline_id", "stage_id"].map(|field| deal.get(field).as_u64().unwrap())
    };
    let before = place(there);
    let more = json!({ "owner": "Jo Doe", "pipeline": "Outlet", "stage": "Done", "link": {} });
    company.one(company.deals(more), orders(&[&["O1", "Changed", "1", "-"], &["O2", "New", "1", "-"]])).await.ok();
    assert_eq!(place(there), before);
    assert_eq!(place(there + 1), [jo, pipeline, stages[1]]);
}

#[tokio::test]
async fn a_deal_that_was_put_away_is_not_made_again() {
    for company in Company::both().await {
        let account = company.server.account();
        let deal = account.add(Entity::Deals, json!({ "title": "Away", "custom_fields": { "OrderID": "O1" } }));
        account.archive(deal);
        let options = company.deals(json!({ "link": {}, "on_missing": "delete", "max_deletes": "100%" }));
        let outcome = company.one(options, orders(&[&["O1", "New title", "1", "-"]])).await.ok();
        assert_eq!((outcome.written, outcome.known, company.server.log().writes()), (0, 1, 0));
        let options = company.deals(json!({ "link": {}, "on_missing": "delete", "max_deletes": "100%" }));
        company.one(options, orders(&[&["O2", "Other", "1", "-"]])).await.ok();
        assert_eq!(account.deals().len(), 2, "nor deleted");
    }
}

#[tokio::test]
async fn a_person_deleted_by_hand_comes_back_with_its_deals() {
    for company in Company::both().await {
        let persons = || (company.persons(json!({})), vec![customers(&[&["C1", "Ada", "-"]])]);
        let deals = || (company.deals(json!({})), vec![orders(&[&["O1", "a", "1", "C1"]])]);
        company.run(vec![persons(), deals()]).await;
        let account = company.server.account();
        account.delete(Entity::Persons, account.persons()[0].id);
        for outcome in company.run(vec![persons(), deals()]).await {
            outcome.ok();
        }
        let person = account.persons()[0].id;
        assert_eq!(account.deals()[0].get("person_id").as_u64(), Some(person));
        // In the middle of a run as well: what is gone when it is to be changed is made.
        let gone = towpath_testkit::pipedrive::Fault::meanwhile(move |account| account.delete(Entity::Persons, person));
        company.server.faults().add(towpath_testkit::pipedrive::On::route("PATCH", "/api/v2/persons/*"), 0..1, gone);
        company.one(company.persons(json!({})), customers(&[&["C1", "Ada L", "-"]])).await.ok();
        assert_eq!(company.people(), ["C1 Ada L -"]);
    }
}
