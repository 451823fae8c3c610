//! The same requests over gRPC, over the three endpoints of the HTTP form, and in `explain`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{POLICIES, good_token, published_key, ready};
use crate::support::client::{Ask, connect};
use crate::support::http1::{Response, send};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{TestApp, run_with_input};
use crate::support::token::{CLIENT, POOL, SigningKey, TokenBuilder};

/// Id of every request.
const ID: &str = "4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11";

/// One request: token, method, host, path, policy that the proxy names, and the expected status and reason.
type Row = (String, &'static str, &'static str, &'static str, Option<&'static str>, (u16, &'static str));

/// Returns a token with the `kid` of the shared key and the signature of another.
fn sign_as_shared(key: &SigningKey) -> String {
    let kid = SigningKey::shared().jwk()["kid"].clone();
    TokenBuilder::access().header("kid", kid).sign(key)
}

fn rows() -> Vec<Row> {
    let access = TokenBuilder::access;
    let sign = |token: TokenBuilder| token.sign(SigningKey::shared());
    let good = good_token;
    let none = String::new;
    let admin = || sign(access().claim("cognito:groups", vec!["staff", "admins"]));
    let (api, open) = ("api.test", "open.test:8443");
    let allowed = (200, "");
    let mut rows: Vec<Row> = vec![
        (good(), "GET", api, "/orders?q=1", None, allowed),
        (good(), "DELETE", api, "/", None, allowed),
        (admin(), "PATCH", api, "/admin/users", None, allowed),
        (sign(access().claim("scope", "reports/read x")), "GET", api, "/scoped", None, allowed),
        (sign(access().claim("username", "zo\u{eb}, \u{1f600}%")), "GET", api, "/caf%C3%A9", None, allowed),
        (sign(access().claim("username", "ABSENT").claim("scope", "ABSENT")), "GET", api, "/", None, allowed),
        (none(), "GET", api, "/open/page", None, allowed),
        (none(), "HEAD", api, "/open", None, allowed),
        ("x".into(), "POST", api, "/open", None, allowed),
        (none(), "GET", open, "/hosted/x", None, allowed),
        (none(), "GET", api, "/hosted/x", None, (401, "missing_credential")),
        (none(), "GET", api, "/anything", Some("open"), allowed),
        (admin(), "GET", api, "/open", Some("admin"), allowed),
        (good(), "GET", api, "/open", Some("admin"), (403, "insufficient_group")),
        (good(), "GET", api, "/", Some("default"), allowed),
        (good(), "GET", api, "/", Some("absent"), (403, "unknown_policy")),
        (none(), "GET", api, "/?policy=open", None, (401, "missing_credential")),
        (none(), "OPTIONS", api, "/", None, (401, "missing_credential")),
        (good(), "GET", api, "/admin", None, (403, "insufficient_group")),
        (good(), "GET", api, "/scoped/x", None, (403, "insufficient_scope")),
        ("garbage".into(), "GET", api, "/", None, (401, "malformed_token")),
        (sign_as_shared(SigningKey::other()), "GET", api, "/", None, (401, "bad_signature")),
        ("a".repeat(16_385), "GET", api, "/", None, (401, "token_too_large")),
        (sign(access().header("alg", "none")), "GET", api, "/", None, (401, "unsupported_algorithm")),
        (sign(access().header("crit", vec!["x"])), "GET", api, "/", None, (401, "unsupported_header")),
        (sign(access().header("kid", "ABSENT")), "GET", api, "/", None, (401, "missing_kid")),
        (sign(access().claim("iss", "https://evil.test")), "GET", api, "/", None, (401, "unknown_issuer")),
        (sign(TokenBuilder::id()), "GET", api, "/", None, (401, "wrong_token_use")),
        (sign(access().claim("sub", "ABSENT")), "GET", api, "/", None, (401, "missing_claim")),
        (sign(access().claim("client_id", "other")), "GET", api, "/", None, (401, "wrong_client")),
        (sign(access().expires_in(-600)), "GET", api, "/", None, (401, "expired")),
        (sign(access().claim("nbf", 4_000_000_000_u32)), "GET", api, "/", None, (401, "not_yet_valid")),
        (TokenBuilder::access().sign(SigningKey::other()), "GET", api, "/", None, (401, "unknown_kid")),
    ];
    for path in ["/x/../admin", "//open", "/%61dmin", "/open/..;/admin", "/open%2f..%2fadmin", "/open%00", "/%252e"] {
        rows.push((good(), "GET", api, path, None, (403, "unsafe_path")));
    }
    rows.push((good(), "GET", api, "/open/../admin", Some("open"), (403, "unsafe_path")));
    rows
}

/// Names of headers, in lower case.
type Names = BTreeSet<String>;

/// Values of headers that are set, and names of those that are removed.
type Headers = (BTreeMap<String, String>, Names);

fn is_ours(name: &str) -> bool {
    name.starts_with("x-auth-")
}

/// Headers of a 200 for nginx, Traefik and Caddy: an empty one is removed.
fn sent_empty(response: &Response) -> Headers {
    let ours = response.headers.iter().filter(|(name, _)| is_ours(name)).cloned();
    let (removed, set): (Vec<_>, Vec<_>) = ours.partition(|(_, value)| value.is_empty());
    (set.into_iter().collect(), removed.into_iter().map(|(name, _)| name).collect())
}

/// Headers of a 200 for Envoy, which lists those that are removed.
fn listed(response: &Response) -> Headers {
    let set = response.headers.iter().filter(|(name, _)| is_ours(name)).cloned().collect();
    let removed = response.header("x-envoy-auth-headers-to-remove").unwrap_or_default();
    (set, removed.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

// `explain` runs while a second thread serves the keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_requests_get_the_same_answers_over_grpc_over_http_and_in_explain() {
    let keys = published_key().await;
    let policies = PolicyFile::new(POLICIES);
    let path = policies.path();
    let flags = ["--jwks-url", &keys.url, "--config", &path, "--http-listen", "127.0.0.1:0"];
    let service = ready(TestApp::start(&flags)).await;
    let channel = connect(&service.grpc[0]).await;
    let rows = rows();
    assert!(rows.len() >= 40, "{}", rows.len());
    for (token, method, host, target, policy, (status, reason)) in rows {
        let what = format!("{method} {host}{target} {policy:?} {reason} {}", &token[..token.len().min(60)]);
        let credential = (!token.is_empty()).then(|| format!("Bearer {token}"));

        let ask = Ask::new(method, target).host(host).header("x-request-id", ID);
        let ask = credential.iter().fold(ask, |ask, value| ask.header("authorization", value));
        let grpc = policy.into_iter().fold(ask, Ask::policy).of(&channel).await;
        assert_eq!(grpc.verdict(), (status, reason), "gRPC {what}");
        let ours = grpc.headers.iter().filter(|(name, _)| is_ours(name));
        let expected: Headers =
            (ours.map(|(name, value)| (name.clone(), value.clone())).collect(), grpc.removed.iter().cloned().collect());

        let credential = credential.map(|value| format!("authorization: {value}"));
        let ours: Vec<String> = credential.into_iter().chain([format!("x-request-id: {ID}")]).collect();
        let lines = |more: &[String]| [&ours[..], more].concat();
        let query = policy.map(|name| format!("?policy={name}")).unwrap_or_default();
        let original = [format!("X-Original-Method: {method}"), format!("X-Original-URL: https://{host}{target}")];
        let nginx = send(&service.http, "GET", &format!("/auth-request{query}"), &lines(&original)).await;
        let original = [
            format!("X-Original-Method: {method}"),
            format!("X-Original-URL: {target}"),
            format!("X-Forwarded-Host: {host}"),
        ];
        let path_only = send(&service.http, "GET", &format!("/auth-request{query}"), &lines(&original)).await;
        let forwarded = [
            format!("X-Forwarded-Method: {method}"),
            format!("X-Forwarded-Host: {host}"),
            format!("X-Forwarded-Uri: {target}"),
        ];
        let forward = send(&service.http, "GET", &format!("/forward-auth{query}"), &lines(&forwarded)).await;
        let mut answers = vec![("nginx", nginx), ("nginx, path", path_only), ("forward", forward)];
        // This endpoint has no way to name a policy, and a client of this test cannot read the response to HEAD.
        if policy.is_none() && method != "HEAD" {
            let host = [format!("host: {host}")];
            answers.push(("envoy", send(&service.http, method, &format!("/ext-authz{target}"), &lines(&host)).await));
        }
        for (endpoint, answer) in &answers {
            assert_eq!(answer.verdict(), (status, reason.to_owned()), "{endpoint} {what}");
            if status == 200 {
                let headers = if *endpoint == "envoy" { listed(answer) } else { sent_empty(answer) };
                assert_eq!(headers, expected, "{endpoint} {what}");
                assert_eq!(headers.0.len() + headers.1.len(), 7, "every owned header: {endpoint} {what}");
                assert_eq!(answer.body, "", "{endpoint} {what}");
            } else {
                for name in ["www-authenticate", "content-type", "cache-control", "retry-after"] {
                    let over_grpc = grpc.headers.get(name).map(String::as_str);
                    assert_eq!(answer.header(name), over_grpc, "{name} {endpoint} {what}");
                }
                assert_eq!(answer.body, grpc.body, "{endpoint} {what}");
                assert_eq!(answer.json()["request_id"], ID, "{endpoint} {what}");
                let header = endpoint.starts_with("nginx").then_some(&*answer.body);
                assert_eq!(answer.header("x-authz-body"), header, "{endpoint} {what}");
            }
        }

        let context = policy.map(|name| format!("policy={name}"));
        let mut arguments = vec!["explain", "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", &keys.url];
        arguments.extend(["--config", &path, "--json", "--method", method, "--host", host, "--path", target]);
        arguments.extend(context.iter().flat_map(|context| ["--context", context]));
        let (_, output, error) = run_with_input(&arguments, token.as_bytes());
        let report: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{what} {error}"));
        let explained = (report["status"].as_u64(), report["reason"].as_str().unwrap_or_default());
        assert_eq!(explained, (Some(status.into()), reason), "explain {what}");
    }
}
