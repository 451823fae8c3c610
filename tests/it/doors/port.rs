//! The port of the HTTP form, with clients that send exactly the given bytes.

use std::net::Shutdown;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use super::{IDENTITY, POLICIES, assert_refused, good_token, published_key, ready};
use crate::support::PATIENCE;
use crate::support::client::{get, metric};
use crate::support::http1::{Response, bearer, exchange_bytes, fetch, request, send, send_on};
use crate::support::jwks_server::JwksServer;
use crate::support::policy_file::PolicyFile;
use crate::support::service::{TestApp, run};
use crate::support::token::{CLIENT, POOL, SUB, SigningKey, TokenBuilder};

struct Port {
    service: TestApp,
    _keys: JwksServer,
    _policies: PolicyFile,
}

impl Port {
    async fn open(policies: &str, more: &[&str]) -> Self {
        let keys = published_key().await;
        let policies = PolicyFile::new(policies);
        let path = policies.path();
        let flags = ["--jwks-url", &keys.url, "--config", &path];
        let listen = ["--http-listen", "127.0.0.1:0"];
        let listen = if more.contains(&"--http-listen") { &[][..] } else { &listen };
        let service = ready(TestApp::start(&[&flags, listen, more].concat())).await;
        Self { service, _keys: keys, _policies: policies }
    }

    fn address(&self) -> &str {
        &self.service.http
    }

