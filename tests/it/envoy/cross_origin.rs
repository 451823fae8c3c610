//! Pages of other origins: example 7 of `docs/policy-examples.md`, with and without Envoy's CORS filter.

use super::{Stage, published_key};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch, send};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{SUB, SigningKey, TokenBuilder};

/// The example's policies and routes, for the pool of the flags.
fn example() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/policy/07-browser-app.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("\ndefault: ").unwrap();
    format!("default: {rest}")
}

const CORS: [&str; 4] =
    ["access-control-allow-origin", "access-control-expose-headers", "access-control-allow-credentials", "vary"];

#[tokio::test]
async fn a_page_of_a_listed_origin_can_read_refusals() {
    let (file, keys) = (PolicyFile::new(&example()), published_key().await);
    let stage = Stage::as_shipped(&file, &keys, |bootstrap| bootstrap.remove_cors(LISTENERS[0])).await;
    let user = bearer(&TokenBuilder::access().sign(SigningKey::shared()));
    let [without_filter, with_filter] = LISTENERS.map(|listener| stage.envoy.address(listener));
    let origin = "origin: https://app.example.com".to_owned();
    for (path, lines, status, reason) in [
        ("/", vec![], 401, "missing_credential"),
        ("/", vec!["authorization: Bearer x".to_owned()], 401, "malformed_token"),
        ("/admin/x", vec![user.clone()], 403, "insufficient_group"),
    ] {
        let lines = [&lines[..], std::slice::from_ref(&origin)].concat();
        let response = fetch(without_filter, path, &lines).await;
        assert_eq!(response.verdict(), (status, reason.into()));
        let found = CORS.map(|name| response.header(name));
        let exposed = Some("www-authenticate, retry-after");
        assert_eq!(found, [Some("https://app.example.com"), exposed, None, Some("origin")], "{path}");
        // Envoy's filter and the policy agree: each header is sent once.
        let response = fetch(with_filter, path, &lines).await;
        assert_eq!(response.header(CORS[0]), Some("https://app.example.com"), "{path}");
        assert_eq!(response.header(CORS[2]), None);
    }
    for origin in ["https://evil.example", "null", "https://app.example.com.evil.example"] {
        let response = fetch(without_filter, "/", &[format!("Origin: {origin}")]).await;
        assert_eq!(response.verdict(), (401, "missing_credential".into()));
        assert_eq!(CORS.map(|name| response.header(name)), [None; 4], "{origin}");
    }
    let twice = fetch(without_filter, "/", &[origin.clone(), origin.clone()]).await;
    assert_eq!((twice.status, twice.header(CORS[0])), (401, None));

    // The application answers the preflight, and the request that passes.
    let preflight = [origin.clone(), "Access-Control-Request-Method: DELETE".to_owned()];
    assert_eq!(send(without_filter, "OPTIONS", "/admin/x", &preflight).await.seen().method, "OPTIONS");
    let seen = fetch(without_filter, "/", &[origin, user]).await.seen();
    assert_eq!((seen.header("x-auth-sub"), seen.header("authorization")), (vec![SUB], vec![]));
}
