//! Tests of the log as a whole: what is written, in which order, and what is said about the rest.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;
use tracing::Dispatch;
use tracing::dispatcher::set_default;

use super::*;

/// Time limit for lines that should come almost at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Standard output that can be stopped.
struct Out {
    lines: Sender<Value>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn close(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.changed.notify_all();
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let closed = self.gate.is_closed.lock().unwrap();
        drop(self.gate.changed.wait_while(closed, |is_closed| *is_closed).unwrap());
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            drop(self.lines.send(serde_json::from_slice(line).expect("each write has whole lines")));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Log of a test.
struct Stage {
    handle: Handle,
    writer: Option<Writer>,
    dispatch: Dispatch,
    lines: Receiver<Value>,
    gate: Arc<Gate>,
}

impl Stage {
    fn new(level: LogLevel, lines_per_second: u32) -> Self {
        let settings = Settings { format: None, level, lines_per_second, allowed_ratio: 1.0 };
        let (handle, queued) = Handle::new(&settings);
        let layer = fmt::layer().json().with_writer(Lines(handle.clone()));
        let subscriber = tracing_subscriber::registry().with(layer).with(Judge(handle.clone()));
        let dispatch = Dispatch::new(subscriber);
        let ((sender, lines), gate) = (channel(), Arc::<Gate>::default());
        let out = Out { lines: sender, gate: Arc::clone(&gate) };
        let of_thread = dispatch.clone();
        let writer = Writer::start(handle.clone(), queued, out, move || set_default(&of_thread)).unwrap();
        Self { handle, writer: Some(writer), dispatch, lines, gate }
    }

    /// Waits for a line with this message. Returns it, and the lines before it.
    fn wait_for(&self, message: &str) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {message} after {before:#?}"));
            if line["fields"]["message"] == message {
                return (line, before);
            }
            before.push(line);
        }
    }

    /// Ends the log, and returns the lines that were not read.
    fn end(mut self) -> Vec<Value> {
        drop(self.writer.take());
        let next = || match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the thread of the log does not end"),
        };
        std::iter::from_fn(next).collect()
    }
}

fn count(lines: &[Value], message: &str) -> usize {
    lines.iter().filter(|line| line["fields"]["message"] == message).count()
}

/// Sum of a field of the lines about what was left out.
fn sum(lines: &[Value], field: &str) -> u64 {
    let told = lines.iter().filter(|line| line["fields"]["message"] == "log lines were left out");
    told.filter_map(|line| line["fields"][field].as_u64()).sum()
}

#[test]
fn a_flood_is_cut_and_hides_nothing_else() {
    let stage = Stage::new(LogLevel::Info, 10);
    let _log = set_default(&stage.dispatch);
    let (mut read, rounds) = (0, 5_000);
    let mut read_field = || {
        read += 1;
        read
    };
    for number in 0..rounds {
        tracing::info!(target: "cognito_authz::check", field = read_field(), "check");
        tracing::debug!(target: "cognito_authz::check", "allowed");
        if number % 1000 == 0 {
            tracing::warn!(target: "cognito_authz::check", "failed");
            tracing::info!(target: "cognito_authz::reload", "reloaded");
        }
    }
    assert!(!tracing::enabled!(target: "cognito_authz::check", tracing::Level::DEBUG));
    let (told, mut lines) = stage.wait_for("log lines were left out");
    assert_eq!(told["level"], "INFO", "the level of what is missing: {told}");
    let dropped = stage.handle.dropped();
    lines.push(told);
    lines.extend(stage.end());
    let written = count(&lines, "check") as u64;
    assert!((10..=100).contains(&written), "{written}");
    assert_eq!(written, read, "only the fields of lines that are written are read");
    assert_eq!((sum(&lines, "check"), sum(&lines, "info")), (rounds - written, rounds - written));
    assert_eq!((sum(&lines, "rate"), dropped), (rounds - written, Dropped { rate: rounds - written, queue: 0 }));
    assert_eq!((count(&lines, "failed"), count(&lines, "reloaded"), count(&lines, "allowed")), (5, 5, 0));
}

