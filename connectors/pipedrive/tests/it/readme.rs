//! The examples of the README can be planned.

use serde_json::Value;
use towpath_core::{Connector, Context, Known, Resume, Sink as _, Source as _, pipeline::Role};
use towpath_testkit::pipedrive::Entity;

use crate::common::{Company, customers, rows, run};

fn examples() -> Vec<Value> {
    let readme = Connector::find("pipedrive").unwrap().readme;
    let blocks = readme.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|block| serde_saphyr::from_str(block).unwrap()).collect()
}

fn options(mut options: Value, company: &Company) -> Value {
    let map = options.as_object_mut().unwrap();
    for of_every_component in ["type", "inputs", "after", "company"] {
        map.remove(of_every_component);
    }
    options["url"] = company.server.url().into();
    options["api_token"] = "towpath-test-token".into();
    options
}

#[tokio::test]
async fn the_examples_are_planned() {
    let [company, _] = Company::both().await;
    company.server.account().add_pipeline("Sales", &["New"]);
    let [pipeline, source] = <[Value; 2]>::try_from(examples()).unwrap();
    let connector = Connector::find("pipedrive").unwrap();
    let mut notes = vec![];
    let orders = rows(&["order_id", "title", "ordered", "total", "customer_id"], &[]);
    let people = rows(&["customer_id", "name", "email"], &[]);
    for (name, rows) in [("persons", people), ("deals", orders)] {
        let options = options(pipeline["sinks"][name].clone(), &company);
        connector.check(Role::Sink, &name.into(), options.clone()).unwrap();
        let mut sink =
            towpath_connector_pipedrive::PipedriveSink::new(serde_json::from_value(options).unwrap()).unwrap();
        let plan = sink.plan(&Context::bare(name).for_plan(), &Known::Now(rows.schema())).await.unwrap();
        notes.push(format!("{}\n  {}", plan.identity, plan.notes.join("\n  ")).replace(&company.server.url(), "[url]"));
        assert!(sink.key_columns().is_some());
    }
    insta::with_settings!({ filters => vec![("[0-9a-f]{40}", "[key]")] }, { insta::assert_snapshot!(notes.join("\n")); });
    let options = options(source["sources"]["deals"].clone(), &company);
    connector.check(Role::Source, &"deals".into(), options.clone()).unwrap();
    let options = serde_json::from_value(options).unwrap();
    let mut source = towpath_connector_pipedrive::PipedriveSource::new(&"deals".into(), options).unwrap();
    let plan = source.plan(&Context::bare("deals").for_plan(), &run(), &Resume::default()).await.unwrap();
    let names: Vec<_> = plan.schema.schema().unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "update_time", "title", "value", "currency", "OrderID"]);
    assert_eq!(plan.work.len(), 2);
    let discovered = source.discover(&Context::bare("deals")).await.unwrap();
    assert!(discovered.text.contains("OrderID") && discovered.text.contains("Fee currency"), "{}", discovered.text);
    assert_eq!(company.server.log().writes(), 0);
}

#[tokio::test]
async fn an_account_that_cannot_be_reached_is_planned_from_the_config() {
    let [company, _] = Company::both().await;
    let options = company.persons(serde_json::json!({}));
    let (mut sink, url) = (towpath_connector_pipedrive::PipedriveSink::new(options).unwrap(), company.server.url());
    company.server.stop().await;
    let plan = sink.plan(&Context::bare("persons").for_plan(), &Known::Now(customers(&[]).schema())).await.unwrap();
    assert!(plan.notes[0].starts_with("what the account holds is not known: "), "{:?}", plan.notes);
    assert!(plan.identity.contains(&url));
    // The plan that a run begins with asks nothing at all.
    let plan = sink.plan(&Context::bare("persons").for_start(), &Known::No).await.unwrap();
    assert!(plan.notes.is_empty());
}

#[tokio::test]
async fn an_app_comes_in_by_oauth() {
    use towpath_testkit::pipedrive::{OAuthApp, Pipedrive, PipedriveOptions};
    let app = OAuthApp::default();
    let options = PipedriveOptions { oauth: Some(app.clone()), burst: Some(1000), ..PipedriveOptions::default() };
    let server = Pipedrive::start(options).await;
    let company = Company { server };
    company.server.account().add_demo_fields();
    let token_url = format!("{}/oauth/token", company.server.url());
    let mut options = company.persons(serde_json::json!({}));
    options.account.api_token = None;
    options.account.oauth2 = serde_json::from_value(serde_json::json!({
        "client_id": app.client_id, "client_secret": app.client_secret, "refresh_token": app.refresh_token, "token_url": token_url,
    }))
    .unwrap();
    let outcome = company.one(options, customers(&[&["C1", "Ada", "-"], &["C2", "Bob", "-"]])).await.ok();
    assert_eq!((outcome.written, company.server.account().records(Entity::Persons).len()), (2, 2));
    let calls = company.server.log().calls();
    assert!(calls.iter().filter(|call| call.path.starts_with("/api")).all(|call| call.oauth));
    assert_eq!(calls.iter().filter(|call| call.path == "/oauth/token").count(), 1);
}
