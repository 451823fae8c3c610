//! The log: format, level, caps, and the queue to standard output.
//!
//! Libraries log at `warn` at most: at lower levels some of them log the data they handle, tokens included. A bounded
//! queue and a thread of its own write the lines. If standard output is read too slowly, lines are dropped; checks do
//! not wait. Lines that clients cause have caps, and cannot crowd out the others: see [`Judge`]. Start from [`start`].

mod foreign;
mod judge;
mod level;
mod queue;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::ValueEnum;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use self::foreign::foreign;
use self::judge::{Caps, Judge};
use self::level::Level;
pub(crate) use self::level::{By, DEFAULT_TIME, LONGEST_TIME, Levels, SHORTEST_TIME};
use self::queue::{Lines, Queue, Queued, Writer};

/// Format of the log (`--log-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable text
    Text,
    /// One JSON object per line
    Json,
}

/// Least severe level of the log (`--log-level`). A greater one has more lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Failures that stop the service from working
    Error,
    /// Also problems that may soon stop it
    Warn,
    /// Also denied requests
    Info,
    /// Also allowed requests
    Debug,
    /// The same as debug: there are no trace messages
    Trace,
}

impl LogLevel {
    /// Name, as in `--log-level`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Settings of the log.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Format. Unset: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// Least severe level that is logged.
    pub level: LogLevel,
    /// Maximum number of lines per second of each kind of line that clients cause, at each level.
    pub lines_per_second: u32,
    /// Share of the allowed checks that have a line at the level `debug`: 0 to 1.
    pub allowed_ratio: f64,
}

/// The log of this process. Dropping it writes the lines that are still queued, for at most a second.
#[derive(Debug)]
pub struct Log {
    handle: Handle,
    _writer: Writer,
}

impl Log {
    /// Handle for the parts that show or change the log.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// Shows and changes the log of this process. Clones are of the same log.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

/// State of the log.
#[derive(Debug)]
struct Shared {
    level: Level,
    caps: Caps,
    queue: Queue,
}

/// Number of lines that were not written since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Lines above the cap of their kind and level.
    pub(crate) rate: u64,
    /// Lines for which the queue had no place, or that standard output did not take.
    pub(crate) queue: u64,
}

impl Handle {
    /// Creates a log, and the other end of its queue.
    fn new(settings: &Settings) -> (Self, Queued) {
        let (queue, queued) = Queue::new();
        let caps = Caps::new(settings.lines_per_second, settings.allowed_ratio);
        (Self(Arc::new(Shared { level: Level::new(settings.level), caps, queue })), queued)
    }

    /// Number of lines that were not written since the start.
    pub(crate) fn dropped(&self) -> Dropped {
        Dropped { rate: self.0.caps.left_out(), queue: self.0.queue.lost() }
    }

    /// What the thread of the log does once a second: says what was left out, and returns to the configured level.
    fn tick(&self) {
        self.0.caps.next_second(&self.0.queue).log();
        self.return_in_time();
    }
}

/// Starts logging to standard output. The format defaults to text on a terminal and to JSON otherwise.
///
/// # Errors
/// The thread that writes the lines cannot be started.
pub fn start(settings: &Settings) -> io::Result<Log> {
    let is_terminal = io::stdout().is_terminal();
    let format = settings.format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    let (handle, queued) = Handle::new(settings);
    let lines = fmt::layer().with_writer(Lines(handle.clone()));
    let lines = match format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines).with(Judge(handle.clone())).init();
    let writer = Writer::start(handle.clone(), queued, io::stdout(), || ())?;
    Ok(Log { handle, _writer: writer })
}

#[cfg(test)]
mod tests;
