//! Ending a session by a navigation, and who may cause it.

use reqwest::Method;
use serde_json::json;

use super::{ACCESS, Browser, GOODBYE, REFRESH, with_fake_pages};
use crate::support::client::{Ask, connect, metric};
use crate::support::fake_cognito::{oauth_tokens, refusal};
use crate::support::jwks_server::Reply;
use crate::support::token::{SigningKey, TokenBuilder};

const PATH: &str = "/auth/oauth/sign-out";
const OWN: (&str, &str) = ("origin", "https://app.example.com");

#[tokio::test]
async fn only_the_own_origin_and_the_user_sign_out_without_a_question() {
    let listed = "https://partner.example.com";
    let (app, mut browser, fake) = with_fake_pages(&["--cors-origins", listed]).await;
    let site = |site: &'static str| ("sec-fetch-site", site);
    for (method, headers, signs_out) in [
        (Method::GET, &[site("same-origin")][..], true),
        (Method::GET, &[site("none")], true),
        (Method::GET, &[site("same-site")], false),
        (Method::GET, &[site("cross-site")], false),
        (Method::GET, &[], true),
        (Method::POST, &[OWN, site("same-origin")], true),
        (Method::POST, &[OWN], true),
        (Method::POST, &[site("same-origin")], true),
        (Method::POST, &[("origin", "null"), site("same-origin")], false),
        (Method::POST, &[("origin", "https://evil.example"), site("cross-site")], false),
        (Method::POST, &[("origin", "https://api.example.com"), site("same-site")], false),
        // An origin of `--cors-origins` may use the API, and not this route.
        (Method::POST, &[("origin", listed), site("same-site")], false),
        (Method::POST, &[], false),
    ] {
        fake.answers(|_, _| oauth_tokens(&json!({})));
        browser.jar.clear();
        browser.sign_in().await;
        browser.begin_anew("/other").await;
        let jar = browser.jar.clone();
        fake.answers(|_, _| Reply::ok("{}"));
        let seen = browser.navigate(method.clone(), PATH, headers).await;
        if signs_out {
            assert_eq!(seen.parameter("logout_uri"), GOODBYE, "{method} {headers:?}");
            assert!(seen.location().starts_with(&format!("{}/logout?", fake.url)));
            assert!(browser.jar.is_empty(), "all cookies are gone: {:?}", browser.jar);
            assert_eq!(fake.operations(), ["RevokeToken"], "the token lacks the scope for GlobalSignOut");
            continue;
        }
        assert_eq!(seen.verdict(), (403, "cross_site"), "{method} {headers:?}");
        assert!(fake.calls().is_empty() && browser.jar == jar, "nothing has changed");
        assert!(seen.html.contains("<form method=\"post\" action=\"/auth/oauth/sign-out\"><button type=\"submit\">"));
        // Otherwise the browser would send `Origin: null` with the form.
        assert_eq!(seen.header("referrer-policy"), "same-origin");
        assert!(!seen.header("content-security-policy").contains("form-action"), "the form leads to other origins");
        assert!(seen.header("access-control-allow-origin").is_empty());
    }
    let counted = "account_requests_total{operation=\"oauth-sign-out\",outcome=\"cross_site\"}";
    assert_eq!(metric(&app.admin, counted).await, 7.0);
}

#[tokio::test]
async fn a_proxy_that_rewrites_the_host_does_not_turn_the_own_origin_into_another() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    fake.answers(|_, _| Reply::ok("{}"));
    for (origin, status) in
        [("https://app.example.com", 302), ("https://evil.example", 403), ("http://app.example.com", 403)]
    {
        let headers = [("host", "internal:8080"), ("sec-fetch-mode", "navigate"), ("origin", origin)];
        assert_eq!(browser.send(Method::POST, PATH, &headers).await.status, status, "{origin}");
    }
    // With several callbacks, the host has to be one of theirs, and each origin signs itself out only.
    let more = ["--oauth-redirect-uris", "https://other.example.com/auth/oauth/callback"];
    let (_app, mut browser, _fake) = with_fake_pages(&more).await;
    for (host, origin, status) in [
        ("app.example.com", "https://app.example.com", 302),
        ("app.example.com", "https://other.example.com", 403),
        ("internal:8080", "https://app.example.com", 403),
    ] {
        let headers = [("host", host), ("sec-fetch-mode", "navigate"), ("origin", origin)];
        assert_eq!(browser.send(Method::POST, PATH, &headers).await.status, status, "{host} {origin}");
    }
}

#[tokio::test]
async fn a_sign_out_revokes_the_session_at_once() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    let with_scope = TokenBuilder::access().claim("scope", "openid aws.cognito.signin.user.admin");
    let access = with_scope.sign(SigningKey::shared());
    fake.answers(move |_, _| oauth_tokens(&json!({"access_token": access})));
    browser.sign_in().await;
    let cookie = browser.header();
    let channel = connect(&app.grpc[0]).await;
    let ask = async || Ask::get("/orders").header("cookie", &cookie).of(&channel).await;
    assert_eq!(ask().await.verdict(), (200, ""));
    fake.answers(|_, _| Reply::ok("{}"));
    let seen = browser.navigate(Method::POST, PATH, &[OWN]).await;
    assert_eq!(seen.parameter("logout_uri"), GOODBYE);
    assert_eq!(fake.operations(), ["GlobalSignOut", "RevokeToken"]);
    assert_eq!(ask().await.verdict(), (401, "revoked"), "the access token is refused at once");
}

