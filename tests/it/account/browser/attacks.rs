//! Attacks on a sign-in: planted cookies, foreign codes and states, other authorization servers, a forged host.

use reqwest::Method;
use serde_json::json;

use super::{ACCESS, Browser, CALLBACK, REFRESH, with_code, with_fake_pages};
use crate::support::client::{Ask, connect};
use crate::support::fake_cognito::oauth_tokens;
use crate::support::token::{ISSUER, SigningKey, TokenBuilder};

#[tokio::test]
async fn cookies_that_an_attacker_planted_are_replaced_at_sign_in() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    fake.answers(|_, _| oauth_tokens(&json!({"refresh_token": null})));
    // A long session of the attacker, in several pieces, and a refresh token.
    let theirs = TokenBuilder::access().claim("username", "mallory").claim("x", "a".repeat(9000));
    let theirs = theirs.sign(SigningKey::shared());
    let pieces: Vec<&str> = theirs.as_bytes().chunks(3800).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let (name, mark) = if n == 0 {
            (ACCESS.to_owned(), format!("{}~", pieces.len()))
        } else {
            (format!("{ACCESS}.{n}"), String::new())
        };
        browser.keep(&name, &format!("{mark}{piece}"));
    }
    browser.keep(REFRESH, "planted");
    browser.keep(&format!("{REFRESH}.1"), "planted");
    let ask = async |browser: &Browser| {
        Ask::get("/orders").header("cookie", &browser.header()).of(&connect(&app.grpc[0]).await).await
    };
    assert_eq!(ask(&browser).await.headers["x-auth-username"], "mallory");

    let seen = browser.open("/auth/oauth/sign-in?prompt=login").await;
    assert_eq!(seen.parameter("prompt"), "login");
    let state = seen.parameter("state");
    assert_eq!(browser.come_back(&with_code(&state)).await.location(), "/");
    assert_eq!(browser.names(ACCESS), [ACCESS], "the pieces are gone: {:?}", browser.jar);
    assert!(browser.names(REFRESH).is_empty(), "the refresh token is gone: {:?}", browser.jar);
    assert_ne!(ask(&browser).await.headers["x-auth-username"], "mallory");
}

#[tokio::test]
async fn an_attackers_code_and_state_do_not_sign_a_victim_in() {
    let (app, mut attacker, fake) = with_fake_pages(&[]).await;
    let state = attacker.begin("/orders").await;
    // A victim without a sign-in of its own, and one in the middle of it.
    let mut victim = Browser::new(&app.admin);
    assert_eq!(victim.come_back(&with_code(&state)).await.verdict(), (400, "invalid_state"));
    let own = victim.begin("/mine").await;
    assert_eq!(victim.come_back(&with_code(&state)).await.verdict(), (400, "invalid_state"));
    assert!(victim.names(ACCESS).is_empty() && fake.calls().is_empty());
    // A state that begins like the victim's selects the victim's cookie, and does not fit to it.
    let mixed = format!("{}{}", &own[..16], &state[16..]);
    assert_eq!(victim.clone().come_back(&with_code(&mixed)).await.verdict(), (400, "invalid_state"));
    // The attempt of the attacker under the name of the victim's.
    let mut tossed = victim.clone();
    let theirs = attacker.jar[0].1.clone();
    let name = tossed.names("__Host-sign_in.")[0].to_owned();
    tossed.keep(&name, &theirs);
    assert_eq!(tossed.come_back(&with_code(&own)).await.verdict(), (400, "invalid_state"));
    assert!(fake.calls().is_empty(), "no code was sent");
    assert_eq!(victim.come_back(&with_code(&own)).await.location(), "/mine");
}