    /// Sum of the counters of checks.
    async fn checks(&self) -> f64 {
        let (_, metrics) = get(&self.service.admin, "/metrics").await;
        let lines = metrics.lines().filter(|line| line.starts_with("cognito_authz_checks_total{"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// Lines that Traefik and Caddy send about a GET of this path.
fn forwarded(path: &str) -> Vec<String> {
    let path = format!("X-Forwarded-Uri: {path}");
    vec!["X-Forwarded-Method: GET".into(), "X-Forwarded-Host: api.test".into(), path]
}

/// Reads until the server closes the connection.
async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut received = Vec::new();
    let result = timeout(PATIENCE, stream.read_to_end(&mut received)).await.unwrap();
    assert!(result.is_ok(), "{result:?} {}", String::from_utf8_lossy(&received));
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn a_peer_outside_the_callers_gets_403_before_anything_is_read() {
    let port = Port::open(POLICIES, &["--http-callers", "127.0.0.1", "--http-callers", "10.0.0.0/8"]).await;
    let good = bearer(&good_token());
    let lines = [&forwarded("/")[..], std::slice::from_ref(&good)].concat();
    assert_eq!(fetch(port.address(), "/forward-auth", &lines).await.status, 200);
    let before = port.checks().await;
    for sent in [Vec::new(), request("GET", "/forward-auth", &lines), b"GET / HT".to_vec(), vec![b'a'; 50_000]] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(port.address().parse().unwrap()).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        let received = read_all(&mut stream).await;
        assert!(received.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{received}");
        assert!(received.contains("content-length: 37\r\n") && received.ends_with("may not use this server\n"));
    }
    assert_eq!(port.checks().await, before);
    assert_eq!(fetch(port.address(), "/forward-auth", &lines).await.status, 200);
}

#[tokio::test]
async fn peers_that_are_refused_take_no_connection_from_the_callers() {
    let port = Port::open(POLICIES, &["--http-callers", "127.0.0.1"]).await;
    let mut refused = Vec::new();
    for _ in 0..200 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        refused.push(socket.connect(port.address().parse().unwrap()).await.unwrap());
    }
    assert_eq!(fetch(port.address(), "/forward-auth", &forwarded("/open")).await.status, 200);
}

#[tokio::test]
async fn callers_of_a_unix_socket_are_admitted_by_its_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let listen = format!("unix:{}", path.display());
    let _port = Port::open(POLICIES, &["--http-listen", &listen, "--http-callers", "10.0.0.0/8"]).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let lines = [forwarded("/open"), vec!["Connection: close".into()]].concat();
    stream.write_all(&request("GET", "/forward-auth", &lines)).await.unwrap();
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn wrong_callers_are_usage_errors() {
    for (value, why) in [("10.0.0.1/8", "10.1.0.0/16"), ("localhost", "not a network"), ("", "not a network")] {
        let arguments = ["--user-pool-id", POOL, "--client-id", CLIENT, "--http-listen", "127.0.0.1:0"];
        let (code, _, error) = run(&[&["check-config"], &arguments[..], &["--http-callers", value]].concat(), &[]);
        assert_eq!(code, Some(64), "{error}");
        assert!(error.contains("--http-callers") && error.contains(why), "{error}");
    }
    let environment = [("COGNITO_AUTHZ_HTTP_CALLERS", ",")];
    let arguments = ["check-config", "--user-pool-id", POOL, "--client-id", CLIENT, "--http-listen", "127.0.0.1:0"];
    let (code, _, error) = run(&arguments, &environment);
    assert_eq!(code, Some(64), "{error}");
    assert!(error.contains("COGNITO_AUTHZ_HTTP_CALLERS"), "{error}");
}

#[tokio::test]
async fn pipelined_requests_are_judged_one_by_one() {
    let port = Port::open(POLICIES, &[]).await;
    let good = bearer(&good_token());
    let allowed = request("GET", "/forward-auth", &[&forwarded("/")[..], &[good]].concat());
    let refused = request("GET", "/forward-auth", &forwarded("/"));
    let last = request("GET", "/forward-auth", &[&forwarded("/admin")[..], &["Connection: close".into()]].concat());
    let mut stream = TcpStream::connect(port.address()).await.unwrap();
    stream.write_all(&[&allowed[..], &refused, &allowed, &refused, &last].concat()).await.unwrap();
    let received = read_all(&mut stream).await;
    let statuses: Vec<&str> = received.split("HTTP/1.1 ").skip(1).map(|response| &response[..3]).collect();
    assert_eq!(statuses, ["200", "401", "200", "401", "401"], "{received}");
    // The identity of one request is never part of the answer to another.
    let answers: Vec<&str> = received.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(
        answers.iter().map(|answer| answer.contains(SUB)).collect::<Vec<_>>(),
        [true, false, true, false, false]
    );
}

#[tokio::test]
async fn a_request_that_ends_early_is_no_check() {
    let port = Port::open(POLICIES, &[]).await;
    let before = port.checks().await;
    let whole = request("POST", "/forward-auth", &[&forwarded("/open")[..], &["content-length: 10".into()]].concat());
    for length in [1, 20, whole.len() - 1, whole.len()] {
        let mut stream = TcpStream::connect(port.address()).await.unwrap();
        stream.write_all(&whole[..length]).await.unwrap();
        if length == whole.len() {
            stream.write_all(b"half").await.unwrap();
        }
        let stream = stream.into_std().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.set_nonblocking(true).unwrap();
        let received = read_all(&mut TcpStream::from_std(stream).unwrap()).await;
        assert!(!received.contains("200 OK"), "{length} bytes: {received}");
    }
    assert_eq!(port.checks().await, before);
    assert_eq!(metric(&port.service.admin, "checks_in_flight").await, 0.0);
}

#[tokio::test]
async fn bodies_have_no_effect() {
    let port = Port::open(POLICIES, &[]).await;
    let hidden = String::from_utf8(request("GET", "/forward-auth", &forwarded("/open"))).unwrap();
    for (framing, body) in [
        (format!("content-length: {}", hidden.len()), hidden.clone()),
        ("transfer-encoding: chunked".into(), format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len())),
        ("content-length: 1000000".into(), "a".repeat(1_000_000)),
    ] {
        let mut sent =
            request("POST", "/forward-auth", &[&forwarded("/")[..], std::slice::from_ref(&framing)].concat());
        sent.extend(body.as_bytes());
        let before = port.checks().await;
        // Fails if there is a second response.
        let refused = exchange_bytes(port.address(), &sent).await;
        assert_eq!(refused.verdict(), (401, "missing_credential".into()), "{framing}");
        assert_eq!(port.checks().await, before + 1.0, "{framing}");
    }
    // A length and chunks: proxies disagree about which of them counts.
    let both = ["content-length: 4".to_owned(), "transfer-encoding: chunked".into(), "connection: close".into()];
    let mut sent = request("POST", "/forward-auth", &[&forwarded("/")[..], &both].concat());
    sent.extend(b"0\r\n\r\n");
    sent.extend(request("GET", "/forward-auth", &forwarded("/open")));
    let mut stream = TcpStream::connect(port.address()).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    let received = read_all(&mut stream).await;
    assert!(!received.contains("200 OK"), "{received}");
}

#[tokio::test]
async fn methods_and_targets_of_the_call_open_nothing() {
    let port = Port::open(POLICIES, &[]).await;
    let open = forwarded("/open");
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/forward-auth/"),
        ("GET", "/Forward-Auth"),
        ("GET", "/forward-auth%3fpolicy=open"),
        ("GET", "//forward-auth"),
        ("GET", "/x/../forward-auth"),
        ("GET", "/ext-authz"),
        ("GET", "/ext-authzx/open"),
        ("GET", "http://api.test/forward-auth"),
        ("GET", "http://api.test/ext-authz/open"),
        ("CONNECT", "/forward-auth"),
        ("CONNECT", "/ext-authz/open"),
        ("CONNECT", "api.test:443"),
    ] {
        let sent = request(method, target, &[&open[..], &["connection: close".into()]].concat());
        let mut stream = TcpStream::connect(port.address()).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        let received = read_all(&mut stream).await;
        let refused = ["HTTP/1.1 404 ", "HTTP/1.1 400 "].iter().any(|status| received.starts_with(status));
        assert!(refused, "{method} {target}: {received}");
    }
    // The method of the call is that of the proxy, and has no effect: that of the client is in a header.
    for method in ["GET", "POST", "HEAD", "TRACE", "OPTIONS"] {
        let sent = request(method, "/forward-auth", &[&forwarded("/")[..], &["connection: close".into()]].concat());
        let mut stream = TcpStream::connect(port.address()).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        let received = read_all(&mut stream).await;
        assert!(received.starts_with("HTTP/1.1 401 "), "{method}: {received}");
        assert_eq!(received.ends_with("\r\n\r\n"), method == "HEAD", "{method}: {received}");
    }
}

#[tokio::test]
async fn an_upgrade_is_judged_like_any_request() {
    let port = Port::open(POLICIES, &[]).await;
    let upgrade = ["Connection: Upgrade".to_owned(), "Upgrade: websocket".into(), "Sec-WebSocket-Version: 13".into()];
    let mut stream = TcpStream::connect(port.address()).await.unwrap();
    for (token, status) in [(None, 401), (Some(bearer(&good_token())), 200)] {
        let lines = [&forwarded("/")[..], &upgrade, token.as_slice()].concat();
        for _ in 0..2 {
            assert_eq!(send_on(&mut stream, "GET", "/forward-auth", &lines).await.status, status);
        }
    }
}

#[tokio::test]
async fn a_head_of_more_than_64_kib_is_refused_by_the_port() {
    let port = Port::open(POLICIES, &[]).await;
    let good = bearer(&good_token());
    let lines =
        |bytes: usize| [&forwarded("/")[..], &[good.clone(), format!("x-long: {}", "a".repeat(bytes))]].concat();
    assert_eq!(fetch(port.address(), "/forward-auth", &lines(60_000)).await.status, 200);
    let mut stream = TcpStream::connect(port.address()).await.unwrap();
    let sent = request("GET", "/forward-auth", &lines(1_000_000));
    // The server may close before it has read everything.
    drop(stream.write_all(&sent).await);
    let mut received = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut received)).await.unwrap());
    assert!(!String::from_utf8_lossy(&received).contains("200 OK"), "{}", String::from_utf8_lossy(&received));
    assert_eq!(fetch(port.address(), "/forward-auth", &lines(10)).await.status, 200);
}

