//! `sign_in: redirect` in the commands about policy files.

use serde_json::{Value, json};

use crate::support::policy_file::PolicyFile;
use crate::support::service::{SIGN_IN, run};
use crate::support::token::{CLIENT, POOL};

const FILE: &str = "policies:\n  default:\n    sign_in: redirect\n";
const URI: &str = "a URI with the path /auth/oauth/callback in --oauth-redirect-uris";

#[test]
fn check_config_names_what_the_sign_in_lacks() {
    let file = PolicyFile::new(FILE);
    let path = file.path();
    let check = |flags: &[&str]| {
        run(&[&["check-config", "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &path], flags].concat(), &[])
    };
    let [cookies, domain_flag, domain, uri_flag, uri] = SIGN_IN;
    for (flags, missing) in [
        (vec![], format!("--account-cookies, --hosted-ui-domain and {URI}")),
        (vec![domain_flag, domain, uri_flag, uri], "--account-cookies".into()),
        (vec![cookies, uri_flag, uri], "--hosted-ui-domain".into()),
        (vec![cookies, domain_flag, domain, uri_flag, "https://app.example.com/callback"], URI.into()),
        (vec![cookies, domain_flag, domain, uri_flag, "app://host/auth/oauth/callback"], URI.into()),
        (
            vec![cookies, domain_flag, domain, uri_flag, uri, "--account-prefix", "/account"],
            URI.replace("/auth", "/account"),
        ),
    ] {
        let (code, stdout, stderr) = check(&flags);
        let expected = format!(
            "cognito-authz: --config: {path}: policies.default.sign_in: browsers are redirected to the sign-in of the account \
             API, which needs {missing} at line 3 column 14 (from the flag)\n"
        );
        assert_eq!((code, &*stdout, stderr), (Some(64), "", expected), "{flags:?}");
    }
    let (code, stdout, _) = check(&SIGN_IN);
    assert_eq!(code, Some(0));
    assert!(stdout.ends_with("\nthe configuration is right\n"), "{stdout}");
    // Another redirect URI may be listed beside it.
    let both = [&SIGN_IN[..], &[uri_flag, "https://app.example.com/callback"]].concat();
    assert_eq!(check(&both).0, Some(0));
    // Another replica may serve the account API.
    assert_eq!(check(&[&SIGN_IN[..], &["--account-api=false"]].concat()).0, Some(0));
    // `serve` refuses what `check-config` refuses.
    let (code, stdout, stderr) = run(&["--user-pool-id", POOL, "--client-id", CLIENT, "--config", &path], &[]);
    assert_eq!((code, &*stdout), (Some(64), ""), "{stderr}");
    assert!(stderr.contains("which needs --account-cookies, --hosted-ui-domain and a URI"), "{stderr}");
}

#[test]
fn explain_and_test_policy_show_the_redirect_without_an_account_api() {
    let file = PolicyFile::new(FILE);
    let path = file.path();
    let pool = ["--user-pool-id", POOL, "--client-id", CLIENT, "--config", &path, "--jwks-url", "http://127.0.0.1:9/"];
    let page = ["--path", "/a?b=c", "--header", "sec-fetch-mode: navigate"];
    let explain = |more: &[&str]| run(&[&["explain"][..], &pool, more].concat(), &[]);
    let (code, output, stderr) = explain(&page);
    assert_eq!((code, &*stderr), (Some(1), ""), "{output}");
    for line in [
        "credential   failed: missing_credential\n",
        "decision     deny (302)\n",
        "location     /auth/oauth/sign-in?return_to=%2Fa%3Fb%3Dc\n",
    ] {
        assert!(output.contains(line), "{line} is not in\n{output}");
    }
    assert!(!output.contains("challenge"), "{output}");
    let report = |more: &[&str]| -> Value { serde_json::from_str(&explain(&[more, &["--json"]].concat()).1).unwrap() };
    let found = report(&[&page[..], &["--account-prefix", "/account"]].concat());
    assert_eq!(found["location"], "/account/oauth/sign-in?return_to=%2Fa%3Fb%3Dc");
    assert_eq!([&found["status"], &found["www_authenticate"]], [&json!(302), &Value::Null]);
    let found = report(&page[..2]);
    assert_eq!([&found["status"], &found["location"]], [&json!(401), &Value::Null]);

    let shadow = PolicyFile::new("policies: {default: {sign_in: redirect, mode: shadow}}");
    let shadow = shadow.path();
    let pool = ["--user-pool-id", POOL, "--client-id", CLIENT, "--config", &shadow];
    let (code, output, _) = run(&[&["explain"][..], &pool, &page].concat(), &[]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("decision     allow (200)\nenforced     deny (302): "), "{output}");
    assert!(output.contains("location     /auth/oauth/sign-in?return_to=%2Fa%3Fb%3Dc\n"), "{output}");
}

#[test]
fn test_policy_compares_the_address() {
    let (file, table) = (PolicyFile::new(FILE), tempfile::NamedTempFile::new().unwrap());
    let path = file.path();
    let run_table = |expect: &str| {
        let row = format!(
            "tests:\n- name: a page\n  request: {{path: /a, headers: {{Sec-Fetch-Mode: navigate}}}}\n  expect: {expect}\n"
        );
        std::fs::write(table.path(), row).unwrap();
        let table = table.path().to_str().unwrap();
        run(&["test-policy", table, "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &path], &[])
    };
    let good =
        "{decision: deny, reason: missing_credential, status: 302, location: /auth/oauth/sign-in?return_to=%2Fa}";
    assert_eq!(run_table(good), (Some(0), "ok   a page\n1 passed, 0 failed\n".into(), String::new()));
    let (code, output, _) = run_table(&good.replace("%2Fa", "%2Fb").replace("302", "401"));
    assert_eq!(code, Some(1));
    for said in [
        "     status: expected 401, got 302\n",
        "     location: expected /auth/oauth/sign-in?return_to=%2Fb, got /auth/oauth/sign-in?return_to=%2Fa\n",
    ] {
        assert!(output.contains(said), "{output}");
    }
}
