//! Tests of owned headers: names, mutations, look-alikes, and cookies.

use super::*;

#[test]
fn header_prefixes_are_validated() {
    for good in ["x-auth-", "a-", "x-jwt-claim-", "x9-"] {
        assert!(good.parse::<HeaderPrefix>().is_ok(), "{good}");
    }
    for bad in ["", "-", "x-auth", "X-Auth-", "9x-", "x_auth-", "x auth-", "é-"] {
        assert_eq!(bad.parse::<HeaderPrefix>(), Err(HeaderPrefixError::Shape), "{bad}");
    }
    for envoys in ["x-envoy-", "x-envoy-auth-", "x-forwarded-", "x-forwarded-for-", "x-"] {
        assert_eq!(envoys.parse::<HeaderPrefix>(), Err(HeaderPrefixError::Envoys), "{envoys}");
    }
}

#[test]
fn header_names_are_validated() {
    for good in ["x-tenant", "tenant", "x-auth-tenant", "x9"] {
        assert!(good.parse::<HeaderName>().is_ok(), "{good}");
    }
    for bad in ["", ":path", "X-Tenant", "x_tenant", "x.tenant", "x tenant", "é", "a:b", &"a".repeat(129)] {
        assert_eq!(bad.parse::<HeaderName>(), Err(HeaderNameError::Shape), "{bad}");
    }
    for reserved in RESERVED.into_iter().chain(["x-envoy-a", "x-forwarded-for"]) {
        assert_eq!(reserved.parse::<HeaderName>(), Err(HeaderNameError::Reserved), "{reserved}");
    }
    assert!(RESERVED.is_sorted());
}

fn with_more() -> OwnedHeaders {
    let mut headers = OwnedHeaders::new("x-auth-".parse().unwrap());
    headers.add_claim(&"tenant-id".parse().unwrap(), ClaimHeader { claim: 0, list: ListEncoding::Comma });
    headers.add_whole_claims(&"x-auth-claims".parse().unwrap());
    headers.add(&"x-tier".parse().unwrap());
    headers
}

#[test]
fn lookalikes_are_recognized() {
    let headers = OwnedHeaders::new("x-auth-".parse().unwrap());
    for owned in ["x-auth-sub", "X-Auth-Sub", "x-auth-client-id"] {
        assert!(!headers.is_lookalike(owned.as_bytes()), "{owned}");
    }
    for lookalike in [
        "x_auth_sub",
        "x.auth.sub",
        "X_AUTH-sub",
        "x-auth_sub",
        "x-auth-client_id",
        "x-auth-role",
        "x-auth-",
        "x-auth_",
    ] {
        assert!(headers.is_lookalike(lookalike.as_bytes()), "{lookalike}");
    }
    for other in [
        "",
        "x-auth",
        "authorization",
        "x-authz-sub",
        "xx-auth-sub",
        "x--auth-sub",
        "x-request-id",
        "tenant_id",
        "x_tier",
    ] {
        assert!(!headers.is_lookalike(other.as_bytes()), "{other}");
        assert!(!with_more().is_lookalike(other.as_bytes()) || other.contains('_'), "{other}");
    }
    for (name, expected) in
        [("tenant_id", true), ("Tenant.Id", true), ("tenant-id", false), ("X_Tier", true), ("x-auth-claims", false)]
    {
        assert_eq!(with_more().is_lookalike(name.as_bytes()), expected, "{name}");
    }
}

