//! The wall clock, and texts of times. Rooms that decide take the time as an argument; this is where their callers get it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix time in seconds, without leap seconds (`NumericDate`, RFC 7519 section 2).
pub type UnixTime = i64;

/// Returns the current time. A clock before 1970 counts as 1970.
pub fn unix_now() -> UnixTime {
    seconds(SystemTime::now())
}

/// Returns the current Unix time with fractions of a second.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(time: SystemTime) -> UnixTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    UnixTime::try_from(since).unwrap_or(UnixTime::MAX)
}

/// Last second of the year 9999, the last one that RFC 3339 has a text for.
const LAST_SECOND: UnixTime = 253_402_300_799;

/// Reads a time from 1970 to 9999: RFC 3339, in UTC or with an offset. A fraction of a second is dropped.
pub(crate) fn parse_rfc3339(text: &str) -> Option<UnixTime> {
    // The letters may be lower-case (RFC 3339 section 5.6).
    let text = text.to_ascii_uppercase();
    let Some((local, sign, offset)) = split_offset(&text) else {
        return humantime::parse_rfc3339(&text).ok().map(seconds);
    };
    let (hours, minutes) = offset.split_once(':')?;
    let part = |digits: &str, max: UnixTime| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<UnixTime>().ok().filter(|number| is_number && *number <= max)
    };
    let ahead = part(hours, 23)? * 3600 + part(minutes, 59)? * 60;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok().map(seconds)?;
    Some(local - sign * ahead).filter(|time| (0..=LAST_SECOND).contains(time))
}

/// Splits a time with an offset into the local time, the sign of the offset, and its hours and minutes.
fn split_offset(text: &str) -> Option<(&str, UnixTime, &str)> {
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let ahead = offset.strip_prefix('+').map(|offset| (local, 1, offset));
    ahead.or_else(|| offset.strip_prefix('-').map(|offset| (local, -1, offset)))
}

/// Writes a time as RFC 3339, in UTC. Times that it has no text for are shown as the nearest that it has one for.
pub(crate) fn format_rfc3339(time: UnixTime) -> String {
    let seconds = u64::try_from(time.clamp(0, LAST_SECOND)).unwrap_or_default();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, time) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-03-01T12:00:00Z", 1_772_366_400),
            ("2026-03-01t12:00:00.999z", 1_772_366_400),
            ("2026-03-01T14:00:00+02:00", 1_772_366_400),
            ("2026-03-01T06:30:00.5-05:30", 1_772_366_400),
            ("9999-12-31T23:59:59Z", LAST_SECOND),
        ] {
            assert_eq!(parse_rfc3339(text), Some(time), "{text}");
            assert_eq!(parse_rfc3339(&format_rfc3339(time)), Some(time), "{text}");
        }
        for bad in [
            "",
            "Z",
            "2026-03-01",
            "2026-03-01T12:00:00",
            "2026-03-01 12:00:00Z",
            "2026-02-30T12:00:00Z",
            "2026-03-01T12:00:00+2:00",
            "2026-03-01T12:00:00+24:00",
            "2026-03-01T12:00:00+00:60",
            "2026-03-01T12:00:00+0é:0",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "1772366400",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
        assert_eq!([i64::MIN, i64::MAX].map(format_rfc3339), ["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]);
    }
}
