//! The HTTP form behind real proxies, with the files of `deploy/`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{IDENTITY, Stage, assert_refused, good_token, identity, published_key, ready};
use crate::support::client::get;
use crate::support::http1::{bearer, exchange_bytes, fetch, request, send, send_on};
use crate::support::jwks_server::Reply;
use crate::support::proxies::{Kind, Proxy, Replica};
use crate::support::service::{Program, TestApp};
use crate::support::token::{SigningKey, TokenBuilder};
use crate::support::tool::free_port;
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually};

/// Makes one test for each proxy of each of these functions.
macro_rules! with_each_proxy {
    ($($test:ident)*) => {
        with_each_proxy!(nginx Nginx: $($test)*);
        with_each_proxy!(traefik Traefik: $($test)*);
        with_each_proxy!(caddy Caddy: $($test)*);
        with_each_proxy!(envoy Envoy: $($test)*);
    };
    ($module:ident $kind:ident: $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    let kind = super::Kind::$kind;
                    if kind.is_available() {
                        super::$test(kind).await;
                    }
                }
            )*
        }
    };
}

with_each_proxy! {
    requests_are_allowed_and_refused_with_challenge_and_body
    no_spelling_of_a_forged_header_reaches_the_application
    requests_get_503_until_a_killed_service_is_back
    heads_of_up_to_64_kib_are_checked_and_longer_ones_never_pass_unchecked
    a_websocket_opens_only_with_a_token
    connections_are_reused
    one_of_two_replicas_can_die
    a_refusal_has_the_id_that_the_proxy_sends
}

async fn requests_are_allowed_and_refused_with_challenge_and_body(kind: Kind) {
    let stage = Stage::start(kind, |file| file).await;
    let proxy = &stage.proxy.address;
    let good = bearer(&good_token());
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let seen = send(proxy, method, "/orders?q=1", &[&*good, "content-length: 0"]).await.seen();
        assert_eq!((&*seen.method, &*seen.path), (method, "/orders"));
        assert_eq!(identity(&seen), IDENTITY, "{method}");
        assert_eq!(seen.header("authorization").len(), 1);
        let refused = send(proxy, method, "/orders?q=1", &["content-length: 0"]).await;
        assert_refused(&refused, 401, "missing_credential", Some("Bearer realm=\"api\""), method);
    }
    let open = fetch(proxy, "/open/x", &[""; 0]).await.seen();
    assert_eq!(identity(&open), []);

    let expired = bearer(&TokenBuilder::access().expires_in(-600).sign(SigningKey::shared()));
    let challenge = "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"The token has expired.\"";
    assert_refused(&fetch(proxy, "/", &[&expired]).await, 401, "expired", Some(challenge), "expired");
    assert_refused(&fetch(proxy, "/admin", &[&good]).await, 403, "insufficient_group", None, "group");
    let scope = "Bearer realm=\"api\", error=\"insufficient_scope\", error_description=\"The token lacks a scope that is \
                 needed here.\", scope=\"reports/read\"";
    assert_refused(&fetch(proxy, "/scoped", &[&good]).await, 403, "insufficient_scope", Some(scope), "scope");
    let admin = TokenBuilder::access().claim("cognito:groups", vec!["admins"]).sign(SigningKey::shared());
    assert_eq!(fetch(proxy, "/admin", &[bearer(&admin)]).await.seen().header("x-auth-groups"), ["admins"]);
    // Both lines reach the check: no proxy chooses one of them.
    let two = fetch(proxy, "/", &[&good, &good]).await;
    assert!(matches!(two.status, 400 | 401), "{two:?}");

    // A body is not sent to the check.
    let mut post = request("POST", "/", &[&*good, "content-length: 3"]);
    post.extend(b"abc");
    assert_eq!(identity(&exchange_bytes(proxy, &post).await.seen()), IDENTITY);
    let before = stage.upstream.seen().len();
    assert_eq!(fetch(proxy, "/", &[""; 0]).await.status, 401);
    assert_eq!(stage.upstream.seen().len(), before, "a refused request does not reach the application");

    // The keys fail now: the service cannot decide about a token of a key that it does not have.
    stage.keys.answers(Reply::status(500));
    let unknown = bearer(&TokenBuilder::access().sign(SigningKey::other()));
    eventually("503", PATIENCE, async || fetch(proxy, "/", &[&unknown]).await.status == 503).await;
    // Envoy takes every 5xx of an HTTP service for a failure, and sends its own response.
    if kind != Kind::Envoy {
        assert_refused(&fetch(proxy, "/", &[&unknown]).await, 503, "keys_unavailable", None, "keys");
    }
}

