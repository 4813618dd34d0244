//! Queries, beside SQLite's answers to the same.

use arrow_array::RecordBatch;
use towpath_connector_sql::{Narrow, SqlOptions};

use crate::kit::{nothing_left, options, oracle, run, shown, text, typed};

fn customers() -> RecordBatch {
    typed("{ id: int64 }", "id,name,city\n1,Ada,Graz\n2,Bob,~\n3,Cyd,Linz\n4,Dan,Graz\n~,Eve,Wien")
}
fn orders() -> RecordBatch {
    let columns = "{ id: int64, customer_id: int64, ordered: date }";
    typed(
        columns,
        "id,customer_id,ordered\n10,1,2026-01-01\n11,1,2026-01-05\n12,2,2026-02-01\n13,~,2026-02-02\n14,9,2026-03-01\n15,3,~\n16,1,2026-03-09",
    )
}
fn payments() -> RecordBatch {
    let columns = "{ order_id: int64, cents: int64, amount: 'decimal(12,2)' }";
    typed(
        columns,
        "order_id,cents,amount\n10,10,0.10\n10,20,0.20\n11,-5,-0.05\n12,~,~\n12,700,7.00\n99,1,0.01\n~,3,0.03\n16,100,1.00\n16,100,1.00",
    )
}

/// The ways a query can take: all in memory; everything by the disk; every join by sorting.
fn ways(query: &str, folder: &std::path::Path) -> Vec<(&'static str, SqlOptions)> {
    let plain = options(query, folder);
    let disk = SqlOptions { narrow: Narrow { gather: Some(64), hash: None }, parts: 5, batch_rows: 3, ..plain.clone() };
    let sort = SqlOptions { narrow: Narrow { gather: Some(64), hash: Some(0) }, parts: 3, ..plain.clone() };
    let one = SqlOptions { parts: 1, threads: Some(1), ..plain.clone() };
    vec![("in memory", plain), ("by the disk", disk), ("by sorting", sort), ("in one part", one)]
}

