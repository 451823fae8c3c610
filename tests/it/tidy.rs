//! Rules that keep the house in order: who may import whom, and that the documents say what the code does.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::CommandFactory;
use cognito_authz::authz::{Challenge, Denial, Fault};
use cognito_authz::config::options::{Cli, variable};

use crate::support::client::get;
use crate::support::service::TestApp;
use crate::support::table::table;
use crate::support::tool;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every source file below `src`, relative to it, without its tests.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec![root().join("src")];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 15, "{files:?}");
    let relative = |path: &PathBuf| path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
    let code = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.split_once("#[cfg(test)]\nmod tests")
            .or(text.split_once("#[cfg(test)]\npub(crate) mod tests"))
            .map_or(text.clone(), |(code, _)| code.to_owned())
    };
    files.iter().map(|path| (relative(path), code(path))).collect()
}

/// Code without comments.
fn statements(code: &str) -> impl Iterator<Item = &str> {
    code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

#[test]
fn rooms_keep_to_themselves() {
    for (words, rooms) in [
        (&["tonic::", "tonic_health", "tonic_reflection", "envoy_types"][..], &["ext_authz/", "app.rs"][..]),
        (
            &["hyper::", "hyper_util::"],
            &["account/", "admin.rs", "ext_authz/server.rs", "healthcheck.rs", "http_server.rs"],
        ),
        (&["reqwest::"], &["cognito/", "jwks/fetch.rs"]),
        (&["crate::ext_authz", "crate::admin"], &["app.rs"]),
        (&["crate::account"], &["app.rs", "admin.rs", "config/"]),
        (&["crate::cognito"], &["account/", "app.rs"]),
        (&["crate::app", "crate::healthcheck"], &[]),
        (&["crate::check"], &["app.rs", "ext_authz/", "rulebook.rs"]),
        (&["crate::rulebook"], &["app.rs", "admin.rs", "explain.rs"]),
        (&["crate::explain"], &["test_policy.rs"]),
        (&["crate::config"], &["app.rs", "config/", "rulebook.rs", "explain.rs", "test_policy.rs"]),
        (
            &["crate::authz"],
            &[
                "account/",
                "app.rs",
                "admin.rs",
                "ext_authz/",
                "config/",
                "rulebook.rs",
                "explain.rs",
                "test_policy.rs",
                "check.rs",
            ],
        ),
        (&["yaml_serde", "schemars"], &["config/", "test_policy.rs"]),
        (&["anyhow"], &["app.rs", "healthcheck.rs", "rulebook.rs", "explain.rs", "test_policy.rs"]),
        (&["SystemTime::now"], &["account/", "check.rs", "jwks/store.rs", "main.rs"]),
        (&["std::env", "env::var"], &["main.rs"]),
    ] {
        for (file, code) in sources().iter().filter(|(file, _)| !rooms.iter().any(|room| file.starts_with(room))) {
            for line in statements(code) {
                assert!(!words.iter().any(|word| line.contains(word)), "{file}: {line}");
            }
        }
    }
}

#[test]
fn the_heart_of_the_decision_is_pure() {
    let pure = [
        "authz/answer.rs",
        "authz/credential.rs",
        "authz/token/claims.rs",
        "authz/token/raw_claims.rs",
        "authz/denial.rs",
        "authz/headers.rs",
        "authz/identity.rs",
        "authz/token/json.rs",
        "authz/policy/opening.rs",
        "authz/policy/path.rs",
        "authz/policy/pattern.rs",
        "authz/policy/mod.rs",
        "authz/request.rs",
        "authz/policy/requirement.rs",
        "authz/policy/route.rs",
        "authz/verdict.rs",
        "authz/token/mod.rs",
        "field_value.rs",
        "session_cookie.rs",
        "session_cookie/provenance.rs",
    ];
    let sources = sources();
    for name in pure {
        let (_, code) = sources.iter().find(|(file, _)| *file == name).unwrap();
        for line in statements(code) {
            for word in ["async", ".await", "tokio", "tracing::", "SystemTime", "Instant", "std::time"] {
                assert!(!line.contains(word), "{name}: {line}");
            }
        }
    }
}

#[test]
fn files_say_what_they_are_for() {
    for (file, code) in sources() {
        assert!(code.starts_with("//! "), "{file} does not open with what it is for");
    }
}

#[test]
fn the_option_table_of_the_readme_is_the_command_line() {
    let command = Cli::command();
    let expected: Vec<[String; 3]> = command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some())
        .map(|arg| {
            let id = arg.get_id().as_str();
            let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let default = if default.is_empty() { "–".into() } else { format!("`{}`", default.join(", ")) };
            [format!("`--{}`", arg.get_long().unwrap()), format!("`{}`", variable(id)), default]
        })
        .collect();
    let found: Vec<[String; 3]> = table(&read("README.md"), "## Options")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_reasons_table_of_the_readme_is_the_list_of_denials() {
    let expected: Vec<[String; 4]> = Denial::ALL
        .iter()
        .map(|denial| {
            let header = match denial.challenge() {
                Challenge::Realm => "`Bearer realm=\"api\"`".into(),
                Challenge::Error | Challenge::Scope | Challenge::StepUp => format!("`… error=\"{}\"`", denial.error()),
                Challenge::None if denial.fault() == Fault::Service => "`Retry-After: 5`".into(),
                Challenge::None => "–".into(),
            };
            let decision = if denial.fault() == Fault::Service { "error" } else { "deny" };
            [format!("`{}`", denial.reason()), denial.status().to_string(), header, format!("`{decision}`")]
        })
        .collect();
    let found: Vec<[String; 4]> = table(&read("README.md"), "## Reasons")
        .into_iter()
        .map(|row| [row[0].clone(), row[2].clone(), row[3].clone(), row[4].clone()])
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = [
        "README.md",
        "docs/architecture.md",
        "docs/cognito.md",
        "docs/account-api.md",
        "deploy/image/README.md",
        "docs/alerts.md",
        "docs/install.md",
        "docs/migrate.md",
        "docs/operations.md",
        "docs/policy.md",
        "docs/security.md",
        "docs/try-it.md",
        "deploy/envoy/README.md",
    ];
    for document in documents {
        let text = read(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let path = target.split('#').next().unwrap();
            if !path.is_empty() && !target.contains("://") {
                let folder = root().join(document);
                assert!(folder.parent().unwrap().join(path).exists(), "{document} links to {target}");
            }
        }
    }
}

#[tokio::test]
async fn prometheus_likes_the_metrics() {
    let app = TestApp::start(&["--jwks-url", "http://127.0.0.1:9/"]);
    let (_, metrics) = get(&app.admin, "/metrics").await;
    let mut promtool = Command::new(tool::program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
