//! The account of a signed-in user: the profile, its addresses, second factors. The emulator does not verify attributes and
//! never requires a second factor; those tests use the fake server.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::sign_in::{flags, ready, sign_in, totp};
use super::{QUICK, routes, with_fake};
use crate::support::account::{AccountClient, PASSWORD, Pool};
use crate::support::client::metric;
use crate::support::emulator::Emulator;
use crate::support::fake_cognito::{refusal, tokens};
use crate::support::jwks_server::Reply;
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, TokenBuilder};

/// Returns a code of the right form that differs from `code`.
fn wrong(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

/// Returns the label and the parameters of an `otpauth` URL.
fn otpauth(url: &str) -> (String, HashMap<String, String>) {
    let url = url::Url::parse(url).unwrap();
    assert_eq!((url.scheme(), url.host_str()), ("otpauth", Some("totp")));
    (url.path().to_owned(), url.query_pairs().into_owned().collect())
}

/// Calls each route of the profile and of second factors, with or without a client secret.
async fn use_the_account(emulator: &Emulator, with_secret: bool) {
    let pool = Pool::create(emulator, with_secret, json!({})).await;
    let optional = json!({"UserPoolId": pool.id, "MfaConfiguration": "OPTIONAL",
        "SoftwareTokenMfaConfiguration": {"Enabled": true}});
    emulator.call("SetUserPoolMfaConfig", optional).await;
    let (flags, _directory) = flags(emulator, &pool);
    let own = ["--account-attributes", "locale", "--totp-issuer", "Big Corp"];
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(QUICK).chain(own).collect();
    let app = TestApp::start(&flags);
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    let email = "ada@example.com";
    let session = sign_in(emulator, &client, email).await;
    let access = session["accessToken"].as_str().unwrap();
    let ask = async |method: Method, path: &str, body: Value| client.call(method, path, access, body).await;

    let me = ask(Method::GET, "/me", json!({})).await;
    assert_eq!(me.status, 200, "{:?}", me.body);
    assert_eq!(
        (&me.body["attributes"]["email"], &me.body["attributes"]["name"], &me.body["mfa"]),
        (&json!(email), &json!("Ada"), &json!({"preferred": null, "enabled": []}))
    );
    assert_eq!(me.text("sub").len(), 36);
    assert!(!me.text("username").is_empty() && me.body["attributes"].get("sub").is_none());
    let head = client.raw(Method::HEAD, "/me", &[("authorization", &format!("Bearer {access}"))], "").await;
    assert_eq!((head.status, head.body), (200, Value::Null));

    let changed = ask(Method::PATCH, "/me", json!({"attributes": {"name": "Ada L", "locale": "de"}})).await;
    assert_eq!(changed.status, 200, "{:?}", changed.body);
    assert_eq!(
        (&changed.body["sub"], &changed.body["attributes"]["name"], &changed.body["attributes"]["locale"]),
        (&me.body["sub"], &json!("Ada L"), &json!("de"))
    );
    assert_eq!(ask(Method::GET, "/me", json!({})).await.body, changed.body);
    for name in ["custom:role", "email_verified", "email", "nickname"] {
        let refused = ask(Method::PATCH, "/me", json!({"attributes": {"locale": "fr", name: "x"}})).await;
        assert_eq!(
            (refused.verdict(), refused.text("message")),
            (
                (400, "invalid_request"),
                &*format!("attributes.{name} is not allowed. Allowed: name, locale (--account-attributes)")
            )
        );
    }
    assert_eq!(ask(Method::GET, "/me", json!({})).await.body, changed.body, "a refused change has no effect");

    // An authenticator is set up, and becomes the second factor.
    let setup = ask(Method::POST, "/mfa/totp", json!({})).await;
    assert_eq!(setup.status, 200, "{:?}", setup.body);
    assert!(setup.body.get("session").is_none());
    let secret = setup.text("secret");
    let (label, parameters) = otpauth(setup.text("otpauthUrl"));
    assert_eq!(label, "/Big%20Corp:ada%40example.com");
    assert_eq!((&*parameters["secret"], &*parameters["issuer"]), (secret, "Big Corp"));
    let verify = async |code: &str| ask(Method::POST, "/mfa/totp/verify", json!({"code": code})).await;
    assert_eq!(verify(wrong(&totp(secret))).await.verdict(), (400, "invalid_code"));
    let verified = verify(&totp(secret)).await;
    assert_eq!((verified.status, verified.text("message")), (200, "Authenticator verified."), "{:?}", verified.body);
    let preference = async |enabled: bool| {
        let body = json!({"totp": {"enabled": enabled, "preferred": enabled}, "sms": {"enabled": false}});
        assert_eq!(ask(Method::PUT, "/mfa/preference", body).await.status, 200);
        ask(Method::GET, "/me", json!({})).await.body["mfa"].clone()
    };
    assert_eq!(preference(false).await, json!({"preferred": null, "enabled": []}));
    assert_eq!(preference(true).await, json!({"preferred": "SOFTWARE_TOKEN_MFA", "enabled": ["SOFTWARE_TOKEN_MFA"]}));
    let login = || client.post("/login", json!({"email": email, "password": PASSWORD}));
    let challenge = login().await;
    assert_eq!((challenge.status, challenge.text("challenge")), (200, "SOFTWARE_TOKEN_MFA"), "{:?}", challenge.body);
    let answer = |code: &str| {
        json!({"challenge": "SOFTWARE_TOKEN_MFA", "session": challenge.body["session"], "username": me.body["username"],
            "responses": {"SOFTWARE_TOKEN_MFA_CODE": code}})
    };
    assert_eq!(client.post("/challenge", answer(wrong(&totp(secret)))).await.verdict(), (401, "invalid_code"));
    let second = client.post("/challenge", answer(&totp(secret))).await;
    assert_eq!(second.status, 200, "{:?}", second.body);

    // Setting up a second factor during a sign-in. The emulator accepts any session for it.
    let setup = client.post("/mfa/totp", json!({"session": "a-session-of-a-sign-in", "username": "ada"})).await;
    assert_eq!(setup.status, 200, "{:?}", setup.body);
    assert_eq!(otpauth(setup.text("otpauthUrl")).0, "/Big%20Corp:ada");
    let verify = |code: String| json!({"session": setup.body["session"], "code": code});
    let secret = setup.text("secret");
    let refused = client.post("/mfa/totp/verify", verify(wrong(&totp(secret)).into())).await;
    assert_eq!(refused.verdict(), (400, "invalid_code"));
    let verified = client.post("/mfa/totp/verify", verify(totp(secret))).await;
    let answer =
        json!({"challenge": "MFA_SETUP", "session": verified.body["session"], "username": me.body["username"]});
    let third = client.post("/challenge", answer).await;
    assert_eq!(third.status, 200, "{:?}", third.body);

    let deleted = ask(Method::DELETE, "/me", json!({})).await;
    assert_eq!((deleted.status, deleted.text("message")), (200, "Account deleted."), "{:?}", deleted.body);
    assert_eq!(ask(Method::GET, "/me", json!({})).await.verdict(), (401, "invalid_token"));
    assert_eq!(ask(Method::DELETE, "/me", json!({})).await.verdict(), (401, "invalid_token"));
    assert_eq!(login().await.verdict(), (401, "invalid_credentials"));
    for (operation, outcome) in
        [("me", "success"), ("update-me", "invalid_request"), ("delete-me", "success"), ("mfa-totp", "success")]
    {
        let series = format!("account_requests_total{{operation=\"{operation}\",outcome=\"{outcome}\"}}");
        assert!(metric(&app.admin, &series).await >= 1.0, "{series}");
    }
}

#[tokio::test]
async fn users_manage_their_accounts_with_and_without_a_client_secret() {
    let emulator = Emulator::start().await;
    for with_secret in [false, true] {
        use_the_account(&emulator, with_secret).await;
    }
}

#[tokio::test]
async fn routes_of_the_own_account_need_a_token_with_the_scope() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    let signed = |token: TokenBuilder| token.sign(SigningKey::shared());
    let narrow = signed(TokenBuilder::access().claim("scope", "openid"));
    let own = routes()
        .into_iter()
        .filter(|(_, path, _)| ["/me", "/verify-", "/mfa/", "/webauthn/"].iter().any(|start| path.starts_with(start)));
    let own: Vec<_> = own.collect();
    assert_eq!(own.len(), 12);
    for (method, path, body) in own {
        let refused = client.call(method.clone(), path, &narrow, body.clone()).await;
        assert_eq!(refused.verdict(), (400, "scope_missing"), "{method} {path}");
        for bad in [
            "x".to_owned(),
            signed(TokenBuilder::id()),
            signed(TokenBuilder::access().expires_in(-100)),
            TokenBuilder::access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()),
        ] {
            let refused = client.call(method.clone(), path, &bad, body.clone()).await;
            assert_eq!(refused.verdict(), (401, "invalid_token"), "{method} {path}");
            assert_eq!(refused.headers["www-authenticate"], "Bearer realm=\"api\"");
        }
        let json = [("content-type", "application/json")];
        let refused = client.raw(method.clone(), path, &json, body.to_string()).await;
        assert_eq!((refused.verdict(), refused.text("message")), ((401, "invalid_token"), "No token provided"));
    }
    let both = json!({"session": "a-session-of-a-sign-in", "code": "123456"});
    for path in ["/mfa/totp", "/mfa/totp/verify"] {
        let token = signed(TokenBuilder::access());
        assert_eq!(client.bearer(path, &token, both.clone()).await.verdict(), (400, "invalid_request"), "{path}");
        assert_eq!(client.bearer(path, "x", both.clone()).await.verdict(), (401, "invalid_token"), "{path}");
    }
    assert!(fake.calls().is_empty(), "Cognito is not called");
}

