//! Sign-in by redirect: a browser that opens a page without a good session gets 302, through Envoy.

use serde_json::json;

use super::{SeededKey, Stage, token_of_an_unknown_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{Response, bearer, exchange_bytes, fetch, send};
use crate::support::policy_file::PolicyFile;
use crate::support::service::SIGN_IN;
use crate::support::token::{SUB, SigningKey, TokenBuilder, unix_now};

const FILE: &str = "
default: pages
policies:
  pages: {sign_in: redirect}
  admin: {sign_in: redirect, groups: {any: [admins]}}
  recent: {sign_in: redirect, max_auth_age: 5m}
  visitors: {sign_in: redirect, optional: true}
  tried: {sign_in: redirect, mode: shadow}
  api: {}
routes:
- {path_prefix: /admin, policy: admin}
- {path_prefix: /recent, policy: recent}
- {path_prefix: /visitors, policy: visitors}
- {path_prefix: /tried, policy: tried}
- {path_prefix: /api, policy: api}
";

const NAVIGATE: &str = "sec-fetch-mode: navigate";
const ACCEPT: &str = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
const OPERATORS: &str = "operators-token-for-tests-1";

/// Starts everything with [`FILE`]. The service has the shared key, and cannot fetch any.
async fn start() -> (Stage, SeededKey, PolicyFile, tempfile::NamedTempFile) {
    let (keys, file, operators) =
        (SeededKey::new().await, PolicyFile::new(FILE), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(operators.path(), OPERATORS).unwrap();
    let path = file.path();
    let more = ["--config", &path, "--admin-token-file", operators.path().to_str().unwrap()];
    let stage = Stage::start(&[&SIGN_IN[..], &keys.flags(), &more].concat(), |_| {}).await;
    (stage, keys, file, operators)
}

fn cookie(token: &str) -> String {
    format!("cookie: theme=dark; __Host-access_token={token}")
}

/// Asserts that a response is a redirect to the sign-in with this query, and otherwise the refusal for `reason`.
#[track_caller]
fn assert_redirected(response: &Response, reason: &str, query: &str, what: &str) {
    assert_eq!(response.verdict(), (302, reason.to_owned()), "{what}: {response:?}");
    assert_eq!(response.header("location"), Some(&*format!("/auth/oauth/sign-in{query}")), "{what}");
    assert_eq!(response.header("www-authenticate"), None, "{what}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{what}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
}

#[tokio::test]
async fn a_navigation_without_a_good_session_is_redirected() {
    let (stage, ..) = start().await;
    let sign = |token: TokenBuilder| token.sign(SigningKey::shared());
    let good = sign(TokenBuilder::access());
    let expired = cookie(&sign(TokenBuilder::access().expires_in(-600)));
    let old = cookie(&sign(TokenBuilder::access().claim("auth_time", unix_now() - 3600)));
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for (path, lines, reason, query) in [
            ("/orders?a=b&c", vec![NAVIGATE], "missing_credential", "?return_to=%2Forders%3Fa%3Db%26c"),
            ("/", vec![ACCEPT], "missing_credential", "?return_to=%2F"),
            ("/", vec![NAVIGATE, ACCEPT, "cookie: theme=dark"], "missing_credential", "?return_to=%2F"),
            ("/", vec![NAVIGATE, "sec-fetch-site: cross-site"], "missing_credential", "?return_to=%2F"),
            ("/", vec![NAVIGATE, "authorization: Basic dTpw"], "missing_credential", "?return_to=%2F"),
            ("/x", vec![NAVIGATE, &*expired], "expired", "?return_to=%2Fx"),
            ("/x", vec![NAVIGATE, "sec-fetch-site: cross-site", &expired], "expired", "?return_to=%2Fx"),
            ("/x", vec![NAVIGATE, "cookie: __Host-access_token=x"], "malformed_token", "?return_to=%2Fx"),
            ("/admin/", vec![NAVIGATE], "missing_credential", "?return_to=%2Fadmin%2F"),
            ("/visitors", vec![NAVIGATE, &expired], "expired", "?return_to=%2Fvisitors"),
            ("/recent", vec![NAVIGATE, &old], "auth_too_old", "?return_to=%2Frecent&prompt=login"),
        ] {
            let what = format!("{listener} {path} {lines:?}");
            assert_redirected(&fetch(envoy, path, &lines).await, reason, query, &what);
        }
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let head = client.head(format!("http://{envoy}/a")).header("sec-fetch-mode", "navigate").send().await.unwrap();
        assert_eq!(
            (head.status().as_u16(), &head.headers()["location"]),
            (302, &"/auth/oauth/sign-in?return_to=%2Fa".parse().unwrap())
        );
        // A session passes, and nothing of the redirect reaches the application or a request that passes.
        let seen = fetch(envoy, "/", &[NAVIGATE, &cookie(&good)]).await.seen();
        assert_eq!((seen.header("x-auth-sub"), seen.header("cookie")), (vec![SUB], vec!["theme=dark"]));
        assert_eq!(fetch(envoy, "/visitors", &[NAVIGATE]).await.seen().header("x-auth-sub"), [""; 0]);
        assert_eq!(fetch(envoy, "/tried", &[NAVIGATE]).await.seen().path, "/tried", "shadow mode");
    }
}

#[tokio::test]
async fn everything_else_keeps_its_refusal() {
    let (stage, ..) = start().await;
    let sign = |token: TokenBuilder| token.sign(SigningKey::shared());
    let expired = sign(TokenBuilder::access().expires_in(-600));
    let (session, user) = (cookie(&expired), cookie(&sign(TokenBuilder::access())));
    let unknown = cookie(&token_of_an_unknown_key());
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for (method, path, lines, status, reason) in [
            ("GET", "/", vec!["sec-fetch-mode: cors", "accept: */*"], 401, "missing_credential"),
            ("GET", "/", vec!["sec-fetch-mode: cors", ACCEPT, &*session], 401, "expired"),
            ("GET", "/", vec!["accept: application/json"], 401, "missing_credential"),
            ("GET", "/", vec![], 401, "missing_credential"),
            ("GET", "/", vec![NAVIGATE, NAVIGATE], 401, "missing_credential"),
            ("GET", "/", vec![ACCEPT, "sec-fetch-mode: no-cors"], 401, "missing_credential"),
            ("GET", "/", vec!["accept: application/json", ACCEPT], 401, "missing_credential"),
            ("GET", "/", vec![NAVIGATE, "sec-purpose: prefetch;prerender"], 401, "missing_credential"),
            ("POST", "/", vec![NAVIGATE, ACCEPT, "content-length: 0"], 401, "missing_credential"),
            ("GET", "/api", vec![NAVIGATE, ACCEPT, &session], 401, "expired"),
            ("GET", "/", vec![NAVIGATE, &bearer(&expired)], 401, "expired"),
            ("GET", "/", vec![NAVIGATE, "authorization: Bearer x", &session], 401, "malformed_token"),
            ("GET", "/", vec![NAVIGATE, "authorization: Bearer a, Bearer b"], 401, "multiple_credentials"),
            ("GET", "/admin", vec![NAVIGATE, &user], 403, "insufficient_group"),
            ("POST", "/", vec![NAVIGATE, &user, "content-length: 0"], 403, "cross_site"),
            ("GET", "/", vec![NAVIGATE, &unknown], 503, "keys_unavailable"),
        ] {
            let what = format!("{listener} {method} {path} {lines:?}");
            let response = send(envoy, method, path, &lines).await;
            assert_eq!(response.verdict(), (status, reason.into()), "{what}");
            assert_eq!(response.header("location"), None, "{what}");
            assert_eq!(response.header("www-authenticate").is_some(), status == 401, "{what}");
            assert_eq!(response.header("retry-after").is_some(), status == 503, "{what}");
        }
        let upgrade = [NAVIGATE, ACCEPT, "Connection: Upgrade", "Upgrade: websocket"];
        let refused = fetch(envoy, "/", &upgrade).await;
        assert_ne!(refused.status, 302, "{listener}: {refused:?}");
    }
}

#[tokio::test]
async fn a_revoked_session_signs_in_again_with_the_password() {
    let (stage, ..) = start().await;
    let token = TokenBuilder::access().claim("jti", "8f2f2d6f-1111-4222-8333-944455556666").sign(SigningKey::shared());
    let session = cookie(&token);
    let envoy = stage.envoy.address(LISTENERS[0]);
    assert_eq!(fetch(envoy, "/", &[NAVIGATE, &session]).await.status, 200);
    let revoked = reqwest::Client::new()
        .post(format!("http://{}/revocations", stage.service.admin))
        .bearer_auth(OPERATORS)
        .header("content-type", "application/json")
        .body(json!({ "sub": SUB }).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status(), 200);
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let response = fetch(envoy, "/a", &[NAVIGATE, &session]).await;
        assert_redirected(&response, "revoked", "?return_to=%2Fa&prompt=login", listener);
        assert_eq!(fetch(envoy, "/a", &[&session]).await.verdict(), (401, "revoked".into()));
    }
}

