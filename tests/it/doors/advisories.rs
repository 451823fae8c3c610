//! What services and proxies of this kind got wrong before: each test is named after an advisory, an issue or a kind of
//! attack, and runs it through the real proxies.

use http::Response as HttpResponse;
use http_body_util::Full;
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Stage, good_token, identity};
use crate::support::PATIENCE;
use crate::support::http1::{Response, bearer, exchange_bytes, fetch, request};
use crate::support::proxies::{Kind, Proxy, Replica};
use crate::support::server::serve;
use crate::support::upstream::Upstream;

/// Proxies that the tests can run.
fn all() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.is_available())
}

/// Asserts that a request was refused by the proxy or the service.
#[track_caller]
fn assert_closed(response: &Response, what: &str) {
    assert!(matches!(response.status, 400 | 401 | 403 | 404 | 503), "{what}: {response:?}");
}

/// Headers by which a client could claim another path, method, host or policy.
const CLAIMS: [&str; 18] = [
    "X-Forwarded-Uri: /open",
    "x-forwarded-uri: /open\r\nX-Forwarded-URI: /open",
    "X-Forwarded-Uri: http://open.test/open",
    "X_Forwarded_Uri: /open",
    "X.Forwarded.Uri: /open",
    "X-Original-URL: /open",
    "X-Original-URL: http://open.test/open",
    "X-Original-URL: /open\r\nx-original-url: /open",
    "X_Original_URL: /open",
    "X-Original-URI: /open",
    "X-Rewrite-URL: /open",
    "X-Envoy-Original-Path: /open",
    "X-Forwarded-Method: OPTIONS\r\nX-Original-Method: OPTIONS",
    "X-Forwarded-Host: open.test",
    "X-Forwarded-Prefix: /open\r\nX-Replaced-Path: /open",
    "Forwarded: host=open.test",
    "X-Authz-Policy: open\r\npolicy: open",
    "X-Forwarded-For: 127.0.0.1\r\nX-Real-Ip: 127.0.0.1",
];

/// oauth2-proxy GHSA-7x63-xv5r-3p2x: a client's own `X-Forwarded-Uri` chose the path that was checked.
#[tokio::test]
async fn oauth2_proxy_ghsa_7x63_xv5r_3p2x_a_header_of_the_client_is_no_source() {
    for kind in all() {
        let stage = Stage::start(kind, |file| file).await;
        let proxy = &stage.proxy.address;
        let all = CLAIMS.join("\r\n");
        for claim in CLAIMS.into_iter().chain([&*all]) {
            for path in ["/admin", "/orders", "/hosted", "/admin?policy=open"] {
                assert_closed(&fetch(proxy, path, &[claim]).await, &format!("{kind:?} {path} {claim}"));
            }
            let with_token = fetch(proxy, "/admin", &[claim, &bearer(&good_token())]).await;
            assert_closed(&with_token, &format!("{kind:?} {claim} with a token"));
        }
        assert!(stage.upstream.seen().is_empty(), "{kind:?}: {:?}", stage.upstream.seen());
    }
}

/// Traefik CVE-2024-45410: `Connection` made the proxy drop the headers that it had set itself.
#[tokio::test]
async fn traefik_cve_2024_45410_connection_does_not_drop_a_source() {
    let sources = "X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-Host, X-Original-URL, X-Original-Method";
    for kind in all() {
        let stage = Stage::start(kind, |file| file).await;
        let good = bearer(&good_token());
        for connection in
            [format!("Connection: {sources}"), format!("Connection: keep-alive, {}", sources.to_lowercase())]
        {
            for claim in CLAIMS {
                let refused = fetch(&stage.proxy.address, "/admin", &[&*connection, claim]).await;
                assert_closed(&refused, &format!("{kind:?} {connection} {claim}"));
                let refused = fetch(&stage.proxy.address, "/admin", &[&*connection, claim, &good]).await;
                assert_closed(&refused, &format!("{kind:?} {connection} {claim} with a token"));
            }
        }
        assert!(stage.upstream.seen().is_empty(), "{kind:?}");
        // The credential that is checked is the one that the application gets, or none.
        for connection in ["Connection: authorization", "Connection: authorization, cookie, host"] {
            let response = fetch(&stage.proxy.address, "/", &[connection, &good]).await;
            assert!(response.status != 200 || identity(&response.seen()).contains(&("x-auth-token-use", "access")));
        }
    }
}

