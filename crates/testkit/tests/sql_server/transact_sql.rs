//! T-SQL: what is asked, what comes, and in which words it fails.

use towpath_testkit::sql_server::SqlServer;

use crate::{client, number, run, server};

/// Rows in one line: `a,b|c,NULL`.
fn shown(server: &SqlServer, sql: &str) -> String {
    match server.try_query(sql) {
        Err(error) => error,
        Ok(rows) => {
            let row = |row: &Vec<Option<String>>| {
                row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join(",")
            };
            rows.iter().map(row).collect::<Vec<_>>().join("|")
        }
    }
}

#[tokio::test]
async fn expressions() {
    let server = server().await;
    let cases = [
        ("SELECT 7 / 2, 7 % 2, 7.0 / 2, 1 + 1.5, 2 * 3", "3,1,3.500000,2.5,6"),
        ("SELECT 'a' + N'b', 'a' + NULL, '1' + 2", "ab,NULL,3"),
        ("SELECT LEN(N'ab  '), DATALENGTH(N'ab'), DATALENGTH('ab'), DATALENGTH(CAST(1 AS bigint))", "2,4,2,8"),
        ("SELECT LEFT('abc', 2), RIGHT('abc', 2), SUBSTRING('abcd', 2, 2), CHARINDEX('C', 'abc')", "ab,bc,bc,3"),
        (
            "SELECT UPPER('aä'), LTRIM('  a'), REPLACE('aBa', 'b', 'x'), ISNULL(NULL, 5), COALESCE(NULL, NULL, 'z')",
            "AÄ,a,axa,5,z",
        ),
        ("SELECT CASE WHEN 1 = 1 THEN 'y' ELSE 'n' END, IIF(1 > 2, 1, 2), NULLIF(1, 1)", "y,2,NULL"),
        (
            "SELECT CONVERT(date, '2026-03-01'), CONVERT(varchar(10), CAST('2026-03-01' AS datetime), 120)",
            "2026-03-01,2026-03-01",
        ),
        (
            "SELECT CONVERT(varchar(50), CAST('2026-03-01T10:11:12.123' AS datetime2(3)), 126)",
            "2026-03-01T10:11:12.123",
        ),
        (
            "SELECT TRY_CONVERT(int, 'x'), TRY_CAST('5' AS int), TRY_CONVERT(date, '2026-02-30'), TRY_CONVERT(decimal(4, 2), '123.4')",
            "NULL,5,NULL,NULL",
        ),
        (
            "SELECT DATEDIFF(day, '2026-01-01', '2026-03-01'), DATEADD(month, 1, CAST('2026-01-31' AS date)), YEAR('2026-01-01')",
            "59,2026-02-28,2026",
        ),
        (
            "SELECT CONVERT(varbinary(4), 0x0102), CONVERT(char(6), 0xABCD, 1), CONVERT(binary(4), 5)",
            "0x0102,0xABCD,0x00000005",
        ),
        ("SELECT COUNT(*), SUM(a), AVG(a), MAX(b) FROM (VALUES (1, 'a'), (2, 'B'), (4, NULL)) AS v (a, b)", "3,7,2,B"),
        (
            "SELECT SUM(CAST(a AS decimal(10, 2))), AVG(CAST(a AS decimal(10, 2))) FROM (VALUES (1), (2)) v (a)",
            "3.00,1.500000",
        ),
        ("SELECT a FROM (VALUES (3), (1), (2)) v (a) ORDER BY a DESC OFFSET 1 ROWS FETCH NEXT 1 ROWS ONLY", "2"),
        ("SELECT TOP (2) a FROM (VALUES (3), (1), (2)) v (a) ORDER BY a", "1|2"),
        (
            "SELECT a, ROW_NUMBER() OVER (PARTITION BY b ORDER BY a DESC) FROM (VALUES (1, 'x'), (2, 'X')) v (a, b) ORDER BY 1",
            "1,2|2,1",
        ),
        (
            "WITH c AS (SELECT 1 AS a UNION ALL SELECT 2) SELECT a * 2 FROM c WHERE a IN (SELECT a FROM c WHERE a > 1)",
            "4",
        ),
        ("SELECT 'same' WHERE 'abc ' = N'ABC' AND 'a' <> 'a' COLLATE Latin1_General_BIN2", ""),
        ("SELECT 'other' WHERE 'a' <> 'A' COLLATE Latin1_General_BIN2", "other"),
        ("SELECT b, COUNT(*) FROM (VALUES ('x'), ('X '), ('y')) v (b) GROUP BY b ORDER BY b", "x,2|y,1"),
        ("SELECT 1 UNION SELECT 1 UNION ALL SELECT 2 ORDER BY 1", "1|2"),
        ("DECLARE @a int = 3, @b nvarchar(10) SET @b = N'x' SELECT @a = @a + 1 SELECT @a, @b, @@ROWCOUNT", "4,x,1"),
        ("IF 1 = 0 SELECT 'a' ELSE BEGIN SELECT 'b'; SELECT 'c' END", "b|c"),
        ("DECLARE @i int = 0 WHILE @i < 3 BEGIN SET @i += 1 IF @i = 2 CONTINUE SELECT @i END", "1|3"),
        (
            "BEGIN TRY SELECT 1 / 0 END TRY BEGIN CATCH SELECT ERROR_NUMBER(), ERROR_MESSAGE() END CATCH",
            "8134,Divide by zero error encountered.",
        ),
        ("SELECT 'x' WHERE 'abc' LIKE 'A[a-c]%' AND 'a_c' LIKE 'a!_c' ESCAPE '!' AND 'b' NOT LIKE '[^b]'", "x"),
        (
            "SELECT CAST(1234567890123456789012345678901234.5678 AS decimal(38, 4)) * 1",
            "1234567890123456789012345678901234.5678",
        ),
        (
            "SELECT CAST(1e10 AS varchar(20)), CAST(0.1e0 AS varchar(20)), CAST($ AS int)",
            "102: Incorrect syntax near '$'.",
        ),
        ("SELECT CONVERT(nvarchar(40), HASHBYTES('SHA2_256', 'a'), 2)", "CA978112CA1BBDCAFAC231B39A23DC4DA786EFF8"),
    ];
    let told = cases.map(|(sql, _)| (sql, shown(&server, sql)));
    assert_eq!(told, cases.map(|(sql, expect)| (sql, expect.to_owned())));
}

