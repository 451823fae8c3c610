//! The commands about policy files, as people and their CI run them: `explain`, `test-policy`, `config-schema` and
//! `check-config`.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{run, run_with_input};
use crate::support::token::{CLIENT, OTHER_ISSUER, POOL, SUB, SigningKey, TokenBuilder, jwks};
use crate::support::tool::program;

const FILE: &str = r#"pools:
  partners: {user_pool_id: eu-central-1_Other0002, client_ids: partner, jwks_url: KEYS}
default: members
claim_headers: [{claim: "custom:tenant", header: x-auth-tenant}]
policies:
  members: {remove_authorization: true}
  admin: {groups: {any: [admins]}}
  orders: {scopes: {all: [orders/read]}, headers: {x-gate: orders}}
  open: {public: true}
  guests: {optional: true}
  pages: {cors_preflight: allow}
routes:
- {path_prefix: /admin, policy: admin}
- {path: "/orders/{id}", method: GET, policy: orders}
- {host: open.test, policy: open}
- {path: /guests, policy: guests}
- {path: /pages, policy: pages}
"#;

/// Everything that `explain` goes through, in its order.
const STEPS: [&str; 19] = [
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

    /// Runs `explain` about a request with this on standard input: exit code and output. Nothing of a token is in it.
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

    /// The same as JSON.
    fn report(&self, token: &str, more: &[&str]) -> (Option<i32>, Value) {
        let (code, output) = self.explain(token, &[more, &["--json"]].concat());
        (code, serde_json::from_str(&output).unwrap_or_else(|_| panic!("{output}")))
    }
}

/// What became of each step: the name of the last one that was taken, if one failed.
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

