//! SIGKILL at random moments: nothing is there twice, nothing is missing, and what was sent is not sent again.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use towpath_testkit::pipedrive::{Fault, On, PipedriveOptions, Plan};

use super::*;

/// Kills that must hit a run under way.
const KILLS: usize = 16;

/// An account that takes its time, so that a run can be hit while it sends.
fn company() -> Company {
    let options = PipedriveOptions {
        plan: Plan::Ultimate,
        seats: 1_000,
        burst: Some(1_000_000),
        latency: Duration::from_millis(10),
        ..PipedriveOptions::default()
    };
    let company = Company::of(Shop::of(60, 140), options);
    company.unpace();
    company
}

/// Changes some records and adds others.
fn change(company: &mut Company) {
    let more = Shop::of(80, 180);
    company.shop.customers.values_mut().for_each(|(name, _)| name.push_str(" jr"));
    for (id, customer) in more.customers {
        company.shop.customers.entry(id).or_insert(customer);
    }
    let added: Vec<_> = more.orders.into_iter().filter(|(id, _)| !company.shop.orders.contains_key(id)).collect();
    let is_added = |order: &str| added.iter().any(|(id, _)| id == order);
    company.shop.payments.extend(more.payments.into_iter().filter(|(order, ..)| is_added(order)));
    company.shop.orders.extend(added);
    company.publish();
}

/// Kills runs until enough were hit; each is taken up until it is done, and then another account begins.
fn killed(seed: u64, prepared: impl Fn() -> Company) {
    let mut dice = seed;
    let mut roll = move || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 11) as f64 / (1u64 << 53) as f64
    };
    // How long it takes undisturbed, here and now, and what it sends.
    let clean = prepared();
    // The first command builds the program.
    clean.place.towpath(&["validate", FILE]).expect(0);
    let began = Instant::now();
    clean.run(&[]).expect(0);
    let seconds = began.elapsed().as_secs_f64();
    clean.check();
    let writes = clean.crm.log().writes();
    let (mut hit, mut between) = (0, 0);
    while hit < KILLS {
        let company = prepared();
        let mut kills = 0;
        for _ in 0..4 {
            let running = company.place.start(&["run", FILE, "--json"]);
            sleep(Duration::from_secs_f64(roll() * seconds));
            running.signal("KILL");
            if !running.end().was_killed() {
                break;
            }
            kills += 1;
            // One that came while the token went out for the first time leaves it in doubt, until somebody says that it is right.
            company.place.towpath(&["state", "reset", "credentials"]).expect(0);
            let sent = company.crm.log().writes();
            between += usize::from(sent > 0 && sent < writes);
        }
        company.run(&[]).expect(0);
        company.check();
        // What was under way at a kill may have been carried out, and is then found equal; it is never sent a second time.
        assert_eq!(company.crm.log().writes(), writes, "after {kills} kills");
        company.crm.log().clear();
        company.run(&["--full"]).expect(0);
        assert_eq!(company.crm.log().writes(), 0, "after {kills} kills");
        hit += kills;
    }
    assert!(between > 0, "no kill came while records were sent");
}

#[test]
fn the_first_sync() {
    killed(0x9E37_79B9_7F4A_7C15, company);
}

#[test]
fn a_day_with_changes() {
    killed(0x2545_F491_4F6C_DD1D, || {
        let mut company = company();
        company.run(&[]).expect(0);
        change(&mut company);
        company.crm.log().clear();
        company
    });
}

/// An interrupt meets the very first call with a key: its answer is waited for, and the next run goes on as if nothing had been.
#[test]
fn an_interrupt_leaves_no_key_in_doubt() {
    let company = Company::unpaced(Shop::of(5, 5));
    let (log, faults) = (company.crm.log(), company.crm.faults());
    faults.add(On::any(), 0..1, Fault::Slow(Duration::from_secs(1)));
    let running = company.place.start(&["run", FILE, "--json"]);
    until("the key is on its way", || company.place.towpath(&["state", "show", "--json"]).out.contains("\"trying\""));
    // The second one gives up what is under way.
    running.signal("INT");
    until("it has heard", || running.said().contains("once more ends it"));
    running.signal("INT");
    let ran = running.end();
    assert!(!ran.was_killed() && !ran.out.contains("\"completed\""), "{ran:#?}");
    let shown = company.place.towpath(&["state", "show", "--json"]).out;
    assert!(shown.contains("\"proven\"") && !shown.contains("\"unknown\""), "{shown}");
    company.run(&[]).expect(0);
    assert_eq!(log.answered(401), 0);
    company.check();
}
