//! What is wrong with a query is said before it runs: by `validate` as far as the file tells, by `plan` also as far as the last run tells.
#![cfg(feature = "sql")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by that")]

mod shell;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use shell::{Program, Shell};

/// All headers and types are given. Nothing listens there.
const PIPELINE: &str = "\
sources:
  orders:
    type: csv
    url: http://127.0.0.1:9/orders.csv
    header: [order_id, customer]
  payments:
    type: csv
    url: http://127.0.0.1:9/payments.csv
    header: [order_id, amount]
    columns: { amount: \"decimal(12,2)\" }
transforms:
  paid:
    type: sql
    inputs: [orders, payments]
    query: |
      select o.customer, sum(p.amount) as paid
      from orders o
      join payments p on p.order_id = o.order_id
      group by o.customer
sinks:
  result: { type: csv, inputs: [paid], path: result.csv }
";

#[test]
fn validate_finds_what_is_wrong_with_a_query() {
    let shell = Shell::new(Program::Towpath);
    shell.file("right.yaml", PIPELINE);
    let right = shell.run(&["validate", "right.yaml"]);
    assert_eq!((right.code, right.err.as_str()), (Some(0), ""), "{}", right.all());
    let untyped = PIPELINE.replace("    columns: { amount: \"decimal(12,2)\" }\n", "");
    let cases = [
        ("column", PIPELINE.replace("sum(p.amount)", "sum(p.amunt)")),
        ("syntax", PIPELINE.replace("group by", "groop by")),
        ("table", PIPELINE.replace("join payments", "join paymnts")),
        ("untyped", untyped.clone()),
        // Where columns are not known without asking, the rest is looked at all the same.
        ("unknown_syntax", untyped.replace("    header: [order_id, customer]\n", "").replace("group by", "groop by")),
    ];
    let mut all = String::new();
    for (name, text) in cases {
        let file = format!("{name}.yaml");
        shell.file(&file, &text);
        all += &format!("{}\n", shell.run(&["validate", &file]).all());
    }
    // From elsewhere than the file, the place in the query itself is told.
    let set = "transforms.paid.query=select o.custmer from orders o";
    all += &shell.run(&["validate", "right.yaml", "--set", set]).all();
    assert_seen!("validate_query", all);
    let ran = shell.run(&["validate", "column.yaml", "right.yaml", "--json"]);
    let checked: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &checked[0]["valid"], &checked[1]["valid"]), (Some(2), &false.into(), &true.into()));
    assert_eq!(checked[0]["problems"][0]["place"]["line"], 16);
    assert!(!shell.dir().join("state").exists(), "validate leaves nothing behind");
}

/// Every transform that knows its columns, and every mistake at once.
#[test]
fn validate_looks_at_every_transform() {
    let shell = Shell::new(Program::Towpath);
    let more = "  renamed: { type: rename, inputs: [orders], columns: { custmer: name } }\nsinks:\n  names: { type: csv, inputs: [renamed], path: n.csv }\n";
    shell.file("two.yaml", &PIPELINE.replace("sinks:\n", more).replace("p.amount", "p.amunt"));
    let ran = shell.run(&["validate", "two.yaml"]);
    assert_eq!(ran.code, Some(2), "{}", ran.all());
    assert!(ran.err.contains("p.amunt") && ran.err.contains("custmer"), "{}", ran.all());
    assert!(ran.err.contains("two.yaml: 2 errors"), "{}", ran.all());
    // A component that waits for a variable is not looked at, nor what it gives.
    let text = PIPELINE.replace("http://127.0.0.1:9/payments.csv", "${PAYMENTS}").replace("p.amount", "p.amunt");
    shell.file("unset.yaml", &text);
    let ran = shell.run(&["validate", "unset.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
}

/// Columns of the last run may be others by now: a warning, with the name that was meant.
#[test]
fn plan_warns_of_what_the_last_run_tells() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let body =
                if head[0].contains("/orders") { "order_id,customer\n1,a\n" } else { "order_id,amount\n1,2.00\n" };
            let shown = if head[0].starts_with("HEAD") { "" } else { body };
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{shown}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let shell = Shell::new(Program::Towpath);
    let text = PIPELINE.replace("127.0.0.1:9", &server.to_string());
    let text = text.replace("    header: [order_id, customer]\n", "").replace("    header: [order_id, amount]\n", "");
    shell.file("paid.yaml", &text);
    let ran = shell.run(&["run", "paid.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    shell.file("paid.yaml", &text.replace("sum(p.amount)", "sum(p.amunt)"));
    let plan = shell.run(&["plan", "paid.yaml"]);
    assert_eq!(plan.code, Some(0), "{}", plan.all());
    let warning = "warning: transform paid: by the columns of the last run, query: line 1, column 24: there is no column \
                   'p.amunt'; did you mean 'amount'?";
    assert!(plan.out.contains(&format!("\n{warning}\n")), "{}", plan.all());
    assert!(!plan.out.contains("note     warning"), "{}", plan.all());
}
