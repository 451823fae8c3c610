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
        ("", "the file is empty; a table is a map with `tests`"),
        ("tests: []", "tests: there are no tests in it"),
        ("[]", "expected a map with `tests`, a list of tests, found a list"),
        (
            "tests:\n- name: a\n  request: /a\n  expect: {decision: deny}\n",
            "tests[0].request: expected a map that describes a request, found the text \"/a\" at line 3 column 12: write `request: {method: GET, path: /}`",
        ),
        (
            "tests:\n- name: a\n  token: {groups: admins}\n  expect: {decision: deny}\n",
            "tests[0].token.groups: expected a list, found the text \"admins\" at line 3 column 19: write `groups: [admins]`",
        ),
        (
            "tests:\n- name: a\n  expect: {decision: deny, status: forbidden}\n",
            "tests[0].expect.status: expected a whole number from 0 to 65535, found the text \"forbidden\"",
        ),
        (
            "tests:\n- name: a\n  expect: {decision: deny, reason: insuficient_group}\n",
            "tests[0].expect.reason: \"insuficient_group\" is not known here at line 3 column 36; did you mean insufficient_group?",
        ),
        (
            "tests:\n- name: a\n  expects: {}\n",
            "tests[0].expects: unknown member at line 3 column 3; did you mean expect?",
        ),
        (
            "tests:\n- name: a\n  expect: {decision: alow}\n",
            "tests[0].expect.decision: expected `allow` or `deny`, found \"alow\" at line 3 column 22; did you mean allow?",
        ),
        ("tests:\n- name: a\n  expect: {decision: deny, reason: nonsense}\n", "line 3"),
        (
            "tests:\n- name: a\n  token: {pool: nobody}\n  expect: {decision: deny}\n",
            "tests[0].token.pool: there is no pool nobody at line 3 column 17",
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

/// A number or a boolean is the text that is written, and null is an absent member, as in earlier versions.
#[test]
fn tables_may_write_texts_without_quotes() {
    let file =
        PolicyFile::new(&FILE.replace("KEYS", "http://127.0.0.1:9/").replace("x-gate: orders", "x-gate: '0700'"));
    let table = tempfile::NamedTempFile::new().unwrap();
    let row = "\
tests:
- name: 404
  request: {path: /orders/7, policy: ~, headers: {x-count: 5}}
  token: {scope: orders/read}
  expect: {decision: allow, reason: null, headers: {x-gate: 0700}}
- name: no token
  token:
  expect: {decision: deny}
";
    std::fs::write(table.path(), row).unwrap();
    let (path, config) = (table.path().to_str().unwrap(), file.path());
    let (code, stdout, stderr) =
        run(&["test-policy", path, "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[]);
    assert_eq!((code, &*stdout, &*stderr), (Some(0), "ok   404\nok   no token\n2 passed, 0 failed\n", ""));
}

#[test]
fn every_error_of_a_table_is_reported() {
    let file = PolicyFile::new(&FILE.replace("KEYS", "http://127.0.0.1:9/"));
    let table = tempfile::NamedTempFile::new().unwrap();
    let rows = "\
tests:
- name: a
  request: {pth: /}
  expect: {decision: allow}
- expect: {decison: allow}
- name: c
  token: {pool: partner, expires_in: soon}
  expect: {decision: deny}
";
    std::fs::write(table.path(), rows).unwrap();
    let (path, config) = (table.path().to_str().unwrap(), file.path());
    let (code, _, stderr) =
        run(&["test-policy", path, "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[]);
    let line = |why: &str| format!("cognito-authz: {path}: {why}");
    let expected = [
        line("tests[0].request.pth: unknown member at line 3 column 13; did you mean path?"),
        line("tests[1]: the member `name` is missing at line 5 column 3"),
        line("tests[1].expect.decison: unknown member at line 5 column 12; did you mean decision?"),
        line("tests[2].token.pool: there is no pool partner at line 7 column 17; did you mean partners?"),
        line("tests[2].token.expires_in: \"soon\" is not a duration such as 250ms, 30s or 1h at line 7 column 38"),
    ];
    assert_eq!((code, stderr.lines().collect::<Vec<_>>()), (Some(64), expected.iter().map(String::as_str).collect()));
}

/// Without a table, the command shows one, which works.
#[test]
fn test_policy_without_a_table_shows_one() {
    let (code, stdout, stderr) = run(&["test-policy"], &[]);
    assert_eq!((code, &*stdout), (Some(64), ""));
    let (first, note) = stderr.split_once('\n').unwrap();
    assert_eq!(
        first,
        "cognito-authz: test-policy: the file with the table of tests is missing (from the command line)"
    );
    assert!(
        note.contains("cognito-authz test-policy TABLE --config POLICY-FILE")
            && note.contains("docs/policy-testing.md#testing-a-policy-in-ci"),
        "{note}"
    );
    let shown = note.split_once("\ntests:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let table = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(table.path(), format!("tests:\n{shown}\n")).unwrap();
    let policy = PolicyFile::new(
        "default: members\npolicies: {members: {}, orders: {groups: {any: [staff]}, scopes: {any: [orders/read]}}}\n\
         routes: [{path_prefix: /orders, policy: orders}]",
    );
    let (path, config) = (table.path().to_str().unwrap(), policy.path());
    let (code, stdout, stderr) =
        run(&["test-policy", path, "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[]);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    assert!(stdout.ends_with("\n2 passed, 0 failed\n"), "{stdout}");
}

/// A failed row says if a name in it is not one of the policy file.
#[test]
fn names_that_the_file_does_not_have_are_explained() {
    let file = PolicyFile::new(&FILE.replace("KEYS", "http://127.0.0.1:9/"));
    let table = tempfile::NamedTempFile::new().unwrap();
    let rows = "\
tests:
- name: a
  request: {policy: amdin}
  token: {}
  expect: {decision: allow}
- name: b
  token: {}
  expect: {decision: allow, policy: membres, headers: {x-auth-tennant: acme}}
- name: c
  request: {policy: amdin}
  expect: {decision: deny, reason: unknown_policy}
";
    std::fs::write(table.path(), rows).unwrap();
    let (path, config) = (table.path().to_str().unwrap(), file.path());
    let (code, stdout, _) =
        run(&["test-policy", path, "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &config], &[]);
    let expected = "\
FAIL a
     decision: expected allow, got deny (unknown_policy)
     there is no policy amdin; did you mean admin?
FAIL b
     policy: expected membres, got members
     header x-auth-tennant: expected acme, got none
     there is no policy membres; did you mean members?
     no header x-auth-tennant is ever set; did you mean x-auth-tenant?
ok   c
1 passed, 2 failed
";
    assert_eq!((code, &*stdout), (Some(1), expected));
}
