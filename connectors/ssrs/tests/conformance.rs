//! The suite every source passes, on a report of nine windows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is what makes a test fail")]

use async_trait::async_trait;
use serde_json::json;
use towpath_core::{Resume, Source};
use towpath_testkit::{
    conformance::{SourceOrigin, SourceQuirks, SourceUnderTest, source},
    report_server::{Fault, On, ReportServer},
};

mod support;
use support::{PASSWORD, make, options, run, server};

struct Origin {
    server: ReportServer,
    /// The same rows, of a server that is never told to fail.
    whole: ReportServer,
    windows: bool,
}

impl Origin {
    fn options(&self, server: &ReportServer) -> serde_json::Value {
        let more = json!({ "window": { "start": "2026-01-01T00:00" } });
        let mut options = options(server, more);
        if !self.windows {
            options["report"] = json!("/Small");
            for key in ["window", "parameters"] {
                options.as_object_mut().unwrap().remove(key);
            }
        }
        options
    }
}

#[async_trait(?Send)]
impl SourceOrigin for Origin {
    fn source(&self) -> Box<dyn Source> {
        // The suite calls it by another name.
        let role = towpath_core::Connector::find("ssrs").unwrap().source.as_ref().unwrap();
        (role.build)(&"origin".into(), self.options(&self.server)).unwrap()
    }
    async fn rows(&self) -> Vec<arrow_array::RecordBatch> {
        let mut source = make(self.options(&self.whole)).unwrap();
        let ctx = towpath_core::Context::bare(support::NAME);
        // The moment of the suite's runs.
        let given =
            support::read_with(&ctx, &mut *source, &run("rows", "2026-01-01T09:35:00Z"), &Resume::default()).await;
        assert_eq!(given.says(), "no error");
        given.pieces.into_iter().map(|piece| piece.rows).collect()
    }
    async fn truncate(&self) -> bool {
        self.server.faults().add(On::Render, .., Fault::CutAfter(1_500));
        true
    }
    async fn costly_requests(&self) -> Option<u64> {
        Some(self.server.log().renders().len() as u64)
    }
}

async fn under_test(name: &str, windows: bool) {
    let origin = move || async move {
        let small = || towpath_testkit::report_server::Report::new("/Small", 20_000);
        let (server, whole) = (server().report(small()).start().await, server().report(small()).start().await);
        Origin { server, whole, windows }
    };
    let quirks = SourceQuirks {
        never_changes: Some("a window that is done is not asked for again; one that is not done begins anew"),
        ..SourceQuirks::default()
    };
    source(&SourceUnderTest::new(name, origin).quirks(quirks).secret(PASSWORD)).await;
}

#[tokio::test]
async fn a_report_in_windows_keeps_every_promise() {
    under_test("ssrs in windows", true).await;
}

#[tokio::test]
async fn a_whole_report_keeps_every_promise() {
    under_test("ssrs, one report", false).await;
}
