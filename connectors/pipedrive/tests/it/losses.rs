//! Answers that are lost, servers that fail, processes that die.

use arrow_array::RecordBatch;
use serde_json::json;
use towpath_core::{Context, ErrorKind, Retry, Sink as _};
use towpath_testkit::pipedrive::{Fault, Kind, On};

use crate::common::{Company, customers, run};

fn people(n: usize) -> RecordBatch {
    let rows: Vec<_> = (1..=n).map(|n| [format!("C{n}"), format!("P{n}")]).collect();
    let rows: Vec<[&str; 3]> = rows.iter().map(|[id, name]| [id.as_str(), name.as_str(), "-"]).collect();
    let rows: Vec<&[&str]> = rows.iter().map(<[&str; 3]>::as_slice).collect();
    customers(&rows)
}

fn names(n: usize) -> Vec<String> {
    let mut names: Vec<_> = (1..=n).map(|n| format!("C{n} P{n} -")).collect();
    names.sort();
    names
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_looked_for_before_it_is_sent_again() {
    for fault in [
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::CutBody(5),
        Fault::Status(500),
        Fault::StatusAfter(502),
        Fault::Html200,
    ] {
        for company in Company::both().await {
            company.server.faults().add(On::route("POST", "/api/v2/persons"), 2..4, fault.clone());
            let outcome = company.one(company.persons(json!({})), people(8)).await.ok();
            assert_eq!(outcome.written, 8, "{fault:?}");
            assert_eq!(sorted(company.people()), names(8), "{fault:?}");
            company.server.log().clear();
            company.one(company.persons(json!({})), people(8)).await.ok();
            assert_eq!(company.server.log().writes(), 0, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_twin_that_appears_all_the_same_is_reported() {
    let [company, _] = Company::both().await;
    // The first one is lost on its way, and arrives when the second one has been sent.
    let post = || On::route("POST", "/api/v2/persons");
    company.server.faults().add(post(), 0..1, Fault::CutBefore);
    let late = Fault::meanwhile(|account| {
        let body = json!({ "name": "P1", "custom_fields": { "CustomerID": "C1" } });
        account.add(towpath_testkit::pipedrive::Entity::Persons, body);
    });
    company.server.faults().add(post(), 1..2, late);
    let outcome = company.one(company.persons(json!({})), people(1)).await;
    assert_eq!(
        outcome.refused,
        ["an answer was lost, and several persons were made for C1 (ids 1, 2); delete all but one of them"]
    );
    assert_eq!(outcome.written, 0);
}

#[tokio::test]
async fn a_process_that_dies_at_any_moment_leaves_nothing_twice() {
    for polls in (1..60).step_by(3) {
        let [company, _] = Company::both().await;
        {
            let mut sink = towpath_connector_pipedrive::PipedriveSink::new(company.persons(json!({}))).unwrap();
            sink.open(&Context::bare("persons"), &run()).await.unwrap();
            let batch = people(10);
            let work = async {
                sink.schema(&batch.schema()).await?;
                sink.write(0, batch.clone()).await
            };
            let mut work = std::pin::pin!(work);
            let mut left = polls;
            let died = std::future::poll_fn(|cx| {
                left -= 1;
                match work.as_mut().poll(cx) {
                    std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(true),
                    std::task::Poll::Pending => std::task::Poll::Pending,
                    std::task::Poll::Ready(_) => std::task::Poll::Ready(false),
                }
            })
            .await;
            if !died {
                assert_eq!(sorted(company.people()), names(10));
            }
        }
        // What is under way at the server comes to its end there.
        while company.server.log().calls().last().map(|call| call.at) != Some(company.server.clock().elapsed()) {
            let before = company.server.log().len();
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            if company.server.log().len() == before {
                break;
            }
        }
        company.one(company.persons(json!({})), people(10)).await.ok();
        assert_eq!(sorted(company.people()), names(10), "died at poll {polls}");
    }
}

#[tokio::test]
async fn some_answers_stop_everything_at_once() {
    for (fault, kind, after, said) in [
        (Fault::Status(401), ErrorKind::Auth, None, "401"),
        (Fault::Status(402), ErrorKind::Auth, None, "402"),
        (Fault::Html403, ErrorKind::RateLimited, Some(3600), "shut us out"),
        (Fault::Daily429, ErrorKind::RateLimited, Some(600), "budget of this day"),
    ] {
        let [company, _] = Company::both().await;
        company.server.faults().add(On::route("POST", "/api/v2/persons"), 3.., fault.clone());
        let outcome = company.one(company.persons(json!({ "workers": 1 })), people(10)).await;
        let error = outcome.error.as_ref().unwrap();
        assert_eq!((error.kind(), error.to_string().contains(said)), (kind, true), "{error}");
        match (after, error.retrying()) {
            (None, Retry::Never) => {}
            (Some(least), Retry::After(pause)) => assert!(pause.as_secs() >= least, "{error}"),
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(company.server.log().count(Kind::Create), 4, "the first refusal is the last call");
        assert_eq!(outcome.written, 3, "what was written before is counted");
        // The next run goes on where this one stopped.
        company.server.faults().clear();
        let outcome = company.one(company.persons(json!({})), people(10)).await.ok();
        assert_eq!((outcome.written, outcome.equal), (7, 3), "{fault:?}");
    }
}

#[tokio::test]
async fn a_burst_that_somebody_else_made_is_waited_for() {
    for company in Company::both().await {
        company.server.faults().add(On::route("POST", "/api/v2/persons"), 1..3, Fault::Status(429));
        let outcome = company.one(company.persons(json!({ "workers": 1 })), people(4)).await.ok();
        assert_eq!(outcome.written, 4);
        assert_eq!(sorted(company.people()), names(4));
    }
}

#[tokio::test]
async fn a_plan_that_holds_no_more_deals_stops_the_run() {
    let [company, _] = Company::both().await;
    company.server.account().limit_deals(Some(1));
    let batch = crate::common::orders(&[&["O1", "a", "1", "-"], &["O2", "b", "1", "-"], &["O3", "c", "1", "-"]]);
    let outcome = company.one(company.deals(json!({ "link": {}, "workers": 1 })), batch).await;
    assert_eq!(outcome.error.as_ref().unwrap().kind(), ErrorKind::Conflict, "{outcome:?}");
    assert_eq!(company.server.log().count(Kind::Create), 2);
}

#[tokio::test]
async fn two_runs_at_the_same_time_lose_nothing_and_their_twins_are_reported() {
    let [company, _] = Company::both().await;
    let run = || company.one(company.persons(json!({})), people(6));
    let (one, other) = futures::join!(run(), run());
    let written = one.ok().written + other.ok().written;
    let mut there = sorted(company.people());
    assert_eq!(there.len() as u64, written);
    there.dedup();
    assert_eq!(there, names(6), "each of them is there");
    company.server.log().clear();
    let next = company.one(company.persons(json!({})), people(6)).await;
    assert_eq!(next.refused.len() as u64, written - 6, "{next:?}");
    assert_eq!(company.server.log().writes(), 0);
    // Whoever merges them by hand has an account that is equal.
    let account = company.server.account();
    let mut seen = std::collections::BTreeSet::new();
    for person in account.persons() {
        if !seen.insert(person.custom("CustomerID").to_string()) {
            account.delete(towpath_testkit::pipedrive::Entity::Persons, person.id);
        }
    }
    assert_eq!(company.one(company.persons(json!({})), people(6)).await.ok().equal, 6);
}
