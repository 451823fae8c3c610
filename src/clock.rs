//! The wall clock. Rooms that decide take the time as an argument; this is where their callers get it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix time in seconds, without leap seconds (`NumericDate`, RFC 7519 section 2).
pub type UnixTime = i64;

/// Returns the current time. A clock before 1970 counts as 1970.
pub fn unix_now() -> UnixTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UnixTime::try_from(now).unwrap_or(UnixTime::MAX)
}
