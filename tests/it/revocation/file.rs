//! The program with `--revocation-file`: what was revoked stays so across restarts, one process uses the file at a time,
//! and a file that is not ours is an error at start. Damage, full disks and kills within a write have unit tests.

use std::path::{Path, PathBuf};

use cognito_authz::metrics::Metrics;
use cognito_authz::revocation::{Keep, Revocations, Settings};

use crate::support::client::{connect, get, metric, verdict};
use crate::support::service::{Program, run, run_with_input};
use crate::support::token::{CLIENT, POOL, SUB, SigningKey, TokenBuilder, jwks, unix_now};
use crate::support::{PATIENCE, eventually};

/// A directory with a file of keys, and the paths of that file and of the file of revocations.
struct Stage {
    directory: tempfile::TempDir,
    keys: String,
    file: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys.json");
        std::fs::write(&keys, jwks(&[SigningKey::shared()])).unwrap();
        let file = directory.path().join("revocations");
        Self { keys: keys.to_str().unwrap().to_owned(), file, directory }
    }

    fn flags(&self) -> [&str; 6] {
        let file = self.file.to_str().unwrap();
        ["--jwks-url", "http://127.0.0.1:9/", "--jwks-file", &self.keys, "--revocation-file", file]
    }

    async fn start(&self) -> Program {
        let program = Program::start(&self.flags());
        eventually("ready", PATIENCE, async || get(&program.admin, "/readyz").await.0 == 200).await;
        program
    }

    /// Opens the file as the service does.
    fn revocations(&self) -> Revocations {
        let settings = Settings { keep: Keep::File(self.file.clone()), capacity: 1000, life: 24 * 3600 };
        Revocations::open(settings, Metrics::new().unwrap().revocation().unwrap()).unwrap()
    }

    /// Runs the program, which ends with an error. Returns the one line that it writes.
    fn refused(&self, file: &Path) -> String {
        let listen = ["--grpc-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let pool = ["--user-pool-id", POOL, "--client-id", CLIENT, "--revocation-file", file.to_str().unwrap()];
        let keys = ["--jwks-url", "http://127.0.0.1:9/", "--jwks-file", &self.keys];
        let (code, _, stderr) = run(&[&["serve"], &listen[..], &pool, &keys].concat(), &[]);
        assert_eq!((code, stderr.lines().count()), (Some(64), 1), "{stderr}");
        stderr
    }
}

fn token(sub: &str, jti: &str) -> String {
    let signed_in = unix_now() - 10;
    let token = TokenBuilder::access().claim("sub", sub).claim("auth_time", signed_in).claim("jti", jti);
    token.sign(SigningKey::shared())
}

#[tokio::test]
async fn a_restarted_program_still_refuses_the_token() {
    let stage = Stage::new();
    let (revoked, other) = (token(SUB, "a"), token("another", "b"));
    let mut program = stage.start().await;
    let allowed = (200, String::new());
    assert_eq!(verdict(&connect(&program.grpc[0]).await, &revoked).await, allowed);
    program.signal("TERM");
    assert!(program.wait().success());
    stage.revocations().revoke_user(&POOL.parse().unwrap(), SUB, unix_now()).await.unwrap();
    for signal in ["KILL", "TERM"] {
        let mut program = stage.start().await;
        let channel = connect(&program.grpc[0]).await;
        assert_eq!(verdict(&channel, &revoked).await, (401, "revoked".to_owned()), "before {signal}");
        assert_eq!(verdict(&channel, &other).await, allowed, "before {signal}");
        assert_eq!(metric(&program.admin, "revocations{kind=\"sub\"}").await, 1.0);

        // A command may read the file meanwhile.
        let file = stage.file.to_str().unwrap();
        let flags = [
            "--jwks-url",
            "http://127.0.0.1:9/",
            "--jwks-file",
            &stage.keys,
            "--user-pool-id",
            POOL,
            "--client-id",
            CLIENT,
        ];
        let before = std::fs::read(&stage.file).unwrap();
        for (token, expected) in [(&revoked, Some(1)), (&other, Some(0))] {
            let args = [&["explain", "--revocation-file", file], &flags[..], &["--path", "/"]].concat();
            let (code, stdout, stderr) = run_with_input(&args, token.as_bytes());
            assert_eq!(code, expected, "{stdout} {stderr}");
        }
        assert_eq!(std::fs::read(&stage.file).unwrap(), before);

        // A second service may not use it.
        let error = stage.refused(&stage.file);
        assert!(error.contains(&format!("--revocation-file {file} is in use by another process")), "{error}");
        program.signal(signal);
        program.wait();
    }
}

#[tokio::test]
async fn an_incomplete_write_is_dropped_with_a_warning() {
    let stage = Stage::new();
    {
        let revocations = stage.revocations();
        for sub in [SUB, "another"] {
            revocations.revoke_user(&POOL.parse().unwrap(), sub, unix_now()).await.unwrap();
        }
    }
    let whole = std::fs::read(&stage.file).unwrap();
    std::fs::write(&stage.file, &whole[..whole.len() - 7]).unwrap();
    let program = stage.start().await;
    let line = program.log.iter().find(|line| line.contains("dropped an incomplete write")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let torn = (whole.len() - 7) as u64 - std::fs::metadata(&stage.file).unwrap().len();
    assert_eq!((&line["level"], &line["fields"]["bytes"]), (&"WARN".into(), &torn.into()));
    let channel = connect(&program.grpc[0]).await;
    assert_eq!(verdict(&channel, &token(SUB, "a")).await, (401, "revoked".to_owned()));
    assert_eq!(verdict(&channel, &token("another", "b")).await, (200, String::new()));
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_at_start() {
    let stage = Stage::new();
    let text = stage.directory.path().join("policy.yaml");
    std::fs::write(&text, "pools: {}\n").unwrap();
    let empty = stage.directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let nowhere = stage.directory.path().join("nowhere").join("file");
    for (path, expected) in [
        (text.clone(), "is not a file of revocations"),
        (empty, "is empty"),
        (stage.directory.path().to_owned(), "is a directory, not a regular file"),
        ("/dev/null".into(), "is a device, not a regular file"),
        (nowhere, "needs a file beside it"),
        // Nothing can be created there, not even by root.
        ("/proc/revocations".into(), "needs a file beside it"),
    ] {
        let error = stage.refused(&path);
        assert!(error.contains(&format!("--revocation-file {} {expected}", path.display())), "{error}");
    }
    assert_eq!(std::fs::read_to_string(text).unwrap(), "pools: {}\n");
    let mut files: Vec<_> =
        std::fs::read_dir(stage.directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["empty", "keys.json", "policy.yaml"], "nothing is left");
}
