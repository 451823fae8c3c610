//! The level in effect, which an operator can change for a while.
//!
//! Each change is one line, at the most verbose level that both the old and the new level have, and while the more
//! verbose one of them is in effect. So the line is always written.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;

use super::{Handle, LogLevel};
use crate::clock::{UnixTime, unix_now};

/// Time after which the configured level returns, if the operator does not say.
pub(crate) const DEFAULT_TIME: Duration = Duration::from_secs(10 * 60);
/// Shortest time after which it returns.
pub(crate) const SHORTEST_TIME: Duration = Duration::from_secs(1);
/// Longest time after which it returns. To change the level for longer, restart with another `--log-level`.
pub(crate) const LONGEST_TIME: Duration = Duration::from_secs(3600);

/// Level of the log.
#[derive(Debug)]
pub(super) struct Level {
    configured: LogLevel,
    /// A [`LogLevel`], as its number.
    current: AtomicU8,
    /// End of the current level; `None` if it is the configured one.
    until: Mutex<Option<Until>>,
}

/// End of a level.
#[derive(Clone, Copy, Debug)]
struct Until {
    instant: Instant,
    time: UnixTime,
}

/// The level in effect, and the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    /// Level in effect.
    pub(crate) level: LogLevel,
    /// Level of `--log-level`.
    pub(crate) configured: LogLevel,
    /// Unix time at which the configured level returns. `None` if it is in effect.
    pub(crate) until: Option<UnixTime>,
}

/// Operator who changes the level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By<'b> {
    /// Name, as in the lines about revocations.
    pub(crate) name: &'b str,
    /// Kind of the credential.
    pub(crate) credential: &'static str,
    /// Address.
    pub(crate) peer: Option<IpAddr>,
}

impl Level {
    pub(super) fn new(configured: LogLevel) -> Self {
        Self { configured, current: AtomicU8::new(configured as u8), until: Mutex::default() }
    }

    pub(super) fn current(&self) -> LogLevel {
        let current = self.current.load(Ordering::Relaxed);
        ALL.into_iter().find(|level| *level as u8 == current).unwrap_or(self.configured)
    }

    /// Puts a level in effect, and calls `announce` with the level of the line about it.
    fn change(&self, to: LogLevel, announce: impl Fn(LogLevel)) {
        let from = self.current();
        if to <= from {
            announce(from);
        }
        self.current.store(to as u8, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
        if to > from {
            announce(to);
        }
    }
}

const ALL: [LogLevel; 5] = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Logs an event at `info`, or at `warn` or `error` if `$level` has no such lines.
macro_rules! announce {
    ($level:expr, $($fields:tt)*) => {
        match $level {
            LogLevel::Error => tracing::error!($($fields)*),
            LogLevel::Warn => tracing::warn!($($fields)*),
            LogLevel::Info | LogLevel::Debug | LogLevel::Trace => tracing::info!($($fields)*),
        }
    };
}

impl Handle {
    /// Returns the level in effect.
    pub(crate) fn levels(&self) -> Levels {
        let level = &self.0.level;
        let until = level.until.lock().unwrap_or_else(PoisonError::into_inner);
        Levels { level: level.current(), configured: level.configured, until: until.map(|until| until.time) }
    }

    /// Puts a level in effect for this time, after which the configured one returns; `None` returns to it at once.
    pub(crate) fn set_level(&self, change: Option<(LogLevel, Duration)>, by: By<'_>) -> Levels {
        let level = &self.0.level;
        let (to, time) = change.unwrap_or((level.configured, Duration::ZERO));
        let mut until = level.until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (to != level.configured).then(|| Until {
            instant: Instant::now() + time,
            time: unix_now().saturating_add(UnixTime::try_from(time.as_secs()).unwrap_or(UnixTime::MAX)),
        });
        let time = until.map(|until| until.time);
        let before = level.current().as_str();
        let By { name, credential, peer } = by;
        let peer = peer.map(tracing::field::display);
        level.change(to, |line| {
            announce!(
                line,
                event = "log_level",
                level = to.as_str(),
                before,
                until = time,
                by = name,
                credential,
                peer,
                "the log level was changed by an operator"
            );
        });
        Levels { level: to, configured: level.configured, until: time }
    }

    /// Returns to the configured level if the time of another one is over.
    pub(super) fn return_in_time(&self) {
        let level = &self.0.level;
        let mut until = level.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.take_if(|until| until.instant <= Instant::now()).is_none() {
            return;
        }
        let (before, to) = (level.current().as_str(), level.configured);
        level.change(to, |line| {
            announce!(
                line,
                event = "log_level",
                level = to.as_str(),
                before,
                "the log level is the configured one again"
            );
        });
    }
}