#[tokio::test]
async fn a_revoked_token_and_a_wrong_code_are_errors_of_the_caller() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    for (name, message, path, expected) in [
        ("NotAuthorizedException", "Access Token has been revoked", "/verify-attribute", (401, "invalid_token")),
        ("CodeMismatchException", "", "/verify-attribute", (400, "invalid_code")),
        ("ExpiredCodeException", "", "/verify-attribute", (400, "invalid_code")),
        ("AliasExistsException", "", "/verify-attribute", (400, "username_exists")),
        ("LimitExceededException", "", "/verify-attribute/code", (429, "rate_limited")),
        ("EnableSoftwareTokenMFAException", "Code mismatch", "/mfa/totp/verify", (400, "invalid_code")),
        ("SoftwareTokenMFANotFoundException", "", "/mfa/totp", (400, "mfa_not_set_up")),
    ] {
        fake.refuses(name, message);
        let (method, _, body) = routes().into_iter().find(|(_, other, _)| *other == path).unwrap();
        assert_eq!(client.call(method, path, &token, body).await.verdict(), expected, "{path} {name}");
    }
    // A response with status 200 that reports a failure.
    fake.answers(|_, _| Reply::ok(json!({"Status": "ERROR"}).to_string()));
    let refused = client.bearer("/mfa/totp/verify", &token, json!({"code": "123456"})).await;
    assert_eq!(refused.verdict(), (400, "invalid_code"));
    // The change is sent once. Only the call that reads the result is retried.
    fake.answers(
        |call, _| {
            if call.operation == "GetUser" { Reply { status: 500, ..Reply::ok("") } } else { Reply::ok("{}") }
        },
    );
    let changed = client.call(Method::PATCH, "/me", &token, json!({"attributes": {"name": "Ada"}})).await;
    assert_eq!(changed.verdict(), (503, "upstream_unavailable"));
    assert_eq!(fake.operations(), ["UpdateUserAttributes", "GetUser", "GetUser"]);
    // If the profile cannot be read, the label is the user name of the token.
    fake.answers(|call, _| match &*call.operation {
        "GetUser" => Reply { status: 500, ..Reply::ok("") },
        _ => Reply::ok(json!({"SecretCode": "JBSWY3DPEHPK3PXP"}).to_string()),
    });
    let named = TokenBuilder::access().claim("username", "ada").sign(SigningKey::shared());
    let setup = client.bearer("/mfa/totp", &named, json!({})).await;
    assert_eq!(otpauth(setup.text("otpauthUrl")).0, "/api:ada");
    fake.refuses("InvalidParameterException", "User has not verified software token mfa");
    let refused = client.call(Method::PUT, "/mfa/preference", &token, json!({"totp": {"enabled": true}})).await;
    assert_eq!(refused.verdict(), (400, "mfa_not_set_up"));
}

