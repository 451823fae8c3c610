//! A whole scenario at the lowest level: checks, account operations, hosted pages, revocations, reloads, keys, the store.
//!
//! [`Wire`] sends the requests, and keeps what may not be in the log: each value that it sends and each that it receives,
//! apart from the members that `HARMLESS` lists.

mod wire;

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use self::wire::Wire;
use crate::account::oauth::{at_the_hosted_pages, hosted_client};
use crate::account::sign_in::{flags, ready, totp};
use crate::account::{QUICK, routes};
use crate::admin::TOKEN;
use crate::support::account::{PASSWORD, Pool, mailed_code};
use crate::support::client::{Ask, connect, get};
use crate::support::emulator::Emulator;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::redis::Redis;
use crate::support::service::Program;
use crate::support::token::{OTHER_ISSUER, OTHER_POOL, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

const EMAIL: &str = "very.private@example.com";
const CALLBACK: &str = "https://app.example.com/auth/oauth/callback";

/// Replaces each text of a body by one that occurs nowhere else, apart from words that the service compares.
fn marked(value: &Value, number: &mut u32) -> Value {
    let mut mark = |form: &str| {
        *number += 1;
        form.replace('#', &number.to_string())
    };
    match value {
        Value::String(text) if ["email", "SMS_MFA"].contains(&&**text) => value.clone(),
        Value::String(text) if text.contains('@') => mark("canary-#-of-a-bird@example.com").into(),
        Value::String(_) => mark("canary-#-of-a-bird").into(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), marked(value, number))).collect(),
        Value::Array(items) => items.iter().map(|item| marked(item, number)).collect(),
        other => other.clone(),
    }
}

/// Every operation: as a stranger, with a bad token, and with a good one.
async fn every_operation(wire: &Wire, access: &str) {
    let mut number = 0;
    let bad = TokenBuilder::access().claim("username", "canary-of-a-token").sign(SigningKey::other());
    for (method, path, body) in routes() {
        let is_empty = body.as_object().unwrap().is_empty();
        let mut body = || if is_empty { Value::Null } else { marked(&body, &mut number) };
        // With the good token, these would end the session, or ask for a code at the next sign-in.
        let ends = ["/logout", "/revoke", "/change-password", "/mfa/preference"].contains(&path)
            || method == Method::DELETE && path == "/me";
        wire.send(method.clone(), &format!("/auth{path}"), &[], &body()).await;
        wire.bearer(method.clone(), path, &bad, body()).await;
        if !ends {
            wire.bearer(method.clone(), path, access, body()).await;
        }
        // Bodies that cannot be read, and unknown members.
        wire.send(method.clone(), &format!("/auth{path}"), &[], &json!([EMAIL, PASSWORD])).await;
        wire.send(method, &format!("/auth{path}"), &[], &json!({"canary-of-a-member-x": "canary-of-a-value-x"})).await;
        wire.keep("canary-of-a-member-x");
    }
}

/// Signs up, in and out, with everything that a signed-in user can do in between.
async fn a_user(wire: &Wire, emulator: &Emulator) -> [String; 2] {
    let user = json!({"email": EMAIL, "password": PASSWORD, "name": "Augusta Ada King"});
    assert_eq!(wire.post("/register", user.clone()).await.status, 201);
    assert_eq!(wire.post("/register", user).await.status, 400);
    let code = mailed_code(emulator, EMAIL).await;
    assert_eq!(wire.post("/verify", json!({"email": EMAIL, "code": code})).await.status, 200);
    assert_eq!(wire.post("/login", json!({"email": EMAIL, "password": "Wrong-secret-1-word"})).await.status, 401);
    let session = wire.post("/login", json!({"email": EMAIL, "password": PASSWORD})).await;
    let access = session.text("accessToken");
    let refresh = json!({"refreshToken": session.text("refreshToken")});
    assert_eq!(wire.post("/refresh", refresh).await.status, 200);
    assert_eq!(wire.bearer(Method::GET, "/me", &access, Value::Null).await.status, 200);
    let name = json!({"attributes": {"name": "Countess of Lovelace"}});
    assert_eq!(wire.bearer(Method::PATCH, "/me", &access, name).await.status, 200);
    let setup = wire.bearer(Method::POST, "/mfa/totp", &access, json!({})).await;
    let code = totp(&setup.text("secret"));
    assert_eq!(wire.bearer(Method::POST, "/mfa/totp/verify", &access, json!({"code": code})).await.status, 200);
    every_operation(wire, &access).await;
    assert_eq!(wire.post("/forgot-password", json!({"email": EMAIL})).await.status, 200);
    let reset = json!({"email": EMAIL, "code": mailed_code(emulator, EMAIL).await, "newPassword": "Another-horse-2-x"});
    let reset = wire.post("/reset-password", reset).await;
    assert_eq!(reset.status, 200, "{reset:?}");
    let password = "Another-horse-2-x";
    let session = wire.post("/login", json!({"email": EMAIL, "password": password})).await;
    let access = session.text("accessToken");
    let change = json!({"oldPassword": password, "newPassword": PASSWORD});
    assert_eq!(wire.bearer(Method::POST, "/change-password", &access, change).await.status, 200);
    let revoke = json!({"refreshToken": session.text("refreshToken")});
    assert_eq!(wire.bearer(Method::POST, "/revoke", &access, revoke).await.status, 200);
    let session = wire.post("/login", json!({"email": EMAIL, "password": PASSWORD})).await;
    [session.text("accessToken"), session.text("idToken")]
}

