//! The pipeline of `config/` that keeps Pipedrive equal to three files, against a simulated account: what is sent, and what the account holds in
//! the end, record by record.
//!
//! What a sink does with one fault each (answers lost in every way, pages that shift, twins, every type of field) is tested with the
//! connector; here it is the whole way, processes and files included.

mod any;
mod kills;
mod missing;
mod oauth;
mod policies;
mod shop;
mod spending;
mod sync;

use std::ops::Deref;

use serde_json::Value;
use towpath_testkit::pipedrive::{Pipedrive, PipedriveOptions, Plan};

use crate::kit::*;

use self::shop::{Files, Shop, people, sales};

/// The file under test.
const FILE: &str = "csv_to_pipedrive.yaml";

/// A simulated account, on threads of its own.
struct Crm {
    server: Pipedrive,
    _runtime: tokio::runtime::Runtime,
}

impl Deref for Crm {
    type Target = Pipedrive;
    fn deref(&self) -> &Pipedrive {
        &self.server
    }
}

impl Crm {
    fn new(options: PipedriveOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Pipedrive::start(options));
        server.account().add_demo_fields();
        Self { server, _runtime: runtime }
    }
}

/// A shop that publishes its files, its CRM, and the pipeline between them.
struct Company {
    place: Place,
    files: Files,
    crm: Crm,
    shop: Shop,
}

impl Company {
    /// The pipeline as it stands, of a company that pays for the largest plan.
    fn new(shop: Shop) -> Self {
        Self::of(shop, PipedriveOptions { plan: Plan::Ultimate, ..PipedriveOptions::default() })
    }
    /// One whose vendor counts nothing, for tests in which the time is not the point.
    fn unpaced(shop: Shop) -> Self {
        let options = PipedriveOptions {
            plan: Plan::Ultimate,
            seats: 1_000,
            burst: Some(1_000_000),
            ..PipedriveOptions::default()
        };
        let company = Self::of(shop, options);
        company.unpace();
        company
    }
    /// Takes the budget from the file: the pace is what answers say of it.
    fn unpace(&self) {
        let text = include_str!("../../../config/pipelines/csv_to_pipedrive.yaml");
        let bare = text.replace("{ plan: \"${PIPEDRIVE_PLAN:-lite}\", seats: 1, share: 80% }", "{}");
        assert_ne!(bare, text, "the budget has gone from the file");
        self.place.write(FILE, &bare);
    }
    fn of(shop: Shop, options: PipedriveOptions) -> Self {
        let place = Place::new();
        place.write(FILE, include_str!("../../../config/pipelines/csv_to_pipedrive.yaml"));
        let (files, plan) = (Files::start(), format!("{:?}", options.plan).to_lowercase());
        let crm = Crm::new(options);
        let token = "towpath-test-token";
        let variables = [("CRM_FILES", files.url()), ("PIPEDRIVE_URL", crm.url()), ("PIPEDRIVE_PLAN", plan)];
        let lines = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>();
        place.write(".env", &format!("{lines}PIPEDRIVE_API_TOKEN={token}\n"));
        let company = Self { place, files, crm, shop };
        company.publish();
        company
    }
    /// Puts the files where the pipeline finds them.
    fn publish(&self) {
        self.shop.files().iter().for_each(|(name, text)| self.files.put(name, text));
    }
    fn run(&self, more: &[&str]) -> Ran {
        self.place.towpath(&[&["run", FILE, "--json"], more].concat())
    }
    /// What the account holds is what the files say.
    #[track_caller]
    fn check(&self) {
        let account = self.crm.account();
        same(&people(&account), &self.shop.people());
        same(&sales(&account), &self.shop.sales());
    }
    /// Every body that a call of this method carried.
    fn bodies(&self, method: &str) -> Vec<Value> {
        let calls = self.crm.log().calls();
        calls.into_iter().filter(|call| call.method == method).filter_map(|call| call.body).collect()
    }
}

/// Shows the first lines that differ: thousands would tell nothing.
#[track_caller]
fn same(held: &[String], said: &[String]) {
    let without = |lines: &[String], others: &[String]| {
        let others: std::collections::BTreeSet<&String> = others.iter().collect();
        lines.iter().filter(|line| !others.contains(line)).take(5).cloned().collect::<Vec<_>>()
    };
    if held != said {
        let (more, less) = (without(held, said), without(said, held));
        panic!("{} records where {} should be; such as {more:#?} in place of {less:#?}", held.len(), said.len());
    }
}
