//! Signing in at the hosted pages: the whole dance at the emulator, with a provider of its own behind it, too; faults of
//! the token endpoint at the fault server.

use reqwest::Method;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::people::{claims_by_pyjwt, flags, ready, sign_in};
use super::{QUICK, with_fake};
use crate::support::account::{AccountClient, PASSWORD, Pool, Reply as Answer};
use crate::support::client::{connect, get, metric, verdict};
use crate::support::emulator::Emulator;
use crate::support::fake_cognito::{oauth_tokens, tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::TestApp;
use crate::support::token::{CLIENT, SigningKey, TokenBuilder};

pub(super) const REDIRECT: &str = "https://app.example.com/callback";
const OTHER_REDIRECT: &str = "http://localhost:3000/callback?x=y";
const GOODBYE: &str = "https://app.example.com/goodbye";

/// Settings of an app client that signs in at the hosted pages.
pub(super) fn hosted_client(scopes: &[&str], callbacks: &[&str]) -> Value {
    json!({"AllowedOAuthFlowsUserPoolClient": true, "AllowedOAuthFlows": ["code"], "AllowedOAuthScopes": scopes,
        "CallbackURLs": callbacks, "LogoutURLs": [GOODBYE], "SupportedIdentityProviders": ["COGNITO"]})
}

const SCOPES: [&str; 4] = ["openid", "email", "profile", "aws.cognito.signin.user.admin"];

/// Flags for the hosted pages at `domain`.
pub(super) fn hosted_flags(domain: &str) -> Vec<String> {
    let flags = [
        ("--hosted-ui-domain", domain),
        ("--oauth-redirect-uris", REDIRECT),
        ("--oauth-redirect-uris", OTHER_REDIRECT),
        ("--oauth-logout-uris", GOODBYE),
    ];
    flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).collect()
}

/// Asks where a sign-in begins, with these headers.
pub(super) async fn authorize_url(client: &AccountClient, headers: &[(&str, &str)], query: &[(&str, &str)]) -> Answer {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    client.raw(Method::GET, &format!("/oauth/authorize-url?{query}"), headers, "").await
}

/// What a person does in a browser: fills in the form, and follows redirects until they leave the emulator. The
/// parameters of where they lead.
pub(super) async fn in_a_browser(emulator: &Emulator, url: &str, email: &str) -> Vec<(String, String)> {
    let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let mut response = http.get(url).send().await.unwrap();
    for _ in 0..8 {
        if let Some(location) = response.headers().get("location") {
            let location = location.to_str().unwrap().to_owned();
            if !location.starts_with(&emulator.url) {
                assert!(location.starts_with(REDIRECT), "{location}");
                return Url::parse(&location).unwrap().query_pairs().into_owned().collect();
            }
            response = http.get(location).send().await.unwrap();
            continue;
        }
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let page = response.text().await.unwrap();
        let attribute = |tag: &str, name: &str| {
            let value = tag.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
            Some(value.replace("&amp;", "&").replace("&#x27;", "'"))
        };
        let hidden = page.split("<input").skip(1).filter(|tag| tag.contains("hidden"));
        let fields = hidden.filter_map(|tag| Some((attribute(tag, "name")?, attribute(tag, "value")?)));
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields).append_pair("username", email).append_pair("password", PASSWORD);
        let form = form.finish();
        response = http
            .post(format!("{}/login", emulator.url))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap();
    }
    panic!("it goes on and on");
}