#[test]
fn each_owned_header_is_set_or_removed() {
    let headers = with_more();
    let sent = ["tenant_id", "TENANT_ID", "x-tier", "cookie", "x-auth-role"];
    let sent: Vec<_> = sent.iter().map(|name| Header { name: name.as_bytes(), value: b"forged" }).collect();
    let mut done = Vec::new();
    let values = [(0, "s"), (7, "a"), (7, "b"), (9, "gold")];
    headers.mutate(values.into_iter(), true, &sent, &mut |mutation| done.push(format!("{mutation:?}")));
    assert_eq!(
        done,
        [
            Mutation::Set("x-auth-sub", "s"),
            Mutation::Remove("x-auth-username"),
            Mutation::Remove("x-auth-client-id"),
            Mutation::Remove("x-auth-token-use"),
            Mutation::Remove("x-auth-scope"),
            Mutation::Remove("x-auth-groups"),
            Mutation::Remove("x-auth-email"),
            Mutation::Set("tenant-id", "a"),
            Mutation::Append("tenant-id", "b"),
            Mutation::Remove("x-auth-claims"),
            Mutation::Set("x-tier", "gold"),
            Mutation::Remove("authorization"),
            Mutation::Remove("tenant_id"),
            Mutation::Remove("x-auth-role"),
        ]
        .map(|mutation| format!("{mutation:?}"))
    );
    assert_eq!(headers.position("x-tier"), Some(9));
}

#[test]
fn many_lookalikes_are_each_removed_once() {
    let headers = OwnedHeaders::new("x-auth-".parse().unwrap());
    let name = |number: usize| format!("x_auth_{number}");
    let names: Vec<String> = (0..16_000).map(name).chain((0..16_000).rev().map(|n| name(n).to_uppercase())).collect();
    let sent: Vec<_> = names.iter().map(|name| Header { name: name.as_bytes(), value: b"" }).collect();
    let mut removed = Vec::new();
    headers.mutate(std::iter::empty(), false, &sent, &mut |mutation| {
        if let Mutation::Remove(name) = mutation {
            removed.push(name.to_owned());
        }
    });
    assert_eq!(removed.split_off(STANDARD), names[..16_000], "in the order of the request");
}

#[test]
fn cookies_of_the_application_stay_unchanged() {
    let mut headers = OwnedHeaders::new("x-auth-".parse().unwrap());
    headers.hide_sessions();
    for (lines, expected) in [
        // Cookies that are not UTF-8 cannot be encoded in an answer; the others stay byte for byte.
        (&[&b"a=1; __Host-access_token=t; b=\xe9; c=\xc3\xa9"[..]][..], Some("a=1; c=é")),
        (&[b"b=\xff", b"__Host-access_token=t; a=\"x, y\"", b"c=3"], Some("a=\"x, y\"; c=3")),
        (&[b"b=\xff; __Host-access_token=t"], None),
        (&[b"a=1\x0b; __Host-access_token=t"], Some("a=1\x0b")),
    ] {
        let sent: Vec<_> = lines.iter().map(|value| Header { name: b"cookie", value }).collect();
        let mut done = Vec::new();
        headers.mutate(std::iter::empty(), false, &sent, &mut |mutation| match mutation {
            Mutation::Set("cookie", rest) => done.push(Some(rest.to_owned())),
            Mutation::Remove("cookie") => done.push(None),
            _ => {}
        });
        assert_eq!(done, [expected.map(str::to_owned)]);
    }
}

#[test]
fn session_cookies_do_not_reach_the_upstream() {
    let mut headers = OwnedHeaders::new("x-auth-".parse().unwrap());
    let of_cookies = |headers: &OwnedHeaders, values: &[&str]| {
        let sent: Vec<_> = values.iter().map(|value| Header { name: b"Cookie", value: value.as_bytes() }).collect();
        let mut done = Vec::new();
        headers.mutate(std::iter::empty(), false, &sent, &mut |mutation| match mutation {
            Mutation::Set("cookie", rest) => done.push(rest.to_owned()),
            Mutation::Remove("cookie") => done.push("removed".to_owned()),
            _ => {}
        });
        done
    };
    assert!(of_cookies(&headers, &["__Host-access_token=a"]).is_empty(), "sessions are not hidden");
    headers.hide_sessions();
    for (values, expected) in [
        (&["a=1; __Host-access_token=x; b=2; __Host-refresh_token=y"][..], &["a=1; b=2"][..]),
        (&["__Host-access_token=2~x; __Host-access_token.1=y"], &["removed"]),
        (&["a=1", "__Host-access_token=x", "b=2"], &["a=1; b=2"]),
        (&["a=1", "b=2"], &[]),
        (&[], &[]),
    ] {
        assert_eq!(of_cookies(&headers, values), expected, "{values:?}");
    }
}
