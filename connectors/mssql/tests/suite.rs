//! What the sink does to a database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure in a test is its message")]

mod common;

use common::{Place, rows};
use serde_json::json;

async fn modes(place: &Place) {
    let first = rows("id:int|name|x:float\n1|a|1.5\n2|b|∅\n3|∅|3");
    let second = rows("id:int|name|x:float\n3|c|4\n4|d|5\n4|e|6");
    let all = "SELECT id, name, x FROM $.t ORDER BY id, x";
    let loaded = place.load(json!({"write": "append"}), &[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(loaded.counts(), (6, 0, 0), "{loaded:?}");
    assert_eq!(place.ask(all).await, ["1|a|1.5", "2|b|∅", "3|∅|3.0", "3|c|4.0", "4|d|5.0", "4|e|6.0"]);
    let loaded = place.load(json!({"write": "replace"}), &[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(loaded.counts(), (6, 0, 0), "{loaded:?}");
    assert_eq!(place.ask("SELECT COUNT(*) FROM $.t").await, ["6"]);
    for (table, mode, key, counts, expect) in [
        ("n", "insert_new", json!(["id"]), (4, 2, 0), ["1|a|1.5", "2|b|∅", "3|∅|3.0", "4|e|6.0"]),
        ("u", "upsert", json!(["id"]), (5, 1, 0), ["1|a|1.5", "2|b|∅", "3|c|4.0", "4|e|6.0"]),
    ] {
        let options = json!({"write": mode, "key": key, "table": format!("{}.{table}", place.schema)});
        let loaded = place.load(options.clone(), &[first.clone(), second.clone()]).await.unwrap();
        assert_eq!(loaded.counts(), counts, "{mode}: {loaded:?}");
        let all = all.replace("$.t", &format!("$.{table}"));
        assert_eq!(place.ask(&all).await, expect, "{mode}");
    }
    let options = json!({"write": "insert_new", "key": "row_hash", "table": format!("{}.h", place.schema)});
    for (counts, of) in [((3, 0, 0), &first), ((0, 3, 0), &first), ((3, 0, 0), &second)] {
        let loaded = place.load(options.clone(), std::slice::from_ref(of)).await.unwrap();
        assert_eq!(loaded.counts(), counts, "by hash: {loaded:?}");
    }
    assert_eq!(place.staging().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn against_a_server() {
    let Ok(url) = std::env::var("TOWPATH_MSSQL_URL") else { return };
    modes(&Place::new(&url).await).await;
}
