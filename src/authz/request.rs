//! Parts of a request that a decision may depend on.

use std::fmt;
use std::net::Ipv6Addr;

/// Request, borrowed from the message that contained it. All fields except `policy` are under the caller's control.
#[derive(Default)]
pub struct RequestContext<'r> {
    /// Name of a policy, set by Envoy's route (context extension `policy`).
    pub(crate) policy: Option<&'r [u8]>,
    /// HTTP method, case-sensitive.
    pub(crate) method: &'r [u8],
    /// Path and query, as Envoy uses them for routing.
    pub(crate) path: &'r [u8],
    /// Value of `:authority` or `Host`.
    pub(crate) host: &'r [u8],
    /// Headers, in any order. Names can be in upper or lower case.
    pub(crate) headers: Vec<Header<'r>>,
    /// Body. Only policies with `json_rpc` read it.
    pub(crate) body: Body<'r>,
}

/// Body of a request, if the check carries it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Body<'r> {
    /// The request has no body, or the proxy does not send it.
    #[default]
    Absent,
    /// Bytes of the body, or of its first part.
    Bytes(&'r [u8]),
    /// The proxy sends the body as text, in which it has replaced bytes that are not UTF-8.
    AsText,
}

/// Header of a request. The value is bytes, because HTTP allows values that are not text (RFC 9110 section 5.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header<'r> {
    /// Field name, in any case.
    pub(crate) name: &'r [u8],
    /// Field value, not decoded.
    pub(crate) value: &'r [u8],
}

impl fmt::Debug for Header<'_> {
    /// Omits the value, which can be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("name", &String::from_utf8_lossy(self.name)).finish_non_exhaustive()
    }
}

impl<'r> RequestContext<'r> {
    /// Values of all headers called `name`, compared without regard to case.
    pub(crate) fn header_values(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|header| header.value)
    }

    /// `true` if the host can be read in one way only: a DNS name or an address, with or without a port.
    ///
    /// Envoy joins two `Host` lines with a comma, and an application may take either for the host. An IPv6 address has
    /// many spellings, and a route names one of them (RFC 5952).
    pub(crate) fn has_plain_host(&self) -> bool {
        let address = self.host.strip_prefix(b"[").and_then(|rest| rest.split(|byte| *byte == b']').next());
        let is_canonical = |address: &[u8]| {
            let text = std::str::from_utf8(address).unwrap_or_default();
            text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_string().eq_ignore_ascii_case(text))
        };
        let mut named = [":authority", "host"].into_iter().flat_map(|name| self.header_values(name));
        self.host.iter().copied().all(is_host_byte)
            && address.is_none_or(is_canonical)
            && named.all(|named| named.eq_ignore_ascii_case(self.host))
    }

    /// `true` for a CORS preflight request, which a browser sends before a request to another origin (Fetch standard
    /// section 4.8): `OPTIONS` with one `Origin`, one `Access-Control-Request-Method` and no credentials. Browsers
    /// never send credentials with a preflight.
    pub(crate) fn is_cors_preflight(&self) -> bool {
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

/// `true` for the bytes of a DNS name or an address, with or without a port.
pub(crate) fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)
}

/// `true` if `text` is a `token` (RFC 9110 section 5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
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
    fn only_well_formed_preflights_are_recognized() {
        let origin = ("origin", "https://app.example");
        let requested = ("access-control-request-method", "DELETE");
        for (method, headers, expected) in [
            ("OPTIONS", &[origin, requested][..], true),
            ("OPTIONS", &[("Origin", "null"), requested, ("access-control-request-headers", "authorization")], true),
            ("OPTIONS", &[origin], false),
            ("OPTIONS", &[requested], false),
            ("OPTIONS", &[origin, origin, requested], false),
            ("OPTIONS", &[origin, requested, requested], false),
            ("OPTIONS", &[("origin", ""), requested], false),
            ("OPTIONS", &[origin, ("access-control-request-method", "")], false),
            ("OPTIONS", &[origin, ("access-control-request-method", "A B")], false),
            ("OPTIONS", &[origin, requested, ("authorization", "Bearer x")], false),
            ("OPTIONS", &[origin, requested, ("cookie", "a=b")], false),
            ("options", &[origin, requested], false),
            ("GET", &[origin, requested], false),
            ("DELETE", &[origin, requested], false),
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
