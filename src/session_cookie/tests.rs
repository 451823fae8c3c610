//! Tests of writing, reading and removing cookies.

use super::*;
use proptest::prelude::*;

const NOTHING: iter::Empty<&[u8]> = iter::empty();

/// Returns the `Cookie` header of a browser that received these `Set-Cookie` values.
fn jar(set: &[String]) -> String {
    let kept = set.iter().filter(|cookie| !cookie.contains("Max-Age=0"));
    kept.map(|cookie| cookie.split(';').next().unwrap()).collect::<Vec<_>>().join("; ")
}

fn read_from(cookie: SessionCookie, headers: &[&str]) -> Result<Option<String>, CookieError> {
    read(cookie, headers.iter().map(|header| header.as_bytes())).map(|token| token.map(Cow::into_owned))
}

#[test]
fn cookies_have_the_attributes_that_host_names_require() {
    let set = set(SessionCookie::Access, "e.y.J", Some(300), SameSite::Strict, NOTHING).unwrap();
    assert_eq!(set, ["__Host-access_token=e.y.J; Path=/; Max-Age=300; HttpOnly; Secure; SameSite=Strict"]);
    assert_eq!(
        super::set(SessionCookie::Refresh, "r", None, SameSite::Strict, NOTHING).unwrap(),
        ["__Host-refresh_token=r; Path=/; HttpOnly; Secure; SameSite=Strict"]
    );
    assert_eq!(
        clear(SessionCookie::Refresh, SameSite::Strict, NOTHING),
        ["__Host-refresh_token=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict"]
    );
}

#[test]
fn long_tokens_are_split_and_their_pieces_are_deleted() {
    let token = "a".repeat(MAX_TOKEN_BYTES);
    let long = set(SessionCookie::Access, &token, Some(1), SameSite::Strict, NOTHING).unwrap();
    assert_eq!(long.len(), MAX_PIECES);
    for cookie in &long {
        assert!(cookie.split(';').next().unwrap().len() <= 4096, "{}", cookie.len());
    }
    let sent = jar(&long);
    assert_eq!(read_from(SessionCookie::Access, &[&sent]), Ok(Some(token.clone())));
    // A shorter token follows: pieces of the longer one do not count, and are deleted.
    let short = set(SessionCookie::Access, "short", Some(1), SameSite::Strict, iter::once(sent.as_bytes())).unwrap();
    assert_eq!(short.iter().filter(|cookie| cookie.contains("Max-Age=0")).count(), MAX_PIECES - 1);
    let rest = sent.split_once("; ").unwrap().1;
    assert_eq!(read_from(SessionCookie::Access, &["__Host-access_token=short", rest]), Ok(Some("short".into())));
    assert_eq!(clear(SessionCookie::Access, SameSite::Strict, iter::once(sent.as_bytes())).len(), MAX_PIECES);
    assert_eq!(clear(SessionCookie::Refresh, SameSite::Strict, iter::once(sent.as_bytes())).len(), 1);
    assert_eq!(
        set(SessionCookie::Access, &format!("{token}a"), None, SameSite::Strict, NOTHING),
        Err(CookieError::TooLarge)
    );
    for no_token in ["", "a;b", "a b", "a,b", "\"a\"", "ä", "a\r\nSet-Cookie: x=y"] {
        assert_eq!(
            set(SessionCookie::Access, no_token, None, SameSite::Strict, NOTHING),
            Err(CookieError::Malformed),
            "{no_token:?}"
        );
    }
}