#[tokio::test]
async fn a_missing_or_repeated_source_is_refused_and_counted() {
    let port = Port::open(POLICIES, &[]).await;
    let mut refusals = 0.0;
    for left_out in 0..3 {
        let mut lines = forwarded("/open");
        let line = lines.remove(left_out);
        for lines in [
            lines,
            [&forwarded("/open")[..], std::slice::from_ref(&line)].concat(),
            [&forwarded("/open")[..], &[line.to_uppercase()]].concat(),
        ] {
            let refused = fetch(port.address(), "/forward-auth", &lines).await;
            assert_refused(&refused, 403, "no_http_request", None, &format!("{lines:?}"));
            refusals += 1.0;
        }
    }
    // The sources of other endpoints do not count.
    for endpoint in ["/auth-request", "/auth-request?policy=open"] {
        assert_eq!(fetch(port.address(), endpoint, &forwarded("/open")).await.verdict().1, "no_http_request");
        refusals += 1.0;
    }
    let series = "checks_total{decision=\"deny\",policy=\"\",pool=\"\",reason=\"no_http_request\"}";
    assert_eq!(metric(&port.service.admin, series).await, refusals);
}

/// Headers of an answer with these names, and their values.
fn headers<'r>(response: &'r Response, prefix: &str) -> Vec<(&'r str, &'r str)> {
    let ours = response.headers.iter().filter(|(name, _)| name.starts_with(prefix));
    let mut ours: Vec<_> = ours.map(|(name, value)| (&**name, &**value)).collect();
    ours.sort_unstable();
    ours
}