/// The body that finishes a sign-in.
pub(super) fn finish(begun: &Answer, came_back: &[(String, String)]) -> Value {
    let parameter = |name: &str| came_back.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    assert_eq!(parameter("state").as_deref(), begun.body["state"].as_str(), "{came_back:?}");
    json!({"code": parameter("code"), "state": parameter("state"), "codeVerifier": begun.body["codeVerifier"],
        "redirectUri": REDIRECT})
}

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
        assert_eq!(client.post("/oauth/token", body).await.verdict(), (400, "invalid_state"), "a second time");

        let channel = connect(&app.grpc[0]).await;
        assert_eq!(verdict(&channel, session.text("accessToken")).await.0, 200);
        let refresh = json!({"refreshToken": session.text("refreshToken")});
        let refreshed = client.post("/refresh", refresh.clone()).await;
        assert_eq!(refreshed.status, 200, "{:?}", refreshed.body);
        let claims = claims_by_pyjwt(&emulator, &pool, refreshed.text("accessToken"));
        assert!(!claims["scope"].as_str().unwrap().contains("admin"), "it is no stronger than before: {claims}");
        assert_eq!(verdict(&channel, refreshed.text("accessToken")).await.0, 200);

        let access = session.text("accessToken");
        assert_eq!(client.bearer("/logout", access, json!({})).await.verdict(), (400, "scope_missing"));
        let foreign = json!({"refreshToken": session.text("refreshToken"), "logoutUri": "https://evil.example/"});
        assert_eq!(client.bearer("/logout", access, foreign).await.verdict(), (400, "invalid_request"));
        assert_eq!(client.post("/refresh", refresh.clone()).await.status, 200, "nothing was ended");
        let reply = client.bearer("/logout", access, refresh.clone()).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        let goodbye = reply.text("hostedUiLogoutUrl");
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        let led = http.get(goodbye).send().await.unwrap();
        assert_eq!((led.status().as_u16(), &led.headers()["location"]), (302, &GOODBYE.parse().unwrap()), "{goodbye}");
        assert_eq!(client.post("/refresh", refresh).await.verdict(), (401, "invalid_token"));

        // Who signed in by the API has no session at the hosted pages.
        let reply = client.bearer("/logout", by_api["accessToken"].as_str().unwrap(), json!({})).await;
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
    // Another pool of the emulator is the provider: it speaks OpenID Connect.
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
    assert_eq!(metric(&app.admin, asked).await, 0.0, "none of this is Cognito's business");
    assert_eq!(client.post("/oauth/token", good.clone()).await.status, 200);
    assert_eq!(client.post("/oauth/token", good.clone()).await.verdict(), (400, "invalid_state"));

    // A code that was used, with a state of its own: the state is good, the code is not.
    let mut late = finish(&other, &[("state".into(), other.text("state").into())]);
    late["code"] = good["code"].clone();
    assert_eq!(client.post("/oauth/token", late.clone()).await.verdict(), (400, "invalid_code"));
    assert_eq!(client.post("/oauth/token", late).await.verdict(), (400, "invalid_state"), "the state is used up");

    for (query, message) in [
        (&[][..], "redirectUri is required"),
        (&[("redirectUri", "")], "redirectUri is required"),
        (&[("redirectUri", "https://evil.example/")], "redirectUri is not allowed"),
        (&[("redirectUri", REDIRECT), ("redirectUri", REDIRECT)], "redirectUri is there twice"),
        (&[("redirectUri", REDIRECT), ("identityProvider", "a\nb")], "identityProvider is not a provider's name"),
    ] {
        let reply = authorize_url(&client, &[], query).await;
        assert_eq!((reply.verdict(), reply.text("message")), ((400, "invalid_request"), message));
    }
    let reply = client.post("/oauth/authorize-url", json!({})).await;
    assert_eq!((reply.status, &reply.headers["allow"]), (405, &"GET, HEAD".parse().unwrap()));
}

/// Flags for hosted pages at a port where nobody listens yet, or at the fault server.
fn fake_flags(domain: &str) -> Vec<String> {
    hosted_flags(domain).into_iter().chain(QUICK.map(str::to_owned)).collect()
}

/// A sign-in that has come back with a code, in a service in front of the fault server.
async fn come_back(client: &AccountClient) -> Value {
    let begun = authorize_url(client, &[], &[("redirectUri", REDIRECT)]).await;
    finish(&begun, &[("state".into(), begun.text("state").into()), ("code".into(), "c + o".into())])
}

/// A service in front of the fault server, which is the hosted pages, too.
async fn with_fake_pages(more: &[&str]) -> (TestApp, AccountClient, crate::support::fake_cognito::FakeCognito) {
    let fake = crate::support::fake_cognito::FakeCognito::start().await;
    let flags = fake_flags(&fake.url);
    let flags = flags.iter().map(String::as_str).chain(["--cognito-endpoint", &fake.url]).chain(more.iter().copied());
    let app = TestApp::start(&flags.collect::<Vec<_>>());
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    (app, client, fake)
}

