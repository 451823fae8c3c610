//! The way back from the hosted pages: several tabs, late callbacks, replicas, errors, large sessions.

use reqwest::Method;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::{ACCESS, Browser, flags, with_code, with_fake_pages};
use crate::account::sign_in::ready;
use crate::support::client::{Ask, connect, metric};
use crate::support::fake_cognito::{FakeCognito, oauth_tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, TokenBuilder, unix_now};

#[tokio::test]
async fn several_tabs_sign_in_at_once() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    let mut tabs = Vec::new();
    for n in 0..7 {
        let page = format!("/tab/{n}?x=y%20z&n={n}");
        tabs.push((browser.begin(&page).await, page));
    }
    assert_eq!(browser.names("__Host-sign_in.").len(), 5, "{:?}", browser.jar);
    // In another order than they began. The two oldest are forgotten.
    for (state, page) in tabs.iter().skip(2).rev() {
        let seen = browser.come_back(&with_code(state)).await;
        assert_eq!(seen.location(), page);
    }
    assert!(browser.names("__Host-sign_in.").is_empty(), "{:?}", browser.jar);
    assert_eq!(fake.calls().len(), 5);
    browser.lose(ACCESS);
    for (state, _) in &tabs[..2] {
        assert_eq!(browser.come_back(&with_code(state)).await.verdict(), (400, "invalid_state"));
    }
    assert_eq!(fake.calls().len(), 5);
}

#[tokio::test]
async fn a_callback_that_comes_late_ends_at_the_start_page_or_on_a_page() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    let state = browser.begin("/orders").await;
    let before = browser.clone();
    assert_eq!(browser.come_back(&with_code(&state)).await.location(), "/orders");
    // The back button: the state was used, and its cookie is gone.
    assert_eq!(browser.come_back(&with_code(&state)).await.location(), "/");
    // Another tab was open before, so the browser restored the cookie.
    let mut restored = before;
    let seen = restored.come_back(&with_code(&state)).await;
    assert_eq!(seen.verdict(), (400, "invalid_state"));
    assert_eq!(seen.link(), "/auth/oauth/sign-in?return_to=%2F");
    assert!(restored.names("__Host-sign_in.").is_empty());
    // Without a session, and with one that does not verify.
    for access in ["", "x.y.z"] {
        let mut stranger = Browser::new(&app.admin);
        if !access.is_empty() {
            stranger.keep(ACCESS, access);
        }
        for query in [
            &*with_code(&state),
            "",
            "state=",
            "code=c",
            "state=x",
            "state=%00%ff&code=c",
            &with_code(&"a".repeat(9000)),
        ] {
            let seen = stranger.come_back(query).await;
            assert_eq!(seen.verdict(), (400, "invalid_state"), "{query}");
            assert!(stranger.set.is_empty(), "{:?}", stranger.set);
        }
    }
    for repeated in ["code=c&code=d&state=s", "state=s&state=s", "error=a&error=b", "iss=a&iss=b"] {
        assert_eq!(browser.come_back(repeated).await.verdict(), (400, "invalid_request"), "{repeated}");
    }
    assert_eq!(fake.calls().len(), 1, "one code was sent");
    assert!(
        metric(&app.admin, "account_requests_total{operation=\"oauth-callback\",outcome=\"invalid_state\"}").await
            > 9.0
    );
}

#[tokio::test]
async fn a_browser_that_blocks_cookies_gets_a_page_and_no_loop() {
    let (app, _, fake) = with_fake_pages(&[]).await;
    let mut browser = Browser::new(&app.admin);
    let state = browser.begin("/orders").await;
    browser.jar.clear();
    let seen = browser.come_back(&with_code(&state)).await;
    assert_eq!(seen.verdict(), (400, "invalid_state"));
    assert!(seen.html.contains("allow cookies for this site"), "{}", seen.html);
    assert!(browser.jar.is_empty() && fake.calls().is_empty());
}

