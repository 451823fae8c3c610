//! `check-config` and `config-schema`: errors and warnings about a policy file.

use std::process::Command;

use super::FILE;
use crate::support::policy_file::PolicyFile;
use crate::support::service::run;
use crate::support::token::{CLIENT, POOL};
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
    assert_eq!(check(&good, &flags), (Some(0), "the configuration is right\n".into(), String::new()));
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
