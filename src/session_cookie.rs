//! Browser sessions in cookies: what they are called, how a token is written into them and read back, how they are cut
//! out of a request, and which requests may use them at all.
//!
//! The account API sets these cookies, the check reads them: both by these functions, so that what one writes the other
//! understands. Nothing here knows accounts, tokens' contents or HTTP libraries; values come as the bytes that were
//! sent. Start with [`read`], [`cut`] and [`is_cross_site`].
//!
//! - The names begin with `__Host-`, so that a browser takes them only with `Secure`, `Path=/` and without `Domain`: no
//!   other host of the same site can set or shadow them (RFC 6265bis section 4.1.3).
//! - A cookie holds about 4 KiB (RFC 6265bis section 5.6: name and value together). A longer token is cut into pieces,
//!   `NAME`, `NAME.1`, `NAME.2`, ..., and the first one begins with how many there are (`3~`), so that what an earlier,
//!   longer token has left behind is never taken for a part of this one.
//! - A request that uses them has to come from a page of the same origin or of a listed one ([`is_cross_site`]), although
//!   `SameSite=Strict` keeps them away from other sites: sites are larger than origins.
//! - Where a request carries a Bearer token, that counts, and cookies are not looked at: a page of another site cannot
//!   send one unasked, and whoever writes it means it. The cookies are cut all the same.

mod provenance;

use std::borrow::Cow;
use std::iter;

use crate::field_value::trim;

pub use self::provenance::{Provenance, Sent, is_cross_site};

/// A token of this many bytes is written and read, one byte more is [`CookieError::TooLarge`]. (What a check takes.)
pub const MAX_TOKEN_BYTES: usize = 16_384;
/// Pieces that a token is written in, at most: as many as the longest one needs.
pub const MAX_PIECES: usize = 5;
/// Bytes of a token in one cookie. With the name and the count it stays below the 4,096 that browsers allow.
const PIECE_BYTES: usize = 3_800;
/// Between the number of pieces and the first one. It is in no JWT, and may stand in a cookie.
const COUNT_MARK: u8 = b'~';

/// A cookie of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionCookie {
    /// The access token.
    Access,
    /// The refresh token.
    Refresh,
    /// Which browser began a sign-in at the hosted pages.
    Browser,
}

impl SessionCookie {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Access, Self::Refresh, Self::Browser];

    /// The name; further pieces have `.1`, `.2`, ... behind it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "__Host-access_token",
            Self::Refresh => "__Host-refresh_token",
            Self::Browser => "__Host-oauth_browser",
        }
    }
}

/// Why there is no token in the cookies, or none can be put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// A name was sent twice. Browsers do not do that with `__Host-` names; which of them counts nobody can say.
    #[error("a session cookie was sent twice")]
    Repeated,
    /// A piece is missing, or a character is in it that is in no token.
    #[error("a session cookie is damaged")]
    Malformed,
    /// More than [`MAX_TOKEN_BYTES`].
    #[error("a token is too large")]
    TooLarge,
}

/// The token in `cookie`, if there is one. `headers` are the values of all `Cookie` headers of a request, as they were
/// sent. An empty cookie counts as none.
///
/// # Errors
/// [`CookieError`]; the request must not be taken for one without a cookie then.
pub fn read<'h>(
    cookie: SessionCookie,
    headers: impl Iterator<Item = &'h [u8]>,
) -> Result<Option<Cow<'h, str>>, CookieError> {
    let mut pieces: [Option<&[u8]>; MAX_PIECES] = [None; MAX_PIECES];
    for (name, value) in headers.flat_map(pairs) {
        let place = match exact(name) {
            Some((of, place)) if of == cookie => place,
            // A name that a laxer reader would take for ours.
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
    // What is in tokens is ASCII.
    let text = match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
    };
    text.map(Some).ok_or(CookieError::Malformed)
}

/// Whether a cookie of ours is in one of these `Cookie` headers, in whatever spelling and state.
pub fn is_any_in<'h>(mut headers: impl Iterator<Item = &'h [u8]>) -> bool {
    headers.any(|header| header.split(|byte| b";,".contains(byte)).any(is_our_pair))
}

/// The value of one `Cookie` header without our cookies, in any spelling and state; `None` if there are none in it. An
/// empty rest means that the header has to go as a whole. What is not ours stays byte for byte, in its order.
///
/// Whoever has several `Cookie` headers and joins them with commas (Envoy does for a check, unless it sends raw headers) still
/// gets rid of ours.
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