/// Caddy GHSA-7r4p-vjf4-gxv4: a client's header stayed if the answer did not have it. Answers have every owned header, so
/// also a proxy that only overwrites lets none through.
#[tokio::test]
async fn caddy_ghsa_7r4p_vjf4_gxv4_a_header_without_a_value_does_not_stay() {
    let unguarded = |file: String| {
        let lines: Vec<&str> = file.lines().filter(|line| !line.contains("request_header")).collect();
        assert!(lines.len() + 3 <= file.lines().count());
        lines.join("\n")
    };
    let stage = Stage::start(Kind::Caddy, unguarded).await;
    let forged = ["X-Auth-Email: root@example.test", "X-Auth-Groups: admins", "X-Auth-Sub: root"];
    let open = fetch(&stage.proxy.address, "/open", &forged).await.seen();
    assert_eq!(identity(&open), []);
    let seen = fetch(&stage.proxy.address, "/", &[&forged[..], &[&bearer(&good_token())]].concat()).await.seen();
    assert_eq!(identity(&seen), super::IDENTITY);
}

/// Caddy appends the query of the client to a `uri` without a query, so that a client could name its policy.
#[tokio::test]
async fn a_query_that_the_proxy_takes_from_the_client_names_no_policy() {
    for (kind, from, to) in [
        (Kind::Caddy, "uri /forward-auth?", "uri /forward-auth"),
        // In nginx the arguments of a subrequest are empty; this operator passes on those of the client.
        (Kind::Nginx, "cognito_authz/auth-request;", "cognito_authz/auth-request?$client_args;"),
    ]
    .into_iter()
    .filter(|(kind, ..)| kind.is_available())
    {
        let stage = Stage::start(kind, |file| {
            assert!(file.contains(from));
            let file = file.replace(from, to);
            file.replace("auth_request /_authz;", "set $client_args $args;\n        auth_request /_authz;")
        })
        .await;
        let good = bearer(&good_token());
        for (path, reason) in [
            ("/admin?policy=open", "unknown_policy"),
            ("/admin?policy=open&", "unknown_policy"),
            ("/orders?x=1", "unknown_policy"),
            ("/admin?policy=open&policy=open", "unknown_policy"),
            ("/admin", "insufficient_group"),
        ] {
            let refused = fetch(&stage.proxy.address, path, &[&good]).await;
            assert_eq!(refused.verdict(), (403, reason.into()), "{kind:?} {path}");
        }
        assert!(stage.upstream.seen().is_empty());
    }
}

/// A policy that the proxy names, as the READMEs show it.
#[tokio::test]
async fn a_proxy_names_the_policy_of_a_route() {
    for (kind, from, to) in [
        (Kind::Nginx, "cognito_authz/auth-request;", "cognito_authz/auth-request?policy=admin;"),
        (Kind::Traefik, "/forward-auth\n", "/forward-auth?policy=admin\n"),
        (Kind::Caddy, "uri /forward-auth?", "uri /forward-auth?policy=admin"),
    ]
    .into_iter()
    .filter(|(kind, ..)| kind.is_available())
    {
        let stage = Stage::start(kind, |file| {
            assert!(file.contains(from), "{from}");
            file.replace(from, to)
        })
        .await;
        let good = bearer(&good_token());
        for path in ["/open", "/open?policy=open", "/orders?policy=open&x=1"] {
            let refused = fetch(&stage.proxy.address, path, &[&good]).await;
            assert_eq!(refused.verdict(), (403, "insufficient_group".into()), "{kind:?} {path}");
        }
        let refused = fetch(&stage.proxy.address, "/open?policy=admin", &[&good]).await;
        assert_eq!(refused.verdict(), (403, "unknown_policy".into()), "{kind:?}: it could be the query of the client");
    }
}

