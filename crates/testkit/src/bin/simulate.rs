//! Simulated servers for a person to try things with: `towpath-simulate ssrs --port 8080 --rows 10000`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who started it")]

use std::{process::ExitCode, time::Duration};

use towpath_testkit::{
    pipedrive::{Pipedrive, PipedriveOptions, Plan},
    report_server::{Builder, Report, ReportServer, Scheme, write_log},
    sample::sample_csv_with_refused_rows,
    sql_server::{SqlServer, SqlServerOptions, TlsMode},
};

const HELP: &str = "\
towpath-simulate ssrs [OPTIONS]      a report server with the report '/Manufacturing/Production log'

  --port N          where to listen on 127.0.0.1 (default: a free port)
  --rows N          rows an hour of its log (default: 10000)
  --user DOMAIN\\NAME   who may come in (default: CORP\\loader)
  --password TEXT   the password (default: secret)
  --auth LIST       what it offers: none, or ntlm and negotiate with a comma between (default: ntlm)
  --lockout N       wrong passwords in a row that lock the account (default: 5)
  --first-byte S    seconds of silence before a report flows (default: 0)
  --rate N          bytes of a report a second (default: as fast as it can)
  --gzip            compress reports

towpath-simulate mssql [OPTIONS]     a SQL Server over SQLite; its data is gone when it ends

  --port N          where to listen on 127.0.0.1 (default: a free port)
  --user NAME       the login (default: sa)
  --password TEXT   the password (default: towpath_Test1)
  --database NAME   the database (default: towpath)
  --tls MODE        off, required (TDS 7.4) or strict (TDS 8.0); a certificate is made (default: off)

towpath-simulate pipedrive [OPTIONS] an account of the CRM Pipedrive, with the fields CustomerID (persons), OrderID and
                                     Order date (deals); its data is gone when it ends

  --port N          where to listen on 127.0.0.1 (default: a free port)
  --api-token TEXT  the API token (default: towpath-test-token)
  --plan NAME       lite, growth, premium or ultimate: tokens a day, calls in 2 s (default: lite)
  --seats N         seats that are paid for (default: 1)
  --account NAME    another name is another account, with other keys of fields (default: towpath)
  --currency CODE   the company's currency (default: EUR)
  --persons N       persons C1, C2… that are there from the start (default: 0)
  --deals N         deals O1, O2… that are there from the start (default: 0)
  --latency MS      milliseconds an answer takes (default: 0)

towpath-simulate sample FILE --rows N     writes N rows of that log as a CSV file, and says what its `columns` are
towpath-simulate rows FILE --rows N [--from N] [--refused-every N]
                                          the same of a log that may be cut anywhere, with rows that a database refuses";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((what, options))
            if ["ssrs", "mssql", "pipedrive"].contains(&what.as_str())
                && !options.iter().any(|option| option == "--help") =>
        {
            let outcome = match what.as_str() {
                "ssrs" => ssrs(options).await,
                "mssql" => mssql(options).await,
                _ => pipedrive(options).await,
            };
            match outcome {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("error: {error}\n\n{HELP}");
                    ExitCode::FAILURE
                }
            }
        }
        Some((what, [file, rows, count])) if what == "sample" && rows == "--rows" => match sample(file, count) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        Some((what, [file, options @ ..])) if what == "rows" => match rows(file, options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
    }
}

fn rows(file: &str, options: &[String]) -> Result<(), String> {
    let (mut rows, mut from, mut every) = (1_000_000, 0, 0);
    for option in options.chunks(2) {
        let [name, value] = option else { return Err(format!("{} needs a value", option.join(" "))) };
        let value = value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"))?;
        match name.as_str() {
            "--rows" => rows = value,
            "--from" => from = value,
            "--refused-every" => every = value,
            unknown => return Err(format!("{unknown} is no option")),
        }
    }
    let written = std::fs::File::create(file)
        .and_then(|mut out| sample_csv_with_refused_rows(from..from.saturating_add(rows), every, &mut out));
    written.map_err(|error| format!("{file}: {error}"))?;
    println!("{{ Timestamp: timestamp, Torque: float64, Temperature: float64 }}");
    Ok(())
}

fn sample(file: &str, rows: &str) -> Result<(), String> {
    let rows = rows.parse::<u64>().map_err(|error| format!("--rows {rows}: {error}"))?;
    let written = std::fs::File::create(file).and_then(|mut out| write_log(rows, &mut out));
    written.map_err(|error| format!("{file}: {error}"))?;
    println!("{{ Timestamp: timestamp, Torque: float64, Temperature: float64 }}");
    Ok(())
}

