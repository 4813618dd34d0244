//! The suite that every transform passes.

use towpath_connector_sql::{Sql, SqlOptions};
use towpath_testkit::conformance::{TransformUnderTest, transform};

use crate::kit::{text, typed};

#[tokio::test(flavor = "multi_thread")]
async fn a_join() {
    let make = || -> Box<dyn towpath_core::Transform> {
        let query = "select o.id, c.name, o.amount from orders o left join customers c on c.id = o.customer";
        Box::new(
            Sql::new(SqlOptions { memory: towpath_core::Size(8 << 20), parts: 4, ..SqlOptions::new(query) }).unwrap(),
        )
    };
    let orders =
        typed("{ amount: 'decimal(8,2)' }", "id,customer,amount\n1,a,1.50\n2,b,2.00\n2,b,2.00\n3,~,~\n4,x,0.10");
    let expect =
        typed("{ amount: 'decimal(8,2)' }", "id,name,amount\n1,Ada,1.50\n2,Bob,2.00\n2,Bob,2.00\n3,~,~\n4,~,0.10");
    let test = TransformUnderTest::new("sql, a join", make)
        .input("orders", orders)
        .input("customers", text("id,name\na,Ada\nb,Bob\n~,Nil\nc,~"))
        .expect(expect)
        .needs("orders", "amount")
        .needs("customers", "name");
    transform(&test).await;
}

#[tokio::test]
async fn a_sum() {
    let make = || -> Box<dyn towpath_core::Transform> {
        let query = "select note, sum(cast(qty as bigint)) as qty from t group by note";
        Box::new(Sql::new(SqlOptions::new(query)).unwrap())
    };
    let rows = text("id,qty,note\n1,5,a\n1,5,a\n3,~,~\n3,~,~\n~,7,c\n~,~,~\n5,-1,a");
    let test = TransformUnderTest::new("sql, a sum", make)
        .input("t", rows)
        .expect(text("note,qty\na,9\nc,7\n~,~"))
        .needs("t", "qty");
    transform(&test).await;
}
