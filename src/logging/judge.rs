//! Judges each line before its fields are gathered: by the level in effect, and by the caps of lines that clients cause.
//!
//! A line that clients cause has a kind, which follows from the module that writes it ([`Kind::of`]). Each kind has a
//! cap of its own at each level, so a flood of refusals hides no failure. Lines without a kind, such as those about
//! startup, reloads, keys and the store, have no cap. A line that is left out costs an atomic addition: no field of it
//! is read, and nothing is allocated.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::Handle;
use super::queue::Queue;

/// Prefix of the modules of this program.
const OURS: &str = "cognito_authz";

/// Kind of a line that a client can cause at any rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One check.
    Check,
    /// Requests to the account API, and the calls of Cognito that they cause.
    Account,
    /// Sign-outs and other revocations of users.
    Revocation,
    /// Connections that fail.
    Connection,
}

impl Kind {
    /// Returns the kind of the lines of a module; `None` if they have no cap.
    fn of(target: &str) -> Option<Self> {
        let module = target.strip_prefix(OURS)?.strip_prefix("::")?;
        match module.split_once("::").unwrap_or((module, "")) {
            ("check", _) => Some(Self::Check),
            // Lines that occur once, or at each change of a state.
            ("account", "context") | ("cognito", "circuit") => None,
            ("account", "sign_out") | ("revocation", "") => Some(Self::Revocation),
            ("account" | "cognito", _) => Some(Self::Account),
            ("ext_authz" | "net", _) => Some(Self::Connection),
            _ => None,
        }
    }
}

/// Layer that decides which lines are written. It judges for the whole subscriber.
#[derive(Debug)]
pub(super) struct Judge(pub(super) Handle);

impl Judge {
    fn has_level(&self, metadata: &Metadata<'_>) -> bool {
        let level = LevelFilter::from(self.0.0.level.current());
        let target = metadata.target();
        let is_ours = target.strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        *metadata.level() <= if is_ours { level } else { level.min(LevelFilter::WARN) }
    }

    /// Kind of a line. Questions whether a level is enabled (`tracing::enabled!`) are not lines.
    fn kind(metadata: &Metadata<'_>) -> Option<Kind> {
        Some(metadata).filter(|metadata| metadata.is_event()).and_then(|metadata| Kind::of(metadata.target()))
    }
}

impl<S: Subscriber> Layer<S> for Judge {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match (self.has_level(metadata), Self::kind(metadata)) {
            (false, _) => Interest::never(),
            (true, None) => Interest::always(),
            // Asks `enabled` each time.
            (true, Some(_)) => Interest::sometimes(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let log = &self.0.0;
        self.has_level(metadata)
            && Self::kind(metadata).is_none_or(|kind| log.caps.take(kind, *metadata.level(), &log.queue))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.0.level.current().into())
    }
}

/// Caps of the kinds, and the lines of the current second.
#[derive(Debug)]
pub(super) struct Caps {
    limit: u64,
    /// Share of the allowed checks that have a line.
    ratio: f64,
    check: Row,
    account: Row,
    revocation: Row,
    connection: Row,
    /// Allowed checks of this second that are not in the sample.
    sampled: AtomicU64,
    /// Lines above a cap since the start.
    above: AtomicU64,
    /// Lines that the queue had lost at the end of the previous second.
    lost_before: AtomicU64,
}

/// Lines of one kind, by level.
#[derive(Debug, Default)]
struct Row {
    error: Cell,
    warn: Cell,
    info: Cell,
    debug: Cell,
}

/// Lines of one kind and level in the current second.
#[derive(Debug, Default)]
struct Cell {
    /// Lines that were judged by the cap.
    seen: AtomicU64,
    /// Lines that the queue had no place for.
    crowded: AtomicU64,
}

impl Caps {
    pub(super) fn new(lines_per_second: u32, ratio: f64) -> Self {
        let [check, account, revocation, connection] = std::array::from_fn(|_| Row::default());
        let (sampled, above, lost_before) = Default::default();
        Self {
            limit: lines_per_second.into(),
            ratio,
            check,
            account,
            revocation,
            connection,
            sampled,
            above,
            lost_before,
        }
    }

    /// Number of lines above a cap since the start.
    pub(super) fn left_out(&self) -> u64 {
        self.above.load(Ordering::Relaxed)
    }

