//! Form of the `OpenAPI` document: named schemas, tags, security, examples; and its examples of requests, sent as they
//! stand. `tests/clients` sends them to the emulator, and generates clients from the document.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{QUICK, with_fake};
use crate::support::client::get;
use crate::support::fake_cognito::tokens;
use crate::support::jwks_server::Reply;
use crate::support::policy_file::PolicyFile;
use crate::support::service::TestApp;
use crate::support::token::{CLIENT, SigningKey, TokenBuilder};
use crate::support::{PATIENCE, eventually};

const HOSTED: [&str; 2] = [
    "--hosted-ui-domain=https://auth.example.com",
    "--oauth-redirect-uris=https://app.example.com/auth/oauth/callback",
];

async fn document(app: &TestApp) -> Value {
    eventually("serves", PATIENCE, async || get(&app.admin, "/auth/openapi.json").await.0 == 200).await;
    serde_json::from_str(&get(&app.admin, "/auth/openapi.json").await.1).unwrap()
}

/// Operations of a document: method, path and description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().unwrap().clone();
        item.into_iter().map(|(method, operation)| (method, path.clone(), operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// Follows a reference, if it is one.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(pointer) => document.pointer(&pointer[1..]).unwrap_or_else(|| panic!("{pointer}")),
        None => value,
    }
}

fn is_named(schema: &Value) -> bool {
    schema["$ref"].is_string() || schema["anyOf"].as_array().is_some_and(|any| any.iter().all(is_named))
}

#[tokio::test]
async fn every_operation_has_a_name_a_tag_its_security_and_named_schemas() {
    let policy = PolicyFile::new(
        &json!({"policies": {"mcp": {}}, "protected_resources": [{"resource": "https://mcp.example/mcp", "policy": "mcp",
            "client_id": CLIENT, "redirect_uris": ["http://localhost:3118/callback"]}]})
        .to_string(),
    );
    let path = policy.path();
    for flags in [&[][..], &HOSTED, &[HOSTED[0], HOSTED[1], "--account-cookies", "--config", &path]] {
        let document = document(&TestApp::start(flags)).await;
        let tags: Vec<_> =
            document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
        let journey = ["Sign-up", "Sign-in", "Second factors", "Passkeys", "Session", "Password", "Account"];
        assert_eq!(tags, [&journey[..], &["Hosted sign-in", "Metadata"]].concat());
        let schemes = document["components"]["securitySchemes"].as_object().unwrap();
        let mut names = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let at = format!("{method} {path} {flags:?}");
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{at}");
            assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{at}");
            let [tag] = &operation["tags"].as_array().unwrap()[..] else { panic!("{at}") };
            assert!(tags.contains(&tag.as_str().unwrap()), "{at}");
            let ways = operation["security"].as_array().unwrap_or_else(|| panic!("{at}"));
            assert!(ways.iter().flat_map(|way| way.as_object().unwrap().keys()).all(|name| schemes.contains_key(name)));
            let responses = operation["responses"].as_object().unwrap();
            assert!(ways.is_empty() || responses.contains_key("401"), "{at}");
            for (status, response) in responses {
                let response = resolved(&document, response);
                assert!(response["headers"]["X-Request-Id"].is_object(), "{at} {status}");
                for (kind, content) in response["content"].as_object().unwrap_or(&Map::new()) {
                    if kind == "text/html" {
                        continue;
                    }
                    assert!(is_named(&content["schema"]), "{at} {status}: {}", content["schema"]);
                    let is_document = operation["operationId"] == "openapi" && status == "200";
                    assert!(is_document || !content["examples"].as_object().unwrap().is_empty(), "{at} {status}");
                    for (code, example) in content["examples"].as_object().unwrap() {
                        let value = &resolved(&document, example)["value"];
                        let is_error = status.as_bytes()[0] != b'2' && value["error"].is_null();
                        assert!(!is_error || value["code"] == **code, "{at} {status} {code}: {value}");
                    }
                }
            }
            let Some(body) = operation.get("requestBody") else { continue };
            let content = &body["content"]["application/json"];
            assert!(content["schema"]["$ref"].is_string() && content["example"].is_object(), "{at}");
        }
    }
}

#[tokio::test]
async fn operations_are_in_the_order_of_the_journey() {
    let app = TestApp::start(&HOSTED);
    document(&app).await;
    let text = get(&app.admin, "/auth/openapi.json").await.1;
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is missing"));
    let parts = [
        "\"tags\":[",
        "\"/auth/register\":",
        "\"/auth/verify\":",
        "\"/auth/login\":",
        "\"/auth/challenge\":",
        "\"/auth/refresh\":",
        "\"/auth/logout\":",
        "\"/auth/oauth/authorize-url\":",
        "\"/auth/oauth/token\":",
        "\"/auth/openapi.json\":",
        "\"components\":",
    ];
    let places: Vec<_> = parts.into_iter().map(at).collect();
    assert!(places.is_sorted(), "{places:?}");
}

/// Answers a call of Cognito with what the operation needs.
fn answered(operation: &str) -> Reply {
    let user = json!([{"Name": "sub", "Value": "s"}]);
    let body = match operation {
        "InitiateAuth" | "RespondToAuthChallenge" | "GetTokensFromRefreshToken" => return tokens(&json!({})),
        "GetUser" => json!({"Username": "u", "UserAttributes": user}),
        "AssociateSoftwareToken" => json!({"SecretCode": "JBSWY3DPEHPK3PXP"}),
        "VerifySoftwareToken" => json!({"Status": "SUCCESS"}),
        "StartWebAuthnRegistration" => json!({"CredentialCreationOptions": {"challenge": "x"}}),
        "ListWebAuthnCredentials" => json!({"Credentials": []}),
        _ => json!({}),
    };
    Reply::ok(body.to_string())
}

#[tokio::test]
async fn every_example_of_a_request_has_the_documented_success() {
    for cookies in [&[][..], &["--account-cookies"]] {
        let (app, client, fake) = with_fake(&[&QUICK[..], cookies].concat()).await;
        fake.answers(|call, _| answered(&call.operation));
        let document = document(&app).await;
        let origin = format!("http://{}", app.admin);
        let mut sent = 0;
        for (method, path, operation) in operations(&document) {
            let mut path = path.strip_prefix("/auth").unwrap().to_owned();
            let none = Vec::new();
            for parameter in operation["parameters"].as_array().unwrap_or(&none) {
                if let Some(example) = parameter["example"].as_str() {
                    path = path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), example);
                }
            }
            let user = format!("user-{sent}");
            let token = ["sub", "username", "jti", "origin_jti"]
                .into_iter()
                .fold(TokenBuilder::access(), |token, name| token.claim(name, &*user));
            let bearer = format!("Bearer {}", token.sign(SigningKey::shared()));
            let cookie = format!("__Host-refresh_token=r; __Host-access_token={}", token.sign(SigningKey::shared()));
            let credential = if cookies.is_empty() { ("authorization", &*bearer) } else { ("cookie", &*cookie) };
            let mut headers = vec![("content-type", "application/json"), ("origin", &*origin)];
            headers.extend((operation["security"] != json!([])).then_some(credential));
            let body = &operation["requestBody"]["content"]["application/json"]["example"];
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let verb = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
            let reply = client.raw(verb, &path, &headers, body.clone()).await;
            let success = if operation["responses"]["201"].is_object() { 201 } else { 200 };
            assert_eq!(reply.status, success, "{method} {path} {body}: {:?}", reply.body);
            sent += 1;
        }
        assert!(sent > 20, "{sent}");
    }
}
