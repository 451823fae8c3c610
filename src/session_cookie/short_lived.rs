//! Cookies of a sign-in by redirect. They live for minutes, and a browser can have several of a kind at a time, one for
//! each tab or page: `NAME.ID`.

use super::{CookieError, SameSite, cookie_line, gone_line, is_of_token, pairs, trim_loosely};

/// Largest value in bytes. With name and id, the cookie stays below the 4,096 bytes that browsers allow.
const MAX_VALUE_BYTES: usize = 3_900;
/// Largest id in bytes.
const MAX_ID_BYTES: usize = 32;

/// Kind of a short-lived cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortLived {
    /// Sign-in that was started and is not completed yet.
    Attempt,
    /// Sign-ins for one page that were completed a moment ago.
    Rounds,
}

impl ShortLived {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Attempt, Self::Rounds];

    /// First part of the cookie's name; a dot and the id follow.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attempt => "__Host-sign_in",
            Self::Rounds => "__Host-sign_in_rounds",
        }
    }

    /// Returns id and value of all cookies of this kind in the `Cookie` headers of a request, in the order in which the
    /// browser sent them. Browsers send older cookies first (RFC 6265 section 5.4).
    pub fn all<'h>(self, headers: impl Iterator<Item = &'h [u8]>) -> impl Iterator<Item = (&'h str, &'h [u8])> {
        headers.flat_map(pairs).filter_map(move |(name, value)| Some((of_kind(self, name)?, value)))
    }

    /// Reads the value of one cookie, if there is one. An empty cookie counts as absent.
    ///
    /// # Errors
    /// [`CookieError`] if the cookie was sent twice, or has another spelling or a character that no value has.
    pub fn read<'h>(self, id: &str, headers: impl Iterator<Item = &'h [u8]>) -> Result<Option<&'h str>, CookieError> {
        let mut found = None;
        for (name, value) in headers.flat_map(pairs) {
            match of_kind(self, name) {
                Some(own) if own == id => {}
                // A more lenient parser would read this name as ours.
                None if of_kind(self, trim_loosely(name)) == Some(id) => return Err(CookieError::Malformed),
                _ => continue,
            }
            if found.replace(value).is_some() {
                return Err(CookieError::Repeated);
            }
        }
        let Some(value) = found.filter(|value| !value.is_empty()) else { return Ok(None) };
        if !is_value(value) {
            return Err(CookieError::Malformed);
        }
        // Values are ASCII.
        std::str::from_utf8(value).map(Some).map_err(|_| CookieError::Malformed)
    }

    /// Returns the `Set-Cookie` value that writes `value`. It expires after `max_age` seconds.
    ///
    /// # Errors
    /// [`CookieError::Malformed`] for an id or a value with other characters than a token has, and
    /// [`CookieError::TooLarge`].
    pub fn set(self, id: &str, value: &str, max_age: u64) -> Result<String, CookieError> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(CookieError::TooLarge);
        }
        if !is_id(id.as_bytes()) || value.is_empty() || !is_value(value.as_bytes()) {
            return Err(CookieError::Malformed);
        }
        Ok(cookie_line(&format!("{}.{id}", self.name()), value, Some(max_age), SameSite::Lax))
    }

    /// Returns the `Set-Cookie` value that deletes the cookie with this id.
    pub fn clear(self, id: &str) -> String {
        gone_line(&format!("{}.{id}", self.name()), SameSite::Lax)
    }
}

/// Returns the cookie with exactly this name, and its id.
pub(super) fn exact(name: &[u8]) -> Option<(ShortLived, &str)> {
    ShortLived::ALL.into_iter().find_map(|kind| Some((kind, of_kind(kind, name)?)))
}

fn of_kind(kind: ShortLived, name: &[u8]) -> Option<&str> {
    let id = name.strip_prefix(kind.name().as_bytes())?.strip_prefix(b".")?;
    std::str::from_utf8(id).ok().filter(|id| is_id(id.as_bytes()))
}

fn is_id(id: &[u8]) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
}

fn is_value(value: &[u8]) -> bool {
    value.len() <= MAX_VALUE_BYTES && value.iter().all(|byte| is_of_token(*byte))
}