async fn ssrs(options: &[String]) -> Result<(), String> {
    let (mut user, mut password, mut rows) = ("CORP\\loader".to_owned(), "secret".to_owned(), 10_000);
    let mut schemes = vec![Scheme::Ntlm];
    let mut builder = ReportServer::builder().lockout_after(5);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == "--gzip" {
            builder = builder.gzip();
            continue;
        }
        let value = options.next().ok_or_else(|| format!("{option} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{option} {value}: {error}"));
        builder = match option.as_str() {
            "--port" => builder.port(u16::try_from(number()?).map_err(|error| format!("--port: {error}"))?),
            "--lockout" => {
                builder.lockout_after(u32::try_from(number()?).map_err(|error| format!("--lockout: {error}"))?)
            }
            "--first-byte" => builder.first_byte(Duration::from_secs(number()?)),
            "--rate" => builder.rate(number()?),
            "--rows" => keep(builder, &mut rows, number()?),
            "--user" => keep(builder, &mut user, value.clone()),
            "--password" => keep(builder, &mut password, value.clone()),
            "--auth" => keep(builder, &mut schemes, offered(value)?),
            unknown => return Err(format!("{unknown} is no option")),
        };
    }
    let report = Report::production_log(rows);
    if schemes.is_empty() {
        builder = builder.offer([]);
    } else {
        let (domain, name) = user.split_once('\\').unwrap_or(("", &user));
        builder = builder.account(domain, name, &password).offer(schemes.iter().copied());
    }
    let server = builder.report(report).try_start().await.map_err(|error| error.to_string())?;
    // The first line is for programs, the rest for people.
    println!("{}", server.url());
    println!("report    /Manufacturing/Production log, {rows} rows an hour, window parameters From and To");
    match schemes.is_empty() {
        true => println!("sign in   not needed"),
        false => println!("sign in   {user}, password {password}, by {schemes:?}"),
    }
    println!("stop      Ctrl-C");
    tokio::select! {
        () = server.serve() => {}
        stopped = stopped() => stopped?,
    }
    server.stop().await;
    Ok(())
}

async fn mssql(options: &[String]) -> Result<(), String> {
    let mut chosen = SqlServerOptions::default();
    for option in options.chunks(2) {
        let [name, value] = option else { return Err(format!("{} needs a value", option.join(" "))) };
        match name.as_str() {
            "--port" => chosen.port = Some(value.parse().map_err(|error| format!("--port {value}: {error}"))?),
            "--user" => chosen.login.clone_from(value),
            "--password" => chosen.password.clone_from(value),
            "--database" => chosen.database.clone_from(value),
            "--tls" => {
                chosen.tls = match value.as_str() {
                    "off" => TlsMode::Off,
                    "required" => TlsMode::Required,
                    "strict" => TlsMode::Strict,
                    unknown => return Err(format!("'{unknown}' is not off, required or strict")),
                }
            }
            unknown => return Err(format!("{unknown} is no option")),
        }
    }
    let (user, password, database) = (chosen.login.clone(), chosen.password.clone(), chosen.database.clone());
    let server = SqlServer::try_start(chosen).await.map_err(|error| error.to_string())?;
    // The first line is for programs, the rest for people.
    println!("{}", server.url());
    println!("sign in   {user}, password {password}, database {database}");
    if let Some(path) = server.certificate_pem_path() {
        println!("trust     {}", path.display());
    }
    println!("stop      Ctrl-C");
    tokio::select! {
        () = server.serve() => {}
        stopped = stopped() => stopped?,
    }
    server.stop().await;
    Ok(())
}

async fn pipedrive(options: &[String]) -> Result<(), String> {
    let mut chosen = PipedriveOptions::default();
    let (mut persons, mut deals) = (0, 0);
    for option in options.chunks(2) {
        let [name, value] = option else { return Err(format!("{} needs a value", option.join(" "))) };
        let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--port" => chosen.port = Some(value.parse().map_err(|error| format!("--port {value}: {error}"))?),
            "--api-token" => chosen.api_token.clone_from(value),
            "--plan" => {
                let plan = Plan::of_name(value);
                chosen.plan = plan.ok_or_else(|| format!("'{value}' is not lite, growth, premium or ultimate"))?;
            }
            "--persons" => persons = usize::try_from(number()?).unwrap_or_default(),
            "--deals" => deals = usize::try_from(number()?).unwrap_or_default(),
            "--seats" => chosen.seats = number()?,
            "--account" => chosen.seed.clone_from(value),
            "--currency" => chosen.currency.clone_from(value),
            "--latency" => chosen.latency = Duration::from_millis(number()?),
            unknown => return Err(format!("{unknown} is no option")),
        }
    }
    let (token, plan) = (chosen.api_token.clone(), chosen.plan);
    let server = Pipedrive::try_start(chosen).await.map_err(|error| error.to_string())?;
    let account = server.account();
    account.add_demo_fields();
    account.seed_demo(persons, deals);
    // The first line is for programs, the rest for people.
    println!("{}", server.url());
    println!("token     {token} in the header x-api-token");
    println!("budget    {} tokens a day, {} calls in 2 s", account.tokens_a_day(), plan.burst());
    println!("try       curl -H 'x-api-token: {token}' {}/api/v2/dealFields", server.url());
    println!("calls     curl {}/simulator/log", server.url());
    println!("next day  curl -d '{{\"advance\": 86400}}' {}/simulator/clock", server.url());
    println!("stop      Ctrl-C");
    tokio::select! {
        () = server.serve() => {}
        stopped = stopped() => stopped?,
    }
    server.stop().await;
    Ok(())
}

/// Until somebody wants it to end.
async fn stopped() -> Result<(), String> {
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| error.to_string()),
        _ = terminate.recv() => Ok(()),
    }
}

fn keep<T>(builder: Builder, place: &mut T, value: T) -> Builder {
    *place = value;
    builder
}

fn offered(text: &str) -> Result<Vec<Scheme>, String> {
    if text == "none" {
        return Ok(vec![]);
    }
    let one = |word: &str| match word.trim() {
        "ntlm" => Ok(Scheme::Ntlm),
        "negotiate" => Ok(Scheme::Negotiate),
        unknown => Err(format!("'{unknown}' is not ntlm, negotiate or none")),
    };
    text.split(',').map(one).collect()
}
