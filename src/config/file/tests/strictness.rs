//! What a policy file cannot say: nothing, one type for another, and the wildcards of other tools.

use super::{read, refused};

/// A member that is null or empty, and a number or a list in the place of a text or a map.
#[test]
fn null_and_empty_members_are_refused() {
    const NULL: &str = "the value is null: remove the member, or give it a value";
    for (text, expected) in [
        ("null", NULL.to_owned()),
        ("{}", "the file is empty".to_owned()),
        ("policies:\n  m:\n    groups:\n    # any: [a]\n", format!("policies.m.groups: {NULL} at line 3 column 12")),
        ("policies: {m: ~}", format!("policies.m: {NULL} at line 1 column 15")),
        ("policies: {m: []}", "policies.m: expected a map of requirements, found a list at line 1 column 15: write `m: {groups: {any: [admins]}}`".into()),
        ("policies: {m: [true]}", "policies.m: expected a map of requirements, found a list at line 1 column 15: write `m: {groups: {any: [admins]}}`".into()),
        ("policies: {}", "policies: the map is empty: remove the member, or give it a value at line 1 column 11".into()),
        ("policies: {m: {allow_delegated: null}}", format!("policies.m.allow_delegated: {NULL} at line 1 column 33")),
        ("policies: {m: {token_use: }}", format!("policies.m.token_use: {NULL} at line 1 column 27")),
        ("policies: {m: {groups: {any: [null]}}}", format!("policies.m.groups.any[0]: {NULL} at line 1 column 31")),
        (
            "policies: {m: {groups: {any: [5]}}}",
            "policies.m.groups.any[0]: 5 is a number, not a text: a text that looks like one is written in quotes, '5' at line 1 column 31".into(),
        ),
        (
            "policies: {m: {scopes: {any: [true]}}}",
            "policies.m.scopes.any[0]: true is a boolean, not a text: a text that looks like one is written in quotes, 'true' at line 1 column 31".into(),
        ),
        (
            "default: 7\npolicies: {a: {}}",
            "default: 7 is a number, not a text: a text that looks like one is written in quotes, '7' at line 1 column 10".into(),
        ),
        ("policies: {m: !x {}}", "policies.m: a YAML tag means nothing here: remove it at line 1 column 15".into()),
        (
            "policies: {m: {claims: [{claim: a, equals: ''}]}}",
            "policies.m.claims[0].equals: the text is empty: remove the member, or give it a value at line 1 column 44".into(),
        ),
        (
            "policies: {m: {claims: [{claim: a, equals: 18446744073709551616}]}}",
            "policies.m.claims[0].equals: the number cannot be compared exactly; write an integer of 64 bits, or below 2^53 if it has a point or an exponent at line 1 column 44".into(),
        ),
        (
            "policies: {m: {claims: [{claim: a, equals: 9007199254740993.0}]}}",
            "policies.m.claims[0].equals: the number cannot be compared exactly; write an integer of 64 bits, or below 2^53 if it has a point or an exponent at line 1 column 44".into(),
        ),
    ] {
        refused(text, &expected);
    }
    assert!(read("routes: []\nclaim_headers: []").is_ok(), "these may be empty");
}

/// What other tools write for every host and every method, and what no request can match.
#[test]
fn signs_of_other_tools_are_refused() {
    for (member, why) in [
        ("method: '*'", "\"*\" is not a method: a route without `method` matches every method"),
        ("method: ANY", "\"ANY\" is not a method: a route without `method` matches every method"),
        ("method: all", "\"all\" is not a method: a route without `method` matches every method"),
        ("host: '*'", "\"*\" is not a host name: there are no wildcards; a route without `host` matches every host"),
        (
            "host: '*.a.example'",
            "\"*.a.example\" is not a host name: there are no wildcards; a route without `host` matches every host",
        ),
        ("host: .a.example", "\".a.example\" is not a host name"),
        ("host: a..example", "\"a..example\" is not a host name"),
        ("host: 'https://a.example'", "\"https://a.example\" is not a host name"),
        ("host: '::1'", "\"::1\" is not the canonical form of this address: write [::1]"),
        ("host: '[::0001]'", "\"[::0001]\" is not the canonical form of this address: write [::1]"),
        ("host: '2001:DB8::1'", "\"2001:DB8::1\" is not the canonical form of this address: write [2001:db8::1]"),
    ] {
        let column = member.find(' ').unwrap() + 5;
        let name = &member[..column - 6];
        let text = format!("default: m\npolicies: {{m: {{}}}}\nroutes:\n- {{{member}, policy: m}}");
        refused(&text, &format!("routes[0].{name}: {why} at line 4 column {column}"));
    }
    for host in ["[::1]", "a.example", "A.example", "localhost", "10.0.0.1", "under_score"] {
        let text = format!("default: m\npolicies: {{m: {{}}}}\nroutes:\n- {{host: '{host}', policy: m}}");
        assert_eq!(read(&text).err(), None, "{host}");
    }
    let rules = read("default: m\npolicies: {m: {}}\nroutes: [{method: [GET, DELTE], policy: m}]").unwrap();
    assert!(
        rules.warnings[0].contains("the method DELTE, which is not a registered HTTP method"),
        "{:?}",
        rules.warnings
    );
}
