//! Passkeys: registration, list, deletion, and sign-in. The emulator has none of these calls, so a fake server answers.
//! `tests/page/test_passkeys.py` runs them with a browser's authenticator and real signatures.

use reqwest::Method;
use serde_json::{Value, json};

use super::{QUICK, with_fake};
use crate::support::client::{get, metric};
use crate::support::fake_cognito::tokens;
use crate::support::jwks_server::Reply;
use crate::support::token::{SigningKey, TokenBuilder};

const REGISTRATION: &str = "/webauthn/registration";
const CREDENTIALS: &str = "/webauthn/credentials";

fn token() -> String {
    TokenBuilder::access().sign(SigningKey::shared())
}

/// Returns a credential as `PublicKeyCredential.toJSON()` makes it.
fn credential() -> Value {
    json!({"id": "AbC-_1", "rawId": "AbC-_1", "type": "public-key", "authenticatorAttachment": "platform",
        "clientExtensionResults": {"credProps": {"rk": true}},
        "response": {"clientDataJSON": "e30", "attestationObject": "o2NmbXQ", "transports": ["internal", "hybrid"],
            "publicKeyAlgorithm": -7, "authenticatorData": null, "x": "\u{e9}\u{1f511}"}})
}

#[tokio::test]
async fn a_passkey_is_registered_listed_and_deleted() {
    let (app, client, fake) = with_fake(&QUICK).await;
    let options = json!({"challenge": "Y2hhbGxlbmdl", "rp": {"id": "example.com", "name": "Example"},
        "user": {"id": "dXNlcg", "name": "ada", "displayName": "Ada"}, "timeout": 60000, "excludeCredentials": [],
        "pubKeyCredParams": [{"type": "public-key", "alg": -7}], "hints": null, "extensions": {"credProps": true}});
    let full = json!({"CredentialId": "AbC-_1", "FriendlyCredentialName": "Ada's phone", "RelyingPartyId": "example.com",
        "AuthenticatorAttachment": "platform", "AuthenticatorTransports": ["internal", "hybrid", "brand-new"],
        "CreatedAt": 1_767_225_600.75, "BrandNew": {}});
    let sparse = json!({"CredentialId": "x", "FriendlyCredentialName": null, "CreatedAt": "yesterday"});
    let started = options.clone();
    fake.answers(move |call, _| {
        let page = json!({"Credentials": [full, sparse], "NextToken": "a+b/c=="});
        Reply::ok(
            match &*call.operation {
                "StartWebAuthnRegistration" => json!({"CredentialCreationOptions": started}),
                "ListWebAuthnCredentials" if call.body.get("NextToken").is_none() => page,
                "ListWebAuthnCredentials" => json!({"Credentials": [], "NextToken": null}),
                _ => json!({}),
            }
            .to_string(),
        )
    });
    let token = token();
    let ask = async |method: Method, path: &str, body: Value| client.call(method, path, &token, body).await;

    let start = ask(Method::POST, REGISTRATION, json!({})).await;
    assert_eq!((start.status, &start.body), (200, &options), "exactly as Cognito sent them");
    let complete = ask(Method::PUT, REGISTRATION, json!({"credential": credential(), "Credential": {}})).await;
    assert_eq!((complete.status, &complete.body), (200, &json!({"message": "Passkey added."})));
    let first = ask(Method::GET, CREDENTIALS, json!({})).await;
    assert_eq!(
        (first.status, &first.body),
        (
            200,
            &json!({"next": "a+b/c==", "credentials": [
                {"credentialId": "AbC-_1", "friendlyName": "Ada's phone", "relyingPartyId": "example.com",
                    "authenticatorAttachment": "platform",
                    "transports": ["internal", "hybrid", "brand-new"], "createdAt": "2026-01-01T00:00:00Z"},
                {"credentialId": "x", "friendlyName": null, "relyingPartyId": null, "authenticatorAttachment": null,
                    "transports": [], "createdAt": null}]})
        )
    );
    let next: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", "a+b/c==").finish();
    let second = ask(Method::GET, &format!("{CREDENTIALS}?other=1&{next}"), json!({})).await;
    assert_eq!((second.status, &second.body), (200, &json!({"credentials": []})));
    let deleted = ask(Method::DELETE, &format!("{CREDENTIALS}/AbC%2D_1?next=ignored"), json!({})).await;
    assert_eq!((deleted.status, &deleted.body), (200, &json!({"message": "Passkey deleted."})));

    let sent: Vec<_> = fake.calls().into_iter().map(|call| (call.operation, call.body)).collect();
    let expected = [
        ("StartWebAuthnRegistration", json!({"AccessToken": token})),
        ("CompleteWebAuthnRegistration", json!({"AccessToken": token, "Credential": credential()})),
        ("ListWebAuthnCredentials", json!({"AccessToken": token})),
        ("ListWebAuthnCredentials", json!({"AccessToken": token, "NextToken": "a+b/c=="})),
        ("DeleteWebAuthnCredential", json!({"AccessToken": token, "CredentialId": "AbC-_1"})),
    ];
    assert_eq!(sent, expected.map(|(operation, body)| (operation.to_owned(), body)));

    let series = |operation: &str| format!("account_requests_total{{operation=\"{operation}\",outcome=\"success\"}}");
    for (operation, count) in [
        ("webauthn-registration", 1.0),
        ("complete-webauthn-registration", 1.0),
        ("webauthn-credentials", 2.0),
        ("delete-webauthn-credentials", 1.0),
    ] {
        assert_eq!(metric(&app.admin, &series(operation)).await, count, "{operation}");
    }
}

