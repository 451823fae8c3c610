//! Browser sessions: the access token in a cookie, through Envoy.

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::bytes::Bytes;
use tokio::net::TcpStream;

use super::{Stage, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch, send};
use crate::support::token::{SUB, SigningKey, TokenBuilder};
use crate::support::upstream::Seen;

#[tokio::test]
async fn a_session_cookie_is_a_credential_that_upstream_never_sees() {
    let keys = published_key().await;
    let flags = ["--jwks-url", &keys.url, "--account-cookies", "--cors-origins", "https://app.example"];
    let stage = Stage::start(&flags, |_| {}).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let other = TokenBuilder::access().claim("sub", "somebody-else").sign(SigningKey::shared());
    // The form in which the account API splits a token that is too long for one cookie.
    let long = TokenBuilder::access().claim("custom:long", "l".repeat(4000)).sign(SigningKey::shared());
    let pieces = format!("__Host-access_token=2~{}; __Host-access_token.1={}", &long[..3800], &long[3800..]);
    assert!(long.len() < 7600);
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let session = format!("__Host-access_token={token}");
        for (cookie, rest) in [
            (
                format!("cookie: theme=dark; {session}; __Host-refresh_token=secret; lang=en"),
                vec!["theme=dark; lang=en"],
            ),
            (format!("Cookie: {session}"), vec![]),
            (format!("cookie: a=1; {pieces}"), vec!["a=1"]),
        ] {
            let seen = fetch(envoy, "/orders", &[&cookie]).await.seen();
            assert_eq!(seen.header("x-auth-sub"), [SUB], "{listener}");
            assert_eq!(seen.header("cookie"), rest, "{listener}");
        }
        // A Bearer token takes precedence, and the session cookie is still removed.
        let seen = fetch(envoy, "/orders", &[bearer(&other), format!("cookie: {session}; a=1")]).await.seen();
        assert_eq!((seen.header("x-auth-sub"), seen.header("cookie")), (vec!["somebody-else"], vec!["a=1"]));
        let bad = fetch(envoy, "/orders", &["authorization: Bearer x".to_owned(), format!("cookie: {session}")]).await;
        assert_eq!(bad.verdict(), (401, "malformed_token".into()), "a session does not replace a bad Bearer token");
        let twice = fetch(envoy, "/orders", &[format!("cookie: {session}; {session}")]).await;
        assert_eq!(twice.verdict(), (401, "multiple_credentials".into()));
        let none = fetch(envoy, "/orders", &["cookie: a=1"]).await;
        assert_eq!(none.verdict(), (401, "missing_credential".into()));

        for (lines, passes) in [
            (&["origin: https://app.example"][..], true),
            (&["sec-fetch-site: same-origin"], true),
            (&["origin: https://evil.example"], false),
            (&["origin: null", "sec-fetch-site: same-origin"], false),
            (&["sec-fetch-site: cross-site"], false),
            (&["sec-fetch-site: same-site"], false),
            (&[], false),
        ] {
            let cookie = format!("cookie: {session}");
            let lines: Vec<&str> = lines.iter().copied().chain([&*cookie, "content-length: 0"]).collect();
            let answer = send(envoy, "POST", "/orders", &lines).await;
            if passes {
                assert_eq!(answer.seen().header("x-auth-sub"), [SUB], "{lines:?}");
            } else {
                assert_eq!(answer.verdict(), (403, "cross_site".into()), "{lines:?}");
            }
        }
    }
}

#[tokio::test]
async fn without_the_option_a_session_cookie_is_not_a_credential() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url], |_| {}).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let cookie = format!("cookie: __Host-access_token={token}");
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        assert_eq!(fetch(envoy, "/", &[&cookie]).await.verdict(), (401, "missing_credential".into()));
        let seen = fetch(envoy, "/", &[&bearer(&token), &cookie]).await.seen();
        assert_eq!(seen.header("cookie").len(), 1, "without the option, the service does not remove the cookie");
    }
}

