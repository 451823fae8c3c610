mod resources;
mod size;
mod strictness;

use serde_json::json;

use super::PolicyFile;
use crate::authz::SignIn;
use crate::authz::{Access, RequestContext, Requirements};
use crate::config::compile::compile;
use crate::config::policy::{CompiledPolicy, PolicySource, SignInSource};
use crate::user_pool::{AcceptedUse, Clients, UserPool};

fn source() -> PolicySource {
    let clients = Clients::Only(vec!["web".parse().unwrap(), "machine".parse().unwrap()]);
    let pool = UserPool::new("default", "eu-west-1_Flags".parse().unwrap(), clients, AcceptedUse::Access);
    PolicySource {
        pool: Some(pool.unwrap()),
        header_prefix: "x-auth-".parse().unwrap(),
        allow_insecure_endpoints: false,
        browser_sessions: None,
        sign_in: SignInSource { routes: SignIn::below("/auth"), missing: vec!["--account-cookies".into()] },
        file: None,
    }
}

/// The single place that reads a file's text.
fn read(text: &str) -> Result<CompiledPolicy, String> {
    let form = PolicyFile::read(text)?;
    compile(form, &source()).map_err(|faults| faults.describe(text).unwrap().lines().join("\n"))
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = read(text).err().unwrap_or_else(|| panic!("it passes:\n{text}"));
    assert_eq!(error, expected, "in:\n{text}");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, expected) in [
        ("", "the file is empty"),
        ("# a comment\n---\n", "the file is empty"),
        ("[]", "expected a map of pools, policies and routes, found a list"),
        ("polices: {}", "polices: unknown member at line 1 column 1; did you mean policies?"),
        ("routes: []\ncase_insensitive: false\nroutes: []", "routes: another member has this name at line 3 column 1"),
        (
            "case_insensitive: yes",
            "case_insensitive: expected `true` or `false`, found the text \"yes\" at line 1 column 19",
        ),
        ("policies:\n  m: {}\n  m: {}", "policies.m: another member has this name at line 3 column 3"),
        (
            "policies: {\"a b\": {}}",
            "policies.a b: \"a b\" is not a name of 1 to 63 letters, digits, '.', '_' and '-' at line 1 column 12",
        ),
        (
            "policies: {m: {public: true, optional: true}}",
            "policies.m.optional: a public policy ignores tokens; remove `public` or `optional` at line 1 column 40",
        ),
        (
            "policies: {m: {public: true, groups: {any: [a]}}}",
            "policies.m.groups: a public or optional policy allows requests without a token, so it cannot have requirements at line 1 column 38",
        ),
        (
            "policies: {m: {optional: true, allow_delegated: false}}",
            "policies.m.allow_delegated: a public or optional policy allows requests without a token, so it cannot have requirements at line 1 column 49",
        ),
        ("policies: {m: {groups: {}}}", "policies.m.groups: `any` or `all` is required at line 1 column 24"),
        (
            "policies: {m: {groups: {any: [a, '']}}}",
            "policies.m.groups.any[1]: the text is empty: remove the member, or give it a value at line 1 column 34",
        ),
        (
            "policies: {m: {scopes: {all: ['a b']}}}",
            "policies.m.scopes.all[0]: \"a b\" is not a text of printable ASCII characters without spaces, quotes and backslashes at line 1 column 31",
        ),
        ("policies: {m: {pools: [other]}}", "policies.m.pools[0]: there is no pool other at line 1 column 24"),
        (
            "policies: {m: {clients: [web, other]}}",
            "policies.m.clients[1]: no pool accepts the app client other at line 1 column 31",
        ),
        (
            "policies: {m: {token_use: id}}",
            "policies.m.token_use: no pool accepts tokens of this kind (its token_use, or --token-use) at line 1 column 27",
        ),
        (
            "policies: {m: {claims: [{claim: a}]}}",
            "policies.m.claims[0]: a claim has one of `equals`, `one_of` and `contains` at line 1 column 25",
        ),
        (
            "policies: {m: {claims: [{claim: a, equals: 1, contains: 1}]}}",
            "policies.m.claims[0]: a claim has one of `equals`, `one_of` and `contains` at line 1 column 25",
        ),
        (
            "policies: {m: {claims: [{claim: [a, ''], equals: 1}]}}",
            "policies.m.claims[0].claim[1]: the text is empty: remove the member, or give it a value at line 1 column 37",
        ),
        (
            "policies: {m: {claims: [{claim: a, one_of: []}]}}",
            "policies.m.claims[0].one_of: the list is empty: remove the member, or give it a value at line 1 column 44",
        ),
        (
            "policies: {m: {claims: [{claim: a, equals: .nan}]}}",
            "policies.m.claims[0].equals: not a JSON number at line 1 column 44",
        ),
        (
            "policies: {m: {claims: [{claim: a, equals: {segmant: b}}]}}",
            "policies.m.claims[0].equals.segmant: unknown member at line 1 column 45; did you mean segment?",
        ),
        (
            "policies: {m: {max_auth_age: 5}}",
            "policies.m.max_auth_age: 5 is a number, not a text: a text that looks like one is written in quotes, '5' at line 1 column 30",
        ),
        (
            "policies: {m: {max_auth_age: 500ms}}",
            "policies.m.max_auth_age: \"500ms\" is not a whole number of seconds such as 30s, 5m, 12h or 30d at line 1 column 30",
        ),
        (
            "policies: {m: {max_auth_age: 3651d}}",
            "policies.m.max_auth_age: \"3651d\" is more than 3650 days at line 1 column 30",
        ),
        (
            "policies: {m: {resource_metadata: 'http://api.example/'}}",
            "policies.m.resource_metadata: plain http to a host other than loopback needs --allow-insecure-endpoints at line 1 column 35",
        ),
        (
            "policies: {m: {headers: {x-auth-sub: a}}}",
            "policies.m.headers.x-auth-sub: this header is set from the token at line 1 column 38",
        ),
        (
            "policies: {m: {headers: {x-a: ' b'}}}",
            "policies.m.headers.x-a: \" b\" is not 1 to 1024 printable ASCII characters without spaces at the edges at line 1 column 31",
        ),
        (
            "policies: {m: {headers: {host: b}}}",
            "policies.m.headers.host: \"host\" is a header that is not ours to set at line 1 column 26",
        ),
        (
            "claim_headers: [{claim: a, header: x-auth-sub}]",
            "claim_headers[0].header: x-auth-sub is a standard header at line 1 column 36",
        ),
        (
            "claim_headers: [{claim: a, header: x-a}, {claim: b, header: x-a}]",
            "claim_headers[1].header: x-a is set by another claim at line 1 column 61",
        ),
        (
            "claim_headers: [{claim: a, header: x-a}]\nwhole_claims_header: x-a",
            "whole_claims_header: x-a is set by another claim at line 2 column 22",
        ),
        ("default: m", "default: there is no policy m at line 1 column 10"),
        (
            "default: m\npolicies: {m: {}, default: {}}",
            "default: there is a policy called `default`, but m is the default policy; rename the former at line 1 column 10",
        ),
        (
            "policies: {m: {}}\nroutes: [{path: /a, policy: m}]",
            "routes: a file with `routes` needs the member `default`, which names a policy at line 2 column 9",
        ),
        (
            "default: m\npolicies: {m: {claims: [{claim: a, equals: {segment: s}}]}}",
            "default: this policy compares with the segment {s}, which only a route can provide at line 1 column 10",
        ),
    ] {
        refused(text, expected);
    }
}