#[tokio::test]
async fn errors_of_passkeys_have_codes() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    let token = token();
    let routes = [
        (Method::POST, REGISTRATION, json!({})),
        (Method::PUT, REGISTRATION, json!({"credential": credential()})),
        (Method::GET, CREDENTIALS, json!({})),
        (Method::DELETE, "/webauthn/credentials/AbC", json!({})),
    ];
    let everywhere = [
        ("WebAuthnNotEnabledException", [(502, "passkeys_disabled"); 4]),
        ("WebAuthnConfigurationMissingException", [(502, "passkeys_disabled"); 4]),
        ("WebAuthnChallengeNotFoundException", [(400, "invalid_challenge"); 4]),
        ("WebAuthnClientMismatchException", [(400, "invalid_challenge"); 4]),
        ("WebAuthnRelyingPartyMismatchException", [(400, "passkey_not_accepted"); 4]),
        ("WebAuthnOriginNotAllowedException", [(400, "passkey_not_accepted"); 4]),
        ("WebAuthnCredentialNotSupportedException", [(400, "passkey_not_accepted"); 4]),
        ("NotAuthorizedException", [(401, "invalid_token"); 4]),
        ("PasswordResetRequiredException", [(400, "password_reset_required"); 4]),
        ("LimitExceededException", [(429, "rate_limited"); 4]),
        ("ForbiddenException", [(502, "upstream_error"); 4]),
    ];
    let (request, upstream) = ((400, "invalid_request"), (502, "upstream_error"));
    let differing = [
        ("InvalidParameterException", [request, (400, "passkey_not_accepted"), request, request]),
        ("ResourceNotFoundException", [upstream, upstream, upstream, (404, "not_found")]),
    ];
    for (name, verdicts) in everywhere.into_iter().chain(differing) {
        fake.refuses(name, "private");
        for ((method, path, body), expected) in routes.iter().zip(verdicts) {
            let reply = client.call(method.clone(), path, &token, body.clone()).await;
            assert_eq!(reply.verdict(), expected, "{name} {method} {path}");
            assert!(!reply.body.to_string().contains("private"));
        }
    }
    // Responses that lack what the route returns.
    for answer in [json!({}), json!({"CredentialCreationOptions": "x", "Credentials": {}}), json!({"Credentials": [7]})]
    {
        let text = answer.to_string();
        fake.answers(move |_, _| Reply::ok(text.clone()));
        for (method, path) in [(Method::POST, REGISTRATION), (Method::GET, CREDENTIALS)] {
            assert_eq!(client.call(method, path, &token, json!({})).await.verdict(), upstream, "{path} {answer}");
        }
    }
}