/// `X-Original-URL` with an absolute URL: the host that is checked is the one that the application gets.
#[tokio::test]
async fn original_url_with_an_absolute_url() {
    let absolute = |file: String| {
        let from = "X-Original-URL $request_uri;";
        assert!(file.contains(from));
        file.replace(from, "X-Original-URL $scheme://$host$request_uri;")
    };
    let same: fn(String) -> String = |file| file;
    for (kind, change) in [
        (Kind::Nginx, &absolute as &dyn Fn(String) -> String),
        (Kind::Nginx, &same),
        (Kind::Traefik, &same),
        (Kind::Caddy, &same),
        (Kind::Envoy, &same),
    ]
    .into_iter()
    .filter(|(kind, _)| kind.is_available())
    {
        let stage = Stage::start(kind, change).await;
        let mut passed = 0;
        for (target, host) in [
            ("/hosted", "open.test"),
            ("/hosted", "OPEN.test:8080"),
            ("http://open.test/hosted", "api.test"),
            ("http://api.test/hosted", "open.test"),
            ("http://open.test@api.test/hosted", "api.test"),
            ("http://api.test/hosted", "open.test, api.test"),
            ("http://open.test/../hosted", "api.test"),
            ("//open.test/hosted", "api.test"),
            ("http://api.test?http://open.test/hosted", "api.test"),
            ("http://api.test", "open.test"),
            ("/hosted", "open.test/hosted?"),
            ("/hosted", "open.test@api.test"),
            ("/hosted", "open.test#.api.test"),
            ("/hosted", "api.test%2eopen.test"),
        ] {
            let sent = request("GET", target, &[format!("host: {host}"), "connection: close".into()]);
            let response = exchange_bytes(&stage.proxy.address, &sent).await;
            if response.status == 200 {
                let seen = response.seen();
                let host = seen.header("host")[0].to_ascii_lowercase();
                assert_eq!(host.split(':').next(), Some("open.test"), "{kind:?} {target} {host}");
                assert_eq!(seen.path, "/hosted", "{kind:?} {target} {host}");
                passed += 1;
            } else {
                let refused = matches!(response.status, 301 | 307 | 308 | 400 | 401 | 403 | 404 | 503);
                assert!(refused, "{kind:?} {target} {host}: {response:?}");
            }
        }
        assert!(passed >= 2, "{kind:?}: {passed}");
    }
}

#[tokio::test]
async fn two_of_a_header() {
    for kind in all() {
        let stage = Stage::start(kind, |file| file).await;
        let good = bearer(&good_token());
        for (path, lines) in [
            ("/hosted", &["host: open.test", "Host: api.test"][..]),
            ("/hosted", &["host: api.test", "Host: open.test"]),
            ("/hosted", &["host: open.test", "Host: open.test", "X-Forwarded-Host: open.test"]),
            ("/", &[&good, "authorization: Bearer x"]),
            ("/", &["authorization: Bearer x", &good]),
            ("/", &[&good, &good]),
        ] {
            let before = stage.upstream.seen().len();
            let sent = request("GET", path, &[lines, &["connection: close"]].concat());
            let response = exchange_bytes(&stage.proxy.address, &sent).await;
            let what =
                format!("{kind:?} {:?}", lines.iter().map(|line| &line[..line.len().min(40)]).collect::<Vec<_>>());
            assert_closed(&response, &what);
            assert_eq!(stage.upstream.seen().len(), before, "{what}");
        }
    }
}

/// Path that a lenient application reads: decoded twice, without parameters, with dots resolved.
fn leniently(path: &str) -> String {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut resolved: Vec<String> = Vec::new();
    for segment in decode(&decode(path)).split(['/', '\\']) {
        match segment.split([';', '\0']).next().unwrap() {
            "" | "." => {}
            ".." => drop(resolved.pop()),
            other => resolved.push(other.to_ascii_lowercase()),
        }
    }
    resolved.join("/")
}

#[tokio::test]
async fn a_path_that_proxy_and_application_read_differently() {
    for kind in all() {
        let stage = Stage::start(kind, |file| file).await;
        for path in [
            "/open/../admin",
            "/open/./../admin",
            "/open/%2e%2e/admin",
            "/open/.%2E/admin",
            "/open/..%2fadmin",
            "/open%2f..%2fadmin",
            "/open/..%5cadmin",
            "/open\\..\\admin",
            "/open/..;/admin",
            "/open;/../admin",
            "/open/%252e%252e/admin",
            "/open//../admin",
            "/open/..//admin",
            "//open/../admin",
            "/open%00/../admin",
            "/open/..%00/admin",
            "/open#/../admin",
            "/open%23/../admin",
            "/open%3f/../admin",
            "/open?/../../admin",
            "/open/%u002e%u002e/admin",
            "/open/%c0%ae%c0%ae/admin",
            "/open/\u{ff0e}\u{ff0e}/admin",
            "/%6fpen/../admin",
            "/admin",
            "/%61dmin",
            "//admin",
            "/./admin",
            "/x/../admin",
            "/admin;/open",
            "/admin/%2e%2e/open/../admin",
        ] {
            let sent = request("GET", path, &["connection: close"]);
            let response = exchange_bytes(&stage.proxy.address, &sent).await;
            if response.status == 200 {
                let seen = leniently(&response.seen().path);
                assert!(seen == "open" || seen.starts_with("open/"), "{kind:?}: {path} was served as {seen}");
            }
        }
        for seen in stage.upstream.seen() {
            let read = leniently(&seen.path);
            assert!(read == "open" || read.starts_with("open/"), "{kind:?}: {} was served", seen.path);
        }
        assert_eq!(fetch(&stage.proxy.address, "/open/page", &[""; 0]).await.status, 200);
    }
}

