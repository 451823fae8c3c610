//! Reloads of the policy file while the account API is on: which changes apply, and which are rejected.

use serde_json::{Value, json};

use crate::reload::{Stage, text, their_keys, their_token};
use crate::support::account::AccountClient;
use crate::support::client::{Ask, connect, get};
use crate::support::emulator::Emulator;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{Program, run};
use crate::support::token::{CLIENT, POOL, SigningKey, jwks};
use crate::support::{PATIENCE, eventually};

/// The account API calls the pool that was configured at startup. A file that would make it call another pool than the
/// one whose tokens it verifies is rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_does_not_change_the_pool_that_the_account_api_calls() {
    let their_keys = their_keys().await;
    let pool = |members: &str| {
        format!(
            "pools: {{partners: {{user_pool_id: eu-central-1_Other0002, jwks_url: '{}', {members}}}}}\n",
            their_keys.url
        )
    };
    let both = "client_ids: [partner, guest]";
    let account = "account: {pool: partners, client_id: partner}";
    let start = format!("{}{account}", pool(both));
    let stage = Stage::new(PolicyFile::new(&text("1", &start))).await;
    let (_, config) = get(&stage.program.admin, "/config").await;
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(
        config["account"],
        json!({"pool": "partners", "user_pool_id": "eu-central-1_Other0002", "client_id": "partner",
            "endpoint": "https://cognito-idp.eu-central-1.amazonaws.com/"})
    );
    let elsewhere = pool(both).replace("jwks_url", "endpoint: 'https://cognito.test/', jwks_url");
    let moved = pool(both).replace(&their_keys.url, &stage.keys.url);
    for (changed, why) in [
        (format!("{}{account}", pool(both).replace("Other0002", "Other0003")), "another user_pool_id"),
        (format!("{}{account}", pool(&format!("issuers: ['https://other.test'], {both}"))), "other issuers"),
        (format!("{}{account}", pool(&format!("replica_regions: [us-east-1], {both}"))), "other issuers"),
        (format!("{elsewhere}{account}"), "another endpoint"),
        (format!("{moved}{account}"), "another jwks_url"),
        (format!("{}account: {{pool: partners}}", pool("client_ids: guest")), "another client_id"),
        (format!("{}account: {{pool: partners, client_id: guest}}", pool(both)), "another client_id"),
        (format!("{}account: {{pool: default}}", pool(both)), "another pool"),
        (format!("{}{account}", pool(&format!("client_secret_file: /nowhere, {both}"))), "another client_secret_file"),
        (pool(both), "`account` is gone"),
        (format!("account: {{pool: default}}\n{}", pool(both)), "another pool"),
        (String::new(), "the pool partners"),
    ] {
        stage.file.replace(&text("2", &changed));
        stage.program.signal("HUP");
        eventually(why, PATIENCE, async || !stage.error().await.is_empty()).await;
        let said = stage.error().await;
        assert!(said.contains("the account API") && said.contains(why) && said.contains("restart"), "{why}: {said}");
        assert_eq!((stage.version().await, stage.ask(&their_token("partner")).await.status), ("1".to_owned(), 200));
        stage.file.replace(&text("1", &start));
        stage.program.signal("HUP");
        eventually("the previous file", PATIENCE, async || stage.error().await.is_empty()).await;
    }
    // Members that the account API does not use may change.
    stage.reload("3", &format!("{}{account}", pool("client_ids: [partner]"))).await;
    assert_eq!(stage.ask(&their_token("guest")).await.verdict(), (401, "wrong_client"));
}

/// A browser session is checked by its access token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_browser_sessions_must_accept_access_tokens() {
    let their_keys = their_keys().await;
    let pool = |token_use: &str| {
        format!(
            "default: members\npolicies: {{members: {{headers: {{x-version: '{token_use}'}}}}}}\npools: {{partners: \
             {{user_pool_id: eu-central-1_Other0002, client_ids: partner, token_use: {token_use}, jwks_url: '{}'}}}}\n\
             account: {{pool: partners}}",
            their_keys.url
        )
    };
    let file = PolicyFile::new(&pool("id"));
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let path = file.path();
    let flags = ["--config", &*path, "--jwks-url", &keys.url, "--account-cookies"];
    let start = ["--user-pool-id", POOL, "--client-id", CLIENT];
    let (code, _, error) = run(&[&["check-config"][..], &start, &flags].concat(), &[]);
    assert_eq!(code, Some(64));
    assert!(
        error.contains("--account-cookies") && error.contains("partners") && error.contains("token_use"),
        "{error}"
    );

    file.replace(&pool("any"));
    let mut program = Program::start(&flags);
    let channel = connect(&program.grpc[0]).await;
    let asks = async || Ask::get("/").bearer(&their_token("partner")).of(&channel).await;
    eventually("ready", PATIENCE, async || asks().await.status == 200).await;
    file.replace(&pool("id"));
    program.signal("HUP");
    let said = program.wait_for_line("the policy file is not reloaded");
    assert!(said.contains("--account-cookies") && said.contains("partners") && said.contains("token_use"), "{said}");
    assert_eq!(asks().await.status, 200);
    file.replace(&pool("access"));
    program.signal("HUP");
    program.wait_for_line("the policy file has been reloaded");
    assert_eq!(asks().await.headers["x-version"], "access");
}

/// Two emulators hold two pools. A reload moves the file from the first pool to the second, and is rejected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_fails_for_a_token_of_another_pool() {
    let (here, there) = (Emulator::start().await, Emulator::start().await);
    let mut pools = Vec::new();
    for emulator in [&here, &there] {
        let id = emulator.create_pool().await;
        let client = emulator.create_client(&id).await;
        emulator.create_user(&id, &client, "ada@example.test", &[]).await;
        let token = emulator.sign_in(&client, "ada@example.test").await.access;
        let text = format!(
            "default: members\npolicies: {{members: {{}}}}\naccount: {{pool: web}}\n\
             pools: {{web: {{user_pool_id: {id}, client_ids: {client}, endpoint: '{}'}}}}",
            emulator.url
        );
        pools.push((token, text));
    }
    let file = PolicyFile::new(&pools[0].1);
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let mut program = Program::start(&["--config", &file.path(), "--jwks-url", &keys.url]);
    eventually("ready", PATIENCE, async || get(&program.admin, "/readyz").await.0 == 200).await;
    let client = AccountClient::new(&program.admin);
    file.replace(&pools[1].1);
    program.signal("HUP");
    program.wait_for_line("policy file");
    let answer = client.bearer("/logout", &pools[1].0, json!({})).await;
    let alive = reqwest::Client::new()
        .post(&there.url)
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", "AWSCognitoIdentityProviderService.GetUser")
        .body(json!({"AccessToken": pools[1].0}).to_string());
    assert_eq!(alive.send().await.unwrap().status(), 200, "the user is still signed in there");
    assert_eq!(answer.verdict(), (401, "invalid_token"), "the response does not report success");
    assert_eq!(client.bearer("/logout", &pools[0].0, json!({})).await.status, 200, "{:?}", program.log);
}
