//! What of a request a decision may depend on.

use std::fmt;
use std::net::Ipv6Addr;

/// A request, borrowed from the bytes that brought it. Nothing in it is believed; all of it is the caller's.
#[derive(Default)]
pub struct RequestContext<'r> {
    /// The policy that Envoy's route names (context extension `policy`).
    pub policy: Option<&'r [u8]>,
    /// The method.
    pub method: &'r [u8],
    /// The target: path and query, as Envoy routes on it.
    pub path: &'r [u8],
    /// `:authority`, or `Host`.
    pub host: &'r [u8],
    /// The request's headers, in no particular order and in any case.
    pub headers: Vec<Header<'r>>,
}

/// A header of a request. Values are bytes: HTTP does not promise text (RFC 9110 section 5.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'r> {
    /// The name.
    pub name: &'r [u8],
    /// The value.
    pub value: &'r [u8],
}

impl fmt::Debug for Header<'_> {
    /// Without the value: one of the headers holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("name", &String::from_utf8_lossy(self.name)).finish_non_exhaustive()
    }
}

impl<'r> RequestContext<'r> {
    /// The values of the headers called `name` in any case.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|header| header.value)
    }

    /// `true` if the host can be read in one way only: a DNS name or an address, with or without a port.
    ///
    /// Envoy joins two `Host` lines with a comma, and an application may take either for the host. An IPv6 address has
    /// many spellings, and a route names one of them (RFC 5952).
    pub fn has_plain_host(&self) -> bool {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
        let address = self.host.strip_prefix(b"[").and_then(|rest| rest.split(|byte| *byte == b']').next());
        let is_canonical = |address: &[u8]| {
            let text = std::str::from_utf8(address).unwrap_or_default();
            text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_string().eq_ignore_ascii_case(text))
        };
        let mut named = [":authority", "host"].into_iter().flat_map(|name| self.header_values(name));
        self.host.iter().all(is_plain)
            && address.is_none_or(is_canonical)
            && named.all(|named| named.eq_ignore_ascii_case(self.host))
    }

    /// Whether this is what a browser sends before a request to another origin (CORS preflight, Fetch standard section
    /// 4.8): `OPTIONS` with one `Origin` and one `Access-Control-Request-Method`, and without credentials, which a
    /// browser never sends with it.
    pub fn is_cors_preflight(&self) -> bool {
        let one = |name| {
            let mut values = self.header_values(name);
            values.next().filter(|value| !value.is_empty() && values.next().is_none())
        };
        let has = |name| self.header_values(name).next().is_some();
        self.method == b"OPTIONS"
            && one("origin").is_some()
            && one("access-control-request-method").is_some_and(is_token)
            && !has("authorization")
            && !has("cookie")
    }
}

/// `token` of RFC 9110 section 5.6.2.
pub fn is_token(text: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_told_from_two() {
        for (host, others, expected) in [
            ("a.example", &[][..], true),
            ("A.example:8443", &[":authority"], true),
            ("a.example.", &["Host"], true),
            ("", &[], true),
            ("10.0.0.1:80", &[], true),
            ("[::1]:80", &[], true),
            ("[2001:DB8::1]", &[], true),
            ("[0:0:0:0:0:0:0:1]", &[], false),
            ("[::0001]:80", &[], false),
            ("a.example,b.example", &[], false),
            ("a.example, a.example", &[], false),
            ("a.example b.example", &[], false),
            ("user@a.example", &[], false),
            ("a.example/b", &[], false),
            ("a.example\t", &[], false),
            ("b.example", &["host", "x-host"], true),
        ] {
            let mut headers: Vec<Header> =
                others.iter().map(|name| Header { name: name.as_bytes(), value: host.as_bytes() }).collect();
            let context = RequestContext { host: host.as_bytes(), headers: headers.clone(), ..Default::default() };
            assert_eq!(context.has_plain_host(), expected, "{host} {others:?}");
            headers.push(Header { name: b"host", value: b"other.example" });
            let two = RequestContext { host: host.as_bytes(), headers, ..Default::default() };
            assert!(!two.has_plain_host(), "{host} {others:?}");
        }
    }

    #[test]
    fn a_preflight_is_told_from_what_looks_like_one() {
        let origin = ("origin", "https://app.example");
        let asks = ("access-control-request-method", "DELETE");
        for (method, headers, expected) in [
            ("OPTIONS", &[origin, asks][..], true),
            ("OPTIONS", &[("Origin", "null"), asks, ("access-control-request-headers", "authorization")], true),
            ("OPTIONS", &[origin], false),
            ("OPTIONS", &[asks], false),
            ("OPTIONS", &[origin, origin, asks], false),
            ("OPTIONS", &[origin, asks, asks], false),
            ("OPTIONS", &[("origin", ""), asks], false),
            ("OPTIONS", &[origin, ("access-control-request-method", "")], false),
            ("OPTIONS", &[origin, ("access-control-request-method", "A B")], false),
            ("OPTIONS", &[origin, asks, ("authorization", "Bearer x")], false),
            ("OPTIONS", &[origin, asks, ("cookie", "a=b")], false),
            ("options", &[origin, asks], false),
            ("GET", &[origin, asks], false),
            ("DELETE", &[origin, asks], false),
        ] {
            let header = |(name, value): &(&'static str, &'static str)| Header {
                name: name.as_bytes(),
                value: value.as_bytes(),
            };
            let context = RequestContext {
                method: method.as_bytes(),
                headers: headers.iter().map(header).collect(),
                ..Default::default()
            };
            assert_eq!(context.is_cors_preflight(), expected, "{method} {headers:?}");
        }
    }
}