/// Signs in at the hosted pages, in a browser without scripts, and fails at it in several ways.
async fn hosted_pages(wire: &Wire, emulator: &Emulator) {
    let navigate = async |path: &str, site: &str| {
        let headers = [("host", "app.example.com"), ("sec-fetch-mode", "navigate"), ("sec-fetch-site", site)];
        wire.send(Method::GET, path, &headers, &Value::Null).await
    };
    let begun = navigate("/auth/oauth/sign-in?return_to=%2Fcanary-of-a-page", "none").await;
    let back = at_the_hosted_pages(emulator, &begun.location(), EMAIL).await;
    wire.keep_query(&back);
    let back = back.strip_prefix("https://app.example.com").unwrap();
    assert_eq!(navigate(back, "cross-site").await.location(), "/canary-of-a-page");
    // The back button.
    navigate(back, "cross-site").await;
    // The hosted pages end a sign-in.
    let begun = navigate("/auth/oauth/sign-in?prompt=login&return_to=%2Fcanary-of-a-page", "none").await.location();
    let begun = Url::parse(&begun).unwrap();
    let (_, state) = begun.query_pairs().find(|(name, _)| name == "state").unwrap();
    let refused = format!(
        "/auth/oauth/callback?error=canary-of-an-error&error_description=canary-of-a-description&state={state}"
    );
    assert_eq!(navigate(&refused, "cross-site").await.status, 400);
    navigate("/auth/oauth/callback?code=canary-of-a-code-3&state=canary-of-a-state", "cross-site").await;
    navigate("/auth/oauth/renew?return_to=%2Fcanary-of-another-page", "none").await;
    navigate("/auth/oauth/sign-out", "same-origin").await;
    let body = json!({"code": "canary-of-a-code", "state": "canary-of-a-state-2", "codeVerifier": "canary-of-a-verifier",
        "redirectUri": CALLBACK});
    wire.post("/oauth/token", body).await;
}

/// Checks of good and bad tokens, in every place that can have one.
async fn checks(wire: &Wire, program: &Program, tokens: &[String]) {
    let channel = connect(&program.grpc[0]).await;
    let of = |email: &str| TokenBuilder::id().claim("email", email).claim("iss", OTHER_ISSUER);
    let private = "canary-of-an-address@example.com";
    let more = [
        of(private).sign(SigningKey::shared()),
        of(private).sign(SigningKey::other()),
        of(private).header("kid", "c2hhcmVk+/=").sign(SigningKey::other()),
        of(private).expires_in(-7200).sign(SigningKey::shared()),
        of(private).claim("aud", "canary-of-a-client").sign(SigningKey::shared()),
        of(private).header("kid", "unknown-kid").sign(SigningKey::shared()),
        of(private).claim("iss", "https://canary-of-an-issuer.example").sign(SigningKey::shared()),
        "canary.of.a-malformed-token".to_owned(),
        "eyJjYW5hcnkiOiJvZiBhIGhlYWRlciJ9.eyJjYW5hcnkiOiJvZiBhIHBheWxvYWQifQ.canary".to_owned(),
    ];
    wire.keep(private);
    wire.keep("canary-of-a-client");
    for token in tokens.iter().chain(&more) {
        wire.keep(token);
        let ask = || Ask::get("/canary-of-a-path?q=canary-of-a-query").header("x-request-id", "4a8f0f61-2f5b");
        for ask in [
            ask().bearer(token),
            ask().header("cookie", &format!("__Host-access_token={token}; other=canary-of-a-cookie")),
            ask().header("authorization", &format!("Basic {token}")),
            ask().bearer(token).policy("narrow"),
            ask().bearer(token).policy("shadowed"),
            Ask::new("POST", "/rpc")
                .bearer(token)
                .policy("rpc")
                .body(br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"canary-of-a-tool"}}"#),
            ask().bearer(token).header("x-request-id", "canary of a request id"),
        ] {
            // Often enough that the worker remembers the token.
            for _ in 0..3 {
                ask.clone().of(&channel).await;
            }
        }
        let url = format!("http://{}/ext-authz/canary-of-a-path?token={token}", program.http);
        drop(reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap());
    }
    for kept in ["path", "query", "cookie", "tool", "malformed-token", "issuer.example"] {
        wire.keep(&format!("canary-of-a-{kept}"));
    }
    wire.keep("canary of a request id");
    wire.keep("canary-of-an-issuer");
}