#[tokio::test]
async fn a_replica_with_the_same_key_completes_the_sign_in_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "k".repeat(32)).unwrap();
    let shared = ["--oauth-state-key-file", key.to_str().unwrap()];
    for (more, expected) in [(&shared[..], "/orders"), (&[], "")] {
        let (_one, mut browser, _) = with_fake_pages(more).await;
        let (other, _, fake) = with_fake_pages(more).await;
        let state = browser.begin("/orders").await;
        let mut browser = browser.at(&other.admin);
        let seen = browser.come_back(&with_code(&state)).await;
        match expected {
            "" => assert_eq!(seen.verdict(), (400, "invalid_state")),
            page => assert_eq!(seen.location(), page),
        }
        assert_eq!(fake.calls().len(), usize::from(!expected.is_empty()));
    }
}

#[tokio::test]
async fn errors_of_the_hosted_pages_end_on_a_page_that_names_them() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    for (error, shown) in [
        ("access_denied", "access_denied"),
        ("server_error", "server_error"),
        ("login_required", "login_required"),
        ("<script>alert(1)</script>", "unknown_error"),
        ("Invalid+phone+number", "unknown_error"),
    ] {
        let state = browser.begin("/orders?a=b").await;
        let query = format!("error={error}&error_description=secret+words&state={state}");
        let seen = browser.come_back(&query).await;
        assert_eq!(seen.verdict(), (400, shown));
        assert!(!seen.html.contains("secret words") && !seen.html.contains("alert"), "{}", seen.html);
        assert_eq!(seen.link(), "/auth/oauth/sign-in?return_to=%2Forders%3Fa%3Db");
        assert!(browser.jar.is_empty());
    }
    assert_eq!(browser.come_back("error=access_denied").await.verdict(), (400, "invalid_state"), "without a state");
    let state = browser.begin("/").await;
    assert_eq!(browser.come_back(&format!("state={state}")).await.verdict(), (400, "invalid_request"));
    for (reply, expected) in [
        (Reply { status: 400, ..Reply::ok(r#"{"error":"invalid_grant"}"#) }, (400, "invalid_code")),
        (Reply { status: 400, ..Reply::ok(r#"{"error":"invalid_client"}"#) }, (502, "upstream_error")),
        (Reply::status(429), (429, "rate_limited")),
        (Reply::status(503), (503, "upstream_unavailable")),
        (Reply::ok("{}"), (502, "upstream_error")),
        (oauth_tokens(&json!({"access_token": "opaque"})), (502, "upstream_error")),
    ] {
        fake.answers(move |_, _| reply.clone());
        let state = browser.begin("/orders").await;
        let seen = browser.come_back(&with_code(&state)).await;
        assert_eq!(seen.verdict(), expected);
        assert_eq!(seen.headers.contains_key("retry-after"), matches!(seen.status, 429 | 503));
        assert!(browser.jar.is_empty(), "{:?}", browser.jar);
        assert_eq!(fake.calls().len(), 1, "a code is sent once");
    }
    let counted = "account_requests_total{operation=\"oauth-callback\",outcome=\"sign_in_failed\"}";
    assert_eq!(metric(&app.admin, counted).await, 5.0);
}

#[tokio::test]
async fn while_cognito_is_down_the_sign_in_can_be_repeated() {
    // The hosted pages are at a port where nothing listens, at first.
    let port = crate::support::tool::free_port();
    let fake = FakeCognito::start().await;
    let pages = format!("http://127.0.0.1:{port}");
    let flags = flags(&pages);
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(["--cognito-endpoint", &fake.url]).collect();
    let app = TestApp::start(&flags);
    ready(&app.admin).await;
    let mut browser = Browser::new(&app.admin);
    let state = browser.begin("/orders").await;
    let jar = browser.jar.clone();
    for _ in 0..2 {
        let seen = browser.come_back(&with_code(&state)).await;
        assert_eq!(seen.verdict(), (503, "upstream_unavailable"));
        assert_eq!((seen.link(), seen.header("retry-after")), (String::new(), "5"), "the link repeats the request");
        assert_eq!(browser.jar, jar, "the attempt stays");
        assert!(!seen.html.contains(&state));
    }
    // The hosted pages are back.
    fake.answers(|_, _| oauth_tokens(&json!({})));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let target = fake.url.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { drop(copy_bidirectional(&mut client, &mut server).await) });
        }
    });
    assert_eq!(browser.come_back(&with_code(&state)).await.location(), "/orders");
    assert_eq!(fake.operations(), ["OauthToken"]);
}

#[tokio::test]
async fn a_revoked_sign_in_of_the_hosted_pages_is_asked_for_again_once() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    browser.sign_in().await;
    let seen = browser.navigate(Method::POST, "/auth/oauth/sign-out", &[("origin", "https://app.example.com")]).await;
    assert!(seen.location().contains("/logout?"));
    // The hosted pages have kept their own session, and issue tokens of the old sign-in.
    let old = unix_now() - 60;
    let of_old = move || {
        let sign = |token: TokenBuilder| token.claim("auth_time", old).claim("iat", old).sign(SigningKey::shared());
        oauth_tokens(&json!({"access_token": sign(TokenBuilder::access().claim("scope", "openid")),
            "id_token": sign(TokenBuilder::id())}))
    };
    fake.answers(move |_, _| of_old());
    let state = browser.begin("/orders?x=1").await;
    let seen = browser.come_back(&with_code(&state)).await;
    assert_eq!((&*seen.parameter("prompt"), browser.names("__Host-sign_in.").len()), ("login", 1));
    let again = seen.parameter("state");
    assert_ne!(again, state);
    let seen = browser.come_back(&with_code(&again)).await;
    assert_eq!(seen.verdict(), (401, "invalid_token"));
    assert!(
        seen.html.contains("action=\"/auth/oauth/sign-out\""),
        "only the end of the old session helps: {}",
        seen.html
    );
    assert!(browser.jar.is_empty(), "{:?}", browser.jar);
}

