//! Bulk loads by tiberius.

use tiberius::{IntoSql as _, SqlBulkCopyOption, TokenRow};

use crate::{Conn, client, number, run, server};

async fn load(
    client: &mut Conn,
    rows: impl Iterator<Item = (i32, Option<String>)>,
    check: bool,
) -> tiberius::Result<u64> {
    let mut options = SqlBulkCopyOption::KeepNulls | SqlBulkCopyOption::TableLock;
    if check {
        options |= SqlBulkCopyOption::CheckConstraints;
    }
    let mut request = client.bulk_insert_with_options("dbo.t", &["a", "b"], options, &[]).await?;
    for (a, b) in rows {
        let mut row = TokenRow::new();
        row.push(a.into_sql());
        row.push(b.into_sql());
        request.send(row).await?;
    }
    Ok(request.finalize().await?.total())
}

#[tokio::test]
async fn a_load_is_all_or_nothing_and_joins_a_transaction() {
    let server = server().await;
    let mut client = client(&server).await;
    run(
        &mut client,
        "CREATE TABLE dbo.t (a int NOT NULL CONSTRAINT pk_t PRIMARY KEY CONSTRAINT ck_a CHECK (a < 100000), b nvarchar(30) DEFAULT N'x')",
    )
    .await
    .unwrap();
    let rows = |n: i32| (0..n).map(|a| (a, (a % 7 != 0).then(|| format!("row {a} ä"))));
    assert_eq!(load(&mut client, rows(10_000), true).await.unwrap(), 10_000);
    let count = |expect: &str| assert_eq!(server.query("SELECT COUNT(*) FROM t")[0][0].as_deref(), Some(expect));
    count("10000");
    assert_eq!(server.query("SELECT b FROM t WHERE a IN (7, 8) ORDER BY a"), [[None], [Some("row 8 ä".to_owned())]]);
    let duplicate = load(&mut client, [(20_000, None), (3, None)].into_iter(), false).await.unwrap_err();
    assert!(duplicate.to_string().contains("'pk_t'") && duplicate.to_string().contains("(3)"), "{duplicate}");
    count("10000");
    assert_eq!(number(load(&mut client, [(100_001, None)].into_iter(), true).await), 547);
    run(&mut client, "BEGIN TRANSACTION").await.unwrap();
    assert_eq!(load(&mut client, [(100_001, None)].into_iter(), false).await.unwrap(), 1);
    assert_eq!(server.open_transactions(), 1);
    run(&mut client, "ROLLBACK").await.unwrap();
    count("10000");
    assert_eq!(server.open_transactions(), 0);
    let loads: Vec<Option<u64>> = server.log().bulk_loads().into_iter().map(|(_, rows)| rows).collect();
    assert_eq!(loads, [Some(10_000), None, None, Some(1)]);
}

#[tokio::test]
async fn loads_on_two_connections_in_turn_are_not_stuck() {
    let server = server().await;
    let (mut one, mut two) = (client(&server).await, client(&server).await);
    run(&mut one, "CREATE TABLE dbo.t (a int, b nvarchar(200)); CREATE TABLE dbo.u (a int, b nvarchar(200))")
        .await
        .unwrap();
    let mut first = one.bulk_insert("dbo.t").await.unwrap();
    let mut second = two.bulk_insert("dbo.u").await.unwrap();
    for a in 0..20_000 {
        for request in [&mut first, &mut second] {
            let mut row = TokenRow::new();
            row.push(a.into_sql());
            row.push("x".repeat(100).into_sql());
            request.send(row).await.unwrap();
        }
    }
    assert_eq!(first.finalize().await.unwrap().total(), 20_000);
    assert_eq!(second.finalize().await.unwrap().total(), 20_000);
}

#[tokio::test]
async fn a_load_that_is_given_up_leaves_nothing() {
    let server = server().await;
    let mut client = client(&server).await;
    run(&mut client, "CREATE TABLE dbo.t (a int, b nvarchar(200))").await.unwrap();
    let mut request = client.bulk_insert("dbo.t").await.unwrap();
    for a in 0..10_000 {
        let mut row = TokenRow::new();
        row.push(a.into_sql());
        row.push("x".repeat(100).into_sql());
        request.send(row).await.unwrap();
    }
    drop(request);
    drop(client);
    for _ in 0..500 {
        if server.open_sessions() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(server.open_sessions(), 0);
    assert_eq!(server.query("SELECT COUNT(*) FROM t")[0][0].as_deref(), Some("0"));
}