/// Operators: revocations, wrong tokens, the level.
async fn operators(wire: &Wire) {
    let order = json!({"sub": "canary-of-a-user@example.com", "pool": "default", "reason": "ticket 7"});
    let order_of_a_session = json!({"origin_jti": "canary-of-a-session", "pool": "partners"});
    let made = wire.operator(Method::POST, "/revocations", TOKEN, order).await;
    assert_eq!(made.status, 200, "{made:?}");
    let id = wire.operator(Method::POST, "/revocations", TOKEN, order_of_a_session).await.text("id");
    let listed =
        wire.operator(Method::GET, "/revocations?sub=canary-of-another-user&pool=default", TOKEN, Value::Null).await;
    assert_eq!(listed.status, 200, "{listed:?}");
    assert_eq!(wire.operator(Method::DELETE, &format!("/revocations/{id}"), TOKEN, Value::Null).await.status, 200);
    wire.operator(Method::GET, "/revocations", "canary-of-a-wrong-token", Value::Null).await;
    let secret = json!({"jti": "canary-of-a-jti", "pool": "default", "reason": "canary-of-a-reason@example.com"});
    assert_eq!(wire.operator(Method::POST, "/revocations", TOKEN, secret).await.status, 400);
    wire.keep("canary-of-a-reason@example.com");
    let level = json!({"level": "trace", "for": "1h"});
    assert_eq!(wire.operator(Method::PUT, "/log-level", TOKEN, level).await.status, 200);
    let loud = json!({"level": "canary-of-a-level"});
    assert_eq!(wire.operator(Method::PUT, "/log-level", TOKEN, loud).await.status, 400);
    wire.keep("canary-of-a-level");
}

