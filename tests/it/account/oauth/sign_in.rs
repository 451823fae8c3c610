//! The whole flow at the emulator, also through an identity provider.

use reqwest::Method;
use reqwest::redirect::Policy;
use serde_json::json;
use url::Url;

use super::{
    GOODBYE, OTHER_REDIRECT, REDIRECT, SCOPES, authorize_url, finish, hosted_client, hosted_flags, in_a_browser,
};
use crate::account::QUICK;
use crate::account::sign_in::{claims_by_pyjwt, flags, ready, sign_in};
use crate::support::account::{AccountClient, PASSWORD, Pool};
use crate::support::client::{connect, metric, verdict};
use crate::support::emulator::Emulator;
use crate::support::service::TestApp;

fn with<'f>(flags: &'f [String], more: &'f [String]) -> Vec<&'f str> {
    flags.iter().chain(more).map(String::as_str).chain(QUICK).collect()
}

#[tokio::test]
async fn a_hosted_sign_in_works_with_and_without_a_client_secret() {
    let emulator = Emulator::start().await;
    for with_secret in [false, true] {
        let pool = Pool::create(&emulator, with_secret, hosted_client(&SCOPES, &[REDIRECT])).await;
        let (flags, _directory) = flags(&emulator, &pool);
        let app = TestApp::start(&with(&flags, &hosted_flags(&emulator.url)));
        ready(&app.admin).await;
        let client = AccountClient::new(&app.admin);
        let email = "ada@example.com";
        let by_api = sign_in(&emulator, &client, email).await;

        let begun = authorize_url(&client, &[], &[("redirectUri", REDIRECT)]).await;
        assert_eq!(begun.status, 200, "{:?}", begun.body);
        assert!(!begun.headers.contains_key("set-cookie"));
        let url = Url::parse(begun.text("url")).unwrap();
        let sent: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let parameter = |name: &str| sent.iter().find(|(other, _)| other == name).map_or("", |(_, value)| &**value);
        assert_eq!(url.path(), "/oauth2/authorize");
        assert_eq!((parameter("response_type"), parameter("client_id")), ("code", &*pool.client));
        assert_eq!((parameter("code_challenge_method"), parameter("code_challenge").len()), ("S256", 43));
        assert_eq!((parameter("scope"), parameter("state")), ("openid email profile", begun.text("state")));
        assert!(!begun.text("url").contains(begun.text("codeVerifier")) && parameter("identity_provider").is_empty());

        let came_back = in_a_browser(&emulator, begun.text("url"), email).await;
        let body = finish(&begun, &came_back);
        let session = client.post("/oauth/token", body.clone()).await;
        assert_eq!(session.status, 200, "{:?}", session.body);
        let claims = claims_by_pyjwt(&emulator, &pool, session.text("accessToken"));
        assert!(!claims["scope"].as_str().unwrap().contains("admin"), "{claims}");
        assert_eq!(claims_by_pyjwt(&emulator, &pool, session.text("idToken"))["aud"], json!(pool.client));
        assert_eq!((session.text("tokenType"), session.body["expiresIn"].as_i64().is_some()), ("Bearer", true));
        assert_eq!(client.post("/oauth/token", body).await.verdict(), (400, "invalid_state"), "the state was used");

        let channel = connect(&app.grpc[0]).await;
        assert_eq!(verdict(&channel, session.text("accessToken")).await.0, 200);
        let refresh = json!({"refreshToken": session.text("refreshToken")});
        let refreshed = client.post("/refresh", refresh.clone()).await;
        assert_eq!(refreshed.status, 200, "{:?}", refreshed.body);
        let claims = claims_by_pyjwt(&emulator, &pool, refreshed.text("accessToken"));
        assert!(!claims["scope"].as_str().unwrap().contains("admin"), "refreshing adds no scope: {claims}");
        assert_eq!(verdict(&channel, refreshed.text("accessToken")).await.0, 200);

        let access = session.text("accessToken");
        assert_eq!(client.bearer("/logout", access, json!({})).await.verdict(), (400, "scope_missing"));
        let foreign = json!({"refreshToken": session.text("refreshToken"), "logoutUri": "https://evil.example/"});
        assert_eq!(client.bearer("/logout", access, foreign).await.verdict(), (400, "invalid_request"));
        assert_eq!(client.post("/refresh", refresh.clone()).await.status, 200, "the session has not ended");
        let reply = client.bearer("/logout", access, refresh.clone()).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        let goodbye = reply.text("hostedUiLogoutUrl");
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        let led = http.get(goodbye).send().await.unwrap();
        assert_eq!((led.status().as_u16(), &led.headers()["location"]), (302, &GOODBYE.parse().unwrap()), "{goodbye}");
        assert_eq!(client.post("/refresh", refresh).await.verdict(), (401, "invalid_token"));

        // A user who signed in through the API has no session at the hosted pages.
        let ended = client.bearer("/logout", by_api["accessToken"].as_str().unwrap(), json!({})).await;
        assert_eq!(ended.verdict(), (401, "invalid_token"), "the first sign-out ended all sessions of the user");
        let by_api = client.post("/login", json!({"email": email, "password": PASSWORD})).await;
        let reply = client.bearer("/logout", by_api.text("accessToken"), json!({})).await;
        assert_eq!((reply.status, reply.text("hostedUiLogoutUrl")), (200, ""));
        assert_eq!(
            metric(&app.admin, "cognito_requests_total{operation=\"OauthToken\",outcome=\"success\"}").await,
            1.0
        );
        let counted = "account_requests_total{operation=\"oauth-authorize-url\",outcome=\"success\"}";
        assert_eq!(metric(&app.admin, counted).await, 1.0);
    }
}

