//! The status page and its JSON: what they show, what they never show, and who may read them.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Files, TOKEN, send};
use crate::support::client::{Ask, connect, get};
use crate::support::http1;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{Program, TestApp};
use crate::support::token::{SUB, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

const POLICIES: &str = "
default: members
policies:
  members: {}
  billing: {scopes: {all: [billing/write]}, groups: {any: [accountants]}}
  tried: {mode: shadow, groups: {any: [accountants]}}
routes:
- {path: '/accounts/{id}/bills', method: [GET, POST], policy: billing}
- {path_prefix: /tried, policy: tried}
";

async fn status(admin: &str) -> Value {
    let (status, body) = get(admin, "/status").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Members of the entries of a list.
fn column<'v>(list: &'v Value, member: &str) -> Vec<&'v Value> {
    list.as_array().unwrap().iter().map(|entry| &entry[member]).collect()
}

#[tokio::test]
async fn the_status_says_who_is_refused_and_why() {
    let (file, keys) = (PolicyFile::new(POLICIES), JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await);
    let app = TestApp::start(&["--config", &file.path(), "--jwks-url", &keys.url]);
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    let channel = connect(&app.grpc[0]).await;
    let empty = status(&app.admin).await;
    assert_eq!(
        (&empty["ready"], &empty["findings"], &empty["refusals"]["newest"]),
        (&json!(true), &json!([]), &json!([]))
    );
    assert_eq!(column(&empty["windows"], "seconds"), [60, 300, 3600]);
    assert_eq!(column(&empty["windows"], "checks"), [0, 0, 0]);

    let token = TokenBuilder::access().claim("email", "ada@example.test").sign(SigningKey::shared());
    let forged = TokenBuilder::access().header("kid", "chosen-by-the-client").sign(SigningKey::other());
    let id = "5a1c1c1e-0000-4000-8000-00000000000a";
    for (ask, expected) in [
        (Ask::get("/orders").bearer(&token), (200, "")),
        (Ask::get("/orders?secret=query-text"), (401, "missing_credential")),
        (
            Ask::get("/accounts/of-a-customer/bills").bearer(&token).header("x-request-id", id),
            (403, "insufficient_scope"),
        ),
        (Ask::get("/tried/thing").bearer(&token), (200, "")),
        (Ask::get("/orders").bearer(&forged).header("x-request-id", "<b>not an id</b>"), (401, "unknown_kid")),
    ] {
        assert_eq!(ask.of(&channel).await.verdict(), expected);
    }
    let text = get(&app.admin, "/status").await.1;
    let shown: Value = serde_json::from_str(&text).unwrap();
    for (number, window) in shown["windows"].as_array().unwrap().iter().enumerate() {
        let counts = [&window["checks"], &window["allowed"]["count"], &window["denied"], &window["errors"]];
        assert_eq!(counts, [5, 2, 3, 0], "{number}");
        assert_eq!(window["would_be_refused"], 1);
        let mut reasons = column(&window["reasons"], "reason");
        reasons.sort_by_key(ToString::to_string);
        assert_eq!(reasons, ["insufficient_scope", "missing_credential", "unknown_kid"]);
        let steps = |list: &Value| list.as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).sum::<u64>();
        assert_eq!(steps(&window["allowed"]["steps"]), 2);
        assert_eq!(window["lengths"].as_array().unwrap().len(), window["allowed"]["steps"].as_array().unwrap().len());
        assert!(window["duration"]["p99"].as_f64().unwrap() > 0.0);
    }
    let refusals = &shown["refusals"]["newest"];
    assert_eq!(
        column(refusals, "reason"),
        ["unknown_kid", "insufficient_group", "insufficient_scope", "missing_credential"]
    );
    assert_eq!(column(refusals, "shadow"), [false, true, false, false]);
    assert_eq!(column(refusals, "policy"), ["members", "tried", "billing", "members"]);
    assert_eq!(column(refusals, "status"), [401, 403, 403, 401]);
    let route = json!("GET,POST * /accounts/{id}/bills");
    assert_eq!(column(refusals, "route")[2..], [&route, &Value::Null]);
    assert_eq!(column(refusals, "requirement"), [&Value::Null, &json!("groups"), &json!("scopes"), &Value::Null]);
    // A refusal without an id gets one of ours; what a policy in shadow mode would refuse is a pass, which has none.
    let ids = column(refusals, "request_id");
    assert_eq!(ids[1..3], [&Value::Null, &json!(id)]);
    assert!(ids[0].is_string() && ids[3].is_string() && ids[0] != ids[3], "{ids:?}");
    let pool = &shown["pools"][0];
    assert_eq!((&pool["keys"][0]["kid"], &pool["key_count"]), (&json!("c2hhcmVk+/="), &json!(1)));
    assert!(pool["age"].as_f64().unwrap() < 20.0 && pool["fetches"]["success"].as_f64() >= Some(1.0), "{pool}");
    assert_eq!(shown["configuration"]["policy_file"], file.path());
    assert_eq!(shown["revocation"]["kept_in"], "memory");
    assert_eq!(shown["cache"]["entries"], 1.0);
    let notices: Vec<_> = column(&shown["findings"], "area");
    assert_eq!(notices, ["refused"], "shadow mode: {}", shown["findings"]);
    // Neither identities, nor tokens, nor anything else that a client has chosen.
    for client in [SUB, "ada@", &token, &forged, "chosen-by", "of-a-customer", "query-text", "not an id", "api.test"] {
        assert!(!text.contains(client), "{client} is shown");
    }
}

