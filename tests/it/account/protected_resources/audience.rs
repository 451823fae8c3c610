//! Checks of the policies of a resource: the audience (RFC 8707), and the URL of the metadata in refusals.

use serde_json::{Value, json};

use super::{Stage, file, quick};
use crate::support::client::{Ask, connect};
use crate::support::token::{SigningKey, TokenBuilder};

const METADATA: &str = "resource_metadata=\"https://mcp.example/.well-known/oauth-protected-resource/mcp\"";

#[tokio::test]
async fn refusals_name_the_metadata_of_the_resource() {
    let stage = Stage::new(&file(), &quick()).await;
    let channel = connect(&stage.app.grpc[0]).await;
    let key = SigningKey::shared();
    let expired = TokenBuilder::access().claim("exp", 1).sign(key);
    let without_scope = TokenBuilder::access().claim("scope", "openid").sign(key);
    let elsewhere = TokenBuilder::access().claim("scope", "orders/read").claim("aud", "https://b.example").sign(key);
    for (name, ask, expected, challenge) in [
        ("no token", Ask::get("/mcp"), (401, "missing_credential"), true),
        ("expired", Ask::get("/mcp").bearer(&expired), (401, "expired"), true),
        ("no scope", Ask::get("/mcp").bearer(&without_scope), (403, "insufficient_scope"), true),
        ("another audience", Ask::get("/mcp").bearer(&elsewhere), (403, "claim_mismatch"), false),
        ("another policy", Ask::get("/other").policy("other"), (401, "missing_credential"), false),
    ] {
        let answer = ask.of(&channel).await;
        assert_eq!(answer.verdict(), expected, "{name}");
        let sent = answer.headers.get("www-authenticate").cloned().unwrap_or_default();
        assert_eq!(sent.contains(METADATA), challenge, "{name}: {sent}");
        assert_eq!(sent.contains("resource_metadata"), challenge, "{name}: {sent}");
        if name == "another audience" {
            assert_eq!(answer.text("requirement"), "protected_resources.audience");
        }
    }
}

#[tokio::test]
async fn the_audience_of_a_token_is_judged() {
    let mut policy = file();
    policy["protected_resources"] = json!([
        {"resource": "https://mcp.example/mcp", "policy": "mcp"},
        {"resource": "https://mcp.example", "policy": "other", "audience": "required"},
    ]);
    policy["policies"]["mcp"] = json!({});
    let stage = Stage::new(&policy, &[&quick()[..], &["--token-use=any"]].concat()).await;
    let channel = connect(&stage.app.grpc[0]).await;
    let key = SigningKey::shared();
    let access = |aud: Value| TokenBuilder::access().claim("aud", aud).sign(key);
    let (yes, no) = ((200, ""), (403, "claim_mismatch"));
    for (name, token, if_present, required) in [
        ("no audience", TokenBuilder::access().sign(key), yes, no),
        ("the resource", access(json!("https://mcp.example/mcp")), yes, no),
        ("a list", access(json!(["https://b.example", "https://mcp.example/mcp"])), yes, no),
        ("the origin", access(json!("https://mcp.example")), no, yes),
        ("the origin with a slash", access(json!(["https://mcp.example/"])), no, yes),
        ("both", access(json!(["https://mcp.example", "https://mcp.example/mcp"])), yes, yes),
        ("another resource", access(json!("https://b.example")), no, no),
        ("a longer text", access(json!("https://mcp.example/mcp/x")), no, no),
        ("an empty list", access(json!([])), no, no),
        ("a number", access(json!(7)), no, no),
        // `aud` of an ID token is the app client.
        ("an ID token", TokenBuilder::id().sign(key), yes, no),
    ] {
        // The second time, the token comes from the cache.
        for time in ["first", "second"] {
            for (policy, expected) in [("mcp", if_present), ("other", required)] {
                let answer = Ask::get("/").policy(policy).bearer(&token).of(&channel).await;
                assert_eq!(answer.verdict(), expected, "{name}, {policy}, the {time} time");
            }
        }
    }
    assert!(stage.metric("token_cache_entries").await >= 11.0);
}
