//! Further places of a credential, which a policy opts in to (`from`): another header, an entry of
//! `Sec-WebSocket-Protocol`, and a query parameter. Start from [`Places::token`] and [`Places::hide`].
//!
//! Browsers cannot send `Authorization` with the request that opens a WebSocket (WHATWG, the interface `WebSocket`). Pages
//! therefore send the token as a subprotocol or in the query. Both are read only from requests that open a WebSocket, and
//! both are removed from every request that the policy lets pass.

use std::collections::HashSet;
use std::str::FromStr;

use super::bearer_token;
use crate::authz::denial::Denial;
use crate::authz::headers::{ENVOYS, Mutation, RESERVED, normalized};
use crate::authz::request::{RequestContext, is_token};
use crate::field_value::{has_controls, trim};

/// Header with the subprotocols of a WebSocket (RFC 6455 section 11.3.4).
pub(crate) const WEBSOCKET_PROTOCOL: &str = "sec-websocket-protocol";

/// Places of a credential in addition to `Authorization` and session cookies. By default there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Header whose value is a token, with or without the scheme `Bearer`.
    pub(crate) header: Option<CredentialHeader>,
    /// Subprotocol that marks a token: the entry `NAME.TOKEN`, or the entry after `NAME`.
    pub(crate) websocket_protocol: Option<Box<str>>,
    /// Query parameter whose value is a token.
    pub(crate) websocket_query: Option<Box<str>>,
}

/// Name of a header that may carry a credential, in lower case: a token (RFC 9110 section 5.6.2) without `_` and `.`, at
/// most 128 characters, and not one that has another meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialHeader(Box<str>);

impl FromStr for CredentialHeader {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        if name.len() > 128 || !is_token(text.as_bytes()) || name.contains(['_', '.']) {
            return Err("not a header name of letters, digits and dashes (at most 128)");
        }
        let has_meaning = RESERVED.contains(&&*name)
            || ENVOYS.iter().any(|envoys| name.starts_with(envoys))
            || name.starts_with(WEBSOCKET_PREFIX);
        if has_meaning { Err("a header that has another meaning") } else { Ok(Self(name.into())) }
    }
}

/// Prefix of the headers that open a WebSocket (RFC 6455 section 11.3).
pub(crate) const WEBSOCKET_PREFIX: &str = "sec-websocket-";

impl CredentialHeader {
    /// Name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Places {
    /// Returns the token in these places of a request, if there is one.
    ///
    /// # Errors
    /// - [`Denial::MultipleCredentials`] if there is more than one, the same one twice included.
    /// - [`Denial::MalformedToken`] for text that cannot be a token. [`Decoded::new`](crate::authz::token::Decoded::new)
    ///   checks the token itself.
    pub(super) fn token<'r>(&self, request: &RequestContext<'r>) -> Result<Option<&'r str>, Denial> {
        let opens_websocket = is_websocket(request);
        let header = self.header.as_ref().map(|name| in_header(name.as_str(), request));
        let protocol = self.websocket_protocol.as_deref().filter(|_| opens_websocket);
        let query = self.websocket_query.as_deref().filter(|_| opens_websocket);
        let mut tokens = header.into_iter().flatten();
        let protocols = protocol.into_iter().flat_map(|name| Entries::of(name, request)).filter_map(Entry::token);
        let parameters = query.into_iter().flat_map(|name| parameters(name, request.path)).map(|(_, value)| value);
        let mut tokens = tokens.by_ref().chain(protocols).chain(parameters);
        let Some(token) = tokens.next() else { return Ok(None) };
        if tokens.next().is_some() {
            return Err(Denial::MultipleCredentials);
        }
        if has_controls(token) {
            return Err(Denial::MalformedToken);
        }
        std::str::from_utf8(token).map(Some).map_err(|_| Denial::MalformedToken)
    }

    /// Calls `out` with the changes that hide these places from the upstream:
    /// - Entries of `Sec-WebSocket-Protocol` that carry a token are removed, and the header if nothing is left.
    /// - The header is removed if `removes_authorization` is set.
    /// - Other spellings of these headers (`_` or `.` for `-`) are removed. They are never read.
    pub(crate) fn hide(
        &self,
        removes_authorization: bool,
        request: &RequestContext<'_>,
        out: &mut impl FnMut(Mutation<'_>),
    ) {
        let header = self.header.as_ref().map(CredentialHeader::as_str);
        let protocols = self.websocket_protocol.as_deref().map(|name| (name, WEBSOCKET_PROTOCOL));
        if let Some(name) = header.filter(|_| removes_authorization) {
            out(Mutation::Remove(name));
        }
        if let Some((name, of)) = protocols
            && Entries::of(name, request).any(|entry| entry.token().is_some())
        {
            let kept = Entries::of(name, request).filter_map(|entry| match entry {
                Entry::Kept(text) => std::str::from_utf8(text).ok(),
                Entry::Token(_) => None,
            });
            match &*kept.collect::<Vec<_>>().join(", ") {
                "" => out(Mutation::Remove(of)),
                rest => out(Mutation::Set(of, rest)),
            }
        }
        let names: Vec<&str> = header.into_iter().chain(protocols.map(|(_, of)| of)).collect();
        if names.is_empty() {
            return;
        }
        let mut removed = HashSet::new();
        for other in &request.headers {
            let is_other =
                |name: &&str| !other.name.eq_ignore_ascii_case(name.as_bytes()) && *normalized(other.name) == **name;
            if names.iter().any(is_other)
                && let Ok(name) = std::str::from_utf8(other.name)
                && removed.insert(name.to_ascii_lowercase())
            {
                out(Mutation::Remove(name));
            }
        }
    }

    /// Names of the query parameters to remove from a request, as they are written in its path. The values can be tokens.
    pub(crate) fn query_parameters<'r>(&self, path: &'r [u8]) -> Vec<&'r str> {
        let parameters = self.websocket_query.iter().flat_map(|name| parameters(name, path));
        let mut names: Vec<&str> = parameters.filter_map(|(name, _)| std::str::from_utf8(name).ok()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `true` if a request opens a WebSocket (RFC 6455 section 4.1). Over HTTP/2 and HTTP/3, Envoy translates the extended
/// CONNECT of RFC 8441 into this form.
fn is_websocket(request: &RequestContext<'_>) -> bool {
    let mut upgrades = request.header_values("upgrade");
    let is_only = upgrades.next().is_some_and(|value| trim(value).eq_ignore_ascii_case(b"websocket"));
    request.method == b"GET" && is_only && upgrades.next().is_none()
}

/// Values of a header that are not empty, without the scheme `Bearer`. Envoy joins repeated headers with commas, which
/// no token contains.
fn in_header<'r>(name: &str, request: &RequestContext<'r>) -> impl Iterator<Item = &'r [u8]> {
    let values = request.header_values(name).flat_map(|value| value.split(|byte| *byte == b','));
    let values = values.map(trim).filter(|value| !value.is_empty());
    values.map(|value| std::str::from_utf8(value).ok().and_then(bearer_token).map_or(value, str::as_bytes))
}

