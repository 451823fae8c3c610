//! Identity headers: their names, and the changes to the headers of a request that is forwarded.
//!
//! The upstream must be able to trust an identity header. A header that any policy can set is therefore owned for every
//! request: when a request is forwarded, also on a public route, the header is overwritten or removed. See
//! [`OwnedHeaders`].

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use super::request::{Header, is_token};
use super::token::claims::WantedIndex;
use crate::field_value::trim_text;
use crate::session_cookie;

/// Number of headers that every configuration owns.
pub(crate) const STANDARD: usize = 7;

/// Names of these headers without the prefix, in the order of [`HeaderIndex`].
const SUFFIXES: [&str; STANDARD] = ["sub", "username", "client-id", "token-use", "scope", "groups", "email"];

/// Prefix of the standard identity headers (`--header-prefix`): `[a-z][a-z0-9-]*-`, at most 64 characters. Must not overlap
/// with a prefix of Envoy's own headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPrefix(Box<str>);

impl FromStr for HeaderPrefix {
    type Err = HeaderPrefixError;

    fn from_str(text: &str) -> Result<Self, HeaderPrefixError> {
        let is_valid = text.ends_with('-')
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_valid || text.len() > 64 {
            return Err(HeaderPrefixError::Shape);
        }
        // Checked in both directions, because `x-` would own all of Envoy's headers.
        if ENVOYS.iter().any(|envoys| text.starts_with(envoys) || envoys.starts_with(text)) {
            return Err(HeaderPrefixError::Envoys);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for HeaderPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Error in a header prefix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderPrefixError {
    /// Not of the required form.
    #[error("not lower-case letters, digits and dashes that begin with a letter and end with a dash (at most 64)")]
    Shape,
    /// Overlaps with headers that Envoy sets.
    #[error("takes over headers of Envoy's (x-envoy-, x-forwarded-)")]
    Envoys,
}

/// Prefixes of headers that Envoy sets.
pub(crate) const ENVOYS: [&str; 2] = ["x-envoy-", "x-forwarded-"];

/// Headers that a policy must not set: they frame a message, carry a credential, or are set by another component.
pub(crate) const RESERVED: [&str; 24] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
];

/// Name of a header that the policy file sets: a token (RFC 9110 section 5.6.2) in lower case, without `_` and `.`, at most
/// 128 characters, and not reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(Box<str>);

/// Error in a header name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderNameError {
    /// Not of the required form.
    #[error("not a header name in lower-case letters, digits and dashes (at most 128)")]
    Shape,
    /// Reserved: one of [`RESERVED`], or with a prefix of Envoy's own headers.
    #[error("a header that is not ours to set")]
    Reserved,
}

impl FromStr for HeaderName {
    type Err = HeaderNameError;