#[test]
fn ambiguous_cookies_are_rejected() {
    let name = SessionCookie::Access.name();
    let read =
        |headers: &[String]| read_from(SessionCookie::Access, &headers.iter().map(String::as_str).collect::<Vec<_>>());
    for (headers, expected) in [
        (vec![], Ok(None)),
        (vec![String::new()], Ok(None)),
        (vec![format!("{name}")], Ok(None)),
        (vec![format!("{name}=")], Ok(None)),
        (vec![format!("a=b;{name} = t ; c=d")], Ok(Some("t"))),
        (vec![format!("{name}=a.b=="), "x=y".into()], Ok(Some("a.b=="))),
        (vec![format!("{name}.1=t")], Ok(None)),
        (vec![format!("x{name}=t; {name}x=t; {name}.9=t; {name}.01=t")], Ok(None)),
        (vec![name.to_lowercase() + "=t"], Ok(None)),
        (vec![format!("{name}=t; {name}=t")], Err(CookieError::Repeated)),
        (vec![format!("{name}=t"), format!("{name}=u")], Err(CookieError::Repeated)),
        (vec![format!("{name}=t; {name}=")], Err(CookieError::Repeated)),
        (vec![format!("{name}=2~t; {name}.1=u; {name}.1=v")], Err(CookieError::Repeated)),
        (vec![format!("{name}=2~t; {name}.1=u")], Ok(Some("tu"))),
        (vec![format!("{name}=1~t; {name}.1=u")], Ok(Some("t"))),
        (vec![format!("{name}=3~t; {name}.1=u")], Err(CookieError::Malformed)),
        (vec![format!("{name}=3~t; {name}.2=u")], Err(CookieError::Malformed)),
        (vec![format!("{name}=0~t")], Err(CookieError::Malformed)),
        (vec![format!("{name}=6~t")], Err(CookieError::Malformed)),
        (vec![format!("{name}=9~t")], Err(CookieError::Malformed)),
        (vec![format!("{name}=1~")], Err(CookieError::Malformed)),
        (vec![format!("{name}=\"t\"")], Err(CookieError::Malformed)),
        // Two headers joined with a comma, as Envoy does unless it sends raw headers.
        (vec![format!("{name}=t,a=b; c=d")], Ok(Some("t"))),
        (vec![format!("a=b; {name}=2~t,{name}.1=u; c=d")], Ok(Some("tu"))),
        (vec![format!("{name}=2~t , {name}.1=u,c=d")], Ok(Some("tu"))),
        (vec![format!("{name}=t,{name}=u")], Err(CookieError::Repeated)),
        (vec![format!("{name}=,a=b")], Ok(None)),
        // A comma in another cookie does not start a pair: any host of the site can have set that cookie.
        (vec![format!("a=b,{name}=t")], Ok(None)),
        (vec![format!("{name}=t; a=b,{name}=u")], Ok(Some("t"))),
        (vec![format!("{name}=t,a=b,{name}=u")], Ok(Some("t"))),
        // Only spaces and tabs are optional white space.
        (vec![format!("\t{name}\t=\tt\t; c=d")], Ok(Some("t"))),
        (vec![format!("{name}=t\n")], Err(CookieError::Malformed)),
        (vec![format!("{name}=\x0bt")], Err(CookieError::Malformed)),
        (vec![format!("\n{name}=t")], Err(CookieError::Malformed)),
        (vec![format!("a=b; {name}\x0c=t")], Err(CookieError::Malformed)),
        (vec![format!("a=b; \r{name}.1=t")], Err(CookieError::Malformed)),
        (vec![format!("a=b\n; {name}=t")], Ok(Some("t"))),
        (vec![format!("{name}={}", "a".repeat(MAX_TOKEN_BYTES))], Ok(Some(&*"a".repeat(MAX_TOKEN_BYTES)))),
        (vec![format!("{name}={}", "a".repeat(MAX_TOKEN_BYTES + 1))], Err(CookieError::TooLarge)),
    ] {
        assert_eq!(read(&headers), expected.map(|token| token.map(str::to_owned)), "{headers:?}");
    }
}

#[test]
fn only_our_cookies_are_removed() {
    for (header, rest) in [
        ("a=b", None),
        ("", None),
        ("__Host-access_tokens=1; x__Host-access_token=2", None),
        ("__Host-access_token=t", Some("")),
        ("a=b; __Host-access_token=t", Some("a=b")),
        ("__Host-access_token=2~t; a=b;__Host-access_token.1=u;  c = d ;", Some("a=b; c = d")),
        ("__HOST-ACCESS_TOKEN=t; a=\"b\"; __host-Refresh_Token.7=x; __Host-oauth_browser=y", Some("a=\"b\"")),
        ("__Host-refresh_token; a", Some("a")),
        // Two headers joined with a comma, as Envoy does.
        ("a=b,__Host-access_token=t; c=1,2", Some("a=b; c=1,2")),
        ("__Host-access_token=t,a=b, __Host-refresh_token=r,c=d", Some("a=b,c=d")),
        ("a=1,2; b=3", None),
        ("\x0b__Host-access_token=t; a=\x0cb\n", Some("a=\x0cb\n")),
        ("__Host-refresh_token\x0b=t; a=b", Some("a=b")),
        ("a=b; __Host-sign_in.AbC=1.0.v.Lw; c=d; __host-SIGN_IN_rounds.x=1; __Host-sign_in", Some("a=b; c=d")),
        (
            "__Host-sign_in.AbC=v,a=b; __Host-sign_inx=1; __Host-sign_in_round.x=1",
            Some("a=b; __Host-sign_inx=1; __Host-sign_in_round.x=1"),
        ),
        ("__Host-access_token.evil=t; =x; b=__Host-access_token=1", Some("=x; b=__Host-access_token=1")),
    ] {
        assert_eq!(cut(header.as_bytes()).as_deref(), rest.map(str::as_bytes), "{header}");
        assert_eq!(is_any_in(iter::once(header.as_bytes())), rest.is_some());
    }
}

