//! `explain`: the steps of a check, the policy, and the headers for upstream.

use serde_json::{Value, json};

use super::FILE;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::run_with_input;
use crate::support::token::{CLIENT, OTHER_ISSUER, POOL, SUB, SigningKey, TokenBuilder, jwks};

/// Steps of the output of `explain`, in order.
const STEPS: [&str; 20] = [
    "route",
    "credential",
    "size",
    "form",
    "alg",
    "crit",
    "kid",
    "iss",
    "token_use",
    "sub",
    "client",
    "exp",
    "nbf",
    "life",
    "types",
    "key",
    "signature",
    "revocation",
    "policy",
    "identity",
];

struct Stage {
    keys: JwksServer,
    other_keys: JwksServer,
    file: PolicyFile,
}

impl Stage {
    async fn new() -> Self {
        let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
        let other_keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::other()]))).await;
        let file = PolicyFile::new(&FILE.replace("KEYS", &other_keys.url));
        Self { keys, other_keys, file }
    }

    /// Runs `explain` with this standard input, and returns the exit code and the output. Fails if the output contains a
    /// part of the token.
    fn explain(&self, token: &str, more: &[&str]) -> (Option<i32>, String) {
        let path = self.file.path();
        let common =
            ["explain", "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", &self.keys.url, "--config", &path];
        let (code, stdout, stderr) = run_with_input(&[&common, more].concat(), token.as_bytes());
        for segment in token.trim().trim_start_matches("Bearer ").split('.').filter(|segment| segment.len() > 8) {
            assert!(
                !stdout.contains(segment) && !stderr.contains(segment),
                "{more:?}: the token is printed\n{stdout}{stderr}"
            );
        }
        assert!(stdout.is_empty() != stderr.is_empty(), "{more:?}: {stdout}{stderr}");
        (code, stdout + &stderr)
    }

    /// As [`Stage::explain`], with JSON output.
    fn report(&self, token: &str, more: &[&str]) -> (Option<i32>, Value) {
        let (code, output) = self.explain(token, &[more, &["--json"]].concat());
        (code, serde_json::from_str(&output).unwrap_or_else(|_| panic!("{output}")))
    }
}

/// Returns the name of the step that failed, if any. Checks that the steps before it passed and the steps after it were
/// not reached.
#[track_caller]
fn failed_at(report: &Value) -> Option<String> {
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|step| step["step"].as_str().unwrap()).collect::<Vec<_>>(), STEPS);
    let result = |step: &Value| step["result"].as_str().unwrap().to_owned();
    let failed = steps.iter().position(|step| result(step).starts_with("failed: "))?;
    assert!(steps[..failed].iter().all(|step| result(step) == "passed" || step["step"] == "revocation"), "{steps:#?}");
    assert!(steps[failed + 1..].iter().all(|step| result(step) == "not reached"), "{steps:#?}");
    Some(steps[failed]["step"].as_str().unwrap().to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "tables of tokens read better")]
fn sign(token: TokenBuilder) -> String {
    token.sign(SigningKey::shared())
}

