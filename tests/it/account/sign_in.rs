//! Sign-up, sign-in and sign-out at the emulator, with and without a client secret.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::QUICK;
use crate::support::account::{AccountClient, PASSWORD, Pool, mailed_code};
use crate::support::client::{connect, get, metric, verdict};
use crate::support::emulator::Emulator;
use crate::support::service::{Program, TestApp};
use crate::support::token::unix_now;
use crate::support::{PATIENCE, eventually, tool};

/// Returns flags for a pool at the emulator, and the directory of the file with the client secret.
pub(crate) fn flags(emulator: &Emulator, pool: &Pool) -> (Vec<String>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut flags = vec!["--user-pool-id".to_owned(), pool.id.clone(), "--client-id".into(), pool.client.clone()];
    flags.extend(["--cognito-endpoint".into(), emulator.url.clone()]);
    if let Some(secret) = &pool.secret {
        let file = directory.path().join("secret");
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        flags.extend(["--client-secret-file".into(), file.to_str().unwrap().to_owned()]);
    }
    (flags, directory)
}

pub(crate) async fn ready(admin: &str) {
    eventually("ready", PATIENCE, async || get(admin, "/readyz").await.0 == 200).await;
}

/// Verifies a token with `PyJWT` and the JWKS of the pool, and returns its claims.
pub(crate) fn claims_by_pyjwt(emulator: &Emulator, pool: &Pool, token: &str) -> Value {
    const SCRIPT: &str = r#"
import json, sys, urllib.request, jwt
given = json.load(sys.stdin)
keys = jwt.PyJWKSet.from_dict(json.load(urllib.request.urlopen(given["jwks"])))
key = keys[jwt.get_unverified_header(given["token"])["kid"]]
print(json.dumps(jwt.decode(given["token"], key, algorithms=["RS256"], issuer=given["issuer"],
                            options={"verify_aud": False, "require": ["exp", "iss"]})))
"#;
    let given = json!({
        "jwks": format!("{}/{}/.well-known/jwks.json", emulator.url, pool.id),
        "issuer": format!("https://cognito-idp.us-east-1.amazonaws.com/{}", pool.id),
        "token": token,
    });
    let mut python = Command::new(tool::program("python"));
    let mut python = python.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "PyJWT refuses the token");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Signs up, confirms and signs in. Returns the body of the response to the sign-in.