    /// Returns `true` if a line may be written, and counts it.
    fn take(&self, kind: Kind, level: Level, queue: &Queue) -> bool {
        // At this level only allowed checks are logged.
        if kind == Kind::Check && level == Level::DEBUG && self.ratio < 1.0 && fastrand::f64() >= self.ratio {
            self.sampled.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let row = match kind {
            Kind::Check => &self.check,
            Kind::Account => &self.account,
            Kind::Revocation => &self.revocation,
            Kind::Connection => &self.connection,
        };
        let cell = match level {
            Level::ERROR => &row.error,
            Level::WARN => &row.warn,
            Level::INFO => &row.info,
            _ => &row.debug,
        };
        if queue.is_crowded() {
            cell.crowded.fetch_add(1, Ordering::Relaxed);
            queue.lose(1);
            return false;
        }
        if cell.seen.fetch_add(1, Ordering::Relaxed) < self.limit {
            return true;
        }
        self.above.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Begins the next second. Returns the lines that the last one left out. Only the thread of the log calls this.
    pub(super) fn next_second(&self, queue: &Queue) -> LeftOut {
        let lost = queue.lost();
        let queue = lost - self.lost_before.swap(lost, Ordering::Relaxed);
        let sampled = self.sampled.swap(0, Ordering::Relaxed);
        let mut left = LeftOut { queue, sampled, ..LeftOut::default() };
        let mut of_row = |row: &Row| {
            let [error, warn, info, debug] = [&row.error, &row.warn, &row.info, &row.debug].map(|cell| {
                let above = cell.seen.swap(0, Ordering::Relaxed).saturating_sub(self.limit);
                left.rate += above;
                above + cell.crowded.swap(0, Ordering::Relaxed)
            });
            left.error += error;
            left.warn += warn;
            left.info += info;
            left.debug += debug;
            error + warn + info + debug
        };
        let of_kinds = [&self.check, &self.account, &self.revocation, &self.connection].map(&mut of_row);
        [left.check, left.account, left.revocation, left.connection] = of_kinds;
        left
    }
}

/// Lines that were left out in a second. The kinds, and the levels, each add up to the lines of clients.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Lines above a cap.
    rate: u64,
    /// Lines, also without a kind, that the queue had no place for, or that standard output did not take.
    queue: u64,
    /// Allowed checks that are not in the sample.
    sampled: u64,
    check: u64,
    account: u64,
    revocation: u64,
    connection: u64,
    error: u64,
    warn: u64,
    info: u64,
    debug: u64,
}

impl LeftOut {
    /// Logs one line if there is something to say. Its level is the one of the most severe line that was left out; a
    /// line without a kind counts as a warning.
    pub(super) fn log(&self) {
        let Self { rate, queue, sampled, check, account, revocation, connection, error, warn, info, debug: detail } =
            *self;
        let without_kind = (rate + queue).saturating_sub(error + warn + info + detail);
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    rate = some(rate),
                    queue = some(queue),
                    sampled = some(sampled),
                    check = some(check),
                    account = some(account),
                    revocation = some(revocation),
                    connection = some(connection),
                    error = some(error),
                    warn = some(warn),
                    info = some(info),
                    debug = some(detail),
                    "log lines were left out"
                )
            };
        }
        if error > 0 {
            event!(error);
        } else if warn + without_kind > 0 {
            event!(warn);
        } else if info > 0 {
            event!(info);
        } else if detail + sampled > 0 {
            event!(debug);
        }
    }
}

/// The count, unless it is zero.
fn some(count: u64) -> Option<u64> {
    Some(count).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_line_follows_from_its_module() {
        for (target, kind) in [
            ("cognito_authz::check", Some(Kind::Check)),
            ("cognito_authz::account::http", Some(Kind::Account)),
            ("cognito_authz::account::browser::sign_in", Some(Kind::Account)),
            ("cognito_authz::account::sign_out", Some(Kind::Revocation)),
            ("cognito_authz::account::context", None),
            ("cognito_authz::cognito", Some(Kind::Account)),
            ("cognito_authz::cognito::circuit", None),
            ("cognito_authz::revocation", Some(Kind::Revocation)),
            ("cognito_authz::revocation::store::follow", None),
            ("cognito_authz::ext_authz::workers", Some(Kind::Connection)),
            ("cognito_authz::net::tls", Some(Kind::Connection)),
            ("cognito_authz::jwks::store", None),
            ("cognito_authz::reload", None),
            ("cognito_authz::admin::revocations", None),
            ("cognito_authz", None),
            ("cognito_authz_check::check", None),
            ("h2::check", None),
        ] {
            assert_eq!(Kind::of(target), kind, "{target}");
        }
    }

    #[test]
    fn each_kind_and_level_has_a_cap_of_its_own() {
        let (caps, (queue, _lines)) = (Caps::new(2, 1.0), Queue::new());
        let taken = |kind, level| (0..5).filter(|_| caps.take(kind, level, &queue)).count();
        assert_eq!(taken(Kind::Check, Level::INFO), 2);
        assert_eq!((taken(Kind::Check, Level::WARN), taken(Kind::Account, Level::INFO)), (2, 2));
        let left = caps.next_second(&queue);
        let expected = LeftOut { rate: 9, check: 6, account: 3, warn: 3, info: 6, ..LeftOut::default() };
        assert_eq!(left, expected);
        assert_eq!((taken(Kind::Check, Level::INFO), caps.left_out()), (2, 12), "the next second");
        assert_eq!(caps.next_second(&queue).check, 3);
        assert_eq!(caps.next_second(&queue), LeftOut::default());
    }

    #[test]
    fn a_sample_of_the_allowed_checks_is_taken() {
        let queue = Queue::new().0;
        for (ratio, expected) in [(0.0, 0..=0), (0.25, 2_200..=2_800), (1.0, 10_000..=10_000)] {
            let caps = Caps::new(u32::MAX, ratio);
            let taken = (0..10_000).filter(|_| caps.take(Kind::Check, Level::DEBUG, &queue)).count();
            assert!(expected.contains(&taken), "{ratio}: {taken}");
            assert!(caps.take(Kind::Check, Level::INFO, &queue), "refusals are not sampled");
            assert_eq!(caps.next_second(&queue).sampled, 10_000 - taken as u64);
        }
    }
}