/// Token, options, and the expected reason, status, and failed step.
type Case = (String, &'static [&'static str], &'static str, u16, Option<&'static str>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_names_the_step_that_fails() {
    let stage = Stage::new().await;
    let access = TokenBuilder::access;
    let with_orders = sign(access().claim("scope", "orders/read"));
    let cases: [Case; 26] = [
        (String::new(), &[], "missing_credential", 401, Some("credential")),
        ("x".repeat(16_385), &[], "token_too_large", 401, Some("size")),
        ("no.token".into(), &[], "malformed_token", 401, Some("form")),
        ("two words".into(), &[], "malformed_token", 401, Some("form")),
        (sign(access().header("alg", "none")), &[], "unsupported_algorithm", 401, Some("alg")),
        (sign(access().header("crit", json!(["exp"]))), &[], "unsupported_header", 401, Some("crit")),
        (sign(access().header("kid", "ABSENT")), &[], "missing_kid", 401, Some("kid")),
        (sign(access().claim("iss", "https://evil.test")), &[], "unknown_issuer", 401, Some("iss")),
        (sign(TokenBuilder::id()), &[], "wrong_token_use", 401, Some("token_use")),
        (sign(access().claim("sub", "ABSENT")), &[], "missing_claim", 401, Some("sub")),
        (sign(access().claim("client_id", "other")), &[], "wrong_client", 401, Some("client")),
        (sign(access().expires_in(-60)), &[], "expired", 401, Some("exp")),
        (sign(access().claim("nbf", 32_503_680_000_i64)), &[], "not_yet_valid", 401, Some("nbf")),
        (sign(access().expires_in(90_000)), &[], "token_life_exceeded", 401, Some("life")),
        (sign(access().claim("username", 7)), &[], "malformed_token", 401, Some("types")),
        (sign(access().header("kid", "unknown")), &[], "unknown_kid", 401, Some("key")),
        (access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()), &[], "bad_signature", 401, Some("signature")),
        (sign(access()), &["--path", "/admin"], "insufficient_group", 403, Some("policy")),
        (sign(access()), &["--context", "policy=admin"], "insufficient_group", 403, Some("policy")),
        (sign(access()), &["--path", "/orders/7?x=1"], "insufficient_scope", 403, Some("policy")),
        (
            sign(access().claim("custom:tenant", "t".repeat(9000)).claim("username", "u".repeat(7500))),
            &[],
            "token_too_large",
            401,
            Some("size"),
        ),
        (sign(access().claim("username", "é".repeat(2_800))), &[], "identity_too_large", 403, Some("identity")),
        (sign(access()), &["--path", "/x/../admin"], "unsafe_path", 403, Some("route")),
        (sign(access()), &["--context", "policy=nonsense"], "unknown_policy", 403, Some("route")),
        (with_orders.clone(), &["--method", "POST", "--path", "/orders/7"], "", 200, None),
        (with_orders, &["--path", "/orders/7"], "", 200, None),
    ];
    for (token, more, reason, status, step) in cases {
        let (code, report) = stage.report(&token, more);
        let allowed = status == 200;
        assert_eq!((code, failed_at(&report).as_deref()), (Some(i32::from(!allowed)), step), "{reason} {report:#}");
        assert_eq!(
            (&report["status"], &report["decision"]),
            (&json!(status), &json!(if allowed { "allow" } else { "deny" }))
        );
        assert_eq!(report["reason"].as_str().unwrap_or_default(), reason);
        assert_eq!(report["www_authenticate"].is_string(), status == 401 || reason == "insufficient_scope");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_shows_what_selected_the_policy_and_what_upstream_gets() {
    let stage = Stage::new().await;
    let token = sign(TokenBuilder::access().claim("custom:tenant", "acme").claim("scope", "orders/read"));
    for input in [token.clone(), format!("Bearer {token}\n"), format!("  bearer {token}\r\n")] {
        let forged = ["--header", "X_Auth_Sub: root", "--header", "x-auth-role: root", "--path", "/orders/7"];
        let (code, report) = stage.report(&input, &forged);
        assert_eq!((code, failed_at(&report)), (Some(0), None));
        assert_eq!((&report["policy"], &report["pool"]), (&json!("orders"), &json!("default")));
        let by = report["policy_by"].as_str().unwrap();
        assert!(by.starts_with("routes[1]: ") && by.contains("/orders/{id}"), "{by}");
        let header = |name: &str, value: &str| json!({"name": name, "value": value});
        let expected = [
            header("x-auth-sub", SUB),
            header("x-auth-username", SUB),
            header("x-auth-client-id", CLIENT),
            header("x-auth-token-use", "access"),
            header("x-auth-scope", "orders/read"),
            header("x-auth-tenant", "acme"),
            header("x-gate", "orders"),
        ];
        assert_eq!(report["headers"], json!(expected));
        assert_eq!(report["headers_to_remove"], json!(["x-auth-groups", "x-auth-email", "x_auth_sub", "x-auth-role"]));
    }
    let (code, text) = stage.explain(&token, &["--path", "/orders/7"]);
    assert_eq!(code, Some(0));
    for line in [
        "decision     allow (200)",
        "sets         x-auth-tenant: acme",
        "sets         x-gate: orders",
        "removes      x-auth-email",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for (step, line) in STEPS.into_iter().zip(text.lines()) {
        assert_eq!(line.split_whitespace().next(), Some(step), "{text}");
    }
    let (code, text) = stage.explain(&token, &["--path", "/admin"]);
    assert_eq!(code, Some(1));
    for part in ["failed: insufficient_group (groups)", "decision     deny (403)", "policy admin, by routes[0]: "] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    for (more, policy, by) in [
        (&[][..], "members", "default: no route matches"),
        (&["--context", "policy=open"], "open", "the context extension policy"),
        (&["--host", "OPEN.test:443"], "open", "routes[2]: "),
        (&["--path", "/guests"], "guests", "routes[3]: "),
    ] {
        let (code, report) = stage.report(&token, more);
        assert_eq!((code, &report["policy"]), (Some(0), &json!(policy)));
        assert!(report["policy_by"].as_str().unwrap().starts_with(by), "{report:#}");
        let removes = report["headers_to_remove"].as_array().unwrap().contains(&json!("authorization"));
        assert_eq!(removes, policy == "members");
        let names_someone = report["headers"].to_string().contains(SUB);
        assert_eq!(names_someone, policy != "open", "{report:#}");
    }
    // Requests that need no token.
    let preflight = [
        "--method",
        "OPTIONS",
        "--path",
        "/pages",
        "--header",
        "Origin: https://app.test",
        "--header",
        "Access-Control-Request-Method: PUT",
    ];
    for (more, why) in [
        (&["--path", "/guests"][..], "needs none"),
        (&preflight, "CORS preflight"),
        (&["--host", "open.test"], "public"),
    ] {
        let (code, report) = stage.report("", more);
        assert_eq!((code, failed_at(&report)), (Some(0), None));
        assert!(report["steps"][1]["result"].as_str().unwrap().contains(why), "{report:#}");
        assert_eq!(report["headers"], json!([]));
    }
    assert_eq!(
        stage.report("", &preflight[..6]).0,
        Some(1),
        "a preflight without `Access-Control-Request-Method` is an ordinary request"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_fetches_only_the_keys_of_the_tokens_pool() {
    let stage = Stage::new().await;
    let their =
        TokenBuilder::access().claim("iss", OTHER_ISSUER).claim("client_id", "partner").sign(SigningKey::other());
    let (code, report) = stage.report(&their, &[]);
    assert_eq!((code, &report["pool"]), (Some(0), &json!("partners")));
    assert_eq!((stage.keys.requests(), stage.other_keys.requests()), (0, 1));
    assert_eq!(stage.report("garbage", &[]).0, Some(1));
    assert_eq!((stage.keys.requests(), stage.other_keys.requests()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_reads_session_cookies_like_a_check() {
    let stage = Stage::new().await;
    let good = sign(TokenBuilder::access());
    let unknown = TokenBuilder::access().sign(SigningKey::other());
    let cookie = |token: &str| format!("Cookie: theme=dark; __Host-access_token={token}");
    for (input, cookies, method, reason) in [
        ("", &[cookie(&good)][..], "GET", ""),
        ("", &["cookie: a=1".into(), cookie(&good)], "GET", ""),
        ("", &[cookie(&good)], "POST", "cross_site"),
        ("", &[cookie(&unknown)], "GET", "unknown_kid"),
        ("", &[cookie(&good), cookie(&good)], "GET", "multiple_credentials"),
        ("", &[cookie("x")], "GET", "malformed_token"),
        ("", &[cookie(&sign(TokenBuilder::id()))], "GET", "wrong_token_use"),
        ("x", &[cookie(&good)], "GET", "malformed_token"),
        // White space other than spaces and tabs is part of the value.
        ("", &[format!("{}\u{a0}", cookie(&good))], "GET", "malformed_token"),
        ("", &[format!("{}\t ", cookie(&good))], "GET", ""),
    ] {
        let headers = cookies.iter().flat_map(|cookie| ["--header", cookie]);
        let more: Vec<&str> = ["--account-cookies", "--method", method].into_iter().chain(headers).collect();
        let (code, report) = stage.report(input, &more);
        assert_eq!(report["reason"].as_str().unwrap_or_default(), reason, "{report:#}");
        assert_eq!(code, Some(i32::from(!reason.is_empty())));
        assert!(!report.to_string().contains("__Host-"), "{report:#}");
    }
    assert_eq!(stage.other_keys.requests(), 0, "only the keys of the token's pool are fetched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_reports_a_usage_error_in_one_line() {
    let stage = Stage::new().await;
    for more in [
        &["--nonsense"][..],
        &["--context", "other=x"],
        &["--header", "no-colon"],
        &["--header", "Authorization: Bearer x"],
        &["--config", "/nonexistent"],
        &["--token-use", "both"],
    ] {
        let (code, said) = stage.explain(&sign(TokenBuilder::access()), more);
        assert_eq!((code, said.lines().count()), (Some(64), 1), "{more:?}: {said}");
        assert!(said.starts_with("cognito-authz: "), "{said}");
    }
    let path = stage.file.path();
    let args = ["explain", "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &path];
    let (code, _, said) = run_with_input(&args, b"\xff\xfe");
    assert_eq!(code, Some(64), "{said}");
}