/// A token, options, and the reason, the status and the step that fails.
type Case = (String, &'static [&'static str], &'static str, u16, Option<&'static str>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_names_the_step_that_fails() {
    let stage = Stage::new().await;
    let access = TokenBuilder::access;
    let with_orders = sign(access().claim("scope", "orders/read"));
    let cases: [Case; 25] = [
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
async fn explain_says_who_chose_and_what_upstream_gets() {
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
    // Without a token, where none is needed.
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
    assert_eq!(stage.report("", &preflight[..6]).0, Some(1), "half a preflight");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_fetches_the_keys_of_the_tokens_pool_alone() {
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
async fn explain_takes_a_session_as_the_check_does() {
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
        // White space that HTTP does not trim is part of the value.
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
    assert_eq!(stage.other_keys.requests(), 0, "the keys of the token's pool alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_usage_of_explain_is_one_sentence() {
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

const TABLE: &str = r"
tests:
- name: nobody gets to orders
  request: {path: /orders/7}
  expect: {decision: deny, reason: missing_credential, status: 401, policy: orders}
- name: readers do
  request: {path: /orders/7, method: GET}
  token: {scope: openid orders/read, claims: {'custom:tenant': acme}}
  expect: {decision: allow, policy: orders, headers: {x-gate: orders, X-Auth-Tenant: acme, x-auth-groups: null}}
- name: users are no admins
  request: {policy: admin}
  token: {groups: [users]}
  expect: {decision: deny, reason: insufficient_group, requirement: groups}
- name: partners are members
  token: {pool: partners}
  expect: {decision: allow, headers: {x-auth-client-id: partner}}
- name: old tokens are refused
  token: {expires_in: -5m}
  expect: {decision: deny, reason: expired}
- name: and forged ones
  token: {signed: false}
  expect: {decision: deny, reason: bad_signature}
";

#[test]
fn test_policy_says_what_is_not_as_expected() {
    // No network: nobody answers there.
    let file = PolicyFile::new(&FILE.replace("KEYS", "http://127.0.0.1:9/"));
    let table = tempfile::NamedTempFile::new().unwrap();
    let (config, table_path) = (file.path(), table.path().to_str().unwrap().to_owned());
    let run_table = |text: &str| {
        std::fs::write(table.path(), text).unwrap();
        run(&["test-policy", &table_path, "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[])
    };
    let (code, stdout, stderr) = run_table(TABLE);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    assert!(stdout.ends_with("6 passed, 0 failed\n") && stdout.matches("ok   ").count() == 6, "{stdout}");

    for (from, to, said) in [
        ("reason: expired", "reason: unknown_kid", "reason: expected unknown_kid, got expired"),
        ("status: 401", "status: 403", "status: expected 403, got 401"),
        ("policy: orders}", "policy: members}", "policy: expected members, got orders"),
        ("requirement: groups", "requirement: scopes", "requirement: expected scopes, got groups"),
        ("x-gate: orders", "x-gate: other", "header x-gate: expected other, got orders"),
        ("x-auth-groups: null", "x-auth-groups: a", "header x-auth-groups: expected a, got none"),
        ("X-Auth-Tenant: acme", "X-Auth-Tenant: null", "header X-Auth-Tenant: expected none, got acme"),
        ("groups: [users]", "groups: [admins]", "decision: expected deny, got allow"),
        ("scope: openid orders/read", "scope: openid", "decision: expected allow, got deny (insufficient_scope)"),
        ("{expires_in: -5m}", "{expires_in: -5s}", "decision: expected deny, got allow"),
    ] {
        assert_ne!(TABLE.replacen(from, to, 1), TABLE, "{from}");
        let (code, stdout, stderr) = run_table(&TABLE.replacen(from, to, 1));
        assert_eq!((code, &*stderr), (Some(1), ""), "{said}\n{stdout}");
        assert!(stdout.contains(said) && stdout.ends_with("5 passed, 1 failed\n"), "{said} is not in\n{stdout}");
        assert_eq!(stdout.matches("FAIL ").count(), 1);
    }

    for (bad, said) in [
        ("", "missing field `tests`"),
        ("tests: []", "there are no tests in it"),
        ("tests:\n- name: a\n  expects: {}\n", "line 3"),
        ("tests:\n- name: a\n  expect: {decision: maybe}\n", "line 3"),
        ("tests:\n- name: a\n  expect: {decision: deny, reason: nonsense}\n", "line 3"),
        (
            "tests:\n- name: a\n  token: {pool: nobody}\n  expect: {decision: deny}\n",
            "tests[0] (a): there is no pool nobody",
        ),
        ("tests: {]", "line 1"),
    ] {
        let (code, stdout, stderr) = run_table(bad);
        assert_eq!((code, &*stdout), (Some(64), ""), "{bad}: {stderr}");
        assert!(stderr.contains(said) && stderr.contains(&table_path), "{bad}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let (code, _, stderr) =
        run(&["test-policy", "/nonexistent", "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[]);
    assert_eq!(code, Some(64), "{stderr}");
}

/// Reads the schema on standard input, and says of each YAML file whether it is valid by it.
const VALIDATE: &str = "
import json, sys, yaml
from jsonschema import Draft202012Validator as Validator
schema = json.load(sys.stdin)
assert schema['$schema'] == 'https://json-schema.org/draft/2020-12/schema', schema['$schema']
Validator.check_schema(schema)
print(*(not list(Validator(schema).iter_errors(yaml.safe_load(open(file)))) for file in sys.argv[1:]))
";

#[test]
fn the_schema_is_one_and_says_what_the_program_says() {
    let (code, schema, stderr) = run(&["config-schema"], &[]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let good = FILE.replace("KEYS", "https://keys.example.com/");
    let files = [
        (good.clone(), true),
        ("policies: {default: {scopes: {any: [a]}}}".into(), true),
        (good.replace("optional:", "optionl:"), false),
        (good.replace("optional: true", "optional: sometimes"), false),
        (good.replace("cors_preflight: allow", "cors_preflight: maybe"), false),
        (good.replace("policy: open}", "polices: open}"), false),
        (good.replace("  members:", "  two words:"), false),
        (good.replace("client_ids: partner, ", ""), false),
        (good.replace("claim_headers: [", "claim_headers: [7, "), false),
    ];
    let directory = tempfile::tempdir().unwrap();
    let write = |(number, (text, _)): (usize, &(String, bool))| {
        let path = directory.path().join(format!("{number}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let paths: Vec<_> = files.iter().enumerate().map(write).collect();
    let expected: Vec<bool> = files.iter().map(|(_, valid)| *valid).collect();
    let schema_file = directory.path().join("schema.json");
    std::fs::write(&schema_file, schema).unwrap();
    let output = Command::new(program("python"))
        .args(["-c", VALIDATE])
        .args(&paths)
        .stdin(std::fs::File::open(schema_file).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<bool> =
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(|word| word == "True").collect();
    assert_eq!(found, expected);
    for (path, valid) in paths.iter().zip(expected) {
        let flags = ["check-config", "--user-pool-id", POOL, "--client-id", CLIENT, "--config", path.to_str().unwrap()];
        let (code, stdout, stderr) = run(&flags, &[]);
        assert_eq!(code, Some(if valid { 0 } else { 64 }), "{stdout}{stderr}");
    }
}

#[test]
fn check_config_names_the_place() {
    let file = PolicyFile::new("");
    let path = file.path();
    let check = |text: &str, flags: &[&str]| {
        file.write(text);
        run(&[&["check-config", "--config", &path], flags].concat(), &[])
    };
    let flags = ["--user-pool-id", POOL, "--client-id", CLIENT];
    let good = FILE.replace("KEYS", "https://keys.example.com/");
    assert_eq!(check(&good, &flags), (Some(0), "the configuration is right\n".into(), String::new()));
    for (text, said) in [
        (good.replace("policy: open}", "policy: closed}"), "routes[2].policy: there is no policy closed at line 15"),
        (
            good.replace("default: members\n", ""),
            "routes: a file with `routes` needs the member `default`, which names a policy",
        ),
        (good.replace("{path: /guests,", "{path: \"/orders/{order}\", method: GET,"), "routes[3]"),
        (
            good.replace("x-auth-tenant", "x-auth-sub"),
            "claim_headers[0].header: x-auth-sub is a standard header at line 4",
        ),
        (good.replace("https://keys", "http://keys"), "pools.partners.jwks_url: "),
        (good.replace("partners:", "default:"), "pools.default: the flags define the pool default, too"),
        (good.replace("user_pool_id: eu-central-1_Other0002", "user_pool_id: nonsense"), "is not a user pool id"),
        (format!("{good}\naccount: {{pool: nobody}}"), "account.pool: there is no pool nobody"),
        (good.replace("members: {", "members: {{"), "line 6"),
        (String::new(), "the file is empty"),
    ] {
        let (code, stdout, stderr) = check(&text, &flags);
        assert_eq!((code, &*stdout), (Some(64), ""), "{said}: {stderr}");
        assert!(stderr.starts_with("cognito-authz: ") && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.contains(&path) && stderr.contains(said), "{said} is not in {stderr}");
    }
    // Pools may stand in the file alone; then the account API has to be told, or off.
    let alone = "pools: {a: {user_pool_id: eu-west-1_A, client_ids: [b]}}";
    let (code, _, stderr) = check(alone, &["--account-api=false"]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let (code, _, stderr) = check("policies: {a: {}}", &["--account-api=false"]);
    assert_eq!(code, Some(64), "a file without a pool: {stderr}");
    // What is odd is said, and is no error.
    let odd = good.replace("groups: {any: [admins]}", "claims: [{claim: 'custom:level', equals: 7}]");
    let (code, _, stderr) = check(&odd, &flags);
    assert_eq!(code, Some(0));
    assert!(stderr.starts_with("cognito-authz: warning: claims.custom:level: "), "{stderr}");
}

#[test]
fn check_config_warns_where_a_template_opens_what_another_route_protects() {
    let file = PolicyFile::new("");
    let path = file.path();
    let flags = ["check-config", "--config", &path, "--user-pool-id", POOL, "--client-id", CLIENT];
    let policies = "default: members\npolicies: {members: {}, admin: {groups: {any: [admins]}}, open: {public: true}}\nroutes:\n- {path_prefix: /admin, policy: admin}\n";
    file.write(&format!("{policies}- {{path: '/{{service}}/health', policy: open}}\n"));
    let (code, _, stderr) = run(&flags, &[]);
    assert_eq!(code, Some(0));
    assert_eq!(
        stderr,
        "cognito-authz: warning: routes[1]: * * /{service}/health (policy open) opens part of what routes[0], * * /admin/… \
         (policy admin), protects: /admin/health. If that is not intended, add a route for /admin/health with the policy admin\n"
    );
    file.write(&format!(
        "{policies}- {{path: '/{{service}}/health', policy: open}}\n- {{path: /admin/health, policy: admin}}\n"
    ));
    assert_eq!(run(&flags, &[]).2, "");
}
