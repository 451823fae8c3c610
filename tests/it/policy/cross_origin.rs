//! `cors_origins`: refusals that pages of other origins can read.

use super::{Stage, ours};
use crate::support::client::{Answer, Ask, connect, get};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

const FILE: &str = "
default: api
policies:
  api: {cors_origins: ['https://app.example.com', 'http://localhost:3000'], groups: {any: [staff]}}
  other: {cors_preflight: allow}
";

/// CORS headers of an answer.
fn cors(answer: &Answer) -> Vec<(&str, &str)> {
    let is_cors = |name: &str| name.starts_with("access-control-") || name == "vary";
    let headers = answer.all_headers.iter().map(|(name, value)| (&**name, &**value));
    headers.filter(|(name, _)| is_cors(name)).collect()
}

const EXPOSED: (&str, &str) = ("access-control-expose-headers", "www-authenticate, retry-after");
const VARY: (&str, &str) = ("vary", "origin");

#[tokio::test]
async fn only_a_listed_origin_may_read_a_refusal() {
    let stage = Stage::new(FILE).await;
    let user = ours(TokenBuilder::access());
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        let expected = vec![("access-control-allow-origin", origin), EXPOSED, VARY];
        for (ask, status) in
            [(Ask::get("/"), 401), (Ask::get("/").bearer("x"), 401), (Ask::get("/").bearer(&user), 403)]
        {
            let answer = stage.ask(ask.header("Origin", origin)).await;
            assert_eq!((answer.status, cors(&answer)), (status, expected.clone()), "{origin}");
        }
    }
    for origin in [
        "https://evil.example",
        "https://app.example.com/",
        "https://app.example.com:443",
        "http://app.example.com",
        "HTTPS://app.example.com",
        "https://app.example.com.evil.example",
        // Two headers, as Envoy joins them.
        "https://app.example.com,https://app.example.com",
        "null",
        "",
    ] {
        let answer = stage.ask(Ask::get("/").header("origin", origin)).await;
        assert_eq!((answer.status, cors(&answer)), (401, vec![]), "{origin}");
    }
    let twice = Ask::get("/").header("origin", "https://app.example.com").header("Origin", "https://app.example.com");
    assert_eq!(cors(&stage.ask(twice).await), []);
    assert_eq!(cors(&stage.ask(Ask::get("/")).await), []);
    let from_app = |ask: Ask| ask.header("origin", "https://app.example.com");
    // Other policies, and requests without a policy, have no list.
    assert_eq!(cors(&stage.ask(from_app(Ask::get("/").policy("other"))).await), []);
    let unknown = stage.ask(from_app(Ask::get("/").policy("nonsense"))).await;
    assert_eq!((&*unknown.reason, cors(&unknown)), ("unknown_policy", vec![]));
    // The application answers requests that pass, and preflights do not pass because of the list.
    let staff = ours(TokenBuilder::access().claim("cognito:groups", serde_json::json!(["staff"])));
    let passed = stage.ask(from_app(Ask::get("/").bearer(&staff))).await;
    assert_eq!((passed.status, cors(&passed)), (200, vec![]));
    let preflight = from_app(Ask::new("OPTIONS", "/").header("access-control-request-method", "GET"));
    assert_eq!(stage.ask(preflight.clone()).await.verdict(), (401, "missing_credential"));
    assert_eq!(stage.ask(preflight.policy("other")).await.status, 200);
}

#[tokio::test]
async fn with_cookies_pages_may_send_credentials() {
    let file = PolicyFile::new(FILE);
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let app = TestApp::start(&["--config", &file.path(), "--jwks-url", &keys.url, "--account-cookies"]);
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    let channel = connect(&app.grpc[0]).await;
    let origin = "https://app.example.com";
    let answer = Ask::get("/").header("origin", origin).of(&channel).await;
    let credentials = ("access-control-allow-credentials", "true");
    assert_eq!(cors(&answer), [("access-control-allow-origin", origin), credentials, EXPOSED, VARY]);
}

#[tokio::test]
async fn a_service_without_keys_lets_the_page_read_when_to_retry() {
    let file = PolicyFile::new(FILE);
    let keys = JwksServer::start(Reply::status(500)).await;
    let app = TestApp::start(&["--config", &file.path(), "--jwks-url", &keys.url]);
    let channel = connect(&app.grpc[0]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let answer = Ask::get("/").bearer(&token).header("origin", "http://localhost:3000").of(&channel).await;
    assert_eq!(answer.verdict(), (503, "keys_unavailable"));
    assert_eq!(cors(&answer), [("access-control-allow-origin", "http://localhost:3000"), EXPOSED, VARY]);
    assert_eq!(answer.headers["retry-after"], "5");
}
