//! `/revocations`: revoke, list, lift, and every error.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Files, TOKEN, call, lift, list, revoke, send, sub, token_of};
use crate::support::client::{bearer, check, connect, get, metric, verdict};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{CLIENT, OTHER_ISSUER, OTHER_POOL, POOL, SUB, SigningKey, TokenBuilder, unix_now};

const REVOKED: (u16, &str) = (401, "revoked");
const ALLOWED: (u16, &str) = (200, "");

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_passes_again_after_the_lift() {
    let files = Files::new();
    let app = files.start(&[]);
    let channel = connect(&app.grpc[0]).await;
    let now = unix_now();
    let of = |(status, reason): &(u16, String)| {
        (
            *status,
            match &**reason {
                "" => "",
                "revoked" => "revoked",
                _ => "?",
            },
        )
    };
    let judged = async |token: &str| of(&verdict(&channel, token).await);
    for (kind, value) in [("sub", "ada"), ("origin_jti", "session-1"), ("jti", "token-1")] {
        let token = token_of("ada", "session-1", "token-1", now - 10);
        let other = token_of("bob", "session-2", "token-2", now - 10);
        assert_eq!(judged(&token).await, ALLOWED, "{kind}: and it is cached now");
        let made = revoke(&app.admin, json!({kind: value, "reason": "stolen"})).await;
        let id = made.id();
        assert_eq!((&made.body["kind"], &made.body["causes"]), (&json!(kind), &json!(["operator"])));
        assert_eq!(made.body["scope"], "replica");
        let until = made.body["until"].as_i64().unwrap();
        assert!((now + 86_430..now + 86_490).contains(&until), "the longest life and the leeway: {until}");
        assert_eq!(made.body["before"].is_i64(), kind == "sub", "{:?}", made.body);
        assert_eq!((judged(&token).await, judged(&other).await), (REVOKED, ALLOWED), "{kind}");
        let shown = list(&app.admin, &format!("?{kind}={value}")).await;
        assert_eq!((shown.id(), &shown.body["revocations"][0]["id"]), (id.clone(), &json!(id)));
        let lifted = lift(&app.admin, &id).await;
        assert_eq!((lifted.id(), lifted.body["scope"].as_str()), (id.clone(), Some("replica")));
        assert_eq!(judged(&token).await, ALLOWED, "{kind}: lifted");
        let shown = list(&app.admin, &format!("?{kind}={value}")).await;
        assert_eq!((shown.id(), &shown.body["revocations"]), (id.clone(), &json!([])));
        assert_eq!(lift(&app.admin, &id).await.verdict(), (404, "not_found"), "it is lifted already");
        assert_eq!(list(&app.admin, "").await.body["revocations"], json!([]));
        // Once more, after a lift.
        assert_eq!(revoke(&app.admin, json!({kind: value})).await.id(), id);
        assert_eq!(judged(&token).await, REVOKED, "{kind}: revoked again");
        lift(&app.admin, &id).await.id();
    }
    assert_eq!(metric(&app.admin, "revocation_writes_total{kind=\"sub\",result=\"success\"}").await, 4.0);
}

#[tokio::test]
async fn a_time_in_the_past_spares_later_sign_ins() {
    let files = Files::new();
    let app = files.start(&[]);
    let channel = connect(&app.grpc[0]).await;
    let now = unix_now();
    let times = [now - 3601, now - 3600, now - 3599, now];
    let tokens = times.map(|time| token_of(SUB, "s", "j", time));
    let made = revoke(&app.admin, json!({"sub": SUB, "before": now - 3600})).await;
    assert_eq!((made.status, &made.body["before"]), (200, &json!(now - 3600)));
    for (token, expected) in tokens.iter().zip([401, 401, 200, 200]) {
        assert_eq!(verdict(&channel, token).await.0, expected);
    }
    // An earlier time takes nothing back, a later one reaches further.
    assert_eq!(revoke(&app.admin, json!({"sub": SUB, "before": 7})).await.body["before"], json!(now - 3600));
    let later = humantime(now - 3599);
    assert_eq!(revoke(&app.admin, json!({"sub": SUB, "before": later})).await.body["before"], json!(now - 3599));
    for (token, expected) in tokens.iter().zip([401, 401, 401, 200]) {
        assert_eq!(verdict(&channel, token).await.0, expected);
    }
    assert_eq!(revoke(&app.admin, json!({"sub": SUB, "before": now + 59})).await.status, 200);
    let ahead = revoke(&app.admin, json!({"sub": SUB, "before": now + 3600})).await;
    assert_eq!(ahead.verdict(), (400, "invalid_request"));
}

/// RFC 3339 text of a time, with an offset.
fn humantime(time: i64) -> String {
    let seconds = std::time::Duration::from_secs(u64::try_from(time + 7200).unwrap());
    let text = ::humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + seconds).to_string();
    format!("{}+02:00", text.trim_end_matches('Z'))
}

