//! Tables of the places of a credential.

use super::*;
use crate::authz::request::Header;

fn everywhere() -> Places {
    Places {
        header: Some("X-Token".parse().unwrap()),
        websocket_protocol: Some("bearer".into()),
        websocket_query: Some("access_token".into()),
    }
}

fn request<'r>(path: &'r str, headers: &[(&'static str, &'static str)]) -> RequestContext<'r> {
    let header =
        |(name, value): &(&'static str, &'static str)| Header { name: name.as_bytes(), value: value.as_bytes() };
    let headers = headers.iter().map(header).collect();
    RequestContext { method: b"GET", path: path.as_bytes(), headers, ..RequestContext::default() }
}

const UPGRADE: (&str, &str) = ("Upgrade", "WebSocket");

#[test]
fn a_token_is_found_in_each_place_and_only_once() {
    use Denial::{MalformedToken, MultipleCredentials};
    let protocol = |value| (WEBSOCKET_PROTOCOL, value);
    for (path, headers, expected) in [
        ("/", &[][..], Ok(None)),
        ("/", &[("x-token", "a.b.c")], Ok(Some("a.b.c"))),
        ("/", &[("X-TOKEN", "  bearer  a.b.c\t")], Ok(Some("a.b.c"))),
        ("/", &[("x-token", "")], Ok(None)),
        ("/", &[("x-token", "Basic dTpw")], Ok(Some("Basic dTpw"))),
        ("/", &[("x_token", "a.b.c"), ("x.token", "a.b.c")], Ok(None)),
        ("/", &[("x-token", "a"), ("x-token", "a")], Err(MultipleCredentials)),
        ("/", &[("x-token", "a,b")], Err(MultipleCredentials)),
        ("/", &[("x-token", "a\nb")], Err(MalformedToken)),
        // Subprotocols.
        ("/", &[UPGRADE, protocol("bearer.a.b.c, chat")], Ok(Some("a.b.c"))),
        ("/", &[UPGRADE, protocol("chat,Bearer.a.b.c")], Ok(Some("a.b.c"))),
        ("/", &[UPGRADE, protocol("bearer, a.b.c")], Ok(Some("a.b.c"))),
        ("/", &[UPGRADE, protocol("chat"), protocol("bearer"), protocol("a.b.c")], Ok(Some("a.b.c"))),
        ("/", &[UPGRADE, protocol("bearer, bearer.a.b.c")], Ok(Some("a.b.c"))),
        ("/", &[UPGRADE, protocol("bearer")], Ok(None)),
        ("/", &[UPGRADE, protocol("bearers.a, chat")], Ok(None)),
        ("/", &[UPGRADE, protocol("bearer.")], Ok(Some(""))),
        ("/", &[UPGRADE, protocol("bearer, bearer")], Ok(Some("bearer"))),
        ("/", &[UPGRADE, protocol("bearer.a, bearer.a")], Err(MultipleCredentials)),
        ("/", &[UPGRADE, protocol("bearer, a, bearer, b")], Err(MultipleCredentials)),
        ("/", &[protocol("bearer.a.b.c")], Ok(None)),
        // The query.
        ("/?x=1&access_token=a.b.c&y=2", &[UPGRADE], Ok(Some("a.b.c"))),
        ("/?access%5ftoken=a.b.c", &[UPGRADE], Ok(Some("a.b.c"))),
        ("/?access_token", &[UPGRADE], Ok(Some(""))),
        ("/?access_token=a&access%5Ftoken=a", &[UPGRADE], Err(MultipleCredentials)),
        ("/?Access_token=a&access_token2=b&access_toke=c&access%zztoken=d", &[UPGRADE], Ok(None)),
        ("/?access_token=a.b.c", &[], Ok(None)),
        ("/?access_token=a.b.c", &[("upgrade", "h2c")], Ok(None)),
        ("/?access_token=a.b.c", &[UPGRADE, UPGRADE], Ok(None)),
        ("/access_token=a.b.c", &[UPGRADE], Ok(None)),
        // Two places.
        ("/?access_token=a", &[UPGRADE, protocol("bearer.b")], Err(MultipleCredentials)),
        ("/?access_token=a", &[UPGRADE, protocol("bearer.a")], Err(MultipleCredentials)),
        ("/?access_token=a", &[UPGRADE, ("x-token", "b")], Err(MultipleCredentials)),
        ("/", &[UPGRADE, protocol("bearer.a"), ("x-token", "b")], Err(MultipleCredentials)),
    ] {
        assert_eq!(everywhere().token(&request(path, headers)), expected, "{path} {headers:?}");
        assert_eq!(Places::default().token(&request(path, headers)), Ok(None), "the policy does not opt in");
    }
    let post = RequestContext { method: b"POST", ..request("/?access_token=a", &[UPGRADE]) };
    assert_eq!(everywhere().token(&post), Ok(None));
}

#[test]
fn the_upstream_gets_no_token_of_these_places() {
    let protocol = |value| (WEBSOCKET_PROTOCOL, value);
    for (headers, removes, expected) in [
        (&[][..], false, &[][..]),
        (&[("x-token", "a")], false, &[]),
        (&[("x-token", "a")], true, &["-x-token"]),
        (&[("x_token", "a"), ("X_Token", "a"), ("x.token", "a")], false, &["-x_token", "-x.token"]),
        (&[("x-tokens", "a"), protocol("chat, bearer")], false, &[]),
        (&[protocol("bearer.a.b.c, chat, v2")], false, &["sec-websocket-protocol=chat, v2"]),
        (&[protocol("bearer, a.b.c , chat")], false, &["sec-websocket-protocol=bearer, chat"]),
        (&[protocol("BEARER.a")], false, &["-sec-websocket-protocol"]),
        (&[protocol("bearer.a, bearer.b"), protocol("x")], false, &["sec-websocket-protocol=x"]),
        (&[("sec_websocket_protocol", "bearer.a")], false, &["-sec_websocket_protocol"]),
    ] {
        let mut found = Vec::new();
        everywhere().hide(removes, &request("/", headers), &mut |mutation| {
            found.push(match mutation {
                Mutation::Set(name, value) => format!("{name}={value}"),
                Mutation::Append(..) => panic!("nothing is appended"),
                Mutation::Remove(name) => format!("-{name}"),
            });
        });
        assert_eq!(found, expected, "{headers:?}");
        Places::default().hide(removes, &request("/", headers), &mut |_| panic!("the policy does not opt in"));
    }
    for (path, expected) in [
        ("/a?b=1", &[][..]),
        ("/a?access_token=x", &["access_token"]),
        ("/a?access_token=x&b=1&access%5Ftoken=y&access_token=z", &["access%5Ftoken", "access_token"]),
        ("/access_token=x", &[]),
    ] {
        assert_eq!(everywhere().query_parameters(path.as_bytes()), expected, "{path}");
        assert!(Places::default().query_parameters(path.as_bytes()).is_empty());
    }
}

#[test]
fn only_a_header_without_another_meaning_carries_a_credential() {
    for name in ["X-Token", "x-amzn-oidc-accesstoken", "token"] {
        assert_eq!(name.parse::<CredentialHeader>().unwrap().as_str(), name.to_ascii_lowercase());
    }
    for name in ["", "x token", "x_token", "x.token", "Authorization", "Cookie", "HOST", "X-Forwarded-For", "x-envoy-a"]
    {
        assert!(name.parse::<CredentialHeader>().is_err(), "{name}");
    }
    assert!("Sec-WebSocket-Protocol".parse::<CredentialHeader>().is_err());
    assert!("a".repeat(129).parse::<CredentialHeader>().is_err());
}
