//! HTTP form of requests and responses: methods, media types, sizes, CORS, ports.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{QUICK, routes, with_fake};
use crate::support::account::AccountClient;
use crate::support::client::{get, metric};
use crate::support::service::{Program, TestApp};
use crate::support::token::{SigningKey, TokenBuilder};
use crate::support::{PATIENCE, eventually};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test]
async fn requests_of_the_wrong_form_are_rejected() {
    let (app, client, fake) = with_fake(&QUICK).await;
    let token = format!("Bearer {}", TokenBuilder::access().sign(SigningKey::shared()));
    for (route, path, body) in routes() {
        let text = body.to_string();
        let send = async |method: Method, headers: &[(&str, &str)], body: String| {
            let headers = [headers, &[("authorization", &*token)]].concat();
            client.raw(method, path, &headers, body).await
        };
        let methods: Vec<_> = routes().into_iter().filter(|other| other.1 == path).map(|other| other.0).collect();
        let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ").replace("GET", "GET, HEAD");
        let all =
            [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::HEAD];
        for method in all.into_iter().filter(|method| !allow.split(", ").any(|allowed| *method == *allowed)) {
            let reply = send(method.clone(), &JSON, text.clone()).await;
            assert_eq!((reply.status, reply.headers["allow"].as_bytes()), (405, allow.as_bytes()), "{method} {path}");
        }
        for headers in
            [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/x-www-form-urlencoded")]]
        {
            assert_eq!(
                send(route.clone(), headers, text.clone()).await.verdict(),
                (415, "unsupported_media_type"),
                "{path}"
            );
        }
        let packed = [JSON[0], ("content-encoding", "gzip")];
        assert_eq!(send(route.clone(), &packed, text.clone()).await.verdict(), (415, "unsupported_media_type"));
        for bad in ["[]", "{", "7", "null", "\"a\""] {
            assert_eq!(
                send(route.clone(), &JSON, bad.into()).await.verdict(),
                (400, "invalid_request"),
                "{path} {bad}"
            );
        }
        for (name, _) in body.as_object().unwrap() {
            let mut wrong = body.clone();
            wrong[name] = json!(7);
            let reply = send(route.clone(), &JSON, wrong.to_string()).await;
            assert_eq!(reply.verdict(), (400, "invalid_request"), "{path} {name}");
            assert!(reply.text("message").starts_with(name), "{path}: {:?}", reply.body);
        }
    }
    assert_eq!(client.post("/nothing", json!({})).await.verdict(), (404, "not_found"));
    assert_eq!(client.post("/login/", json!({})).await.verdict(), (404, "not_found"));
    assert_eq!(client.raw(Method::GET, "", &[], "").await.verdict(), (404, "not_found"));
    assert!(fake.calls().is_empty(), "Cognito is not called");
    assert_eq!(metric(&app.admin, "account_requests_total{operation=\"none\",outcome=\"not_found\"}").await, 3.0);
}

#[tokio::test]
async fn missing_members_are_named_and_unknown_ones_ignored() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    for (path, message) in [
        ("/register", "email, password, and name are required"),
        ("/login", "email and password are required"),
        ("/verify", "email and code are required"),
        ("/refresh", "refreshToken is required"),
    ] {
        for body in [json!({}), json!({"email": null, "password": "", "name": "x", "code": null, "refreshToken": ""})] {
            let reply = client.post(path, body).await;
            assert_eq!((reply.verdict(), reply.text("message")), ((400, "invalid_request"), message), "{path}");
        }
    }
    let body = json!({"email": "a", "password": "  p  ", "name": "n", "ForceAliasCreation": true, "AnalyticsMetadata": {},
        "ClientId": "other", "SecretHash": "x", "clientMetadata": {"a": "b"}});
    assert_eq!(client.post("/register", body).await.status, 201);
    let sent = &fake.calls()[0].body;
    assert_eq!(sent["Password"], "  p  ", "passwords are passed on unchanged");
    for name in ["ForceAliasCreation", "AnalyticsMetadata", "SecretHash", "ClientMetadata"] {
        assert!(sent.get(name).is_none(), "{name} in {sent}");
    }
    assert_eq!(sent["ClientId"], crate::support::token::CLIENT);
}

