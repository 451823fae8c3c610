//! Headers for upstream: claims, static headers, and the removal of forged headers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{FILE, Stage, ours};
use crate::support::client::{Answer, Ask};
use crate::support::token::{SUB, SigningKey, TokenBuilder};

/// Adds forged headers, and one header that is not of the service.
fn forged(ask: Ask) -> Ask {
    let names = [
        "x-auth-sub",
        "x_auth_sub",
        "x-auth-email",
        "x-auth-city",
        "x-tenant",
        "x_tenant",
        "x.tenant",
        "x-roles",
        "x_roles",
        "x-limits",
        "x-teams",
        "x-vip",
        "x-claims",
        "x_claims",
        "x-gate",
        "x_gate",
        "x-other",
    ];
    names.into_iter().fold(ask, |ask, name| ask.header(name, "forged"))
}

/// Checks that each header of the service is either set or removed, and that other spellings of it are removed.
#[track_caller]
fn is_clean(answer: &Answer) {
    let owned = [
        "x-auth-sub",
        "x-auth-username",
        "x-auth-client-id",
        "x-auth-token-use",
        "x-auth-scope",
        "x-auth-groups",
        "x-auth-email",
        "x-tenant",
        "x-auth-city",
        "x-roles",
        "x-limits",
        "x-teams",
        "x-vip",
        "x-claims",
        "x-gate",
    ];
    for name in owned {
        let (set, removed) = (answer.headers.contains_key(name), answer.removed.iter().any(|other| other == name));
        assert!(set ^ removed, "{name}: set {set}, removed {removed}");
    }
    for name in ["x_auth_sub", "x_tenant", "x.tenant", "x_roles", "x_claims", "x_gate"] {
        assert!(answer.removed.iter().any(|other| other == name), "{name} stays: {:?}", answer.removed);
    }
    assert!(!answer.headers.contains_key("x-other") && !answer.removed.contains(&"x-other".to_owned()));
}

#[tokio::test]
async fn no_allowed_request_carries_a_forged_header() {
    let stage = Stage::new(FILE).await;
    let token = ours(TokenBuilder::access());
    let preflight = |path| {
        Ask::new("OPTIONS", path).header("origin", "https://app.test").header("access-control-request-method", "PUT")
    };
    let none = "";
    for (ask, policy, sub, gate, removes_credential) in [
        (Ask::get("/").bearer(&token), "members", SUB, none, false),
        (Ask::get("/open"), "open", none, "open", true),
        (Ask::get("/open").bearer(&token), "open", none, "open", true),
        (Ask::get("/open").bearer("garbage"), "open", none, "open", true),
        (Ask::get("/admin/health"), "open", none, "open", true),
        (Ask::get("/guests"), "guests", none, "guests", true),
        (Ask::get("/guests").bearer(&token), "guests", SUB, "guests", true),
        (preflight("/pages"), "pages", none, "pages", false),
        (Ask::new("OPTIONS", "/pages").bearer(&token), "pages", SUB, "pages", false),
    ] {
        let answer = stage.ask(forged(ask)).await;
        assert_eq!((answer.verdict(), answer.text("policy")), ((200, ""), policy));
        is_clean(&answer);
        assert_eq!((answer.text("sub"), answer.values("x-auth-sub").join("+")), (sub, sub.to_owned()), "{policy}");
        assert_eq!(answer.values("x-gate").join("+"), gate, "{policy}");
        assert_eq!(answer.removed.contains(&"authorization".to_owned()), removes_credential, "{policy}");
        assert_eq!(answer.text("decision"), "allow");
    }
    for (ask, reason) in [
        (Ask::get("/guests").bearer("garbage"), "malformed_token"),
        (Ask::get("/guests").bearer(&ours(TokenBuilder::access().expires_in(-60))), "expired"),
        (
            Ask::get("/guests").bearer(&TokenBuilder::access().header("kid", "c2hhcmVk+/=").sign(SigningKey::other())),
            "bad_signature",
        ),
        (Ask::new("POST", "/admin/health"), "missing_credential"),
        // Requests that are not preflights of a browser, and a preflight under a policy that checks preflights.
        (preflight("/pages").header("cookie", "a=b"), "missing_credential"),
        (preflight("/pages").header("origin", ""), "missing_credential"),
        (Ask::new("OPTIONS", "/pages").header("origin", "https://app.test"), "missing_credential"),
        (
            Ask::get("/pages").header("origin", "https://app.test").header("access-control-request-method", "PUT"),
            "missing_credential",
        ),
        (preflight("/pages").bearer("garbage"), "malformed_token"),
        (preflight("/orders"), "missing_credential"),
    ] {
        assert_eq!(stage.ask(ask).await.verdict(), (401, reason));
    }
    assert_eq!(stage.counted("allow", "open", "", "").await, 4.0);
    assert_eq!(stage.counted("allow", "guests", "", "").await, 1.0);
    assert_eq!(stage.counted("allow", "guests", "default", "").await, 1.0);
    assert_eq!(stage.counted("allow", "pages", "", "").await, 1.0);
}

