//! Browser sessions in cookies: their names, writing and reading tokens, removing them from a request, and the requests
//! that may use them.
//!
//! The account API sets these cookies and the check reads them, both with these functions. Nothing here depends on
//! accounts, contents of tokens or HTTP libraries; values are the bytes that were sent. Start with [`read`], [`cut`]
//! and
//! [`is_cross_site`].
//!
//! - The names start with `__Host-`, so that browsers accept them only with `Secure`, `Path=/` and without `Domain`. No
//!   other host of the same site can set or shadow them (RFC 6265bis section 4.1.3).
//! - A cookie holds about 4 KiB (RFC 6265bis section 5.6: name and value together). A longer token is split into
//!   pieces, `NAME`, `NAME.1`, `NAME.2`, ... The first piece starts with the number of pieces (`3~`), so that pieces of
//!   an earlier, longer token are never read as part of this one.
//! - A request that uses them has to come from a page of the same origin or of a listed one ([`is_cross_site`]).
//!   [`SameSite`] is not enough, because a site can have several origins.
//! - A sign-in by redirect has cookies of its own, with a lifetime of minutes ([`ShortLived`]).
//! - In a request with a Bearer token, the cookies are not read, because the token takes precedence: a page of another
//!   site cannot make a browser send one. The cookies are removed all the same.

mod provenance;
mod short_lived;

use std::borrow::Cow;
use std::iter;

use crate::field_value::trim;

pub use self::provenance::{Provenance, Sent, is_cross_site};
pub use self::short_lived::ShortLived;

/// Largest token in bytes; it is the limit of a check, too. A larger token is [`CookieError::TooLarge`].
pub const MAX_TOKEN_BYTES: usize = 16_384;
/// Maximum number of pieces: as many as the largest token needs.
pub const MAX_PIECES: usize = 5;
/// Number of a token's bytes in one cookie. With name and count, the cookie stays below the 4,096 bytes that browsers
/// allow.
const PIECE_BYTES: usize = 3_800;
/// Separator between the number of pieces and the first piece. No JWT contains it, and cookies may.
const COUNT_MARK: u8 = b'~';

/// Cookie of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCookie {
    /// Access token.
    Access,
    /// Refresh token.
    Refresh,
    /// Identifier of the browser that started a sign-in at the hosted pages.
    Browser,
}

impl SessionCookie {
    /// All cookies.
    pub const ALL: [Self; 3] = [Self::Access, Self::Refresh, Self::Browser];

    /// Name of the cookie. Names of further pieces end in `.1`, `.2`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "__Host-access_token",
            Self::Refresh => "__Host-refresh_token",
            Self::Browser => "__Host-oauth_browser",
        }
    }
}

/// Requests from other sites that carry a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// None.
    Strict,
    /// Navigations with GET or HEAD: a link of another site, and a redirect that another site started.
    Lax,
}

/// Error of reading a token from cookies or writing it to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// A name was sent twice. Browsers do not do that with `__Host-` names, and no rule says which one counts.
    #[error("a session cookie was sent twice")]
    Repeated,
    /// A piece is missing, or contains a character that no token has.
    #[error("a session cookie is damaged")]
    Malformed,
    /// The token is larger than [`MAX_TOKEN_BYTES`].
    #[error("a token is too large")]
    TooLarge,
}

/// Reads the token in `cookie`, if there is one. `headers` are the values of all `Cookie` headers of a request. An
/// empty cookie counts as absent.
///
/// # Errors
/// [`CookieError`]. Such a request must not be treated like one without a cookie.
pub fn read<'h>(
    cookie: SessionCookie,
    headers: impl Iterator<Item = &'h [u8]>,
) -> Result<Option<Cow<'h, str>>, CookieError> {
    let mut pieces: [Option<&[u8]>; MAX_PIECES] = [None; MAX_PIECES];
    for (name, value) in headers.flat_map(pairs) {
        let place = match exact(name) {
            Some((of, place)) if of == cookie => place,
            // A more lenient parser would read this name as ours.
            None if exact(trim_loosely(name)).is_some_and(|(of, _)| of == cookie) => {
                return Err(CookieError::Malformed);
            }
            _ => continue,
        };
        let Some(piece) = pieces.get_mut(place) else { continue };
        if piece.replace(value).is_some() {
            return Err(CookieError::Repeated);
        }
    }
    let [first, more @ ..] = pieces;
    let Some(first) = first.filter(|value| !value.is_empty()) else { return Ok(None) };
    let bytes = match first {
        [count @ b'0'..=b'9', COUNT_MARK, rest @ ..] => {
            let count = usize::from(count - b'0');
            let more = count.checked_sub(1).and_then(|more_of_them| more.get(..more_of_them));
            let more = more.ok_or(CookieError::Malformed)?;
            let mut whole = rest.to_vec();
            for piece in more {
                whole.extend_from_slice(piece.ok_or(CookieError::Malformed)?);
            }
            Cow::Owned(whole)
        }
        whole => Cow::Borrowed(whole),
    };
    if bytes.len() > MAX_TOKEN_BYTES {
        return Err(CookieError::TooLarge);
    }
    if bytes.is_empty() || !bytes.iter().all(|byte| is_of_token(*byte)) {
        return Err(CookieError::Malformed);
    }
    // Tokens are ASCII.
    let text = match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
    };
    text.map(Some).ok_or(CookieError::Malformed)
}

