//! The token of the operators: limits on wrong ones, and changes of its file.

use std::time::Instant;

use reqwest::Method;
use serde_json::json;

use super::{Files, TOKEN, list, revoke, send, sub};
use crate::support::http1::send_from;
use crate::support::service::run;
use crate::support::token::{CLIENT, POOL};
use crate::support::{PATIENCE, eventually};

async fn show(admin: &str, token: &str) -> u16 {
    send(admin, Method::GET, "/revocations", &[("authorization", &format!("Bearer {token}"))], "").await.status
}

#[tokio::test]
async fn wrong_tokens_are_limited_without_locking_out_the_operator() {
    let files = Files::new();
    let app = files.start(&[]);
    let mut statuses = Vec::new();
    for number in 0..20 {
        statuses.push(show(&app.admin, &format!("wrong-token-number-{number}")).await);
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert!(statuses[11..].iter().all(|status| *status == 429), "{statuses:?}");
    // The operator has the same address as the attacker, who goes on.
    let flood: Vec<_> = (0..20)
        .map(|_| {
            let admin = app.admin.clone();
            tokio::spawn(async move {
                loop {
                    show(&admin, "wrong-token-of-the-flood").await;
                }
            })
        })
        .collect();
    let start = Instant::now();
    assert_eq!(revoke(&app.admin, sub("ada")).await.status, 200);
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    // Another address is not limited.
    for (token, status) in [("wrong-token-from-elsewhere", 401), (TOKEN, 200)] {
        let line = format!("authorization: Bearer {token}");
        assert_eq!(send_from("127.0.0.2", &app.admin, "GET", "/revocations", &[line]).await.status, status);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_takes_effect_and_a_broken_one_does_not() {
    const NEXT: &str = "the-next-token-of-the-operators";
    let files = Files::new();
    let mut program = files.start_program(&["--log-format", "json"]);
    let admin = program.admin.clone();
    assert_eq!(list(&admin, "").await.status, 200);
    files.replace_token("too-short");
    let line = program.wait_for_line("was not read again");
    assert!(line.contains("16 visible ASCII characters") && !line.contains("too-short"), "{line}");
    assert_eq!(show(&admin, TOKEN).await, 200, "the previous token stays valid");
    files.replace_token(NEXT);
    eventually("the new token", PATIENCE, async || show(&admin, NEXT).await == 200).await;
    // 429 if the attempts before have met the limit.
    assert!(matches!(show(&admin, TOKEN).await, 401 | 429), "the old token is not valid any more");
}

#[test]
fn a_bad_file_is_an_error_at_the_start() {
    let files = Files::new();
    let start = |path: &str| {
        let flags = ["--user-pool-id", POOL, "--client-id", CLIENT, "--admin-token-file", path];
        let (code, _, stderr) = run(&flags, &[]);
        assert_eq!(code, Some(64), "{stderr}");
        assert!(stderr.contains("--admin-token-file: ") && stderr.contains("(from the flag)"), "{stderr}");
        stderr
    };
    for content in ["", "short", "two words that are long enough", "non-ascii-\u{e9}-long-enough"] {
        files.replace_token(content);
        let error = start(&files.path("token"));
        assert!(error.contains("at least 16 visible ASCII characters"), "{error}");
        assert!(content.is_empty() || !error.contains(content), "{error}");
    }
    assert!(start(&files.path("missing")).contains("cannot be read"));
    // explain and test-policy need no token.
    let cases = files.path("cases");
    std::fs::write(&cases, json!({"tests": []}).to_string()).unwrap();
    let environment = [("COGNITO_AUTHZ_ADMIN_TOKEN_FILE", &*files.path("missing"))];
    let (_, _, stderr) = run(&["test-policy", "--user-pool-id", POOL, "--client-id", CLIENT, &cases], &environment);
    assert!(!stderr.contains("admin-token"), "{stderr}");
}