#[test]
fn lines_of_clients_leave_room_in_the_queue_and_every_lost_line_is_told() {
    let stage = Stage::new(LogLevel::Info, u32::MAX);
    let _log = set_default(&stage.dispatch);
    stage.gate.close(true);
    let (checks, others) = (2 * queue::LENGTH as u64, queue::LENGTH as u64);
    for _ in 0..checks {
        tracing::info!(target: "cognito_authz::check", "check");
    }
    for _ in 0..others {
        tracing::info!(target: "cognito_authz::reload", "reloaded");
    }
    stage.gate.close(false);
    let (told, mut lines) = stage.wait_for("log lines were left out");
    assert_eq!(told["level"], "WARN", "{told}");
    lines.push(told);
    lines.extend(stage.end());
    let (written, of_others) = (count(&lines, "check") as u64, count(&lines, "reloaded") as u64);
    // A line or some may have been taken from the queue before the output stopped.
    let room = (queue::CROWDED as u64)..(queue::CROWDED as u64 + 2000);
    assert!(room.contains(&written), "{written}");
    assert!(of_others >= (queue::LENGTH - queue::CROWDED) as u64, "{of_others}");
    assert_eq!(sum(&lines, "check"), checks - written);
    assert_eq!(sum(&lines, "queue"), checks - written + others - of_others);
    assert_eq!(sum(&lines, "rate"), 0);
}

#[test]
fn a_level_lasts_for_a_while_and_libraries_stay_at_warn() {
    let stage = Stage::new(LogLevel::Error, 100);
    let _log = set_default(&stage.dispatch);
    let all = || {
        for name in ["error", "warn", "info", "debug", "trace"] {
            match name {
                "error" => tracing::error!(target: "cognito_authz::app", "ours"),
                "warn" => tracing::warn!(target: "cognito_authz::app", "ours"),
                "info" => tracing::info!(target: "cognito_authz::app", "ours"),
                "debug" => tracing::debug!(target: "cognito_authz::app", "ours"),
                _ => tracing::trace!(target: "cognito_authz::app", "ours"),
            }
        }
        tracing::warn!(target: "h2", "theirs");
        tracing::info!(target: "cognito_authz_of_another", "theirs");
        tracing::info!(target: "h2", "theirs");
    };
    let by = By { name: "admin-token", credential: "token", peer: "192.0.2.1".parse().ok() };
    all();
    let levels = stage.handle.set_level(Some((LogLevel::Trace, LONGEST_TIME)), by);
    assert_eq!((levels.level, levels.configured), (LogLevel::Trace, LogLevel::Error));
    assert!(levels.until.is_some());
    all();
    let (told, before) = stage.wait_for("the log level was changed by an operator");
    assert_eq!((count(&before, "ours"), count(&before, "theirs")), (1, 0));
    let fields = &told["fields"];
    assert_eq!([&fields["event"], &fields["level"], &fields["before"]], ["log_level", "trace", "error"]);
    assert_eq!([&fields["by"], &fields["credential"], &fields["peer"]], ["admin-token", "token", "192.0.2.1"]);
    // The same level again, for a moment.
    stage.handle.set_level(Some((LogLevel::Trace, Duration::ZERO)), by);
    let (_, before) = stage.wait_for("the log level was changed by an operator");
    assert_eq!((count(&before, "ours"), count(&before, "theirs")), (5, 1));
    let (told, _) = stage.wait_for("the log level is the configured one again");
    assert_eq!([&told["level"], &told["fields"]["before"]], ["INFO", "trace"], "it is visible");
    assert_eq!(stage.handle.levels(), Levels { level: LogLevel::Error, configured: LogLevel::Error, until: None });
    all();
    // Between the two least verbose levels, the line about the change is visible, too.
    stage.handle.set_level(Some((LogLevel::Warn, LONGEST_TIME)), by);
    stage.handle.set_level(None, by);
    let (told, before) = stage.wait_for("the log level was changed by an operator");
    assert_eq!((told["level"].as_str(), count(&before, "ours")), (Some("WARN"), 1));
    assert_eq!(stage.wait_for("the log level was changed by an operator").0["level"], "WARN");
}

#[test]
fn queued_lines_are_written_at_the_end() {
    let stage = Stage::new(LogLevel::Info, 1);
    let _log = set_default(&stage.dispatch);
    for _ in 0..1000 {
        tracing::info!(target: "cognito_authz::app", "ours");
        tracing::info!(target: "cognito_authz::check", "check");
    }
    let lines = stage.end();
    assert_eq!(count(&lines, "ours"), 1000);
    assert_eq!(sum(&lines, "check") + count(&lines, "check") as u64, 1000, "the last second is told, too");
}
