//! The load generator: closed-loop HTTP/2 from a process of its own. [`Running::start`] starts it; [`main`] is what that
//! process does.

mod connection;
mod drive;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

pub(crate) use self::drive::{first_answer, main};
use crate::Bench;
use crate::machine::{has_ended, spawn_on};

/// First argument of this executable when it is the generator.
pub(crate) const COMMAND: &str = "generate";
/// Time before a measurement in seconds, so that connections are set up and caches are warm.
const WARM_UP: f64 = 0.3;

/// What to send, where, and how fast.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Load {
    /// Server to ask.
    pub(crate) target: Target,
    /// Kind of the requests.
    pub(crate) kind: Kind,
    /// File with the checks or the tokens, which are sent in turn.
    pub(crate) messages: PathBuf,
    /// Number of messages of the file to use, from its start or its end.
    pub(crate) part: Part,
    /// Number of connections.
    pub(crate) connections: usize,
    /// Number of concurrent requests of each connection.
    pub(crate) streams: usize,
    /// When to send, and for how long.
    pub(crate) schedule: Schedule,
    /// Processes whose CPU time is read before and after.
    pub(crate) pids: Vec<u32>,
}

/// Address of a server.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum Target {
    /// Path of a Unix socket.
    Unix(PathBuf),
    /// Paths of Unix sockets, each with as many connections as the other.
    UnixPair([PathBuf; 2]),
    /// Host and port.
    Tcp(String),
    /// Host and port, and the file with the CA of the server's certificate.
    Tls(String, PathBuf),
}

/// Kind of the requests.
#[derive(Clone, Copy, Deserialize, PartialEq, Serialize)]
pub(crate) enum Kind {
    /// gRPC checks, as Envoy sends them.
    Check,
    /// Requests of a browser with a token, for Envoy.
    Get,
}

/// Which messages of the file are sent.
#[derive(Clone, Copy, Deserialize, Serialize)]
pub(crate) enum Part {
    /// All of them.
    All,
    /// Those before this one.
    Before(usize),
    /// Those from this one on.
    From(usize),
}

/// When requests are sent.
#[derive(Clone, Copy, Deserialize, Serialize)]
pub(crate) enum Schedule {
    /// Each as soon as the previous one is answered, for this number of seconds.
    Saturate(f64),
    /// At a steady rate per second, for this number of seconds.
    Steady(f64, f64),
    /// Each message once.
    Once,
    /// All connections are opened at once, with one request each, and closed; this number of times.
    Storm(u32),
}

/// Result of a measurement. Every request was answered, and allowed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median time to an answer in microseconds.
    pub(crate) p50: f64,
    /// Time within which 99 % of the answers arrived.
    pub(crate) p99: f64,
    /// Time within which 99.9 % of the answers arrived.
    pub(crate) p999: f64,
    /// Longest time to an answer in microseconds; with [`Schedule::Storm`], until all connections had theirs.
    pub(crate) most: f64,
    /// CPU microseconds per request, for each process of the load.
    pub(crate) cpu: Vec<f64>,
    /// Share of a core that the generator used.
    pub(crate) busy: f64,
}

impl Load {
    /// All checks of the usual input in turn, over Unix or TCP.
    pub(crate) fn checks(bench: &Bench, target: Target, pid: u32, connections: usize, streams: usize) -> Self {
        Self {
            target,
            kind: Kind::Check,
            messages: bench.input.checks.clone(),
            part: Part::All,
            connections,
            streams,
            schedule: Schedule::Saturate(bench.options.seconds),
            pids: vec![pid],
        }
    }

    /// Requests with all tokens of the usual input in turn, through Envoy at this address.
    pub(crate) fn requests(bench: &Bench, envoy: &str, pids: Vec<u32>, connections: usize, streams: usize) -> Self {
        Self {
            target: Target::Tcp(envoy.to_owned()),
            kind: Kind::Get,
            messages: bench.input.tokens.clone(),
            part: Part::All,
            connections,
            streams,
            schedule: Schedule::Saturate(bench.options.seconds),
            pids,
        }
    }

    /// Runs the load to its end.
    pub(crate) fn run(&self, bench: &Bench) -> Result<Report> {
        Running::start(bench, self)?.finish().map_err(|error| match self.pids.iter().find(|pid| has_ended(**pid)) {
            Some(pid) => error.context(format!("the measured process {pid} has ended")),
            None => error,
        })
    }

    /// Sends each message once, so that all tokens are in the cache.
    pub(crate) fn fill(&self, bench: &Bench) -> Result<()> {
        let load = Self { schedule: Schedule::Once, connections: 4, streams: 8, ..self.clone() };
        load.run(bench).map(drop)
    }
}

impl Target {
    /// The Unix socket at a path.
    pub(crate) fn unix(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

/// Generator at work. Dropping it ends it.
pub(crate) struct Running {
    child: Child,
    output: ChildStdout,
}

impl Running {
    /// Starts the generator.
    pub(crate) fn start(bench: &Bench, load: &Load) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).arg(serde_json::to_string(load)?).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = spawn_on(&mut command, bench.cores.last())?;
        let output = child.stdout.take().context("a pipe was asked for")?;
        Ok(Self { child, output })
    }

    /// Waits for the result.
    pub(crate) fn finish(mut self) -> Result<Report> {
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        ensure!(self.child.wait()?.success(), "{}", text.trim());
        serde_json::from_str(&text).context("the result of the generator")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
