//! The whole way at the emulator's hosted pages.

use reqwest::Method;
use url::Url;

use super::{ACCESS, Browser, CALLBACK, GOODBYE, REFRESH, flags};
use crate::account::oauth::{at_the_hosted_pages, hosted_client};
use crate::account::sign_in::{self, claims_by_pyjwt, ready};
use crate::support::account::Pool;
use crate::support::client::{Ask, connect, metric};
use crate::support::emulator::Emulator;
use crate::support::service::TestApp;

const EMAIL: &str = "ada@example.com";

/// Creates a pool with one user, and starts a service with the hosted pages.
async fn with_hosted_pages(emulator: &Emulator, with_secret: bool) -> (TestApp, Pool, tempfile::TempDir) {
    let client = hosted_client(&["openid", "email", "profile"], &[CALLBACK]);
    let pool = Pool::create(emulator, with_secret, client).await;
    let (own, directory) = sign_in::flags(emulator, &pool);
    let flags = [own, flags(&emulator.url)].concat();
    let app = TestApp::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    ready(&app.admin).await;
    emulator.create_user(&pool.id, &emulator.create_client(&pool.id).await, EMAIL, &[]).await;
    (app, pool, directory)
}

/// Status of a check of a page with the browser's cookies.
async fn check(app: &TestApp, browser: &Browser, path: &str) -> u16 {
    let channel = connect(&app.grpc[0]).await;
    Ask::get(path).header("cookie", &browser.header()).of(&channel).await.status
}

#[tokio::test]
async fn a_user_signs_in_is_renewed_and_signs_out_without_a_script() {
    let emulator = Emulator::start().await;
    for with_secret in [false, true] {
        let (app, pool, _directory) = with_hosted_pages(&emulator, with_secret).await;
        let mut browser = Browser::new(&app.admin);
        assert_eq!(check(&app, &browser, "/orders?page=2").await, 401);

        let seen = browser.open("/auth/oauth/sign-in?return_to=%2Forders%3Fpage%3D2").await;
        assert_eq!(
            (seen.parameter("client_id"), seen.parameter("redirect_uri")),
            (pool.client.clone(), CALLBACK.into())
        );
        assert_eq!((&*seen.parameter("code_challenge_method"), &*seen.parameter("prompt")), ("S256", ""));
        assert_eq!(browser.names("").len(), 1, "only the attempt: {:?}", browser.jar);
        let back = at_the_hosted_pages(&emulator, seen.location(), EMAIL).await;
        let back = back.strip_prefix("https://app.example.com").unwrap();
        assert!(back.starts_with("/auth/oauth/callback?"), "{back}");
        let seen = browser.navigate(Method::GET, back, &[("sec-fetch-site", "cross-site")]).await;
        assert_eq!(seen.location(), "/orders?page=2");
        assert!(browser.names("__Host-sign_in.").is_empty(), "the attempt is over: {:?}", browser.jar);
        assert_eq!(check(&app, &browser, "/orders?page=2").await, 200);
        claims_by_pyjwt(&emulator, &pool, browser.cookie(ACCESS));

        // The access token has expired: one redirect renews the session.
        let (old, refresh) = (browser.cookie(ACCESS).to_owned(), browser.cookie(REFRESH).to_owned());
        browser.lose(ACCESS);
        assert_eq!(check(&app, &browser, "/orders").await, 401);
        let seen = browser.open("/auth/oauth/sign-in?return_to=%2Forders").await;
        assert_eq!(seen.location(), "/orders");
        assert_ne!(browser.cookie(ACCESS), old);
        assert_eq!(check(&app, &browser, "/orders").await, 200);
        let seen = browser.open("/auth/oauth/renew?return_to=%2Fother").await;
        assert_eq!(seen.location(), "/other");

        // The back button shows the hosted pages again, and they use the same state.
        let seen = browser.navigate(Method::GET, back, &[("sec-fetch-site", "cross-site")]).await;
        assert_eq!(seen.location(), "/");

        let session = browser.clone();
        let seen =
            browser.navigate(Method::POST, "/auth/oauth/sign-out", &[("origin", "https://app.example.com")]).await;
        let goodbye = Url::parse(seen.location()).unwrap();
        assert_eq!((goodbye.path(), &*seen.parameter("logout_uri")), ("/logout", GOODBYE));
        assert!(browser.jar.is_empty(), "{:?}", browser.jar);
        let mut thief = session;
        thief.keep(REFRESH, &refresh);
        thief.lose(ACCESS);
        let seen = thief.open("/auth/oauth/renew").await;
        assert!(seen.location().contains("/oauth2/authorize"), "the refresh token was revoked: {seen:?}");
        let counted = "account_requests_total{operation=\"oauth-callback\",outcome=\"success\"}";
        assert_eq!(metric(&app.admin, counted).await, 2.0);
    }
}
