//! Browser sessions: the access token in a cookie, through Envoy.

use super::{Stage, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch, send};
use crate::support::token::{SUB, SigningKey, TokenBuilder};

#[tokio::test]
async fn a_session_is_a_credential_that_upstream_never_sees() {
    let keys = published_key().await;
    let flags = ["--jwks-url", &keys.url, "--account-cookies", "--cors-origins", "https://app.example"];
    let stage = Stage::start(&flags, |_| {}).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let other = TokenBuilder::access().claim("sub", "somebody-else").sign(SigningKey::shared());
    // As the account API writes a token that one cookie does not hold.
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
        // A Bearer token goes first, and the session still stays here.
        let seen = fetch(envoy, "/orders", &[bearer(&other), format!("cookie: {session}; a=1")]).await.seen();
        assert_eq!((seen.header("x-auth-sub"), seen.header("cookie")), (vec!["somebody-else"], vec!["a=1"]));
        let bad = fetch(envoy, "/orders", &["authorization: Bearer x".to_owned(), format!("cookie: {session}")]).await;
        assert_eq!(bad.verdict(), (401, "malformed_token".into()), "a bad Bearer token is not mended by a session");
        let twice = fetch(envoy, "/orders", &[format!("cookie: {session}; {session}")]).await;
        assert_eq!(twice.verdict(), (401, "multiple_credentials".into()));
        // No browser sends two `Cookie` headers (RFC 6265 section 5.4). Envoy joins them with a comma: nobody gets in by that,
        // and no session gets out.
        for lines in [[&*format!("cookie: {session}"), "cookie: a=1"], ["cookie: a=1", &*format!("cookie: {session}")]]
        {
            assert_eq!(fetch(envoy, "/orders", &lines).await.status, 401, "{lines:?}");
            let bearer = bearer(&other);
            let seen = fetch(envoy, "/orders", &[lines[0], lines[1], &bearer]).await.seen();
            assert!(!seen.header("cookie").concat().contains("__Host-"), "{lines:?}: {:?}", seen.header("cookie"));
        }
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
async fn without_the_option_a_cookie_is_a_cookie() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url], |_| {}).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let cookie = format!("cookie: __Host-access_token={token}");
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        assert_eq!(fetch(envoy, "/", &[&cookie]).await.verdict(), (401, "missing_credential".into()));
        let seen = fetch(envoy, "/", &[&bearer(&token), &cookie]).await.seen();
        assert_eq!(seen.header("cookie").len(), 1, "it is not ours to take out");
    }
}

#[tokio::test]
async fn the_access_cookie_holds_an_access_token() {
    let keys = published_key().await;
    let stage = Stage::start(&["--jwks-url", &keys.url, "--account-cookies", "--token-use", "any"], |_| {}).await;
    let (access, id) = (TokenBuilder::access(), TokenBuilder::id());
    let (access, id) = (access.sign(SigningKey::shared()), id.sign(SigningKey::shared()));
    let cookie = |token: &str| format!("cookie: __Host-access_token={token}");
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for _ in 0..2 {
            // The second time the token comes out of the cache.
            let answer = fetch(envoy, "/", &[cookie(&id)]).await;
            assert_eq!(answer.verdict(), (401, "wrong_token_use".into()), "{listener}");
            assert_eq!(fetch(envoy, "/", &[bearer(&id)]).await.seen().header("x-auth-token-use"), ["id"]);
            assert_eq!(fetch(envoy, "/", &[cookie(&access)]).await.seen().header("x-auth-token-use"), ["access"]);
        }
        // Safe by its definition (RFC 9110 section 9.2.1), but its answer repeats the request, cookies included.
        let trace = send(envoy, "TRACE", "/", &[cookie(&access)]).await;
        assert_eq!(trace.verdict(), (403, "cross_site".into()), "{listener}");
    }
}
