//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Bench;
use crate::process::{Process, free_address, get};
use crate::token::{CLIENT, POOL};

/// Time limit for the start. Reading a million revocations takes seconds.
const START: Duration = Duration::from_secs(60);
/// No server listens there, so the keys stay those of the file.
const NO_KEYS: &str = "http://127.0.0.1:9/";

/// How the program is started.
pub(crate) struct Settings<'s> {
    /// Cores that it may use.
    pub(crate) cores: &'s [usize],
    /// Number of threads for checks.
    pub(crate) threads: u16,
    /// Address of the keys, if they are not only read from a file.
    pub(crate) keys: Option<String>,
    /// Further options.
    pub(crate) more: Vec<String>,
}

impl<'s> Settings<'s> {
    /// One thread on these cores.
    pub(crate) fn on(cores: &'s [usize]) -> Self {
        Self { cores, threads: 1, keys: None, more: Vec::new() }
    }

    /// Adds an option and its value.
    pub(crate) fn with(mut self, option: &str, value: impl Into<String>) -> Self {
        self.more.extend([option.to_owned(), value.into()]);
        self
    }
}

/// Running program.
pub(crate) struct Program {
    process: Process,
    /// Socket for checks.
    pub(crate) unix: PathBuf,
    /// Address for checks.
    pub(crate) tcp: String,
    /// Socket of the admin port.
    pub(crate) admin: PathBuf,
}

impl Program {
    /// Starts the program and waits until it is ready.
    pub(crate) fn start(bench: &Bench, settings: &Settings<'_>) -> Result<Self> {
        let mut program = Self::spawn(bench, settings, &bench.new_directory()?)?;
        let admin = program.admin.clone();
        program.process.comes_up(START, || get(&admin, "/readyz").is_ok())?;
        Ok(program)
    }

    /// Starts the program in this directory, and does not wait.
    pub(crate) fn spawn(bench: &Bench, settings: &Settings<'_>, directory: &Path) -> Result<Self> {
        let (unix, admin, tcp) = (directory.join("grpc"), directory.join("admin"), free_address());
        let mut command = Command::new(&bench.options.program);
        command
            .args(["--user-pool-id", POOL, "--client-id", CLIENT])
            .args(["--jwks-url", settings.keys.as_deref().unwrap_or(NO_KEYS), "--log-level", "error"])
            .args(["--grpc-threads", &settings.threads.to_string(), "--grpc-listen", &tcp])
            .arg(format!("--grpc-listen=unix:{}", unix.display()))
            .arg(format!("--admin-listen=unix:{}", admin.display()))
            .arg("--jwks-file")
            .arg(bench.input.keys())
            .args(&settings.more);
        let process = Process::start(&mut command, settings.cores, directory)?;
        Ok(Self { process, unix, tcp, admin })
    }

    /// Id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sum of the series of a metric. `name` is the start of their lines, with labels or without.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let text = get(&self.admin, "/metrics")?;
        let values: Vec<f64> = text
            .lines()
            .filter_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{', ','])))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
            .collect();
        ensure!(!values.is_empty(), "the program has no metric {name}");
        Ok(values.iter().sum())
    }
}

/// First line of what the program prints for `--version`.
pub(crate) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").env_clear().output();
    let output = output.with_context(|| format!("{} cannot be started", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(format!("{} ({})", text.lines().next().unwrap_or_default(), program.display()))
}
