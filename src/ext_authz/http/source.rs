//! Reads the client's request from the request of a proxy.
//!
//! | endpoint | method | path and query | host | policy |
//! |---|---|---|---|---|
//! | `/ext-authz/<path>` | of the call | of the call, without the prefix | `Host` | – |
//! | `/auth-request` | `X-Original-Method` | `X-Original-URL` | in `X-Original-URL`, or `X-Forwarded-Host` | `?policy=` |
//! | `/forward-auth` | `X-Forwarded-Method` | `X-Forwarded-Uri` | `X-Forwarded-Host` | `?policy=` |
//!
//! A source that is missing, repeated or malformed makes the whole request unreadable. Its value can come from the
//! client in that case, or the client has made the proxy drop it.

use http::HeaderMap;
use http::header::HOST;
use http::request::Parts;

use super::{ENVOY_PREFIX, Endpoint};
use crate::authz::request::{Body, is_host_byte, is_token};
use crate::authz::{Header, RequestContext};

/// Name of a policy that no policy file can have, so the check is denied with `unknown_policy`.
const NO_POLICY: &[u8] = b"";

/// Reads the client's request. `None` if a source is missing, repeated or malformed.
pub(super) fn read(endpoint: Endpoint, head: &Parts) -> Option<RequestContext<'_>> {
    let target = head.uri.path_and_query()?.as_str();
    let one = |name: &str| one(&head.headers, name);
    let (method, host, path) = match endpoint {
        Endpoint::Envoy => {
            (head.method.as_str().as_bytes(), one(HOST.as_str())?, target.strip_prefix(ENVOY_PREFIX)?.as_bytes())
        }
        Endpoint::Nginx => {
            let url = one("x-original-url")?;
            let (host, path) =
                if url.first() == Some(&b'/') { (one("x-forwarded-host")?, url) } else { split_url(url)? };
            (one("x-original-method")?, plain_host(host)?, path)
        }
        Endpoint::Forward => {
            let path = one("x-forwarded-uri").filter(|path| path.first() == Some(&b'/'))?;
            (one("x-forwarded-method")?, plain_host(one("x-forwarded-host")?)?, path)
        }
    };
    let policy = match endpoint {
        Endpoint::Envoy => None,
        Endpoint::Nginx | Endpoint::Forward => policy(head.uri.query(), path),
    };
    let headers = head.headers.iter().map(|(name, value)| (name, value.as_bytes()));
    // In the other forms `Host` names this service, not the host that the client asked for.
    let headers = headers.filter(|(name, _)| endpoint == Endpoint::Envoy || **name != HOST);
    let headers = headers.map(|(name, value)| Header { name: name.as_str().as_bytes(), value }).collect();
    // The proxies do not send the body, except Envoy if it is told to.
    is_token(method).then_some(RequestContext { policy, method, path, host, headers, body: Body::Absent })
}

/// Returns the value of a header that occurs exactly once and is not empty.
fn one<'r>(headers: &'r HeaderMap, name: &str) -> Option<&'r [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    (values.next().is_none() && !value.is_empty()).then_some(value)
}

/// Splits an absolute URL into its host and its path with the query. `None` unless the path begins with `/`: readers
/// disagree about the path of `http://host?a` and `http://host#/a`.
fn split_url(url: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = url.strip_prefix(b"http://").or_else(|| url.strip_prefix(b"https://"))?;
    rest.split_at_checked(rest.iter().position(|byte| *byte == b'/')?)
}

/// Returns a host that can be read in one way only. User information (`user@host`), a list of two hosts, and anything
/// that could begin a path are rejected.
fn plain_host(host: &[u8]) -> Option<&[u8]> {
    (!host.is_empty() && host.iter().copied().all(is_host_byte)).then_some(host)
}

