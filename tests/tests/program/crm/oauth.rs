//! Signing in as an app: its refresh tokens are good once, so whoever loses one locks the company out.

use towpath_testkit::pipedrive::{Fault, Kind, OAuthApp, On, PipedriveOptions, Plan};

use super::*;

/// The same pipeline under another name, for a second process.
const OTHER: &str = "other.yaml";

/// The pipeline as it stands, but for how it signs in.
fn by_app(shop: Shop) -> Company {
    let app = OAuthApp::default();
    let company = Company::of(
        shop,
        PipedriveOptions { plan: Plan::Ultimate, oauth: Some(app.clone()), ..PipedriveOptions::default() },
    );
    let token = "api_token: &token \"${PIPEDRIVE_API_TOKEN}\"";
    let ours = format!(
        "oauth2: &token {{ client_id: {}, client_secret: {}, refresh_token: {}, token_url: \"{}/oauth/token\" }}",
        app.client_id,
        app.client_secret,
        app.refresh_token,
        company.crm.url()
    );
    let text = include_str!("../../../../config/pipelines/csv_to_pipedrive.yaml");
    let text = text.replace(token, &ours).replace("api_token: *token", "oauth2: *token");
    assert!(!text.contains("api_token:"), "how the file signs in has changed");
    company.place.write(FILE, &text);
    company.place.write(OTHER, &text.replace("name: csv_to_pipedrive", "name: other"));
    company
}

#[test]
fn each_refresh_token_is_used_once_whatever_the_processes() {
    let company = by_app(Shop::of(30, 60));
    let (log, account) = (company.crm.log(), company.crm.account());
    let exchanged = |times: usize| {
        assert_eq!((log.count(Kind::Token), log.answered(400)), (times, 0));
        // What was let in, was let in by a token of the app.
        assert!(log.calls().iter().all(|call| call.oauth || call.kind == Kind::Token || call.status == 401));
    };
    company.run(&[]).expect(0);
    company.check();
    exchanged(1);
    // The next process finds the token, and has no use for a new one.
    company.run(&["--full"]).expect(0);
    exchanged(1);
    // It ended early; both notice, and one of them exchanges it.
    account.expire_access_tokens();
    let started = [FILE, OTHER].map(|file| company.place.start(&["run", file, "--full", "--json"]));
    for running in started {
        running.end().expect(0);
    }
    exchanged(2);
    company.check();
    // No secret is in what was written down, but for the store of tokens itself, which nobody else may read.
    account.revoke_tokens();
    let ran = company.run(&["--full"]).expect(1);
    assert_eq!(log.count(Kind::Token), 3);
    assert!(ran.err.contains("refresh token") && !ran.err.contains("towpath-refresh"), "{}", ran.err);
    // What was refused is not tried again.
    company.run(&["--full"]).expect(1);
    assert_eq!(log.count(Kind::Token), 3);
}

#[test]
fn a_process_killed_at_the_exchange_leaves_an_error_that_says_so() {
    let company = by_app(Shop::of(5, 5));
    let (log, faults) = (company.crm.log(), company.crm.faults());
    faults.add(On::route("POST", "/oauth/token"), 0..1, Fault::StallAfter);
    let running = company.place.start(&["run", FILE, "--json"]);
    until("the exchange is on its way", || company.crm.account().tokens_given() == 1);
    running.signal("KILL");
    assert!(running.end().was_killed());
    // Whether the vendor took the token nobody knows: it does not go out again by itself.
    for _ in 0..2 {
        let ran = company.run(&[]).expect(1);
        assert!(ran.err.contains("nobody saw what came of it"), "{}", ran.err);
    }
    assert_eq!((company.crm.account().tokens_given(), log.answered(400)), (1, 0));
    // Somebody lets it: the vendor has given another one for it, and refuses. Once.
    company.place.towpath(&["state", "reset", "credentials"]).expect(0);
    for said in ["does not take the refresh token any more", "refused the credential"] {
        let ran = company.run(&[]).expect(1);
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    assert_eq!(log.answered(400), 1);
    assert_eq!(log.writes(), 0);
}