const FORGED: [&str; 19] = [
    "x-auth-sub: root",
    "X-AUTH-SUB: root",
    "x-auth-sub:",
    "x_auth_sub: root",
    "X_Auth_Sub: root",
    "x.auth.sub: root",
    "X.Auth.Sub: root",
    "x-auth_sub: root",
    "x_auth-sub: root",
    "x-auth.sub: root",
    "x.auth-sub: root",
    "x-auth-client_id: root",
    "x_auth_token.use: root",
    "x-auth-groups: admins",
    "x_auth_groups: admins",
    "x-auth-email: root@example.test",
    "X-Auth-Email: root@example.test\r\nX-Auth-Email: root@example.test",
    "x-auth-username: \u{e9}",
    "x-auth-sub: root,root",
];

const CONNECTION: [&str; 4] = [
    "Connection: close, x-auth-sub",
    "Connection: keep-alive, X-Auth-Sub, x_auth_sub",
    "connection: x-auth-groups, x-auth-email",
    "Keep-Alive: x-auth-sub\r\nProxy-Connection: x-auth-sub",
];

async fn no_spelling_of_a_forged_header_reaches_the_application(kind: Kind) {
    let stage = Stage::start(kind, |file| file).await;
    let proxy = &stage.proxy.address;
    let good = bearer(&good_token());
    for forged in FORGED {
        for lines in [&[forged, &*good][..], &[&good, forged, forged], &[CONNECTION[0], forged, &good]] {
            let response = fetch(proxy, "/", lines).await;
            if kind == Kind::Envoy && response.status == 400 {
                continue; // the example refuses underscores
            }
            let seen = response.seen();
            // A client can make a proxy drop a header with `Connection`, but it cannot give it a value.
            let expected: Vec<_> = IDENTITY.into_iter().filter(|pair| identity(&seen).contains(pair)).collect();
            assert_eq!(identity(&seen), expected, "{kind:?} {lines:?}");
            assert!(expected.len() >= 4, "{kind:?} {lines:?}");
        }
        let response = fetch(proxy, "/open", &[forged]).await;
        if kind == Kind::Envoy && response.status == 400 {
            continue;
        }
        assert_eq!(identity(&response.seen()), [], "{kind:?} {forged}");
    }
    for connection in CONNECTION {
        let lines = [connection, &good, "x-auth-sub: root", "x-auth-groups: admins", "x-auth-email: e"];
        let seen = fetch(proxy, "/", &lines).await.seen();
        assert!(identity(&seen).iter().all(|pair| IDENTITY.contains(pair)), "{kind:?} {connection} {seen:?}");
    }
}

async fn a_refusal_has_the_id_that_the_proxy_sends(kind: Kind) {
    let stage = Stage::start(kind, |file| {
        // The id that nginx would write to its log.
        let challenge = "add_header WWW-Authenticate $authz_challenge always;";
        file.replace(challenge, &format!("{challenge} add_header X-Own-Id $request_id always;"))
    })
    .await;
    let (proxy, good) = (&stage.proxy.address, bearer(&good_token()));
    let chosen = "x-request-id: chosen-by-the-client";
    let refused = fetch(proxy, "/admin", &[chosen, &good]).await;
    let body = refused.json();
    let id = body["request_id"].as_str().unwrap();
    let received = fetch(proxy, "/", &[chosen, &good]).await.seen();
    let received = received.header("x-request-id")[0];
    match kind {
        Kind::Nginx => {
            assert_eq!(Some(id), refused.header("x-own-id"));
            assert_eq!((id.len(), received.len()), (32, 32), "{id} {received}");
            assert_ne!(id, received);
        }
        Kind::Traefik | Kind::Caddy => assert_eq!([id, received], ["chosen-by-the-client"; 2]),
        Kind::Envoy => assert_eq!((id.len(), received.len()), (36, 36), "{id} {received}"),
    }
    let without = fetch(proxy, "/admin", &[&good]).await.json();
    assert_eq!(without["request_id"].as_str().unwrap().len(), if kind == Kind::Nginx { 32 } else { 36 });
}

