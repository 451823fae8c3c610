//! Shadow mode: what passes, what the upstream gets, and how it is reported.

use std::path::Path;

use serde_json::json;

use super::{Stage as Service, ours};
use crate::support::account::AccountClient;
use crate::support::client::{Answer, Ask, connect, get, metric};
use crate::support::fake_cognito::FakeCognito;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{Program, TestApp, run};
use crate::support::token::{CLIENT, POOL, SUB, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

/// Policies that differ only in what they ask for: `shadow` asks for the group `admins` and reports it, `enforced` asks
/// for it, `members` asks for any valid token, and `open` asks for nothing.
const FILE: &str = r#"
default: enforced
claim_headers:
- {claim: "custom:tenant", header: x-tenant}
whole_claims_header: x-claims
policies:
  shadow: {mode: shadow, groups: {any: [admins]}, headers: {x-gate: "1"}, remove_authorization: true}
  enforced: {groups: {any: [admins]}, headers: {x-gate: "1"}, remove_authorization: true}
  members: {headers: {x-gate: "1"}, remove_authorization: true}
  open: {public: true, headers: {x-gate: "1"}, remove_authorization: true}
  guests: {optional: true, mode: shadow}
routes:
- {path: /plain, policy: shadow}
"#;

/// Series of `shadow_denials_total`.
fn series(reason: &str, pool: &str, policy: &str) -> String {
    format!("shadow_denials_total{{policy=\"{policy}\",pool=\"{pool}\",reason=\"{reason}\"}}")
}

/// Changes to the headers of a request that passes. Checks are sent with their headers in any order, so removed ones are
/// sorted.
fn changes(answer: &Answer) -> (&[(String, String)], Vec<&str>) {
    assert_eq!((answer.status, answer.text("decision")), (200, "allow"));
    let mut removed: Vec<&str> = answer.removed.iter().map(String::as_str).collect();
    removed.sort_unstable();
    (&answer.all_headers, removed)
}

/// Names that an application could read as a header of the service, and others.
const FORGED: [&str; 14] = [
    "x-auth-sub",
    "X-Auth-Sub",
    "x_auth_sub",
    "x.auth.groups",
    "x-auth_email",
    "X_AUTH_ROLE",
    "x-tenant",
    "x_tenant",
    "X.Tenant",
    "x-claims",
    "x_claims",
    "x-gate",
    "x_gate",
    "accept",
];

#[tokio::test]
async fn a_shadow_pass_forwards_the_headers_of_an_honest_one() {
    let service = Service::new(FILE).await;
    let tenant = || TokenBuilder::access().claim("custom:tenant", "acme");
    let unverified = [
        ("missing_credential", None),
        ("malformed_token", Some("garbage".to_owned())),
        ("token_too_large", Some("a".repeat(16_385))),
        ("expired", Some(ours(tenant().expires_in(-3600)))),
        ("wrong_client", Some(ours(tenant().claim("client_id", "other")))),
        ("unknown_issuer", Some(ours(tenant().claim("iss", "https://evil.example")))),
        ("unknown_kid", Some(tenant().sign(SigningKey::other()))),
        ("bad_signature", Some(tenant().header("kid", "c2hhcmVk+/=").sign(SigningKey::other()))),
    ];
    let user = ours(tenant());
    let huge = ours(tenant().claim("cognito:groups", json!(["admins"])).claim("custom:tenant", "t".repeat(11_000)));
    // The policy whose requests pass in the same way: without a caller, or with the verified one.
    let cases = unverified
        .into_iter()
        .map(|(reason, token)| (reason, token, "open"))
        .chain([("insufficient_group", Some(user), "members"), ("identity_too_large", Some(huge), "open")]);
    let mut random = fastrand::Rng::with_seed(7);
    for (reason, token, honest) in cases {
        for round in 0..12 {
            let mut forged: Vec<&str> = FORGED.into_iter().filter(|_| round == 0 || random.bool()).collect();
            random.shuffle(&mut forged);
            let ask = |policy: &str| {
                let ask = Ask::get("/").policy(policy);
                let ask = token.iter().fold(ask, |ask, token| ask.bearer(token));
                forged.iter().fold(ask, |ask, name| ask.header(name, "root"))
            };
            let enforced = service.ask(ask("enforced")).await;
            assert_eq!(enforced.reason, reason);
            let shadow = service.ask(ask("shadow")).await;
            let honest_pass = service.ask(ask(honest)).await;
            assert_eq!(changes(&shadow), changes(&honest_pass), "{reason}: {forged:?}");
            assert_eq!(shadow.text("shadow_reason"), reason);
            assert_eq!((shadow.text("reason"), shadow.text("policy")), ("", "shadow"));
            assert_eq!(shadow.text("requirement"), enforced.text("requirement"));
            assert_eq!(shadow.text("sub"), honest_pass.text("sub"), "{reason}");
            assert!(shadow.headers.values().all(|value| value != "root"));
        }
    }
    // A request that meets the policy passes as it will later.
    let admin = ours(tenant().claim("cognito:groups", json!(["admins"])));
    let (shadow, enforced) =
        (Ask::get("/").policy("shadow").bearer(&admin), Ask::get("/").policy("enforced").bearer(&admin));
    let (shadow, enforced) = (service.ask(shadow).await, service.ask(enforced).await);
    assert_eq!(changes(&shadow), changes(&enforced));
    assert_eq!((shadow.text("shadow_reason"), shadow.headers["x-auth-sub"].as_str()), ("", SUB));
    let guest = service.ask(Ask::get("/").policy("guests").bearer("garbage")).await;
    assert_eq!((guest.status, guest.text("shadow_reason")), (200, "malformed_token"));
}

#[tokio::test]
async fn denials_that_precede_the_policy_are_never_in_shadow() {
    let file = FILE.replace("default: enforced", "default: shadow") + "- {host: admin.test, policy: enforced}\n";
    let service = Service::new(&file).await;
    for (ask, reason) in [
        (Ask::get("/x/../plain"), "unsafe_path"),
        (Ask::get("/;/plain").policy("shadow"), "unsafe_path"),
        (Ask::get("/").policy("nonsense"), "unknown_policy"),
        (Ask::get("/plain").host("a.test,b.test"), "no_http_request"),
    ] {
        let target = ask.target();
        let answer = service.ask(ask).await;
        assert_eq!((answer.verdict(), answer.text("decision")), ((403, reason), "deny"), "{target}");
    }
    assert_eq!(service.ask(Ask::get("/plain")).await.text("shadow_reason"), "missing_credential");
}

#[tokio::test]
async fn shadow_denials_are_counted_from_zero_and_checks_as_allowed() {
    let service = Service::new(FILE).await;
    let (_, metrics) = get(&service.app.admin, "/metrics").await;
    let lines: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("cognito_authz_shadow_denials_total{")).collect();
    assert!(lines.iter().all(|line| line.contains("policy=\"shadow\"") || line.contains("policy=\"guests\"")));
    assert!(lines.iter().all(|line| line.ends_with(" 0")), "{lines:?}");
    for (reason, pool) in
        [("missing_credential", ""), ("insufficient_group", "default"), ("keys_unavailable", "default")]
    {
        let name = format!("cognito_authz_{} 0", series(reason, pool, "shadow"));
        assert!(lines.contains(&&*name), "{name}");
    }
    assert!(!metrics.contains("shadow_denials_total{policy=\"shadow\",pool=\"\",reason=\"unsafe_path\"}"));

    service.ask(Ask::get("/plain")).await;
    service.ask(Ask::get("/plain").bearer(&ours(TokenBuilder::access()))).await;
    service.ask(Ask::get("/").bearer(&ours(TokenBuilder::access()))).await;
    let admin = &service.app.admin;
    assert_eq!(metric(admin, &series("missing_credential", "", "shadow")).await, 1.0);
    assert_eq!(metric(admin, &series("insufficient_group", "default", "shadow")).await, 1.0);
    assert_eq!(service.counted("allow", "shadow", "default", "").await, 1.0);
    assert_eq!(service.counted("allow", "shadow", "", "").await, 1.0);
    assert_eq!(service.counted("deny", "shadow", "default", "insufficient_group").await, 0.0);
    assert_eq!(service.counted("deny", "enforced", "default", "insufficient_group").await, 1.0);

    // Enforcing is a change of the file, without a restart.
    service.file.replace(&FILE.replace("mode: shadow, ", ""));
    service.app.reload_requests.notify_one();
    eventually("the policy is enforced", PATIENCE, async || service.ask(Ask::get("/plain")).await.status == 401).await;
}

