//! What a plan says of a config that a run could not go by.

use serde_json::{Value, json};
use towpath_connector_pipedrive::{PipedriveSink, PipedriveSource, SinkOptions};
use towpath_core::{Context, Error, ErrorKind, Known, Result, Resume, Sink as _, Source as _};

use towpath_testkit::pipedrive::Entity;

use crate::common::{Company, run};

/// An error as people read it.
fn said<T>(came: Result<T>) -> String {
    let line = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::Config);
        format!("{error}\n  {}", error.what_to_do().unwrap_or("-"))
    };
    came.map_or_else(line, |_| "fine".to_owned())
}

async fn plan(options: SinkOptions) -> String {
    said(PipedriveSink::new(options).unwrap().plan(&Context::bare("sink").for_plan(), &Known::No).await)
}

#[tokio::test]
async fn what_links_and_constants_name_is_looked_for() {
    let [company, _] = Company::both().await;
    let link = |entity: &str, match_on: &str| json!({ "link": { "person_id": { "entity": entity, "match_on": match_on, "from": "customer" } } });
    let field = |name: &str, from: Value| json!({ "fields": { "OrderID": "id", "Title": "title", name: from } });
    let money = |currency: &str| json!({ "column": "total", "currency": { "value": currency } });
    for (more, expected) in [
        (json!({}), "fine"),
        (
            link("persons", "CustomerIDs"),
            "link.person_id.match_on: there is no field 'CustomerIDs' in persons\n  did you mean 'CustomerID'? If it was renamed in Pipedrive, write its new name",
        ),
        (
            link("persons", "Tier"),
            "link.person_id.match_on: records cannot be told apart by Tier\n  take a text or a number",
        ),
        (
            field("Status", json!({ "value": "wonn" })),
            "fields.Status.value: 'wonn' is none of open, won, lost\n  did you mean 'won'?",
        ),
        (field("Status", json!({ "value": "won" })), "fine"),
        (
            field("Owner", json!({ "value": "Ada Admim" })),
            "fields.Owner.value: there is no user 'Ada Admim'; there are Ada Admin\n  did you mean 'Ada Admin'?",
        ),
        (
            field("Order date", json!({ "value": "today" })),
            "fields.Order date.value: 'today' is not a date; write 2026-01-31\n  -",
        ),
        (field("Fee", money("€")), "fields.Fee.currency: '€' is not the code of a currency\n  -"),
        (field("Value", money("€")), "fields.Value.currency: '€' is not the code of a currency\n  -"),
        (field("Fee", json!({ "value": "x", "currency": "code" })), "fields.Fee.value: 'x' is not a number\n  -"),
        (
            field("Title", json!({ "value": " " })),
            "fields.Title.value: it is empty, and Pipedrive takes none without\n  -",
        ),
    ] {
        assert_eq!(plan(company.deals(more.clone())).await, expected, "{more}");
    }
    assert_eq!(company.server.log().writes(), 0);
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_said() {
    let [company, _] = Company::both().await;
    let mut options = company.persons(json!({}));
    options.account.url = Some(format!("{}/elsewhere", company.server.url()));
    let mut sink = PipedriveSink::new(options).unwrap();
    let plan = sink.plan(&Context::bare("sink").for_plan(), &Known::No).await.unwrap();
    let url = company.server.url();
    let expected = format!(
        "what the account holds is not known: list the fields of persons: Pipedrive refused it (404): there is nothing at this address; look whether {url}/elsewhere is the account's address"
    );
    assert_eq!(plan.notes, [expected]);
}

#[tokio::test]
async fn a_field_that_was_renamed_is_said_by_its_new_name() {
    let [company, _] = Company::both().await;
    let fields = company.server.account().fields(Entity::Deals);
    let options = |name: &str| {
        let map = json!({ "OrderID": "id", "Title": "title", name: "ordered" });
        company.deals(json!({ "fields": map, "link": {} }))
    };
    assert_eq!(plan(options("Order date")).await, "fine");
    let key = fields.key("Order date").unwrap();
    fields.rename(&key, "Shipped");
    assert_eq!(
        plan(options("Order date")).await,
        format!(
            "fields.Order date: there is no field 'Order date' in deals any more: it is called 'Shipped' now\n  write 'Shipped' in its place, or the key {key}"
        )
    );
    assert_eq!(plan(options("Shipped")).await, "fine");
    // A process that has never found it names what it may be.
    assert_eq!(
        plan(options("Town")).await,
        "fields.Town: there is no field 'Town' in deals\n  if it was renamed in Pipedrive, write its new name (not mapped so far: 'Shipped', 'Fee'); else add it there (Settings, Data fields)"
    );
}

#[tokio::test]
async fn a_list_that_is_not_there_is_said() {
    let [company, _] = Company::both().await;
    for (entity, expected) in [
        ("stages", "fine"),
        ("dealz", "entity: Pipedrive has no list 'dealz'\n  did you mean 'deals'?"),
        (
            "invoices",
            "entity: Pipedrive has no list 'invoices'\n  there are persons, deals, organizations, products, activities, pipelines, stages, and other lists of the API v2",
        ),
    ] {
        let options = json!({ "url": company.server.url(), "api_token": "towpath-test-token", "entity": entity });
        let mut source = PipedriveSource::new(&"s".into(), serde_json::from_value(options).unwrap()).unwrap();
        let (ctx, run, resume) = (Context::bare("s"), run(), Resume::default());
        assert_eq!(said(source.plan(&ctx.for_plan(), &run, &resume).await), expected);
        // The plan that a run begins with asks nothing; the run does.
        assert_eq!(said(source.plan(&ctx.for_start(), &run, &resume).await), "fine");
        source.open(&ctx, &run, &resume).await.unwrap();
        assert_eq!(said(source.next().await), expected);
    }
}
