//! Renewing a session without a visible step, and the limit of rounds.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::{ACCESS, Browser, REFRESH, with_fake_pages};
use crate::support::client::{Ask, connect, metric};
use crate::support::fake_cognito::{oauth_tokens, refusal, slowly, tokens};
use crate::support::jwks_server::Reply;

/// Signs in, and lets the access cookie expire.
async fn expired(browser: &mut Browser) {
    browser.sign_in().await;
    browser.lose(ACCESS);
    browser.lose("__Host-sign_in_rounds");
}

#[tokio::test]
async fn one_redirect_renews_a_session_and_keeps_the_page() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    expired(&mut browser).await;
    fake.answers(|_, _| tokens(&json!({"RefreshToken": "rotated"})));
    for path in ["/auth/oauth/sign-in", "/auth/oauth/renew"] {
        browser.lose(ACCESS);
        let seen = browser.open(&format!("{path}?return_to=%2Forders%3Fq%3D%2520%26x")).await;
        assert_eq!(seen.location(), "/orders?q=%20&x");
        assert_eq!(browser.cookie(REFRESH), "rotated");
        let answer = Ask::get("/orders").header("cookie", &browser.header()).of(&connect(&app.grpc[0]).await).await;
        assert_eq!(answer.verdict(), (200, ""));
    }
    assert_eq!(fake.operations(), ["GetTokensFromRefreshToken"; 2]);
    assert_eq!(fake.calls()[1].body["RefreshToken"], "rotated");
    // `prompt=login` and a browser without a refresh cookie go to the hosted pages.
    let seen = browser.open("/auth/oauth/sign-in?return_to=%2Fa&prompt=login").await;
    assert_eq!(seen.parameter("prompt"), "login");
    let seen = browser.open("/auth/oauth/sign-in?return_to=%2Fa&prompt=none").await;
    assert_eq!(seen.location(), "/a");
    browser.lose(REFRESH);
    for path in ["/auth/oauth/sign-in", "/auth/oauth/renew", "/auth/oauth/renew?prompt=login"] {
        assert_eq!(browser.open(path).await.parameter("prompt"), "", "{path}");
    }
    assert_eq!(fake.calls().len(), 3);
    let counted = "account_requests_total{operation=\"oauth-renew\",outcome=\"success\"}";
    assert_eq!(metric(&app.admin, counted).await, 3.0);
    // The refresh that the API makes still returns the body without tokens, and sets no rounds.
    assert_eq!(browser.navigate(Method::HEAD, "/auth/oauth/sign-in", &[]).await.status, 302);
}

#[tokio::test]
async fn tabs_that_renew_at_once_share_one_call() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    expired(&mut browser).await;
    fake.answers(|_, _| slowly(tokens(&json!({"RefreshToken": "rotated"})), Duration::from_millis(300)));
    let tabs = [browser.clone(), browser.clone(), browser.clone(), browser];
    let [a, b, c, d] = tabs;
    let renew = async |mut tab: Browser, page: &str| {
        let seen = tab.open(&format!("/auth/oauth/sign-in?return_to={page}")).await;
        (seen.location().to_owned(), tab.cookie(REFRESH).to_owned())
    };
    let (a, b, c, d) = tokio::join!(renew(a, "/1"), renew(b, "/2"), renew(c, "/3"), renew(d, "/4"));
    for (n, tab) in [a, b, c, d].into_iter().enumerate() {
        assert_eq!(tab, (format!("/{}", n + 1), "rotated".to_owned()));
    }
    assert_eq!(fake.operations(), ["GetTokensFromRefreshToken"]);
}

#[tokio::test]
async fn a_refused_refresh_token_leads_to_the_hosted_pages() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    expired(&mut browser).await;
    for (error, message) in [
        ("NotAuthorizedException", "Refresh Token has been revoked"),
        ("RefreshTokenReuseException", "reuse"),
        ("UserNotFoundException", "no such user"),
        ("ResourceNotFoundException", "no such client"),
    ] {
        fake.refuses(error, message);
        let seen = browser.open("/auth/oauth/sign-in?return_to=%2Forders").await;
        assert!(seen.location().contains("/oauth2/authorize?"), "{error}: {seen:?}");
        assert_eq!(browser.cookie(REFRESH), "r", "another tab may have replaced it: it is not deleted");
    }
    // A refresh cookie that is damaged or repeated counts as none.
    for jar in [vec![(REFRESH, "a"), (REFRESH, "b")], vec![(REFRESH, "2~a")], vec![(REFRESH, "\"a\"")]] {
        let mut tossed = Browser::new(&app.admin);
        tossed.jar = jar.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let asked = fake.calls().len();
        let state = tossed.begin("/orders").await;
        assert_eq!(fake.calls().len(), asked);
        fake.answers(|_, _| oauth_tokens(&json!({})));
        assert_eq!(tossed.come_back(&format!("code=c&state={state}")).await.location(), "/orders");
        tossed.jar.dedup_by(|(one, _), (other, _)| one == other);
        assert_eq!(tossed.cookie(REFRESH), "r");
    }
}

