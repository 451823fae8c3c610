//! Failures of Cognito: throttling, outages, slow or invalid responses, and tokens of another pool or app client.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use reqwest::Method;

use super::{QUICK, bodies, routes, with_fake};
use crate::support::account::{AccountClient, Reply as Answer};
use crate::support::client::metric;
use crate::support::fake_cognito::{refusal, slowly, tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, TokenBuilder};

/// Sends a request with this body and a valid token.
async fn ask(client: &AccountClient, method: Method, path: &str, body: &Value) -> Answer {
    let token = TokenBuilder::access().sign(SigningKey::shared());
    client.call(method, path, &token, body.clone()).await
}

#[tokio::test]
async fn every_route_maps_each_failure_of_cognito() {
    let (app, client, fake) = with_fake(&QUICK).await;
    let html = "<html><body>Request blocked</body></html>";
    let big = "x".repeat(300 * 1024);
    for (reply, expected) in [
        (refusal("TooManyRequestsException", "Rate exceeded"), (429, "rate_limited")),
        (refusal("com.amazon.coral#ThrottlingException:http://internal/", ""), (429, "rate_limited")),
        (
            Reply {
                headers: vec![("x-amzn-ErrorType", "TooManyRequestsException:".into())],
                status: 400,
                ..Reply::ok("")
            },
            (429, "rate_limited"),
        ),
        (refusal("ResourceNotFoundException", "Client abc not found"), (502, "upstream_error")),
        (refusal("UnexpectedLambdaException", "private"), (502, "upstream_error")),
        (refusal("BrandNewException", "private"), (502, "upstream_error")),
        (Reply { status: 403, ..Reply::ok(html) }, (502, "upstream_error")),
        (
            Reply { status: 302, headers: vec![("location", "http://127.0.0.1:1/".into())], ..Reply::ok("") },
            (502, "upstream_error"),
        ),
        (Reply::ok(html), (502, "upstream_error")),
        (Reply::ok("[]"), (502, "upstream_error")),
        (Reply::ok(big), (502, "upstream_error")),
        (Reply { status: 500, ..Reply::ok("") }, (503, "upstream_unavailable")),
        (Reply { status: 500, ..refusal("InternalErrorException", "private") }, (503, "upstream_unavailable")),
        (Reply { status: 503, ..Reply::ok(html) }, (503, "upstream_unavailable")),
        (refusal("OperationNotEnabledException", "private"), (503, "upstream_unavailable")),
    ] {
        let unknown = String::from_utf8_lossy(&reply.body).contains("ResourceNotFoundException");
        for (method, path, body) in routes() {
            // Ten failures in a row would open the circuit, which another test is about.
            fake.answers(|_, _| Reply::ok("{}"));
            ask(&client, Method::POST, "/forgot-password", &json!({"email": "a"})).await;
            let reply = reply.clone();
            fake.answers(move |_, _| reply.clone());
            let names_a_passkey = method == Method::DELETE && path != "/me";
            let answer = ask(&client, method, path, &body).await;
            // Where the request names a resource, that one can be missing, and not the app client.
            let expected = if names_a_passkey && unknown { (404, "not_found") } else { expected };
            assert_eq!(answer.verdict(), expected, "{path}");
            assert!(!answer.body.to_string().contains("private"), "{:?}", answer.body);
        }
    }
    assert!(metric(&app.admin, "account_requests_total{operation=\"login\",outcome=\"upstream_error\"}").await > 5.0);
    assert!(metric(&app.admin, "cognito_requests_total{operation=\"SignUp\",outcome=\"throttled\"}").await > 1.0);
}

#[tokio::test]
async fn the_message_of_a_lambda_is_not_repeated() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    fake.refuses("UserLambdaValidationException", "PreSignUp failed with error private.");
    for (path, status) in [("/register", 400), ("/login", 401), ("/verify", 400)] {
        let (_, body) = bodies().into_iter().find(|(other, _)| *other == path).unwrap();
        let answer = client.post(path, body).await;
        assert_eq!(answer.verdict(), (status, "rejected"), "{path}");
        assert!(!answer.body.to_string().contains("private"));
    }
}

#[tokio::test]
async fn an_empty_response_is_an_error_only_where_content_is_required() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    fake.answers(|_, _| Reply::ok(""));
    for (method, path, body) in routes() {
        let expected = match path {
            // The response lacks tokens or a challenge, a secret, a status, a user, passkeys, or options for one.
            "/login" | "/challenge" | "/refresh" | "/mfa/totp" | "/mfa/totp/verify" | "/webauthn/credentials" => 502,
            "/webauthn/registration" if method == Method::POST => 502,
            "/me" if method != Method::DELETE => 502,
            "/register" => 201,
            _ => 200,
        };
        // Some of these operations end the sessions of their user.
        let own = format!("{method} {path}");
        let token = TokenBuilder::access().claim("sub", &*own).claim("origin_jti", &*own).claim("jti", &*own);
        let token = token.sign(SigningKey::shared());
        assert_eq!(client.call(method, path, &token, body).await.status, expected, "{path}");
    }
}

