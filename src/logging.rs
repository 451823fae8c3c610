//! Where the log goes and what may stand in it.
//!
//! Libraries are held at `warn`: below that some of them write what passes through them, and that includes
//! tokens. Lines go through a bounded queue to a thread of their own: a reader of the log that does not keep up
//! costs lines, never a check.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Form of the log (`--log-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}

/// Least severe level of the log (`--log-level`).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    /// What stops the service from working
    Error,
    /// And what may soon
    Warn,
    /// And refused requests
    Info,
    /// And allowed requests
    Debug,
    /// And more
    Trace,
}

/// Lines that may wait to be written.
const QUEUED_LINES: usize = 8192;

/// Starts the log on standard output. Lines that wait are written when the guard is dropped.
pub fn start(format: Option<LogFormat>, level: LogLevel) -> WorkerGuard {
    let stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    let format = format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    let (writer, guard) = NonBlockingBuilder::default().buffered_lines_limit(QUEUED_LINES).lossy(true).finish(stdout);
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let others = LevelFilter::from_level(level).min(LevelFilter::WARN);
    let filter = Targets::new().with_default(others).with_target("cognito_authz", level);
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    guard
}