#[tokio::test]
async fn a_list_has_pages() {
    let files = Files::new();
    let app = files.start(&[]);
    let mut made = BTreeSet::new();
    for number in 0..350 {
        made.insert(revoke(&app.admin, sub(&format!("user-{number}"))).await.id());
    }
    for (query, pages) in [("", 4), ("&limit=1000", 1), ("&limit=50", 8), ("&limit=349", 2)] {
        let mut next = String::new();
        let mut listed: Vec<String> = Vec::new();
        let mut count = 0;
        loop {
            let page = list(&app.admin, &format!("?{}{next}", query.trim_start_matches('&'))).await;
            let ids = page.body["revocations"].as_array().unwrap().iter();
            listed.extend(ids.map(|entry| entry["id"].as_str().unwrap().to_owned()));
            count += 1;
            let Some(after) = page.body["next"].as_str() else { break };
            next = format!("&after={after}");
        }
        assert_eq!(listed, made.iter().cloned().collect::<Vec<_>>(), "{query}: in order, none missing or twice");
        assert_eq!(count, pages, "{query}");
    }
    for bad in [
        "?limit=0",
        "?limit=1001",
        "?limit=x",
        "?limit=",
        "?limit=1&limit=1",
        "?after=x",
        "?until=1",
        "?sub=",
        "?sub=a&jti=b",
        "?sub=a&limit=1",
        "?sub=a&after=00",
        "?pool=default",
        "?sub=a&sub=a",
        "?sub=%00",
    ] {
        assert_eq!(list(&app.admin, bad).await.verdict(), (400, "invalid_request"), "{bad}");
    }
}

