//! `explain`: the value that the token has and the accepted ones, for each kind of denial.

use serde_json::{Value, json};

use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::run_with_input;
use crate::support::token::{CLIENT, ISSUER, OTHER_ISSUER, POOL, SUB, SigningKey, TokenBuilder, jwks, unix_now};

const FILE: &str = r#"default: members
policies:
  members: {}
  admin: {groups: {any: [admins, owners]}}
  orders: {scopes: {any: [orders/read], all: [a/b]}}
  tenant: {claims: [{claim: "custom:tenant", equals: {segment: tenant}}]}
  plan: {claims: [{claim: ["custom:plan", name], one_of: [pro, 5]}]}
  fresh: {max_auth_age: 5m}
  strong: {amr: {all: [mfa]}}
  trial: {mode: shadow, groups: {any: [admins]}}
  from: {from: {header: X-Token}}
routes:
- {path: "/t/{tenant}", policy: tenant}
"#;

struct Stage {
    keys: JwksServer,
    file: PolicyFile,
}

impl Stage {
    async fn new() -> Self {
        Self { keys: JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await, file: PolicyFile::new(FILE) }
    }

    /// Runs `explain`, and returns its output. Fails if that contains a part of the token.
    fn run(&self, token: &str, more: &[&str]) -> String {
        let path = self.file.path();
        let keys = &self.keys.url;
        let common = ["explain", "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", keys, "--config", &path];
        let (_, stdout, stderr) = run_with_input(&[&common, more].concat(), token.as_bytes());
        assert_eq!(stderr, "", "{stdout}");
        for segment in token.split('.').filter(|segment| segment.len() > 8) {
            assert!(!stdout.contains(segment), "the token is printed\n{stdout}");
        }
        assert!(!stdout.contains("alice"), "an address is printed\n{stdout}");
        stdout
    }

    fn because(&self, token: &str, more: &[&str]) -> Value {
        let output = self.run(token, &[more, &["--json"]].concat());
        let report: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{output}"));
        report["because"].clone()
    }
}

