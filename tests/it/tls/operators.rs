//! Operators at an admin port with TLS.

use serde_json::Value;

use super::Stage;
use crate::support::certificates::Authority;
use crate::support::client::{connect, verdict};
use crate::support::service::run;
use crate::support::tls::SERVICE;
use crate::support::token::SUB;

const TOKEN: &str = "operators-token-for-tests-2";

/// File with the token of the operators.
fn token_file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, TOKEN).unwrap();
    (directory, path.to_str().unwrap().to_owned())
}

impl Stage {
    /// Flags of a command for the admin port, which verify its certificate.
    fn trusted(&self) -> Vec<String> {
        let url = self.program.admin.replace("mtls:", "tls:").replace("tls:", "https://");
        let ca = self.write("service.pem", &self.authority.certificate());
        ["--admin", &url, "--admin-ca-file", &ca, "--admin-server-name", SERVICE].map(str::to_owned).into()
    }
}

/// Runs a command that prints one line and succeeds.
fn succeeds(args: &[&[String]]) -> String {
    let args: Vec<&str> = args.iter().copied().flatten().map(String::as_str).collect();
    let (code, stdout, stderr) = run(&args, &[]);
    assert_eq!((code, &*stderr, stdout.lines().count()), (Some(0), "", 1), "{args:?}: {stdout}");
    stdout
}

/// Runs a command that fails with one line.
fn fails(args: &[&[String]], expected_code: i32, expected: &str) {
    let args: Vec<&str> = args.iter().copied().flatten().map(String::as_str).collect();
    let (code, stdout, stderr) = run(&args, &[]);
    assert_eq!((code, &*stdout, stderr.lines().count()), (Some(expected_code), "", 1), "{args:?}: {stderr}");
    assert!(stderr.contains(expected) && !stderr.contains(TOKEN), "{args:?}: {stderr}");
}

fn words<const N: usize>(words: [&str; N]) -> [String; N] {
    words.map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoke_and_revocations_ask_over_https_and_verify_the_certificate() {
    let (_directory, path) = token_file();
    let stage = Stage::start(&["--admin-listen", "tls:127.0.0.1:0", "--admin-token-file", &path]).await;
    let (revoke, list, token) =
        (words(["revoke", "--sub", SUB]), words(["revocations"]), words(["--admin-token-file", &path]));
    let trusted = stage.trusted();
    let wrong = words(["--admin-ca-file", &stage.write("wrong.pem", &Authority::new("x").certificate())]);
    let plain = words(["--admin", &trusted[1].replace("https", "http")]);
    for command in [&revoke[..], &list, &words(["revocations", "lift", "5f0c9a7d3e1b48269c02d1e4a7b86f35"])] {
        fails(&[command, &trusted[..2], &token], 1, "https needs --admin-ca-file");
        fails(&[command, &trusted[..4], &token], 1, "not valid for name");
        fails(&[command, &trusted[..2], &trusted[4..], &wrong, &token], 1, "UnknownIssuer");
        fails(&[command, &plain, &token], 1, "use a URL that starts with https://");
        fails(&[command, &plain, &trusted[2..], &token], 1, "need a URL that starts with https://");
        fails(&[command, &trusted, &token, &words(["--admin-cert-file", "x"])], 64, "--admin-key-file <FILE> is requ");
        fails(
            &[command, &trusted[..4], &words(["--admin-server-name", "a b"]), &token],
            1,
            "\"a b\" is not a host name",
        );
    }
    let channel = connect(&stage.program.grpc[0]).await;
    assert_eq!(verdict(&channel, &stage.token).await.0, 200, "nothing was revoked");
    let made = succeeds(&[&revoke, &words(["--json"]), &trusted, &token]);
    assert_eq!(verdict(&channel, &stage.token).await.0, 401);
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made["id"].as_str().unwrap();
    assert!(succeeds(&[&list, &trusted, &token]).starts_with(id));
    assert!(succeeds(&[&words(["revocations", "lift", id]), &trusted, &token]).starts_with("lifted: "));
    assert_eq!(verdict(&channel, &stage.token).await.0, 200);
}
