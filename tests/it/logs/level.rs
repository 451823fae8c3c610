//! `/log-level` of the admin port, and the command.

use reqwest::Method;
use serde_json::{Value, json};

use super::lines;
use crate::admin::{Files, TOKEN, call, send};
use crate::support::client::{connect, get, verdict};
use crate::support::service::{Program, run};
use crate::support::token::{SigningKey, TokenBuilder, unix_now};

const PATH: &str = "/log-level";
const CHANGED: &str = "the log level was changed by an operator";
const RETURNED: &str = "the log level is the configured one again";

async fn put(admin: &str, body: Value) -> (u16, Value) {
    let reply = call(admin, Method::PUT, PATH, body).await;
    (reply.status, reply.body)
}

/// Sends an allowed check, and a refused one. The line of the refused one ends the wait.
async fn checks(program: &mut Program) {
    let channel = connect(&program.grpc[0]).await;
    assert_eq!(verdict(&channel, &TokenBuilder::access().sign(SigningKey::shared())).await.0, 200);
    assert_eq!(verdict(&channel, "x").await.0, 401);
    program.wait_for_line("malformed_token");
}

/// Number of allowed checks in the log.
fn allowed(program: &Program) -> usize {
    lines(program, "check").iter().filter(|line| line["fields"]["decision"] == "allow").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_changes_the_level_for_a_while() {
    let files = Files::new();
    let mut program = files.start_program(&[]);
    let admin = program.admin.clone();
    let shown = call(&admin, Method::GET, PATH, Value::Null).await.body;
    assert_eq!(shown, json!({"level": "info", "configured": "info", "until": null}));
    checks(&mut program).await;
    assert_eq!(allowed(&program), 0);

    let (status, changed) = put(&admin, json!({"level": "debug"})).await;
    let until = changed["until"].as_i64().unwrap();
    assert_eq!((status, &changed["level"]), (200, &json!("debug")));
    assert!((unix_now() + 590..=unix_now() + 600).contains(&until), "ten minutes: {until}");
    let (_, config) = get(&admin, "/config").await;
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["log"], changed);
    assert_eq!(config["options"]["log-level"]["value"], "info", "the option is what it was");
    checks(&mut program).await;
    assert_eq!(allowed(&program), 1);

    // A shorter time replaces a longer one, and the configured level returns.
    assert_eq!(put(&admin, json!({"level": "trace", "for": "1s"})).await.0, 200);
    program.wait_for_line(RETURNED);
    let shown = call(&admin, Method::GET, PATH, Value::Null).await.body;
    assert_eq!(shown, json!({"level": "info", "configured": "info", "until": null}));
    checks(&mut program).await;
    assert_eq!(allowed(&program), 1);

    // A less verbose level, and back at once.
    assert_eq!(put(&admin, json!({"level": "error", "for": "1h"})).await.0, 200);
    let channel = connect(&program.grpc[0]).await;
    let refused = lines(&program, "check").len();
    assert_eq!(verdict(&channel, "x").await.0, 401);
    assert_eq!(call(&admin, Method::DELETE, PATH, Value::Null).await.body["level"], "info");
    program.wait_for_line(CHANGED);
    program.wait_for_line(CHANGED);
    assert_eq!(lines(&program, "check").len(), refused);
    let told: Vec<_> = lines(&program, CHANGED).iter().map(|line| line["fields"].clone()).collect();
    let levels: Vec<_> = told.iter().map(|told| [&told["before"], &told["level"]].map(Value::as_str)).collect();
    let expected = [("info", "debug"), ("debug", "trace"), ("info", "error"), ("error", "info")];
    assert_eq!(levels, expected.map(|(before, level)| [Some(before), Some(level)]));
    for told in told {
        let by = [&told["event"], &told["by"], &told["credential"], &told["peer"]];
        assert_eq!(by, ["log_level", "admin-token", "token", "127.0.0.1"]);
    }
    program.signal("TERM");
    program.wait();
    assert!(!program.log.join("\n").contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_may_see_or_change_the_level() {
    let files = Files::new();
    let program = files.start_program(&[]);
    let keys = files.path("jwks");
    let closed = Program::start(&["--jwks-url", "http://127.0.0.1:9/", "--jwks-file", &keys]);
    let json = ("content-type", "application/json");
    for (method, body) in [(Method::GET, ""), (Method::PUT, r#"{"level":"trace"}"#), (Method::DELETE, "")] {
        let reply = call(&closed.admin, method.clone(), PATH, Value::Null).await;
        assert_eq!(reply.verdict(), (403, "not_configured"), "{method}");
        let reply = send(&program.admin, method.clone(), PATH, &[json], body).await;
        assert_eq!(reply.verdict(), (401, "invalid_token"), "{method}");
        let wrong = ("authorization", "Bearer another-token-0123456");
        let reply = send(&program.admin, method.clone(), PATH, &[json, wrong], body).await;
        assert_eq!(reply.verdict(), (401, "invalid_token"), "{method}");
    }
    for (method, body, verdict) in [
        (Method::POST, json!({"level": "debug"}), (405, "method_not_allowed")),
        (Method::PUT, Value::Null, (400, "invalid_request")),
        (Method::PUT, json!({"level": "loud"}), (400, "invalid_request")),
        (Method::PUT, json!({"level": "debug", "for": "2h"}), (400, "invalid_request")),
        (Method::PUT, json!({"level": "debug", "more": 1}), (400, "invalid_request")),
        (Method::PUT, json!({"level": "x".repeat(20_000)}), (413, "too_large")),
    ] {
        assert_eq!(call(&program.admin, method, PATH, body.clone()).await.verdict(), verdict, "{body}");
    }
    let shown = call(&program.admin, Method::GET, PATH, Value::Null).await.body;
    assert_eq!(shown["level"], "info", "nothing has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_shows_and_changes_the_level() {
    let files = Files::new();
    let program = files.start_program(&[]);
    let (admin, token) = (format!("http://{}", program.admin), files.path("token"));
    let ask = |args: &[&str]| {
        let (code, stdout, stderr) =
            run(&[&["log-level"], args, &["--admin", &admin, "--admin-token-file", &token]].concat(), &[]);
        (code, if code == Some(0) { stdout } else { stderr })
    };
    assert_eq!(ask(&[]), (Some(0), "info\n".into()));
    let (code, changed) = ask(&["debug", "--for", "20m"]);
    assert_eq!(code, Some(0), "{changed}");
    assert!(changed.starts_with("debug until 20") && changed.ends_with("Z, then info\n"), "{changed}");
    assert_eq!(ask(&[]), (Some(0), changed));
    let (_, shown) = ask(&["--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!([&shown["level"], &shown["configured"]], ["debug", "info"]);
    assert_eq!(ask(&["--reset"]), (Some(0), "info\n".into()));
    for (args, why) in [
        (&["loud"][..], "loud"),
        (&["debug", "--for", "2h"], "not between 1s and 1h"),
        (&["--for", "10m"], "LEVEL"),
        (&["debug", "--reset"], "--reset"),
    ] {
        let (code, error) = ask(args);
        assert!(code == Some(64) && error.contains(why), "{args:?}: {error}");
    }
    let (code, _, error) = run(&["log-level", "--admin", &admin], &[]);
    assert!(code == Some(64) && error.contains("--admin-token-file"), "{error}");
}