/// Sends a request over HTTP/2 with one `Cookie` field for each of these, and returns the `Cookie` headers that reach
/// upstream.
async fn fetch_over_http2(address: &str, cookies: &[&str]) -> Vec<String> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://api.test/orders");
    let request = cookies.iter().fold(request, |request, cookie| request.header("cookie", *cookie));
    let response = client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200, "{cookies:?}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let seen: Seen = serde_json::from_slice(&body).unwrap();
    assert_eq!(seen.header("x-auth-sub"), [SUB]);
    seen.header("cookie").into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn several_cookie_headers_leak_no_session() {
    let keys = published_key().await;
    // The second listener has `encode_raw_headers`, as shipped; the first has the default of Envoy.
    let stage = Stage::start(&["--jwks-url", &keys.url, "--account-cookies"], |bootstrap| {
        bootstrap.ext_authz(LISTENERS[0])["encode_raw_headers"] = false.into();
    })
    .await;
    let cookie = |sub: &str| {
        let token = TokenBuilder::access().claim("sub", sub).sign(SigningKey::shared());
        format!("__Host-access_token={token}")
    };
    let (session, planted) = (cookie(SUB), cookie("attacker"));
    let signed_in = bearer(&TokenBuilder::access().claim("sub", "other").sign(SigningKey::shared()));
    for (listener, is_raw) in LISTENERS.into_iter().zip([false, true]) {
        let envoy = stage.envoy.address(listener);
        for (lines, rest) in [
            (vec![format!("Cookie: {session}"), "cookie: a=1".to_owned()], Some("a=1")),
            (vec![format!("cookie: b=2; {session}"), "cookie: a=1; c=3".to_owned()], Some("a=1; b=2; c=3")),
            // Envoy joins these lines with a comma. Any host of the site can make a browser send the same text, as in the
            // next row, so it is not accepted.
            (vec!["cookie: a=1".to_owned(), format!("cookie: {session}; b=2")], is_raw.then_some("a=1; b=2")),
            (vec![format!("cookie: a=1,{planted}")], None),
            (vec![format!("cookie: {session}; a=1,{planted}")], Some("a=1")),
        ] {
            let answer = fetch(envoy, "/orders", &lines).await;
            if let Some(rest) = rest {
                let seen = answer.seen();
                assert_eq!(seen.header("x-auth-sub"), [SUB], "{listener}");
                let mut kept: Vec<&str> = seen.header("cookie")[0].split([';', ',']).map(str::trim).collect();
                kept.sort_unstable();
                assert_eq!((seen.header("cookie").len(), kept.join("; ")), (1, rest.to_owned()), "{listener}");
            } else {
                assert_eq!(answer.verdict(), (401, "missing_credential".into()), "{listener}");
            }
            // Whichever credential counts, no session reaches upstream.
            let seen = fetch(envoy, "/orders", &[&lines[..], std::slice::from_ref(&signed_in)].concat()).await.seen();
            assert!(!seen.header("cookie").concat().contains("__Host-"), "{listener}: {:?}", seen.header("cookie"));
        }
        // Browsers may send each cookie in a field of its own over HTTP/2 (RFC 9113 section 8.2.3).
        assert_eq!(fetch_over_http2(envoy, &["a=1", &session, "b=2"]).await, ["a=1; b=2"], "{listener}");
        assert_eq!(fetch_over_http2(envoy, &[&session]).await, [""; 0], "{listener}");
    }
}

#[tokio::test]
async fn a_cookie_that_is_not_utf_8_is_removed_only_beside_a_session() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url, "--account-cookies"], |bootstrap| {
        bootstrap.ext_authz(LISTENERS[0])["encode_raw_headers"] = false.into();
    })
    .await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    for (listener, rest) in LISTENERS.into_iter().zip(["latin=!; a=\u{e9}", "a=\u{e9}"]) {
        let envoy = stage.envoy.address(listener);
        // Beside a session, the cookie is removed, because a response to Envoy can only hold UTF-8. Without raw headers,
        // Envoy has already replaced the byte.
        let cookie = [b"cookie: latin=\xe9; __Host-access_token=", token.as_bytes(), b"; a=\xc3\xa9"].concat();
        assert_eq!(fetch(envoy, "/", &[cookie]).await.seen().header("cookie"), [rest], "{listener}");
        // Without a session, the service changes nothing.
        let lines = [b"cookie: latin=\xe9; a=\xc3\xa9".to_vec(), bearer(&token).into_bytes()];
        assert_eq!(fetch(envoy, "/", &lines).await.seen().header("cookie"), ["latin=\u{fffd}; a=\u{e9}"], "{listener}");
    }
}

#[tokio::test]
async fn the_access_cookie_must_hold_an_access_token() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url, "--account-cookies", "--token-use", "any"], |_| {}).await;
    let (access, id) = (TokenBuilder::access(), TokenBuilder::id());
    let (access, id) = (access.sign(SigningKey::shared()), id.sign(SigningKey::shared()));
    let cookie = |token: &str| format!("cookie: __Host-access_token={token}");
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for _ in 0..2 {
            // The second time, the token is in the cache.
            let answer = fetch(envoy, "/", &[cookie(&id)]).await;
            assert_eq!(answer.verdict(), (401, "wrong_token_use".into()), "{listener}");
            assert_eq!(fetch(envoy, "/", &[bearer(&id)]).await.seen().header("x-auth-token-use"), ["id"]);
            assert_eq!(fetch(envoy, "/", &[cookie(&access)]).await.seen().header("x-auth-token-use"), ["access"]);
        }
        // TRACE is a safe method (RFC 9110 section 9.2.1), but its response repeats the request with its cookies.
        let trace = send(envoy, "TRACE", "/", &[cookie(&access)]).await;
        assert_eq!(trace.verdict(), (403, "cross_site".into()), "{listener}");
    }
}
