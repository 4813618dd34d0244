//! The suite quotes the traits: a promise that is reworded there is looked at here.

use std::path::Path;

/// Words without what only the documentation's markup needs.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // Links: keep what is shown.
    while let Some(at) = rest.find("](") {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once(')').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    let words = out.replace("///", " ").replace(['[', ']', '`', '*'], "");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_case_quotes_the_contract() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src");
    let files = ["source.rs", "sink.rs", "transform.rs", "checkpoint.rs", "reject.rs"];
    let words: String = files.map(|file| plain(&std::fs::read_to_string(core.join(file)).unwrap())).join(" ");
    let words = words.replace("crate::", "");
    for (case, promise) in towpath_testkit::conformance::promises() {
        assert!(words.contains(&plain(promise)), "{case} quotes what stands nowhere in the contract: {promise}");
    }
}

#[test]
fn cases_of_a_suite_have_names_of_their_own() {
    let promises = towpath_testkit::conformance::promises();
    assert!(promises.len() > 55, "{} cases", promises.len());
}
