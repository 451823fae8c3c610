//! Series of checks in the metrics: all that can occur exist from the start, and none that cannot.

use std::collections::BTreeSet;

use serde_json::json;

use super::{FILE, Stage, ours, theirs};
use crate::support::client::{Ask, get};
use crate::support::token::{SigningKey, TokenBuilder};

/// Policy whose calls have requirements of their own.
const JSON_RPC: &str = "  rpc: {json_rpc: {calls: [{method: tools/call, policy: orders}]}}\n";
const POLICIES: [&str; 11] =
    ["members", "own", "orders", "admin", "fresh", "open", "guests", "pages", "tenant", "direct", "rpc"];

/// Series of checks that the metrics have.
async fn series(admin: &str) -> BTreeSet<String> {
    let (_, metrics) = get(admin, "/metrics").await;
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("cognito_authz_")?.rsplit_once(' '));
    let is_check =
        |name: &&str| ["checks_total{", "shadow_denials_total{"].iter().any(|family| name.starts_with(family));
    lines.map(|(name, _)| name).filter(is_check).map(str::to_owned).collect()
}

/// Requests with every kind of credential, good and bad.
fn requests() -> Vec<Ask> {
    let access = TokenBuilder::access;
    let tokens = [
        ours(access()),
        ours(TokenBuilder::id()),
        ours(access().claim("scope", "openid orders/read").claim("cognito:groups", json!(["admins"]))),
        ours(access().claim("aud", "https://api.example.com").claim("acr", "mfa")),
        ours(TokenBuilder::id().claim("custom:tenant", "acme")),
        ours(access().claim("username", "é".repeat(2_800))),
        theirs().sign(SigningKey::other()),
        theirs().claim("client_id", "x").sign(SigningKey::other()),
        theirs().sign(SigningKey::shared()),
        "x".into(),
        "a".repeat(16_385),
        ours(access().claim("exp", "1")),
        ours(access().header("alg", "HS256")),
        ours(access().header("crit", json!(["exp"]))),
        ours(access().header("kid", "")),
        ours(access().claim("iss", "https://x.test")),
        ours(access().claim("iss", "ABSENT")),
        ours(access().claim("sub", "ABSENT")),
        ours(access().claim("client_id", "other")),
        ours(access().claim("token_use", "other")),
        ours(access().expires_in(-100)),
        ours(access().expires_in(10_000_000)),
        ours(access().claim("nbf", 32_503_680_000_i64)),
        ours(access().header("kid", "unknown")),
        access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()),
    ];
    let good = ours(access());
    let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
    let post = |body: &[u8]| Ask::new("POST", "/").bearer(&good).body(body);
    let mut requests: Vec<_> = tokens.iter().map(|token| Ask::get("/").bearer(token)).collect();
    requests.extend(tokens.iter().take(8).map(|token| Ask::get("/tenants/acme").bearer(token)));
    requests.extend(tokens.iter().take(8).map(|token| {
        Ask::get("/").header("cookie", &format!("__Host-access_token={token}")).header("sec-fetch-site", "same-origin")
    }));
    requests.extend([
        Ask::get("/"),
        Ask::get("/;x"),
        Ask::get("/").header("authorization", "Basic dTpw"),
        Ask::get("/").header("authorization", "Bearer a,Bearer b"),
        Ask::get("/").header("cookie", &format!("__Host-access_token={good}")).header("sec-fetch-site", "cross-site"),
        Ask::get("/").header("cookie", "__Host-access_token=a; __Host-access_token=b"),
        Ask::new("OPTIONS", "/").header("origin", "https://x.test").header("access-control-request-method", "GET"),
        post(call),
        post(b"[]"),
    ]);
    requests
}

#[tokio::test]
async fn every_result_of_a_check_is_there_from_the_start() {
    let file = FILE.replace("routes:\n", &format!("{JSON_RPC}routes:\n"));
    let in_shadow = POLICIES.iter().fold(file.clone(), |file, name| {
        let (from, to) = (format!("  {name}: {{"), format!("  {name}: {{mode: shadow, "));
        file.replace(&from, &to)
            .replace("mode: shadow, }", "mode: shadow}")
            .replace("mode: shadow, public: true", "public: true")
    });
    for (file, flags) in [(&file, &[][..]), (&file, &["--account-cookies"]), (&in_shadow, &["--account-cookies"])] {
        let stage = Stage::with(file, flags).await;
        let before = series(&stage.app.admin).await;
        let mut results = BTreeSet::new();
        for policy in POLICIES.iter().chain(&["nothing"]) {
            for request in requests() {
                let answer = stage.ask(request.policy(policy)).await;
                results.insert(answer.reason.clone());
            }
        }
        stage.ask(Ask::get("/a/../b")).await;
        assert!(file == &in_shadow || results.len() > 22, "{results:?}");
        let new: Vec<_> = series(&stage.app.admin).await.difference(&before).cloned().collect();
        assert!(new.is_empty(), "{flags:?}: {new:#?}");
    }
}

#[tokio::test]
async fn results_that_a_policy_cannot_have_have_no_series() {
    let stage = Stage::new(FILE).await;
    let before = series(&stage.app.admin).await;
    for (decision, reason, policy, pool, exists) in [
        ("allow", "", "members", "default", true),
        ("allow", "", "members", "", false),
        ("allow", "", "open", "", true),
        ("allow", "", "open", "default", false),
        ("allow", "", "guests", "", true),
        ("allow", "", "guests", "partners", true),
        ("allow", "", "pages", "", true),
        ("deny", "missing_credential", "members", "", true),
        ("deny", "missing_credential", "members", "default", false),
        ("deny", "missing_credential", "guests", "", false),
        ("deny", "expired", "members", "partners", true),
        ("deny", "expired", "members", "", false),
        ("deny", "expired", "open", "default", false),
        ("deny", "malformed_token", "members", "", true),
        ("deny", "malformed_token", "members", "default", true),
        ("deny", "insufficient_scope", "orders", "default", true),
        ("deny", "insufficient_scope", "members", "default", false),
        ("deny", "insufficient_group", "orders", "default", false),
        ("deny", "claim_mismatch", "own", "partners", true),
        ("deny", "auth_too_old", "fresh", "default", true),
        ("deny", "auth_too_old", "admin", "default", false),
        ("deny", "cross_site", "members", "", false),
        ("deny", "unsafe_path", "", "", true),
        ("error", "keys_unavailable", "guests", "default", true),
    ] {
        let labels = format!("decision=\"{decision}\",policy=\"{policy}\",pool=\"{pool}\",reason=\"{reason}\"");
        assert_eq!(before.contains(&format!("checks_total{{{labels}}}")), exists, "{labels}");
    }
}