#[tokio::test]
async fn the_token_endpoint_gets_valid_requests_and_its_faults_are_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "1exampleclientsecret0123456789abcdefghijklmnopqrstu").unwrap();
    let file = ["--client-secret-file", secret.to_str().unwrap()];
    for (more, basic) in [
        (
            &file[..],
            json!(
                "Basic M240YjV1cmsxZnQ0ZmwzbWc1ZTYyZDlhZG86MWV4YW1wbGVjbGllbnRzZWNyZXQwMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3R1"
            ),
        ),
        (&[], Value::Null),
    ] {
        let (app, client, fake) = with_fake_pages(more).await;
        fake.answers(|_, _| oauth_tokens(&json!({})));
        let body = come_back(&client).await;
        let reply = client.post("/oauth/token", body.clone()).await;
        assert_eq!((reply.status, reply.text("refreshToken")), (200, "r"), "{:?}", reply.body);
        let calls = fake.calls();
        assert_eq!(calls.len(), 1);
        let sent = &calls[0].body;
        let id = if basic.is_null() { json!(CLIENT) } else { Value::Null };
        assert_eq!((&sent["client_id"], &sent["authorization"]), (&id, &basic));
        assert_eq!((&sent["grant_type"], &sent["code"]), (&json!("authorization_code"), &json!("c + o")));
        assert_eq!((&sent["redirect_uri"], &sent["code_verifier"]), (&json!(REDIRECT), &body["codeVerifier"]));
        assert!(sent.get("client_secret").is_none() && sent.get("state").is_none());

        let sign = |token: TokenBuilder| token.sign(SigningKey::shared());
        let error = |status, body: &str| Reply { status, ..Reply::ok(body) };
        for (reply, expected) in [
            (error(400, r#"{"error":"invalid_grant","error_description":"private"}"#), (400, "invalid_code")),
            (error(400, r#"{"error":"invalid_request"}"#), (400, "invalid_request")),
            (error(400, r#"{"error":"invalid_client"}"#), (502, "upstream_error")),
            (error(401, r#"{"error":"invalid_client"}"#), (502, "upstream_error")),
            (error(400, r#"{"error":"unauthorized_client"}"#), (502, "upstream_error")),
            (error(400, r#"{"error":"brand_new"}"#), (502, "upstream_error")),
            (error(403, "<html>private</html>"), (502, "upstream_error")),
            (error(429, ""), (429, "rate_limited")),
            (error(503, "<html>"), (503, "upstream_unavailable")),
            (
                Reply { status: 302, headers: vec![("location", "http://127.0.0.1:1/".into())], ..Reply::ok("") },
                (502, "upstream_error"),
            ),
            (Reply::ok("[]"), (502, "upstream_error")),
            (Reply::ok("x".repeat(300 * 1024)), (502, "upstream_error")),
            (Reply::ok("{}"), (502, "upstream_error")),
            (
                oauth_tokens(&json!({"access_token": sign(TokenBuilder::access().claim("client_id", "other"))})),
                (502, "upstream_error"),
            ),
            (oauth_tokens(&json!({"access_token": "opaque"})), (502, "upstream_error")),
            (oauth_tokens(&json!({"id_token": sign(TokenBuilder::access())})), (502, "upstream_error")),
        ] {
            fake.answers(move |_, _| reply.clone());
            let answer = client.post("/oauth/token", come_back(&client).await).await;
            assert_eq!(answer.verdict(), expected, "{:?}", answer.body);
            assert!(!answer.body.to_string().contains("private"));
            assert_eq!(fake.calls().len(), 1, "a code is tried once");
        }
        assert!(
            metric(&app.admin, "cognito_requests_total{operation=\"OauthToken\",outcome=\"refused\"}").await >= 5.0
        );
    }
}

#[tokio::test]
async fn a_state_stays_valid_while_the_token_endpoint_is_unreachable() {
    let (_app, fake_client, fake) = with_fake(&QUICK).await;
    fake.answers(|_, _| tokens(&json!({})));
    drop(fake_client);
    // Nobody listens there, until somebody does.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flags = fake_flags(&format!("http://{port}"));
    let endpoint = ["--cognito-endpoint", &*fake.url];
    let app = TestApp::start(&flags.iter().map(String::as_str).chain(endpoint).collect::<Vec<_>>());
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    let body = come_back(&client).await;
    for _ in 0..2 {
        let reply = client.post("/oauth/token", body.clone()).await;
        assert_eq!(reply.verdict(), (503, "upstream_unavailable"), "and not invalid_state");
    }
    let tried = metric(&app.admin, "cognito_requests_total{operation=\"OauthToken\",outcome=\"connect\"}").await;
    assert_eq!(tried, 4.0, "each a second time");
}

#[tokio::test]
async fn a_replica_finishes_a_sign_in_of_another_that_shares_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = file("secret", "1exampleclientsecret0123456789abcdefghijklmnopqrstu");
    let (key, other) = (file("key", &"k".repeat(32)), file("other", &"o".repeat(64)));
    let (secret, key, other) =
        (["--client-secret-file", &*secret], ["--oauth-state-key-file", &*key], ["--oauth-state-key-file", &*other]);
    for (one, another, expected) in [
        (&secret[..], &secret[..], 200),
        (&key, &key, 200),
        (&[], &[], 400),
        (&key, &other, 400),
        (&[&secret[..], &key].concat(), &[&secret[..], &other].concat(), 400),
    ] {
        let (_app, begins, _) = with_fake_pages(one).await;
        let (_other_app, ends, fake) = with_fake_pages(another).await;
        fake.answers(|_, _| oauth_tokens(&json!({})));
        let reply = ends.post("/oauth/token", come_back(&begins).await).await;
        assert_eq!(reply.status, expected, "{one:?} {another:?}: {:?}", reply.body);
    }
}

#[tokio::test]
async fn without_a_domain_the_oauth_routes_do_not_exist() {
    let (app, client, _fake) = with_fake(&QUICK).await;
    assert_eq!(client.post("/oauth/token", json!({})).await.verdict(), (404, "not_found"));
    let reply = authorize_url(&client, &[], &[("redirectUri", REDIRECT)]).await;
    assert_eq!(reply.verdict(), (404, "not_found"));
    let (_, document) = get(&app.admin, "/auth/openapi.json").await;
    assert!(!document.contains("/oauth/") && !document.contains("accessCookie"));
}
