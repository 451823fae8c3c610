//! Sign-in by redirect (`sign_in: redirect`) behind a real nginx, Traefik, Caddy and Envoy, with the files of `deploy/`.

use super::{Stage, assert_refused, good_token, identity};
use crate::support::http1::{Response, bearer, exchange_bytes, fetch, request};
use crate::support::proxies::Kind;
use crate::support::service::SIGN_IN;
use crate::support::token::{SigningKey, TokenBuilder};

const POLICIES: &str = "
default: pages
policies:
  pages: {sign_in: redirect}
  admin: {sign_in: redirect, groups: {any: [admins]}}
routes: [{path_prefix: /admin, policy: admin}]
";

const NAVIGATE: &str = "sec-fetch-mode: navigate";

#[track_caller]
fn assert_redirected(response: &Response, query: &str, what: &str) {
    assert_eq!(response.status, 302, "{what}: {response:?}");
    assert_eq!(response.header("location"), Some(&*format!("/auth/oauth/sign-in{query}")), "{what}");
    assert_eq!(response.header("www-authenticate"), None, "{what}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{what}");
}

#[tokio::test]
async fn each_proxy_redirects_a_browser_to_the_sign_in() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_available()) {
        let stage = Stage::with(kind, POLICIES, &SIGN_IN, |file| file).await;
        let proxy = &stage.proxy.address;
        let session = |token: &str| format!("cookie: __Host-access_token={token}");
        let expired = TokenBuilder::access().expires_in(-600).sign(SigningKey::shared());
        let what = format!("{kind:?}");
        for (path, lines, query) in [
            ("/orders?a=%22b%22&c", vec![NAVIGATE], "?return_to=%2Forders%3Fa%3D%2522b%2522%26c"),
            ("/", vec!["accept: text/html,*/*;q=0.8", "host: evil.example"], "?return_to=%2F"),
            ("/a?//evil.example", vec![NAVIGATE, &*session(&expired)], "?return_to=%2Fa%3F%2F%2Fevil.example"),
            (&*format!("/{}", "a".repeat(3000)), vec![NAVIGATE], ""),
        ] {
            assert_redirected(&fetch(proxy, path, &lines).await, query, &what);
        }

        // Everything else is refused as without the redirect, with its challenge.
        let challenge = Some("Bearer realm=\"api\"");
        for lines in [&["sec-fetch-mode: cors"][..], &["accept: */*"], &[NAVIGATE, "sec-purpose: prefetch"], &[]] {
            let refused = fetch(proxy, "/", lines).await;
            assert_refused(&refused, 401, "missing_credential", challenge, &what);
            assert_eq!(refused.header("location"), None, "{what}");
        }
        let refused = fetch(proxy, "/", &[NAVIGATE, &bearer(&expired)]).await;
        assert_eq!((refused.verdict(), refused.header("location")), ((401, "expired".into()), None), "{what}");
        let good = session(&good_token());
        let refused = fetch(proxy, "/admin", &[NAVIGATE, &good]).await;
        assert_refused(&refused, 403, "insufficient_group", None, &what);
        assert_eq!(refused.header("location"), None, "{what}");
        assert_eq!(identity(&fetch(proxy, "/", &[NAVIGATE, &good]).await.seen()).len(), 5, "{what}");

        // A body of the client does not matter, and nothing of a redirected request reaches the application.
        let mut page = request("GET", "/with-body", &[NAVIGATE, "content-length: 3"]);
        page.extend(b"abc");
        assert_redirected(&exchange_bytes(proxy, &page).await, "?return_to=%2Fwith-body", &what);
        assert!(stage.upstream.seen().iter().all(|seen| seen.path == "/" && !identity(seen).is_empty()), "{what}");
    }
}
