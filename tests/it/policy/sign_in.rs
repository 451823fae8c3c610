//! `sign_in: redirect`: parts of a refusal that a redirect changes, and those that it does not.

use super::{Stage, ours};
use crate::support::client::Ask;
use crate::support::service::SIGN_IN;
use crate::support::token::TokenBuilder;

const FILE: &str = "
default: pages
policies:
  pages: {sign_in: redirect, cors_origins: ['https://app.example.com'], from: {header: X-Token}}
  all: {sign_in: redirect}
routes: [{path_prefix: /auth, policy: all}]
";

#[tokio::test]
async fn a_redirect_is_counted_and_described_like_the_refusal() {
    let stage = Stage::with(FILE, &SIGN_IN).await;
    let expired = format!("__Host-access_token={}", ours(TokenBuilder::access().expires_in(-600)));
    for (reason, pool, cookie) in [("missing_credential", "", "a=b"), ("expired", "default", &*expired)] {
        let ask = || Ask::get("/a?b").header("cookie", cookie);
        let refused = stage.ask(ask()).await;
        let redirected = stage.ask(ask().header("sec-fetch-mode", "navigate")).await;
        assert_eq!((refused.status, redirected.status), (401, 302));
        assert_eq!((&*refused.reason, &*redirected.reason), (reason, reason), "status and body");
        assert_eq!(redirected.metadata, refused.metadata);
        assert_eq!(redirected.text("decision"), "deny");
        assert!(refused.headers.contains_key("www-authenticate") && !refused.headers.contains_key("location"));
        let headers: Vec<_> = redirected.all_headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("location", "/auth/oauth/sign-in?return_to=%2Fa%3Fb"),
        ];
        assert_eq!(headers, expected);
        assert_eq!(stage.counted("deny", "pages", pool, reason).await, 2.0, "{reason}");
    }
    // A page of a listed origin may read it, as any refusal.
    let ask = Ask::get("/").header("sec-fetch-mode", "navigate").header("origin", "https://app.example.com");
    let answer = stage.ask(ask).await;
    assert_eq!((answer.status, &*answer.headers["access-control-allow-origin"]), (302, "https://app.example.com"));
}

#[tokio::test]
async fn a_token_in_another_place_and_the_sign_in_itself_are_not_redirected() {
    let stage = Stage::with(FILE, &SIGN_IN).await;
    let navigate = |path: &str| Ask::get(path).header("sec-fetch-mode", "navigate");
    let expired = ours(TokenBuilder::access().expires_in(-600));
    let answer = stage.ask(navigate("/").header("x-token", &expired)).await;
    assert_eq!(answer.verdict(), (401, "expired"));
    for path in ["/auth/oauth/sign-in", "/auth/oauth/sign-in?return_to=%2F", "/auth/oauth/callback", "/auth/oauth/"] {
        assert_eq!(stage.ask(navigate(path)).await.verdict(), (401, "missing_credential"), "{path}");
    }
    for path in ["/auth/oauth", "/auth/oauths/x", "/auth/user", "/"] {
        assert_eq!(stage.ask(navigate(path)).await.status, 302, "{path}");
    }
    let answer = stage.ask(navigate("/").policy("absent")).await;
    assert_eq!(answer.verdict(), (403, "unknown_policy"));
}

#[tokio::test]
async fn the_prefix_of_the_account_api_is_part_of_the_address() {
    let uri = "https://app.example.com/a/b/oauth/callback";
    let flags = ["--account-prefix", "/a/b", "--oauth-redirect-uris", uri];
    let stage = Stage::with(FILE, &[&SIGN_IN[..], &flags].concat()).await;
    let answer = stage.ask(Ask::get("/").header("accept", "text/html")).await;
    assert_eq!((answer.status, &*answer.headers["location"]), (302, "/a/b/oauth/sign-in?return_to=%2F"));
}
