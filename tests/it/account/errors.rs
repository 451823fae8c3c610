//! Errors that a caller can mend: each says which member is at fault (`field`), and what to send.

use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use super::{QUICK, routes, with_fake};
use crate::support::account::{AccountClient, Reply};
use crate::support::token::{SigningKey, TokenBuilder};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Names that a client can send, and that no response may repeat in `field`.
const FOREIGN: &str = "<script>";

/// Bearer token of a user who has sent nothing before, so that no request ends the session of another one.
fn bearer() -> String {
    static USERS: AtomicUsize = AtomicUsize::new(0);
    let user = format!("user-{}", USERS.fetch_add(1, Ordering::Relaxed));
    let names = ["sub", "username", "jti", "origin_jti"];
    let token = names.into_iter().fold(TokenBuilder::access(), |token, name| token.claim(name, &*user));
    format!("Bearer {}", token.sign(SigningKey::shared()))
}

async fn send(client: &AccountClient, method: &Method, path: &str, body: &Value) -> Reply {
    client.raw(method.clone(), path, &[JSON, ("authorization", &*bearer())], body.to_string()).await
}

/// Bodies that a member makes invalid, whatever its type.
fn wrong(value: &Value) -> Vec<Value> {
    let others = [json!(7), json!(true), json!([]), json!(["a"]), json!("text"), json!({FOREIGN: 7}), json!(1e300)];
    let same_type = |other: &Value| std::mem::discriminant(other) == std::mem::discriminant(value);
    // An object of other things is wrong for an object of texts, and for the settings of a factor.
    others.into_iter().filter(|other| !same_type(other) || other.is_object()).collect()
}

#[tokio::test]
async fn the_member_at_fault_is_named_on_every_route() {
    let (_app, client, _fake) = with_fake(&QUICK).await;
    for (method, path, body) in routes() {
        for (name, value) in body.as_object().unwrap() {
            for wrong in wrong(value) {
                let mut bad = body.clone();
                bad[name] = wrong;
                // Cognito decides about the contents of a passkey.
                if name == "credential" && bad[name].is_object() {
                    continue;
                }
                let reply = send(&client, &method, path, &bad).await;
                assert_eq!(reply.verdict(), (400, "invalid_request"), "{method} {path} {bad}");
                assert_eq!(reply.text("field"), name, "{method} {path} {bad}: {:?}", reply.body);
            }
            let mut without = body.clone();
            without.as_object_mut().unwrap().remove(name);
            for missing in [None, Some(json!(null)), Some(json!("")), Some(json!({}))] {
                let mut bad = without.clone();
                if let Some(missing) = missing.filter(|missing| !missing.is_object() || value.is_object()) {
                    bad[name] = missing;
                }
                let is_optional = ["session", "responses"].contains(&&**name) || path == "/logout";
                let reply = send(&client, &method, path, &bad).await;
                let field = (reply.status == 400).then(|| reply.text("field"));
                // An object in the place of a text is of the wrong type, which is the same to the caller.
                assert!(
                    field == Some(name) || is_optional && field.is_none(),
                    "{method} {path} {bad}: {:?}",
                    reply.body
                );
            }
        }
        let mut more = body.clone();
        more[FOREIGN] = json!([FOREIGN]);
        let reply = send(&client, &method, path, &more).await;
        assert_ne!(reply.verdict(), (400, "invalid_request"), "an unknown member is ignored: {method} {path}");
        for text in ["[]", "7", "{", "\"a\""] {
            let reply = client.raw(method.clone(), path, &[JSON, ("authorization", &*bearer())], text).await;
            assert_eq!(reply.verdict(), (400, "invalid_request"), "{method} {path} {text}");
            assert!(reply.body.get("field").is_none(), "no member is at fault: {method} {path} {text}");
        }
    }
}

