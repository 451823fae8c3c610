//! Origin of a request, as browsers report it, and the rule for using cookies. Start with [`is_cross_site`].

/// Header that a request should have at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent<'r> {
    /// Absent.
    Never,
    /// Present, with this value.
    Once(&'r [u8]),
    /// Present several times; no rule says which value counts.
    Repeated,
}

impl<'r> Sent<'r> {
    /// Classifies the header's values.
    pub fn of(mut values: impl Iterator<Item = &'r [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Never,
            (Some(value), None) => Self::Once(value),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }
}

/// Headers by which browsers report the origin of a request. Pages cannot forge them.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'r> {
    /// HTTP method.
    pub method: &'r [u8],
    /// `true` if the request has an `Upgrade` header. A WebSocket starts with a GET and is not safe.
    pub is_upgrade: bool,
    /// `Host` or `:authority`, as the browser sent it and before a proxy rewrites it.
    pub host: Sent<'r>,
    /// Value of `Origin`.
    pub origin: Sent<'r>,
    /// Value of `Sec-Fetch-Site`.
    pub fetch_site: Sent<'r>,
}

/// `true` if a page of another site may have caused the request, so that it must not use cookies.
///
/// GET, HEAD and OPTIONS may use cookies: they are safe (RFC 9110 section 9.2.1), and pages of other origins cannot
/// read the response. TRACE may not, although it is safe by that section, because its response repeats the request with
/// its cookies. Other methods need an `Origin` that is the host's own or one of `listed`. Without an `Origin`, they
/// need a `Sec-Fetch-Site` of `same-origin` or `none` (the user caused the request). With neither header they must not
/// use cookies: browsers send one of them, and other clients do not need cookies.
///
/// The host's own origin is `https` with the same host and port. Plain `http` is accepted for this machine only,
/// because elsewhere anyone on the network path can forge a page of it.
pub fn is_cross_site<'l>(request: &Provenance<'_>, listed: impl IntoIterator<Item = &'l [u8]>) -> bool {
    if !request.is_upgrade && [&b"GET"[..], b"HEAD", b"OPTIONS"].contains(&request.method) {
        return false;
    }
    match (request.origin, request.fetch_site) {
        (Sent::Once(origin), _) => {
            !listed.into_iter().any(|listed| listed == origin) && !is_of_host(origin, request.host)
        }
        (Sent::Never, Sent::Once(site)) => ![&b"same-origin"[..], b"none"].contains(&site),
        _ => true,
    }
}

/// `true` if an origin, in the form that browsers send, is the origin of this host.
fn is_of_host(origin: &[u8], host: Sent<'_>) -> bool {
    let Sent::Once(host) = host else { return false };
    let (origin, port) = match (origin.strip_prefix(b"https://"), origin.strip_prefix(b"http://")) {
        (Some(origin), _) => (origin, &b":443"[..]),
        (None, Some(origin)) if is_this_machine(origin) => (origin, &b":80"[..]),
        _ => return false,
    };
    // Browsers omit the default port in both; other clients may include it in `Host`.
    let host = host.strip_suffix(port).unwrap_or(host);
    !host.is_empty() && origin.eq_ignore_ascii_case(host)
}

/// `true` if a host, with or without a port, is a name of the client's own machine.
fn is_this_machine(authority: &[u8]) -> bool {
    let host = match authority.iter().rposition(|byte| *byte == b':') {
        Some(at) if !authority.ends_with(b"]") => authority.get(..at).unwrap_or_default(),
        _ => authority,
    };
    host == b"localhost" || host.ends_with(b".localhost") || host == b"127.0.0.1" || host == b"[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a POST to `host` with these headers.
    fn post<'r>(host: &'r str, origins: &'r [&'r str], sites: &'r [&'r str]) -> Provenance<'r> {
        let bytes = |text: &'r &'r str| text.as_bytes();
        Provenance {
            method: b"POST",
            is_upgrade: false,
            host: Sent::Once(host.as_bytes()),
            origin: Sent::of(origins.iter().map(bytes)),
            fetch_site: Sent::of(sites.iter().map(bytes)),
        }
    }

    #[test]
    fn requests_of_other_sites_are_recognized() {
        let listed = [&b"https://app.example.com"[..]];
        for (host, origins, sites, refused) in [
            ("api.example.com", &["https://api.example.com"][..], &[][..], false),
            ("api.example.com:443", &["https://api.example.com"], &[], false),
            ("API.example.com", &["https://api.example.com"], &["same-origin"], false),
            ("api.example.com:8443", &["https://api.example.com:8443"], &[], false),
            ("api.example.com", &["https://app.example.com"], &["same-site"], false),
            ("localhost:3000", &["http://localhost:3000"], &[], false),
            ("127.0.0.1:3000", &["http://127.0.0.1:3000"], &[], false),
            ("[::1]:3000", &["http://[::1]:3000"], &[], false),
            ("[::1]", &["http://[::1]"], &[], false),
            ("localhost:80", &["http://localhost"], &[], false),
            ("api.example.com", &[], &["same-origin"], false),
            ("api.example.com", &[], &["none"], false),
            // Rejected.
            ("api.example.com", &[], &[], true),
            ("api.example.com", &[], &["same-site"], true),
            ("api.example.com", &[], &["cross-site"], true),
            ("api.example.com", &[], &[""], true),
            ("api.example.com", &[], &["same-origin", "same-origin"], true),
            ("api.example.com", &["https://evil.example"], &["same-origin"], true),
            ("api.example.com", &["https://evil.example"], &[], true),
            ("api.example.com", &["http://api.example.com"], &[], true),
            ("api.example.com", &["https://api.example.com:8443"], &[], true),
            ("api.example.com:8443", &["https://api.example.com"], &[], true),
            ("api.example.com", &["https://api.example.com.evil.example"], &[], true),
            ("api.example.com", &["https://www.api.example.com"], &[], true),
            ("api.example.com", &["https://app.example.com/"], &[], true),
            ("api.example.com", &["null"], &["same-origin"], true),
            ("api.example.com", &[""], &["same-origin"], true),
            ("api.example.com", &["https://api.example.com", "https://api.example.com"], &["same-origin"], true),
            ("", &["https://"], &[], true),
            ("localhost.evil.example", &["http://localhost.evil.example"], &[], true),
            ("127.0.0.1.evil.example", &["http://127.0.0.1.evil.example"], &[], true),
        ] {
            assert_eq!(is_cross_site(&post(host, origins, sites), listed), refused, "{host} {origins:?} {sites:?}");
        }
        let nothing = post("api.example.com", &[], &[]);
        for method in ["GET", "HEAD", "OPTIONS"] {
            let safe = Provenance { method: method.as_bytes(), ..nothing };
            assert!(!is_cross_site(&safe, listed), "{method}");
            assert!(is_cross_site(&Provenance { is_upgrade: true, ..safe }, listed), "{method} for a WebSocket");
        }
        for method in ["PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "QUERY", "get", ""] {
            assert!(is_cross_site(&Provenance { method: method.as_bytes(), ..nothing }, listed), "{method}");
        }
        let own = post("api.example.com", &["https://api.example.com"], &[]);
        for host in [Sent::Never, Sent::Repeated] {
            assert!(is_cross_site(&Provenance { host, ..own }, listed), "{host:?}");
        }
    }
}