fn sign(token: &TokenBuilder) -> String {
    token.sign(SigningKey::shared())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_has_the_value_of_the_token_and_the_accepted_ones() {
    let stage = Stage::new().await;
    let access = TokenBuilder::access;
    let kid = "c2hhcmVk+/=";
    let now = unix_now();
    let policy = |name: &'static str| match name {
        "admin" => ["--context", "policy=admin"],
        "orders" => ["--context", "policy=orders"],
        "plan" => ["--context", "policy=plan"],
        "fresh" => ["--context", "policy=fresh"],
        "strong" => ["--context", "policy=strong"],
        "from" => ["--context", "policy=from"],
        "trial" => ["--context", "policy=trial"],
        _ => ["--context", "policy=nonsense"],
    };
    let two = json!({"name": "free"});
    let cases: Vec<(String, Vec<&str>, &str, Value, Value)> = vec![
        (
            String::new(),
            policy("from").into(),
            "the credential",
            Value::Null,
            json!(["Authorization: Bearer TOKEN", "the header x-token"]),
        ),
        ("a.b".into(), vec![], "the form of the token", json!("2 segments"), Value::Null),
        (sign(&access().header("alg", "HS256")), vec![], "alg", json!("HS256"), json!(["RS256"])),
        (
            sign(&access().header("crit", json!(["exp"]))),
            vec![],
            "the header of the token",
            json!({"crit": ["exp"], "b64": null}),
            Value::Null,
        ),
        (sign(&access().header("kid", "ABSENT")), vec![], "kid", Value::Null, Value::Null),
        (
            sign(&access().claim("iss", OTHER_ISSUER)),
            vec![],
            "iss",
            json!(OTHER_ISSUER),
            json!([ISSUER, ISSUER.replace("cognito-idp", "issuer-cognito-idp")]),
        ),
        (sign(&access().claim("iss", 7)), vec![], "iss", json!(7), json!("a text that is not empty")),
        (sign(&TokenBuilder::id()), vec![], "token_use", json!("id"), json!(["access"])),
        (sign(&access().claim("sub", "ABSENT")), vec![], "sub", Value::Null, json!("a text that is not empty")),
        (sign(&access().claim("client_id", "other")), vec![], "client_id", json!("other"), json!([CLIENT])),
        (
            sign(&access().claim("client_id", "alice@example.com")),
            vec![],
            "client_id",
            json!("a***@e***"),
            json!([CLIENT]),
        ),
        (
            sign(&TokenBuilder::id().claim("aud", json!(["b", "c"]))),
            vec!["--token-use", "any"],
            "aud",
            json!(["b", "c"]),
            json!([CLIENT]),
        ),
        (
            sign(&access().claim("username", json!(["alice@example.com"]))),
            vec![],
            "username",
            json!(["a***@e***"]),
            json!("a text, or no such claim"),
        ),
        (
            sign(&access().claim("cognito:groups", "x")),
            vec![],
            "cognito:groups",
            json!("x"),
            json!("a list of texts, or no such claim"),
        ),
        (
            sign(&access().expires_in(90_000)),
            vec![],
            "exp - iat",
            json!("90000 s"),
            json!("at most 86400 s (--max-token-life)"),
        ),
        (sign(&access().header("kid", "unknown")), vec![], "kid", json!("unknown"), json!([kid])),
        (
            access().header("kid", kid).sign(SigningKey::other()),
            vec![],
            "the signature",
            json!(format!("not of the key {kid:?}")),
            Value::Null,
        ),
        (
            sign(&access()),
            vec!["--context", "policy=nonsense"],
            "the context extension policy",
            json!("nonsense"),
            json!(["admin", "fresh", "from", "members", "orders", "plan", "strong", "tenant", "trial"]),
        ),
        (sign(&access()), vec!["--path", "/x/../y"], "the path", json!("/x/../y"), Value::Null),
        (
            sign(&access().claim("cognito:groups", json!(["readers"]))),
            policy("admin").into(),
            "cognito:groups",
            json!(["readers"]),
            json!({"any": ["admins", "owners"]}),
        ),
        (sign(&access()), policy("trial").into(), "cognito:groups", Value::Null, json!({"any": ["admins"]})),
        (
            sign(&access().claim("scope", "orders/read")),
            policy("orders").into(),
            "scope",
            json!(["orders/read"]),
            json!({"any": ["orders/read"], "all": ["a/b"]}),
        ),
        (
            sign(&access().claim("custom:tenant", "acme")),
            vec!["--path", "/t/umbrella"],
            "custom:tenant",
            json!("acme"),
            json!({"equals": {"segment": "tenant", "value": "umbrella"}}),
        ),
        (
            sign(&access().claim("custom:plan", two)),
            policy("plan").into(),
            "custom:plan.name",
            json!("free"),
            json!({"any": ["pro", 5]}),
        ),
        (
            sign(&access().claim("amr", json!(["pwd"]))),
            policy("strong").into(),
            "amr",
            json!(["pwd"]),
            json!({"all": ["mfa"]}),
        ),
        (
            sign(&access().claim("username", "é".repeat(2_800))),
            vec![],
            "the identity headers",
            json!("too large"),
            json!("at most 16384 bytes together"),
        ),
    ];
    for (token, more, what, has, accepted) in cases {
        let because = stage.because(&token, &more);
        assert_eq!((&because["what"], &because["has"]), (&json!(what), &has), "{because:#}");
        if !accepted.is_null() {
            assert_eq!(because["accepted"], accepted, "{what}");
        }
        assert!(!because["accepted"].is_null(), "{because:#}");
    }
    // Times are shown with their distance from now.
    for (token, more, what, distance) in [
        (access().expires_in(-60), vec![], "exp", "s ago)"),
        (access().claim("nbf", now + 120), vec![], "nbf", "(in 1"),
        (access().claim("auth_time", now - 900), policy("fresh").into(), "auth_time", "s ago)"),
    ] {
        let because = stage.because(&sign(&token), &more);
        assert_eq!(because["what"], what);
        assert!(because["has"].as_str().unwrap().contains(distance), "{because:#}");
    }
    assert!(stage.because(&sign(&access()), &[]).is_null(), "nothing to explain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_says_because() {
    let stage = Stage::new().await;
    let token = sign(&TokenBuilder::access().claim("cognito:groups", json!(["readers"])));
    let text = stage.run(&token, &["--context", "policy=admin"]);
    let lines = "decision     deny (403)\n             The user is not in a group that may do this.\nbecause      cognito:groups is [\"readers\"]\naccepted     one of [\"admins\",\"owners\"]\n";
    assert!(text.contains(lines), "{text}");
    let text = stage.run(&sign(&TokenBuilder::access()), &["--context", "policy=trial"]);
    for line in ["decision     allow (200)\n", "enforced     deny (403): ", "because      cognito:groups is absent\n"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let member = sign(&TokenBuilder::access().claim("cognito:groups", json!(["admins"])));
    let text = stage.run(&member, &["--context", "policy=trial"]);
    assert!(text.contains("decision     allow (200)\nenforced     allow: the policy is in shadow mode"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_cannot_be_fetched_have_their_address_and_error() {
    let stage = Stage::new().await;
    stage.keys.answers(Reply::status(404));
    let because = stage.because(&sign(&TokenBuilder::access()), &[]);
    assert_eq!(because["what"], "the keys of the pool");
    assert_eq!(because["has"]["url"], json!([format!("{}/", stage.keys.url)]));
    assert_eq!(because["has"]["error"], "the response has status 404");
    let hint = because["hint"].as_str().unwrap();
    assert!(hint.starts_with("is this the address of the key set?"), "{hint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_has_its_time_and_cause() {
    use cognito_authz::metrics::Metrics;
    use cognito_authz::revocation::{Keep, Revocations, Settings};

    let stage = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revocations");
    let keep = Keep::File(path.clone());
    let settings = Settings { keep, capacity: 100, life: 86_400 };
    let revocations = Revocations::open(settings, Metrics::new().unwrap().revocation().unwrap()).unwrap();
    let before = unix_now();
    revocations.revoke_user(&POOL.parse().unwrap(), SUB, before).await.unwrap();
    drop(revocations);
    let file = ["--revocation-file", path.to_str().unwrap()];
    let token = sign(&TokenBuilder::access().claim("auth_time", before - 60));
    let because = stage.because(&token, &file);
    assert_eq!((&because["has"]["revoked_by"], &because["has"]["causes"]), (&json!("sub"), &json!(["operator"])));
    let at = because["has"]["at"].as_str().unwrap();
    let time = humantime::format_rfc3339_seconds(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(before.unsigned_abs()),
    );
    assert!(at.starts_with(&time.to_string()) && at.ends_with(" s ago)"), "{at}");
    let later = sign(&TokenBuilder::access().claim("auth_time", before + 60));
    assert!(stage.because(&later, &file).is_null());
}
