//! Paths that do not name a complete regular file: pipes, devices, sparse files, and files that are being written. They
//! neither block the program nor fill its memory.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::message_memory::{MIB, memory};
use crate::reload::{Stage, text};
use crate::support::certificates::Authority;
use crate::support::policy_file::PolicyFile;
use crate::support::service::run;
use crate::support::token::{CLIENT, POOL, SigningKey, jwks};
use crate::support::{PATIENCE, eventually};

/// Name of a kind, the function that creates it at a path, and the error about it.
type Kind = (&'static str, fn(&Path), &'static str);

const KINDS: [Kind; 4] = [
    (
        "a pipe",
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "is a pipe, not a regular file",
    ),
    ("an endless device", |path| symlink("/dev/zero", path).unwrap(), "is a device, not a regular file"),
    ("a huge file", |path| File::create(path).unwrap().set_len(6 << 30).unwrap(), "is larger than"),
    ("a directory", |path| fs::create_dir(path).unwrap(), "is a directory, not a regular file"),
];

/// Returns the peak resident memory of the program so far, in MiB.
fn peak(stage: &Stage) -> usize {
    memory(&stage.program, "VmHWM") / MIB
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_path_that_is_not_a_regular_file_is_reported_and_blocks_no_later_reload() {
    let stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let path = PathBuf::from(stage.file.path());
    let before = peak(&stage);
    for (number, (what, put, why)) in (2..).zip(KINDS) {
        let version = stage.version().await;
        fs::remove_file(&path).unwrap();
        put(&path);
        if number % 2 == 0 {
            stage.program.signal("HUP");
        }
        eventually(what, PATIENCE, async || stage.error().await.contains(why)).await;
        assert_eq!(stage.metric("config_last_reload_successful").await, 0.0, "{what}");
        assert_eq!(stage.version().await, version, "{what}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        stage.file.replace(&text(&number.to_string(), ""));
        stage.is_in_effect(&number.to_string()).await;
    }
    assert!(peak(&stage) < before + 64, "{} MiB, {before} MiB before", peak(&stage));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_not_loaded_while_it_is_being_written() {
    for signals in [false, true] {
        let stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
        // The first half is a valid file of its own.
        let whole = format!("{}# the end\n", text("whole", ""));
        let mut file = File::create(stage.file.path()).unwrap();
        file.write_all(text("half", "").as_bytes()).unwrap();
        if signals {
            stage.program.signal("HUP");
        }
        // The writer pauses for this time, which is shorter than the program waits for a file to stay unchanged.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(1500) {
            assert_eq!(stage.version().await, "1", "half a file is in effect; SIGHUP: {signals}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(whole.as_bytes()).unwrap();
        drop(file);
        eventually("the whole file is in effect", PATIENCE, async || {
            let version = stage.version().await;
            assert_ne!(version, "half", "SIGHUP: {signals}");
            version == "whole"
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_reload_is_retried_and_reported_once() {
    let stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let keys = PathBuf::from(stage.file.path()).with_file_name("keys.json");
    let pool = format!(
        "pools: {{p: {{user_pool_id: eu-central-1_Other0002, client_ids: any, jwks_file: '{}', jwks_url: '{}'}}}}\n",
        keys.display(),
        stage.keys.url
    );
    stage.file.replace(&text("2", &pool));
    eventually("the error is reported", PATIENCE, async || stage.error().await.contains("keys.json cannot be read"))
        .await;
    // The program retries after ten seconds, and must not report the same error again. A retry without a new error has
    // no effect that the test could wait for, so the test watches for longer than that.
    let reported = Instant::now();
    while reported.elapsed() < Duration::from_secs(12) {
        assert_eq!(stage.version().await, "1");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failures = stage.metric("config_reloads_total{result=\"failure\"}").await;
    assert_eq!(failures, 1.0, "a repeated error is reported once");
    fs::write(&keys, jwks(&[SigningKey::other()])).unwrap();
    stage.is_in_effect("2").await;
}

/// Each option and member that names a file rejects a path that is not a regular file.
#[test]
fn every_named_file_must_be_a_regular_file_of_limited_size() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let bad = at("bad");
    let with = |name: &str, member: &str| {
        let text = format!(
            "pools: {{p: {{user_pool_id: eu-west-1_P, client_ids: a, {member}: '{bad}'}}}}\naccount: {{pool: p}}"
        );
        fs::write(at(name), text).unwrap();
        at(name)
    };
    let authority = Authority::new("a");
    let identity = authority.issue(&["a.test"]);
    let (certificate, key) = (at("tls.crt"), at("tls.key"));
    fs::write(&certificate, &identity.certificate).unwrap();
    fs::write(&key, &identity.key).unwrap();
    let tls = |certificate, key, ca| {
        let files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-client-ca-file", ca];
        [&["check-config", "--admin-listen", "mtls:127.0.0.1:0"][..], &files].concat()
    };
    let (keys, secret) = (with("keys.yaml", "jwks_file"), with("secret.yaml", "client_secret_file"));
    let good = at("good.yaml");
    fs::write(&good, "policies: {a: {}}").unwrap();
    let flags = ["--user-pool-id", POOL, "--client-id", CLIENT];
    let hosted = ["--hosted-ui-domain", "https://a.example", "--oauth-redirect-uris", "https://b.example/"];
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("--config", [&["check-config", "--config", &bad], &flags[..]].concat()),
        ("--config", [&["serve", "--config", &bad], &flags[..]].concat()),
        ("--config", [&["explain", "--config", &bad], &flags[..]].concat()),
        ("--jwks-file", [&["check-config", "--jwks-file", &bad], &flags[..]].concat()),
        ("--client-secret-file", [&["check-config", "--client-secret-file", &bad], &flags[..]].concat()),
        ("--oauth-state-key-file", [&["check-config", "--oauth-state-key-file", &bad], &flags[..], &hosted].concat()),
        ("--tls-cert-file", [tls(&bad, &key, &certificate), flags.to_vec()].concat()),
        ("--tls-key-file", [tls(&certificate, &bad, &certificate), flags.to_vec()].concat()),
        ("--tls-client-ca-file", [tls(&certificate, &key, &bad), flags.to_vec()].concat()),
        ("jwks_file", vec!["check-config", "--config", &keys]),
        ("client-secret-file", vec!["check-config", "--config", &secret]),
        ("bad", [&["test-policy", &bad, "--config", &good], &flags[..]].concat()),
    ];
    for (what, put, why) in KINDS {
        put(Path::new(&bad));
        for (named, args) in &cases {
            let (code, stdout, stderr) = run(args, &[]);
            assert_eq!((code, &*stdout), (Some(64), ""), "{what} {args:?}: {stderr}");
            assert!(
                stderr.contains(why) && stderr.contains(named) && stderr.contains(&bad),
                "{what} {args:?}: {stderr}"
            );
        }
        if what == "a directory" { fs::remove_dir(&bad).unwrap() } else { fs::remove_file(&bad).unwrap() }
    }
}