#[tokio::test]
async fn the_clock_of_cognito_can_differ_by_half_a_minute() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    for skew in [-30, 30] {
        let now = unix_now() + skew;
        let sign = move |token: TokenBuilder| {
            token.claim("iat", now).claim("auth_time", now).claim("exp", now + 300).sign(SigningKey::shared())
        };
        fake.answers(move |_, _| {
            let date = httpdate::fmt_http_date(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.unsigned_abs()));
            let reply = oauth_tokens(&json!({"access_token": sign(TokenBuilder::access()), "id_token": sign(TokenBuilder::id()), "expires_in": 300}));
            Reply { headers: vec![("date", date)], ..reply }
        });
        browser.jar.clear();
        let state = browser.begin("/orders").await;
        assert_eq!(browser.come_back(&with_code(&state)).await.location(), "/orders", "{skew}");
        let answer = Ask::get("/orders").header("cookie", &browser.header()).of(&connect(&app.grpc[0]).await).await;
        assert_eq!(answer.verdict(), (200, ""), "{skew}");
    }
}

#[tokio::test]
async fn a_session_that_does_not_fit_into_cookies_ends_on_a_page() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    let groups = |count: usize| (0..count).map(|n| format!("team-{n:04}")).collect::<Vec<_>>();
    let of =
        move |count: usize| TokenBuilder::access().claim("cognito:groups", groups(count)).sign(SigningKey::shared());
    // The largest number of groups with which the token has at most 16 KiB.
    let most = (0..2000).rev().find(|count| 600 + count * 12 * 4 / 3 < 16_384 && of(*count).len() <= 16_384).unwrap();
    for (count, fits) in [(most, true), (most + 1, false)] {
        fake.answers(move |_, _| oauth_tokens(&json!({"access_token": of(count)})));
        browser.jar.clear();
        let state = browser.begin("/orders").await;
        let seen = browser.come_back(&with_code(&state)).await;
        if !fits {
            assert_eq!(seen.verdict(), (502, "session_too_large"), "{}", of(count).len());
            assert!(browser.jar.is_empty(), "{:?}", browser.names(""));
            continue;
        }
        assert_eq!((seen.location(), browser.names(ACCESS).len()), ("/orders", 5));
        let answer = Ask::get("/orders").header("cookie", &browser.header()).of(&connect(&app.grpc[0]).await).await;
        assert_eq!(answer.verdict(), (200, ""));
        // Its requests have more than 16 KiB of cookies, and the service still reads them.
        assert!(browser.header().len() > 16_384);
        let seen = browser.come_back(&with_code(&state)).await;
        assert_eq!(seen.location(), "/");
    }
}
