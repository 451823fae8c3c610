//! Requests to the token endpoint and its faults, at the fake server; the validity of `state`.

use serde_json::{Value, json};

use super::{REDIRECT, authorize_url, finish, hosted_flags};
use crate::account::sign_in::ready;
use crate::account::{QUICK, with_fake};
use crate::support::account::AccountClient;
use crate::support::client::{get, metric};
use crate::support::fake_cognito::{FakeCognito, oauth_tokens, tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::TestApp;
use crate::support::token::{CLIENT, SigningKey, TokenBuilder};

/// Returns flags for the hosted pages at `domain`, without limits.
fn fake_flags(domain: &str) -> Vec<String> {
    hosted_flags(domain).into_iter().chain(QUICK.map(str::to_owned)).collect()
}

/// Begins a sign-in, and returns the body that finishes it with an invented code.
async fn come_back(client: &AccountClient) -> Value {
    let begun = authorize_url(client, &[], &[("redirectUri", REDIRECT)]).await;
    finish(&begun, &[("state".into(), begun.text("state").into()), ("code".into(), "c + o".into())])
}

/// Starts a service in front of a fake Cognito that is also the hosted pages.
async fn with_fake_pages(more: &[&str]) -> (TestApp, AccountClient, FakeCognito) {
    let fake = FakeCognito::start().await;
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
            assert_eq!(fake.calls().len(), 1, "a code is sent once");
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
    // The port was bound and released, so nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let flags = fake_flags(&format!("http://{port}"));
    let endpoint = ["--cognito-endpoint", &*fake.url];
    let app = TestApp::start(&flags.iter().map(String::as_str).chain(endpoint).collect::<Vec<_>>());
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    let body = come_back(&client).await;
    for _ in 0..2 {
        let reply = client.post("/oauth/token", body.clone()).await;
        assert_eq!(reply.verdict(), (503, "upstream_unavailable"), "the state stays valid");
    }
    let tried = metric(&app.admin, "cognito_requests_total{operation=\"OauthToken\",outcome=\"connect\"}").await;
    assert_eq!(tried, 4.0, "each attempt is retried once");
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
