//! Refreshing tokens: one call at a time for a refresh token, and no rotated token is lost.

use std::time::Duration;

use serde_json::json;

use super::{QUICK, with_fake};
use crate::support::fake_cognito::{refusal, slowly, tokens};
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn concurrent_refreshes_of_one_token_share_one_call() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    // A refresh token works once, as if Cognito rotated it without a grace period.
    fake.answers(|_, nth| {
        let reply =
            if nth == 0 { tokens(&json!({"RefreshToken": "new"})) } else { refusal("RefreshTokenReuseException", "") };
        slowly(reply, Duration::from_millis(300))
    });
    let refresh = || client.post("/refresh", json!({"refreshToken": "old", "deviceKey": "d"}));
    let (a, b, c) = tokio::join!(refresh(), refresh(), refresh());
    for reply in [a, b, c] {
        assert_eq!((reply.status, reply.text("refreshToken")), (200, "new"), "{:?}", reply.body);
    }
    let calls = fake.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].operation, "GetTokensFromRefreshToken");
    assert_eq!((&calls[0].body["RefreshToken"], &calls[0].body["DeviceKey"]), (&json!("old"), &json!("d")));
    assert_eq!(refresh().await.verdict(), (401, "invalid_token"), "the old refresh token has been used");
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test]
async fn a_rotated_token_is_kept_for_a_client_that_disconnected() {
    let (_app, client, fake) = with_fake(&QUICK).await;
    fake.answers(|_, nth| {
        let reply =
            if nth == 0 { tokens(&json!({"RefreshToken": "new"})) } else { refusal("RefreshTokenReuseException", "") };
        slowly(reply, Duration::from_millis(300))
    });
    let gone = {
        let client = client.clone();
        tokio::spawn(async move { client.post("/refresh", json!({"refreshToken": "old"})).await })
    };
    eventually("Cognito is called", PATIENCE, async || fake.calls().len() == 1).await;
    gone.abort();
    drop(gone.await);
    let reply = client.post("/refresh", json!({"refreshToken": "old"})).await;
    assert_eq!((reply.status, reply.text("refreshToken")), (200, "new"), "{:?}", reply.body);
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn the_older_refresh_flow_is_used_only_if_configured() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "1exampleclientsecret0123456789abcdefghijklmnopqrstu").unwrap();
    let with_secret = ["--refresh-flow=auth", "--client-secret-file", secret.to_str().unwrap()];
    let (_app, client, fake) = with_fake(&[&QUICK[..], &with_secret].concat()).await;
    fake.answers(|_, _| tokens(&json!({})));
    let nameless = client.post("/refresh", json!({"refreshToken": "r"})).await;
    assert_eq!(nameless.verdict(), (400, "invalid_request"), "the secret hash requires a user name");
    assert_eq!(client.post("/refresh", json!({"refreshToken": "r", "username": "u"})).await.status, 200);
    let call = &fake.calls()[0];
    assert_eq!((&*call.operation, &call.body["AuthFlow"]), ("InitiateAuth", &json!("REFRESH_TOKEN_AUTH")));
    assert_eq!(call.body["AuthParameters"]["REFRESH_TOKEN"], "r");
    assert!(
        call.body["AuthParameters"]["SECRET_HASH"].is_string() && call.body["AuthParameters"].get("USERNAME").is_none()
    );

    let (_app, client, fake) = with_fake(&QUICK).await;
    fake.refuses("NotAuthorizedException", "Refresh Token has been revoked");
    assert_eq!(client.post("/refresh", json!({"refreshToken": "r"})).await.verdict(), (401, "invalid_token"));
    assert_eq!(fake.operations(), ["GetTokensFromRefreshToken"]);
}