#[tokio::test]
async fn the_member_at_fault_is_one_of_ours() {
    let (_app, client, _fake) = with_fake(&[&QUICK[..], &["--account-attributes=locale"]].concat()).await;
    let long = "a".repeat(1365);
    for (method, path, body, field, says) in [
        (Method::POST, "/login", json!({}), "email", "email and password are required"),
        (Method::POST, "/login", json!({"username": "ada"}), "password", "email and password are required"),
        (Method::POST, "/login", json!({"email": "a", "authFlow": FOREIGN}), "authFlow", "USER_SRP_AUTH"),
        (
            Method::POST,
            "/login",
            json!({"email": "a", "authFlow": "USER_AUTH", "authParameters": {FOREIGN: 7}}),
            "authParameters",
            "has to be a string",
        ),
        (Method::POST, "/challenge", json!({"challenge": "SMS_MFA"}), "email", "challenge and email are required"),
        (Method::PATCH, "/me", json!({"attributes": {FOREIGN: "x"}}), "attributes", "Allowed: name, locale"),
        (
            Method::POST,
            "/register",
            json!({"email": "a", "password": "p", "name": "n", "attributes": {"email_verified": "true"}}),
            "attributes",
            "Allowed: locale",
        ),
        (Method::PUT, "/mfa/preference", json!({}), "totp", "totp, sms, or email is required"),
        (Method::PUT, "/mfa/preference", json!({"sms": {"enabled": 1}}), "sms", "sms.enabled has to be a boolean"),
        (
            Method::PUT,
            "/mfa/preference",
            json!({"sms": {"enabled": true, "preferred": true}, "email": {"enabled": true, "preferred": true}}),
            "email",
            "Only one",
        ),
        (Method::POST, "/mfa/totp", json!({"session": "s"}), "session", "not both"),
        (Method::DELETE, &format!("/webauthn/credentials/{long}"), json!({}), "credentialId", "1 to 1364 characters"),
        (Method::GET, "/webauthn/credentials?next=a&next=b", json!({}), "next", "once"),
    ] {
        let reply = send(&client, &method, path, &body).await;
        assert_eq!((reply.verdict(), reply.text("field")), ((400, "invalid_request"), field), "{method} {path} {body}");
        assert!(reply.text("message").contains(says), "{method} {path}: {:?}", reply.body);
    }
}

#[tokio::test]
async fn cognito_s_refusals_name_no_member() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    fake.refuses("InvalidParameterException", "Invalid email address format.");
    let reply = client.post("/register", json!({"email": "a", "password": "p", "name": "n"})).await;
    assert_eq!(reply.verdict(), (400, "invalid_request"));
    assert!(reply.body.get("field").is_none(), "{:?}", reply.body);
}

#[tokio::test]
async fn messages_say_what_to_send() {
    let (_app, client, _fake) = with_fake(&[&QUICK[..], &["--account-cookies"]].concat()).await;
    let body = json!({"email": "a", "password": "p"}).to_string();
    let large = json!({"email": "a".repeat(17_000)}).to_string();
    let origin = ("origin", "https://evil.example");
    let own = ("x-account-tokens", "body");
    for (method, path, headers, body, verdict, says) in [
        (Method::POST, "/login", vec![JSON, origin], &*body, (403, "cross_site"), ["Origin", "--cors-origins"]),
        (Method::POST, "/login", vec![JSON], &*body, (403, "cross_site"), ["X-Account-Tokens: body", "same-origin"]),
        (
            Method::POST,
            "/login",
            vec![own, ("content-type", "text/plain")],
            &*body,
            (415, "unsupported_media_type"),
            ["Content-Type: application/json", "Content-Encoding"],
        ),
        (Method::POST, "/login", vec![own, JSON], &*large, (413, "too_large"), ["at most", "16 KiB"]),
        (Method::GET, "/login", vec![], "", (405, "method_not_allowed"), ["It takes", "POST"]),
        (Method::PUT, "/me", vec![JSON], "{}", (405, "method_not_allowed"), ["It takes", "GET, HEAD, PATCH, DELETE"]),
        (Method::POST, "/openapi.json", vec![JSON], "{}", (405, "method_not_allowed"), ["It takes", "GET, HEAD"]),
        (Method::GET, "/nothing", vec![], "", (404, "not_found"), ["GET /auth/openapi.json", "every path"]),
    ] {
        let reply = client.raw(method.clone(), path, &headers, body.to_owned()).await;
        assert_eq!(reply.verdict(), verdict, "{method} {path}");
        let message = reply.text("message");
        assert!(says.iter().all(|text| message.contains(text)), "{method} {path}: {message}");
    }
    let reply = client.raw(Method::GET, "/me", &[("x-account-tokens", "body")], "").await;
    assert_eq!(reply.verdict(), (401, "invalid_token"));
}