#[tokio::test]
async fn claims_become_headers() {
    let stage = Stage::new(FILE).await;
    let token = TokenBuilder::access()
        .claim("custom:tenant", "Müller, Söhne & Co")
        .claim("address", json!({"city": "Wien", "street": "Ring"}))
        .claim("roles", json!(["reader", "a,b", 7, ["x", "y"], {"k": "é"}, "", null]))
        .claim("limits", json!([1.5, true, {"a": "ü"}]))
        .claim("https://example.com/teams", json!(["red", "blue,green", "%"]))
        .claim("vip", true)
        .claim("unasked", "unasked");
    let token = ours(token);
    // The second time, the token is in the cache.
    for _ in 0..2 {
        let answer = stage.ask(forged(Ask::get("/").bearer(&token))).await;
        is_clean(&answer);
        for (name, values) in [
            ("x-tenant", &["M%C3%BCller, S%C3%B6hne & Co"][..]),
            ("x-auth-city", &["Wien"]),
            ("x-roles", &["reader", "a%2Cb", "7", r#"["x"%2C"y"]"#, r#"{"k":"\u00e9"}"#]),
            ("x-limits", &[r#"[1.5,true,{"a":"\u00fc"}]"#]),
            ("x-teams", &["red,blue%2Cgreen,%25"]),
            ("x-vip", &["true"]),
            ("x-claims", &[token.split('.').nth(1).unwrap()]),
        ] {
            assert_eq!(answer.values(name), values, "{name}");
        }
        assert!(answer.headers.values().all(|value| value != "unasked"), "a claim that no rule reads");
        let claims = URL_SAFE_NO_PAD.decode(&answer.headers["x-claims"]).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap()["unasked"], "unasked");
    }
    // If the claim is absent or has the wrong type, the header is removed.
    for city in
        [json!("ABSENT"), json!(null), json!("Wien"), json!(["city"]), json!({"city": null}), json!({"city": ""})]
    {
        let token = ours(TokenBuilder::access().claim("address", city.clone()));
        let answer = stage.ask(forged(Ask::get("/").bearer(&token))).await;
        is_clean(&answer);
        assert!(answer.values("x-auth-city").is_empty(), "{city}");
    }
    let token = ours(TokenBuilder::access().claim("address", json!({"city": {"name": "Wien"}})));
    assert_eq!(stage.ask(Ask::get("/").bearer(&token)).await.values("x-auth-city"), [r#"{"name":"Wien"}"#]);
}

#[tokio::test]
async fn an_identity_of_more_than_16_kib_is_denied() {
    let stage = Stage::new(&FILE.replace("whole_claims_header: x-claims", "")).await;
    let usual = ours(TokenBuilder::access());
    let usual: usize =
        stage.ask(Ask::get("/").bearer(&usual)).await.all_headers.iter().map(|(_, value)| value.len()).sum();
    // The header has three bytes for each of the two bytes of `é` in the token.
    let fits = (16 * 1024 - usual) / 6;
    for (letters, verdict) in [(fits, (200, "")), (fits + 1, (403, "identity_too_large"))] {
        let token = ours(TokenBuilder::access().claim("custom:tenant", "é".repeat(letters)));
        for _ in 0..2 {
            assert_eq!(stage.ask(Ask::get("/").bearer(&token)).await.verdict(), verdict, "{letters}");
        }
        assert_eq!(
            stage.ask(Ask::get("/open").bearer(&token)).await.verdict(),
            (200, ""),
            "a public policy does not read the token"
        );
    }
    assert_eq!(stage.counted("deny", "members", "default", "identity_too_large").await, 2.0);
}
