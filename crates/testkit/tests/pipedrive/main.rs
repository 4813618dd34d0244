//! The account of Pipedrive against a client that does nothing by itself, and against the vendor's own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests")]

mod budget;
mod client;
mod faults;
mod fields;
mod lists;
mod oauth;
mod peers;
mod records;

use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Entity, FieldType, Pipedrive, PipedriveOptions, Plan};

use client::Client;

/// So many calls that no test meets a limit that it does not mean.
fn roomy() -> PipedriveOptions {
    PipedriveOptions { plan: Plan::Ultimate, seats: 100, starts_at: Some(1_790_000_000), ..PipedriveOptions::default() }
}

/// A server and its client.
async fn server(options: PipedriveOptions) -> (Pipedrive, Client) {
    let token = options.api_token.clone();
    let server = Pipedrive::start(options).await;
    let client = Client::new(server.address(), &token);
    (server, client)
}

/// Persons `C1`, `C2`… with that in their field `CustomerID`.
fn seed_persons(server: &Pipedrive, count: usize) -> Vec<u64> {
    let account = server.account();
    account.fields(Entity::Persons).add("CustomerID", FieldType::Varchar);
    let bodies = (1..=count)
        .map(|n| json!({ "name": format!("Person {n}"), "custom_fields": { "CustomerID": format!("C{n}") } }));
    account.seed(Entity::Persons, bodies)
}

/// The ids of a page.
fn ids(page: &Value) -> Vec<u64> {
    page["data"].as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect()
}