#[test]
fn sign_ins_may_be_weeks_ago() {
    let rules = read("policies: {m: {max_auth_age: 30d}}").unwrap();
    let policy = rules.policies.iter().find(|policy| &*policy.name == "m").unwrap();
    let Access::Required(requirements) = &policy.access else { panic!("nothing is asked for") };
    assert_eq!(requirements.max_auth_age.map(|(_, seconds)| seconds), Some(30 * 86_400));
}

#[test]
fn routes_are_judged_when_they_are_read() {
    let text = |routes: &str| {
        format!(
            "default: m\npolicies: {{m: {{}}, t: {{claims: [{{claim: a, contains: {{segment: s}}}}]}}}}\nroutes:\n{routes}"
        )
    };
    for (routes, expected) in [
        ("- {policy: m}", "routes[0]: this route matches every request; use `default` instead at line 4 column 3"),
        ("- {path: /a, policy: x}", "routes[0].policy: there is no policy x at line 4 column 22"),
        (
            "- {path: /a, path_prefix: /a, policy: m}",
            "routes[0].path_prefix: conflicts with `path`; remove one of the two at line 4 column 27",
        ),
        (
            "- {path: a, policy: m}",
            "routes[0].path: \"a\" is not a path, because it does not begin with / at line 4 column 10",
        ),
        (
            "- {path: /a/../b, policy: m}",
            "routes[0].path: \"/a/../b\" is not in plain form: such a request is refused before any route is looked at at line 4 column 10",
        ),
        (
            "- {path: '/a?b', policy: m}",
            "routes[0].path: \"/a?b\" has `?`, and paths have no wildcards and no regular expressions: `path_prefix: /a` is /a and everything below, {name} is any one segment at line 4 column 10",
        ),
        (
            "- {path: '/a{b}', policy: m}",
            "routes[0].path: \"/a{b}\" has a brace within a segment: a {name} stands for a whole segment, and other braces are written %7B and %7D at line 4 column 10",
        ),
        (
            "- {path: '/{}', policy: m}",
            "routes[0].path: \"/{}\" has a {segment} whose name is not of letters, digits and _ at line 4 column 10",
        ),
        (
            "- {path: '/{a}/{a}', policy: m}",
            "routes[0].path: \"/{a}/{a}\" names two segments alike at line 4 column 10",
        ),
        (
            "- {path_prefix: /a/, policy: m}",
            "routes[0].path_prefix: \"/a/\" ends with /: a prefix matches whole segments, with and without what follows at line 4 column 17",
        ),
        ("- {host: 'a b', policy: m}", "routes[0].host: \"a b\" is not a host name at line 4 column 10"),
        (
            "- {host: [A.example, 'b:80'], policy: m}",
            "routes[0].host[1]: \"b:80\" is not a host without port and trailing dot: write b at line 4 column 22",
        ),
        (
            "- {host: [], policy: m}",
            "routes[0].host: the list is empty: remove the member, or give it a value at line 4 column 10",
        ),
        (
            "- {method: get, policy: m}",
            "routes[0].method: \"get\" is not a method in upper case (methods are case-sensitive): write GET at line 4 column 12",
        ),
        ("- {method: 'A B', policy: m}", "routes[0].method: \"A B\" is not a method at line 4 column 12"),
        (
            "- {path: '/{x}', policy: t}",
            "routes[0].policy: the policy t compares with the segment {s}, which this path does not have at line 4 column 26",
        ),
        (
            "- {host: h, policy: t}",
            "routes[0].policy: the policy t compares with the segment {s}, which this path does not have at line 4 column 21",
        ),
        (
            "- {path: /a, policy: m}\n- {path: /a, policy: m}",
            "routes[1]: * * /a could match the same requests as routes[0], * * /a, and neither takes precedence at line 5 column 3",
        ),
        (
            "- {path: '/a/{x}', method: [GET, PUT], policy: m}\n- {path: '/{x}/b', method: PUT, policy: m}",
            "routes[1]: PUT * /{x}/b could match the same requests as routes[0], GET,PUT * /a/{x}, and neither takes precedence at line 5 column 3",
        ),
        (
            "- {path_prefix: '/{a}', policy: m}\n- {path_prefix: '/{b}', policy: m}",
            "routes[1]: * * /{b}/… could match the same requests as routes[0], * * /{a}/…, and neither takes precedence at line 5 column 3",
        ),
        (
            "- {host: [a, b], policy: m}\n- {host: [b, c], policy: m}",
            "routes[1]: * b,c * could match the same requests as routes[0], * a,b *, and neither takes precedence at line 5 column 3",
        ),
    ] {
        refused(&text(routes), expected);
    }
    for routes in [
        "- {path: '/{s}', policy: t}",
        "- {path: /a, method: GET, policy: m}\n- {path: /a, method: PUT, policy: m}",
        "- {path: /a, host: A.example, policy: m}\n- {path: /a, policy: m}",
        "- {path: '/a/{x}', policy: m}\n- {path: '/b/{x}', policy: m}\n- {path: '/{x}/{y}', policy: m}\n- {path: '/{x}', policy: m}",
        "- {path: /A, policy: m}\n- {path: /a, policy: m}",
        "- {path: '/a/{x}', policy: m}\n- {path: '/{x}/', policy: m}",
    ] {
        assert!(read(&text(routes)).is_ok(), "{routes}: {:?}", read(&text(routes)).err());
    }
    let folded = format!("case_insensitive: true\n{}", text("- {path: /A, policy: m}\n- {path: /a, policy: m}"));
    assert!(read(&folded).is_err_and(|error| error.contains("neither takes precedence")), "both are /a");
}