#[tokio::test]
async fn no_byte_of_a_path_becomes_part_of_the_address() {
    let (stage, ..) = start().await;
    let long = |bytes: usize| format!("/{}", "a".repeat(bytes - 1)).into_bytes();
    let encoded = |path: &[u8]| {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        path.iter()
            .map(|byte| if unreserved(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
            .collect::<String>()
    };
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let expected = |path: &[u8]| Some(format!("/auth/oauth/sign-in?return_to={}", encoded(path)));
        for (path, sent_along) in [
            (b"/a?q=\"'<>\\`{}|^[]".to_vec(), true),
            (b"/a?q=%0d%0aset-cookie:%20a=b".to_vec(), true),
            (b"/a?return_to=https://evil.example&prompt=none".to_vec(), true),
            (b"/a?//evil.example/../%2e%2e\\".to_vec(), true),
            (b"/caf%C3%A9?%".to_vec(), true),
            (b"/a?+&&==;;,$!*()@:?/".to_vec(), true),
            (long(2048), true),
            (long(2049), false),
            ([&long(10)[..], b"?", &long(8000)].concat(), false),
        ] {
            let target = String::from_utf8(path.clone()).unwrap();
            let response = fetch(envoy, &target, &[NAVIGATE]).await;
            assert_eq!(response.status, 302, "{listener} {target} {response:?}");
            let bare = Some("/auth/oauth/sign-in".to_owned());
            let location = response.header("location").map(str::to_owned);
            assert_eq!(location, if sent_along { expected(&path) } else { bare }, "{listener}");
        }
        // Envoy or the service may refuse such a path, or change it, but no line break and no other host gets through.
        for path in [
            &b"/a\xff\xc3\xa9"[..],
            b"/a?\xff",
            b"/\"'<>",
            b"/a\tb",
            b"/a\x01",
            b"//evil.example",
            b"/\\evil.example",
            b"/%0d%0aset-cookie:a=b",
            b"/a/%2e%2e/%2Fevil.example",
            b"/a#https://evil.example",
            b"https://evil.example/a",
        ] {
            let bytes = [b"GET ", path, b" HTTP/1.1\r\nHost: api.test\r\n", NAVIGATE.as_bytes(), b"\r\n\r\n"].concat();
            let response = exchange_bytes(envoy, &bytes).await;
            let what = format!("{listener} {}: {response:?}", String::from_utf8_lossy(path));
            assert_eq!(response.header("set-cookie"), None, "{what}");
            let Some(location) = response.header("location") else {
                assert!(matches!(response.status, 400 | 403), "{what}");
                continue;
            };
            if response.status != 307 {
                let value = location.strip_prefix("/auth/oauth/sign-in?return_to=%2F");
                let plain =
                    |value: &str| value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte));
                assert!(response.status == 302 && value.is_some_and(plain), "{what}");
            }
        }
    }
}