    fn from_str(text: &str) -> Result<Self, HeaderNameError> {
        let plain = |b: u8| !b.is_ascii_uppercase() && b != b'_' && b != b'.';
        if text.len() > 128 || !is_token(text.as_bytes()) || !text.bytes().all(plain) {
            return Err(HeaderNameError::Shape);
        }
        if RESERVED.contains(&text) || ENVOYS.iter().any(|envoys| text.starts_with(envoys)) {
            return Err(HeaderNameError::Reserved);
        }
        Ok(Self(text.into()))
    }
}

impl HeaderName {
    /// Name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Index of a header in [`OwnedHeaders`].
pub(crate) type HeaderIndex = usize;

/// Header with the value of one claim.
#[derive(Clone, Debug)]
pub(crate) struct ClaimHeader {
    /// Claim to write.
    pub(crate) claim: WantedIndex,
    /// Encoding of a claim that is a list.
    pub(crate) list: ListEncoding,
}

/// Encoding of a list in headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListEncoding {
    /// One header, with members separated by commas.
    #[default]
    Comma,
    /// One header, as JSON.
    Json,
    /// One header for each member. Any recipient may join them with commas (RFC 9110 section 5.3).
    Repeated,
}

/// Headers that only this service may set, in this order: the standard ones, those with one claim each, the one with all
/// claims, and those of policies.
#[derive(Clone, Debug)]
pub struct OwnedHeaders {
    prefix: HeaderPrefix,
    names: Vec<Box<str>>,
    indexes: HashMap<Box<str>, HeaderIndex>,
    claims: Vec<ClaimHeader>,
    whole_claims: Option<HeaderIndex>,
    /// Normalized names (see [`normalized`]) of the headers that do not have the prefix.
    without_prefix: HashMap<Box<str>, HeaderIndex>,
    hides_sessions: bool,
}

/// Change to a header of a request that is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation<'m> {
    /// Sets a header (name, value); replaces all values from the client.
    Set(&'m str, &'m str),
    /// Adds a value to a header that was set (name, value).
    Append(&'m str, &'m str),
    /// Removes a header.
    Remove(&'m str),
}

impl OwnedHeaders {
    /// Creates the list with the standard headers only.
    pub(crate) fn new(prefix: HeaderPrefix) -> Self {
        let names: Vec<Box<str>> = SUFFIXES.iter().map(|suffix| format!("{prefix}{suffix}").into()).collect();
        Self {
            prefix,
            indexes: names.iter().cloned().zip(0..).collect(),
            names,
            claims: Vec::new(),
            whole_claims: None,
            without_prefix: HashMap::new(),
            hides_sessions: false,
        }
    }

    /// Removes session cookies from requests that are forwarded.
    pub(crate) fn hide_sessions(&mut self) {
        self.hides_sessions = true;
    }

    /// `true` if session cookies are removed.
    pub(crate) fn hides_sessions(&self) -> bool {
        self.hides_sessions
    }

    /// Adds a header for a claim. Must be called before [`add`](Self::add) and [`add_whole_claims`](Self::add_whole_claims).
    pub(crate) fn add_claim(&mut self, name: &HeaderName, header: ClaimHeader) {
        self.add(name);
        self.claims.push(header);
    }

    /// Adds a header for all claims. Must be called before [`add`](Self::add).
    pub(crate) fn add_whole_claims(&mut self, name: &HeaderName) {
        self.whole_claims = Some(self.add(name));
    }

    /// Adds a header, unless it is owned already, and returns its index.
    pub(crate) fn add(&mut self, name: &HeaderName) -> HeaderIndex {
        let name = name.as_str();
        if let Some(known) = self.position(name) {
            return known;
        }
        let index = self.names.len();
        self.names.push(name.into());
        self.indexes.insert(name.into(), index);
        if !self.has_prefix(name.as_bytes()) {
            self.without_prefix.insert(normalized(name.as_bytes()), index);
        }
        index
    }

    /// Returns the index of an owned header.
    pub(crate) fn position(&self, name: &str) -> Option<HeaderIndex> {
        self.indexes.get(name).copied()
    }

    /// Names of all owned headers, in the order of [`HeaderIndex`].
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Names of the standard headers.
    pub(crate) fn standard(&self) -> impl Iterator<Item = &str> {
        self.names().take(STANDARD)
    }

    /// Headers for one claim each, with their indexes.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (HeaderIndex, &ClaimHeader)> {
        (STANDARD..).zip(&self.claims)
    }

    /// Index of the header for all claims.
    pub(crate) fn whole_claims(&self) -> Option<HeaderIndex> {
        self.whole_claims
    }

    /// `true` if `name` is not owned, but the upstream could take it for an owned header: another spelling of one, or
    /// another name with the prefix.
    pub(crate) fn is_lookalike(&self, name: &[u8]) -> bool {
        let is_owned = || self.names.iter().any(|ours| ours.as_bytes().eq_ignore_ascii_case(name));
        if self.has_prefix(name) {
            return !is_owned();
        }
        !self.without_prefix.is_empty() && self.without_prefix.contains_key(&normalized(name)) && !is_owned()
    }

