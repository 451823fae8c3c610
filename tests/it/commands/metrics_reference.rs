//! `metrics-reference`: the page about the metrics is the one in `docs/`, and agrees with a running service.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::certificates::Authority;
use crate::support::client::get;
use crate::support::service::{SIGN_IN, TestApp, run};
use crate::support::table::table;

/// Conditions that a service without the features does not meet.
const CONDITIONS: [&str; 3] = ["with the account API", "for listeners with TLS", "for policies in shadow mode"];

#[test]
fn the_page_about_the_metrics_is_current() {
    let (code, page, stderr) = run(&["metrics-reference"], &[]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == expected,
        "docs/metrics.md is not current: cognito-authz metrics-reference > docs/metrics.md\n{page}"
    );
    for heading in ["# Metrics", "## Labels"] {
        for row in table(&format!("\n{page}"), heading) {
            assert!(row.iter().skip(3).all(|cell| !cell.is_empty()), "{row:?}");
            assert_ne!(row.last().unwrap(), "–", "a metric or a label has no meaning: {row:?}");
        }
    }
}

/// Metrics that a service has, with their types.
async fn exposed(app: &TestApp) -> BTreeMap<String, String> {
    let (_, text) = get(&app.admin, "/metrics").await;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[tokio::test]
async fn metrics_exist_when_the_page_says() {
    let page = run(&["metrics-reference"], &[]).1;
    let rows = table(&format!("\n{page}"), "# Metrics");
    let documented = |conditions: &[&str]| -> BTreeMap<String, String> {
        let rows = rows.iter().filter(|row| row[4] == "always" || conditions.contains(&&*row[4]));
        rows.map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone())).collect()
    };
    let conditions: BTreeSet<&str> = rows.iter().map(|row| &*row[4]).filter(|when| *when != "always").collect();
    assert_eq!(conditions, CONDITIONS.into(), "the test knows all conditions");

    let jwks = ["--jwks-url", "http://127.0.0.1:9/"];
    let without = TestApp::start(&[&jwks[..], &["--account-api=false"]].concat());
    assert_eq!(exposed(&without).await, documented(&[]));

    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let signed = Authority::new("test").issue(&["authz.test"]);
    let policy = write("policy.yaml", "policies: {default: {mode: shadow}}\n");
    let (certificate, key) = (write("tls.crt", &signed.certificate), write("tls.key", &signed.key));
    let files = ["--config", &policy, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let with = TestApp::start(&[&jwks[..], &SIGN_IN, &files, &["--http-listen", "tls:127.0.0.1:0"]].concat());
    assert_eq!(exposed(&with).await, documented(&CONDITIONS));
}