#[tokio::test]
async fn only_an_id_in_the_path_reaches_cognito() {
    let (app, client, fake) = with_fake(&QUICK).await;
    let token = token();
    let longest = "a".repeat(1364);
    for (id, expected) in [
        ("A", "A"),
        ("-", "-"),
        ("_0", "_0"),
        ("%41%2d%5F", "A-_"),
        ("me", "me"),
        ("openapi.json?x=/", ""),
        (&*longest, &*longest),
    ] {
        fake.answers(|_, _| Reply::ok("{}"));
        let reply = client.call(Method::DELETE, &format!("{CREDENTIALS}/{id}"), &token, json!({})).await;
        let sent = fake.calls();
        if expected.is_empty() {
            assert_eq!(reply.verdict(), (400, "invalid_request"), "{id}");
        } else {
            assert_eq!((reply.status, &sent[0].body["CredentialId"]), (200, &json!(expected)), "{id}");
        }
    }
    fake.answers(|_, _| Reply::ok("{}"));
    let too_long = format!("{longest}a");
    for id in [
        &*too_long,
        "A%",
        "A%4",
        "A%zz",
        "%00",
        "A%00",
        "A%0a",
        "A%0D%0AX",
        "%20",
        "A%20B",
        "A+B",
        "A=",
        "A%3D%3D",
        ".",
        "a.b",
        "..%2fme",
        "%2e%2e%2fme",
        "%2F",
        "A%2FB",
        "A%5CB",
        "A%252F",
        "A;b",
        "A,B",
        "*",
        "%2A",
        "%C3%A9",
        "%FF",
        "%ef%bc%8f",
        "A%3Fx",
        "A%23x",
        "'",
        "%22",
        "%3Cscript%3E",
        "$(x)",
        "A:b",
        "@",
        "~",
    ] {
        let reply = client.call(Method::DELETE, &format!("{CREDENTIALS}/{id}"), &token, json!({})).await;
        // The client resolves dot segments, as browsers do, before it sends the request.
        let expected = if id == "." { (404, "not_found") } else { (400, "invalid_request") };
        assert_eq!(reply.verdict(), expected, "{id}");
        if id != "." {
            let message = "credentialId has to be 1 to 1364 characters of base64url: A-Z, a-z, 0-9, - and _";
            assert_eq!(reply.text("message"), message, "{id}");
        }
    }
    // Other paths are other routes, or none.
    for path in [
        "/webauthn/credentials/",
        "/webauthn/credentials//",
        "/webauthn/credentials//A",
        "/webauthn/credentials/A/",
        "/webauthn/credentials/A/B",
        "/webauthn/credentialsA",
        "/webauthn/Credentials/A",
        "/webauthn/credentials%2FA",
        "/webauthn",
        "/webauthn/",
    ] {
        let reply = client.call(Method::DELETE, path, &token, json!({})).await;
        assert_eq!(reply.verdict(), (404, "not_found"), "{path}");
    }
    assert!(fake.calls().is_empty(), "Cognito is not called: {:?}", fake.operations());
    // Without a token, nothing about the id is told.
    let anonymous = client.raw(Method::DELETE, "/webauthn/credentials/a.b", &[], "").await;
    assert_eq!(anonymous.verdict(), (401, "invalid_token"));
    for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH] {
        let reply = client.call(method.clone(), "/webauthn/credentials/never-a-label", &token, json!({})).await;
        assert_eq!((reply.status, reply.headers["allow"].as_bytes()), (405, &b"DELETE"[..]), "{method}");
    }
    let (_, metrics) = get(&app.admin, "/metrics").await;
    assert!(!metrics.contains("never-a-label") && !metrics.contains("CredentialId"), "an id is not a label");
}

