//! `cognito-authz revoke` and `cognito-authz revocations`, run as a program against a running service.

use serde_json::Value;

use super::{Files, TOKEN, token_of};
use crate::support::client::{connect, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::{TestApp, run};
use crate::support::token::unix_now;

struct Stage {
    files: Files,
    app: TestApp,
}

impl Stage {
    fn new() -> Self {
        let files = Files::new();
        let app = files.start(&[]);
        Self { files, app }
    }

    /// Runs a command with the address and the token of the service.
    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let (admin, token) = (format!("http://{}", self.app.admin), self.files.path("token"));
        let result = run(&[args, &["--admin", &admin, "--admin-token-file", &token]].concat(), &[]);
        assert!(!result.1.contains(TOKEN) && !result.2.contains(TOKEN), "{result:?}");
        result
    }

    /// Runs a command that succeeds, and returns its output.
    fn output(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!((code, &*stderr), (Some(0), ""), "{args:?}");
        stdout
    }

    /// Runs a command that fails with exit code 1 and one line.
    fn error(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!((code, &*stdout, stderr.lines().count()), (Some(1), "", 1), "{args:?}: {stderr}");
        stderr
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_revoked_listed_and_lifted() {
    let stage = Stage::new();
    let channel = connect(&stage.app.grpc[0]).await;
    let now = unix_now();
    let (token, later) = (token_of("ada", "s", "j", now - 100), token_of("ada", "t", "k", now - 50));
    assert_eq!(stage.output(&["revocations"]), "");
    let before = (now - 60).to_string();
    let done = stage.output(&["revoke", "--sub", "ada", "--before", &before, "--reason", "ticket 7"]);
    assert!(done.starts_with("revoked: ") && done.contains("  sub, sign-ins up to 20"), "{done}");
    assert!(done.ends_with("by operator, scope replica\n"), "{done}");
    assert_eq!((verdict(&channel, &token).await.0, verdict(&channel, &later).await.0), (401, 200));
    let made: Value = serde_json::from_str(&stage.output(&["revoke", "--jti", "k", "--json"])).unwrap();
    assert_eq!((&made["kind"], &made["scope"]), (&"jti".into(), &"replica".into()));
    assert_eq!(verdict(&channel, &later).await.0, 401);
    let all = stage.output(&["revocations"]);
    assert_eq!((all.lines().count(), stage.output(&["revocations", "list"])), (2, all.clone()));
    let one = stage.output(&["revocations", "list", "--sub", "ada", "--pool", "default", "--json"]);
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["before"], now - 60);
    assert!(all.contains(one["id"].as_str().unwrap()) && all.contains(made["id"].as_str().unwrap()), "{all}");
    assert_eq!(stage.output(&["revocations", "--origin-jti", "k"]), "");
    let lifted = stage.output(&["revocations", "lift", one["id"].as_str().unwrap()]);
    assert!(lifted.starts_with("lifted: "), "{lifted}");
    assert_eq!((verdict(&channel, &token).await.0, verdict(&channel, &later).await.0), (200, 401));
    let error = stage.error(&["revocations", "lift", one["id"].as_str().unwrap()]);
    assert!(error.contains("(404): There is no revocation with this id in effect."), "{error}");
}

#[test]
fn a_list_has_more_entries_than_a_page() {
    let stage = Stage::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for number in 0..1001 {
            super::revoke(&stage.app.admin, super::sub(&number.to_string())).await.id();
        }
    });
    let lines: Vec<String> = stage.output(&["revocations"]).lines().map(str::to_owned).collect();
    assert_eq!(lines.iter().collect::<std::collections::BTreeSet<_>>().len(), 1001);
}

#[test]
fn a_failure_is_one_sentence() {
    let stage = Stage::new();
    assert!(stage.error(&["revoke", "--sub", "ada", "--pool", "x"]).contains("(400): There is no such pool"));
    assert!(stage.error(&["revoke", "--sub", ""]).contains("(400): sub has to be"));
    let (admin, token) = (format!("http://{}", stage.app.admin), stage.files.path("token"));
    let wrong = stage.files.path("wrong");
    std::fs::write(&wrong, "another-token-of-operators").unwrap();
    let fails = |args: &[&str], environment: &[(&str, &str)], expected: i32, message: &str| {
        let (code, stdout, stderr) = run(args, environment);
        assert_eq!((code, &*stdout, stderr.lines().count()), (Some(expected), "", 1), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    };
    let revoke = ["revoke", "--sub", "ada", "--admin", &admin];
    fails(&[&revoke[..], &["--admin-token-file", &wrong]].concat(), &[], 1, "(401): The token is not");
    let missing = stage.files.path("missing");
    fails(&[&revoke[..], &["--admin-token-file", &missing]].concat(), &[], 1, "cannot be read");
    let nowhere = ["revoke", "--sub", "ada", "--admin", "http://127.0.0.1:9", "--admin-token-file", &token];
    fails(&nowhere, &[], 1, "cannot connect to 127.0.0.1:9");
    fails(&["revocations", "--admin", "ftp://a", "--admin-token-file", &token], &[], 1, "not an http or https URL");
    // Usage.
    fails(
        &revoke,
        &[],
        64,
        "--admin-token-file: the file with the token of the operators, or --admin-cert-file, is required",
    );
    let usage = |args: &[&str], message: &str| {
        let args = [args, &["--admin", &admin, "--admin-token-file", &token]].concat();
        fails(&args, &[], 64, message);
    };
    usage(&["revoke"], "--sub, --origin-jti or --jti is required");
    usage(&["revoke", "--sub", "a", "--jti", "b"], "cannot be used with");
    usage(&["revoke", "--jti", "b", "--before", "7"], "--before: only together with --sub");
    usage(&["revoke", "--sub", "a", "--before", "yesterday"], "--before: neither RFC 3339");
    usage(&["revocations", "lift"], "<ID> is required");
    usage(&["revocations", "lift", "x"], "not an id of 32 hexadecimal digits");
    usage(&["revocations", "nonsense"], "is not a command");
    // The path of the token's file can come from the environment; the options of these commands have no variables.
    let environment =
        [("COGNITO_AUTHZ_ADMIN_TOKEN_FILE", &*token), ("COGNITO_AUTHZ_SUB", "x"), ("COGNITO_AUTHZ_JTI", "y")];
    assert_eq!(run(&["revoke", "--sub", "ada", "--admin", &admin], &environment).0, Some(0));
    assert_eq!(run(&["revocations", "--admin", &admin], &environment).0, Some(0));
    let (_, help, _) = run(&["revoke", "--help"], &[]);
    let words: Vec<&str> = help.split_whitespace().collect();
    assert_eq!(words.join(" ").matches("[env: COGNITO_AUTHZ_").count(), 1, "{help}");
}

/// Another server answers, with JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_of_another_server_is_not_described_by_types_of_the_program() {
    let server = JwksServer::start(Reply::ok("[5]")).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "a-token-of-operators").unwrap();
    let operator = ["--admin", &server.url, "--admin-token-file", token.path().to_str().unwrap()];
    for (command, what) in [
        (&["log-level"][..], "a log level"),
        (&["revocations"], "a list of revocations"),
        (&["revoke", "--sub", "ada"], "a revocation"),
    ] {
        let (code, _, stderr) = run(&[command, &operator].concat(), &[]);
        let expected = format!("cognito-authz: the response is not {what}: is this the admin port of cognito-authz?\n");
        assert_eq!((code, stderr), (Some(1), expected));
    }
}
