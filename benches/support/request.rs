//! The check that the benchmarks send.

use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};

/// Headers of a typical request of a browser, without those that HTTP/2, a proxy and the credential add.
pub(crate) const BROWSER_HEADERS: [(&str, &str); 9] = [
    ("accept", "application/json, text/plain, */*"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("origin", "https://app.example.test"),
    ("referer", "https://app.example.test/orders"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-site"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    ),
];

/// Returns a check of a typical request of a browser, with 17 headers.
pub(crate) fn check_request(token: &str) -> CheckRequest {
    let bearer = format!("Bearer {token}");
    let added = [
        (":authority", "api.example.test"),
        (":method", "GET"),
        (":path", "/v1/orders/7f3c?expand=items&limit=50"),
        (":scheme", "https"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11"),
        ("authorization", &bearer),
    ];
    let headers = BROWSER_HEADERS.into_iter().chain(added);
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let http = HttpRequest {
        method: "GET".into(),
        path: "/v1/orders/7f3c".into(),
        host: "api.example.test".into(),
        headers,
        size: -1,
        ..Default::default()
    };
    let request = Request { http: Some(http), ..Default::default() };
    CheckRequest { attributes: Some(AttributeContext { request: Some(request), ..Default::default() }) }
}
