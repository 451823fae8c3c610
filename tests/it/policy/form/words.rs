//! Errors about values of a wrong type: they name the member, and no type of Rust.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Disk, all_ways, at, config, everything};
use crate::support::token::unix_now;

/// Words of serde and Rust that mean nothing to the author of a policy file.
const FOREIGN: [&str; 17] = [
    "struct",
    "enum",
    "variant",
    "newtype",
    "untagged",
    "tuple",
    "sequence",
    "identifier",
    "invalid type",
    "unknown field",
    "missing field",
    "Entry",
    "Option",
    "u16",
    "i64",
    "f64",
    "Unexpected",
];

/// A value of each type.
fn values() -> [Value; 7] {
    [json!([]), json!(["a"]), json!({"a": "b"}), json!(5), json!("\u{1f980}"), json!(null), json!(true)]
}

/// Name of the member that a path ends in, or of the list.
fn member(way: &[Value]) -> &str {
    way.iter().rev().find_map(Value::as_str).unwrap_or_default()
}

fn assert_plain(error: &str, member: &str, what: &str) {
    for word in FOREIGN {
        let is_word = error.split(|c: char| !c.is_alphanumeric() && c != ' ' && c != '_').any(|part| {
            part.split(' ').any(|part| part == word)
                || (word.contains(' ') && part.contains(word))
                || part.ends_with("Entry")
        });
        assert!(!is_word, "{word}: {error}\nfor {what}");
    }
    // Another value of the same type can have a fault at another place, such as a reference to it.
    let is_of_type =
        [", found ", "the value is null", ", not a text", " is empty"].iter().any(|part| error.contains(part));
    assert!(!is_of_type || error.contains(member), "{member} is not named: {error}\nfor {what}");
}

#[test]
fn errors_about_types_of_a_policy_file_are_in_plain_words() {
    let mut described = BTreeSet::new();
    let document = everything();
    let disk = Disk::new(&document);
    for way in all_ways(&document) {
        for value in values() {
            let mut changed = document.clone();
            *at(&mut changed, &way) = value;
            let Some(error) = disk.fault(&changed) else { continue };
            described.insert(member(&way).to_owned());
            assert_plain(&error, member(&way), &changed.to_string());
        }
    }
    let members: BTreeSet<String> = all_ways(&document).iter().map(|way| member(way).to_owned()).collect();
    assert!(members.is_subset(&described), "{:?}", members.difference(&described));
}

#[tokio::test]
async fn errors_about_types_of_a_table_are_in_plain_words() {
    let table = json!({"tests": [{
        "name": "n",
        "request": {"method": "GET", "host": "h", "path": "/", "policy": "p", "headers": {"x-a": "b"}, "body": "c"},
        "token": {
            "pool": "default", "token_use": "access", "client_id": "c", "scope": "s", "groups": ["g"], "expires_in": "5m",
            "auth_age": "1h", "claims": {"a": 1}, "signed": true,
        },
        "expect": {
            "decision": "deny", "reason": "expired", "shadow_reason": "expired", "status": 401, "location": "/", "policy": "p",
            "requirement": "r", "headers": {"x-a": "b"},
        },
    }]});
    let disk = Disk::new(&everything());
    let file = disk.path("table.json");
    let mut described = BTreeSet::new();
    for way in all_ways(&table) {
        for value in values() {
            let mut changed = table.clone();
            *at(&mut changed, &way) = value;
            fs::write(&file, changed.to_string()).unwrap();
            let config = config(Path::new(&file).parent().unwrap(), &disk.flags);
            let Err(error) = Box::pin(cognito_authz::test_policy::run(*config, &file, unix_now())).await else {
                continue;
            };
            described.insert(member(&way).to_owned());
            assert_plain(&error.to_string(), member(&way), &changed.to_string());
        }
    }
    for name in [
        "tests",
        "request",
        "token",
        "expect",
        "reason",
        "status",
        "pool",
        "groups",
        "expires_in",
        "signed",
        "decision",
    ] {
        assert!(described.contains(name), "{name}: {described:?}");
    }
}