#[tokio::test]
async fn every_owned_header_is_answered_once() {
    let policies = "
default: members
policies:
  members: {headers: {x-tier: gold}}
  open: {public: true}
  quiet: {remove_authorization: true}
claim_headers:
- {claim: 'cognito:groups', header: remote-roles, list: repeated}
routes:
- {path_prefix: /open, policy: open}
- {path_prefix: /quiet, policy: quiet}
";
    let port = Port::open(policies, &[]).await;
    let good = bearer(&TokenBuilder::access().claim("cognito:groups", vec!["a,b", "c"]).sign(SigningKey::shared()));
    let forged = ["x_auth_sub: root".to_owned(), "remote_roles: root".into(), "x-tier: none".into()];
    let empty = [
        "x-auth-client-id",
        "x-auth-email",
        "x-auth-groups",
        "x-auth-scope",
        "x-auth-sub",
        "x-auth-token-use",
        "x-auth-username",
    ];
    let lines = |path| [&forwarded(path)[..], &forged, std::slice::from_ref(&good)].concat();

    let answer = fetch(port.address(), "/forward-auth", &lines("/")).await;
    let mut expected = IDENTITY.to_vec();
    expected.extend([("x-auth-email", ""), ("x-auth-groups", "a%2Cb,c")]);
    expected.sort_unstable();
    assert_eq!(headers(&answer, "x-auth"), expected);
    // One line, because proxies take one of several.
    assert_eq!(answer.header("remote-roles"), Some("a%2Cb,c"));
    assert_eq!((answer.header("x-tier"), answer.header("authorization")), (Some("gold"), None));
    // Copies in other spellings are named, for proxies that can use it.
    assert_eq!((answer.header("x_auth_sub"), answer.header("remote_roles")), (Some(""), Some("")));

    let open = fetch(port.address(), "/forward-auth", &lines("/open")).await;
    assert_eq!(headers(&open, "x-auth"), empty.map(|name| (name, "")));
    assert_eq!((open.header("remote-roles"), open.header("x-tier")), (Some(""), Some("")));
    let quiet = fetch(port.address(), "/forward-auth", &lines("/quiet")).await;
    assert_eq!((quiet.status, quiet.header("authorization")), (200, Some("")));

    let envoy = send(port.address(), "GET", "/ext-authz/open", &forged).await;
    let removed: Vec<&str> = envoy.header("x-envoy-auth-headers-to-remove").unwrap().split(',').collect();
    for name in empty.iter().chain(&["remote-roles", "x-tier", "x_auth_sub", "remote_roles"]) {
        assert_eq!(removed.iter().filter(|other| other == &name).count(), 1, "{name} {removed:?}");
    }
    assert!(headers(&envoy, "x-auth").is_empty());
}

#[tokio::test]
async fn the_cookies_of_a_session_are_cut_from_the_answer() {
    let port = Port::open(POLICIES, &["--account-cookies"]).await;
    let session = format!("__Host-access_token={}", good_token());
    let origin = "sec-fetch-site: same-origin".to_owned();
    for (cookies, path, rest) in [
        (vec![format!("cookie: theme=dark; {session}; a=1")], "/", "theme=dark; a=1"),
        (vec![format!("cookie: {session}")], "/", ""),
        (vec!["cookie: theme=dark".into(), "cookie: a=1".into()], "/open", "theme=dark; a=1"),
        (vec![], "/open", ""),
    ] {
        let lines = [&forwarded(path)[..], &cookies, std::slice::from_ref(&origin)].concat();
        let answer = fetch(port.address(), "/forward-auth", &lines).await;
        assert_eq!((answer.status, answer.header("cookie")), (200, Some(rest)), "{cookies:?}");
    }
    let envoy = send(port.address(), "GET", "/ext-authz/open", &["cookie: theme=dark"]).await;
    assert_eq!((envoy.status, envoy.header("cookie")), (200, None), "Envoy keeps what it is not told to change");
    let refused =
        fetch(port.address(), "/forward-auth", &[&forwarded("/")[..], &["cookie: a=1".into()]].concat()).await;
    assert_eq!((refused.status, refused.header("cookie")), (401, None));
}
