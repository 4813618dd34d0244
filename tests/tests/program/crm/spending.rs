//! The vendor's budget: kept ahead of, and stopped at.

use std::time::Duration;

use towpath_testkit::pipedrive::{Kind, PipedriveOptions, Plan};

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
        assert_eq!(log.len(), calls);

        next_day(&company);
        company.run(&more).expect(0);
        assert_eq!(log.count(Kind::Create), 60, "none was sent twice");
        company.check();
        assert_eq!((log.answered(429) <= usize::from(!ours), log.busiest_window() <= 20), (true, true));
    }
}