#[tokio::test]
async fn errors_have_sql_servers_numbers_and_words() {
    let server = server().await;
    server.execute(
        "CREATE TABLE p (k int NOT NULL CONSTRAINT pk_p PRIMARY KEY);
         CREATE TABLE t (a int NOT NULL CONSTRAINT pk PRIMARY KEY, b nvarchar(3), c tinyint, d decimal(4, 2), e datetime,
            f int CONSTRAINT fk REFERENCES p (k), g int CONSTRAINT ck CHECK (g > 0), h bit);
         CREATE UNIQUE INDEX ux ON t (b, c);
         INSERT INTO t (a, b, c) VALUES (1, N'x', 1)",
    );
    let cases = [
        "INSERT INTO t (a) VALUES (1)",
        "INSERT INTO t (a, b, c) SELECT 2, N'X ', 1",
        "INSERT INTO t (a) SELECT 5 UNION ALL SELECT 5",
        "INSERT INTO t (b) VALUES (N'y')",
        "INSERT INTO t (a, b) VALUES (2, N'long')",
        "INSERT INTO t (a, c) VALUES (2, 256)",
        "INSERT INTO t (a, c) VALUES (2, 'x')",
        "INSERT INTO t (a, d) VALUES (2, 123.45)",
        "INSERT INTO t (a, d) VALUES (2, 'x')",
        "INSERT INTO t (a, e) VALUES (2, '1752-12-31')",
        "INSERT INTO t (a, e) VALUES (2, 'x')",
        "INSERT INTO t (a, f) VALUES (2, 9)",
        "INSERT INTO t (a, g) VALUES (2, 0)",
        "SELECT * FROM nowhere",
        "SELECT z FROM t",
        "SELECT t.z FROM t",
        "SELECT u.a FROM t",
        "SELECT a FROM t, p AS q, t AS r",
        "SELECT a, COUNT(*) FROM t",
        "CREATE TABLE t (a int)",
        "ALTER TABLE nowhere ADD a int",
        "DROP TABLE nowhere",
        "SELECT CAST('99999999999' AS int)",
        "SELECT CAST(99999999999 AS int)",
        "SELECT 2147483647 + 1",
        "SELECT 1 / 0",
        "MERGE t USING p ON 1 = 1",
        "SELECT @x",
        "EXEC sp_nothing",
        "COMMIT",
        "SELECT nothing(1)",
        "THROW 50001, N'mine', 1",
        "SELECT 1 WHERE N'a' COLLATE Latin1_General_BIN2 = N'a' COLLATE Latin1_General_CI_AS",
        "DELETE FROM p; INSERT INTO p VALUES (1); UPDATE t SET f = 1; DELETE FROM p",
    ];
    let told: Vec<String> = cases.iter().map(|sql| format!("{sql}\n    {}", shown(&server, sql))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test]
async fn tables_are_changed_by_joins_and_tell_what_changed() {
    let server = server().await;
    server.execute(
        "CREATE TABLE t (id int IDENTITY(10, 5), k nvarchar(10) NOT NULL, v decimal(9, 2), n AS (v * 2), at datetime2(3) DEFAULT SYSUTCDATETIME(),
            CONSTRAINT pk PRIMARY KEY CLUSTERED (k));
         CREATE TABLE s (k nvarchar(10), v nvarchar(20));
         INSERT INTO s VALUES (N'a', N'1.5'), (N'b', N'2'), (N'c', NULL)",
    );
    let steps = [
        "INSERT INTO t (k, v) OUTPUT inserted.id, inserted.[k], inserted.n SELECT k, v FROM s",
        "UPDATE t SET v = CAST(s.v AS decimal(5, 1)) + 1 OUTPUT deleted.v, inserted.v, inserted.k FROM t JOIN s ON s.k = t.k WHERE s.v IS NOT NULL",
        "UPDATE x SET x.v = 0 FROM dbo.t AS x INNER JOIN s ON s.k = x.k WHERE s.k = 'A'; SELECT @@ROWCOUNT",
        "DELETE x OUTPUT deleted.k FROM t x JOIN s ON s.k = x.k WHERE s.v IS NULL",
        "DELETE TOP (1) FROM t WHERE k > N'a'; SELECT COUNT(*) FROM t",
        "INSERT INTO t WITH (TABLOCK) (k) SELECT s.k FROM s WITH (NOLOCK) WHERE NOT EXISTS (SELECT 1 FROM t WITH (UPDLOCK, HOLDLOCK) WHERE t.k = s.k); SELECT k, v, n FROM t ORDER BY k",
        "SELECT * INTO u FROM t; SELECT COUNT(*) FROM u; TRUNCATE TABLE t; SELECT COUNT(*) FROM t",
        "ALTER TABLE u ADD extra int NOT NULL DEFAULT 7, more nvarchar(5) NULL; SELECT DISTINCT extra, more FROM u",
        "SET IDENTITY_INSERT t ON; INSERT INTO t (id, k) VALUES (100, N'z'); SET IDENTITY_INSERT t OFF; INSERT INTO t (k) VALUES (N'zz'); SELECT id FROM t ORDER BY id",
        "EXEC sp_rename N'dbo.u', N'w'; SELECT OBJECT_ID(N'dbo.u'), OBJECT_NAME(OBJECT_ID(N'[dbo].[w]'))",
        "BEGIN TRANSACTION; DROP TABLE w; CREATE TABLE w (only_this int); ROLLBACK; SELECT COUNT(*) FROM sys.columns WHERE object_id = OBJECT_ID(N'w')",
        "CREATE VIEW dbo.vw AS SELECT k, v FROM t WHERE id > 100; SELECT k FROM vw",
        "CREATE TABLE #x (a int); INSERT INTO #x VALUES (1); SELECT OBJECT_ID('tempdb..#x') / OBJECT_ID('tempdb..#x'), a FROM #x",
    ];
    let told: Vec<String> = steps.iter().map(|sql| format!("{sql}\n    {}", shown(&server, sql))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test]
async fn the_catalog_tells_of_tables() {
    let server = server().await;
    server.execute(
        "CREATE SCHEMA other; CREATE TABLE p (k int NOT NULL PRIMARY KEY);
         CREATE TABLE other.[t x] (id bigint IDENTITY NOT NULL, n nvarchar(20) COLLATE Latin1_General_BIN2 NOT NULL, d decimal(9, 3) NULL,
            c AS (d * 2), f int CONSTRAINT fk_p REFERENCES p (k), CONSTRAINT pk_x PRIMARY KEY NONCLUSTERED (id, n DESC),
            CONSTRAINT ck_d CHECK (d > 0));
         CREATE UNIQUE CLUSTERED INDEX cx ON other.[t x] (n) WITH (FILLFACTOR = 90); CREATE INDEX ix ON other.[t x] (d) INCLUDE (f);
         INSERT INTO other.[t x] (n) VALUES (N'a'), (N'b')",
    );
    let queries = [
        "SELECT s.name, t.name FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id ORDER BY 1",
        "SELECT c.name, ty.name, c.max_length, c.precision, c.scale, c.is_nullable, c.is_identity, c.is_computed, c.collation_name
         FROM sys.columns c JOIN sys.types ty ON ty.user_type_id = c.user_type_id WHERE c.object_id = OBJECT_ID(N'other.[t x]') ORDER BY c.column_id",
        "SELECT i.name, i.type_desc, i.is_unique, i.is_primary_key, ic.key_ordinal, ic.is_descending_key, ic.is_included_column, COL_NAME(i.object_id, ic.column_id)
         FROM sys.indexes i JOIN sys.index_columns ic ON ic.object_id = i.object_id AND ic.index_id = i.index_id
         WHERE i.object_id = OBJECT_ID(N'other.[t x]') ORDER BY i.index_id, ic.index_column_id",
        "SELECT name, definition FROM sys.check_constraints",
        "SELECT f.name, OBJECT_NAME(f.referenced_object_id), COL_NAME(c.parent_object_id, c.parent_column_id)
         FROM sys.foreign_keys f JOIN sys.foreign_key_columns c ON c.constraint_object_id = f.object_id",
        "SELECT SUM(p.rows) FROM sys.partitions p WHERE p.object_id = OBJECT_ID(N'other.[t x]') AND p.index_id IN (0, 1)",
        "SELECT COUNT(*) FROM sys.objects WHERE type = 'U'",
    ];
    let told: Vec<String> = queries.iter().map(|sql| format!("{sql}\n    {}", shown(&server, sql))).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test]
async fn an_error_ends_what_it_ends() {
    let server = server().await;
    let mut client = client(&server).await;
    run(&mut client, "CREATE TABLE t (a int NOT NULL PRIMARY KEY)").await.unwrap();
    let left = |expect: &str| {
        assert_eq!(shown(&server, "SELECT a FROM t ORDER BY a"), expect);
        server.execute("DELETE FROM t");
    };
    // A constraint ends its statement only.
    assert_eq!(
        number(run(&mut client, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").await),
        2627
    );
    left("1|2");
    // With XACT_ABORT everything.
    let sql = "SET XACT_ABORT ON; BEGIN TRANSACTION; INSERT INTO t VALUES (1); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT";
    assert_eq!(number(run(&mut client, sql).await), 2627);
    left("");
    // A failed conversion as well, with or without.
    let sql = "SET XACT_ABORT OFF; BEGIN TRANSACTION; INSERT INTO t VALUES (1); INSERT INTO t VALUES ('x'); COMMIT";
    assert_eq!(number(run(&mut client, sql).await), 245);
    left("");
    // A name that is not there ends the batch and leaves the transaction.
    assert_eq!(
        number(run(&mut client, "BEGIN TRANSACTION; INSERT INTO t VALUES (1); SELECT * FROM nowhere; COMMIT").await),
        208
    );
    assert_eq!(server.open_transactions(), 1);
    run(&mut client, "COMMIT").await.unwrap();
    left("1");
    // Nothing of a batch with a syntax error is executed.
    assert_eq!(number(run(&mut client, "INSERT INTO t VALUES (1); INSRT").await), 102);
    left("");
    let sql = "SET XACT_ABORT ON; BEGIN TRY BEGIN TRANSACTION; INSERT INTO t VALUES (1); INSERT INTO t VALUES (1); COMMIT; END TRY
               BEGIN CATCH DECLARE @s int = XACT_STATE(); IF @@TRANCOUNT > 0 ROLLBACK; INSERT INTO t VALUES (@s); THROW; END CATCH";
    assert_eq!(number(run(&mut client, sql).await), 2627);
    left("-1");
    let sql = "SET XACT_ABORT OFF; BEGIN TRANSACTION; INSERT INTO t VALUES (1); SAVE TRANSACTION here; INSERT INTO t VALUES (2);
               ROLLBACK TRANSACTION here; INSERT INTO t VALUES (3); COMMIT";
    run(&mut client, sql).await.unwrap();
    left("1|3");
}

#[tokio::test]
async fn a_rowversion_grows_whoever_writes() {
    let server = server().await;
    // Each of them is a session of its own.
    server.execute("CREATE TABLE dbo.v (id int NOT NULL, v rowversion NOT NULL)");
    server.execute("INSERT INTO dbo.v (id) VALUES (1), (2)");
    server.execute("INSERT INTO dbo.v (id) VALUES (3)");
    server.execute("UPDATE dbo.v SET id = 1 WHERE id = 1");
    let cases = [
        ("SELECT id FROM dbo.v ORDER BY v", "2|3|1"),
        ("SELECT COUNT(*) FROM dbo.v WHERE v < MIN_ACTIVE_ROWVERSION()", "3"),
        (
            "SELECT t.name, c.max_length FROM sys.columns c JOIN sys.types t ON t.user_type_id = c.user_type_id WHERE c.name = 'v'",
            "timestamp,8",
        ),
    ];
    for (sql, expect) in cases {
        assert_eq!(shown(&server, sql), expect, "{sql}");
    }
}