#[tokio::test]
async fn a_credential_is_an_object_of_limited_size() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    let token = token();
    let put = async |body: String| {
        let headers = [("content-type", "application/json"), ("authorization", &*format!("Bearer {token}"))];
        client.raw(Method::PUT, REGISTRATION, &headers, body).await
    };
    let of = |length: usize| {
        let frame = json!({"credential": {"id": "a", "response": {"attestationObject": ""}}}).to_string();
        frame.replace("Object\":\"", &format!("Object\":\"{}", "a".repeat(length - frame.len())))
    };
    let large = put(of(16 * 1024)).await;
    assert_eq!(large.status, 200, "{:?}", large.body);
    let sent = fake.calls()[0].body["Credential"]["response"]["attestationObject"].as_str().unwrap().len();
    assert!(sent > 16_000, "{sent}");
    fake.answers(|_, _| Reply::ok("{}"));
    assert_eq!(put(of(16 * 1024 + 1)).await.verdict(), (413, "too_large"));
    let deep = format!("{{\"credential\": {{\"a\": {}7{}}}}}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(put(deep).await.verdict(), (400, "invalid_request"), "nested too deeply");
    for (credential, message) in [
        ("null", "credential is required"),
        ("{}", "credential is required"),
        ("\"{}\"", "credential has to be an object"),
        ("[]", "credential has to be an object"),
        ("7", "credential has to be an object"),
        ("true", "credential has to be an object"),
    ] {
        let reply = put(format!("{{\"credential\": {credential}}}")).await;
        assert_eq!((reply.verdict(), reply.text("message")), ((400, "invalid_request"), message), "{credential}");
    }
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_passkey_signs_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "1exampleclientsecret0123456789abcdefghijklmnopqrstu").unwrap();
    let with_secret = ["--client-secret-file", file.to_str().unwrap()];
    let (_app, client, fake) = with_fake(&[&QUICK[..], &with_secret].concat()).await;
    let options =
        json!({"challenge": "Y2hhbGxlbmdl", "rpId": "example.com", "allowCredentials": [], "timeout": 180_000});
    let assertion = json!({"id": "AbC-_1", "response": {"signature": "c2ln", "userHandle": "dXNlcg"}}).to_string();
    let (sent_options, expected) = (options.to_string(), assertion.clone());
    fake.answers(move |call, _| {
        let challenge = |name: &str, parameters: Value| {
            let available = ["EMAIL_OTP", "WEB_AUTHN"];
            Reply::ok(
                json!({"ChallengeName": name, "Session": "s", "AvailableChallenges": available,
                "ChallengeParameters": parameters})
                .to_string(),
            )
        };
        let (body, asked) = (&call.body, json!({"CREDENTIAL_REQUEST_OPTIONS": sent_options}));
        match (&*call.operation, body["ChallengeName"].as_str()) {
            ("InitiateAuth", _) if body["AuthParameters"]["PREFERRED_CHALLENGE"] == "WEB_AUTHN" => {
                challenge("WEB_AUTHN", asked)
            }
            ("InitiateAuth", _) => challenge("SELECT_CHALLENGE", json!({})),
            (_, Some("SELECT_CHALLENGE")) => challenge("WEB_AUTHN", asked),
            _ if body["ChallengeResponses"]["CREDENTIAL"] == *expected => tokens(&json!({"RefreshToken": "r"})),
            _ => crate::support::fake_cognito::refusal("NotAuthorizedException", "Incorrect username or password."),
        }
    });
    let answer = |name: &str, responses: Value| {
        client.post("/challenge", json!({"challenge": name, "session": "s", "username": "ada", "responses": responses}))
    };
    // The application asks for a passkey, or lets the user choose.
    let login = json!({"email": "ada@example.test", "authFlow": "USER_AUTH",
        "authParameters": {"PREFERRED_CHALLENGE": "WEB_AUTHN"}});
    let preferred = client.post("/login", login).await;
    let undecided = client.post("/login", json!({"email": "ada@example.test", "authFlow": "USER_AUTH"})).await;
    assert_eq!(undecided.text("challenge"), "SELECT_CHALLENGE");
    let selected = answer("SELECT_CHALLENGE", json!({"ANSWER": "WEB_AUTHN"})).await;
    for reply in [preferred, selected] {
        assert_eq!((reply.status, reply.text("challenge"), reply.text("session")), (200, "WEB_AUTHN", "s"));
        let text = reply.body["parameters"]["CREDENTIAL_REQUEST_OPTIONS"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), options, "a text, as Cognito sends it");
    }
    assert_eq!(fake.calls()[0].body["AuthParameters"]["USERNAME"], "ada@example.test");
    let signed_in = answer("WEB_AUTHN", json!({"CREDENTIAL": assertion})).await;
    assert_eq!((signed_in.status, signed_in.text("refreshToken")), (200, "r"), "{:?}", signed_in.body);
    let last = fake.calls().pop().unwrap().body;
    assert_eq!((&last["ChallengeName"], &last["Session"]), (&json!("WEB_AUTHN"), &json!("s")));
    let responses = &last["ChallengeResponses"];
    assert!(responses["USERNAME"] == "ada" && responses["SECRET_HASH"].is_string(), "{responses}");
    let wrong = answer("WEB_AUTHN", json!({"CREDENTIAL": "{}"})).await;
    assert_eq!(wrong.verdict(), (401, "invalid_credentials"));
    let object = answer("WEB_AUTHN", json!({"CREDENTIAL": {}})).await;
    assert_eq!(object.text("message"), "responses.CREDENTIAL has to be a string");
}
