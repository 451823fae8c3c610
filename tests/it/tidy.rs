//! Rules of the repository: which module may import which, which files may use which crate, and that links and names in
//! the documents exist. The tables are at the top; a move in `src/` changes a row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::client::get;
use crate::support::service::TestApp;
use crate::support::tool;

/// The modules of the crate, and the modules that each imports. A module imports only from rows below its own, so there
/// are no cycles. `src/lib.rs` says what each is for.
const IMPORTS: &[(&str, &str)] = &[
    ("main", "app clock config net"),
    (
        "app",
        "account admin authz check cognito config ext_authz lifecycle logging metrics net reload revocation telemetry",
    ),
    ("check_config", "authz config doctor net revocation user_pool"),
    ("healthcheck", "admin_client config"),
    ("log_level", "admin_client clock config"),
    ("revoke", "admin_client clock config"),
    ("admin_client", "config files net"),
    ("test_policy", "authz check config explain files jwks nearest revocation user_pool"),
    ("explain", "authz check clock config lifecycle metrics nearest reload revocation user_pool"),
    ("doctor", "account check clock config files jwks nearest net user_pool"),
    ("admin", "account authz check clock config files lifecycle logging metrics net reload revocation user_pool"),
    ("reload", "authz check clock config files jwks lifecycle metrics net telemetry user_pool"),
    (
        "config",
        "account authz clock field_value files jwks logging nearest net revocation session_cookie telemetry user_pool",
    ),
    ("account", "authz clock cognito field_value metrics net request_id revocation session_cookie telemetry user_pool"),
    ("ext_authz", "authz check lifecycle logging metrics net telemetry"),
    ("check", "authz clock metrics request_id telemetry"),
    ("authz", "clock field_value jwks metrics revocation session_cookie user_pool"),
    ("revocation", "clock files lifecycle logging metrics user_pool"),
    ("jwks", "clock lifecycle logging metrics telemetry user_pool"),
    ("cognito", "clock metrics request_id telemetry user_pool"),
    ("telemetry", "clock metrics"),
    ("request_id", ""),
    ("user_pool", ""),
    ("session_cookie", "field_value"),
    ("field_value", ""),
    ("net", "files logging metrics"),
    ("metrics", "clock"),
    ("files", ""),
    ("lifecycle", ""),
    ("logging", "clock"),
    ("clock", ""),
    ("nearest", ""),
];

/// Crates and functions that only some files may use: the texts to look for, and the files and folders that may have
/// them.
const ONLY_IN: &[(&str, &str)] = &[
    ("tonic:: tonic_health tonic_reflection envoy_types", "ext_authz/ app.rs"),
    (
        "hyper:: hyper_util::",
        "admin_client.rs ext_authz/connection.rs ext_authz/services.rs net/http_server.rs net/json_body.rs",
    ),
    ("rustls:: x509_cert", "net/tls.rs net/tls/ main.rs"),
    ("reqwest::", "cognito/ jwks/fetch.rs doctor/http.rs telemetry/client.rs"),
    ("redis::", "revocation/store/"),
    ("yaml_serde schemars", "config/ doctor/envoy/ test_policy.rs test_policy/"),
    (
        "anyhow",
        "admin_client.rs app.rs healthcheck.rs log_level.rs main.rs reload.rs revoke.rs explain.rs test_policy.rs",
    ),
    ("SystemTime::now", "clock.rs"),
    ("std::env env::var", "main.rs"),
    ("tokio::signal", "main.rs"),
];

/// Files and folders without I/O, clock and logging: the same input gives the same result.
const PURE: &str = "authz/ field_value.rs session_cookie.rs session_cookie/";
/// The files in [`PURE`] folders that are not pure.
const NOT_PURE: &str = "authz/mod.rs authz/cache.rs";
/// Texts that do not occur in pure code.
const IMPURE_WORDS: &str = "async .await tokio tracing:: SystemTime Instant std::time";

/// Folders whose log lines are about one request, and have its id.
const LOGS_REQUESTS: [&str; 2] = ["account/", "cognito/"];

