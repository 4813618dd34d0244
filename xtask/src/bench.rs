//! `cargo xtask bench`: the figures of the README, each beside a rival in the same run. Seconds differ from machine to machine and from hour to hour;
//! ratios hold.

mod crm;
mod crm_sync;
mod mssql;
mod slow_server;
mod spine;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{Fallible, cmd, measure::Run};

/// The profile of what is measured: that of what is shipped.
const PROFILE: &str = "dist";

/// That profile, or for a trial the one that `TOWPATH_BENCH_PROFILE` names (`dev`): figures of it are none.
fn profile() -> String {
    std::env::var("TOWPATH_BENCH_PROFILE").unwrap_or_else(|_| PROFILE.to_owned())
}

pub(crate) fn run(arguments: &[String]) -> Fallible {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["spine"] => spine::run(),
        ["crm", ref jobs @ ..] => crm::run(jobs),
        ["mssql", ref options @ ..] => mssql::run(options),
        _ => Err("usage: cargo xtask bench [spine | mssql [JOB…] | crm [join | sync | unchanged]…]".to_owned()),
    }
}

/// One line of the table.
struct Figure {
    job: &'static str,
    ours: String,
    rival: String,
    reached: String,
    target: &'static str,
}

impl Figure {
    /// Wall time beside wall time.
    fn ratio(job: &'static str, ours: &Run, rival: &Run, target: &'static str) -> Self {
        Self::quotient(job, ours.wall, rival.wall, target)
    }
    fn quotient(job: &'static str, ours: Duration, rival: Duration, target: &'static str) -> Self {
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let reached = format!("{:.2}×", ours.as_secs_f64() / rival.as_secs_f64());
        Self { job, ours: seconds(ours), rival: seconds(rival), reached, target }
    }
}

/// The table, as it stands in the README.
fn figures(rival: &str, reached: &[Figure]) -> String {
    let mut table = format!("| job | towpath | {rival} | reached | must reach |\n|---|---|---|---|---|\n");
    for Figure { job, ours, rival, reached, target } in reached {
        let _ = writeln!(table, "| {job} | {ours} | {rival} | {reached} | {target} |");
    }
    table
}

fn machine(times: usize) -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores; the quickest of {times} runs each, in turn", model.trim_start_matches([':', '\t', ' ']))
}

/// Serves a folder: by nginx where it is at hand, else by Python.
fn serve(folder: &Path) -> Fallible<(cmd::Background, String)> {
    let port = free_port()?;
    let mut command = if cmd::is_at_hand("nginx") {
        let conf = folder.join("nginx.conf");
        let root = folder.display();
        let text = format!(
            "daemon off; master_process off; pid {root}/nginx.pid; error_log stderr crit; worker_processes 1; events {{}}\n\
             http {{ access_log off; sendfile on; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;\n\
             uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
        );
        fs::write(&conf, text).map_err(|error| error.to_string())?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder).arg("-c").arg(conf);
        nginx
    } else {
        let mut python = Command::new("python3");
        python.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1"]).current_dir(folder);
        python
    };
    let server = cmd::Background::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    for _ in 0..100 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok((server, format!("http://127.0.0.1:{port}")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the file server does not answer".to_owned())
}

fn free_port() -> Fallible<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}