#[tokio::test]
async fn a_revoked_token_gives_no_identity() {
    let (fake, file) = (FakeCognito::start().await, PolicyFile::new(FILE));
    let app = TestApp::start(&["--config", &file.path(), "--cognito-endpoint", &fake.url]);
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    let channel = connect(&app.grpc[0]).await;
    let token = ours(TokenBuilder::access().claim("origin_jti", "session"));
    let before = Ask::get("/plain").bearer(&token).of(&channel).await;
    assert_eq!((before.text("shadow_reason"), before.headers["x-auth-sub"].as_str()), ("insufficient_group", SUB));
    fake.answers(|_, _| Reply::ok("{}"));
    let client = AccountClient::new(&app.admin);
    assert_eq!(client.bearer("/logout", &token, json!({})).await.status, 200);
    let after = Ask::get("/plain").bearer(&token).of(&channel).await;
    assert_eq!((after.status, after.text("shadow_reason"), after.text("sub")), (200, "revoked", ""));
    assert!(!after.headers.keys().any(|name| name.starts_with("x-auth-")), "{:?}", after.headers);
}

#[tokio::test]
async fn a_missing_key_is_reported_and_logged_without_the_token() {
    let file = PolicyFile::new(FILE);
    let keys = JwksServer::start(Reply::status(500)).await;
    let mut program = Program::start(&["--config", &file.path(), "--jwks-url", &keys.url, "--log-format", "json"]);
    let channel = connect(&program.grpc[0]).await;
    let token = ours(TokenBuilder::access());
    let ask = Ask::get("/plain?access_token=secret").bearer(&token).header("x-request-id", "request-7");
    let answer = ask.of(&channel).await;
    assert_eq!((answer.status, answer.text("shadow_reason"), answer.text("sub")), (200, "keys_unavailable", ""));
    assert_eq!(metric(&program.admin, &series("keys_unavailable", "default", "shadow")).await, 1.0);
    let line = program.wait_for_line("\"check\"");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let fields = &line["fields"];
    assert_eq!(
        [&line["level"], &fields["decision"], &fields["shadow_reason"], &fields["policy"], &fields["request_id"]],
        ["WARN", "allow", "keys_unavailable", "shadow", "request-7"],
        "{line}"
    );
    assert!(fields["reason"].is_null());
    program.signal("TERM");
    program.wait();
    assert_eq!(program.log.iter().filter(|line| line.contains("shadow_reason")).count(), 1);
    let payload = token.split('.').nth(1).unwrap();
    assert!(!program.log.iter().any(|line| line.contains(payload) || line.contains("secret")));
}