#[tokio::test]
async fn a_state_of_a_script_and_one_of_a_navigation_cannot_be_exchanged() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    let path = format!("/auth/oauth/authorize-url?redirectUri={}", CALLBACK.replace(':', "%3A").replace('/', "%2F"));
    let headers = [("host", super::HOST), ("x-account-tokens", "body")];
    let begun = browser.send(Method::GET, &path, &headers).await;
    let begun: serde_json::Value = serde_json::from_str(&begun.html).unwrap();
    let text = |name: &str| begun[name].as_str().unwrap().to_owned();
    // Even with the verifier in a cookie of the right form.
    browser.keep(&format!("__Host-sign_in.{}", &text("state")[..16]), &format!("1.0.{}.Lw", text("codeVerifier")));
    assert_eq!(browser.come_back(&with_code(&text("state"))).await.verdict(), (400, "invalid_state"));

    let state = browser.begin("/").await;
    let cookie = browser.jar.iter().find(|(name, _)| name.ends_with(&state[..16])).unwrap().1.clone();
    let verifier = cookie.split('.').nth(2).unwrap();
    let body = json!({"code": "c", "state": state, "codeVerifier": verifier, "redirectUri": CALLBACK}).to_string();
    let client = crate::support::account::AccountClient::new(&browser.address);
    let headers = [("content-type", "application/json"), ("x-account-tokens", "body")];
    let reply = client.raw(Method::POST, "/oauth/token", &headers, body).await;
    assert_eq!(reply.verdict(), (400, "invalid_state"));
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_cookie_that_is_there_twice_or_spelled_differently_does_not_count() {
    let (app, mut browser, fake) = with_fake_pages(&[]).await;
    let state = browser.begin("/orders").await;
    let (name, value) = browser.jar[0].clone();
    for jar in [
        vec![(name.clone(), value.clone()), (name.clone(), value.clone())],
        vec![(name.clone(), "1.0.v.Lw".into()), (name.clone(), value.clone())],
        vec![(name.to_uppercase(), value.clone())],
        vec![(name.replace("__Host-", "__host-"), value.clone())],
        vec![(format!("{name}.1"), value.clone())],
        vec![("__Host-sign_in".into(), value.clone())],
        vec![(name.replace("__Host-", "__Secure-"), value.clone())],
    ] {
        let mut tossed = Browser::new(&app.admin);
        tossed.jar = jar;
        assert_eq!(tossed.come_back(&with_code(&state)).await.verdict(), (400, "invalid_state"), "{:?}", tossed.jar);
        // The application does not receive these cookies.
        let access = TokenBuilder::access().sign(SigningKey::shared());
        let cookie = format!("a=b; {}; {ACCESS}={access}", tossed.header());
        let answer = Ask::get("/orders").header("cookie", &cookie).of(&connect(&app.grpc[0]).await).await;
        let rest = &answer.headers["cookie"];
        assert!(rest.starts_with("a=b") && !rest.to_lowercase().contains("__host-"), "{rest}");
    }
    assert!(fake.calls().is_empty());
    assert_eq!(browser.come_back(&with_code(&state)).await.location(), "/orders");
}

#[tokio::test]
async fn a_response_of_another_authorization_server_is_refused() {
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    let state = browser.begin("/orders").await;
    let issuer = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    for other in ["https://evil.example", &format!("{ISSUER}/"), &format!("{}/", fake.url), "x"] {
        let query = format!("{}&iss={}", with_code(&state), issuer(other));
        assert_eq!(browser.come_back(&query).await.verdict(), (400, "invalid_state"), "{other}");
    }
    assert!(fake.calls().is_empty(), "no code was sent");
    let query = format!("{}&iss={}", with_code(&state), issuer(ISSUER));
    assert_eq!(browser.come_back(&query).await.location(), "/orders");
    let state = browser.begin("/orders").await;
    browser.lose(ACCESS);
    let query = format!("{}&iss={}", with_code(&state), issuer(&fake.url));
    assert_eq!(browser.come_back(&query).await.location(), "/orders");
}

#[tokio::test]
async fn the_redirect_uri_is_one_of_the_list_whatever_the_host_says() {
    let other = "http://localhost:8080/auth/oauth/callback";
    let more = ["--oauth-redirect-uris", other, "--oauth-redirect-uris", "https://app.example.com/elsewhere"];
    let (_app, mut browser, fake) = with_fake_pages(&more).await;
    for (host, expected) in [
        ("app.example.com", CALLBACK),
        ("APP.example.com:443", CALLBACK),
        ("localhost:8080", other),
        ("localhost", ""),
        ("app.example.com:80", ""),
        ("app.example.com:8443", ""),
        ("app.example.com.evil.example", ""),
        ("evil.example", ""),
    ] {
        let seen =
            browser.send(Method::GET, "/auth/oauth/sign-in", &[("host", host), ("sec-fetch-mode", "navigate")]).await;
        if expected.is_empty() {
            assert_eq!(seen.verdict(), (400, "invalid_request"), "{host}");
            assert!(!seen.html.contains("evil") && browser.set.is_empty());
        } else {
            assert_eq!(seen.parameter("redirect_uri"), expected, "{host}");
        }
    }
    assert!(fake.calls().is_empty());
    // With one callback, a proxy can rewrite the host.
    let (_app, mut browser, fake) = with_fake_pages(&[]).await;
    let headers = [("host", "internal:8080"), ("sec-fetch-mode", "navigate")];
    let seen = browser.send(Method::GET, "/auth/oauth/sign-in?return_to=%2Fa", &headers).await;
    assert_eq!(seen.parameter("redirect_uri"), CALLBACK);
    let path = format!("/auth/oauth/callback?{}", with_code(&seen.parameter("state")));
    assert_eq!(browser.send(Method::GET, &path, &headers).await.location(), "/a");
    assert_eq!(fake.calls()[0].body["redirect_uri"], CALLBACK);
}