#[tokio::test]
async fn a_dead_session_is_signed_out_too() {
    let (app, _, fake) = with_fake_pages(&[]).await;
    fake.answers(|_, _| Reply::ok("{}"));
    let expired = TokenBuilder::access().expires_in(-600).sign(SigningKey::shared());
    let scopeless = TokenBuilder::access().claim("scope", "openid").sign(SigningKey::shared());
    for (cookies, calls) in [
        (vec![], &[][..]),
        (vec![(REFRESH, "r")], &["RevokeToken"]),
        (vec![(ACCESS, &*expired), (REFRESH, "r")], &["RevokeToken"]),
        (vec![(ACCESS, "x"), (REFRESH, "\"damaged\"")], &[]),
        (vec![(ACCESS, &expired)], &[]),
        (vec![(ACCESS, &scopeless)], &[]),
    ] {
        let mut browser = Browser::new(&app.admin);
        for (name, value) in &cookies {
            browser.keep(name, value);
        }
        fake.answers(|_, _| Reply::ok("{}"));
        let seen = browser.navigate(Method::POST, PATH, &[OWN]).await;
        assert_eq!(seen.parameter("logout_uri"), GOODBYE, "{cookies:?}");
        assert_eq!(fake.operations(), calls, "{cookies:?}");
        assert!(browser.jar.is_empty(), "{:?}", browser.jar);
    }
    // A refresh token that Cognito does not know any more.
    fake.refuses("NotAuthorizedException", "revoked");
    let mut browser = Browser::new(&app.admin);
    browser.keep(REFRESH, "r");
    assert_eq!(browser.navigate(Method::POST, PATH, &[OWN]).await.status, 302);
    assert!(browser.jar.is_empty());

    // The access token works until then, and a copy of it does not afterwards.
    let channel = connect(&app.grpc[0]).await;
    for refresh in [None, Some("r")] {
        let session = refresh.unwrap_or("none");
        let access =
            TokenBuilder::access().claim("scope", "openid").claim("origin_jti", session).sign(SigningKey::shared());
        let mut browser = Browser::new(&app.admin);
        browser.keep(ACCESS, &access);
        if let Some(refresh) = refresh {
            browser.keep(REFRESH, refresh);
        }
        let cookie = browser.header();
        let ask = async || Ask::get("/orders").header("cookie", &cookie).of(&channel).await;
        assert_eq!(ask().await.verdict(), (200, ""));
        assert_eq!(browser.navigate(Method::POST, PATH, &[OWN]).await.status, 302);
        assert_eq!(ask().await.verdict(), (401, "revoked"), "{session}");
    }
}

#[tokio::test]
async fn while_cognito_is_down_the_user_stays_signed_in_and_can_try_again() {
    let (_app, mut browser, fake) = with_fake_pages(&["--cognito-timeout", "1s"]).await;
    browser.sign_in().await;
    let jar = browser.jar.clone();
    for (reply, expected) in [
        (Reply::status(503), (503, "upstream_unavailable")),
        (refusal("TooManyRequestsException", "x"), (429, "rate_limited")),
        (refusal("ResourceNotFoundException", "x"), (502, "upstream_error")),
    ] {
        fake.answers(move |_, _| reply.clone());
        let seen = browser.navigate(Method::POST, PATH, &[OWN]).await;
        assert_eq!((seen.verdict(), &browser.jar), (expected, &jar));
        assert!(seen.html.contains("Try again</button></form>"), "{}", seen.html);
        assert_eq!(seen.header("referrer-policy"), "same-origin");
    }
    fake.answers(|_, _| Reply::ok("{}"));
    assert_eq!(browser.navigate(Method::POST, PATH, &[OWN]).await.status, 302);
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_said_and_the_session_is_over_at_this_replica() {
    // Discard (RFC 863): nothing listens there.
    let (app, mut browser, fake) = with_fake_pages(&["--revocation-url", "redis://127.0.0.1:9"]).await;
    browser.sign_in().await;
    let jar = browser.jar.clone();
    let channel = connect(&app.grpc[0]).await;
    let cookie = browser.header();
    let ask = async || Ask::get("/orders").header("cookie", &cookie).of(&channel).await;
    assert_eq!(ask().await.verdict(), (200, ""));
    fake.answers(|_, _| Reply::ok("{}"));
    let seen = browser.navigate(Method::POST, PATH, &[OWN]).await;
    assert_eq!((seen.verdict(), &browser.jar), ((503, "upstream_unavailable"), &jar));
    assert_eq!(ask().await.verdict(), (401, "revoked"));
    // The second try ends the refresh token again, and the browser's session.
    assert_eq!(browser.navigate(Method::POST, PATH, &[OWN]).await.parameter("logout_uri"), GOODBYE);
    assert_eq!(fake.operations(), ["RevokeToken"; 2]);
    assert!(browser.jar.is_empty());
}

#[tokio::test]
async fn without_a_logout_uri_the_browser_returns_to_the_start_page() {
    let fake = crate::support::fake_cognito::FakeCognito::start().await;
    let flags = super::flags(&fake.url);
    let without: Vec<_> =
        flags.iter().map(String::as_str).filter(|flag| ![GOODBYE, "--oauth-logout-uris"].contains(flag)).collect();
    let flags = [&without[..], &["--cognito-endpoint", &fake.url]].concat();
    let app = crate::support::service::TestApp::start(&flags);
    crate::account::sign_in::ready(&app.admin).await;
    let mut browser = Browser::new(&app.admin);
    let seen = browser.navigate(Method::POST, PATH, &[OWN]).await;
    assert_eq!(seen.location(), "/");
}
