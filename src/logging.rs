//! The log: format, levels and the queue to standard output.
//!
//! Libraries log at `warn` at most: at lower levels some of them log the data they handle, tokens included. A bounded
//! queue and a thread of its own write the lines. If standard output is read too slowly, lines are dropped; checks do
//! not wait.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Format of the log (`--log-format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable text
    Text,
    /// One JSON object per line
    Json,
}

/// Least severe level of the log (`--log-level`).
#[derive(Clone, Copy, Debug, ValueEnum)]
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

/// Length of the queue, in lines.
const QUEUED_LINES: usize = 8192;

/// Starts logging to standard output. `format` defaults to text on a terminal and to JSON otherwise. Dropping the guard
/// writes the lines that are still queued.
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
    let libraries = LevelFilter::from_level(level).min(LevelFilter::WARN);
    let filter = Targets::new().with_default(libraries).with_target("cognito_authz", level);
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    guard
}
