//! Payloads that some JSON parsers accept and others reject. They meet no requirement and remove no header.

use serde_json::json;

use super::{FILE, Stage};
use crate::support::client::Ask;
use crate::support::token::{CLIENT, ISSUER, SUB, SigningKey, TokenBuilder, sign_raw, unix_now};

/// Returns a signed token of a delegate (`act`), with this member in its payload.
fn delegated(member: &str) -> String {
    let exp = unix_now() + 600;
    let payload = format!(
        r#"{{"iss":"{ISSUER}","token_use":"access","sub":"{SUB}","client_id":"{CLIENT}","exp":{exp},"act":{{"sub":"agent"}},"custom:tenant":"acme",{member}}}"#
    );
    sign_raw(r#"{"alg":"RS256","kid":"c2hhcmVk+/="}"#, &payload, SigningKey::shared())
}

#[tokio::test]
async fn an_unread_claim_cannot_hide_a_claim_that_a_rule_reads() {
    let stage = Stage::new(&FILE.replace(", audiences: [\"https://api.example.com\"]", "")).await;
    let nested = |levels: usize| format!(r#""x":{}{}"#, "[".repeat(levels), "]".repeat(levels));
    for member in [
        r#""x":"\ud800""#.to_owned(),
        r#""x":1e999"#.to_owned(),
        r#""x":{"y":[-1e999]}"#.to_owned(),
        nested(200),
        r#""x":1,"x":1"#.to_owned(),
        r#""x":[{"y":1,"\u0079":1}]"#.to_owned(),
        r#""act":null"#.to_owned(),
        r#""custom:tenant":"other""#.to_owned(),
    ] {
        for path in ["/direct", "/"] {
            let answer = stage.ask(Ask::get(path).bearer(&delegated(&member))).await;
            assert_eq!(answer.verdict(), (401, "malformed_token"), "{path} {member:.40}");
        }
    }
    for member in [r#""x":"\ud83d\ude00""#, r#""x":1e308"#, &nested(100), r#""x":{"x":{"act":1}}"#] {
        let answer = stage.ask(Ask::get("/direct").bearer(&delegated(member))).await;
        assert_eq!((answer.verdict(), answer.text("requirement")), ((403, "claim_mismatch"), "allow_delegated"));
        let answer = stage.ask(Ask::get("/").bearer(&delegated(member))).await;
        assert_eq!((answer.status, answer.values("x-tenant")), (200, vec!["acme"]), "{member:.40}");
    }
}

#[tokio::test]
async fn a_malformed_token_is_denied_under_every_policy_file() {
    let stage = Stage::new("default: members\npolicies: {members: {}}\n").await;
    let answer = stage.ask(Ask::get("/").bearer(&delegated(r#""x":1e999"#))).await;
    assert_eq!(answer.verdict(), (401, "malformed_token"), "the policy has no requirements");
    // Claims that Cognito and its Lambda triggers add.
    let rich = TokenBuilder::access()
        .claim("cognito:groups", json!(["a", "ü"]))
        .claim("address", json!({"formatted": "1, \"Main\" St\n😀", "geo": [1.5, -0.25e-3, 9_007_199_254_740_993_i64]}))
        .claim("identities", json!([{"userId": "1", "primary": "true"}, {"userId": "2", "primary": "false"}]));
    let answer = stage.ask(Ask::get("/").bearer(&rich.sign(SigningKey::shared()))).await;
    assert_eq!(answer.status, 200);
}
