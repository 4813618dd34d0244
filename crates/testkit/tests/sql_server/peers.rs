//! The server tried by python-tds, a client that is not ours and in another language.

use tokio::process::Command;
use towpath_testkit::sql_server::{SqlServer, SqlServerOptions, TlsMode};

/// The interpreter with python-tds; without it a test is skipped, or fails where peers are required.
async fn python() -> Option<String> {
    let python = std::env::var("TOWPATH_PEERS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import pytds"]).output().await;
    let found = found.is_ok_and(|out| out.status.success());
    let required = std::env::var("REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(found || !required, "python-tds is not here, and REQUIRE_PEERS=1");
    if !found {
        println!("SKIPPED: python-tds is not here");
    }
    found.then_some(python)
}

async fn ask(tls: TlsMode, script: &str) -> Option<(SqlServer, String)> {
    let python = python().await?;
    let server = SqlServer::start(SqlServerOptions { tls, ..SqlServerOptions::default() }).await;
    let connect = "import pytds, sys, io, datetime, decimal, uuid\n\
                   def connect(**more):\n    \
                   return pytds.connect('127.0.0.1', 'towpath', 'sa', 'towpath_Test1', port=int(sys.argv[1]), **more)\n";
    let mut command = Command::new(python);
    command.arg("-c").arg(format!("{connect}{script}")).arg(server.port().to_string());
    if let Some(path) = server.certificate_pem_path() {
        command.arg(path);
    }
    let out = command.kill_on_drop(true).output().await.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some((server, String::from_utf8_lossy(&out.stdout).replace("\r\n", "\n")))
}

#[tokio::test]
async fn python_tds_selects_and_gives_parameters() {
    let script = "
c = connect()
k = c.cursor()
k.execute('''CREATE TABLE dbo.t (i int NOT NULL, l bigint, d decimal(20, 4), m money, f float, b bit, s nvarchar(20), v varchar(20),
    x nvarchar(max), y varbinary(max), g uniqueidentifier, dt date, tm time(3), dm datetime, d2 datetime2(6), o datetimeoffset(0))''')
k.execute('''INSERT INTO dbo.t VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 0x0102, %s, %s, %s, %s, %s, '2026-03-01 10:00:00 +02:00')''',
    (1, 2**40, decimal.Decimal('-12.3400'), decimal.Decimal('1.5'), 0.25, True, u'\\u00e4\\u0436', 'v', 'x' * 70000,
     uuid.UUID('f0e1d2c3-b4a5-9687-7869-5a4b3c2d1e0f'), datetime.date(2026, 3, 1), datetime.time(1, 2, 3, 4000),
     datetime.datetime(2026, 3, 1, 1, 2, 3), datetime.datetime(2026, 3, 1, 1, 2, 3, 456789)))
k.execute('INSERT INTO dbo.t (i) VALUES (2)')
c.commit()
k.execute('SELECT * FROM t ORDER BY i')
for row in k.fetchall():
    print([len(cell) if isinstance(cell, str) and len(cell) > 100 else str(cell) for cell in row])
for sql in ['SELECT * FROM nowhere', 'INSERT INTO t (i) VALUES (NULL)']:
    try:
        k.execute(sql)
    except pytds.Error as e:
        print(type(e).__name__, e.number)
";
    let Some((_server, told)) = ask(TlsMode::Off, script).await else { return };
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn python_tds_has_transactions_loads_and_cancels() {
    let script = "
c = connect()
k = c.cursor()
k.execute('CREATE TABLE dbo.t (a int NOT NULL, b nvarchar(50))')
c.commit()
k.execute('INSERT INTO t VALUES (1, N\\'x\\')')
c.rollback()
k.execute('SELECT COUNT(*) FROM t')
print(k.fetchone()[0])
k.copy_to(io.StringIO(''.join('%d\\tname %d\\n' % (i, i) for i in range(5000))), 't', schema='dbo', columns=['a', 'b'])
c.commit()
k.execute('SELECT COUNT(*), MAX(a), MIN(b) FROM t')
print(k.fetchone())
k.execute('SELECT x.a FROM t x, t y')
print(k.fetchone() is not None)
k.cancel()
k.execute('SELECT 1')
print(k.fetchone()[0])
";
    let Some((server, told)) = ask(TlsMode::Off, script).await else { return };
    assert_eq!(told, "0\n(5000, 4999, 'name 0')\nTrue\n1\n");
    assert!(server.log().attentions() >= 1);
}

#[tokio::test]
async fn python_tds_speaks_tls() {
    let script = "
c = connect(cafile=sys.argv[2], validate_host=False)
k = c.cursor()
k.execute('SELECT N\\'over TLS\\'')
print(k.fetchone()[0])
";
    let Some((_server, told)) = ask(TlsMode::Required, script).await else { return };
    assert_eq!(told, "over TLS\n");
}
