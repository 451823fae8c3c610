//! The program and the JSON Schema reject the same policy files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Disk, Example, all_ways, at, emptied, examples};
use crate::support::tool;

/// Values to insert: valid ones, valid ones in the wrong position, and invalid ones.
fn odd_values() -> Vec<Value> {
    let names = [
        "",
        "x",
        "any",
        "id",
        "a b",
        "é",
        "*",
        "ANY",
        "ALL",
        "GET",
        "get",
        "/a",
        "/a/{b}",
        "a/",
        "::1",
        "[::1]",
        "h:80",
        "h.",
        "H.example",
    ];
    let texts = [
        "https://x.example/",
        "ftp://x",
        "http://127.0.0.1:9",
        "5m",
        "0s",
        "500ms",
        "30d",
        "5",
        "eu-west-1_Abc",
        "x-a",
        "X-A",
        "host",
        "a\"b",
        "-",
        "allow",
        "json",
        "default",
        "shadow",
        "redirect",
        "Cookie",
        "sec-websocket-key",
        "https://x.example",
        "members",
        "required",
        "true",
        "null",
        "1MiB",
        "1048577",
        "0KiB",
        "a\u{7f}",
    ];
    let texts = names.into_iter().chain(texts).map(Value::from);
    let others = json!([
        null, [], {}, 0, 5, -1, 1.5, 9_007_199_254_740_993_u64, u64::MAX, i64::MIN, true, false, [null], [""], [5], [true], ["x"], ["x", ""],
        ["any"], ["x", "any"], [[]], [{}], {"any": []}, {"any": ["x"]}, {"all": [5]}, {"any": ["x"], "all": null}, {"segment": "x"},
        {"segment": ""}, {"claim": "x"}, {"claim": "x", "equals": 1}, [{"claim": "x", "equals": 1}], {"x": {}}, {"x": null}, {"policy": "default"}
    ]);
    texts.chain(others.as_array().unwrap().iter().cloned()).collect()
}

/// Names of members in all parts of a file, and one unknown name.
const MEMBERS: [&str; 57] = [
    "pools",
    "account",
    "default",
    "policies",
    "routes",
    "case_insensitive",
    "claim_headers",
    "whole_claims_header",
    "remove_authorization",
    "user_pool_id",
    "client_ids",
    "issuers",
    "replica_regions",
    "endpoint",
    "jwks_url",
    "token_use",
    "client_secret_file",
    "pool",
    "client_id",
    "public",
    "optional",
    "clients",
    "audiences",
    "allow_delegated",
    "scopes",
    "groups",
    "claims",
    "max_auth_age",
    "acr",
    "amr",
    "cors_preflight",
    "headers",
    "resource_metadata",
    "mode",
    "cors_origins",
    "from",
    "sign_in",
    "websocket_protocol",
    "websocket_query",
    "any",
    "equals",
    "one_of",
    "contains",
    "host",
    "method",
    "path",
    "json_rpc",
    "max_body",
    "calls",
    "name",
    "except",
    "protected_resources",
    "resource",
    "scopes_supported",
    "redirect_uris",
    "audience",
    "unknown",
];

fn change(document: &mut Value, values: &[Value], random: &mut fastrand::Rng) {
    let ways = all_ways(document);
    let Some(way) = random.choice(&ways) else { return };
    let value = match random.choice(&ways) {
        Some(other) if random.u8(..4) == 0 => at(document, other).clone(),
        _ => random.choice(values).unwrap().clone(),
    };
    let place = at(document, way);
    match place {
        Value::Object(map) if random.bool() => drop(map.insert((*random.choice(&MEMBERS).unwrap()).into(), value)),
        Value::Array(list) if random.bool() => list.push(value),
        place => *place = value,
    }
}