fn policies(partners: &str, more: &str) -> String {
    format!(
        "default: members\n\
         pools: {{partners: {{user_pool_id: {OTHER_POOL}, jwks_url: '{partners}', client_ids: any, token_use: any}}}}\n\
         policies:\n  members: {{}}\n  narrow: {{groups: {{any: [empty-group]}}}}\n  shadowed: {{mode: shadow, groups: {{any: [empty-group]}}}}\n  \
         rpc: {{json_rpc: {{calls: [{{method: tools/call, name: other, policy: narrow}}]}}}}\n{more}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_of_a_whole_scenario_has_a_secret() {
    let emulator = Emulator::start().await;
    let scopes = ["openid", "email", "profile", "aws.cognito.signin.user.admin"];
    let pool = Pool::create(&emulator, true, hosted_client(&scopes, &[CALLBACK])).await;
    let (own, directory) = flags(&emulator, &pool);
    let partners = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let file = PolicyFile::new(&policies(&partners.url, ""));
    let mut store = Redis::start().await;
    let token = directory.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let (path, url, token) = (file.path(), store.url(), token.to_str().unwrap().to_owned());
    let hosted = ["--hosted-ui-domain", &emulator.url, "--oauth-redirect-uris", CALLBACK, "--account-cookies"];
    let places = ["--config", &path, "--revocation-url", &url, "--admin-token-file", &token, "--token-use", "any"];
    let log = ["--log-level", "trace", "--log-lines-per-second", "1000000", "--log-format", "json"];
    let more = ["--http-listen", "127.0.0.1:0", "--jwks-refresh-interval", "1s"];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let errors = directory.path().join("errors");
    let shell = format!("exec 2>'{}'", errors.display());
    let mut program = Program::start_under(&shell, &[&own[..], &QUICK, &hosted, &places, &log, &more].concat());
    ready(&program.admin).await;
    let wire = Wire::new(&program.admin);
    for secret in [PASSWORD, EMAIL, TOKEN, pool.secret.as_deref().unwrap(), "very.private"] {
        wire.keep(secret);
    }

    let tokens = a_user(&wire, &emulator).await;
    checks(&wire, &program, &tokens).await;
    hosted_pages(&wire, &emulator).await;
    operators(&wire).await;

    // Keys: another set, then failures whose texts come from the server.
    let fetched = async |reply: Reply| {
        partners.answers(reply);
        let before = partners.requests();
        eventually("fetched", PATIENCE, async || partners.requests() > before + 1).await;
    };
    fetched(Reply::ok(jwks(&[SigningKey::other()]))).await;
    checks(&wire, &program, &tokens).await;
    let unusable = json!({"kid": "canary-of-a-kid", "kty": "canary-of-a-type"});
    fetched(Reply::ok(json!({"keys": [SigningKey::shared().jwk(), unusable]}).to_string())).await;
    fetched(Reply::ok(json!({"keys": [unusable]}).to_string())).await;
    fetched(Reply::ok("<html>canary-of-a-proxy</html>")).await;
    fetched(Reply {
        headers: vec![("location", "https://canary-of-a-redirect.example/".into())],
        ..Reply::status(302)
    })
    .await;
    for kept in ["kid", "type", "proxy", "redirect"] {
        wire.keep(&format!("canary-of-a-{kept}"));
    }

    // Reloads: a file that is taken, and one that is not.
    file.replace(&policies(&partners.url, "polices: {}"));
    program.signal("HUP");
    program.wait_for_line("the policy file is not reloaded");
    file.replace(&policies(&partners.url, "routes: [{path: /open, policy: members}]"));
    program.signal("HUP");
    program.wait_for_line("the policy file has been reloaded");

    // The store is lost while users sign out, and comes back.
    store.kill();
    program.wait_for_line("the store of revocations is lost");
    let access = &tokens[0];
    wire.bearer(Method::POST, "/logout", access, json!({"refreshToken": "canary-of-a-refresh-token"})).await;
    store.resume().await.unwrap();
    program.wait_for_line("the store of revocations answers");
    // It is read before it is written to.
    let order = json!({"origin_jti": "canary-of-a-session-2", "pool": "partners"});
    eventually("recorded", PATIENCE, async || {
        wire.operator(Method::POST, "/revocations", TOKEN, order.clone()).await.status == 200
    })
    .await;
    let session = wire.post("/login", json!({"email": EMAIL, "password": PASSWORD})).await;
    assert_eq!(session.status, 200, "{session:?}");
    let access = session.text("accessToken");
    let refresh = json!({"refreshToken": session.text("refreshToken")});
    let ended = wire.bearer(Method::POST, "/logout", &access, refresh).await;
    assert_eq!(ended.status, 200, "{ended:?}");
    let (_, metrics) = get(&program.admin, "/metrics").await;
    let (_, config) = get(&program.admin, "/config").await;
    let (_, readyz) = get(&program.admin, "/readyz").await;

    program.signal("TERM");
    assert!(program.wait().success());
    let log = program.log.join("\n");
    let lines = [
        "\"decision\":\"allow\"",
        "\"reason\":\"bad_signature\"",
        "\"reason\":\"expired\"",
        "\"reason\":\"malformed_token\"",
        "\"shadow_reason\"",
        "\"operation\":\"login\"",
        "\"operation\":\"mfa-totp-verify\"",
        "\"operation\":\"delete-me\"",
        "\"operation\":\"oauth-callback\"",
        "the hosted pages ended a sign-in",
        "Cognito refused a call",
        "revocation by an operator",
        "\"event\":\"revocation\"",
        "admin_token_refused",
        "keys have been replaced",
        "keys could not be fetched",
        "key is not used",
        "revocation not recorded",
        "the log level was changed by an operator",
    ];
    let missing: Vec<&str> = lines.into_iter().filter(|line| !log.contains(line)).collect();
    assert!(missing.is_empty(), "the scenario has no {missing:#?}");
    assert!(!log.contains("log lines were left out"), "a part of the log is missing");
    // Times and other numbers contain a code of six digits by chance.
    let texts = |text: &str| -> String {
        let mut texts = String::new();
        let mut value: Value = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        value.as_object_mut().map(|members| members.remove("timestamp"));
        collect(&value, &mut texts);
        texts
    };
    let errors = std::fs::read_to_string(errors).unwrap();
    let log: String = program.log.iter().map(String::as_str).chain(errors.lines()).map(texts).collect();
    let found: Vec<String> = wire.secrets.borrow().iter().filter(|secret| log.contains(&***secret)).cloned().collect();
    assert!(found.is_empty(), "in the log: {found:#?}");
    assert!(wire.secrets.borrow().len() > 200, "{}", wire.secrets.borrow().len());
    for (place, output) in [("metrics", &metrics), ("config", &config), ("readyz", &readyz)] {
        let lengthy = wire.secrets.borrow().iter().filter(|secret| secret.len() >= 16).cloned().collect::<Vec<_>>();
        let found: Vec<&String> = lengthy.iter().filter(|secret| output.contains(&***secret)).collect();
        assert!(found.is_empty(), "in {place}: {found:#?}");
    }
    for form in ["eyJ", "Bearer ", "@example"] {
        assert!(!log.contains(form), "{form} is in the log");
    }
}

/// Collects names and texts of a value, one a line.
fn collect(value: &Value, texts: &mut String) {
    match value {
        Value::String(text) => {
            texts.push_str(text);
            texts.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(members) => {
            for (name, value) in members {
                texts.push_str(name);
                texts.push('\n');
                collect(value, texts);
            }
        }
        _ => {}
    }
}