#[test]
fn pools_come_with_everything_the_flags_can_say() {
    let rules = read(
        "pools:\n  b: {user_pool_id: us-east-1_B, client_ids: any, token_use: id, replica_regions: [eu-west-1]}\n  \
         c: {user_pool_id: cn-north-1_C, client_ids: [x, y], issuers: [https://idp.test/c], jwks_url: https://idp.test/keys}\n  \
         d: {user_pool_id: eusc-de-east-1_D, client_ids: x, endpoint: 'http://127.0.0.1:9'}\n\
         account: {pool: d}\n",
    )
    .unwrap();
    let shown: Vec<_> = rules
        .pools
        .iter()
        .map(|(pool, _)| {
            let urls: Vec<_> = pool.jwks_urls.iter().map(url::Url::as_str).collect();
            json!([pool.name, pool.issuers, urls, pool.endpoint.as_str()])
        })
        .collect();
    let names = |host: &str, id: &str| {
        [format!("https://cognito-idp.{host}/{id}"), format!("https://issuer-cognito-idp.{host}/{id}")]
    };
    let keys = |issuers: &[String; 2]| issuers.clone().map(|issuer| format!("{issuer}/.well-known/jwks.json"));
    let [flags, b, d] = [
        ("eu-west-1.amazonaws.com", "eu-west-1_Flags"),
        ("us-east-1.amazonaws.com", "us-east-1_B"),
        ("eusc-de-east-1.amazonaws.eu", "eusc-de-east-1_D"),
    ]
    .map(|(host, id)| names(host, id));
    let with_replica = [&b[..], &["https://cognito-idp.eu-west-1.amazonaws.com/us-east-1_B".to_owned()]].concat();
    let expected = [
        json!(["default", flags, keys(&flags), "https://cognito-idp.eu-west-1.amazonaws.com/"]),
        json!(["b", with_replica, keys(&b), "https://cognito-idp.us-east-1.amazonaws.com/"]),
        json!([
            "c",
            ["https://idp.test/c"],
            ["https://idp.test/keys"],
            "https://cognito-idp.cn-north-1.amazonaws.com.cn/"
        ]),
        json!(["d", d, ["http://127.0.0.1:9/eusc-de-east-1_D/.well-known/jwks.json"], "http://127.0.0.1:9/"]),
    ];
    assert_eq!(shown, expected);
    let account = rules.account.unwrap();
    assert_eq!((&*account.pool, account.client_id.as_str()), ("d", "x"), "its only client");
    assert_eq!(rules.warnings, ["the tokens of every app client of the pool b are accepted (client_ids: any)"]);
}

