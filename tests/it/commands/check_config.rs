//! `check-config` and `config-schema`: errors and warnings about a policy file, and the summary.

use std::process::Command;

use super::FILE;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::run;
use crate::support::token::{CLIENT, POOL, SigningKey, jwks};
use crate::support::tool::program;

/// Prints for each YAML file `True` if it is valid under the schema on standard input.
const VALIDATE: &str = "
import json, sys, yaml
from jsonschema import Draft202012Validator as Validator
schema = json.load(sys.stdin)
assert schema['$schema'] == 'https://json-schema.org/draft/2020-12/schema', schema['$schema']
Validator.check_schema(schema)
print(*(not list(Validator(schema).iter_errors(yaml.safe_load(open(file)))) for file in sys.argv[1:]))
";

#[test]
fn the_schema_is_valid_and_agrees_with_check_config() {
    let (code, schema, stderr) = run(&["config-schema"], &[]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let good = FILE.replace("KEYS", "https://keys.example.com/");
    let files = [
        (good.clone(), true),
        ("policies: {default: {scopes: {any: [a]}}}".into(), true),
        (good.replace("optional:", "optionl:"), false),
        (good.replace("optional: true", "optional: sometimes"), false),
        (good.replace("cors_preflight: allow", "cors_preflight: maybe"), false),
        (good.replace("policy: open}", "polices: open}"), false),
        (good.replace("  members:", "  two words:"), false),
        (good.replace("client_ids: partner, ", ""), false),
        (good.replace("claim_headers: [", "claim_headers: [7, "), false),
    ];
    let directory = tempfile::tempdir().unwrap();
    let write = |(number, (text, _)): (usize, &(String, bool))| {
        let path = directory.path().join(format!("{number}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    };
    let paths: Vec<_> = files.iter().enumerate().map(write).collect();
    let expected: Vec<bool> = files.iter().map(|(_, valid)| *valid).collect();
    let schema_file = directory.path().join("schema.json");
    std::fs::write(&schema_file, schema).unwrap();
    let output = Command::new(program("python"))
        .args(["-c", VALIDATE])
        .args(&paths)
        .stdin(std::fs::File::open(schema_file).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<bool> =
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(|word| word == "True").collect();
    assert_eq!(found, expected);
    for (path, valid) in paths.iter().zip(expected) {
        let flags = ["check-config", "--user-pool-id", POOL, "--client-id", CLIENT, "--config", path.to_str().unwrap()];
        let (code, stdout, stderr) = run(&flags, &[]);
        assert_eq!(code, Some(if valid { 0 } else { 64 }), "{stdout}{stderr}");
    }
}

#[test]
fn check_config_names_the_position_of_an_error() {
    let file = PolicyFile::new("");
    let path = file.path();
    let check = |text: &str, flags: &[&str]| {
        file.write(text);
        run(&[&["check-config", "--config", &path], flags].concat(), &[])
    };
    let flags = ["--user-pool-id", POOL, "--client-id", CLIENT];
    let good = FILE.replace("KEYS", "https://keys.example.com/");
    let (code, stdout, stderr) = check(&good, &flags);
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.ends_with("\nthe configuration is right\n"), "{stdout}");
    for (text, said) in [
        (good.replace("policy: open}", "policy: closed}"), "routes[2].policy: there is no policy closed at line 15"),
        (
            good.replace("default: members\n", ""),
            "routes: a file with `routes` needs the member `default`, which names a policy",
        ),
        (good.replace("{path: /guests,", "{path: \"/orders/{order}\", method: GET,"), "routes[3]"),
        (
            good.replace("x-auth-tenant", "x-auth-sub"),
            "claim_headers[0].header: x-auth-sub is a standard header at line 4",
        ),
        (good.replace("https://keys", "http://keys"), "pools.partners.jwks_url: "),
        (good.replace("partners:", "default:"), "pools.default: the flags define the pool default, too"),
        (good.replace("user_pool_id: eu-central-1_Other0002", "user_pool_id: nonsense"), "is not a user pool id"),
        (format!("{good}\naccount: {{pool: nobody}}"), "account.pool: there is no pool nobody"),
        (good.replace("members: {", "members: {{"), "line 6"),
        (String::new(), "the file is empty"),
    ] {
        let (code, stdout, stderr) = check(&text, &flags);
        assert_eq!((code, &*stdout), (Some(64), ""), "{said}: {stderr}");
        assert!(stderr.starts_with("cognito-authz: ") && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.contains(&path) && stderr.contains(said), "{said} is not in {stderr}");
    }
    // If only the file defines pools, the account API needs a pool and a client, or has to be off.
    let alone = "pools: {a: {user_pool_id: eu-west-1_A, client_ids: [b]}}";
    let (code, _, stderr) = check(alone, &["--account-api=false"]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let (code, _, stderr) = check("policies: {a: {}}", &["--account-api=false"]);
    assert_eq!(code, Some(64), "a file without a pool: {stderr}");
    // A warning is not an error.
    let odd = good.replace("groups: {any: [admins]}", "claims: [{claim: 'custom:level', equals: 7}]");
    let (code, _, stderr) = check(&odd, &flags);
    assert_eq!(code, Some(0));
    assert!(stderr.starts_with("cognito-authz: warning: claims.custom:level: "), "{stderr}");
}

#[test]
fn check_config_warns_if_a_template_opens_a_protected_path() {
    let file = PolicyFile::new("");
    let path = file.path();
    let flags = ["check-config", "--config", &path, "--user-pool-id", POOL, "--client-id", CLIENT];
    let policies = "default: members\npolicies: {members: {}, admin: {groups: {any: [admins]}}, open: {public: true}}\nroutes:\n- {path_prefix: /admin, policy: admin}\n";
    file.write(&format!("{policies}- {{path: '/{{service}}/health', policy: open}}\n"));
    let (code, _, stderr) = run(&flags, &[]);
    assert_eq!(code, Some(0));
    assert_eq!(
        stderr,
        "cognito-authz: warning: routes[1]: * * /{service}/health (policy open) opens part of what routes[0], * * /admin/… \
         (policy admin), protects: /admin/health. If that is not intended, add a route for /admin/health with the policy admin\n"
    );
    file.write(&format!(
        "{policies}- {{path: '/{{service}}/health', policy: open}}\n- {{path: /admin/health, policy: admin}}\n"
    ));
    assert_eq!(run(&flags, &[]).2, "");
}

/// A file with faults of its form and faults that show when its parts are compiled, and options with errors.
const WRONG: &str = "\
default: membrs
pools:
  partners: {user_pool_id: eu-central-1_Other0002, client_ids: [partner, any]}
policies:
  members: {group: {any: [staff]}}
  admin:
    groups: [admins, owners]
    max_auth_age: 5
  partners: {pools: [partnrs, partners], clients: [partner]}
routes:
- {path: /a, policy: admn}
- {path: admin, policy: admin}
- {path: /a/../b, policy: admin, methods: GET}
- {path: /c, policy: members}
- {path: /c, policy: admin}
";

#[test]
fn every_error_of_a_run_is_reported() {
    let file = PolicyFile::new(WRONG);
    let path = file.path();
    let flags = [
        "check-config",
        "--config",
        &path,
        "--user-pool-id",
        POOL,
        "--client-id",
        CLIENT,
        "--revocation-required",
        "--tls-cert-file",
        "/nonexistent",
        "--grpc-max-message-bytes",
        "1",
    ];
    let (code, stdout, stderr) = run(&flags, &[]);
    assert_eq!((code, &*stdout), (Some(64), ""));
    let of_file = |why: &str| format!("cognito-authz: --config: {path}: {why} (from the flag)");
    let expected = [
        of_file("default: there is no policy membrs at line 1 column 10; did you mean members?"),
        of_file("pools.partners.client_ids: `any` accepts every app client; remove it or the other app clients at line 3 column 64"),
        of_file("policies.members.group: unknown member at line 5 column 13; did you mean groups?"),
        of_file("policies.admin.groups: expected a map with `any` or `all`, found a list at line 7 column 13: write `groups: {any: [admins, owners]}`"),
        of_file("policies.admin.max_auth_age: 5 is a number, not a text: a text that looks like one is written in quotes, '5' at line 8 column 19"),
        of_file("policies.partners.pools[0]: there is no pool partnrs at line 9 column 22; did you mean partners?"),
        of_file("routes[0].policy: there is no policy admn at line 11 column 22; did you mean admin?"),
        of_file("routes[1].path: \"admin\" is not a path, because it does not begin with / at line 12 column 10"),
        of_file("routes[2].path: \"/a/../b\" is not in plain form: such a request is refused before any route is looked at at line 13 column 10"),
        of_file("routes[2].methods: unknown member at line 13 column 34; did you mean method?"),
        of_file("routes[4]: * * /c could match the same requests as routes[3], * * /c, and neither takes precedence at line 15 column 3"),
        "cognito-authz: --tls-cert-file: no listener uses it; write tls: or mtls: before the address of one (from the flag)".into(),
        "cognito-authz: --revocation-required: has no effect without --revocation-url (from the flag)".into(),
        "cognito-authz: --grpc-max-message-bytes: not between 1KiB and 1GiB (from the flag)".into(),
    ];
    assert_eq!(stderr.lines().collect::<Vec<_>>(), expected);
    // A service that does not start says the same.
    let (code, _, of_serve) = run(&flags[1..], &[]);
    assert_eq!((code, of_serve), (Some(64), stderr));
}

#[test]
fn many_errors_are_counted() {
    let routes: Vec<String> = (0..30).map(|number| format!("- {{path: /{number}, policy: x{number}}}")).collect();
    let routes = routes.join("\n");
    let file = PolicyFile::new(&format!("default: members\npolicies: {{members: {{}}}}\nroutes:\n{routes}"));
    let flags = ["check-config", "--config", &file.path(), "--user-pool-id", POOL, "--client-id", CLIENT];
    let (code, _, stderr) = run(&flags, &[]);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((code, lines.len()), (Some(64), 21), "{stderr}");
    assert!(lines[19].contains("routes[19].policy: there is no policy x19 at line 23"), "{}", lines[19]);
    assert_eq!(lines[20], "cognito-authz: and 10 more errors");
}

/// What only follows from another error is not reported.
#[test]
fn an_error_is_reported_once() {
    let file = PolicyFile::new("");
    for (text, said) in [
        // The pool, the policy and the default have an error of their own.
        (
            "pools: {p: {user_pool_id: nonsense, client_ids: a}}\npolicies: {m: {pools: [p], clients: [a]}}\naccount: {pool: p}",
            "pools.p.user_pool_id: ",
        ),
        ("default: m\npolicies: {m: []}\nroutes: [{path: /a, policy: m}]", "policies.m: expected a map"),
        ("default: 7\npolicies: {m: {}}\nroutes: [{path: /a, policy: m}]", "default: 7 is a number"),
        (
            "policies: {m: {groups: {any: 5}}}",
            "policies.m.groups.any: expected a list, found the number 5 at line 1 column 30: write `any: [5]`",
        ),
        ("policies: {m: {claims: [{claim: a, equals: []}]}}", "policies.m.claims[0].equals: expected"),
        (
            "default: m\npolicies: {m: {}}\nroutes: [{pth: /a, policy: m}]",
            "routes[0].pth: unknown member at line 3 column 11; did you mean path?",
        ),
        (
            "polices: {m: {}}\ndefault: m\nroutes: [{path: /a, policy: m}]",
            "polices: unknown member at line 1 column 1; did you mean policies?",
        ),
    ] {
        file.write(text);
        let path = file.path();
        let (code, _, stderr) =
            run(&["check-config", "--config", &path, "--user-pool-id", POOL, "--client-id", CLIENT], &[]);
        assert_eq!((code, stderr.lines().count()), (Some(64), 1), "{stderr}");
        assert!(stderr.contains(said), "{said} is not in {stderr}");
    }
    // The pool of the flags has an error: nothing is said about what needs it.
    file.write("policies: {m: {clients: [a], token_use: id}, n: {token_use: x}}");
    let path = file.path();
    let flags = [
        "check-config",
        "--config",
        &path,
        "--user-pool-id",
        POOL,
        "--client-id",
        CLIENT,
        "--jwks-url",
        "http://a.example/",
    ];
    let (_, _, stderr) = run(&flags, &[]);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].contains("--jwks-url: plain http"), "{stderr}");
    assert!(lines[1].contains("policies.n.token_use: expected `access`, `id` or `any`, found \"x\""), "{stderr}");
}

#[test]
fn the_summary_says_what_was_checked() {
    let file = PolicyFile::new(&FILE.replace("KEYS", "https://keys.example.com/"));
    let path = file.path();
    let flags = [
        "check-config",
        "--config",
        &path,
        "--user-pool-id",
        POOL,
        "--client-id",
        CLIENT,
        "--account-api=true",
        "--http-listen",
        "127.0.0.1:9192",
    ];
    let (code, stdout, stderr) = run(&flags, &[("COGNITO_CLIENT_SECRET", "notashownsecret")]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    let issuer = |host: &str| format!("https://{host}.eu-west-1.amazonaws.com/{POOL}");
    let issuers = ["cognito-idp", "issuer-cognito-idp"].map(issuer);
    let keys = issuers.clone().map(|issuer| format!("{issuer}/.well-known/jwks.json"));
    let of_partners = ["cognito-idp", "issuer-cognito-idp"]
        .map(|host| format!("https://{host}.eu-central-1.amazonaws.com/eu-central-1_Other0002"));
    let expected = format!(
        "policy file      {path}
pool default     {POOL}, access tokens, app client {CLIENT}
  issuers        {}
  keys           {}
pool partners    eu-central-1_Other0002, access tokens, app client partner
  issuers        {}
  keys           https://keys.example.com/
policies         admin, guests (optional), members (default), open (public), orders, pages
routes           5
headers          x-auth-sub, x-auth-username, x-auth-client-id, x-auth-token-use, x-auth-scope, x-auth-groups, x-auth-email, from the token
  claims         x-auth-tenant from custom:tenant
account API      pool default, app client {CLIENT}, below /auth on 127.0.0.1:9190
listeners        gRPC 127.0.0.1:9191, HTTP 127.0.0.1:9192, admin 127.0.0.1:9190
TLS              no listener
revocations      in memory: they end with the process
the configuration is right
",
        issuers.join(", "),
        keys.join(", "),
        of_partners.join(", "),
    );
    assert_eq!(stdout, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_config_fetches_the_keys_online() {
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let file = PolicyFile::new(&FILE.replace("KEYS", &keys.url));
    let path = file.path();
    let flags =
        ["check-config", "--online", "--config", &path, "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url"];
    let check = |url: &str| run(&[&flags[..], &[url]].concat(), &[]);
    let (code, stdout, stderr) = check(&keys.url);
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    let end = format!(
        "keys default     1 key from {url}/\nkeys partners    1 key from {url}/\nthe configuration is right\n",
        url = keys.url
    );
    assert!(stdout.ends_with(&end), "{stdout}");
    let (code, stdout, stderr) = check("http://127.0.0.1:9/");
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.ends_with(&format!("keys partners    1 key from {}/\n", keys.url)), "{stdout}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("cognito-authz: pool default: the keys cannot be fetched from http://127.0.0.1:9/: "),
        "{stderr}"
    );
    assert!(stderr.contains("nothing listens at this address and port"), "{stderr}");
    // A document without a usable key.
    keys.answers(Reply::ok(r#"{"keys": []}"#));
    let (code, _, stderr) = check(&keys.url);
    assert_eq!((code, stderr.lines().count()), (Some(1), 2), "{stderr}");
    assert!(stderr.contains("no usable key in the set"), "{stderr}");
}

/// Values that cannot be parsed, of flags and of variables, and the form of the policy file.
#[test]
fn every_value_of_an_option_that_is_wrong_is_reported() {
    let file = PolicyFile::new("policies: {m: {group: {any: [a]}, pools: [nobody]}}");
    let path = file.path();
    let flags = ["check-config", "--leeway", "90s", "--header-prefix=é", "--config", &path, "--client-id", CLIENT];
    let environment = [("COGNITO_USER_POOL_ID", "nonsense"), ("COGNITO_AUTHZ_GRPC_MAX_STREAMS", "0")];
    let (code, stdout, stderr) = run(&flags, &environment);
    assert_eq!((code, &*stdout), (Some(64), ""));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 5, "{stderr}");
    for said in [
        "cognito-authz: --leeway: more than 60s: \"90s\" (from the flag)",
        "cognito-authz: --header-prefix: ",
        "cognito-authz: --user-pool-id: not a user pool id such as eu-west-1_AbC123xyz: \"nonsense\" (from the environment variable COGNITO_USER_POOL_ID)",
        "cognito-authz: --grpc-max-streams: ",
        "policies.m.group: unknown member at line 1 column 16; did you mean groups? (from the flag)",
    ] {
        assert!(lines.iter().any(|line| line.contains(said)), "{said} is not in\n{stderr}");
    }
}