    /// `true` if [`mutate`](Self::mutate) may do more than usual because of a request header with this name.
    pub(super) fn may_change(&self, name: &[u8]) -> bool {
        self.is_lookalike(name) || (self.hides_sessions && name.eq_ignore_ascii_case(b"cookie"))
    }

    fn has_prefix(&self, name: &[u8]) -> bool {
        let prefix = self.prefix.0.as_bytes();
        name.len() >= prefix.len()
            && prefix.iter().zip(name).all(|(ours, theirs)| match theirs {
                b'_' | b'.' => *ours == b'-',
                other => *ours == other.to_ascii_lowercase(),
            })
    }

    /// Calls `out` with each change to the headers of a `request`:
    /// - Each owned header is set to its `values`, which are in the order of [`HeaderIndex`], or removed.
    /// - Lookalikes in the request are removed.
    /// - `Authorization` is removed if `removes_authorization` is set.
    /// - Session cookies are removed from `Cookie`, if [`hide_sessions`](Self::hide_sessions) was called.
    ///
    /// No name is both set and removed, because Envoy removes after it has set.
    pub(crate) fn mutate<'m>(
        &self,
        values: impl Iterator<Item = (HeaderIndex, &'m str)>,
        removes_authorization: bool,
        request: &[Header<'_>],
        out: &mut impl FnMut(Mutation<'_>),
    ) {
        let mut values = values.peekable();
        for (index, name) in self.names().enumerate() {
            let mut is_set = false;
            while let Some((_, value)) = values.next_if(|(of, _)| *of == index) {
                out(if is_set { Mutation::Append(name, value) } else { Mutation::Set(name, value) });
                is_set = true;
            }
            if !is_set {
                out(Mutation::Remove(name));
            }
        }
        if removes_authorization {
            out(Mutation::Remove("authorization"));
        }
        if self.hides_sessions {
            hide_session_cookies(request, out);
        }
        let mut removed = HashSet::new();
        for header in request.iter().filter(|header| self.is_lookalike(header.name)) {
            // Each name once; Envoy compares names without regard to case. Envoy has no names that are not text.
            if let Ok(name) = std::str::from_utf8(header.name)
                && removed.insert(name.to_ascii_lowercase())
            {
                out(Mutation::Remove(name));
            }
        }
    }
}

/// Removes session cookies from the `Cookie` headers, and the header if nothing is left.
fn hide_session_cookies(request: &[Header<'_>], out: &mut impl FnMut(Mutation<'_>)) {
    let cookies =
        || request.iter().filter(|header| header.name.eq_ignore_ascii_case(b"cookie")).map(|header| header.value);
    if !session_cookie::is_any_in(cookies()) {
        return;
    }
    let rest = cookies().map(|value| session_cookie::cut(value).map_or(Cow::Borrowed(value), Cow::Owned));
    let rest: Vec<_> = rest.filter(|rest| !rest.is_empty()).collect();
    let rest = rest.join(&b"; "[..]);
    // A value in an answer must be UTF-8: Envoy 1.40 reads `HeaderValue.value`, not `raw_value`, and cannot decode other
    // text. Cookies that are not UTF-8 are removed, so that the others can stay unchanged.
    let texts = rest.split(|byte| *byte == b';').filter_map(|pair| std::str::from_utf8(pair).ok());
    match trim_text(&texts.collect::<Vec<_>>().join(";")) {
        "" => out(Mutation::Remove("cookie")),
        rest => out(Mutation::Set("cookie", rest)),
    }
}

/// Normalizes a name as CGI-like applications do: `X_Auth.Sub` and `x-auth-sub` become the same.
pub(super) fn normalized(name: &[u8]) -> Box<str> {
    let letter = |byte: &u8| match byte {
        b'_' | b'.' => '-',
        other => char::from(other.to_ascii_lowercase()),
    };
    name.iter().map(letter).collect::<String>().into()
}

#[cfg(test)]
mod tests;