/// `true` if one of these `Cookie` headers contains a cookie of this service, in any spelling and state.
pub fn is_any_in<'h>(mut headers: impl Iterator<Item = &'h [u8]>) -> bool {
    headers.any(|header| header.split(|byte| b";,".contains(byte)).any(is_our_pair))
}

/// Removes our cookies, in any spelling and state, from the value of one `Cookie` header. Returns `None` if it contains
/// none. If the result is empty, the whole header has to be removed. Other cookies keep their bytes and their order.
///
/// This also works for several headers that were joined with commas, as Envoy does for a check unless it sends raw
/// headers.
pub fn cut(header: &[u8]) -> Option<Vec<u8>> {
    if !is_any_in(iter::once(header)) {
        return None;
    }
    let kept = header.split(|byte| *byte == b';').map(|pair| {
        let parts = pair.split(|byte| *byte == b',').filter(|part| !is_our_pair(part));
        trim(&parts.collect::<Vec<_>>().join(&b","[..])).to_vec()
    });
    Some(kept.filter(|pair| !pair.is_empty()).collect::<Vec<_>>().join(&b"; "[..]))
}

/// Returns the `Set-Cookie` values that write `token` to `cookie`. It expires after `max_age` seconds; without
/// `max_age` the browser deletes it when it closes. Pieces of an earlier token that are in the request's `Cookie`
/// headers (`sent`) and that this token does not overwrite are deleted.
///
/// # Errors
/// [`CookieError::Malformed`] for a string that is not a token, and [`CookieError::TooLarge`].
pub fn set<'h>(
    cookie: SessionCookie,
    token: &str,
    max_age: Option<u64>,
    same_site: SameSite,
    sent: impl Iterator<Item = &'h [u8]>,
) -> Result<Vec<String>, CookieError> {
    let bytes = token.as_bytes();
    if bytes.len() > MAX_TOKEN_BYTES {
        return Err(CookieError::TooLarge);
    }
    if bytes.is_empty() || !bytes.iter().all(|byte| is_of_token(*byte)) {
        return Err(CookieError::Malformed);
    }
    let pieces: Vec<&[u8]> = bytes.chunks(PIECE_BYTES).collect();
    // A token whose start looks like a count needs one.
    let is_whole = pieces.len() == 1 && bytes.get(1) != Some(&COUNT_MARK);
    let mark = if is_whole { String::new() } else { format!("{}{}", pieces.len(), char::from(COUNT_MARK)) };
    let written = pieces.iter().zip(names(cookie)).enumerate().map(|(place, (piece, name))| {
        let mark = if place == 0 { &*mark } else { "" };
        cookie_line(&name, &format!("{mark}{}", String::from_utf8_lossy(piece)), max_age, same_site)
    });
    let left: Vec<&[u8]> = names_in(cookie, sent);
    let gone = names(cookie).skip(pieces.len()).filter(|name| left.contains(&name.as_bytes()));
    let gone = gone.map(|name| gone_line(&name, same_site));
    Ok(written.chain(gone).collect())
}

/// Returns the `Set-Cookie` values that delete `cookie` and those of its pieces that are in the request's `Cookie`
/// headers (`sent`).
pub fn clear<'h>(cookie: SessionCookie, same_site: SameSite, sent: impl Iterator<Item = &'h [u8]>) -> Vec<String> {
    let left = names_in(cookie, sent);
    let is_there = |name: &String| name == cookie.name() || left.contains(&name.as_bytes());
    names(cookie).filter(is_there).map(|name| gone_line(&name, same_site)).collect()
}