#[test]
fn pools_that_cannot_work_are_refused() {
    let pool = |members: &str| format!("pools:\n  p: {{user_pool_id: eu-west-1_P, {members}}}");
    for (text, expected) in [
        (
            pool("client_ids: []"),
            "pools.p.client_ids: the list is empty: remove the member, or give it a value at line 2 column 46",
        ),
        (
            pool("client_ids: [a, any]"),
            "pools.p.client_ids: `any` accepts every app client; remove it or the other app clients at line 2 column 46",
        ),
        (pool("token_use: id"), "pools.p: the member `client_ids` is missing at line 2 column 6"),
        (
            pool("client_ids: a, endpoint: 'http://idp.test'"),
            "pools.p.endpoint: plain http to a host other than loopback needs --allow-insecure-endpoints at line 2 column 59",
        ),
        (
            pool("client_ids: a, jwks_url: 'ftp://idp.test'"),
            "pools.p.jwks_url: \"ftp://idp.test\" is not an https:// URL at line 2 column 59",
        ),
        (
            pool("client_ids: a, issuers: [x], replica_regions: [us-east-1]"),
            "pools.p.issuers: `issuers` replaces all issuers, so `replica_regions` has no effect; remove one of the two at line 2 column 58",
        ),
        (
            pool("client_ids: a, replica_regions: [eu-west-1]"),
            "pools.p.replica_regions[0]: not another region such as us-east-1 at line 2 column 67",
        ),
        (
            pool("client_ids: a, jwks_file: /nonexistent/x"),
            "pools.p.jwks_file: /nonexistent/x cannot be read: No such file or directory (os error 2) at line 2 column 60",
        ),
        (
            "pools: {default: {user_pool_id: eu-west-1_P, client_ids: a}}".into(),
            "pools.default: the flags define the pool default, too (--user-pool-id) at line 1 column 18",
        ),
        (
            "pools: {p: {user_pool_id: eu-west-1_Flags, client_ids: a}}".into(),
            "pools.p: the pool default has the issuer https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Flags, too; an issuer can belong to one pool only at line 1 column 12",
        ),
        ("account: {pool: p}".into(), "account.pool: there is no pool p at line 1 column 17"),
        (
            "account: {pool: default}".into(),
            "account: the pool default accepts several app clients or `any`; name the app client of the account API in `client_id` at line 1 column 10",
        ),
        (
            "account: {pool: default, client_id: other}".into(),
            "account.client_id: the pool default does not accept the tokens of the app client other at line 1 column 37",
        ),
    ] {
        refused(&text, expected);
    }
}