#[tokio::test]
async fn a_hosted_sign_in_can_request_the_scope_of_the_account_routes() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, false, hosted_client(&SCOPES, &[REDIRECT])).await;
    let (flags, _directory) = flags(&emulator, &pool);
    let scopes = ["--oauth-scopes=openid".to_owned(), format!("--oauth-scopes={}", SCOPES[3])];
    let app = TestApp::start(&with(&flags, &[hosted_flags(&emulator.url), scopes.to_vec()].concat()));
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    sign_in(&emulator, &client, "ada@example.com").await;
    let begun = authorize_url(&client, &[], &[("redirectUri", REDIRECT)]).await;
    let came_back = in_a_browser(&emulator, begun.text("url"), "ada@example.com").await;
    let session = client.post("/oauth/token", finish(&begun, &came_back)).await;
    let access = session.text("accessToken");
    let me = client.raw(Method::GET, "/me", &[("authorization", &format!("Bearer {access}"))], "").await;
    assert_eq!((me.status, &me.body["attributes"]["email"]), (200, &json!("ada@example.com")), "{:?}", me.body);
    let reply = client.bearer("/logout", access, json!({"logoutUri": GOODBYE})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert!(reply.text("hostedUiLogoutUrl").contains("logout_uri=https%3A%2F%2Fapp.example.com%2Fgoodbye"));
}

#[tokio::test]
async fn a_hosted_sign_in_works_through_an_identity_provider() {
    let emulator = Emulator::start().await;
    // The identity provider is another pool of the emulator, over OpenID Connect.
    let back = format!("{}/oauth2/idpresponse", emulator.url);
    let partner = Pool::create(&emulator, true, hosted_client(&SCOPES[..3], &[&back])).await;
    let (flags_there, _secret_there) = flags(&emulator, &partner);
    let there = TestApp::start(&with(&flags_there, &[]));
    ready(&there.admin).await;
    sign_in(&emulator, &AccountClient::new(&there.admin), "ada@partner.example").await;

    let pool = Pool::create(&emulator, false, hosted_client(&SCOPES[..3], &[REDIRECT])).await;
    let endpoint = |path: &str| format!("{}/oauth2/{path}", emulator.url);
    let provider = json!({"UserPoolId": pool.id, "ProviderName": "Partner", "ProviderType": "OIDC",
        "AttributeMapping": {"email": "email"},
        "ProviderDetails": {"client_id": partner.client, "client_secret": partner.secret, "authorize_scopes": "openid email",
            "attributes_request_method": "GET", "authorize_url": endpoint("authorize"), "token_url": endpoint("token"),
            "oidc_issuer": format!("{}/{}", emulator.url, partner.id), "attributes_url": endpoint("userInfo"),
            "jwks_uri": format!("{}/{}/.well-known/jwks.json", emulator.url, partner.id)}});
    emulator.call("CreateIdentityProvider", provider).await;

    let (flags, _directory) = flags(&emulator, &pool);
    let app = TestApp::start(&with(&flags, &hosted_flags(&emulator.url)));
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    let query = [("redirectUri", REDIRECT), ("identityProvider", "Partner")];
    let begun = authorize_url(&client, &[], &query).await;
    assert!(begun.text("url").ends_with("&identity_provider=Partner"), "{:?}", begun.body);
    let came_back = in_a_browser(&emulator, begun.text("url"), "ada@partner.example").await;
    let session = client.post("/oauth/token", finish(&begun, &came_back)).await;
    assert_eq!(session.status, 200, "{:?}", session.body);
    let claims = claims_by_pyjwt(&emulator, &pool, session.text("accessToken"));
    assert!(claims["username"].as_str().unwrap().starts_with("Partner_"), "{claims}");

    let channel = connect(&app.grpc[0]).await;
    assert_eq!(verdict(&channel, session.text("accessToken")).await.0, 200);
    let refresh = json!({"refreshToken": session.text("refreshToken")});
    let refreshed = client.post("/refresh", refresh.clone()).await;
    assert_eq!(refreshed.status, 200, "{:?}", refreshed.body);
    assert_eq!(verdict(&channel, refreshed.text("accessToken")).await.0, 200);
    let access = refreshed.text("accessToken");
    assert_eq!(client.bearer("/logout", access, json!({})).await.verdict(), (400, "scope_missing"));
    assert_eq!(client.bearer("/logout", access, refresh.clone()).await.status, 200);
    assert_eq!(client.post("/refresh", refresh).await.verdict(), (401, "invalid_token"));
}