#[tokio::test]
async fn only_operators_read_the_status_if_there_is_a_token() {
    const NEXT: &str = "Bearer the-next-token-of-the-operators";
    let files = Files::new();
    let app = files.start(&[]);
    let bearer = format!("Bearer {TOKEN}");
    let shown = send(&app.admin, Method::GET, "/status", &[("authorization", &bearer)], "").await;
    assert_eq!((shown.status, &shown.body["ready"]), (200, &json!(true)));
    assert_eq!(shown.headers["x-content-type-options"], "nosniff");
    assert_eq!(shown.headers["cross-origin-resource-policy"], "same-origin");
    assert!(!shown.headers.contains_key("access-control-allow-origin"));
    for headers in
        [&[][..], &[("authorization", "Bearer not-the-token-of-operators")], &[("authorization", "Basic dTpw")]]
    {
        let refused = send(&app.admin, Method::GET, "/status", headers, "").await;
        assert_eq!(refused.verdict(), (401, "invalid_token"), "{headers:?}");
        // A browser that got another challenge would ask for a password, and send it to this origin ever after.
        assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "), "{headers:?}");
    }
    for path in ["/", "/status"] {
        let refused = http1::send(&app.admin, "POST", path, &[format!("authorization: {bearer}")]).await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    // The token of the operators changes with its file for all routes.
    files.replace_token(&NEXT["Bearer ".len()..]);
    let accepts = async || send(&app.admin, Method::GET, "/status", &[("authorization", NEXT)], "").await.status == 200;
    eventually("the new token", PATIENCE, accepts).await;
}

#[tokio::test]
async fn the_page_is_the_same_for_everybody_and_may_load_nothing() {
    let files = Files::new();
    let app = files.start(&[]);
    let page = http1::fetch::<&str>(&app.admin, "/", &[]).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    let again = http1::fetch(&app.admin, "/", &[format!("authorization: Bearer {TOKEN}")]).await;
    assert_eq!(page.body, again.body);
    assert_eq!(http1::fetch::<&str>(&app.admin, "/index.html", &[]).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hash_is_of_the_configuration_in_effect_and_the_last_reload_has_its_error() {
    let files = Files::new();
    let file = PolicyFile::new(POLICIES);
    let flags = ["--jwks-file", &files.path("jwks"), "--jwks-url", "http://127.0.0.1:9/", "--config", &file.path()];
    let (program, twin) = (Program::start(&flags), Program::start(&flags));
    let configuration = async |program: &Program| status(&program.admin).await["configuration"].take();
    let first = configuration(&program).await;
    let hash = |configuration: &Value| configuration["hash"].as_str().unwrap().to_owned();
    assert_eq!((hash(&first).len(), &first["last_reload"]), (64, &Value::Null));
    assert_eq!(hash(&configuration(&twin).await), hash(&first), "the same configuration");

    file.replace(&POLICIES.replace("members: {}", "members: {gruops: 1}"));
    program.signal("HUP");
    let failed = async || configuration(&program).await["last_reload"]["succeeded"] == json!(false);
    eventually("the failed reload", PATIENCE, failed).await;
    let shown = status(&program.admin).await;
    assert_eq!(hash(&shown["configuration"]), hash(&first), "the previous file is in effect");
    let error = shown["configuration"]["errors"]["policy_file"].as_str().unwrap();
    assert!(error.contains("gruops"), "{error}");
    assert!(column(&shown["findings"], "see").contains(&&json!("docs/alerts.md#cognitoauthzpolicynotreloaded")));

    file.replace(&format!("{POLICIES}case_insensitive: true\n"));
    program.signal("HUP");
    let succeeded = async || configuration(&program).await["last_reload"]["succeeded"] == json!(true);
    eventually("the reload", PATIENCE, succeeded).await;
    let last = configuration(&program).await;
    assert!(hash(&last) != hash(&first) && last["errors"]["policy_file"].is_null(), "{last}");
}

#[tokio::test]
async fn a_pool_without_keys_is_the_first_finding() {
    let keys = JwksServer::start(Reply::status(404)).await;
    let app = TestApp::start(&["--jwks-url", &keys.url]);
    let channel = connect(&app.grpc[0]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    assert_eq!(Ask::get("/").bearer(&token).of(&channel).await.verdict(), (503, "keys_unavailable"));
    eventually("a failed fetch", PATIENCE, async || {
        status(&app.admin).await["pools"][0]["fetches"]["status"].is_number()
    })
    .await;
    let shown = status(&app.admin).await;
    assert_eq!((&shown["ready"], &shown["findings"][0]["severity"]), (&json!(false), &json!("critical")));
    let areas = column(&shown["findings"], "area");
    assert!(["up", "cognito", "refused"].iter().all(|area| areas.contains(&&json!(area))), "{areas:?}");
    assert_eq!((&shown["pools"][0]["key_count"], &shown["pools"][0]["age"]), (&json!(0), &Value::Null));
}
