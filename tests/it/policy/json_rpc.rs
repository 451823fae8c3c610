//! Requirements for the JSON-RPC messages in the body (`json_rpc`).

use serde_json::{Value, json};

use super::{Stage, ours};
use crate::support::client::{Answer, Ask, metric};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{run, run_with_input};
use crate::support::token::{CLIENT, POOL, TokenBuilder, unix_now};

const FILE: &str = r"
default: members
policies:
  members: {}
  mcp:
    scopes: {all: [orders/read]}
    resource_metadata: https://mcp.example.com/.well-known/oauth-protected-resource/mcp
    cors_origins: ['https://inspector.example']
    headers: {x-gate: mcp}
    json_rpc:
      max_body: 1KiB
      calls:
      - {method: tools/call, name: [delete_order, refund], policy: mcp-write}
      - {method: tools/call, except: [get_order, delete_order, refund], policy: mcp-staff}
      - {method: tools/call, name: refund, policy: mcp-fresh}
      - {method: [resources/subscribe, resources/unsubscribe], policy: mcp-staff}
  mcp-write: {scopes: {all: [orders/read, orders/write]}, headers: {x-gate: write}}
  mcp-staff: {groups: {any: [staff]}}
  mcp-fresh: {max_auth_age: 5m}
  trial:
    mode: shadow
    json_rpc: {calls: [{method: tools/call, name: delete_order, policy: mcp-write}]}
  tenant: {claims: [{claim: 'custom:tenant', equals: {segment: tenant}}]}
  tenants: {json_rpc: {calls: [{method: tools/call, policy: tenant}]}}
routes:
- {path: /mcp, policy: mcp}
- {path: /trial, policy: trial}
- {path: '/t/{tenant}/mcp', policy: tenants}
";

fn call(tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {"id": 7}}})
}

/// A POST to `path` with this document and a token with these scopes and groups.
async fn post(stage: &Stage, path: &str, document: &Value, scopes: &str, groups: &[&str]) -> Answer {
    let token = TokenBuilder::access().claim("scope", scopes).claim("cognito:groups", json!(groups));
    let token = ours(token.claim("auth_time", unix_now() - 3600));
    stage.ask(Ask::new("POST", path).bearer(&token).body(document.to_string().as_bytes())).await
}

#[tokio::test]
async fn calls_need_the_requirements_of_their_policies() {
    let stage = Stage::new(FILE).await;
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let subscribe = json!({"jsonrpc": "2.0", "id": 3, "method": "resources/subscribe", "params": {"uri": "x"}});
    let response = json!({"jsonrpc": "2.0", "id": 3, "result": {}});
    let read = "orders/read";
    let write = "orders/read orders/write";
    for (document, scopes, groups, verdict, policy, requirement) in [
        (call("get_order"), read, &[][..], (200, ""), "mcp", ""),
        (list.clone(), read, &[], (200, ""), "mcp", ""),
        (response.clone(), read, &[], (200, ""), "mcp", ""),
        (json!([list, response, call("get_order")]), read, &[], (200, ""), "mcp", ""),
        // The requirements of the policy itself come first.
        (call("delete_order"), "openid", &[], (403, "insufficient_scope"), "mcp", "scopes"),
        (json!([]), "openid", &[], (403, "insufficient_scope"), "mcp", "scopes"),
        (call("delete_order"), read, &[], (403, "insufficient_scope"), "mcp-write", "scopes"),
        (call("delete_order"), write, &[], (200, ""), "mcp", ""),
        // A tool that the file does not know.
        (call("drop_table"), write, &[], (403, "insufficient_group"), "mcp-staff", "groups"),
        (call("drop_table"), read, &["staff"], (200, ""), "mcp", ""),
        (subscribe.clone(), write, &[], (403, "insufficient_group"), "mcp-staff", "groups"),
        // Two calls match.
        (call("refund"), read, &["staff"], (403, "insufficient_scope"), "mcp-write", "scopes"),
        (call("refund"), write, &[], (401, "auth_too_old"), "mcp-fresh", "max_auth_age"),
        // One message of a batch is refused.
        (
            json!([list, call("delete_order"), call("get_order")]),
            read,
            &[],
            (403, "insufficient_scope"),
            "mcp-write",
            "scopes",
        ),
        (json!([list, subscribe, call("delete_order")]), read, &[], (403, "insufficient_group"), "mcp-staff", "groups"),
        (json!([list, subscribe, call("delete_order")]), write, &["staff"], (200, ""), "mcp", ""),
    ] {
        let answer = post(&stage, "/mcp", &document, scopes, groups).await;
        assert_eq!(
            (answer.verdict(), answer.text("policy"), answer.text("requirement")),
            (verdict, policy, requirement),
            "{document}"
        );
        if answer.status == 200 {
            assert_eq!(answer.values("x-gate"), ["mcp"], "the headers are those of the policy of the request");
        }
    }
    assert!(stage.counted("deny", "mcp-write", "default", "insufficient_scope").await >= 3.0);
}