/// All ways give what is expected, with the inputs in turn and row by row.
async fn check(query: &str, expect: Option<&[&str]>) {
    let tables = [("customers", customers()), ("orders", orders()), ("payments", payments())];
    // Not one inside: a window's.
    let sorted = query.rsplit_once("order by").is_some_and(|(_, behind)| !behind.contains(')'));
    let expect = match expect {
        Some(expect) => expect.iter().map(|line| (*line).to_owned()).collect(),
        None => oracle(query, &tables, sorted),
    };
    let mut single: Vec<(&str, RecordBatch)> = vec![];
    for row in 0..tables.iter().map(|(_, rows)| rows.num_rows()).max().unwrap() {
        single.extend(
            tables.iter().filter(|(_, all)| row < all.num_rows()).map(|(name, all)| (*name, all.slice(row, 1))),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    for (way, options) in ways(query, folder.path()) {
        for batches in [&tables[..], &single] {
            let rows = run(options.clone(), batches).await.unwrap_or_else(|error| panic!("{query}\n{way}: {error}"));
            assert_eq!(shown(&rows, sorted), expect, "{query}\n{way}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left behind");
}

#[tokio::test]
async fn queries_give_what_sqlite_gives() {
    for query in [
        "select id, name from customers where city = 'Graz'",
        "select c.name, o.id from customers c join orders o on o.customer_id = c.id",
        "select c.name, o.id from customers c left join orders o on o.customer_id = c.id",
        "select c.name, o.id from customers c right join orders o on o.customer_id = c.id",
        "select c.name, o.id from customers c full join orders o on o.customer_id = c.id",
        "select c.name, o.id from customers c left join orders o on o.customer_id = c.id and o.id > 10 and c.city = 'Graz'",
        "select name from customers c where exists (select 1 from orders o where o.customer_id = c.id)",
        "select name from customers c where not exists (select 1 from orders o where o.customer_id = c.id)",
        "select name from customers where id in (select customer_id from orders)",
        "select name from customers where id not in (select customer_id from orders where customer_id is not null)",
        "select name from customers where id not in (select customer_id from orders)",
        "select order_id, sum(cents), count(*), count(cents), min(cents), max(cents) from payments group by order_id",
        "select sum(cents), count(*) from payments",
        "select sum(cents), count(*) from payments where cents > 1000000",
        "select c.name, count(distinct o.id), sum(p.cents) from customers c left join orders o on o.customer_id = c.id \
         left join payments p on p.order_id = o.id group by c.name",
        "with paid as (select order_id, sum(cents) as paid from payments group by order_id) \
         select o.id, paid from orders o left join paid on paid.order_id = o.id order by o.id desc",
        "select o.id, row_number() over (partition by customer_id order by o.id) as nth, \
         sum(o.id) over (partition by customer_id order by o.id) as running from orders o",
        "select o.id, count(*) over (partition by customer_id) as many from orders o",
        "select a.id, b.id as other from orders a join orders b on a.customer_id = b.customer_id and a.id < b.id",
        "select a.name, b.name as other from customers a cross join customers b",
        "select a.name, b.name as other from customers a join customers b on a.id < b.id",
        "select id from orders union select order_id from payments",
        "select id from orders union all select order_id from payments",
        "select id from orders intersect select order_id from payments",
        "select id from orders except select order_id from payments",
        "select distinct city from customers",
        "select customer_id from orders group by customer_id having count(*) > 1",
        "select id from orders order by id desc limit 3",
        "select id from orders order by id limit 2 offset 3",
        "select name, (select max(id) from orders) as last from customers",
        "select id from orders where id > (select min(order_id) from payments)",
        "select count(*) from (select id from orders limit 4) as few",
        "select name from customers where 1 = 0",
        "select count(*) from customers cross join orders",
        "select count(*) from (select 1 from customers union all select 2 from orders) as x",
        "select name from customers where exists (select 1 from orders where id > 15)",
        "select c.name, (select count(*) from orders o where o.customer_id = c.id) as many from customers c",
        "select c.city, count(*) from customers c join orders o on o.customer_id = c.id join payments p on p.order_id = o.id \
         where p.cents > 0 group by c.city order by c.city nulls first",
    ] {
        check(query, None).await;
    }
}

#[tokio::test]
async fn decimals_and_dates_stay_what_they_are() {
    check(
        "select order_id, sum(amount) as paid from payments group by order_id order by order_id nulls last",
        Some(&["10,0.30", "11,-0.05", "12,7.00", "16,2.00", "99,0.01", "~,0.03"]),
    )
    .await;
    check("select sum(amount) * 1.5 from payments", Some(&["13.935"])).await;
    check("select date_trunc('month', ordered) as month, count(*) from orders where ordered is not null group by 1 order by 1", Some(&[
        "2026-01-01T00:00:00,2", "2026-02-01T00:00:00,2", "2026-03-01T00:00:00,2",
    ]))
    .await;
    check("select max(ordered) - min(ordered) as days from orders", Some(&["67"])).await;
    check("select round(avg(amount), 2) from payments", Some(&["1.16"])).await;
}

/// What a query over these inputs answers when nothing is planned before.
async fn fails(query: &str, batches: &[(&str, RecordBatch)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = run(options(query, folder.path()), batches).await.unwrap_err();
    nothing_left(folder.path()).await;
    format!("{}: {error}\nhint: {}", error.kind().name(), error.what_to_do().unwrap_or("none"))
}

#[tokio::test]
async fn values_that_do_not_fit_end_the_run_with_advice() {
    let rows = text("a\n1\nx");
    insta::assert_snapshot!(fails("select cast(a as bigint) as a from t", &[("t", rows.clone())]).await);
    insta::assert_snapshot!(fails("select cast(a as decimal(3,2)) as a from t", &[("t", text("a\n100"))]).await);
    insta::assert_snapshot!(fails("select 1 / (cast(a as int) - 1) as a from t", &[("t", text("a\n1"))]).await);
    let folder = tempfile::tempdir().unwrap();
    let rows = run(options("select try_cast(a as bigint) as a from t", folder.path()), &[("t", rows)]).await.unwrap();
    assert_eq!(shown(&rows, false), ["1", "~"]);
}

#[tokio::test]
async fn an_input_keeps_its_columns() {
    insta::assert_snapshot!(fails("select a from t", &[("t", text("a\n1")), ("t", text("b\n1"))]).await);
    insta::assert_snapshot!(fails("select t.a from t join u on t.a = u.a", &[("t", text("a\n1"))]).await);
}