#[tokio::test]
async fn pipelining_and_early_eof() {
    for kind in all() {
        let stage = Stage::start(kind, |file| file).await;
        let good = bearer(&good_token());
        let allowed = request("GET", "/first", &[&good]);
        let refused = request("GET", "/second", &[""; 0]);
        let open = request("GET", "/open/third", &["x-auth-sub: root"]);
        let last = request("GET", "/admin", &["connection: close"]);
        let mut stream = TcpStream::connect(&stage.proxy.address).await.unwrap();
        stream.write_all(&[&allowed[..], &refused, &open, &last].concat()).await.unwrap();
        let mut received = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut received)).await.unwrap().unwrap();
        let received = String::from_utf8_lossy(&received);
        let statuses: Vec<&str> = received.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect();
        assert_eq!(statuses, ["200", "401", "200", "401"], "{kind:?} {received}");
        let seen: Vec<String> = stage.upstream.seen().into_iter().map(|seen| seen.path).collect();
        assert_eq!(seen, ["/first", "/open/third"], "{kind:?}");
        assert_eq!(identity(&stage.upstream.seen()[1]), [], "{kind:?}");

        // The head of a request without its end, and a body without its end.
        for cut in [&allowed[..allowed.len() - 2], &request("POST", "/cut", &["content-length: 10"])] {
            let mut stream = TcpStream::connect(&stage.proxy.address).await.unwrap();
            stream.write_all(cut).await.unwrap();
            drop(stream);
        }
        assert_eq!(fetch(&stage.proxy.address, "/", &[&good]).await.status, 200, "{kind:?}");
        let seen: Vec<String> = stage.upstream.seen().into_iter().skip(2).map(|seen| seen.path).collect();
        assert_eq!(seen, ["/"], "{kind:?}");
    }
}

/// Envoy Gateway #8202: `Location` and `Set-Cookie` of an answer did not reach the client. The service sends no cookie,
/// so a server with such answers takes its place. The file for nginx makes 401 with `Location` a redirect.
#[tokio::test]
async fn envoy_gateway_8202_location_and_set_cookie_of_answers_are_kept() {
    let authz = serve(|_| {
        let response = HttpResponse::builder()
            .status(401)
            .header("content-type", "application/json")
            .header("www-authenticate", "Bearer realm=\"api\"")
            .header("location", "https://login.test/?a=b&c=%20d")
            .header("set-cookie", "state=1; Path=/; HttpOnly")
            .header("x-authz-body", "{\"reason\":\"x\"}");
        std::future::ready(response.body(Full::new(Bytes::from_static(b"{\"reason\":\"x\"}"))).unwrap())
    })
    .await;
    let upstream = Upstream::start().await;
    for kind in all() {
        let replica = Replica { http: authz.clone(), admin: authz.clone() };
        let proxy = Proxy::start(kind, &[replica], &upstream.address, |file| file).await;
        let refused = fetch(&proxy.address, "/", &[""; 0]).await;
        if kind == Kind::Nginx {
            assert_eq!(refused.status, 302, "{refused:?}");
        } else {
            assert_eq!(refused.verdict(), (401, "x".into()), "{kind:?} {refused:?}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"api\""), "{kind:?}");
        }
        assert_eq!(refused.header("location"), Some("https://login.test/?a=b&c=%20d"), "{kind:?}");
        assert_eq!(refused.header("set-cookie"), Some("state=1; Path=/; HttpOnly"), "{kind:?}");
    }
    assert!(upstream.seen().is_empty());
}
