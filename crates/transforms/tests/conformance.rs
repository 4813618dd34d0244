//! The suite that every transform passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use common::{make, text, typed};
use towpath_testkit::conformance::{TransformUnderTest, transform};

/// Rows with nulls, repeated rows, and values that are no numbers.
const ROWS: &str =
    "id,qty,note\n1,5,a\n2,x,b\n1,5,a\n3,~,~\n3,~,~\n4,,\n~,7,c\n~,7,c\n~,~,~\n5,-1,a\n6,99999999999999999999,z\n1,6,a";

fn under_test(kind: &'static str, yaml: &'static str) -> TransformUnderTest {
    TransformUnderTest::new(&format!("{kind} {yaml}"), move || make(kind, yaml)).input("in", text(ROWS))
}

#[tokio::test]
async fn cast() {
    let expect =
        typed("{ qty: int64 }", "id,qty,note\n1,5,a\n1,5,a\n3,~,~\n3,~,~\n4,~,\n~,7,c\n~,7,c\n~,~,~\n5,-1,a\n1,6,a");
    transform(&under_test("cast", "columns: { qty: int64 }").needs("in", "qty").expect(expect)).await;
}

#[tokio::test]
async fn rename() {
    let expect = text(&ROWS.replacen("qty", "quantity", 1));
    transform(&under_test("rename", "columns: { qty: quantity }").needs("in", "qty").expect(expect)).await;
}

#[tokio::test]
async fn select() {
    transform(&under_test("select", "columns: [note, id]").needs("in", "id").needs("in", "note")).await;
    transform(&under_test("select", "drop: [note]").needs("in", "note")).await;
}

#[tokio::test]
async fn dedupe() {
    let expect = text("id,qty,note\n1,5,a\n2,x,b\n3,~,~\n4,,\n~,7,c\n~,~,~\n5,-1,a\n6,99999999999999999999,z\n1,6,a");
    transform(&under_test("dedupe", "key: all_columns").expect(expect)).await;
    let expect = text("id,qty,note\n1,5,a\n2,x,b\n3,~,~\n4,,\n~,7,c\n~,7,c\n~,~,~\n5,-1,a\n6,99999999999999999999,z");
    transform(&under_test("dedupe", "key: [id]").needs("in", "id").expect(expect)).await;
}

#[tokio::test]
async fn filter() {
    let keep = "keep: [{ any: [{ column: note, op: '=', value: a }, { column: qty, op: is null }] }]";
    let expect = text("id,qty,note\n1,5,a\n1,5,a\n3,~,~\n3,~,~\n~,~,~\n5,-1,a\n1,6,a");
    transform(&under_test("filter", keep).needs("in", "note").needs("in", "qty").expect(expect)).await;
    // Nothing at all is kept.
    transform(&under_test("filter", "keep: [{ column: id, op: '=', value: nobody }]").needs("in", "id")).await;
}