/// `Set-Cookie` values that put `token` into `cookie`. It goes after `max_age` seconds, or with the browser if that is
/// not set. Pieces of an earlier token that this one does not overwrite are taken away, as far as they are in the
/// `Cookie` headers of the request, `sent`.
///
/// # Errors
/// [`CookieError`] `Malformed` for a text that is no token, and `TooLarge`.
pub fn set<'h>(
    cookie: SessionCookie,
    token: &str,
    max_age: Option<u64>,
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
    // One that looks as if it had a count gets a count.
    let is_whole = pieces.len() == 1 && bytes.get(1) != Some(&COUNT_MARK);
    let mark = if is_whole { String::new() } else { format!("{}{}", pieces.len(), char::from(COUNT_MARK)) };
    let age = max_age.map_or_else(String::new, |seconds| format!("; Max-Age={seconds}"));
    let written = pieces.iter().zip(names(cookie)).enumerate().map(|(place, (piece, name))| {
        let mark = if place == 0 { &*mark } else { "" };
        format!("{name}={mark}{}; Path=/{age}; {ATTRIBUTES}", String::from_utf8_lossy(piece))
    });
    let left: Vec<&[u8]> = names_in(cookie, sent);
    let gone = names(cookie).skip(pieces.len()).filter(|name| left.contains(&name.as_bytes())).map(|name| gone(&name));
    Ok(written.chain(gone).collect())
}

/// `Set-Cookie` values that take `cookie` away, with those of its pieces that are in the `Cookie` headers `sent`.
pub fn clear<'h>(cookie: SessionCookie, sent: impl Iterator<Item = &'h [u8]>) -> Vec<String> {
    let left = names_in(cookie, sent);
    let is_there = |name: &String| name == cookie.name() || left.contains(&name.as_bytes());
    names(cookie).filter(is_there).map(|name| gone(&name)).collect()
}

const ATTRIBUTES: &str = "HttpOnly; Secure; SameSite=Strict";

fn gone(name: &str) -> String {
    format!("{name}=; Path=/; Max-Age=0; {ATTRIBUTES}")
}

/// The names of a cookie's pieces.
fn names(cookie: SessionCookie) -> impl Iterator<Item = String> {
    let more = (1..MAX_PIECES).map(move |place| format!("{}.{place}", cookie.name()));
    iter::once(cookie.name().to_owned()).chain(more)
}

fn names_in<'h>(cookie: SessionCookie, headers: impl Iterator<Item = &'h [u8]>) -> Vec<&'h [u8]> {
    let names = headers.flat_map(pairs).map(|(name, _)| name);
    names.filter(|name| name.starts_with(cookie.name().as_bytes())).take(MAX_PIECES * 2).collect()
}

/// The pairs of a `Cookie` header (RFC 6265 section 5.4): name and value, without the spaces and tabs around them.
fn pairs(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|byte| *byte == b';').flat_map(lines).map(|pair| {
        let value = pair.iter().position(|byte| *byte == b'=').and_then(|at| pair.get(at + 1..)).unwrap_or_default();
        (name_of(pair), trim(value))
    })
}

/// Takes apart what stands between two semicolons: the end of one `Cookie` header and the beginning of the next, if
/// somebody has joined them with a comma.
///
/// That is certain only after a cookie of ours, because no token has a comma. In any other cookie a comma may be part of the
/// value, and every host of the site can set such a cookie: what looks like ours behind it must not count.
fn lines(part: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(part);
    iter::from_fn(move || {
        let part = rest.take()?;
        let comma = part.iter().position(|byte| *byte == b',').filter(|_| exact(name_of(part)).is_some());
        let (pair, next) = comma.and_then(|comma| part.split_at_checked(comma)).unwrap_or((part, &[]));
        rest = next.get(1..);
        Some(pair)
    })
}

fn name_of(pair: &[u8]) -> &[u8] {
    trim(pair.split(|byte| *byte == b'=').next().unwrap_or_default())
}

/// The cookie that has this very name, and which piece of it. Other spellings are nothing of ours to read (and are cut all
/// the same).
fn exact(name: &[u8]) -> Option<(SessionCookie, usize)> {
    SessionCookie::ALL.into_iter().find_map(|cookie| match name.strip_prefix(cookie.name().as_bytes())? {
        [] => Some((cookie, 0)),
        [b'.', digit @ b'1'..=b'9'] => Some((cookie, usize::from(digit - b'0'))),
        _ => None,
    })
}

/// A name without what some reader may take for white space at its edges: spaces and every control character.
fn trim_loosely(mut name: &[u8]) -> &[u8] {
    while let [b'\0'..=b' ' | 0x7f, rest @ ..] | [rest @ .., b'\0'..=b' ' | 0x7f] = name {
        name = rest;
    }
    name
}

/// Whether a pair is one of ours, its name in any spelling, with whatever number: upstream has no business with it.
fn is_our_pair(pair: &[u8]) -> bool {
    let name = trim_loosely(name_of(pair));
    SessionCookie::ALL.iter().any(|cookie| match name.split_at_checked(cookie.name().len()) {
        Some((start, rest)) => {
            start.eq_ignore_ascii_case(cookie.name().as_bytes()) && matches!(rest.first(), None | Some(b'.'))
        }
        None => false,
    })
}

/// What is in JWTs, in JWEs, and in any Bearer token (RFC 6750 `b64token`). All of it may stand in a cookie.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests;
