//! Where a request comes from, as browsers say it, and whether it may use cookies then. Start with [`is_cross_site`].

/// A header that a request has once, if it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent<'r> {
    /// It has none.
    Never,
    /// This value.
    Once(&'r [u8]),
    /// Several: nobody can say which counts.
    Repeated,
}

impl<'r> Sent<'r> {
    /// From the values that the request has.
    pub fn of(mut values: impl Iterator<Item = &'r [u8]>) -> Self {
        match (values.next(), values.next()) {
            (None, _) => Self::Never,
            (Some(value), None) => Self::Once(value),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }
}

/// What a request says about where it comes from. Browsers say it, and pages cannot make them say something else.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'r> {
    /// The method.
    pub method: &'r [u8],
    /// Whether it asks for another protocol (`Upgrade`): a WebSocket begins with a GET and is no safe one.
    pub is_upgrade: bool,
    /// `Host`, or `:authority`: as the browser sent it, not as a proxy has rewritten it.
    pub host: Sent<'r>,
    /// `Origin`.
    pub origin: Sent<'r>,
    /// `Sec-Fetch-Site`.
    pub fetch_site: Sent<'r>,
}

/// Whether a request that would use cookies has to be refused because it may be the doing of another site's page.
///
/// GET, HEAD and OPTIONS pass: they change nothing (RFC 9110 section 9.2.1), and pages of other origins do not get to read
/// the answer. TRACE does not, although it is safe by that section: its answer repeats the request, cookies included. Any
/// other needs an `Origin` that is the host's own or one of `listed`; without an `Origin`, a
/// `Sec-Fetch-Site` that is `same-origin` or `none` (the user's own doing). With neither it is refused: browsers send
/// one of them, and who is no browser has no use for cookies.
///
/// The host's own origin is `https` with this very host and port. Plain `http` is it on this machine only, because
/// anybody on the way can make a page of it elsewhere.
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

/// Whether an origin, as browsers write it, is that of this host.
fn is_of_host(origin: &[u8], host: Sent<'_>) -> bool {
    let Sent::Once(host) = host else { return false };
    let (origin, port) = match (origin.strip_prefix(b"https://"), origin.strip_prefix(b"http://")) {
        (Some(origin), _) => (origin, &b":443"[..]),
        (None, Some(origin)) if is_this_machine(origin) => (origin, &b":80"[..]),
        _ => return false,
    };
    // Browsers leave out the usual port in both; others may write it in `Host`.
    let host = host.strip_suffix(port).unwrap_or(host);
    !host.is_empty() && origin.eq_ignore_ascii_case(host)
}

/// Whether a host, with a port or without, is a name of the machine that asks.
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

    /// A POST to `host` with these.
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
    fn requests_of_other_sites_are_told_by_what_browsers_say() {
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
            // Anything else.
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