#[tokio::test]
async fn tokens_are_verified_before_they_are_returned() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    let login = json!({"email": "a", "password": "p"});
    let sign = |token: TokenBuilder| token.sign(SigningKey::shared());
    fake.answers(|_, _| {
        tokens(&json!({"RefreshToken": "r", "NewDeviceMetadata": {"DeviceKey": "d", "DeviceGroupKey": "g"}}))
    });
    let good = client.post("/login", login.clone()).await;
    assert_eq!((good.status, good.text("refreshToken")), (200, "r"), "{:?}", good.body);
    assert_eq!(good.body["newDevice"], json!({"deviceKey": "d", "deviceGroupKey": "g"}));

    fake.answers(|_, _| tokens(&json!({"IdToken": null, "ExpiresIn": null, "TokenType": null})));
    let sparse = client.post("/login", login.clone()).await;
    assert_eq!((sparse.status, sparse.text("tokenType")), (200, "Bearer"));
    assert!(sparse.body.get("idToken").is_none());
    assert!((3590..=3600).contains(&sparse.body["expiresIn"].as_i64().unwrap()), "computed from `exp` of the token");

    fake.answers(|_, _| tokens(&json!({"AccessToken": TokenBuilder::access().sign(SigningKey::other())})));
    let rotated = client.post("/login", login.clone()).await;
    assert_eq!(rotated.status, 200, "signed with a key that the last fetch did not have: {:?}", rotated.body);

    for changes in [
        json!({"AccessToken": sign(TokenBuilder::access().claim("iss", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other"))}),
        json!({"AccessToken": sign(TokenBuilder::access().claim("client_id", "other"))}),
        json!({"AccessToken": TokenBuilder::access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other())}),
        json!({"AccessToken": sign(TokenBuilder::id())}),
        json!({"AccessToken": null}),
        json!({"AccessToken": "opaque"}),
        json!({"IdToken": sign(TokenBuilder::id().claim("aud", "other"))}),
        json!({"IdToken": sign(TokenBuilder::access())}),
    ] {
        let answer = changes.clone();
        fake.answers(move |_, _| tokens(&answer));
        let reply = client.post("/login", login.clone()).await;
        assert_eq!(reply.verdict(), (502, "upstream_error"), "{changes}");
    }
}

#[tokio::test]
async fn tokens_are_returned_while_their_keys_cannot_be_fetched() {
    let (_app, _, fake) = with_fake(&QUICK).await;
    fake.answers(|_, _| tokens(&json!({})));
    let dead = ["--cognito-endpoint", &fake.url, "--jwks-url", "http://127.0.0.1:9/"];
    let app = TestApp::start(&[&QUICK[..], &dead].concat());
    let client = AccountClient::new(&app.admin);
    let reply = client.post("/login", json!({"email": "a", "password": "p"})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let logout = client.bearer("/logout", reply.text("accessToken"), json!({})).await;
    assert_eq!(logout.verdict(), (503, "upstream_unavailable"), "a Bearer token has to be verified first");

    fake.answers(|_, _| {
        tokens(&json!({"AccessToken": TokenBuilder::access().claim("client_id", "other").sign(SigningKey::shared())}))
    });
    let reply = client.post("/login", json!({"email": "a", "password": "p"})).await;
    assert_eq!(reply.verdict(), (502, "upstream_error"), "claims are checked without keys, too");
}

#[tokio::test]
async fn only_idempotent_operations_are_retried() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    for (method, path, body) in routes() {
        fake.answers(|_, _| Reply { status: 500, ..Reply::ok("") });
        ask(&client, method.clone(), path, &body).await;
        let expected: &[&str] = match path {
            "/me" if method == Method::GET => &["GetUser", "GetUser"],
            "/mfa/preference" => &["SetUserMFAPreference", "SetUserMFAPreference"],
            "/logout" => &["GlobalSignOut", "GlobalSignOut"],
            "/revoke" => &["RevokeToken", "RevokeToken"],
            _ => &[""],
        };
        let operations = fake.operations();
        assert_eq!(operations.len(), expected.len(), "{path}: {operations:?}");
        fake.answers(|_, _| Reply::ok("{}"));
        ask(&client, Method::POST, "/forgot-password", &json!({"email": "a"})).await;
    }
    fake.answers(|_, nth| if nth == 0 { Reply { status: 500, ..Reply::ok("") } } else { Reply::ok("") });
    let (_, body) = bodies().into_iter().find(|(path, _)| *path == "/revoke").unwrap();
    assert_eq!(ask(&client, Method::POST, "/revoke", &body).await.status, 200, "the second attempt succeeds");
}

#[tokio::test]
async fn a_slow_response_ends_at_the_deadline() {
    let (_app, client, fake) = with_fake(&[&QUICK[..], &["--cognito-timeout=300ms"]].concat()).await;
    fake.answers(|_, _| slowly(Reply::ok("{}"), Duration::from_secs(60)));
    let start = Instant::now();
    let reply = client.post("/login", json!({"email": "a", "password": "p"})).await;
    assert_eq!(reply.verdict(), (503, "upstream_unavailable"));
    assert!(start.elapsed() < Duration::from_secs(5), "later than the default: {:?}", start.elapsed());
}

#[tokio::test]
async fn an_outage_opens_the_circuit_and_its_end_closes_it() {
    let (app, client, fake) = with_fake(&QUICK).await;
    let login = json!({"email": "a", "password": "p"});
    fake.refuses("NotAuthorizedException", "Incorrect username or password.");
    for _ in 0..15 {
        assert_eq!(client.post("/login", login.clone()).await.status, 401, "refusals do not open the circuit");
    }
    fake.answers(|_, _| Reply { status: 500, ..Reply::ok("") });
    for _ in 0..20 {
        assert_eq!(client.post("/login", login.clone()).await.verdict(), (503, "upstream_unavailable"));
    }
    assert_eq!(fake.calls().len(), 10, "after ten failures Cognito is not called");
    let spared =
        metric(&app.admin, "cognito_requests_total{operation=\"InitiateAuth\",outcome=\"circuit_open\"}").await;
    assert_eq!(spared, 10.0);
    assert_eq!(metric(&app.admin, "cognito_circuit_open").await, 1.0);
    fake.answers(|_, _| tokens(&json!({})));
    crate::support::eventually("the circuit closes", Duration::from_secs(10), async || {
        client.post("/login", login.clone()).await.status == 200
    })
    .await;
    assert_eq!(metric(&app.admin, "cognito_circuit_open").await, 0.0);
    assert_eq!(metric(&app.admin, "account_requests_in_flight").await, 0.0);
}

#[tokio::test]
async fn a_failed_connection_is_retried() {
    let app = TestApp::start(&[&QUICK[..], &["--cognito-endpoint", "http://127.0.0.1:9"]].concat());
    let client = AccountClient::new(&app.admin);
    let reply = client.post("/login", json!({"email": "a", "password": "p"})).await;
    assert_eq!(reply.verdict(), (503, "upstream_unavailable"));
    let tried = metric(&app.admin, "cognito_requests_total{operation=\"InitiateAuth\",outcome=\"connect\"}").await;
    assert_eq!(tried, 2.0);
}

#[tokio::test]
async fn logout_reports_success_only_if_the_user_is_signed_out() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    // Each sign-out is that of another user, because a user who is signed out cannot sign out again.
    let of = |sub: &str, scope: &str| {
        TokenBuilder::access().claim("sub", sub).claim("scope", scope).sign(SigningKey::shared())
    };
    let full = |sub: &str| of(sub, "openid aws.cognito.signin.user.admin");
    let narrow = of("narrow", "openid");
    let other_narrow = of("other-narrow", "openid");
    let refresh = || json!({"refreshToken": "r"});

    fake.answers(|_, _| Reply::ok(""));
    assert_eq!(client.bearer("/logout", &full("1"), refresh()).await.status, 200);
    assert_eq!(fake.operations(), ["GlobalSignOut", "RevokeToken"]);

    fake.refuses("NotAuthorizedException", "Access Token has been revoked");
    assert_eq!(client.bearer("/logout", &full("2"), json!({})).await.status, 200, "the user is already signed out");

    fake.answers(
        |call, _| if call.operation == "RevokeToken" { refusal("UnauthorizedException", "") } else { Reply::ok("") },
    );
    assert_eq!(
        client.bearer("/logout", &full("3"), refresh()).await.status,
        200,
        "the refresh token has ended with the global sign-out"
    );
    assert_eq!(client.bearer("/logout", &narrow, refresh()).await.verdict(), (400, "invalid_token"));

    fake.answers(|_, _| Reply::ok(""));
    assert_eq!(client.bearer("/logout", &narrow, json!({})).await.verdict(), (400, "scope_missing"));
    assert_eq!(fake.calls().len(), 0);
    assert_eq!(client.bearer("/logout", &narrow, refresh()).await.status, 200);
    assert_eq!(fake.operations(), ["RevokeToken"]);
    let change = json!({"oldPassword": "o", "newPassword": "n"});
    assert_eq!(client.bearer("/change-password", &other_narrow, change).await.verdict(), (400, "scope_missing"));

    fake.answers(|_, _| Reply { status: 500, ..Reply::ok("") });
    assert_eq!(client.bearer("/logout", &full("4"), json!({})).await.verdict(), (503, "upstream_unavailable"));
    fake.answers(|_, _| Reply::ok(""));
    for bad in [
        "x".to_owned(),
        TokenBuilder::access().expires_in(-100).sign(SigningKey::shared()),
        TokenBuilder::access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()),
    ] {
        for path in ["/logout", "/revoke", "/change-password"] {
            assert_eq!(client.bearer(path, &bad, refresh()).await.verdict(), (401, "invalid_token"), "{path}");
        }
    }
    assert_eq!(fake.calls().len(), 0, "Cognito is not called with a bad token");
}
