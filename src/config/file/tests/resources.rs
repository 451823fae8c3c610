//! Protected resources: their faults, with their place, and what their policies get.

use super::*;

/// A file with one resource of the policy `mcp`, with these further members.
fn with(members: &str) -> String {
    format!(
        "protected_resources: [{{resource: 'https://mcp.example/mcp', policy: mcp{members}}}]\npolicies: {{mcp: {{}}}}"
    )
}

/// A file with a second pool, `two`, that accepts any app client.
fn two_pools(text: &str) -> String {
    format!("pools: {{two: {{user_pool_id: eu-west-1_Two, client_ids: [any]}}}}\n{text}")
}

fn requirements_of<'p>(policy: &'p CompiledPolicy, name: &str) -> &'p Requirements {
    match &policy.policies.iter().find(|policy| *policy.name == *name).unwrap().access {
        Access::Required(requirements) => requirements,
        other => panic!("{other:?}"),
    }
}

#[test]
fn faults_are_said_with_their_place() {
    let url = |url: &str| format!("protected_resources: [{{resource: '{url}', policy: mcp}}]\npolicies: {{mcp: {{}}}}");
    let policy = |policy: &str| {
        format!(
            "protected_resources: [{{resource: 'https://mcp.example/mcp', policy: mcp}}]\npolicies: {{mcp: {policy}}}"
        )
    };
    let two = |one: &str, other: &str| {
        format!("protected_resources: [{{policy: a, {one}}}, {{policy: b, {other}}}]\npolicies: {{a: {{}}, b: {{}}}}")
    };
    let client = "client_id: web, redirect_uris: ['http://localhost/']";
    let mut wrong = Vec::new();
    let (first, second) = ("resource: 'https://m.example/a'", "resource: 'https://m.example/b'");
    for (text, expected) in [
        (
            "protected_resources: []".to_owned(),
            "protected_resources: the list is empty: remove the member, or give it a value at line 1 column 22",
        ),
        (
            "protected_resources: [{policy: mcp}]".to_owned(),
            "protected_resources[0]: the member `resource` is missing at line 1 column 23",
        ),
        (
            "protected_resources: [{resource: 'https://mcp.example'}]".to_owned(),
            "protected_resources[0]: the member `policy` is missing at line 1 column 23",
        ),
        (
            with(", scopes: [a]"),
            "protected_resources[0].scopes: unknown member at line 1 column 74; did you mean scopes_supported?",
        ),
        (url("mcp"), "protected_resources[0].resource: \"mcp\" is not the URL of a resource, such as https://mcp.example.com/mcp at line 1 column 34"),
        (
            url("http://mcp.example/"),
            "protected_resources[0].resource: \"http://mcp.example/\" is not an https:// URL; plain http is for loopback hosts at line 1 column 34",
        ),
        (
            url("https://mcp.example/mcp?a=b"),
            "protected_resources[0].resource: \"https://mcp.example/mcp?a=b\" is not the URL of a resource: it has no user, query or fragment at line 1 column 34",
        ),
        (
            url("https://mcp.example/mcp#"),
            "protected_resources[0].resource: \"https://mcp.example/mcp#\" is not the URL of a resource: it has no user, query or fragment at line 1 column 34",
        ),
        (
            url("https://u@mcp.example/mcp"),
            "protected_resources[0].resource: \"https://u@mcp.example/mcp\" is not the URL of a resource: it has no user, query or fragment at line 1 column 34",
        ),
        (
            url("https://MCP.example:443/a/../mcp"),
            "protected_resources[0].resource: \"https://MCP.example:443/a/../mcp\" is not the canonical form of this URL: write https://mcp.example/mcp at line 1 column 34",
        ),
        (
            url("https://mcp.example/mcp \""),
            "protected_resources[0].resource: \"https://mcp.example/mcp \\\"\" is not the URL of a resource, such as https://mcp.example.com/mcp at line 1 column 34",
        ),
        (with(", audience: always"), "protected_resources[0].audience: expected `required` or `if_present`, found \"always\" at line 1 column 84"),
        (with(", policy: [a]"), "protected_resources[0].policy: another member has this name at line 1 column 74"),
        (
            "protected_resources: [{resource: 'https://mcp.example', policy: [mcp, mpc]}]\npolicies: {mcp: {}}".to_owned(),
            "protected_resources[0].policy[1]: there is no policy mpc at line 1 column 71; did you mean mcp?",
        ),
        (
            "protected_resources: [{resource: 'https://mcp.example', policy: default}]\ndefault: mcp\npolicies: {mcp: {}}".to_owned(),
            "protected_resources[0].policy: there is no policy default at line 1 column 65",
        ),
        (
            policy("{public: true}"),
            "protected_resources[0].policy: the policy mcp is public or optional, and a protected resource requires a token at line 1 column 69",
        ),
        (
            policy("{optional: true}"),
            "protected_resources[0].policy: the policy mcp is public or optional, and a protected resource requires a token at line 1 column 69",
        ),
        (
            policy("{resource_metadata: 'https://mcp.example/meta'}"),
            "protected_resources[0].policy: the policy mcp has the member `resource_metadata`, which the resource sets; remove it at line 1 column 69",
        ),
        (
            "protected_resources: [{resource: 'https://mcp.example', policy: [mcp, mcp]}]\npolicies: {mcp: {}}".to_owned(),
            "protected_resources[0].policy[1]: the policy mcp belongs to a protected resource already at line 1 column 71",
        ),
        (
            "protected_resources: [{resource: 'https://a.example', policy: mcp}, {resource: 'https://b.example', policy: mcp}]\npolicies: {mcp: {}}".to_owned(),
            "protected_resources[1].policy: the policy mcp belongs to a protected resource already at line 1 column 109",
        ),
        (with(", client_id: web"), "protected_resources[0].client_id: `redirect_uris` is required with `client_id` at line 1 column 85"),
        (
            with(", redirect_uris: ['http://localhost/']"),
            "protected_resources[0].redirect_uris: `client_id` is required with `redirect_uris` at line 1 column 89",
        ),
        (
            with(", client_id: web, redirect_uris: ['http://app.example/']"),
            "protected_resources[0].redirect_uris[0]: \"http://app.example/\" is not valid: plain http is for this machine only at line 1 column 106",
        ),
        (
            with(", client_id: other, redirect_uris: ['http://localhost/']"),
            "protected_resources[0].client_id: no pool accepts this app client, access tokens, and the policies of this resource at line 1 column 85",
        ),
        (
            policy("{clients: [machine]}").replace("policy: mcp", &format!("policy: mcp, {client}")),
            "protected_resources[0].client_id: a policy of this resource does not accept the app client web at line 1 column 85",
        ),
        (with(", pool: other"), "protected_resources[0].pool: there is no pool other at line 1 column 80"),
        (
            two_pools(&with("")),
            "protected_resources[0]: several pools are possible; name the one whose sign-in pages clients use in `pool` at line 2 column 23",
        ),
        (
            two_pools(&with(", pool: two").replace("mcp: {}", "mcp: {pools: [default]}")),
            "protected_resources[0].policy: no pool accepts access tokens and all policies of this resource at line 2 column 69",
        ),
        (
            two_pools(
                "protected_resources: [{resource: 'https://m.example', policy: [a, b]}]\npolicies: {a: {pools: [default]}, b: {pools: [two]}}",
            ),
            "protected_resources[0].policy: no pool accepts access tokens and all policies of this resource at line 2 column 63",
        ),
        (two(first, first), "protected_resources[1].resource: another protected resource has this identifier at line 1 column 91"),
        (
            two("resource: 'https://m.example'", "resource: 'https://m.example/'"),
            "protected_resources[1].resource: another protected resource has this identifier at line 1 column 89",
        ),
        (
            two("resource: 'http://localhost:8443/a'", "resource: 'https://localhost:8443/b'"),
            "protected_resources[1].resource: http://localhost:8443 has this host and port, too at line 1 column 95",
        ),
        (
            two(&format!("{first}, {client}"), second),
            "protected_resources[1]: resources of https://m.example have one `client_id` at line 1 column 123",
        ),
        (
            two(first, &format!("{second}, {client}")),
            "protected_resources[1].client_id: resources of https://m.example have one `client_id` at line 1 column 125",
        ),
        (
            two(&format!("{first}, {client}"), &format!("{second}, {}", client.replace("web", "machine"))),
            "protected_resources[1].client_id: resources of https://m.example have one `client_id` at line 1 column 179",
        ),
        (
            two_pools(&two(&format!("{first}, pool: default"), &format!("{second}, pool: two"))),
            "protected_resources[1]: resources of https://m.example have one pool; set `pool` alike at line 2 column 84",
        ),
    ] {
        let found = read(&text).err().unwrap_or_else(|| panic!("it passes:\n{text}"));
        if found != expected {
            wrong.push(format!("{text}\n  {found}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let id_tokens = |audience: &str| {
        format!(
            "pools: {{two: {{user_pool_id: eu-west-1_Two, client_ids: [any], token_use: any}}}}\nprotected_resources: [{{resource: \
             'https://m.example', policy: mcp, pool: two{audience}}}]\npolicies: {{mcp: {{token_use: id}}}}"
        )
    };
    refused(
        &id_tokens(", audience: required"),
        "protected_resources[0].policy: the policy mcp requires ID tokens, whose audience is the app client; remove `audience` at line 2 column 63",
    );
    assert!(read(&id_tokens("")).is_ok());
}

#[test]
fn policies_get_the_metadata_and_the_audience_of_their_resource() {
    let text = "protected_resources:
- {resource: https://mcp.example, policy: [a, default], audience: required}
- {resource: https://mcp.example/mcp/, policy: b, name: Orders, scopes_supported: [openid, orders/read]}
- {resource: 'http://localhost:8080/mcp', policy: c, client_id: web, redirect_uris: ['http://localhost:1/', 'cursor://x/y']}
- {resource: 'http://localhost:8080/other', policy: d, client_id: web, redirect_uris: ['http://localhost:2/', 'http://localhost:1/']}
policies: {a: {}, b: {audiences: [x]}, c: {}, d: {}, e: {}}";
    let policy = read(text).unwrap();
    let of = |name: &str| policy.policies.iter().find(|policy| *policy.name == *name).unwrap();
    let root = "https://mcp.example/.well-known/oauth-protected-resource";
    for (name, metadata, identifiers, if_present) in [
        ("default", root.to_owned(), &["https://mcp.example", "https://mcp.example/"][..], false),
        ("a", root.to_owned(), &["https://mcp.example", "https://mcp.example/"], false),
        ("b", format!("{root}/mcp/"), &["https://mcp.example/mcp/"], true),
        (
            "c",
            "http://localhost:8080/.well-known/oauth-protected-resource/mcp".to_owned(),
            &["http://localhost:8080/mcp"],
            true,
        ),
        (
            "d",
            "http://localhost:8080/.well-known/oauth-protected-resource/other".to_owned(),
            &["http://localhost:8080/other"],
            true,
        ),
    ] {
        assert_eq!(of(name).challenge.resource_metadata.as_deref(), Some(&*metadata), "{name}");
        let audience = requirements_of(&policy, name).resource.as_ref().unwrap();
        let found: Vec<&str> = audience.identifiers.iter().map(|text| &**text).collect();
        assert_eq!((&*found, audience.if_present), (identifiers, if_present), "{name}");
    }
    assert!(requirements_of(&policy, "b").audiences.is_some(), "both conditions apply");
    assert!(of("e").challenge.resource_metadata.is_none() && requirements_of(&policy, "e").resource.is_none());

    let origins: Vec<_> = policy.resources.origins().collect();
    let summary: Vec<_> = origins.iter().map(|origin| (&*origin.origin, origin.resources.len())).collect();
    assert_eq!(summary, [("https://mcp.example", 2), ("http://localhost:8080", 2)]);
    assert!(origins[0].client.is_none());
    let client = origins[1].client.as_ref().unwrap();
    let uris: Vec<&str> = client.redirect_uris.iter().map(|uri| &**uri).collect();
    assert_eq!(
        (client.id.as_str(), &*uris),
        ("web", &["http://localhost:1/", "cursor://x/y", "http://localhost:2/"][..])
    );
    assert!(read("policies: {a: {}}").unwrap().resources.is_empty());
}

#[test]
fn the_pool_of_the_sign_in_is_the_one_that_lists_the_app_client() {
    let client = ", client_id: web, redirect_uris: ['http://localhost/']";
    let pool_of = |text: &str| read(&two_pools(text)).unwrap().resources.origins().next().unwrap().pool;
    assert_eq!(pool_of(&with(client)), 0, "before one that accepts any");
    assert_eq!(pool_of(&with(&format!("{client}, pool: two"))), 1);
    assert_eq!(pool_of(&with(&client.replace("web", "other"))), 1);
    assert_eq!(pool_of(&with("").replace("mcp: {}", "mcp: {pools: [two]}")), 1);
}