/// Largest number of lines in a file of `src/`, not counting empty lines and tests.
const LONGEST_FILE: usize = 460;

/// Names of texts that are not part of the repository. Comments and documents cite an RFC, the documentation of Envoy or
/// Cognito, or a page of `docs/` instead.
const UNKNOWN_TEXTS: [&str; 2] = ["the contract", "cognito-wire"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Paths of the files below a folder of the repository, relative to the root. Leaves out symbolic links, and folders
/// that a build, an installation or another project fills.
fn files_below(folder: &str) -> Vec<String> {
    let mut folders = vec![root().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (name, kind) = (entry.file_name(), entry.file_type().unwrap());
            let is_foreign = ["target", "venv", "vendor", "node_modules"].iter().any(|other| name == *other);
            if kind.is_dir() && !is_foreign && !name.to_string_lossy().starts_with('.') {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

fn has_extension(path: &str, extensions: &[&str]) -> bool {
    Path::new(path).extension().is_some_and(|extension| extensions.iter().any(|other| extension == *other))
}

/// Source files: the path below `src`, and the text up to the tests.
pub(crate) fn sources() -> Vec<(String, String)> {
    let files =
        files_below("src").into_iter().filter(|path| has_extension(path, &["rs"]) && !path.ends_with("tests.rs"));
    let code = |path: &str| {
        let text = read(path);
        let modules = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
        let code = modules.iter().find_map(|module| text.split_once(module)).map(|(code, _)| code.to_owned());
        code.unwrap_or(text)
    };
    let sources: Vec<_> = files.map(|path| (path["src/".len()..].to_owned(), code(&path))).collect();
    assert!(sources.len() > 15, "{sources:?}");
    sources
}

/// Lines without comments.
pub(crate) fn statements(code: &str) -> impl Iterator<Item = &str> {
    code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

/// Module at the top of the crate that a file belongs to.
fn module(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

/// `true` if a row of a table lists this file or a folder above it.
fn lists(row: &str, file: &str) -> bool {
    row.split_whitespace().any(|place| if place.ends_with('/') { file.starts_with(place) } else { file == place })
}

/// Fails if a table lists a file or folder that `src/` does not have.
fn assert_existing(places: &str, sources: &[(String, String)]) {
    for place in places.split_whitespace() {
        assert!(sources.iter().any(|(file, _)| lists(place, file)), "src/{place} does not exist");
    }
}

#[test]
fn modules_import_as_the_table_says() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(|(file, _)| module(file)).filter(|name| *name != "lib").collect();
    let rows: BTreeSet<&str> = IMPORTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(rows, modules, "IMPORTS has a row for each module");

    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, code) in &sources {
        for line in statements(code) {
            assert!(!line.contains("crate::{"), "src/{file}: one module in each `use`: {line}");
            for path in ["crate::", "cognito_authz::"].iter().flat_map(|root| line.split(root).skip(1)) {
                let name = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if modules.contains(name) && name != module(file) {
                    found.entry(module(file)).or_default().insert(name);
                }
            }
        }
    }
    for (row, (name, imports)) in IMPORTS.iter().enumerate() {
        let found = found.remove(name).unwrap_or_default();
        let found: Vec<&str> = found.into_iter().collect();
        assert_eq!(found.join(" "), *imports, "imports of {name}, and its row in IMPORTS");
        for import in found {
            let below = IMPORTS[row + 1..].iter().any(|(other, _)| *other == import);
            assert!(below, "{name} imports {import}, whose row is above: that would allow a cycle");
        }
    }
}

#[test]
fn the_map_of_the_crate_names_every_module() {
    let text = read("src/lib.rs");
    let map: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
    for (name, _) in IMPORTS.iter().filter(|(name, _)| *name != "main") {
        assert!(map.contains(&format!("`{name}`")), "the map in src/lib.rs does not name {name}");
    }
}

#[test]
fn a_crate_is_used_only_in_its_files() {
    let sources = sources();
    for (words, places) in ONLY_IN {
        assert_existing(places, &sources);
        for (file, code) in sources.iter().filter(|(file, _)| !lists(places, file)) {
            for line in statements(code) {
                let word = words.split_whitespace().find(|word| line.contains(word));
                assert_eq!(word, None, "src/{file}: {line}");
            }
        }
    }
}

#[test]
fn the_decision_is_pure() {
    let sources = sources();
    assert_existing(PURE, &sources);
    assert_existing(NOT_PURE, &sources);
    for (file, code) in sources.iter().filter(|(file, _)| lists(PURE, file) && !lists(NOT_PURE, file)) {
        for line in statements(code) {
            let word = IMPURE_WORDS.split_whitespace().find(|word| line.contains(word));
            assert_eq!(word, None, "src/{file}: {line}");
        }
    }
}

#[test]
fn log_lines_about_a_request_have_its_id() {
    let mut lines = 0;
    for (file, code) in sources().iter().filter(|(file, _)| LOGS_REQUESTS.iter().any(|folder| file.starts_with(folder)))
    {
        for level in ["error", "warn", "info", "debug", "trace", "event"] {
            for event in code.split(&format!("tracing::{level}!(")).skip(1) {
                let fields = event.split(");").next().unwrap();
                assert!(fields.contains("request_id"), "src/{file}: tracing::{level}!({fields})");
                lines += 1;
            }
        }
    }
    assert!(lines > 15, "{lines}");
}

#[test]
fn a_source_file_begins_with_a_description() {
    for (file, code) in sources() {
        assert!(code.starts_with("//! "), "src/{file} has no description at its top");
    }
}

#[test]
fn a_source_file_is_short() {
    for (file, code) in sources() {
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= LONGEST_FILE, "src/{file} has {lines} lines of code; at most {LONGEST_FILE} are allowed");
    }
}

/// Paths of the files with code, tests and documentation. `CHANGELOG.md` is not among them: it names what is gone.
fn texts() -> Vec<String> {
    let folders = ["src", "tests", "benches", "docs", "deploy", "charts"];
    let files = folders.into_iter().flat_map(files_below).filter(|path| has_extension(path, &["rs", "py", "md"]));
    files.chain(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned)).collect()
}

#[test]
fn texts_cite_only_what_the_repository_has() {
    let texts = texts();
    for path in texts.iter().filter(|path| *path != "tests/it/tidy.rs") {
        let text = read(path);
        let lower = text.to_lowercase();
        for unknown in UNKNOWN_TEXTS {
            assert!(!lower.contains(unknown), "{path} mentions \"{unknown}\"");
        }
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_-./".contains(c));
        for word in words.filter(|word| has_extension(word, &["rs", "md"]) && !word.starts_with("//")) {
            let name = format!("/{}", word.trim_start_matches(['.', '/']));
            let exists = name == "/CHANGELOG.md" || texts.iter().any(|other| format!("/{other}").ends_with(&name));
            assert!(exists, "{path} mentions {word}, which does not exist");
        }
    }
}

#[test]
fn links_between_documents_lead_to_a_file() {
    for document in texts().iter().filter(|path| has_extension(path, &["md"])) {
        // Without code: the pattern of a text can look like a link.
        let text: String = read(document).split('`').step_by(2).collect();
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
async fn promtool_accepts_the_metrics() {
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

/// Reads `OpenMetrics` with Prometheus' own parser, as a file of samples to import. Such samples need a time.
#[tokio::test]
async fn promtool_accepts_open_metrics() {
    let app = TestApp::start(&["--jwks-url", "http://127.0.0.1:9/"]);
    let request = reqwest::Client::new()
        .get(format!("http://{}/metrics", app.admin))
        .header("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let metrics = response.text().await.unwrap();
    assert!(metrics.ends_with("\n# EOF\n"));
    assert!(metrics.contains("\n# TYPE cognito_authz_checks counter\n"), "{metrics}");
    assert!(metrics.contains("\n# UNIT cognito_authz_check_duration_seconds seconds\n"), "{metrics}");
    let with_time =
        |line: &str| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1767225600\n") };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metrics");
    fs::write(&file, metrics.lines().map(with_time).collect::<String>()).unwrap();
    let output = Command::new(tool::program("promtool"))
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &directory.path().join("blocks")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
