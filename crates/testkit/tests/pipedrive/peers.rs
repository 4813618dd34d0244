//! The account tried by the vendor's own client library, which is not ours and in another language.

use std::path::PathBuf;

use tokio::process::Command;
use towpath_testkit::pipedrive::{OAuthApp, Pipedrive, PipedriveOptions, Plan, Unsettled};

/// The folder with `node_modules/pipedrive`; without it a test is skipped, or fails where peers are required.
async fn modules() -> Option<PathBuf> {
    let modules = std::env::var("TOWPATH_PEERS_NODE").ok().map(|folder| PathBuf::from(folder).join("node_modules"));
    let library = modules.filter(|modules| modules.join("pipedrive/package.json").is_file());
    let node = Command::new("node").arg("--version").output().await.is_ok_and(|out| out.status.success());
    let found = library.filter(|_| node);
    let required = std::env::var("REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(found.is_some() || !required, "node and the library 'pipedrive' are not here, and REQUIRE_PEERS=1");
    if found.is_none() {
        println!("SKIPPED: TOWPATH_PEERS_NODE names no folder with node_modules/pipedrive");
    }
    found
}

#[tokio::test]
async fn the_vendors_own_library_finds_what_it_expects() {
    let Some(modules) = modules().await else { return };
    let unsettled = Unsettled { search_lag: std::time::Duration::ZERO, abuse_after: 1000, ..Unsettled::default() };
    let options = PipedriveOptions {
        plan: Plan::Premium,
        oauth: Some(OAuthApp::default()),
        unsettled,
        ..PipedriveOptions::default()
    };
    let token = options.api_token.clone();
    let server = Pipedrive::start(options).await;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers/pipedrive_client.cjs");
    let mut node = Command::new("node");
    node.arg(script).arg(server.url()).arg(token).env("NODE_PATH", modules).kill_on_drop(true);
    let out = node.output().await.unwrap();
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
    insta::assert_snapshot!(told);
}
