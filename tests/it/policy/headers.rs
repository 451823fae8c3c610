//! What upstream gets: claims as headers, static headers, and nothing that a client made up, whoever passes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{FILE, Stage, ours};
use crate::support::client::{Answer, Ask};
use crate::support::token::{SUB, SigningKey, TokenBuilder};

/// What a client would like the application to believe, and a header that is nobody's.
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

/// Every header of ours is set or removed, and so is what looks like one.
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
async fn whoever_passes_brings_no_header_of_ours() {
    let stage = Stage::new(FILE).await;
    let token = ours(TokenBuilder::access());
    let preflight = |path| {
        Ask::new("OPTIONS", path).header("origin", "https://app.test").header("access-control-request-method", "PUT")
    };
    let nobody = "";
    for (ask, policy, sub, gate, removes_credential) in [
        (Ask::get("/").bearer(&token), "members", SUB, nobody, false),
        (Ask::get("/open"), "open", nobody, "open", true),
        (Ask::get("/open").bearer(&token), "open", nobody, "open", true),
        (Ask::get("/open").bearer("garbage"), "open", nobody, "open", true),
        (Ask::get("/admin/health"), "open", nobody, "open", true),
        (Ask::get("/guests"), "guests", nobody, "guests", true),
        (Ask::get("/guests").bearer(&token), "guests", SUB, "guests", true),
        (preflight("/pages"), "pages", nobody, "pages", false),
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
        // Preflights that no browser sends, and one where they are requests like others.
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
    // The second time out of the cache.
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
        assert!(answer.headers.values().all(|value| value != "unasked"), "what nobody asked for");
        let claims = URL_SAFE_NO_PAD.decode(&answer.headers["x-claims"]).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&claims).unwrap()["unasked"], "unasked");
    }
    // Without the claims the headers go, and a wrong type is no value of the right one.
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
async fn an_identity_that_does_not_fit_is_refused() {
    let stage = Stage::new(&FILE.replace("whole_claims_header: x-claims", "")).await;
    let usual = ours(TokenBuilder::access());
    let usual: usize =
        stage.ask(Ask::get("/").bearer(&usual)).await.all_headers.iter().map(|(_, value)| value.len()).sum();
    // Three bytes in a header for each of the two in the token.
    let fits = (16 * 1024 - usual) / 6;
    for (letters, verdict) in [(fits, (200, "")), (fits + 1, (403, "identity_too_large"))] {
        let token = ours(TokenBuilder::access().claim("custom:tenant", "é".repeat(letters)));
        for _ in 0..2 {
            assert_eq!(stage.ask(Ask::get("/").bearer(&token)).await.verdict(), verdict, "{letters}");
        }
        assert_eq!(stage.ask(Ask::get("/open").bearer(&token)).await.verdict(), (200, ""), "nobody looks at it");
    }
    assert_eq!(stage.counted("deny", "members", "default", "identity_too_large").await, 2.0);
}