/// Entry of `Sec-WebSocket-Protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry<'r> {
    /// Name of a subprotocol.
    Kept(&'r [u8]),
    /// Entry that carries this token.
    Token(&'r [u8]),
}

impl<'r> Entry<'r> {
    fn token(self) -> Option<&'r [u8]> {
        match self {
            Self::Kept(_) => None,
            Self::Token(token) => Some(token),
        }
    }
}

/// Iterator over the entries of `Sec-WebSocket-Protocol`, in order.
struct Entries<'n, I> {
    name: &'n [u8],
    texts: I,
    /// `true` if the last entry was the name alone.
    is_after_name: bool,
}

impl<'n, 'r> Entries<'n, std::iter::Empty<&'r [u8]>> {
    /// Reads the entries of a request. `name` marks those with a token. It is compared without regard to case, so that no
    /// spelling of it carries a token to the upstream.
    fn of(name: &'n str, request: &RequestContext<'r>) -> Entries<'n, impl Iterator<Item = &'r [u8]>> {
        let lines = request.header_values(WEBSOCKET_PROTOCOL).flat_map(|line| line.split(|byte| *byte == b','));
        let texts = lines.map(trim).filter(|text| !text.is_empty());
        Entries { name: name.as_bytes(), texts, is_after_name: false }
    }
}

impl<'r, I: Iterator<Item = &'r [u8]>> Iterator for Entries<'_, I> {
    type Item = Entry<'r>;

    fn next(&mut self) -> Option<Entry<'r>> {
        let text = self.texts.next()?;
        let is_after_name = std::mem::take(&mut self.is_after_name);
        let rest = text.split_at_checked(self.name.len()).filter(|(start, _)| start.eq_ignore_ascii_case(self.name));
        Some(match rest.map(|(_, rest)| rest) {
            Some([b'.', token @ ..]) => Entry::Token(token),
            Some([]) if !is_after_name => {
                self.is_after_name = true;
                Entry::Kept(text)
            }
            _ if is_after_name => Entry::Token(text),
            _ => Entry::Kept(text),
        })
    }
}

/// Query parameters called `name`: the name as it is written, and the value. An application decodes names, so that
/// `access%5Ftoken` is `access_token`; Envoy compares them as they are written.
fn parameters<'r>(name: &str, path: &'r [u8]) -> impl Iterator<Item = (&'r [u8], &'r [u8])> {
    let query = path.iter().position(|byte| *byte == b'?').and_then(|at| path.get(at + 1..)).unwrap_or_default();
    query.split(|byte| *byte == b'&').filter_map(move |pair| {
        let (written, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
            None => (pair, &[][..]),
        };
        is_called(written, name.as_bytes()).then_some((written, value))
    })
}

/// `true` if the decoded form of `written` is `name`, which consists of unreserved characters.
fn is_called(mut written: &[u8], name: &[u8]) -> bool {
    for expected in name {
        let (byte, rest) = match written {
            [b'%', high, low, rest @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                _ => return false,
            },
            [byte, rest @ ..] => (*byte, rest),
            [] => return false,
        };
        if byte != *expected {
            return false;
        }
        written = rest;
    }
    written.is_empty()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests;
