//! Parts of a request that a decision may depend on.

mod accept;

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

    /// `true` for a navigation: a request with which a browser opens a page, so that it follows a redirect and shows the
    /// page there.
    ///
    /// The method is `GET` or `HEAD`, and there is exactly one `Sec-Fetch-Mode: navigate` (Fetch Metadata Request Headers
    /// section 2.2). Browsers that do not send that header state in `Accept` that they prefer HTML. Upgrades are no
    /// navigations, and neither is a request that a browser sends before the user asks for the page (`Sec-Purpose`).
    pub(crate) fn is_navigation(&self) -> bool {
        let has = |name| self.header_values(name).next().is_some();
        if !matches!(self.method, b"GET" | b"HEAD") || has("upgrade") || has("sec-purpose") {
            return false;
        }
        let mut modes = self.header_values("sec-fetch-mode");
        match (modes.next(), modes.next()) {
            (None, _) => accept::prefers_html(self.header_values("accept")),
            (Some(mode), None) => mode == b"navigate",
            (Some(_), Some(_)) => false,
        }
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

    const CHROME: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
                          application/signed-exchange;v=b3;q=0.7";
    const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    const FIREFOX_OF_2024: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/png,\
                                   image/svg+xml,*/*;q=0.8";
    const IMAGE: &str = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";
    const JQUERY: &str = "application/json, text/javascript, */*; q=0.01";

    #[test]
    fn a_navigation_is_told_from_other_requests() {
        let navigate = ("sec-fetch-mode", "navigate");
        for (what, method, headers, expected) in [
            ("Chrome", "GET", &[navigate, ("sec-fetch-dest", "document"), ("accept", CHROME)][..], true),
            ("Firefox", "GET", &[navigate, ("sec-fetch-dest", "document"), ("accept", FIREFOX_OF_2024)], true),
            ("Safari", "GET", &[navigate, ("sec-fetch-dest", "document"), ("accept", FIREFOX)], true),
            ("Chrome on plain http", "GET", &[("accept", CHROME), ("upgrade-insecure-requests", "1")], true),
            ("Firefox on plain http", "GET", &[("accept", FIREFOX)], true),
            ("Safari before 16.4", "GET", &[("Accept", FIREFOX)], true),
            ("Internet Explorer", "GET", &[("accept", "text/html, application/xhtml+xml, */*")], true),
            (
                "lynx",
                "GET",
                &[("accept", "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01")],
                true,
            ),
            ("a link check", "HEAD", &[navigate], true),
            ("a frame", "GET", &[navigate, ("sec-fetch-dest", "iframe"), ("accept", CHROME)], true),
            ("a link of another site", "GET", &[navigate, ("sec-fetch-site", "cross-site")], true),
            ("navigate, with any Accept", "GET", &[navigate, ("accept", "application/json")], true),
            ("a form", "POST", &[navigate, ("accept", CHROME)], false),
            ("another spelling of the method", "get", &[navigate], false),
            ("PUT", "PUT", &[navigate], false),
            ("OPTIONS", "OPTIONS", &[("accept", CHROME)], false),
            ("fetch", "GET", &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty"), ("accept", "*/*")], false),
            ("fetch that asks for HTML", "GET", &[("sec-fetch-mode", "cors"), ("accept", CHROME)], false),
            ("fetch on plain http", "GET", &[("accept", "*/*")], false),
            ("htmx", "GET", &[("hx-request", "true"), ("sec-fetch-mode", "cors"), ("accept", "*/*")], false),
            ("jQuery", "GET", &[("x-requested-with", "XMLHttpRequest"), ("accept", JQUERY)], false),
            ("axios", "GET", &[("accept", "application/json, text/plain, */*")], false),
            (
                "an image",
                "GET",
                &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image"), ("accept", IMAGE)],
                false,
            ),
            ("an image on plain http", "GET", &[("accept", IMAGE)], false),
            ("a script", "GET", &[("sec-fetch-mode", "no-cors"), ("accept", "*/*")], false),
            ("a style sheet", "GET", &[("accept", "text/css,*/*;q=0.1")], false),
            ("an event stream", "GET", &[("sec-fetch-mode", "cors"), ("accept", "text/event-stream")], false),
            ("same-origin", "GET", &[("sec-fetch-mode", "same-origin"), ("accept", CHROME)], false),
            ("a nested navigation", "GET", &[("sec-fetch-mode", "nested-navigate")], false),
            ("curl", "GET", &[("user-agent", "curl/8.5.0"), ("accept", "*/*")], false),
            ("no headers", "GET", &[], false),
            (
                "prefetch",
                "GET",
                &[("sec-fetch-mode", "no-cors"), ("sec-purpose", "prefetch"), ("accept", CHROME)],
                false,
            ),
            ("speculation", "GET", &[navigate, ("sec-purpose", "prefetch;prerender"), ("accept", CHROME)], false),
            ("prefetch on plain http", "GET", &[("sec-purpose", "prefetch"), ("accept", CHROME)], false),
            (
                "websocket",
                "GET",
                &[("sec-fetch-mode", "websocket"), ("upgrade", "websocket"), ("accept", "*/*")],
                false,
            ),
            ("upgrade", "GET", &[navigate, ("Upgrade", "websocket"), ("accept", CHROME)], false),
            ("upgrade to HTTP/2", "GET", &[("accept", CHROME), ("upgrade", "h2c")], false),
            ("twice", "GET", &[navigate, navigate], false),
            ("two modes", "GET", &[navigate, ("Sec-Fetch-Mode", "cors")], false),
            ("two modes in one line", "GET", &[("sec-fetch-mode", "navigate,cors"), ("accept", CHROME)], false),
            ("an empty mode", "GET", &[("sec-fetch-mode", ""), ("accept", CHROME)], false),
            ("another spelling of the mode", "GET", &[("sec-fetch-mode", "Navigate"), ("accept", CHROME)], false),
            ("two Accept", "GET", &[("accept", "application/json"), ("accept", CHROME)], false),
            ("two Accept, HTML first", "GET", &[("accept", CHROME), ("accept", "application/json")], true),
            ("a malformed Accept", "GET", &[("accept", "text/html;q=high")], false),
        ] {
            let header = |(name, value): &(&'static str, &'static str)| Header {
                name: name.as_bytes(),
                value: value.as_bytes(),
            };
            let headers = headers.iter().map(header).collect();
            let context = RequestContext { method: method.as_bytes(), headers, ..Default::default() };
            assert_eq!(context.is_navigation(), expected, "{what}");
        }
    }
}