#[test]
fn the_default_policy_has_a_name_and_asks_for_a_token() {
    for (text, name) in [
        ("case_insensitive: true", "default"),
        ("policies: {a: {public: true}}", "default"),
        ("policies: {a: {public: true}, default: {}}", "default"),
        ("default: b\npolicies: {a: {public: true}, b: {}}", "b"),
    ] {
        let rules = read(text).unwrap();
        let chosen = rules.policies.choose(&RequestContext { path: b"/", ..RequestContext::default() }).unwrap();
        assert_eq!(&*chosen.policy.name, name, "{text}");
        assert!(
            matches!(&chosen.policy.access, Access::Required(requirements) if **requirements == Requirements::default()),
            "{text}"
        );
    }
}

#[test]
fn what_is_odd_is_a_warning() {
    let rules = read(
        "default: m\npolicies: {m: {claims: [{claim: 'custom:level', equals: 5}]}, c: {cors_preflight: allow}}\n\
         routes: [{method: [GET, PUT], policy: c}, {method: [OPTIONS, DELETE], policy: c}]",
    )
    .unwrap();
    assert_eq!(rules.warnings.len(), 2, "{:?}", rules.warnings);
    assert!(rules.warnings[0].starts_with("claims.custom:level: Cognito writes custom attributes into tokens as text"));
    assert!(
        rules.warnings[1].starts_with("the route GET,PUT * * never matches the preflights that its policy c allows")
    );
}

#[test]
fn members_for_browsers_and_shadow_mode_are_judged() {
    for (members, why) in [
        ("{public: true, mode: shadow}", "mode: a public policy denies nothing; remove `public` or `mode`"),
        ("{public: true, from: {header: x-t}}", "from: a public policy ignores tokens; remove `public` or `from`"),
        ("{public: true, sign_in: redirect}", "sign_in: a public policy denies nothing; remove `public` or `sign_in`"),
        ("{sign_in: yes}", "sign_in: expected `redirect`, found \"yes\""),
        (
            "{sign_in: redirect}",
            "sign_in: browsers are redirected to the sign-in of the account API, which needs --account-cookies at",
        ),
        ("{mode: dry}", "mode: expected `enforce` or `shadow`, found \"dry\""),
        ("{from: {}}", "from: `header`, `websocket_protocol` or `websocket_query` is required"),
        ("{from: {header: Cookie}}", "from.header: \"Cookie\" is a header that has another meaning"),
        ("{from: {websocket_protocol: 'a b'}}", "from.websocket_protocol: \"a b\" is not the name of a subprotocol"),
        ("{from: {websocket_query: 'a=b'}}", "from.websocket_query: \"a=b\" is not the name of a query parameter"),
        (
            "{from: {header: X-Auth-Token}}",
            "from.header: x-auth-token is, or reads as, a header that only this service",
        ),
        ("{from: {header: x-gate}}", "from.header: x-gate is, or reads as, a header that only this service sets"),
        ("{cors_origins: []}", "cors_origins: the list is empty"),
        ("{cors_origins: ['*']}", "cors_origins[0]: \"*\" is not valid: every origin (*) is not an origin"),
        ("{cors_origins: ['https://a.example/']}", "cors_origins[0]: \"https://a.example/\" is not an origin such as"),
        ("{cors_origins: ['https://a.example:443']}", "cors_origins[0]: \"https://a.example:443\" is not an origin"),
    ] {
        let text = format!("default: d\npolicies: {{m: {members}, d: {{headers: {{x-gate: a}}}}}}");
        let error = read(&text).err().unwrap_or_else(|| panic!("it passes:\n{text}"));
        assert!(error.starts_with(&format!("policies.m.{why}")), "{error}");
        assert!(error.contains(" at line 2 column "), "{error}");
    }
    let rules = read("policies: {default: {mode: enforce}, m: {optional: true, mode: shadow}}").unwrap();
    assert_eq!(rules.warnings.len(), 1, "{:?}", rules.warnings);
    assert!(rules.warnings[0].starts_with("the policy m is in shadow mode (mode: shadow)"));
    // A route in shadow mode opens what another route protects.
    let rules = "default: m\npolicies: {m: {}, s: {mode: shadow, groups: {any: [a]}}, a: {groups: {any: [a]}}}\n\
                 routes: [{path: '/{x}/health', policy: s}, {path_prefix: /admin, policy: a}]";
    let warnings = read(rules).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("opens part of what routes[1]")), "{warnings:?}");
}