#[tokio::test]
async fn the_size_of_a_body_is_limited() {
    let (_app, client, _fake) = with_fake(&QUICK).await;
    let of = |length: usize| {
        let text = json!({"email": "a", "x": ""}).to_string();
        text.replace("\"x\":\"\"", &format!("\"x\":\"{}\"", "a".repeat(length - text.len())))
    };
    for (length, status) in [(16 * 1024, 200), (16 * 1024 + 1, 413), (200 * 1024, 413)] {
        let reply = client.raw(Method::POST, "/forgot-password", &JSON, of(length)).await;
        assert_eq!(reply.status, status, "{length}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up_after_ten_seconds() {
    let (app, _client, fake) = with_fake(&QUICK).await;
    let mut stream = TcpStream::connect(&app.admin).await.unwrap();
    let head = "POST /auth/login HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let start = Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let took = start.elapsed();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("did not arrive in time"), "{answer}");
    assert!((9..13).contains(&took.as_secs()), "{took:?}");
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn only_listed_origins_get_cors_headers() {
    let (_app, client, _fake) = with_fake(&[&QUICK[..], &["--cors-origins", "https://app.example.com"]].concat()).await;
    let asks = |origin: &'static str| [("origin", origin), ("access-control-request-method", "POST")];
    let allowed = client.raw(Method::OPTIONS, "/login", &asks("https://app.example.com"), "").await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://app.example.com");
    assert_eq!(allowed.headers["access-control-allow-methods"], "POST");
    assert_eq!(allowed.headers["access-control-allow-headers"], "Authorization, Content-Type");
    let own = client.raw(Method::OPTIONS, "/me", &asks("https://app.example.com"), "").await;
    assert_eq!(own.headers["access-control-allow-methods"], "GET, HEAD, PATCH, DELETE");
    for (origin, may) in [
        ("https://app.example.com", true),
        ("https://app.example.com.evil.test", false),
        ("http://app.example.com", false),
        ("null", false),
    ] {
        for reply in [
            client.raw(Method::OPTIONS, "/login", &asks(origin), "").await,
            client.send("/login", &[("origin", origin)], json!({})).await,
        ] {
            assert_eq!(reply.headers.contains_key("access-control-allow-origin"), may, "{origin}");
            assert_eq!(reply.headers["vary"], "Origin");
            let exposed = reply.headers.get("access-control-expose-headers").map(|names| names.to_str().unwrap());
            let is_read = may && reply.status != 204;
            assert_eq!(exposed, is_read.then_some("Retry-After, X-Request-Id"), "{origin}");
            assert!(!reply.headers.contains_key("access-control-allow-credentials"));
        }
    }
    let (_app, client, _fake) = with_fake(&QUICK).await;
    let reply = client.raw(Method::OPTIONS, "/login", &asks("https://app.example.com"), "").await;
    assert_eq!(reply.status, 405);
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control")));
}

#[tokio::test]
async fn the_api_can_have_a_port_of_its_own_or_be_off() {
    let socket = ["--account-listen", "127.0.0.1:0", "--account-prefix", "/v1/auth"];
    let program = Program::start(&socket);
    let account = program.account.clone();
    let status = async |address: &str, path: &str| get(address, path).await.0;
    eventually("serves", PATIENCE, async || status(&account, "/v1/auth/openapi.json").await == 200).await;
    assert_eq!(status(&account, "/v1/auth/login").await, 405);
    for path in ["/metrics", "/config", "/livez", "/readyz", "/", "/auth/login", "/v1/auth/../../metrics"] {
        assert_eq!(status(&account, path).await, 404, "{path}");
    }
    assert_eq!(status(&program.admin, "/v1/auth/login").await, 404, "the admin port does not serve it");

    let off = TestApp::start(&["--account-api=false"]);
    assert_eq!(status(&off.admin, "/auth/login").await, 404);
    assert!(!get(&off.admin, "/metrics").await.1.contains("account_requests_total"));
    let on = TestApp::start(&[]);
    assert_eq!(status(&on.admin, "/auth/login").await, 405);
    let (_, metrics) = get(&on.admin, "/metrics").await;
    for series in [
        "account_requests_total{operation=\"login\",outcome=\"invalid_credentials\"} 0",
        "cognito_requests_total{operation=\"RevokeToken\",outcome=\"timeout\"} 0",
        "cognito_request_duration_seconds_count{operation=\"SignUp\"} 0",
        "rate_limited_total{limit=\"address\"} 0",
    ] {
        assert!(metrics.contains(&format!("cognito_authz_{series}\n")), "{series}");
    }
}

#[tokio::test]
async fn other_sign_in_flows_pass_through() {
    let (app, client, fake) = with_fake(&QUICK).await;
    fake.answers(|_, _| {
        crate::support::jwks_server::Reply::ok(
            json!({"ChallengeName": "PASSWORD_VERIFIER", "ChallengeParameters": {"USER_ID_FOR_SRP": "real", "SRP_B": "b"}}).to_string(),
        )
    });
    let srp = json!({"authFlow": "USER_SRP_AUTH", "authParameters": {"USERNAME": "ada", "SRP_A": "a"}});
    let reply = client.post("/login", srp).await;
    assert_eq!(
        reply.body,
        json!({"challenge": "PASSWORD_VERIFIER", "session": null, "parameters": {"USER_ID_FOR_SRP": "real", "SRP_B": "b"}})
    );
    assert_eq!(fake.calls()[0].body["AuthParameters"], json!({"USERNAME": "ada", "SRP_A": "a"}));
    let answer =
        json!({"challenge": "PASSWORD_VERIFIER", "username": "real", "responses": {"PASSWORD_CLAIM_SIGNATURE": "s"}});
    client.post("/challenge", answer).await;
    let sent = &fake.calls()[1].body;
    assert_eq!(sent["ChallengeResponses"], json!({"USERNAME": "real", "PASSWORD_CLAIM_SIGNATURE": "s"}));
    assert!(sent.get("Session").is_none(), "the first SRP challenge has no session");
    for flow in ["REFRESH_TOKEN_AUTH", "ADMIN_USER_PASSWORD_AUTH", "USER_PASSWORD_AUTH"] {
        let body = json!({"authFlow": flow, "email": "a", "authParameters": {}});
        assert_eq!(client.post("/login", body).await.verdict(), (400, "invalid_request"), "{flow}");
    }
    let client = AccountClient::new(&app.admin);
    let document = client.raw(Method::GET, "/openapi.json", &[], "").await;
    assert_eq!(document.body["openapi"], "3.1.0");
}