pub(crate) async fn sign_in(emulator: &Emulator, client: &AccountClient, email: &str) -> Value {
    let body = json!({"email": email, "password": PASSWORD, "name": "Ada"});
    assert_eq!(client.post("/register", body).await.status, 201);
    let code = mailed_code(emulator, email).await;
    assert_eq!(client.post("/verify", json!({"email": email, "code": code})).await.status, 200);
    let reply = client.post("/login", json!({"email": email, "password": PASSWORD})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    reply.body
}

/// Calls each route of sign-up, sign-in and sign-out at least once.
async fn sign_up_in_and_out(emulator: &Emulator, pool: &Pool, app: &TestApp) {
    let client = AccountClient::new(&app.admin);
    let email = "ada@example.com";
    let register = json!({"email": email, "password": PASSWORD, "name": "Ada"});

    let reply = client.post("/register", register.clone()).await;
    assert_eq!(reply.status, 201, "{:?}", reply.body);
    assert_eq!(reply.text("message"), "Registration successful. Check your email for a verification code.");
    let sub = reply.text("userSub").to_owned();
    assert_eq!(
        (&reply.body["delivery"]["medium"], &reply.body["delivery"]["attribute"]),
        (&json!("EMAIL"), &json!("email"))
    );
    assert_eq!(client.post("/register", register).await.verdict(), (400, "username_exists"));
    let weak = json!({"email": "weak@example.com", "password": "x", "name": "W"});
    let weak = client.post("/register", weak).await;
    assert_eq!(weak.verdict(), (400, "invalid_password"));
    assert!(
        weak.text("message").contains("policy"),
        "Cognito's description of the password policy is returned: {:?}",
        weak.body
    );

    let login = |password: &str| json!({"email": email, "password": password});
    assert_eq!(client.post("/login", login(PASSWORD)).await.verdict(), (401, "user_not_confirmed"));
    assert_eq!(client.post("/resend-code", json!({"email": email})).await.status, 200);
    let verify = |code: &str| json!({"email": email, "code": code});
    assert_eq!(client.post("/verify", verify("000000")).await.verdict(), (400, "invalid_code"));
    let code = mailed_code(emulator, email).await;
    let reply = client.post("/verify", verify(&code)).await;
    assert_eq!((reply.status, reply.text("message")), (200, "Email verified. You can now log in."));

    assert_eq!(client.post("/login", login("Wrong-horse-1-battery")).await.verdict(), (401, "invalid_credentials"));
    let session = client.post("/login", login(PASSWORD)).await;
    assert_eq!((session.status, session.text("tokenType")), (200, "Bearer"), "{:?}", session.body);
    assert!(session.body["expiresIn"].as_i64().unwrap() > 0);
    for (token, use_, client_claim) in [("accessToken", "access", "client_id"), ("idToken", "id", "aud")] {
        let claims = claims_by_pyjwt(emulator, pool, session.text(token));
        assert_eq!(
            (&claims["token_use"], &claims["sub"], &claims[client_claim]),
            (&json!(use_), &json!(sub), &json!(pool.client))
        );
    }
    let channel = connect(&app.grpc[0]).await;
    assert_eq!(verdict(&channel, session.text("accessToken")).await.0, 200, "a returned access token passes a check");

    let refreshed = client.post("/refresh", json!({"refreshToken": session.text("refreshToken")})).await;
    assert_eq!(refreshed.status, 200, "{:?}", refreshed.body);
    assert!(refreshed.body.get("refreshToken").is_none(), "the refresh token was not rotated");
    assert_eq!(verdict(&channel, refreshed.text("accessToken")).await.0, 200);
    assert_eq!(client.post("/refresh", json!({"refreshToken": "not-one"})).await.verdict(), (401, "invalid_token"));

    let access = session.text("accessToken");
    let change = |old: &str| json!({"oldPassword": old, "newPassword": "Correct-horse-2-battery"});
    assert_eq!(client.post("/change-password", change(PASSWORD)).await.verdict(), (401, "invalid_token"));
    let wrong = client.bearer("/change-password", access, change("Wrong-horse-1-battery")).await;
    assert_eq!(wrong.verdict(), (400, "invalid_credentials"));
    assert_eq!(client.bearer("/change-password", access, change(PASSWORD)).await.status, 200);
    assert_eq!(client.post("/login", login(PASSWORD)).await.status, 401, "the old password is invalid");

    let reply = client.post("/forgot-password", json!({"email": email})).await;
    assert_eq!((reply.status, reply.text("message")), (200, "Password reset code sent to your email."));
    let reset = |code: &str, password: &str| json!({"email": email, "code": code, "newPassword": password});
    assert_eq!(client.post("/reset-password", reset("000000", PASSWORD)).await.verdict(), (400, "invalid_code"));
    let code = mailed_code(emulator, email).await;
    let reply = client.post("/reset-password", reset(&code, PASSWORD)).await;
    assert_eq!((reply.status, reply.text("message")), (200, "Password reset successfully."), "{:?}", reply.body);

    // One session is revoked, then all sessions.
    let first = client.post("/login", login(PASSWORD)).await;
    let second = client.post("/login", login(PASSWORD)).await;
    let refresh_of = |session: &Value| json!({"refreshToken": session["refreshToken"]});
    let access = first.text("accessToken");
    assert_eq!(client.bearer("/revoke", second.text("accessToken"), refresh_of(&second.body)).await.status, 200);
    assert_eq!(client.call(reqwest::Method::GET, "/me", second.text("accessToken"), json!({})).await.status, 401);
    assert_eq!(client.post("/refresh", refresh_of(&second.body)).await.verdict(), (401, "invalid_token"));
    assert_eq!(client.post("/refresh", refresh_of(&first.body)).await.status, 200);
    let reply = client.raw(reqwest::Method::POST, "/logout", &[], "").await;
    assert_eq!((reply.status, reply.text("message")), (401, "No token provided"));
    assert_eq!(reply.headers["www-authenticate"], "Bearer realm=\"api\"");
    let id = client.bearer("/logout", first.text("idToken"), json!({})).await;
    assert_eq!(id.verdict(), (401, "invalid_token"), "an ID token does not sign a user out");
    let bearer = format!("Bearer {access}");
    let reply = client.raw(reqwest::Method::POST, "/logout", &[("authorization", &bearer)], "").await;
    assert_eq!((reply.status, reply.text("message")), (200, "Logged out successfully."), "{:?}", reply.body);
    assert_eq!(reply.text("scope"), "replica");
    assert_eq!(client.post("/refresh", refresh_of(&first.body)).await.verdict(), (401, "invalid_token"));
    assert_eq!(client.bearer("/logout", access, json!({})).await.verdict(), (401, "invalid_token"), "signed out");
    assert_eq!(client.bearer("/change-password", access, change(PASSWORD)).await.verdict(), (401, "invalid_token"));
}

#[tokio::test]
async fn users_sign_up_in_and_out_with_and_without_a_client_secret() {
    let emulator = Emulator::start().await;
    for with_secret in [false, true] {
        for use_ in ["access", "id"] {
            let pool = Pool::create(&emulator, with_secret, json!({})).await;
            assert_eq!(pool.secret.is_some(), with_secret);
            let (flags, _directory) = flags(&emulator, &pool);
            // Checks that require ID tokens deny access tokens. Signing in and out still works.
            let flags: Vec<&str> = flags.iter().map(String::as_str).chain(QUICK).collect();
            let app = TestApp::start(&flags);
            ready(&app.admin).await;
            if use_ == "access" {
                sign_up_in_and_out(&emulator, &pool, &app).await;
                let counted = async |series: &str| metric(&app.admin, series).await;
                assert_eq!(counted("account_requests_total{operation=\"register\",outcome=\"success\"}").await, 1.0);
                assert_eq!(
                    counted("account_requests_total{operation=\"login\",outcome=\"invalid_credentials\"}").await,
                    2.0
                );
                assert_eq!(
                    counted("cognito_requests_total{operation=\"GlobalSignOut\",outcome=\"success\"}").await,
                    1.0
                );
                assert_eq!(counted("cognito_requests_total{operation=\"SignUp\",outcome=\"refused\"}").await, 2.0);
                assert!(counted("account_request_duration_seconds_count{operation=\"login\"}").await > 4.0);
            } else {
                drop(app);
                let app = TestApp::start(&[&flags[..], &["--token-use", "id"]].concat());
                ready(&app.admin).await;
                let client = AccountClient::new(&app.admin);
                let session = sign_in(&emulator, &client, "eve@example.com").await;
                let channel = connect(&app.grpc[0]).await;
                assert_eq!(verdict(&channel, session["idToken"].as_str().unwrap()).await.0, 200);
                assert_eq!(verdict(&channel, session["accessToken"].as_str().unwrap()).await.0, 401);
                let access = session["accessToken"].as_str().unwrap();
                assert_eq!(client.bearer("/logout", access, json!({})).await.status, 200);
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_secret_and_a_disabled_flow_are_logged_with_advice() {
    let emulator = Emulator::start().await;
    let mut pool = Pool::create(&emulator, true, json!({})).await;
    pool.secret = Some("1exampleclientsecret0123456789abcdefghijklmnopqrstu".into());
    let (wrong, _directory) = flags(&emulator, &pool);
    let srp = json!({"ExplicitAuthFlows": ["ALLOW_USER_SRP_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]});
    let pool = Pool::create(&emulator, false, srp).await;
    let (forbidden, _directory_of_none) = flags(&emulator, &pool);
    for (flags, code, advice) in [
        (wrong, "upstream_error", "--client-secret-file"),
        (forbidden, "auth_flow_disabled", "ALLOW_USER_PASSWORD_AUTH"),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(QUICK).collect();
        let mut program = Program::start(&flags);
        ready(&program.admin).await;
        let client = AccountClient::new(&program.admin);
        let body = json!({"email": "ada@example.com", "password": PASSWORD});
        assert_eq!(client.post("/login", body).await.verdict(), (502, code));
        program.wait_for_line(advice);
    }
}

#[tokio::test]
async fn second_factors_and_new_passwords_are_challenges() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, true, json!({})).await;
    let (flags, _directory) = flags(&emulator, &pool);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(QUICK).collect();
    let app = TestApp::start(&flags);
    ready(&app.admin).await;
    let client = AccountClient::new(&app.admin);
    let (user, first) = ("new@example.com", "Temporary-horse-1");
    let invite = json!({"UserPoolId": pool.id, "Username": user, "TemporaryPassword": first, "MessageAction": "SUPPRESS",
        "UserAttributes": [{"Name": "email", "Value": user}]});
    emulator.call("AdminCreateUser", invite).await;
    let challenge = client.post("/login", json!({"email": user, "password": first})).await;
    assert_eq!((challenge.status, challenge.text("challenge")), (200, "NEW_PASSWORD_REQUIRED"), "{:?}", challenge.body);
    assert!(challenge.body["parameters"].is_object() && challenge.body.get("accessToken").is_none());
    let answer = json!({"challenge": "NEW_PASSWORD_REQUIRED", "session": challenge.body["session"], "username": user,
        "responses": {"NEW_PASSWORD": PASSWORD}});
    let reply = client.post("/challenge", answer).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_eq!(claims_by_pyjwt(&emulator, &pool, reply.text("accessToken"))["token_use"], "access");
    let bearer = reply.text("accessToken");

    // A second factor that was set up through Cognito's own API.
    let optional = json!({"UserPoolId": pool.id, "MfaConfiguration": "OPTIONAL", "SoftwareTokenMfaConfiguration": {"Enabled": true}});
    emulator.call("SetUserPoolMfaConfig", optional).await;
    let secret = emulator.call("AssociateSoftwareToken", json!({"AccessToken": bearer})).await;
    let secret = secret["SecretCode"].as_str().unwrap();
    emulator.call("VerifySoftwareToken", json!({"AccessToken": bearer, "UserCode": totp(secret)})).await;
    let preference =
        json!({"AccessToken": bearer, "SoftwareTokenMfaSettings": {"Enabled": true, "PreferredMfa": true}});
    emulator.call("SetUserMFAPreference", preference).await;
    let challenge = client.post("/login", json!({"email": user, "password": PASSWORD})).await;
    assert_eq!((challenge.status, challenge.text("challenge")), (200, "SOFTWARE_TOKEN_MFA"), "{:?}", challenge.body);
    let answer = |code: &str| {
        json!({"challenge": "SOFTWARE_TOKEN_MFA", "session": challenge.body["session"], "username": user,
            "responses": {"SOFTWARE_TOKEN_MFA_CODE": code}})
    };
    let code = totp(secret);
    let wrong = if code == "000000" { "000001" } else { "000000" };
    assert_eq!(client.post("/challenge", answer(wrong)).await.verdict(), (401, "invalid_code"));
    let reply = client.post("/challenge", answer(&totp(secret))).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_eq!(client.bearer("/logout", reply.text("accessToken"), json!({})).await.status, 200);
}

/// Returns the current code for a secret in base32 (RFC 6238: SHA-1, six digits, 30 seconds).
pub(crate) fn totp(secret: &str) -> String {
    let mut bits = secret.bytes().filter(|byte| *byte != b'=').flat_map(|byte| {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|letter| *letter == byte).unwrap();
        (0..5).rev().map(move |bit| u8::from(value >> bit & 1 == 1))
    });
    let mut key = Vec::new();
    while let Some(byte) = (0..8).try_fold(0, |byte: u8, _| Some(byte << 1 | bits.next()?)) {
        key.push(byte);
    }
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let step = u64::try_from(unix_now()).unwrap() / 30;
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag[19] & 15);
    let number = u32::from_be_bytes(tag[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

#[tokio::test]
async fn responses_do_not_reveal_who_has_an_account() {
    let emulator = Emulator::start().await;
    for setting in ["LEGACY", "ENABLED"] {
        let pool = Pool::create(&emulator, false, json!({"PreventUserExistenceErrors": setting})).await;
        let (flags, _directory) = flags(&emulator, &pool);
        let app = TestApp::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        ready(&app.admin).await;
        let client = AccountClient::new(&app.admin);
        sign_in(&emulator, &client, "known@example.com").await;
        for (path, body) in [
            ("/login", json!({"password": "Wrong-horse-1-battery"})),
            ("/verify", json!({"code": "000000"})),
            ("/reset-password", json!({"code": "000000", "newPassword": PASSWORD})),
            ("/forgot-password", json!({})),
            ("/resend-code", json!({})),
        ] {
            let mut answers = Vec::new();
            for email in ["known@example.com", "unknown@example.com"] {
                let mut body = body.clone();
                body["email"] = email.into();
                let start = Instant::now();
                let reply = client.post(path, body).await;
                let took = start.elapsed();
                assert!(took >= Duration::from_millis(300), "{path} {email}: {took:?}");
                answers.push((reply.status, reply.body));
            }
            assert_eq!(answers[0], answers[1], "{setting} {path}");
        }
        let hiding = [&flags.iter().map(String::as_str).collect::<Vec<_>>()[..], &["--account-hide-users"]].concat();
        let app = TestApp::start(&hiding);
        ready(&app.admin).await;
        let client = AccountClient::new(&app.admin);
        let register = |email: &str| json!({"email": email, "password": PASSWORD, "name": "Ada"});
        let taken = client.post("/register", register("known@example.com")).await;
        let new = client.post("/register", register("new@example.com")).await;
        assert_eq!((taken.status, &taken.body), (201, &new.body));
        let login = json!({"email": "new@example.com", "password": PASSWORD});
        assert_eq!(client.post("/login", login).await.verdict(), (401, "invalid_credentials"));
    }
}

#[tokio::test]
async fn logs_and_metrics_contain_no_secrets_and_no_names() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, true, json!({})).await;
    let (flags, _directory) = flags(&emulator, &pool);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(QUICK).chain(["--log-level", "trace"]).collect();
    let mut program = Program::start(&flags);
    ready(&program.admin).await;
    let client = AccountClient::new(&program.admin);
    let email = "very.private@example.com";
    let session = sign_in(&emulator, &client, email).await;
    let text = |name: &str| session[name].as_str().unwrap();
    let (wrong, code) = ("Wrong-secret-1-word", "918273");
    client.post("/login", json!({"email": email, "password": wrong})).await;
    client.post("/login", json!({"email": email, "password": [wrong]})).await;
    client.post("/verify", json!({"email": email, "code": code})).await;
    client.post("/reset-password", json!({"email": email, "code": code, "newPassword": wrong})).await;
    client.post("/refresh", json!({"refreshToken": text("refreshToken")})).await;
    let old = json!({"oldPassword": wrong, "newPassword": PASSWORD});
    client.bearer("/change-password", text("accessToken"), old).await;
    let own = async |method: reqwest::Method, path: &str, body: Value| {
        client.call(method, path, text("accessToken"), body).await
    };
    let (totp_session, code_of_totp) = ("a-session-of-a-sign-in-that-is-secret", "564738");
    own(reqwest::Method::GET, "/me", json!({})).await;
    own(reqwest::Method::PATCH, "/me", json!({"attributes": {"name": wrong}})).await;
    own(reqwest::Method::PATCH, "/me", json!({"attributes": {wrong: wrong}})).await;
    own(reqwest::Method::POST, "/verify-attribute", json!({"attribute": "email", "code": code})).await;
    let setup = own(reqwest::Method::POST, "/mfa/totp", json!({})).await;
    assert_eq!(setup.status, 200, "{:?}", setup.body);
    own(reqwest::Method::POST, "/mfa/totp/verify", json!({"code": code_of_totp})).await;
    let verified = own(reqwest::Method::POST, "/mfa/totp/verify", json!({"code": totp(setup.text("secret"))})).await;
    assert_eq!(verified.status, 200, "{:?}", verified.body);
    let by_session = client.post("/mfa/totp", json!({"session": totp_session, "email": email})).await;
    assert!(!by_session.text("session").is_empty(), "{:?}", by_session.body);
    client.post("/mfa/totp/verify", json!({"session": by_session.text("session"), "code": code_of_totp})).await;
    client.bearer("/logout", text("accessToken"), json!({"refreshToken": text("refreshToken")})).await;
    let (_, metrics) = get(&program.admin, "/metrics").await;
    let (_, config) = get(&program.admin, "/config").await;
    program.signal("TERM");
    assert!(program.wait().success());
    let log = program.log.join("\n");
    for operation in ["logout", "me", "update-me", "mfa-totp", "mfa-totp-verify"] {
        assert!(log.contains(&format!("\"operation\":\"{operation}\"")), "{operation} was not logged");
    }
    let sub = claims_by_pyjwt(&emulator, &pool, text("idToken"))["sub"].as_str().unwrap().to_owned();
    let tokens = ["accessToken", "idToken", "refreshToken"].map(text);
    let secrets = [PASSWORD, wrong, code, email, "very.private", &sub, pool.secret.as_deref().unwrap()];
    let of_totp =
        [setup.text("secret"), by_session.text("secret"), by_session.text("session"), totp_session, code_of_totp];
    for secret in secrets.into_iter().chain(of_totp).chain(tokens.iter().map(|token| &token[token.len() - 40..])) {
        for (place, output) in [("log", &log), ("metrics", &metrics), ("config", &config)] {
            assert!(!output.contains(secret), "{secret} is in the {place}");
        }
    }
}