#[tokio::test]
async fn a_changed_address_gets_a_code_and_can_be_verified() {
    let (_app, client, fake) = with_fake(&[&QUICK[..], &["--account-attributes=email"]].concat()).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let details = json!({"Destination": "n***@e***", "DeliveryMedium": "EMAIL", "AttributeName": "email"});
    let delivery = json!({"destination": "n***@e***", "medium": "EMAIL", "attribute": "email"});
    fake.answers(move |call, _| {
        Reply::ok(
            match &*call.operation {
                "UpdateUserAttributes" => json!({"CodeDeliveryDetailsList": [details]}),
                "GetUserAttributeVerificationCode" => json!({"CodeDeliveryDetails": details}),
                "GetUser" => json!({"Username": "u", "UserAttributes": [{"Name": "sub", "Value": "s"},
                    {"Name": "email", "Value": "new@example.test"}, {"Name": "email_verified", "Value": "false"}]}),
                _ => json!({}),
            }
            .to_string(),
        )
    });
    let change = json!({"attributes": {"email": "new@example.test"}});
    let changed = client.call(Method::PATCH, "/me", &token, change).await;
    assert_eq!(
        changed.body,
        json!({"sub": "s", "username": "u", "mfa": {"preferred": null, "enabled": []},
            "attributes": {"email": "new@example.test", "email_verified": "false"}, "deliveries": [delivery]})
    );
    let sent = client.bearer("/verify-attribute/code", &token, json!({"attribute": "email"})).await;
    assert_eq!(sent.body, json!({"message": "Verification code sent.", "delivery": delivery}));
    let verify = json!({"attribute": "email", "code": "123456"});
    let verified = client.bearer("/verify-attribute", &token, verify).await;
    assert_eq!(verified.body, json!({"message": "Attribute verified."}));
    let calls = fake.calls();
    let operations: Vec<_> = calls.iter().map(|call| &*call.operation).collect();
    let expected = ["UpdateUserAttributes", "GetUser", "GetUserAttributeVerificationCode", "VerifyUserAttribute"];
    assert_eq!(operations, expected);
    assert_eq!(calls[3].body, json!({"AccessToken": token, "AttributeName": "email", "Code": "123456"}));
}