/// Errors that a schema cannot express: names, the flags, other files, and the grammar of paths, URLs, addresses and
/// durations. `docs/policy.md` has the same list.
const ONLY_THE_PROGRAM_KNOWS: [&str; 43] = [
    "paths have no wildcards",
    "there is no pool",
    "there is no policy",
    "no pool accepts",
    "could match the same requests",
    "compares with the segment",
    "is a standard header",
    "is set by another claim",
    "this header is set from the token",
    "a header that only this service sets",
    "the flags define the pool",
    "not the canonical form of this address",
    "an issuer can belong to one pool",
    "name the app client of the account API",
    "does not accept the tokens of the app client",
    "cannot be read",
    "not another region",
    "there is a policy called `default`",
    "plain http to a host other",
    "the URL ",
    "a base URL has no query",
    "is not in plain form",
    "has a brace",
    "has a {segment}",
    "names two segments alike",
    "ends with /",
    "has more than 64",
    "more than 3650 days",
    "it has no requirements for a call",
    "has `json_rpc` itself",
    "but calls have the mode of",
    "plain http is for",
    "not the URL of a resource",
    "not a URI such as",
    "not the scheme of an application",
    "not the canonical form of this URL",
    "a protected resource requires a token",
    "belongs to a protected resource already",
    "which the resource sets",
    "whose audience is the app client",
    "a policy of this resource does not accept",
    "several pools are possible",
    "resources of https://",
];

#[test]
fn the_program_and_the_schema_agree() {
    let checker = tool::program("check-jsonschema");
    let mut random = fastrand::Rng::with_seed(10);
    let values = odd_values();
    let mut documents = Vec::new();
    for (place, Example { document, .. }) in examples().into_iter().enumerate() {
        let mut add = |changed: Value| documents.push((changed, place));
        for way in all_ways(&document) {
            for value in emptied().into_iter().chain([json!(5)]).filter(|_| random.u8(..3) == 0) {
                let mut changed = document.clone();
                *at(&mut changed, &way) = value;
                add(changed);
            }
        }
        for _ in 0..80 {
            let mut changed = document.clone();
            for _ in 0..random.u8(1..3) {
                change(&mut changed, &values, &mut random);
            }
            add(changed);
        }
        add(document);
    }
    let directory = tempfile::tempdir().unwrap();
    let name = |index: usize| directory.path().join(format!("{index}.json"));
    for (index, (document, _)) in documents.iter().enumerate() {
        fs::write(name(index), document.to_string()).unwrap();
    }
    let wrong = by_the_schema(&checker, directory.path(), documents.len());
    assert!(wrong.len() > 1000 && documents.len() - wrong.len() > 100, "{} of {}", wrong.len(), documents.len());
    let mut differences = Vec::new();
    let disks: Vec<Disk> = examples().iter().map(|example| Disk::new(&example.document)).collect();
    for (index, (document, place)) in documents.iter().enumerate() {
        let by_program = disks[*place].fault(document);
        match (by_program, wrong.contains(&name(index).display().to_string())) {
            (None, true) => differences.push(format!("only the schema rejects {document}")),
            (Some(why), false) if !ONLY_THE_PROGRAM_KNOWS.iter().any(|known| why.contains(known)) => {
                differences.push(format!("only the program rejects {document}: {why}"));
            }
            _ => {}
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {}:\n{}",
        differences.len(),
        documents.len(),
        differences[..differences.len().min(12)].join("\n")
    );
}

/// Returns the files that the schema rejects.
fn by_the_schema(checker: &Path, directory: &Path, count: usize) -> BTreeSet<String> {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.schema.json");
    let mut refused = BTreeSet::new();
    // The length of a command line is limited.
    for chunk in (0..count).collect::<Vec<_>>().chunks(2000) {
        let files = chunk.iter().map(|index| directory.join(format!("{index}.json")));
        let output = Command::new(checker)
            .args(["--output-format", "json", "--schemafile"])
            .arg(&schema)
            .args(files)
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["parse_errors"].as_array().map_or(0, Vec::len), 0, "{report}");
        let errors = report["errors"].as_array().unwrap();
        refused.extend(errors.iter().map(|error| error["filename"].as_str().unwrap().to_owned()));
    }
    refused
}
