//! The vendor's budget: kept ahead of, and stopped at.

use std::time::Duration;

use towpath_testkit::pipedrive::{Fault, Kind, On, PipedriveOptions, Plan};

use super::*;

/// Puts both ends into the next day.
fn next_day(company: &Company) {
    company.crm.clock().advance(Duration::from_secs(86_400));
    company.place.towpath(&["state", "reset", "budget"]).expect(0);
}

#[test]
fn a_day_that_is_spent_ends_the_run_and_the_next_goes_on_where_it_stopped() {
    for ours in [false, true] {
        let company =
            Company::of(Shop::of(20, 40), PipedriveOptions { plan: Plan::Lite, ..PipedriveOptions::default() });
        // Either our share is small, or the company's other tools have been busy.
        let mut more = vec![];
        if ours {
            more = vec!["--set", "sinks.persons.budget.share=1%", "--set", "sinks.deals.budget.share=1%"];
        } else {
            company.crm.account().spend(30_000 - 300);
        }
        let log = company.crm.log();
        let stopped = company.run(&more).expect(130);
        assert!(stopped.err.contains("budget"), "{}", stopped.err);
        let first = log.count(Kind::Create);
        assert!((1..60).contains(&first), "{first}");
        // Whatever it is asked, it sends nothing more on this day.
        let calls = log.len();
        company.run(&more).expect(130);
        for plan in [&["plan", FILE, "--diff"][..], &["plan", FILE]] {
            let plan = company.place.towpath(&[plan, &more].concat()).expect(130);
            assert!(plan.err.contains("the day's budget of"), "{plan:?}");
        }
        assert_eq!(log.len(), calls);

        next_day(&company);
        company.run(&more).expect(0);
        assert_eq!(log.count(Kind::Create), 60, "none was sent twice");
        company.check();
        assert_eq!((log.answered(429) <= usize::from(!ours), log.busiest_window() <= 20), (true, true));
    }
}

/// What is left of the day, as a plan says it.
fn left(company: &Company) -> u64 {
    let plan = company.place.towpath(&["plan", FILE]).expect(0);
    let line = plan.out.lines().find(|line| line.contains("tokens are left of")).unwrap_or_else(|| panic!("{plan:?}"));
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
}

#[test]
fn a_plan_whose_token_is_refused_shows_what_it_knows_and_books_what_went_out() {
    let [fresh, company] = [(); 2].map(|()| Company::new(Shop::of(2, 4)));
    let wrong = ["--set", "sinks.persons.api_token=wrong", "--set", "sinks.deals.api_token=wrong"];
    for _ in 0..2 {
        let plan = company.place.towpath(&[&["plan", FILE][..], &wrong].concat()).expect(1);
        for said in ["source customers", "orders_paid", "sink persons (pipedrive)", "sink deals (pipedrive)"] {
            assert!(plan.out.contains(said), "{said}: {}", plan.out);
        }
        for said in ["error: persons: ", "error: deals: "] {
            assert!(plan.err.contains(said), "{said}: {}", plan.err);
        }
        let report = company.place.towpath(&[&["plan", FILE, "--json"][..], &wrong].concat()).expect(1).out;
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["failures"].as_array().unwrap().len(), 2, "{report}");
    }
    // It goes out once; every other call is held back, and costs nothing.
    let calls = company.crm.log().len() as u64;
    assert_eq!((calls, left(&fresh) - left(&company)), (1, 10 * calls));
}

#[test]
fn a_plan_of_a_server_that_is_away_shows_what_it_knows_and_fails_as_a_run() {
    let company = Company::new(Shop::of(2, 4));
    let away = ["persons", "deals"]
        .iter()
        .flat_map(|sink| [format!("sinks.{sink}.url=http://127.0.0.1:9"), format!("sinks.{sink}.retry.attempts=1")])
        .flat_map(|set| ["--set".to_owned(), set])
        .collect::<Vec<_>>();
    let away: Vec<&str> = away.iter().map(String::as_str).collect();
    let plan = company.place.towpath(&[&["plan", FILE][..], &away].concat()).expect(1);
    assert!(plan.out.contains("sink deals (pipedrive)") && plan.err.contains("cannot connect"), "{plan:?}");
    company.run(&away).expect(1);
}

#[test]
fn a_plan_that_lacks_a_right_fails_as_well() {
    let company = Company::unpaced(Shop::of(2, 4));
    company.crm.faults().add(On::route("GET", "/api/v2/dealFields"), .., Fault::Status(403));
    let plan = company.place.towpath(&["plan", FILE]).expect(1);
    assert!(plan.out.contains("sink deals (pipedrive)"), "{plan:?}");
    assert!(plan.err.contains("error: deals: ") && !plan.err.contains("error: persons: "), "{plan:?}");
}
