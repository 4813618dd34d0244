//! What a plan says of a query, and what it says is wrong with it.

use towpath_connector_sql::{Sql, SqlOptions};
use towpath_core::{Connector, Known, Name, Transform as _, TransformPlan, pipeline::Role};

use crate::kit::{known, text, typed};

fn inputs() -> Vec<(Name, Known)> {
    known(&[
        ("customers", text("customer_id,Name,city\n1,a,b")),
        ("orders", typed("{ order_id: int64, ordered: date }", "order_id,customer_id,ordered\n1,1,2026-01-01")),
        ("payments", typed("{ order_id: int64, amount: 'decimal(12,2)' }", "order_id,amount\n1,1.00")),
    ])
}

fn plan(query: &str, inputs: &[(Name, Known)]) -> towpath_core::Result<TransformPlan> {
    let options = SqlOptions { spill: Some("/var/spill".into()), ..SqlOptions::new(query) };
    Sql::new(options)?.plan(inputs)
}

#[test]
fn a_plan_tells_the_schema_and_what_it_takes() {
    let shown = |query: &str| {
        let plan = plan(query, &inputs()).unwrap();
        let Known::Now(schema) = plan.schema else { panic!("{:?}", plan.schema) };
        let columns = schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
        format!("{}\n{}", columns.collect::<Vec<_>>().join("\n"), plan.notes.join("\n"))
    };
    insta::assert_snapshot!(shown(
        "select c.customer_id, c.Name, sum(p.amount) as paid, count(*) as payments, max(o.ordered) as last, avg(p.amount) as mean
         from customers c join orders o on o.customer_id = c.customer_id join payments p on p.order_id = o.order_id group by 1, 2"
    ));
    insta::assert_snapshot!(shown(
        "select a.customer_id, row_number() over (order by a.Name) as nth from customers a cross join orders b"
    ));
}

#[test]
fn what_is_wrong_has_a_place_and_the_nearest_name() {
    let wrong = [
        "select customer_idd from customers",
        "select name from customers",
        "select c.Name,\n       o.order_ID\nfrom customers c\njoin orders o on o.customer_id = c.customer_id",
        "select customer_id from customers join orders on true",
        "select 1 as a\nfrom custmers",
        "select 1 as a from somewhere_else",
        "select 1 as a from other.orders",
        "select order_id orders from",
        "selekt 1",
        "select 'a from orders",
        "select sume(amount) as a from payments",
        "select sum(Name, 1) as a from customers",
        "select city, count(*) from customers",
        "select city + ordered as a from customers, orders",
        "select customers.*, orders.* from customers, orders",
        "select order_id, order_id from orders",
        "insert into orders values (1)",
        "drop table orders",
        "explain select 1 from orders",
        "copy orders to '/tmp/x.csv'",
        "create external table x stored as csv location '/etc/passwd'",
        "set datafusion.execution.batch_size = 1",
        "select 1 as a from orders; select 2 as a from orders",
        "select * from '/etc/passwd'",
        "select order_id from orders where order_id = (select customer_id from customers limit x)",
    ];
    let mut shown = String::new();
    for query in wrong {
        let error = plan(query, &inputs()).map(|plan| plan.schema).expect_err(query);
        let hint = error.what_to_do().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        shown += &format!("{query}\n  {}: {error}{hint}\n\n", error.kind().name());
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn columns_that_are_not_known_are_said_to_be_unknown() {
    let query = "select o.order_id from orders o join payments p on p.order_id = o.order_id";
    let mut given = inputs();
    let Known::Now(orders) = given[1].1.clone() else { panic!() };
    given[1].1 = Known::No;
    let open = plan(query, &given).unwrap();
    assert_eq!(open.schema, Known::No);
    insta::assert_snapshot!(open.notes.join("\n"));
    given[1].1 = Known::LastRun(orders.clone());
    assert!(matches!(plan(query, &given).unwrap().schema, Known::LastRun(_)));
    // The source may have it by now: the run will tell.
    let later = plan("select o.later from orders o join payments p on p.order_id = o.order_id", &given).unwrap();
    assert_eq!(later.schema, Known::No);
    insta::assert_snapshot!(later.notes.join("\n"));
    // What needs no columns is wrong all the same.
    given[1].1 = Known::No;
    assert!(plan("select order_id from ordres", &given).is_err());
}

#[test]
fn options_out_of_their_range_are_refused() {
    let mut shown = String::new();
    for yaml in [
        "query: ''",
        "{ query: select 1, memory: 1MiB }",
        "{ query: select 1, parts: 0 }",
        "{ query: select 1, parts: 5000 }",
        "{ query: select 1, batch_rows: 0 }",
        "{ query: select 1, threads: 0 }",
        "{ query: select 1, memmory: 64MiB }",
        "{ memory: 64MiB }",
    ] {
        let options = serde_saphyr::from_str(yaml).unwrap();
        let connector = Connector::find("sql").unwrap();
        let error = (connector.transform.as_ref().unwrap().build)(&"t".into(), options).err().unwrap();
        shown += &format!("{yaml}\n  {error}; {}\n", error.what_to_do().unwrap_or("-"));
    }
    insta::assert_snapshot!(shown);
    assert!(Connector::find("sql").unwrap().schema(Role::Transform).is_some());
}

/// The example of the README can be planned.
#[test]
fn the_example_can_be_planned() {
    let example = include_str!("../../README.md").split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let pipeline: serde_json::Value = serde_saphyr::from_str(example).unwrap();
    let mut options = pipeline["transforms"]["customers_with_orders"].as_object().cloned().unwrap();
    assert_eq!(options.remove("type"), Some("sql".into()));
    options.remove("inputs");
    let build = Connector::find("sql").unwrap().transform.as_ref().unwrap().build;
    let plan = build(&"t".into(), options.into()).unwrap().plan(&inputs()).unwrap();
    assert!(matches!(plan.schema, Known::Now(_)));
}