#[tokio::test]
async fn a_pool_is_named_by_its_name_or_id() {
    let files = Files::new();
    let file = PolicyFile::new(&format!(
        "pools:\n  partners: {{user_pool_id: {OTHER_POOL}, client_ids: {CLIENT}, jwks_file: {}}}\n",
        files.path("jwks")
    ));
    let app = files.start(&["--config", &file.path()]);
    let channel = connect(&app.grpc[0]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let partner = TokenBuilder::access().claim("iss", OTHER_ISSUER).sign(SigningKey::shared());
    let unnamed = revoke(&app.admin, sub(SUB)).await;
    assert_eq!(unnamed.verdict(), (400, "invalid_request"));
    let message = unnamed.body["message"].as_str().unwrap();
    assert!(message.contains("default, partners"), "{message}");
    assert_eq!(revoke(&app.admin, json!({"sub": SUB, "pool": "staff"})).await.verdict(), (400, "invalid_request"));
    assert_eq!(list(&app.admin, &format!("?sub={SUB}")).await.verdict(), (400, "invalid_request"));
    assert_eq!((verdict(&channel, &token).await.0, verdict(&channel, &partner).await.0), (200, 200));
    let by_name = revoke(&app.admin, json!({"sub": SUB, "pool": "partners"})).await.id();
    assert_eq!((verdict(&channel, &token).await.0, verdict(&channel, &partner).await.0), (200, 401));
    assert_eq!(list(&app.admin, &format!("?sub={SUB}&pool={OTHER_POOL}")).await.id(), by_name);
    let other = revoke(&app.admin, json!({"sub": SUB, "pool": POOL})).await.id();
    assert_ne!(by_name, other);
    assert_eq!(verdict(&channel, &token).await.0, 401);
}

#[tokio::test]
async fn each_error_has_its_status() {
    let files = Files::new();
    let app = files.start(&["--revocation-capacity", "1"]);
    let operator = format!("Bearer {TOKEN}");
    let token = ("authorization", &*operator);
    let json_type = ("content-type", "application/json");
    let good = sub("ada").to_string();
    let post = async |headers: &[(&str, &str)], body: &str| {
        send(&app.admin, Method::POST, "/revocations", headers, body.to_owned()).await
    };
    for (headers, body, expected) in [
        (&[token, json_type][..], "{\"sub\":\"a\",\"sub\":\"a\"}", (400, "invalid_request")),
        (&[token, json_type], "", (400, "invalid_request")),
        (&[token], &good, (415, "unsupported_media_type")),
        (&[token, ("content-type", "text/plain")], &good, (415, "unsupported_media_type")),
        (&[token, ("content-type", "application/x-www-form-urlencoded")], "sub=ada", (415, "unsupported_media_type")),
        (&[token, json_type, ("content-encoding", "gzip")], &good, (415, "unsupported_media_type")),
        (&[token, json_type], &format!("{good}{}", " ".repeat(16 * 1024)), (413, "too_large")),
        (&[json_type], &good, (401, "invalid_token")),
        (&[json_type, ("authorization", "Bearer wrong")], &good, (401, "invalid_token")),
        (&[json_type, ("authorization", "Basic b3BzOm9wcw==")], &good, (401, "invalid_token")),
        (&[json_type, token, token], &good, (401, "invalid_token")),
    ] {
        assert_eq!(post(headers, body).await.verdict(), expected, "{headers:?} {body:.80}");
    }
    for (method, path, allow) in [
        (Method::PUT, "/revocations", "GET, HEAD, POST"),
        (Method::DELETE, "/revocations", "GET, HEAD, POST"),
        (Method::OPTIONS, "/revocations", "GET, HEAD, POST"),
        (Method::GET, "/revocations/00000000000000000000000000000000", "DELETE"),
        (Method::POST, "/revocations/x", "DELETE"),
    ] {
        let reply = call(&app.admin, method, path, Value::Null).await;
        assert_eq!(reply.verdict(), (405, "method_not_allowed"), "{path}");
        assert_eq!(reply.headers["allow"], allow, "{path}");
    }
    for id in ["00000000000000000000000000000000", "x", "", "0/0", "%30"] {
        assert_eq!(lift(&app.admin, id).await.verdict(), (404, "not_found"), "{id}");
    }
    // A browser may read nothing, and may not send a token of its own (CORS).
    let preflight = [("origin", "https://evil.test"), ("access-control-request-method", "POST")];
    let reply = send(&app.admin, Method::OPTIONS, "/revocations", &preflight, "").await;
    assert_eq!((reply.status, reply.headers.get("access-control-allow-origin")), (401, None));
    // The other routes stay open and read-only.
    assert_eq!(get(&app.admin, "/livez").await.0, 200);
    assert_eq!(get(&app.admin, "/revocationsx").await.0, 404);
    assert_eq!(list(&app.admin, "").await.body, json!({"revocations": [], "next": null}), "nothing was recorded");
    // A full table.
    assert_eq!(revoke(&app.admin, sub("ada")).await.status, 200);
    let full = revoke(&app.admin, sub("bob")).await;
    assert_eq!(full.verdict(), (503, "revocations_full"));
    assert_eq!(revoke(&app.admin, sub("ada")).await.status, 200, "what is there can be changed");
    let channel = connect(&app.grpc[0]).await;
    let bob = token_of("bob", "s", "j", unix_now());
    assert_eq!(check(&channel, self::bearer(&bob)).await.unwrap().status, 200);
}

#[tokio::test]
async fn without_a_token_file_the_routes_are_closed() {
    let files = Files::new();
    let keys = files.path("jwks");
    let app = crate::support::service::TestApp::start(&["--jwks-url", "http://127.0.0.1:9/", "--jwks-file", &keys]);
    for (method, path) in [
        (Method::GET, "/revocations"),
        (Method::POST, "/revocations"),
        (Method::DELETE, "/revocations/00000000000000000000000000000000"),
    ] {
        let reply = call(&app.admin, method, path, Value::Null).await;
        assert_eq!(reply.verdict(), (403, "not_configured"), "even from loopback: {path}");
        let message = reply.body["message"].as_str().unwrap();
        assert!(message.contains("--admin-token-file") && message.contains("Authorization: Bearer"), "{message}");
    }
    let channel = connect(&app.grpc[0]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    assert_eq!(check(&channel, bearer(&token)).await.unwrap().status, 200);
}

#[test]
fn each_change_is_one_line_of_the_log_and_no_line_has_a_token() {
    let files = Files::new();
    let mut program = files.start_program(&["--log-level", "debug", "--log-format", "json"]);
    let admin = program.admin.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (id, lifted) = runtime.block_on(async {
        let user = json!({"sub": "ada@example.com", "before": 1000, "reason": "ticket 7: \"stolen\""});
        let id = revoke(&admin, user).await.id();
        let wrong = [("authorization", "Bearer wrong-token-that-must-not-be-logged")];
        assert_eq!(send(&admin, Method::GET, "/revocations", &wrong, "").await.status, 401);
        assert_eq!(revoke(&admin, json!({"jti": "x", "reason": "a\nb"})).await.status, 400);
        assert_eq!(lift(&admin, "00000000000000000000000000000000").await.status, 404);
        (id.clone(), lift(&admin, &id).await.id())
    });
    assert_eq!(id, lifted);
    program.signal("TERM");
    program.wait();
    let log: Vec<Value> = program.log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let audit: Vec<&Value> = log.iter().filter(|line| line["fields"]["event"] == "revocation").collect();
    assert_eq!(audit.len(), 2, "{audit:#?}");
    let revoked = &audit[0]["fields"];
    assert_eq!(audit[0]["level"], "INFO");
    for (name, value) in [
        ("action", json!("revoke")),
        ("kind", json!("sub")),
        ("id", json!(id)),
        ("pool", json!("default")),
        ("before", json!(1000)),
        ("reason", json!("ticket 7: \"stolen\"")),
        ("by", json!("admin-token")),
        ("credential", json!("token")),
        ("peer", json!("127.0.0.1")),
        ("result", json!("recorded")),
    ] {
        assert_eq!(revoked[name], value, "{name}");
    }
    assert_eq!((&audit[1]["fields"]["action"], &audit[1]["fields"]["id"]), (&json!("lift"), &json!(id)));
    let refused = log.iter().filter(|line| line["fields"]["event"] == "admin_token_refused").count();
    assert_eq!(refused, 1);
    let text = program.log.join("\n");
    for secret in [TOKEN, "wrong-token", "ada@example.com"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
