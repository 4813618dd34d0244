//! What the vendor has not got: for who started the simulator as a program, its log and its clock.
//!
//! | call | does |
//! |---|---|
//! | `GET /simulator/log` | counts of calls by kind and status, tokens, the busiest 2 seconds |
//! | `GET /simulator/calls` | each call of the log |
//! | `DELETE /simulator/log` | forgets them |
//! | `POST /simulator/clock` `{"advance": 86400}` | puts the clock forward by so many seconds |
//!
//! They need no token, cost nothing and are not in the log.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Kind, log::Call, refusal::Refusal, serve::Shared};

/// Where they are.
pub(super) const PATH: &str = "/simulator/";

fn summary(shared: &Shared) -> Value {
    let calls = shared.log.calls();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    for call in &calls {
        *kinds.entry(name(call.kind)).or_default() += 1;
        *statuses.entry(call.status.to_string()).or_default() += 1;
    }
    let times = || calls.iter().map(|call| call.at);
    let span = times().max().unwrap_or_default().saturating_sub(times().min().unwrap_or_default());
    json!({
        "calls": calls.len(),
        "writes": calls.iter().filter(|call| call.is_write()).count(),
        "kinds": kinds,
        "statuses": statuses,
        "tokens": calls.iter().map(|call| call.tokens).sum::<u64>(),
        "tokens_left": shared.with_budget(|budget, seconds| budget.left(seconds)),
        "busiest_window": shared.log.busiest_window(),
        "window_limit": shared.options.burst.unwrap_or(shared.options.plan.burst()),
        "seconds": span.as_secs_f64(),
    })
}

fn name(kind: Kind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn shown(call: &Call) -> Value {
    json!({
        "at": call.at.as_secs_f64(),
        "kind": name(call.kind),
        "method": call.method,
        "path": call.path,
        "query": call.query,
        "body": call.body,
        "status": call.status,
        "tokens": call.tokens,
        "executed": call.executed,
    })
}

/// Answers one of them.
pub(super) fn answer(shared: &Shared, method: &str, path: &str, body: &[u8]) -> Result<Value, Refusal> {
    match (method, path.strip_prefix(PATH).unwrap_or_default()) {
        ("GET", "log") => Ok(summary(shared)),
        ("GET", "calls") => Ok(shared.log.calls().iter().map(shown).collect()),
        ("DELETE", "log") => {
            shared.log.clear();
            Ok(summary(shared))
        }
        ("POST", "clock") => {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let seconds = body.get("advance").and_then(Value::as_u64);
            let seconds = seconds.ok_or_else(|| Refusal::schema("advance", "Expected seconds"))?;
            shared.clock.advance(Duration::from_secs(seconds));
            Ok(json!({ "time": super::clock::rfc3339(shared.clock.seconds()) }))
        }
        _ => Err(Refusal::no_route()),
    }
}
