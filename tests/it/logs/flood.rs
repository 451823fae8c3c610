//! Floods of requests at the running program.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{LEFT_OUT, left_out, lines};
use crate::account::QUICK;
use crate::support::account::AccountClient;
use crate::support::client::{connect, get, metric, verdict};
use crate::support::policy_file::PolicyFile;
use crate::support::service::Program;
use crate::support::token::{SigningKey, TokenBuilder, jwks};

/// Lines per second in these tests.
const CAP: u64 = 20;

/// Reads the log until the lines that were written and those that it tells about are `expected`.
fn wait_until(program: &mut Program, field: &str, expected: u64, written: impl Fn(&Program) -> u64) {
    while left_out(program, field) + written(program) != expected {
        program.wait_for_line("");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bad_tokens_is_no_flood_of_lines() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), jwks(&[SigningKey::shared()])).unwrap();
    let file = PolicyFile::new("default: members\npolicies: {members: {}}\n");
    let path = file.path();
    let flags = ["--jwks-file", keys.path().to_str().unwrap(), "--config", &path, "--account-api=false"];
    let more = ["--jwks-url", "http://127.0.0.1:9/", "--log-level", "debug", "--log-lines-per-second", "20"];
    let mut program = Program::start(&[&flags[..], &more].concat());
    let channel = connect(&program.grpc[0]).await;
    let (good, rounds) = (TokenBuilder::access().sign(SigningKey::shared()), 600);
    for number in 0..rounds {
        assert_eq!(verdict(&channel, &format!("bad.{number}.token")).await.0, 401);
        if number % 10 == 0 {
            assert_eq!(verdict(&channel, &good).await.0, 200);
        }
        if number == rounds / 2 {
            // In the middle of the flood, and while its cap is reached.
            file.replace("default: members\npolicies: {members: {}, other: {}}\n");
            program.signal("HUP");
        }
    }
    program.wait_for_line("the policy file has been reloaded");
    let written = |program: &Program, level: &str| {
        lines(program, "check").iter().filter(|line| line["level"] == level).count() as u64
    };
    wait_until(&mut program, "info", rounds, |program| written(program, "INFO"));
    wait_until(&mut program, "debug", rounds / 10, |program| written(program, "DEBUG"));
    assert_eq!(left_out(&program, "check"), left_out(&program, "info") + left_out(&program, "debug"));
    assert_eq!(left_out(&program, "rate"), left_out(&program, "check"));

    // At most the cap in each second, and one line about the rest.
    let told = lines(&program, LEFT_OUT);
    assert!(told.iter().all(|line| line["fields"]["info"].is_null() || line["level"] == "INFO"), "{told:#?}");
    let seconds = |lines: &[Value], level: &str| {
        let mut seconds = BTreeMap::<String, u64>::new();
        for line in lines.iter().filter(|line| line["level"] == level) {
            *seconds.entry(line["timestamp"].as_str().unwrap()[..19].to_owned()).or_default() += 1;
        }
        seconds
    };
    // The seconds of the log do not begin with those of the clock, so two of them can meet in one of the clock.
    let (checks, told) = (seconds(&lines(&program, "check"), "INFO"), seconds(&told, "INFO"));
    assert!(checks.values().all(|count| *count <= 2 * CAP), "{checks:?}");
    assert!(!told.is_empty() && told.values().all(|count| *count <= 2), "{told:?}");
    let dropped = metric(&program.admin, "log_lines_dropped_total{cause=\"rate\"}").await;
    assert_eq!(dropped.to_string(), left_out(&program, "rate").to_string());
    assert!(get(&program.admin, "/metrics").await.1.contains("log_lines_dropped_total{cause=\"queue\"} 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_account_requests_have_a_cap_of_their_own_and_allowed_checks_a_sample() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), jwks(&[SigningKey::shared()])).unwrap();
    let flags = ["--jwks-file", keys.path().to_str().unwrap(), "--jwks-url", "http://127.0.0.1:9/"];
    let more = ["--log-level", "debug", "--log-lines-per-second", "20", "--log-allowed-ratio", "0"];
    let mut program = Program::start(&[&flags[..], &more, &QUICK].concat());
    let client = AccountClient::new(&program.admin);
    let channel = connect(&program.grpc[0]).await;
    let (good, rounds) = (TokenBuilder::access().sign(SigningKey::shared()), 300);
    for _ in 0..rounds {
        assert_eq!(client.post("/login", json!({"email": 7})).await.verdict(), (400, "invalid_request"));
        assert_eq!(verdict(&channel, &good).await.0, 200);
    }
    assert_eq!(verdict(&channel, "x").await.0, 401);
    wait_until(&mut program, "account", rounds, |program| lines(program, "account request").len() as u64);
    wait_until(&mut program, "sampled", rounds, |_| 0);
    let checks = lines(&program, "check");
    assert_eq!(checks.len(), 1, "the refused one: {checks:#?}");
    assert!(lines(&program, "account request").len() as u64 >= CAP);
}
