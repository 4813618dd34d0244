//! Files that are joined: the pipeline of `config/`, and runs that are killed while they spill.

use std::fs;

use crate::kit::*;

fn place() -> Place {
    let place = Place::new();
    place.write("csv_join.yaml", include_str!("../../../config/pipelines/csv_join.yaml"));
    for (name, text) in [
        ("customers", include_str!("../../../config/samples/crm/customers.csv")),
        ("orders", include_str!("../../../config/samples/crm/orders.csv")),
        ("payments", include_str!("../../../config/samples/crm/payments.csv")),
    ] {
        place.write(&format!("config/samples/crm/{name}.csv"), text);
    }
    place
}

#[test]
fn three_files_become_one() {
    let place = place();
    let plan = place.towpath(&["plan", "csv_join.yaml"]).expect(0);
    assert!(plan.out.contains("paid") && plan.out.contains("runs in 64MiB of memory"), "{}", plan.out);
    let report = place.run("csv_join.yaml").expect(0).report();
    assert_eq!(report["sinks"]["result"]["written"], 4, "{report}");
    let result = fs::read_to_string(place.path("orders_paid.csv")).unwrap();
    assert_eq!(
        result,
        "order_id,ordered,status,customer_id,name,city,paid,payments\n\
         O1001,2026-01-05,won,C1,\"Miller, Ann\",Graz,20.00,2\n\
         O1002,2026-01-05,won,C2,Okafor,Linz,250.00,1\n\
         O1003,2026-02-11,open,C1,\"Miller, Ann\",Graz,90.00,2\n\
         O1004,2026-02-28,open,C3,Lindqvist,\"\",0.00,0\n"
    );
    assert_eq!(place.letter_records("csv_join"), [6], "the amount that is none");
}

#[test]
fn a_query_that_is_wrong_is_found_by_validate_and_plan() {
    let place = place();
    // Its columns nobody knows who does not look into the files.
    for (query, said) in [
        ("select o.order_id from ordres o", "line 1, column 24: there is no input 'ordres'"),
        ("select o.order_id from orders o groop by o.order_id", "line 1, column 33: expected: end of statement"),
    ] {
        let query = format!("transforms.orders_paid.query={query}");
        let found = place.towpath(&["validate", "csv_join.yaml", "--set", &query]).expect(2);
        assert!(found.err.contains(said), "{}", found.err);
    }
    place.towpath(&["validate", "csv_join.yaml"]).expect(0);
    let query = "transforms.orders_paid.query=select o.order_idd from orders o";
    let plan = place.towpath(&["plan", "csv_join.yaml", "--set", query]).expect(2);
    assert!(plan.err.contains("there is no column 'o.order_idd'"), "{}", plan.err);
    assert!(plan.err.contains("line 1, column 8"), "{}", plan.err);
    assert!(plan.err.contains("did you mean 'order_id'?"), "{}", plan.err);
    assert!(!place.path("orders_paid.csv").exists());
}

/// However it ends, the result is whole or not there, and what was on disk goes.
#[test]
fn a_run_that_is_killed_leaves_no_result_and_the_next_one_sweeps_up() {
    let place = place();
    let rows = 120_000;
    let mut payments = "payment_id,order_id,amount,currency,paid\n".to_owned();
    (0..rows).for_each(|row| payments += &format!("{row},O{},1.00,EUR,2026-01-01\n", row % 100_000));
    place.write("config/samples/crm/payments.csv", &payments);
    let query = "transforms.orders_paid.query=select p.payment_id, p.order_id, q.amount from payments p join payments q \
                 on p.payment_id = q.payment_id join customers c on true join orders o on true where c.customer_id = 'C1' and o.order_id = 'O1001'";
    let args = [
        "run",
        "csv_join.yaml",
        "--json",
        "--set",
        query,
        "--set",
        "transforms.orders_paid.spill=spill",
        "--set",
        "transforms.orders_paid.memory=64MiB",
    ];
    for _ in 0..3 {
        let run = place.start(&args);
        until("it spills", || place.path("spill").exists() && !place.names("spill").is_empty());
        run.signal("KILL");
        assert!(run.end().was_killed());
        assert!(!place.path("orders_paid.csv").exists());
    }
    let report = place.towpath(&args).expect(0).report();
    assert_eq!(report["sinks"]["result"]["written"], rows, "{report}");
    assert_eq!(place.names("spill"), Vec::<String>::new());
}