#[tokio::test]
async fn a_second_factor_can_be_set_up_during_a_sign_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "1exampleclientsecret0123456789abcdefghijklmnopqrstu").unwrap();
    let with_secret = ["--client-secret-file", file.to_str().unwrap()];
    let (_app, client, fake) = with_fake(&[&QUICK[..], &with_secret].concat()).await;
    // As at AWS, each step accepts only the session of the step before it.
    fake.answers(|call, _| {
        let body = &call.body;
        let session = |name: &str| format!("session-of-a-sign-in-{name}");
        let challenge = |name: &str, next: &str, parameters: Value| {
            Reply::ok(
                json!({"ChallengeName": name, "Session": session(next), "ChallengeParameters": parameters}).to_string(),
            )
        };
        match (
            &*call.operation,
            body["Session"].as_str().unwrap_or_default().trim_start_matches("session-of-a-sign-in-"),
        ) {
            ("InitiateAuth", "") => challenge(
                "MFA_SETUP",
                "1",
                json!({"MFAS_CAN_SETUP": "[\"SOFTWARE_TOKEN_MFA\"]", "USER_ID_FOR_SRP": "real"}),
            ),
            ("AssociateSoftwareToken", "1") => {
                Reply::ok(json!({"SecretCode": "JBSWY3DPEHPK3PXP", "Session": session("2")}).to_string())
            }
            ("VerifySoftwareToken", "2") if body["UserCode"] == totp("JBSWY3DPEHPK3PXP") => {
                Reply::ok(json!({"Status": "SUCCESS", "Session": session("3")}).to_string())
            }
            ("VerifySoftwareToken", "2") => refusal("EnableSoftwareTokenMFAException", "Code mismatch"),
            ("RespondToAuthChallenge", "3") if body["ChallengeName"] == "MFA_SETUP" => {
                tokens(&json!({"RefreshToken": "r"}))
            }
            _ => refusal("NotAuthorizedException", "Invalid session for the user."),
        }
    });
    let start = client.post("/login", json!({"email": "ada@example.test", "password": "p"})).await;
    assert_eq!((start.status, start.text("challenge")), (200, "MFA_SETUP"));
    let stale = client.post("/mfa/totp", json!({"session": "session-of-a-sign-in-9"})).await;
    assert_eq!(stale.verdict(), (400, "invalid_session"));
    let setup = client.post("/mfa/totp", json!({"session": start.body["session"], "email": "ada@example.test"})).await;
    assert_eq!(setup.status, 200, "{:?}", setup.body);
    let (label, parameters) = otpauth(setup.text("otpauthUrl"));
    assert_eq!(
        (&*label, &*parameters["issuer"]),
        ("/api:ada%40example.test", "api"),
        "the issuer falls back to the realm"
    );
    let code = totp(setup.text("secret"));
    let verify = |code: &str| json!({"session": setup.body["session"], "code": code});
    assert_eq!(client.post("/mfa/totp/verify", verify(wrong(&code))).await.verdict(), (400, "invalid_code"));
    let verified = client.post("/mfa/totp/verify", verify(&totp(setup.text("secret")))).await;
    assert_eq!(verified.status, 200, "{:?}", verified.body);
    let user = &start.body["parameters"]["USER_ID_FOR_SRP"];
    let answer = |session: &Value| json!({"challenge": "MFA_SETUP", "session": session, "username": user});
    let stale = client.post("/challenge", answer(&start.body["session"])).await;
    assert_eq!(stale.verdict(), (401, "invalid_session"));
    let signed_in = client.post("/challenge", answer(&verified.body["session"])).await;
    assert_eq!((signed_in.status, signed_in.text("refreshToken")), (200, "r"), "{:?}", signed_in.body);

    let calls = fake.calls();
    for call in calls.iter().filter(|call| call.operation.ends_with("SoftwareToken")) {
        assert!(call.body.get("AccessToken").is_none() && call.body.get("ClientId").is_none(), "{}", call.body);
    }
    let last = &calls.last().unwrap().body["ChallengeResponses"];
    assert!(last["USERNAME"] == "real" && last["SECRET_HASH"].is_string(), "{last}");
}

