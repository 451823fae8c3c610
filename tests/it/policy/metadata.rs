//! Dynamic metadata of denials.

use super::{FILE, Stage};
use crate::support::client::{Ask, check};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};

#[tokio::test]
async fn every_response_names_a_policy() {
    let with_file = Stage::new(FILE).await;
    let long = "p".repeat(64);
    for (ask, reason, policy) in [
        (Ask::get("/x/../admin"), "unsafe_path", "members"),
        (Ask::get("/").policy("nonsense"), "unknown_policy", "nonsense"),
        (Ask::get("/x/../y").policy("no.such-policy_1"), "unknown_policy", "no.such-policy_1"),
        // Text that cannot be the name of a policy is not passed on.
        (Ask::get("/").policy("Bearer eyJhbGciOi"), "unknown_policy", "members"),
        (Ask::get("/").policy("a\nb"), "unknown_policy", "members"),
        (Ask::get("/").policy(""), "unknown_policy", "members"),
        (Ask::get("/").policy(&long), "unknown_policy", "members"),
        (Ask::get("/admin"), "missing_credential", "admin"),
    ] {
        let target = ask.target();
        let answer = with_file.ask(ask).await;
        assert_eq!(
            (&*answer.reason, answer.text("policy"), answer.text("decision")),
            (reason, policy, "deny"),
            "{target}"
        );
    }
    let nothing = CheckRequest { attributes: Some(AttributeContext::default()) };
    let answer = check(&with_file.channel, nothing.clone()).await.unwrap();
    assert_eq!((&*answer.reason, answer.text("policy")), ("no_http_request", "members"));
}