/// Returns the `Set-Cookie` value of one cookie.
fn cookie_line(name: &str, value: &str, max_age: Option<u64>, same_site: SameSite) -> String {
    let age = max_age.map_or_else(String::new, |seconds| format!("; Max-Age={seconds}"));
    let same_site = match same_site {
        SameSite::Strict => "Strict",
        SameSite::Lax => "Lax",
    };
    format!("{name}={value}; Path=/{age}; HttpOnly; Secure; SameSite={same_site}")
}

/// Returns the `Set-Cookie` value that deletes one cookie.
fn gone_line(name: &str, same_site: SameSite) -> String {
    cookie_line(name, "", Some(0), same_site)
}

/// Returns the names of a cookie's pieces.
fn names(cookie: SessionCookie) -> impl Iterator<Item = String> {
    let more = (1..MAX_PIECES).map(move |place| format!("{}.{place}", cookie.name()));
    iter::once(cookie.name().to_owned()).chain(more)
}

fn names_in<'h>(cookie: SessionCookie, headers: impl Iterator<Item = &'h [u8]>) -> Vec<&'h [u8]> {
    let names = headers.flat_map(pairs).map(|(name, _)| name);
    names.filter(|name| name.starts_with(cookie.name().as_bytes())).take(MAX_PIECES * 2).collect()
}

/// Splits a `Cookie` header into names and values (RFC 6265 section 5.4), without spaces and tabs around them.
fn pairs(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|byte| *byte == b';').flat_map(lines).map(|pair| {
        let value = pair.iter().position(|byte| *byte == b'=').and_then(|at| pair.get(at + 1..)).unwrap_or_default();
        (name_of(pair), trim(value))
    })
}

/// Splits the text between two semicolons at a comma, if two `Cookie` headers were joined there.
///
/// That is certain only after a cookie of ours, because no token contains a comma. In another cookie, the comma can be
/// part of the value, and every host of the site can set such a cookie. So text after it that looks like a cookie of
/// ours must not count.
fn lines(part: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(part);
    iter::from_fn(move || {
        let part = rest.take()?;
        let comma = part.iter().position(|byte| *byte == b',').filter(|_| is_exact(name_of(part)));
        let (pair, next) = comma.and_then(|comma| part.split_at_checked(comma)).unwrap_or((part, &[]));
        rest = next.get(1..);
        Some(pair)
    })
}

fn name_of(pair: &[u8]) -> &[u8] {
    trim(pair.split(|byte| *byte == b'=').next().unwrap_or_default())
}

/// Returns the cookie with exactly this name, and the index of the piece. Other spellings are removed but never read.
fn exact(name: &[u8]) -> Option<(SessionCookie, usize)> {
    SessionCookie::ALL.into_iter().find_map(|cookie| match name.strip_prefix(cookie.name().as_bytes())? {
        [] => Some((cookie, 0)),
        [b'.', digit @ b'1'..=b'9'] => Some((cookie, usize::from(digit - b'0'))),
        _ => None,
    })
}

/// `true` if a cookie of this service has exactly this name.
fn is_exact(name: &[u8]) -> bool {
    exact(name).is_some() || short_lived::exact(name).is_some()
}

/// Removes all characters at both ends of a name that some parser could treat as white space: spaces and control
/// characters.
fn trim_loosely(mut name: &[u8]) -> &[u8] {
    while let [b'\0'..=b' ' | 0x7f, rest @ ..] | [rest @ .., b'\0'..=b' ' | 0x7f] = name {
        name = rest;
    }
    name
}

/// `true` if a pair is one of ours, with any spelling of its name and any number. The upstream must not get it.
fn is_our_pair(pair: &[u8]) -> bool {
    let name = trim_loosely(name_of(pair));
    let ours = SessionCookie::ALL.into_iter().map(SessionCookie::name);
    let mut ours = ours.chain(ShortLived::ALL.into_iter().map(ShortLived::name));
    ours.any(|own| match name.split_at_checked(own.len()) {
        Some((start, rest)) => start.eq_ignore_ascii_case(own.as_bytes()) && matches!(rest.first(), None | Some(b'.')),
        None => false,
    })
}

/// `true` for characters of Bearer tokens (RFC 6750 `b64token`), which include those of JWTs and JWEs. Cookies may
/// contain all of them.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests;
