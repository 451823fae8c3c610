//! The account API is off by default if its app client is ambiguous, and the operator is told.

use serde_json::Value;

use crate::support::client::get;
use crate::support::service::{Program, run};
use crate::support::token::{CLIENT, POOL};

const NOTE: &str = "the account API is off: the pool default accepts several app clients or `any`; name the app client of \
                    the account API with --account-client-id to serve it";

#[tokio::test]
async fn the_log_config_and_check_config_say_that_the_account_api_is_off_by_default() {
    let several = ["--client-id", CLIENT, "--client-id", "another"];
    let (code, _, stderr) = run(&[&["check-config", "--user-pool-id", POOL], &several[..]].concat(), &[]);
    assert_eq!((code, stderr), (Some(0), format!("cognito-authz: note: {NOTE}\n")));

    let program = Program::start(&[&several[..], &["--jwks-url", "http://127.0.0.1:9/"]].concat());
    let line = program.log.iter().find(|line| line.contains(NOTE)).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "INFO");
    let (_, config) = get(&program.admin, "/config").await;
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["account"], Value::Null);
    let option = &config["options"]["account-api"];
    assert_eq!((&option["value"], &option["source"]), (&"false".into(), &"the default".into()));
    assert!(NOTE.ends_with(option["reason"].as_str().unwrap()), "{option}");
    let (answer, _) = get(&program.admin, "/auth/login").await;
    assert_eq!(answer, 404);

    let on =
        Program::start(&[&several[..], &["--jwks-url", "http://127.0.0.1:9/", "--account-client-id", CLIENT]].concat());
    assert!(!on.log.iter().any(|line| line.contains("the account API is off")));
    let (code, _, stderr) =
        run(&[&["check-config", "--user-pool-id", POOL, "--account-api"], &several[..]].concat(), &[]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("--account-client-id: ") && stderr.contains("(--account-api is set)"), "{stderr}");
}
