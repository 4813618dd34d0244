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

/// Nobody has declared `amount`: the likeliest mistake of all.
#[test]
fn types_and_functions_that_do_not_fit_are_said_in_a_sentence() {
    let mut inputs = inputs();
    inputs[2] = known(&[("payments", text("order_id,amount,paid\n1,1.00,2026-01-01"))]).remove(0);
    let wrong = [
        "select sum(amount) as a from payments",
        "select order_id,\n       sum(p.amount) as paid\nfrom payments p group by order_id",
        "select sum(amount * 2) as a from payments",
        "select sum(case when city = 'x' then amount else 0 end) as a from customers, payments",
        "select stddev(amount) as a from payments",
        "select abs(amount) as a from payments",
        "select round(amount, 2) as a from payments",
        "select sum(ordered) as a from orders",
        "select coalesce(paid, ordered) as a from payments, orders",
        "select sum(amount, 1) as a from payments",
        "select sum() as a from payments",
        "select coalesce() as a from payments",
        "select lower(amount, 'x') as a from payments",
        "select substr(amount) as a from payments",
        "select string_agg(city) as a from customers",
        "select date_trunc(ordered, 'month') as a from orders",
        "select cout(*) as a from payments",
        "select foobar(amount) as a from payments",
        "select row_numbr() over (order by amount) as a from payments",
        "select rank() as a from payments",
        "select amount / 2 as a from payments",
        "select amount - paid as a from payments",
        "select -amount as a from payments",
        "select -Name as a from customers join payments on true",
        "select amount and true as a from payments",
        "select not amount as a from payments",
        "select order_id from orders where order_id",
        "select order_id from payments where amount",
        "select order_id from orders where ordered > 'x'",
        "select o.order_id from orders o join payments p on o.order_id",
        "select o.order_id from orders o join payments p using (order_id, paid)",
        "select order_id from orders o, payments p",
        "select city is true as a from customers",
        "select city like 5 as a from customers",
        "select order_id ~ 'x' as a from orders",
        "select city.x as a from customers",
        "select city[1] as a from customers",
        "select city from customers where city = \"Graz\"",
        "select x.* from customers c",
        "select city, Name, count(*) as n from customers group by city",
        "select city, count(*) as n from customers group by city having Name = 'x'",
        "select city, count(*) as n from customers group by 3",
        "select city from customers order by 3",
        "select city from customers where count(*) > 1",
        "select sum(count(*)) as a from customers",
        "select row_number() over w as a from customers",
        "select city from customers where row_number() over (order by city) = 1",
        "select city from customers where city in (select order_id, customer_id from orders)",
        "select cast(city as money) as a from customers",
        "select cast(city as decimal(100,2)) as a from customers",
        "select cast(ordered as boolean) as a from orders",
        "select interval 'x' as a from customers",
        "select city from customers union all select order_id, ordered from orders",
        "select city from customers limit 'x'",
        "select top 5 city from customers",
        "select city from customers groop by city",
        "select city from customers where",
        "select * from customers pivot (count(city) for Name in ('a'))",
        "select city collate x as a from customers",
        "select struct(city).x as a from customers",
        "select * from unnest([1, 2])",
        "select $1 as a from customers",
        "show tables",
        "begin",
        "update customers set city = 'x'",
    ];
    let mut shown = String::new();
    for query in wrong {
        let error = plan(query, &inputs).map(|plan| plan.schema).expect_err(query);
        assert_eq!(error.kind(), towpath_core::ErrorKind::Config, "{query}: {error}");
        let said = error.to_string();
        let foreign = ["Utf8", "Int64", "Date32", "Span(", " { ", "\n", "ternal error", "during planning", "Exact("];
        assert!(!foreign.iter().any(|foreign| said.contains(foreign)), "{query}: {said}");
        let hint = error.what_to_do().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        shown += &format!("{query}\n  {said}{hint}\n\n");
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
    let query = "select o.ordred from orders o join payments p on p.order_id = o.order_id";
    let later = plan(query, &given).unwrap();
    assert_eq!(later.schema, Known::No);
    insta::assert_snapshot!(later.warnings.join("\n"));
    assert_eq!(later.notes, ["the query does not read customers, which is fetched for nothing"]);
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