#[tokio::test]
async fn other_second_factors_pass_through() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    fake.answers(|call, _| {
        let next = match call.body["ChallengeName"].as_str() {
            None => "SELECT_MFA_TYPE",
            Some("SELECT_MFA_TYPE") => call.body["ChallengeResponses"]["ANSWER"].as_str().unwrap(),
            Some(_) => return tokens(&json!({})),
        };
        Reply::ok(json!({"ChallengeName": next, "Session": "next", "ChallengeParameters": {}}).to_string())
    });
    for (factor, member) in [("SMS_MFA", "SMS_MFA_CODE"), ("EMAIL_OTP", "EMAIL_OTP_CODE")] {
        let select = client.post("/login", json!({"email": "a", "password": "p"})).await;
        assert_eq!(select.text("challenge"), "SELECT_MFA_TYPE");
        let answer = |challenge: &str, responses: Value| {
            client.post(
                "/challenge",
                json!({"challenge": challenge, "session": "next", "email": "a", "responses": responses}),
            )
        };
        let asked = answer("SELECT_MFA_TYPE", json!({"ANSWER": factor})).await;
        assert_eq!((asked.status, asked.text("challenge")), (200, factor));
        assert_eq!(answer(factor, json!({member: "123456"})).await.status, 200);
        assert_eq!(fake.calls().last().unwrap().body["ChallengeResponses"][member], "123456");
    }
}

#[tokio::test]
async fn codes_count_for_the_user_and_messages_for_the_recipient() {
    let flags =
        ["--account-min-failure-time=0s", "--limit-user=3/1h", "--limit-sends=2/1h", "--account-attributes=email"];
    let (_app, client, fake) = with_fake(&flags).await;
    let token = |user: &str| TokenBuilder::access().claim("username", user).sign(SigningKey::shared());
    fake.refuses("CodeMismatchException", "");
    let verify = json!({"attribute": "email", "code": "000000", "session": "x"});
    for user in ["a", "b"] {
        for expected in [400, 400, 400, 429] {
            assert_eq!(
                client.bearer("/verify-attribute", &token(user), verify.clone()).await.status,
                expected,
                "{user}"
            );
        }
        let code = json!({"code": "000000"});
        assert_eq!(
            client.bearer("/mfa/totp/verify", &token(user), code).await.status,
            429,
            "all codes share one limit"
        );
    }
    let by_session = |session: &str| json!({"session": session, "code": "000000"});
    for session in ["session-of-a-sign-in-1", "session-of-a-sign-in-2"] {
        for expected in [400, 400, 400, 429] {
            assert_eq!(client.post("/mfa/totp/verify", by_session(session)).await.status, expected, "{session}");
        }
    }
    let send = json!({"attribute": "email"});
    let me = |name: &str| json!({"attributes": {name: "x@example.test"}});
    for expected in [400, 400, 429] {
        assert_eq!(client.bearer("/verify-attribute/code", &token("c"), send.clone()).await.status, expected);
    }
    assert_eq!(
        client.call(Method::PATCH, "/me", &token("c"), me("email")).await.status,
        429,
        "a new address gets a message"
    );
    for _ in 0..5 {
        assert_eq!(
            client.call(Method::PATCH, "/me", &token("c"), me("name")).await.status,
            400,
            "a new name sends no message"
        );
    }
}