#[tokio::test]
async fn commands_say_both_decisions() {
    let file = PolicyFile::new(FILE);
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name).to_str().unwrap().to_owned()
    };
    let keys = write("jwks.json", &jwks(&[SigningKey::shared()]));
    let pool = ["--user-pool-id", POOL, "--client-id", CLIENT];
    let path = file.path();
    assert!(Path::new(&keys).exists());
    let explain = ["explain", "--config", &path, "--path", "/plain", "--jwks-url", "http://127.0.0.1:9/"];
    let (code, output, _) = run(&[&explain[..], &pool].concat(), &[]);
    assert_eq!(code, Some(0), "{output}");
    for line in [
        "credential   failed: missing_credential\n",
        "size         not reached\n",
        "decision     allow (200)\n",
        "enforced     deny (401): the policy is in shadow mode, and would otherwise deny this\n",
        "challenge    Bearer realm=\"api\"\n",
    ] {
        assert!(output.contains(line), "{line} is not in\n{output}");
    }
    let (_, report, _) = run(&[&explain[..], &pool, &["--json"]].concat(), &[]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["decision"], &report["status"]), (&json!("allow"), &json!(200)));
    let enforced = &report["enforced"];
    assert_eq!([&enforced["decision"], &enforced["reason"]], ["deny", "missing_credential"]);
    assert_eq!(enforced["status"], 401);

    let table = |expect: &str| {
        let row = format!("tests:\n- name: a user\n  request: {{path: /plain}}\n  token: {{}}\n  expect: {expect}\n");
        let table = write("table.yaml", &row);
        let (code, output, _) = run(&[&["test-policy", &*table, "--config", &*path][..], &pool].concat(), &[]);
        (code, output)
    };
    let note = "a user\n     allowed in shadow mode; enforced: deny (insufficient_group)\n";
    let (code, output) = table("{decision: allow, shadow_reason: insufficient_group, requirement: groups}");
    assert_eq!((code, output), (Some(0), format!("ok   {note}1 passed, 0 failed\n")));
    let (code, output) = table("{decision: deny, reason: insufficient_group, shadow_reason: expired}");
    assert_eq!(code, Some(1), "{output}");
    for said in [
        &*format!("FAIL {note}"),
        "decision: expected deny, got allow\n",
        "shadow_reason: expected expired, got insufficient_group\n",
    ] {
        assert!(output.contains(said), "{said} is not in\n{output}");
    }

    let (code, _, warnings) = run(&[&["check-config", "--config", &path][..], &pool].concat(), &[]);
    assert_eq!(code, Some(0), "{warnings}");
    assert!(warnings.contains("the policy shadow is in shadow mode (mode: shadow)"), "{warnings}");
}
