//! `test-policy`: tables of requests and expected decisions.

use super::FILE;
use crate::support::policy_file::PolicyFile;
use crate::support::service::run;
use crate::support::token::{CLIENT, POOL};

const TABLE: &str = r"
tests:
- name: orders need a token
  request: {path: /orders/7}
  expect: {decision: deny, reason: missing_credential, status: 401, policy: orders}
- name: readers may read orders
  request: {path: /orders/7, method: GET}
  token: {scope: openid orders/read, claims: {'custom:tenant': acme}}
  expect: {decision: allow, policy: orders, headers: {x-gate: orders, X-Auth-Tenant: acme, x-auth-groups: null}}
- name: users are not admins
  request: {policy: admin}
  token: {groups: [users]}
  expect: {decision: deny, reason: insufficient_group, requirement: groups}
- name: partners are members
  token: {pool: partners}
  expect: {decision: allow, headers: {x-auth-client-id: partner}}
- name: expired tokens are denied
  token: {expires_in: -5m}
  expect: {decision: deny, reason: expired}
- name: unsigned tokens are denied
  token: {signed: false}
  expect: {decision: deny, reason: bad_signature}
";

#[test]
fn test_policy_reports_each_difference() {
    // The URL refuses connections, so the command works without a network.
    let file = PolicyFile::new(&FILE.replace("KEYS", "http://127.0.0.1:9/"));
    let table = tempfile::NamedTempFile::new().unwrap();
    let (config, table_path) = (file.path(), table.path().to_str().unwrap().to_owned());
    let run_table = |text: &str| {
        std::fs::write(table.path(), text).unwrap();
        run(&["test-policy", &table_path, "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[])
    };
    let (code, stdout, stderr) = run_table(TABLE);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    assert!(stdout.ends_with("6 passed, 0 failed\n") && stdout.matches("ok   ").count() == 6, "{stdout}");

    for (from, to, said) in [
        ("reason: expired", "reason: unknown_kid", "reason: expected unknown_kid, got expired"),
        ("status: 401", "status: 403", "status: expected 403, got 401"),
        ("policy: orders}", "policy: members}", "policy: expected members, got orders"),
        ("requirement: groups", "requirement: scopes", "requirement: expected scopes, got groups"),
        ("x-gate: orders", "x-gate: other", "header x-gate: expected other, got orders"),
        ("x-auth-groups: null", "x-auth-groups: a", "header x-auth-groups: expected a, got none"),
        ("X-Auth-Tenant: acme", "X-Auth-Tenant: null", "header X-Auth-Tenant: expected none, got acme"),
        ("groups: [users]", "groups: [admins]", "decision: expected deny, got allow"),
        ("scope: openid orders/read", "scope: openid", "decision: expected allow, got deny (insufficient_scope)"),
        ("{expires_in: -5m}", "{expires_in: -5s}", "decision: expected deny, got allow"),
    ] {
        assert_ne!(TABLE.replacen(from, to, 1), TABLE, "{from}");
        let (code, stdout, stderr) = run_table(&TABLE.replacen(from, to, 1));
        assert_eq!((code, &*stderr), (Some(1), ""), "{said}\n{stdout}");
        assert!(stdout.contains(said) && stdout.ends_with("5 passed, 1 failed\n"), "{said} is not in\n{stdout}");
        assert_eq!(stdout.matches("FAIL ").count(), 1);
    }

    for (bad, said) in [
        ("", "missing field `tests`"),
        ("tests: []", "there are no tests in it"),
        ("tests:\n- name: a\n  expects: {}\n", "line 3"),
        ("tests:\n- name: a\n  expect: {decision: maybe}\n", "line 3"),
        ("tests:\n- name: a\n  expect: {decision: deny, reason: nonsense}\n", "line 3"),
        (
            "tests:\n- name: a\n  token: {pool: nobody}\n  expect: {decision: deny}\n",
            "tests[0] (a): there is no pool nobody",
        ),
        ("tests: {]", "line 1"),
    ] {
        let (code, stdout, stderr) = run_table(bad);
        assert_eq!((code, &*stdout), (Some(64), ""), "{bad}: {stderr}");
        assert!(stderr.contains(said) && stderr.contains(&table_path), "{bad}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let (code, _, stderr) =
        run(&["test-policy", "/nonexistent", "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[]);
    assert_eq!(code, Some(64), "{stderr}");
}