async fn requests_get_503_until_a_killed_service_is_back(kind: Kind) {
    let keys = published_key().await;
    let (http, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let flags = ["--jwks-url", &keys.url, "--http-listen", &http, "--admin-listen", &admin];
    let mut program = Program::start(&flags);
    eventually("ready", PATIENCE, async || get(&admin, "/readyz").await.0 == 200).await;
    let upstream = Upstream::start().await;
    let replica = Replica { http: http.clone(), admin: admin.clone() };
    let running = Proxy::start(kind, &[replica], &upstream.address, |file| file).await;
    let (proxy, good) = (&running.address, bearer(&good_token()));
    assert_eq!(fetch(proxy, "/", &[&good]).await.status, 200);

    program.signal("KILL");
    program.wait();
    for lines in [&[&*good][..], &[]].repeat(3) {
        let response = fetch(proxy, "/away", lines).await;
        assert_eq!(response.status, 503, "{kind:?} {response:?}");
    }
    let _program = Program::start(&flags);
    eventually("the service is back", PATIENCE, async || match fetch(proxy, "/", &[&good]).await.status {
        200 => true,
        status => {
            assert_eq!(status, 503, "{kind:?}");
            false
        }
    })
    .await;
    let refused = fetch(proxy, "/", &[""; 0]).await;
    assert_refused(&refused, 401, "missing_credential", Some("Bearer realm=\"api\""), "back");
    assert!(upstream.seen().iter().all(|seen| seen.path == "/" && identity(seen) == IDENTITY));
}

async fn heads_of_up_to_64_kib_are_checked_and_longer_ones_never_pass_unchecked(kind: Kind) {
    let stage = Stage::start(kind, |file| file).await;
    let proxy = &stage.proxy.address;
    let good = bearer(&good_token());
    let filler =
        |kib: usize| -> Vec<String> { (0..kib).map(|i| format!("x-filler-{i}: {}", "a".repeat(1000))).collect() };
    for kib in [8, 40, 55] {
        let mut lines = filler(kib);
        let refused = fetch(proxy, "/", &lines).await;
        assert_refused(&refused, 401, "missing_credential", Some("Bearer realm=\"api\""), &format!("{kib} KiB"));
        lines.push(good.clone());
        assert_eq!(identity(&fetch(proxy, "/", &lines).await.seen()), IDENTITY, "{kind:?} {kib} KiB");
    }
    // A proxy may send more at once, and the service may have read it before it counts.
    for kib in [66, 90, 120] {
        let mut lines = filler(kib);
        let refused = fetch(proxy, "/long", &lines).await;
        assert!(matches!(refused.status, 400 | 401 | 431 | 494 | 503), "{kind:?} {kib} KiB: {refused:?}");
        lines.push(good.clone());
        let response = fetch(proxy, "/long", &lines).await;
        assert!(matches!(response.status, 200 | 400 | 431 | 494 | 503), "{kind:?} {kib} KiB: {response:?}");
    }
    // More lines than the service reads.
    let many: Vec<_> = (0..150).map(|i| format!("x-filler-{i}: a")).chain([good]).collect();
    let response = fetch(proxy, "/many", &many).await;
    // Envoy sends the check only the headers that it is configured to send, so that 150 are few.
    assert!(matches!(response.status, 431 | 503) || kind == Kind::Envoy, "{kind:?}: {}", response.status);
    assert!(stage.upstream.seen().iter().all(|seen| identity(seen) == IDENTITY), "{kind:?}: passed unchecked");
}

async fn a_websocket_opens_only_with_a_token(kind: Kind) {
    let stage = Stage::start(kind, |file| file).await;
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let refused = fetch(&stage.proxy.address, "/socket", &upgrade).await;
    assert_refused(&refused, 401, "missing_credential", Some("Bearer realm=\"api\""), "socket");
    assert!(stage.upstream.seen().iter().all(|seen| seen.path != "/socket"));

    let good = bearer(&good_token());
    let mut stream = TcpStream::connect(&stage.proxy.address).await.unwrap();
    stream
        .write_all(&request("GET", "/socket", &[&upgrade[..], &[&good, "x-auth-groups: admins"]].concat()))
        .await
        .unwrap();
    let mut received = Vec::new();
    let exchange = async {
        while !received.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
        }
        assert!(received.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&received));
        stream.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"ping");
    };
    timeout(PATIENCE, exchange).await.unwrap();
    let seen = stage.upstream.seen().into_iter().find(|seen| seen.path == "/socket").unwrap();
    assert_eq!(identity(&seen), IDENTITY);
}

