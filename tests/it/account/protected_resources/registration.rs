//! Registration of clients over HTTP: what clients send, limits, and what the log may contain. The unit tests have the table
//! of bodies.

use reqwest::Method;
use serde_json::json;

use super::{HOST, Stage, URIS, file, quick, send};
use crate::support::policy_file::PolicyFile;
use crate::support::service::Program;
use crate::support::token::CLIENT;

const JSON: [(&str, &str); 2] = [("host", HOST), ("content-type", "application/json")];
const PATH: &str = "/auth/oauth/register";

#[tokio::test]
async fn clients_get_the_app_client() {
    let stage = Stage::new(&file(), &quick()).await;
    let names = ["Claude", "Claude Code (orders)", "Cursor"];
    for (name, uris) in names.into_iter().zip([&URIS[..1], &URIS[1..2], &URIS[1..]]) {
        let body = json!({
            "client_name": name, "redirect_uris": uris, "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"], "token_endpoint_auth_method": "none", "scope": "openid", "application_type": "native",
        });
        let answer = stage.register(&body).await;
        let expected = json!({
            "client_id": CLIENT, "redirect_uris": uris, "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        });
        assert_eq!((answer.status, answer.body), (201, expected), "{name}");
    }
    let refused = json!({"redirect_uris": [URIS[0], "https://evil.example/callback"]});
    let answer = stage.register(&refused).await;
    assert_eq!((answer.status, &answer.body["error"]), (400, &json!("invalid_redirect_uri")));
    assert!(!answer.text.contains("evil"), "{}", answer.text);
    let answer = stage.register(&json!({"redirect_uris": [URIS[0]], "grant_types": ["client_credentials"]})).await;
    assert_eq!((answer.status, &answer.body["error"]), (400, &json!("invalid_client_metadata")));
    assert!(stage.fetches().is_empty(), "Cognito is not asked");
    for (outcome, count) in [("success", 3.0), ("rejected", 1.0), ("invalid_request", 1.0)] {
        let series = format!("account_requests_total{{operation=\"oauth-register\",outcome=\"{outcome}\"}}");
        assert_eq!(stage.metric(&series).await, count, "{outcome}");
    }
}

#[tokio::test]
async fn bodies_are_limited() {
    let stage = Stage::new(&file(), &quick()).await;
    let body = json!({"redirect_uris": [URIS[0]]}).to_string();
    let of = |length: usize| {
        let start = format!("{{\"redirect_uris\":[\"{}\"],\"client_name\":\"", URIS[0]);
        format!("{start}{}\"}}", "x".repeat(length - start.len() - 2))
    };
    for (headers, body, expected) in [
        (&JSON[..], of(16 * 1024), (201, "")),
        (&JSON, of(16 * 1024 + 1), (413, "too_large")),
        (&JSON[..1], body.clone(), (415, "unsupported_media_type")),
        (&[JSON[0], ("content-type", "text/plain")], body.clone(), (415, "unsupported_media_type")),
        (&[JSON[0], JSON[1], ("content-encoding", "gzip")], body.clone(), (415, "unsupported_media_type")),
    ] {
        let answer = send(&stage.app.admin, Method::POST, PATH, headers, &body).await;
        assert_eq!(answer.verdict(), expected, "{headers:?} {}", body.len());
    }
}

#[tokio::test]
async fn registrations_count_for_the_address() {
    let stage = Stage::new(&file(), &["--limit-address=3/1h"]).await;
    let body = json!({"redirect_uris": [URIS[0]]});
    for _ in 0..3 {
        assert_eq!(stage.register(&body).await.status, 201);
    }
    let refused = stage.register(&body).await;
    assert_eq!(refused.verdict(), (429, "rate_limited"));
    assert_eq!(stage.get(HOST, super::RESOURCE).await.status, 200, "documents are not limited");
    assert_eq!(stage.metric("rate_limited_total{limit=\"address\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_registration_is_logged() {
    let policy = PolicyFile::new(&file().to_string());
    let path = policy.path();
    let flags = [&quick()[..], &["--config", &path, "--log-level=trace", "--jwks-url", "http://127.0.0.1:9/"]].concat();
    let mut program = Program::start(&flags);
    for uri in [URIS[0], "https://evil.example/canary"] {
        let body =
            json!({"redirect_uris": [uri], "client_name": "canary", "contacts": ["canary@example.test"]}).to_string();
        let headers = [JSON[1], ("host", "canary.example"), ("user-agent", "canary")];
        let answer = send(&program.admin, Method::POST, PATH, &headers, &body).await;
        assert!([201, 400].contains(&answer.status) && !answer.text.contains("canary"), "{}", answer.text);
    }
    program.signal("TERM");
    program.wait();
    let requests = program.log.iter().filter(|line| line.contains("oauth-register")).count();
    assert_eq!(requests, 2, "{:#?}", program.log);
    let line = program.log.iter().find(|line| line.contains("canary"));
    assert_eq!(line, None);
}