#[tokio::test]
async fn while_cognito_is_down_the_cookies_stay() {
    let (app, mut browser, fake) = with_fake_pages(&["--cognito-timeout", "1s"]).await;
    expired(&mut browser).await;
    let jar = browser.jar.clone();
    for (reply, expected) in [
        (Reply::status(503), (503, "upstream_unavailable")),
        (refusal("TooManyRequestsException", "slow down"), (429, "rate_limited")),
        (refusal("InternalErrorException", "x"), (503, "upstream_unavailable")),
    ] {
        fake.answers(move |_, _| reply.clone());
        for path in ["sign-in", "renew"] {
            let seen = browser.open(&format!("/auth/oauth/{path}?return_to=%2Forders")).await;
            assert_eq!(seen.verdict(), expected);
            assert_eq!(seen.link(), "/auth/oauth/sign-in?return_to=%2Forders");
            assert!(!seen.header("retry-after").is_empty());
            assert_eq!(browser.jar, jar);
        }
    }
    assert!(
        metric(&app.admin, "account_requests_total{operation=\"oauth-renew\",outcome=\"rate_limited\"}").await > 0.0
    );
    fake.answers(|_, _| tokens(&json!({})));
    let seen = browser.open("/auth/oauth/renew?return_to=%2Forders").await;
    assert_eq!(seen.location(), "/orders");
}

#[tokio::test]
async fn a_renewed_session_that_does_not_fit_ends_on_a_page() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    expired(&mut browser).await;
    fake.answers(|_, _| tokens(&json!({"RefreshToken": "r".repeat(16_385)})));
    let seen = browser.open("/auth/oauth/sign-in").await;
    assert_eq!(seen.verdict(), (502, "session_too_large"));
    assert_eq!(browser.cookie(REFRESH), "r");
}

#[tokio::test]
async fn a_fourth_round_for_the_same_page_within_a_minute_is_a_page() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    // Sign-ins and renewals count together.
    browser.sign_in().await;
    browser.lose("__Host-sign_in_rounds");
    let state = browser.begin_anew("/orders").await;
    assert_eq!(browser.come_back(&format!("code=c&state={state}")).await.location(), "/orders");
    fake.answers(|_, _| tokens(&json!({})));
    for path in ["sign-in", "renew"] {
        assert_eq!(browser.open(&format!("/auth/oauth/{path}?return_to=%2Forders")).await.location(), "/orders");
    }
    for path in ["sign-in?", "renew?", "sign-in?prompt=login&"] {
        let (mut browser, calls) = (browser.clone(), fake.calls().len());
        let seen = browser.open(&format!("/auth/oauth/{path}return_to=%2Forders")).await;
        assert_eq!(seen.verdict(), (400, "sign_in_loop"));
        assert_eq!(fake.calls().len(), calls, "Cognito is not asked");
        assert!(seen.link().starts_with("/auth/oauth/sign-in?return_to=%2Forders"));
        assert!(browser.names("__Host-sign_in_rounds").is_empty() && !browser.cookie(ACCESS).is_empty());
        // The user can try again.
        assert_eq!(browser.open("/auth/oauth/renew?return_to=%2Forders").await.location(), "/orders");
    }
    // Other pages do not count.
    for n in 0..9 {
        assert_eq!(browser.open(&format!("/auth/oauth/renew?return_to=%2Fpage%2F{n}")).await.status, 302);
    }
    assert!(browser.names("__Host-sign_in_rounds").len() <= 9, "{:?}", browser.names("__Host"));
    let counted = "account_requests_total{operation=\"oauth-sign-in\",outcome=\"sign_in_loop\"}";
    assert_eq!(metric(&app.admin, counted).await, 2.0);
}
