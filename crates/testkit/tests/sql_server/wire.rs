//! Logins, batches, parameters, types.

use tiberius::{ColumnData, numeric::Numeric};

use crate::{client, login, number, run, server};

#[tokio::test]
async fn a_login_is_let_in_or_refused() {
    let server = server().await;
    assert_eq!(number(login(&server, "wrong").await), 18456);
    let mut client = client(&server).await;
    let row = client.simple_query("SELECT 1 AS one, N'ä€' AS text").await.unwrap().into_row().await.unwrap().unwrap();
    assert_eq!((row.get::<i32, _>("one"), row.get::<&str, _>("text")), (Some(1), Some("ä€")));
    assert_eq!((server.log().logins(), server.log().refused()), (1, 1));
}

#[tokio::test]
async fn results_have_the_types_that_were_declared() {
    let server = server().await;
    let mut client = client(&server).await;
    run(
        &mut client,
        "CREATE TABLE dbo.[a ]]b] (i int NOT NULL PRIMARY KEY, b bit, t tinyint, s smallint, l bigint, d decimal(20, 5), m money, r real,
         f float, dt date, tm time(3), dm datetime, sd smalldatetime, d2 datetime2(7), o datetimeoffset(3), c char(3), v varchar(10),
         n nvarchar(10), x nvarchar(max), y binary(4), z varbinary(max), g uniqueidentifier, q xml)",
    )
    .await
    .unwrap();
    let long = "ü".repeat(70_000);
    client
        .execute(
            "INSERT INTO dbo.[a ]]b] VALUES (1, 1, 200, -5, @P1, '12.345678', 1.23456, 1.5, 2.5, '2026-03-01', '12:34:56.789',
             '2026-03-01T12:34:56.788', '2026-03-01 12:34:31', '2026-03-01 12:34:56.1234567', '2026-03-01 12:34:56.123 +02:00', 'a',
             'b€', N'ж', @P2, 0x01, 0x0203, 'F0E1D2C3-B4A5-9687-7869-5A4B3C2D1E0F', N'<a/>')",
            &[&(1_i64 << 40), &long.as_str()],
        )
        .await
        .unwrap();
    run(&mut client, "INSERT INTO dbo.[a ]]b] (i) VALUES (2)").await.unwrap();
    let rows = client.query("SELECT * FROM [a ]]b] ORDER BY i", &[]).await.unwrap().into_first_result().await.unwrap();
    let row = &rows[0];
    assert_eq!(row.get::<i32, _>("i"), Some(1));
    assert_eq!(row.get::<bool, _>("b"), Some(true));
    assert_eq!(row.get::<u8, _>("t"), Some(200));
    assert_eq!(row.get::<i16, _>("s"), Some(-5));
    assert_eq!(row.get::<i64, _>("l"), Some(1 << 40));
    assert_eq!(row.get::<Numeric, _>("d").map(|d| (d.value(), d.scale())), Some((1_234_568, 5)));
    assert_eq!(row.get::<f64, _>("m"), Some(1.2346));
    assert_eq!(row.get::<f32, _>("r"), Some(1.5));
    assert_eq!(row.get::<f64, _>("f"), Some(2.5));
    assert_eq!(row.get::<&str, _>("c"), Some("a  "));
    assert_eq!(row.get::<&str, _>("v"), Some("b€"));
    assert_eq!(row.get::<&str, _>("n"), Some("ж"));
    assert_eq!(row.get::<&str, _>("x"), Some(long.as_str()));
    assert_eq!(row.get::<&[u8], _>("y"), Some(&[1, 0, 0, 0][..]));
    assert_eq!(row.get::<&[u8], _>("z"), Some(&[2, 3][..]));
    let nulls: Vec<ColumnData<'_>> = rows[1].cells().map(|(_, cell)| cell.clone()).collect();
    assert_eq!(nulls.len(), 23);
    assert_eq!(rows[1].get::<&str, _>("x"), None);
    assert_eq!(rows[1].get::<bool, _>("b"), None);
    insta::assert_debug_snapshot!(server.query("SELECT dt, tm, dm, sd, d2, o, g, q, m, d FROM [a ]]b] WHERE i = 1")[0]);
}

#[tokio::test]
async fn columns_tell_what_a_bulk_load_asks_for() {
    let server = server().await;
    let mut client = client(&server).await;
    run(&mut client, "CREATE TABLE t (id int IDENTITY(5, 2), a nvarchar(20) NOT NULL, b AS (LEN(a)), c decimal(9, 2), d datetime2(3))")
        .await
        .unwrap();
    let columns = client.column_metadata("dbo.t", &["*"]).await.unwrap();
    let told: Vec<String> = columns.iter().map(|column| format!("{column} {:?}", column.base().flags())).collect();
    insta::assert_debug_snapshot!(told);
}

#[tokio::test]
async fn a_batch_has_several_results_and_counts() {
    let server = server().await;
    let mut client = client(&server).await;
    run(&mut client, "CREATE TABLE t (a int)").await.unwrap();
    let results = client.simple_query("SELECT 1; SELECT 2 SELECT 3").await.unwrap().into_results().await.unwrap();
    assert_eq!(results.len(), 3);
    let done = client
        .execute("INSERT INTO t VALUES (1), (2); UPDATE t SET a = a + @P1; DELETE t WHERE a = 2", &[&1])
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), [2, 2, 1]);
    assert_eq!(number(run(&mut client, "SELECT 1; SELEKT 2").await), 102);
}