/// Returns the policy that the query of the endpoint names. `target` is the path and query of the client's request.
///
/// Some proxies append the client's query to the address that they ask, unless that has a query of its own (Caddy's
/// `forward_auth` with `uri /forward-auth`). A client could then choose its policy. So a query that is not exactly one
/// `policy=NAME` names no policy, and neither does one that equals the query of the client.
fn policy<'r>(query: Option<&'r str>, target: &[u8]) -> Option<&'r [u8]> {
    let query = query.filter(|query| !query.is_empty())?;
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let of_client = parts.nth(1);
    let name = query.strip_prefix("policy=").filter(|_| of_client != Some(query.as_bytes()));
    Some(name.map_or(NO_POLICY, str::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    /// Method, host, path and policy of a request, joined by spaces.
    fn reading(method: &str, target: &str, headers: &[(&str, &str)]) -> Option<String> {
        let request = headers.iter().fold(Request::builder().method(method).uri(target), |request, (name, value)| {
            request.header(*name, *value)
        });
        let (head, ()) = request.body(()).unwrap().into_parts();
        let endpoint = Endpoint::of(head.uri.path()).unwrap();
        let context = read(endpoint, &head)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let policy = context.policy.map_or("-".to_owned(), |policy| format!("[{}]", text(policy)));
        Some(format!("{} {} {} {policy}", text(context.method), text(context.host), text(context.path)))
    }

    const NGINX: [(&str, &str); 3] =
        [("x-original-method", "PUT"), ("x-original-url", "/a?b=c"), ("x-forwarded-host", "api.test:8443")];
    const FORWARD: [(&str, &str); 3] =
        [("x-forwarded-method", "PUT"), ("x-forwarded-uri", "/a?b=c"), ("x-forwarded-host", "api.test:8443")];

    #[test]
    fn each_endpoint_reads_its_own_source() {
        let foreign = [("host", "authz:9192"), ("x-forwarded-uri", "/evil"), ("x-forwarded-method", "EVIL")];
        let nginx = [&foreign[..], &NGINX].concat();
        assert_eq!(reading("GET", "/auth-request", &nginx).unwrap(), "PUT api.test:8443 /a?b=c -");
        let foreign = [("host", "authz:9192"), ("x-original-url", "/evil"), ("x-original-method", "EVIL")];
        let forward = [&foreign[..], &FORWARD].concat();
        assert_eq!(reading("GET", "/forward-auth", &forward).unwrap(), "PUT api.test:8443 /a?b=c -");
        let envoy = [&foreign[1..], &FORWARD, &[("host", "api.test")]].concat();
        assert_eq!(reading("PUT", "/ext-authz/a?b=c", &envoy).unwrap(), "PUT api.test /a?b=c -");
        assert_eq!(
            reading("PUT", "/ext-authz/auth-request?policy=open", &envoy).unwrap(),
            "PUT api.test /auth-request?policy=open -"
        );
    }

    #[test]
    fn a_missing_repeated_or_empty_source_is_unreadable() {
        for (target, sources) in [("/auth-request", NGINX), ("/forward-auth", FORWARD)] {
            for (left_out, (name, value)) in sources.into_iter().enumerate() {
                let mut others = sources.to_vec();
                others.remove(left_out);
                assert_eq!(reading("GET", target, &others), None, "{target} without {name}");
                let twice = [&sources[..], &[(name, value)]].concat();
                assert_eq!(reading("GET", target, &twice), None, "{target} with {name} twice");
                others.push((name, ""));
                assert_eq!(reading("GET", target, &others), None, "{target} with an empty {name}");
                // Another spelling is another header.
                others.pop();
                let spelling = name.replace('-', "_");
                others.push((&spelling, value));
                assert_eq!(reading("GET", target, &others), None, "{target} with {spelling}");
            }
        }
        assert_eq!(reading("GET", "/ext-authz/a", &[]), None);
        assert_eq!(reading("GET", "/ext-authz/a", &[("host", "a"), ("host", "a")]), None);
    }

    #[test]
    fn an_absolute_url_is_split_in_one_way_only() {
        for (url, expected) in [
            ("https://api.test/a?b=http://c/d", Some("PUT api.test /a?b=http://c/d -")),
            ("http://api.test:8080//evil.test/a", Some("PUT api.test:8080 //evil.test/a -")),
            ("http://[::1]:80/", Some("PUT [::1]:80 / -")),
            ("/http://evil.test/a", Some("PUT host.test /http://evil.test/a -")),
            ("//evil.test/a", Some("PUT host.test //evil.test/a -")),
            ("http://api.test", None),
            ("http://api.test?/a", None),
            ("http://api.test#/a", None),
            ("http:///a", None),
            ("http:/a", None),
            ("HTTP://api.test/a", None),
            ("ftp://api.test/a", None),
            ("http://user@api.test/a", None),
            ("http://api.test\\@evil.test/a", None),
            ("http://api.test, http://evil.test/a", None),
            ("http://api.test%2fevil/a", None),
            ("api.test/a", None),
            ("?a", None),
            ("*", None),
        ] {
            let sources = [NGINX[0], ("x-original-url", url), ("x-forwarded-host", "host.test")];
            assert_eq!(reading("GET", "/auth-request", &sources).as_deref(), expected, "{url}");
        }
        // The host of an absolute URL counts, whether or not the client sends the other header.
        let sources = [NGINX[0], ("x-original-url", "http://api.test/a")];
        assert_eq!(reading("GET", "/auth-request", &sources).unwrap(), "PUT api.test /a -");
    }

    #[test]
    fn malformed_sources_are_unreadable() {
        for host in ["a.test, b.test", "a.test,b.test", "a.test/x", "u@a.test", "a.test?", "a.test\tb", "a%2etest"] {
            let nginx = [NGINX[0], NGINX[1], ("x-forwarded-host", host)];
            let forward = [FORWARD[0], FORWARD[1], ("x-forwarded-host", host)];
            assert_eq!(reading("GET", "/auth-request", &nginx), None, "{host}");
            assert_eq!(reading("GET", "/forward-auth", &forward), None, "{host}");
        }
        for uri in ["http://a.test/x", "x", "*", "?x", "\\x"] {
            let forward = [FORWARD[0], ("x-forwarded-uri", uri), FORWARD[2]];
            assert_eq!(reading("GET", "/forward-auth", &forward), None, "{uri}");
        }
        for method in ["GET, POST", "GET POST", "G\u{c9}T", "(GET)"] {
            let forward = [("x-forwarded-method", method), FORWARD[1], FORWARD[2]];
            assert_eq!(reading("GET", "/forward-auth", &forward), None, "{method}");
        }
    }

    #[test]
    fn only_the_query_of_the_proxy_names_the_policy() {
        for (query, uri, expected) in [
            ("", "/a", "-"),
            ("?", "/a?policy=open", "-"),
            ("?policy=admin", "/a", "[admin]"),
            ("?policy=admin", "/a?policy=open", "[admin]"),
            ("?policy=", "/a", "[]"),
            // A query that a proxy has copied from the client.
            ("?policy=open", "/a?policy=open", "[]"),
            ("?policy=open", "/a?b?policy=open", "[open]"),
            ("?x=1", "/a?x=1", "[]"),
            // A query that a proxy has joined with that of the client. These names do not exist.
            ("?policy=admin&policy=open", "/a?policy=open", "[admin&policy=open]"),
            ("?policy=open&policy=admin", "/a?policy=open", "[open&policy=admin]"),
            ("?x=1&policy=open", "/a", "[]"),
            ("?Policy=open", "/a", "[]"),
            ("?policy%3Dopen", "/a", "[]"),
        ] {
            let forward = [FORWARD[0], ("x-forwarded-uri", uri), FORWARD[2]];
            let found = reading("GET", &format!("/forward-auth{query}"), &forward).unwrap();
            assert_eq!(found.split(' ').next_back(), Some(expected), "{query} {uri}");
        }
    }

    #[test]
    fn the_host_of_this_service_is_no_header_of_the_client() {
        let (head, ()) =
            Request::get("/auth-request").header("host", "authz").header("accept", "x").body(()).unwrap().into_parts();
        assert!(read(Endpoint::Nginx, &head).is_none());
        let sources = [&NGINX[..], &[("host", "authz"), ("accept", "x")]].concat();
        let request =
            sources.iter().fold(Request::get("/auth-request"), |request, (name, value)| request.header(*name, *value));
        let (head, ()) = request.body(()).unwrap().into_parts();
        let context = read(Endpoint::Nginx, &head).unwrap();
        assert_eq!(context.header_values("host").count(), 0);
        assert_eq!(context.header_values("accept").collect::<Vec<_>>(), [b"x"]);
    }
}
