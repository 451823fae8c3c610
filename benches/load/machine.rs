//! The machine: its cores, and what a process uses of it.

use std::fs;
use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Number of open files that the benchmark and its children need: a thousand connections, and some more.
const DESCRIPTORS: u64 = 4096;

/// Cores that this process may use. Processes are pinned to some of them, so that the generator does not take time
/// from what it measures.
pub(crate) struct Cores {
    /// Empty if processes cannot be pinned.
    all: Vec<usize>,
    why_not: &'static str,
}

impl Cores {
    /// Reads the affinity mask of this process.
    pub(crate) fn find() -> Self {
        let is_pinned = |set: CpuSet| sched_setaffinity(None, &set).is_ok().then_some(set);
        let Some(set) = sched_getaffinity(None).ok().and_then(is_pinned) else {
            return Self { all: Vec::new(), why_not: "this system does not allow it" };
        };
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        if all.len() < 2 {
            return Self { all: Vec::new(), why_not: "there is only one core, so all processes share it" };
        }
        Self { all, why_not: "" }
    }

    /// The first `count` cores, for a server or for Envoy.
    pub(crate) fn first(&self, count: usize) -> &[usize] {
        self.all.get(..count).unwrap_or_default()
    }

    /// The last core, for the generator. A server with two threads shares it if there are only two.
    pub(crate) fn last(&self) -> &[usize] {
        self.all.last().map_or(&[], std::slice::from_ref)
    }

    /// Core of a server that Envoy asks: the second one, which is the generator's if there are only two.
    pub(crate) fn behind_envoy(&self) -> &[usize] {
        self.all.get(1..2).unwrap_or_default()
    }

    /// Says how processes are pinned.
    pub(crate) fn describe(&self) -> String {
        match self.all[..] {
            [] => format!("Processes are not pinned to cores: {}.", self.why_not),
            [first, .., last] => format!(
                "Pinned to cores: a server (or Envoy) to {first}, the generator to {last}{}.",
                if self.all.len() == 2 {
                    ", which a server behind Envoy and a second thread share with it"
                } else {
                    ""
                }
            ),
            [_] => String::new(),
        }
    }
}

/// Starts a process on these cores; on all that this process may use if there are none.
pub(crate) fn spawn_on(command: &mut Command, cores: &[usize]) -> Result<Child> {
    if cores.is_empty() {
        return Ok(command.spawn()?);
    }
    // A child inherits the mask of the thread that starts it.
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &set_of(cores))?;
    let child = command.spawn();
    sched_setaffinity(None, &before)?;
    Ok(child?)
}

/// Moves this thread to these cores, if there are any.
pub(crate) fn pin_thread(cores: &[usize]) -> Result<()> {
    if !cores.is_empty() {
        sched_setaffinity(None, &set_of(cores))?;
    }
    Ok(())
}

fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// Raises the soft limit on open files, which children inherit.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < DESCRIPTORS) {
        let current = Some(limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS)));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    }
    Ok(())
}

/// CPU time that a process has used so far, in seconds: the 14th and 15th field of `/proc/PID/stat` (proc(5)). The
/// kernel rounds to ticks, usually of 10 ms.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("a measured process has ended")?;
    // The name of the program, in parentheses, may contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let &[user, system] = &ticks[..] else { anyhow::bail!("/proc/{pid}/stat has another form") };
    Ok((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `true` if a child has ended: it stays a zombie (`Z`) as long as its handle is open.
pub(crate) fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
}

/// Memory of a process in MB (proc(5)).
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// All that is resident (`VmRSS`).
    pub(crate) resident: f64,
    /// The part that belongs to this process alone (`RssAnon`), without the pages of the executable, which the kernel can
    /// drop and shares between processes.
    pub(crate) anonymous: f64,
}

/// Reads the memory of a process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a measured process has ended")?;
    let megabytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a kernel that does not tell")?;
        let kilobytes: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        anyhow::Ok(kilobytes as f64 * 1024.0 / 1e6)
    };
    Ok(Memory { resident: megabytes("VmRSS")?, anonymous: megabytes("RssAnon")? })
}

/// Names the processor, the number of cores and the kernel.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Machine: {model}, {cores} cores, Linux {}.", kernel.trim())
}