/// Forwards connections to `to`, and counts them.
async fn relay(to: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap().to_string(), to.to_owned());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut other = TcpStream::connect(&to).await.unwrap();
            tokio::spawn(async move { drop(copy_bidirectional(&mut stream, &mut other).await) });
        }
    });
    (address, count)
}

async fn connections_are_reused(kind: Kind) {
    let keys = published_key().await;
    let service = ready(TestApp::start(&["--jwks-url", &keys.url, "--http-listen", "127.0.0.1:0"])).await;
    let upstream = Upstream::start().await;
    let (http, connections) = relay(&service.http).await;
    let replica = Replica { http, admin: service.admin.clone() };
    let proxy = Proxy::start(kind, &[replica], &upstream.address, |file| file).await;
    let good = bearer(&good_token());
    let mut stream = TcpStream::connect(&proxy.address).await.unwrap();
    // On one connection of the client, too, each request is judged by its own headers.
    for (lines, verdict) in [(&[&*good][..], (200, "")), (&[], (401, "missing_credential"))] {
        let before = connections.load(Ordering::Relaxed);
        for _ in 0..20 {
            let response = send_on(&mut stream, "GET", "/", lines).await;
            assert_eq!(response.verdict(), (verdict.0, verdict.1.to_owned()));
            if response.status == 200 {
                assert_eq!(identity(&response.seen()), IDENTITY);
            }
        }
        let opened = connections.load(Ordering::Relaxed) - before;
        // nginx does not read the body of a refusal, and so cannot use the connection again.
        assert!(opened <= 2 || kind == Kind::Nginx && verdict.0 == 401, "{kind:?}: {opened} connections for 20 checks");
    }
    let allowed = [&*good];
    let mixed: Vec<&[&str]> = [&allowed[..], &[]].repeat(5);
    for lines in mixed {
        let status = send_on(&mut stream, "GET", "/", lines).await.status;
        assert_eq!(status, if lines.is_empty() { 401 } else { 200 });
    }
}

async fn one_of_two_replicas_can_die(kind: Kind) {
    let keys = published_key().await;
    let (port, admin) = (free_port(), free_port());
    let start = async |host: &str| {
        let (http, admin) = (format!("{host}:{port}"), format!("{host}:{admin}"));
        let program = Program::start(&["--jwks-url", &keys.url, "--http-listen", &http, "--admin-listen", &admin]);
        eventually("ready", PATIENCE, async || get(&admin, "/readyz").await.0 == 200).await;
        (program, Replica { http, admin })
    };
    let ((mut first, one), (_second, other)) = (start("127.0.0.1").await, start("127.0.0.2").await);
    let upstream = Upstream::start().await;
    let proxy = Proxy::start(kind, &[one, other], &upstream.address, |file| file).await;
    let good = bearer(&good_token());
    let round = async |what: &str| {
        for _ in 0..20 {
            let allowed = fetch(&proxy.address, "/", &[&good]).await;
            assert_eq!(allowed.status, 200, "{kind:?} {what} {allowed:?}");
            assert_eq!(
                fetch(&proxy.address, "/", &[""; 0]).await.verdict(),
                (401, "missing_credential".into()),
                "{kind:?} {what}"
            );
        }
    };
    round("with both").await;
    first.signal("KILL");
    first.wait();
    round("with one").await;
    let (_first, _) = start("127.0.0.1").await;
    round("with both again").await;
}
