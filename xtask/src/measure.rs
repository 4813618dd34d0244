//! Measures programs: wall time of several runs in turn, and limits like those of a small container.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Fallible, cmd};

/// What came of a program's run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) wall: Duration,
    /// Time of processors that the program and those it started took, to a hundredth of a second; not of what it asked other servers to do.
    pub(crate) cpu: Duration,
    pub(crate) stdout: String,
}

impl Run {
    /// The last line of its output, as `run --json` ends with.
    pub(crate) fn report(&self) -> Fallible<serde_json::Value> {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).map_err(|error| format!("its last line is no report ({error}): {line}"))
    }
    /// The largest resident size it reports, in MiB.
    pub(crate) fn peak_mib(&self) -> Fallible<f64> {
        let bytes = self.report()?.get("peak_memory_bytes").and_then(serde_json::Value::as_u64);
        bytes.map(|bytes| bytes as f64 / 1048576.0).ok_or_else(|| "its report names no peak".to_owned())
    }
}

/// Runs a program once.
pub(crate) fn once(command: &mut Command) -> Fallible<Run> {
    let (began, cpu) = (Instant::now(), cpu_of_children()?);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", cmd::shown(command)))?;
    let (wall, cpu) = (began.elapsed(), cpu_of_children()?.saturating_sub(cpu));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{} ended with {}\n{stdout}{stderr}", cmd::shown(command), output.status));
    }
    Ok(Run { wall, cpu, stdout })
}

/// What programs that have ended took, as proc(5) has it: the fields behind the name, which may have spaces, in hundredths of a second. Zero where there
/// is no such file.
fn cpu_of_children() -> Fallible<Duration> {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return Ok(Duration::ZERO) };
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/self/stat is not as proc(5) says")?;
    let ticks = |field: usize| fields.split_whitespace().nth(field).and_then(|ticks| ticks.parse::<u64>().ok());
    // cutime and cstime, the 16th and 17th of all.
    let (user, system) = ticks(13).zip(ticks(14)).ok_or("/proc/self/stat is not as proc(5) says")?;
    Ok(Duration::from_millis((user + system) * 10))
}

/// Runs two programs in turn, so that both meet the same machine. Each is prepared before it is timed. The quickest run of each.
pub(crate) fn side_by_side(
    times: usize,
    mut ours: impl FnMut() -> Fallible<Run>,
    mut rival: impl FnMut() -> Fallible<Run>,
) -> Fallible<(Run, Run)> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..times {
        a.push(ours()?);
        b.push(rival()?);
    }
    let quickest = |runs: Vec<Run>| runs.into_iter().min_by_key(|run| run.wall).unwrap_or_default();
    Ok((quickest(a), quickest(b)))
}

/// Half a CPU and 256 MiB, by a control group of our own.
pub(crate) struct Limits {
    groups: Vec<PathBuf>,
    /// How it is done, to be said beside the figure.
    pub(crate) how: &'static str,
}

impl Limits {
    /// An error says why this machine cannot.
    pub(crate) fn half_a_cpu_and_256_mib() -> Fallible<Self> {
        let name = format!("towpath-bench-{}", std::process::id());
        let all = Path::new("/sys/fs/cgroup");
        if all.join("cgroup.controllers").is_file() {
            let limits =
                Self { groups: vec![all.join(&name)], how: "cgroup v2: cpu.max 50000 100000, memory.max 256 MiB" };
            limits.set(0, "cpu.max", "50000 100000")?;
            limits.set(0, "memory.max", "268435456")?;
            return Ok(limits);
        }
        let groups = vec![all.join("cpu").join(&name), all.join("memory").join(&name)];
        let limits = Self { groups, how: "cgroup v1: cpu.cfs_quota_us 50000 of 100000, memory.limit_in_bytes 256 MiB" };
        limits.set(0, "cpu.cfs_period_us", "100000")?;
        limits.set(0, "cpu.cfs_quota_us", "50000")?;
        limits.set(1, "memory.limit_in_bytes", "268435456")?;
        Ok(limits)
    }

    fn set(&self, group: usize, file: &str, value: &str) -> Fallible {
        let folder = &self.groups[group];
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(file);
        fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// A shell that enters the group and becomes the program.
    pub(crate) fn within(&self, program: &Path) -> Command {
        let enter: String =
            self.groups.iter().map(|group| format!("echo $$ > {}/cgroup.procs; ", group.display())).collect();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{enter}exec \"$0\" \"$@\"")).arg(program);
        command
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        for group in &self.groups {
            // It is empty by now; if not, the kernel keeps it and says so to nobody.
            let _ = fs::remove_dir(group);
        }
    }
}