#[tokio::test]
async fn a_state_is_valid_once_and_only_for_the_sign_in_that_it_began() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, true, hosted_client(&SCOPES, &[REDIRECT, OTHER_REDIRECT])).await;
    let (flags, _directory) = flags(&emulator, &pool);
    let app = TestApp::start(&with(&flags, &hosted_flags(&emulator.url)));
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    sign_in(&emulator, &client, "ada@example.com").await;
    let one_more = async || authorize_url(&client, &[], &[("redirectUri", REDIRECT)]).await;
    let (begun, other) = (one_more().await, one_more().await);
    assert_ne!(begun.text("state"), other.text("state"));
    let came_back = in_a_browser(&emulator, begun.text("url"), "ada@example.com").await;
    let good = finish(&begun, &came_back);
    for (member, value, expected) in [
        ("codeVerifier", other.text("codeVerifier"), "invalid_state"),
        ("codeVerifier", "x", "invalid_state"),
        ("state", other.text("state"), "invalid_state"),
        ("state", "made-up", "invalid_state"),
        ("redirectUri", OTHER_REDIRECT, "invalid_state"),
        ("redirectUri", "https://evil.example/callback", "invalid_request"),
        ("redirectUri", "https://app.example.com/callback/", "invalid_request"),
        ("state", "", "invalid_request"),
        ("code", "", "invalid_request"),
    ] {
        let mut body = good.clone();
        body[member] = value.into();
        let reply = client.post("/oauth/token", body).await;
        assert_eq!(reply.verdict(), (400, expected), "{member}={value}");
    }
    let asked = "cognito_request_duration_seconds_count{operation=\"OauthToken\"}";
    assert_eq!(metric(&app.admin, asked).await, 0.0, "Cognito is not called");
    assert_eq!(client.post("/oauth/token", good.clone()).await.status, 200);
    assert_eq!(client.post("/oauth/token", good.clone()).await.verdict(), (400, "invalid_state"));

    // A used code with a new state: the state is valid, but the code is not.
    let mut late = finish(&other, &[("state".into(), other.text("state").into())]);
    late["code"] = good["code"].clone();
    assert_eq!(client.post("/oauth/token", late.clone()).await.verdict(), (400, "invalid_code"));
    assert_eq!(client.post("/oauth/token", late).await.verdict(), (400, "invalid_state"), "the state was used");

    for (query, message) in [
        (&[][..], "redirectUri is required"),
        (&[("redirectUri", "")], "redirectUri is required"),
        (
            &[("redirectUri", "https://evil.example/")],
            "redirectUri has to be one of --oauth-redirect-uris, character for character",
        ),
        (&[("redirectUri", REDIRECT), ("redirectUri", REDIRECT)], "redirectUri is there twice; send it once"),
        (
            &[("redirectUri", REDIRECT), ("identityProvider", "a\nb")],
            "identityProvider has to be a provider's name: at most 32 characters, no control character",
        ),
    ] {
        let reply = authorize_url(&client, &[], query).await;
        assert_eq!((reply.verdict(), reply.text("message")), ((400, "invalid_request"), message));
        assert!(message.starts_with(reply.text("field")) && !reply.text("field").is_empty(), "{message}");
    }
    let reply = client.post("/oauth/authorize-url", json!({})).await;
    assert_eq!((reply.status, &reply.headers["allow"]), (405, &"GET, HEAD".parse().unwrap()));
}
