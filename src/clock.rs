//! The wall clock. Rooms that decide take the time as an argument; this is where their callers get it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in seconds, without leap seconds (`NumericDate`, RFC 7519 section 2).
pub type UnixTime = i64;

/// Returns the current time. A clock before 1970 counts as 1970.
pub fn unix_now() -> UnixTime {
    UnixTime::try_from(since_1970().as_secs()).unwrap_or(UnixTime::MAX)
}

/// Returns the current Unix time with fractions of a second.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