#[tokio::test]
async fn the_challenge_names_what_the_whole_request_needs() {
    let stage = Stage::new(FILE).await;
    let challenge = async |tool: &str, scopes: &str| {
        let answer = post(&stage, "/mcp", &call(tool), scopes, &[]).await;
        answer.headers["www-authenticate"].clone()
    };
    let metadata = r#"resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp""#;
    let scope = challenge("delete_order", "orders/read").await;
    assert!(
        scope.contains(r#"error="insufficient_scope""#) && scope.contains(r#"scope="orders/read orders/write""#),
        "{scope}"
    );
    assert!(scope.ends_with(metadata), "{scope}");
    let age = challenge("refund", "orders/read orders/write").await;
    assert!(age.contains(r#"max_age="300""#) && age.ends_with(metadata), "{age}");
    let own = challenge("delete_order", "openid").await;
    assert!(own.contains(r#"scope="orders/read""#), "{own}");
    let token = ours(TokenBuilder::access().claim("scope", "orders/read"));
    let ask = Ask::new("POST", "/mcp").bearer(&token).header("origin", "https://inspector.example");
    let answer = stage.ask(ask.body(call("delete_order").to_string().as_bytes())).await;
    assert_eq!(answer.headers["access-control-allow-origin"], "https://inspector.example");
}

#[tokio::test]
async fn a_body_that_is_not_known_for_certain_is_refused() {
    let stage = Stage::new(FILE).await;
    let token = ours(TokenBuilder::access().claim("scope", "orders/read"));
    let ask = |method: &str| Ask::new(method, "/mcp").bearer(&token);
    let list = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let long = [list, &[b' '; 1024][..]].concat();
    for (ask, requirement) in [
        (ask("POST"), "json_rpc.missing"),
        (ask("POST").body(b""), "json_rpc.missing"),
        (ask("GET").header("content-length", "9"), "json_rpc.missing"),
        (ask("POST").text_body(std::str::from_utf8(list).unwrap()), "json_rpc.as_text"),
        (ask("POST").text_body("x").body(list), "json_rpc.as_text"),
        (ask("POST").body(list).header("x-envoy-auth-partial-body", "true"), "json_rpc.partial"),
        (ask("POST").body(list).header("content-length", "9"), "json_rpc.partial"),
        (ask("POST").body(&long), "json_rpc.max_body"),
        (ask("POST").body(list).header("upgrade", "websocket"), "json_rpc.upgrade"),
        (ask("POST").body(list).header("content-type", "text/plain"), "json_rpc.content_type"),
        (ask("POST").body(list).header("content-encoding", "gzip"), "json_rpc.content_encoding"),
        (ask("POST").body(b"{}"), "json_rpc.message"),
        (ask("DELETE").body(br#"{"method":"a","method":"b"}"#), "json_rpc.message"),
        (ask("POST").body(b"[]"), "json_rpc.batch"),
        (ask("POST").body(br#"{"method":"tools/call","params":{"name":1}}"#), "json_rpc.name"),
    ] {
        let answer = stage.ask(ask).await;
        assert_eq!(answer.verdict(), (403, "no_http_request"), "{requirement}");
        assert_eq!((answer.text("policy"), answer.text("requirement")), ("mcp", requirement));
        assert_eq!(answer.values("www-authenticate"), <[&str; 0]>::default());
    }
    for ask in [ask("GET"), ask("DELETE"), ask("POST").body(list), ask("GET").header("accept", "text/event-stream")] {
        assert_eq!(stage.ask(ask).await.verdict(), (200, ""));
    }
    // Without a sufficient token, the body is not read.
    let answer = stage.ask(Ask::new("POST", "/mcp").body(b"{}")).await;
    assert_eq!(answer.verdict(), (401, "missing_credential"));
    // The body has no effect on other policies.
    let answer = stage.ask(Ask::new("POST", "/").bearer(&token).body(b"{")).await;
    assert_eq!(answer.verdict(), (200, ""));
    assert_eq!(stage.counted("deny", "mcp", "default", "no_http_request").await, 15.0);
}

#[tokio::test]
async fn the_mode_of_the_policy_applies_to_its_calls() {
    let stage = Stage::new(FILE).await;
    let answer = post(&stage, "/trial", &call("delete_order"), "openid", &[]).await;
    assert_eq!((answer.verdict(), answer.text("decision")), ((200, ""), "allow"));
    assert_eq!(answer.text("shadow_reason"), "insufficient_scope");
    assert!(answer.headers.contains_key("x-auth-sub"), "the token was verified");
    let series = "shadow_denials_total{policy=\"mcp-write\",pool=\"default\",reason=\"insufficient_scope\"}";
    assert_eq!(metric(&stage.app.admin, series).await, 1.0);
    // What is not known is never forwarded.
    let answer = post(&stage, "/trial", &json!({}), "openid", &[]).await;
    assert_eq!((answer.verdict(), answer.text("policy")), ((403, "no_http_request"), "trial"));
}

#[tokio::test]
async fn calls_can_depend_on_segments_of_the_path() {
    let stage = Stage::new(FILE).await;
    let token = ours(TokenBuilder::access().claim("custom:tenant", "acme"));
    for (path, verdict) in [("/t/acme/mcp", (200, "")), ("/t/other/mcp", (403, "claim_mismatch"))] {
        let ask = Ask::new("POST", path).bearer(&token).body(call("x").to_string().as_bytes());
        assert_eq!(stage.ask(ask).await.verdict(), verdict, "{path}");
    }
}

/// Flags that make the commands read this file.
fn flags(path: &str) -> [&str; 6] {
    ["--user-pool-id", POOL, "--client-id", CLIENT, "--config", path]
}

#[test]
fn faults_are_reported_with_their_place() {
    let file = PolicyFile::new("");
    let path = file.path();
    for (from, to, said) in [
        (
            "name: refund, policy: mcp-fresh",
            "name: refund, policy: mcp-old",
            "policies.mcp.json_rpc.calls[2].policy: there is no policy mcp-old at line",
        ),
        (
            "mcp-staff: {groups: {any: [staff]}}",
            "mcp-staff: {public: true}",
            "the policy mcp-staff is public or optional, so it has no requirements for a call",
        ),
        (
            "mcp-staff: {groups: {any: [staff]}}",
            "mcp-staff: {optional: true}",
            "calls[1].policy: the policy mcp-staff is public or optional",
        ),
        ("name: refund, policy: mcp-fresh", "name: refund, policy: trial", "the policy trial has `json_rpc` itself"),
        ("name: refund, policy: mcp-fresh", "name: refund, policy: mcp", "the policy mcp has `json_rpc` itself"),
        (
            "mcp-fresh: {max",
            "mcp-fresh: {mode: shadow, max",
            "the policy mcp-fresh is in shadow mode, but calls have the mode of the policy mcp;",
        ),
        ("except: [get_order,", "name: x, except: [get_order,", "calls[1].except: conflicts with `name`"),
        ("max_body: 1KiB", "max_body: 2MiB", "\"2MiB\" is not between 1 byte and 1MiB"),
        ("max_body: 1KiB", "max_body: 0", "json_rpc.max_body"),
        ("max_body: 1KiB", "max_body: 64kb", "is not a number of bytes such as 65536, 64KiB or 16MiB"),
        ("scopes: {all: [orders/read]}\n", "optional: true\n", "policies.mcp.json_rpc: a public or optional policy"),
        ("json_rpc: {calls: [{method: tools/call, policy: tenant}]}", "json_rpc: {}", "the member `calls` is missing"),
        ("[{method: tools/call, policy: tenant}]", "[]", "the list is empty"),
        ("{method: tools/call, policy: tenant}", "{policy: tenant}", "the member `method` is missing"),
        (
            "{method: tools/call, policy: tenant}",
            "{method: 'a\tb', policy: tenant}",
            "not a text without control characters",
        ),
        (
            "{method: tools/call, policy: tenant}",
            "{method: a, params: b, policy: tenant}",
            "json_rpc.calls[0].params: unknown member at line",
        ),
        (
            "'/t/{tenant}/mcp'",
            "/t/mcp",
            "the policy tenants compares with the segment {tenant}, which this path does not have",
        ),
        ("default: members", "default: tenants", "compares with the segment {tenant}"),
    ] {
        let text = FILE.replacen(from, to, 1);
        assert_ne!(text, FILE, "{from}");
        file.write(&text);
        let (code, _, stderr) = run(&[&["check-config"][..], &flags(&path)].concat(), &[]);
        assert_eq!(code, Some(64), "{to}: {stderr}");
        assert!(stderr.contains(said), "{said} is not in {stderr}");
    }
    file.write(FILE);
    let (code, _, stderr) = run(&[&["check-config"][..], &flags(&path)].concat(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn the_commands_read_a_body() {
    let file = PolicyFile::new(FILE);
    let path = file.path();
    let table = tempfile::NamedTempFile::new().unwrap();
    let rows = r#"
tests:
- name: a tool that changes something, as a value
  request: {method: POST, path: /mcp, body: {method: tools/call, params: {name: delete_order}}}
  token: {scope: orders/read}
  expect: {decision: deny, reason: insufficient_scope, policy: mcp-write, requirement: scopes}
- name: the same as text
  request: {method: POST, path: /mcp, body: '{"method":"tools/call","params":{"name":"delete_order"}}'}
  token: {scope: orders/read orders/write}
  expect: {decision: allow, policy: mcp}
- name: a batch
  request: {method: POST, path: /mcp, body: [{method: tools/list}, {method: resources/subscribe}]}
  token: {scope: orders/read}
  expect: {decision: deny, reason: insufficient_group, policy: mcp-staff}
- name: another media type
  request: {method: POST, path: /mcp, headers: {content-type: text/plain}, body: {method: tools/list}}
  token: {scope: orders/read}
  expect: {decision: deny, reason: no_http_request, requirement: json_rpc.content_type}
- name: no body
  request: {method: POST, path: /mcp}
  token: {scope: orders/read}
  expect: {decision: deny, reason: no_http_request, requirement: json_rpc.missing}
"#;
    std::fs::write(table.path(), rows).unwrap();
    let (code, stdout, stderr) =
        run(&[&["test-policy", table.path().to_str().unwrap()][..], &flags(&path)].concat(), &[]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    assert!(stdout.ends_with("5 passed, 0 failed\n"), "{stdout}");

    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), call("delete_order").to_string()).unwrap();
    let request = ["--method", "POST", "--path", "/trial", "--body", body.path().to_str().unwrap(), "--json"];
    // No key can be fetched from here, so the check ends before the body.
    let command = [&["explain", "--jwks-url", "http://127.0.0.1:9/"][..], &flags(&path), &request].concat();
    let (code, stdout, stderr) = run_with_input(&command, b"");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    assert_eq!(
        (code, &report["policy"], &report["enforced"]["reason"]),
        (Some(0), &json!("trial"), &json!("missing_credential"))
    );
    let (code, _, stderr) = run_with_input(&[&command[..command.len() - 2], &["/nonexistent"]].concat(), b"");
    assert!(code == Some(64) && stderr.contains("--body: /nonexistent"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_the_call_that_is_refused() {
    let stage = Stage::new(FILE).await;
    let token = ours(TokenBuilder::access().claim("scope", "orders/read"));
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), json!([call("get_order"), call("delete_order")]).to_string()).unwrap();
    let path = stage.file.path();
    let request = ["--method", "POST", "--path", "/mcp", "--body", body.path().to_str().unwrap()];
    let command = [&["explain", "--jwks-url", &stage.keys.url][..], &flags(&path), &request].concat();
    let (code, stdout, stderr) = run_with_input(&command, token.as_bytes());
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    for line in [
        "route        passed (policy mcp-write, by json_rpc.calls[0] of the policy mcp, by routes[0]: * * /mcp)\n",
        "policy       failed: insufficient_scope (scopes)\n",
        "scope=\"orders/read orders/write\"",
    ] {
        assert!(stdout.contains(line), "{line} is not in\n{stdout}");
    }
}