#[test]
fn cookies_of_a_sign_in_are_found_by_their_id() {
    let line = ShortLived::Attempt.set("AbC-_9", "1.a.b=", 900).unwrap();
    assert_eq!(line, "__Host-sign_in.AbC-_9=1.a.b=; Path=/; Max-Age=900; HttpOnly; Secure; SameSite=Lax");
    assert_eq!(
        ShortLived::Rounds.clear("x"),
        "__Host-sign_in_rounds.x=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax"
    );
    for (headers, expected) in [
        (&[][..], Ok(None)),
        (&["__Host-sign_in.A=v; __Host-sign_in.B=w"], Ok(Some("v"))),
        (&["__Host-sign_in.A="], Ok(None)),
        (&["a=b; __Host-sign_in.A=v", "c=d"], Ok(Some("v"))),
        // Two headers joined with a comma.
        (&["__Host-sign_in.B=w,__Host-sign_in.A=v"], Ok(Some("v"))),
        (&["a=b,__Host-sign_in.A=v"], Ok(None)),
        (&["__Host-sign_in.a=v; __host-sign_in.A=v; __Host-sign_in=v; __Host-sign_in.A.1=v"], Ok(None)),
        (&["__Host-sign_in_rounds.A=v; __Host-sign_in_.A=v"], Ok(None)),
        (&["__Host-sign_in.A=v; __Host-sign_in.A=v"], Err(CookieError::Repeated)),
        (&["__Host-sign_in.A=v", "__Host-sign_in.A="], Err(CookieError::Repeated)),
        (&["__Host-sign_in.A=\"v\""], Err(CookieError::Malformed)),
        (&["\x0b__Host-sign_in.A=v"], Err(CookieError::Malformed)),
    ] {
        let sent = || headers.iter().map(|header| header.as_bytes());
        assert_eq!(ShortLived::Attempt.read("A", sent()), expected, "{headers:?}");
    }
    let sent =
        "__Host-sign_in.A=v; x=y; __Host-sign_in.B=w; __Host-sign_in.A=u; __Host-sign_in_rounds.C=t; __Host-sign_in.=s";
    let all: Vec<_> = ShortLived::Attempt.all(iter::once(sent.as_bytes())).collect();
    assert_eq!(all, [("A", &b"v"[..]), ("B", b"w"), ("A", b"u")]);
    for (id, value, error) in [
        ("", "v", CookieError::Malformed),
        ("a.b", "v", CookieError::Malformed),
        ("a", "", CookieError::Malformed),
        ("a", "v; Path=/", CookieError::Malformed),
        ("a", "v\r\n", CookieError::Malformed),
        ("a", &*"v".repeat(3_901), CookieError::TooLarge),
        (&*"a".repeat(33), "v", CookieError::Malformed),
    ] {
        assert_eq!(ShortLived::Attempt.set(id, value, 1), Err(error), "{id} {value}");
    }
}

proptest! {
    #[test]
    fn a_token_that_was_set_is_read(token in "[A-Za-z0-9._~+/=-]{1,200}", times in 1_usize..90, max_age: Option<u64>) {
        let token = token.repeat(times);
        for cookie in SessionCookie::ALL {
            match set(cookie, &token, max_age, SameSite::Strict, NOTHING) {
                Ok(set) => {
                    let sent = format!("a=b; {}; c=d", jar(&set));
                    prop_assert_eq!(read_from(cookie, &[&sent]), Ok(Some(token.clone())));
                    prop_assert_eq!(cut(sent.as_bytes()), Some(b"a=b; c=d".to_vec()));
                }
                Err(error) => {
                    prop_assert_eq!(error, CookieError::TooLarge);
                    prop_assert!(token.len() > MAX_TOKEN_BYTES);
                }
            }
        }
    }

    #[test]
    fn no_cookie_of_ours_remains(
        pairs in prop::collection::vec((0_usize..8, "[ -~]{0,20}"), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let names = ["__Host-access_token", "__host-refresh_token", "__Host-access_token.3", "other", "", "__HOST-OAUTH_BROWSER", "__Host-sign_in.x",
            "__Host-Sign_in_rounds.y"];
        let mut header = Vec::new();
        for (name, value) in pairs {
            header.extend(format!("{}={value};", names[name]).into_bytes());
        }
        header.extend(noise);
        let rest = cut(&header);
        prop_assert_eq!(rest.is_some(), is_any_in(iter::once(&*header)));
        let rest = rest.unwrap_or(header);
        prop_assert!(!is_any_in(iter::once(&*rest)));
        for cookie in SessionCookie::ALL {
            prop_assert_eq!(read(cookie, iter::once(&*rest)), Ok(None));
        }
        prop_assert_eq!(cut(&rest), None);
    }
}
