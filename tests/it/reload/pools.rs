//! Reloads that add, change and remove pools.

use std::time::{Duration, Instant};

use super::{Stage, our_token, text, their_keys, their_token};
use crate::support::client::get;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{CLIENT, OTHER_ISSUER, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

/// Returns a second pool with this JWKS server and these app clients.
fn partners(keys: &JwksServer, clients: &str) -> String {
    format!(
        "pools: {{partners: {{user_pool_id: eu-central-1_Other0002, client_ids: [{clients}], jwks_url: '{}'}}}}",
        keys.url
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pool_takes_effect_after_its_keys_are_fetched() {
    let their_keys =
        JwksServer::start(Reply { delay: Duration::from_secs(1), ..Reply::ok(jwks(&[SigningKey::other()])) }).await;
    let stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let (our, their) = (our_token(), their_token("partner"));
    assert_eq!(stage.ask(&their).await.verdict(), (401, "unknown_issuer"));
    stage.file.replace(&text("2", &partners(&their_keys, "partner")));
    let start = Instant::now();
    stage.program.signal("HUP");
    let mut asked = 0;
    loop {
        // The version is read first, because it may change between the two requests.
        let version = stage.version().await;
        let answer = stage.ask(&their).await;
        assert_eq!(stage.ask(&our).await.status, 200);
        if answer.status == 200 {
            break;
        }
        assert_eq!((answer.verdict(), &*version), ((401, "unknown_issuer"), "1"));
        assert!(start.elapsed() < PATIENCE);
        asked += 1;
    }
    assert!(
        asked > 10 && start.elapsed() >= Duration::from_secs(1),
        "{asked}: there were too few checks during the fetch"
    );
    assert_eq!((stage.version().await, their_keys.requests()), ("2".to_owned(), 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_waits_at_most_five_seconds_for_the_keys_of_a_new_pool() {
    let their_keys = JwksServer::start(Reply::status(500)).await;
    let stage = Stage::new(PolicyFile::new(&text("1", ""))).await;
    let (our, their) = (our_token(), their_token("partner"));
    stage.file.replace(&text("2", &partners(&their_keys, "partner")));
    let start = Instant::now();
    stage.program.signal("HUP");
    eventually("the new version is in effect", PATIENCE, async || {
        assert_eq!(stage.ask(&our).await.status, 200);
        let verdict = stage.ask(&their).await;
        let version = stage.version().await;
        // The version may change between the two requests.
        assert!(verdict.reason == "unknown_issuer" || version == "2", "{verdict:?}");
        version == "2"
    })
    .await;
    let waited = start.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    assert_eq!(stage.ask(&their).await.verdict(), (503, "keys_unavailable"));
    assert_eq!(stage.ask(&our).await.status, 200);
    assert_eq!(get(&stage.program.admin, "/readyz").await.0, 200, "the other pool stays ready");
    // The pool is not new any more, so the next reload does not wait for its keys.
    let start = Instant::now();
    stage.reload("3", &partners(&their_keys, "partner, guest")).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    their_keys.answers(Reply::ok(jwks(&[SigningKey::other()])));
    eventually("keys", PATIENCE, async || stage.ask(&their).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_pool_applies_to_cached_tokens() {
    let their_keys = their_keys().await;
    let stage = Stage::new(PolicyFile::new(&text("1", &partners(&their_keys, "partner, guest")))).await;
    let (our, partner, guest) = (our_token(), their_token("partner"), their_token("guest"));
    for token in [&our, &partner, &guest, &our, &partner, &guest] {
        assert_eq!(stage.ask(token).await.status, 200);
    }
    assert_eq!(stage.metric("token_cache_hits_total").await, 3.0);
    let hits = async || stage.metric("token_cache_hits_total").await;

    stage.reload("2", &partners(&their_keys, "partner")).await;
    assert_eq!(stage.ask(&guest).await.verdict(), (401, "wrong_client"));
    assert_eq!(stage.ask(&partner).await.status, 200);
    let before = hits().await;
    assert_eq!(stage.ask(&our).await.status, 200);
    assert_eq!(hits().await, before + 1.0, "an unchanged pool keeps its verified tokens");

    // A new pool comes first, so the position of `partners` changes.
    let more = partners(&their_keys, "partner").replace(
        "{partners:",
        &format!("{{a: {{user_pool_id: eu-west-1_A, client_ids: {CLIENT}, jwks_url: '{}'}}, partners:", their_keys.url),
    );
    stage.reload("3", &more).await;
    for token in [&our, &partner] {
        assert_eq!(stage.ask(token).await.status, 200);
    }
    assert_eq!(stage.ask(&partner).await.text("client_id"), "partner");
    assert_eq!(
        stage.metric("checks_total{decision=\"allow\",policy=\"members\",pool=\"partners\",reason=\"\"}").await,
        7.0
    );

    // Changes of the tokens that a pool accepts.
    stage.reload("4", &partners(&their_keys, "partner").replace("client_ids", "token_use: id, client_ids")).await;
    assert_eq!(stage.ask(&partner).await.verdict(), (401, "wrong_token_use"));
    stage
        .reload(
            "5",
            &partners(&their_keys, "partner").replace("client_ids", "issuers: ['https://other.test'], client_ids"),
        )
        .await;
    assert_eq!(stage.ask(&partner).await.verdict(), (401, "unknown_issuer"));
    stage.reload("6", &partners(&their_keys, "partner, guest")).await;
    for token in [&partner, &guest] {
        assert_eq!(stage.ask(token).await.status, 200);
    }
    stage.reload("7", "").await;
    for token in [&partner, &guest] {
        assert_eq!(stage.ask(token).await.verdict(), (401, "unknown_issuer"));
    }
    assert_eq!(stage.ask(&our).await.status, 200);
    let (_, metrics) = get(&stage.program.admin, "/metrics").await;
    assert!(metrics.contains("jwks_keys{pool=\"default\"} 1") && !metrics.contains("jwks_keys{pool=\"partners\"}"));
    // Keys were fetched once for `partners` and once for `a`.
    assert_eq!((stage.keys.requests(), their_keys.requests()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_with_another_jwks_url_gets_other_keys() {
    let (old, new) = (their_keys().await, JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await);
    let stage = Stage::new(PolicyFile::new(&text("1", &partners(&old, "partner")))).await;
    let before = their_token("partner");
    let after =
        TokenBuilder::access().claim("iss", OTHER_ISSUER).claim("client_id", "partner").sign(SigningKey::shared());
    assert_eq!((stage.ask(&before).await.status, stage.ask(&after).await.status), (200, 401));
    stage.reload("2", &partners(&new, "partner")).await;
    assert_eq!(stage.ask(&before).await.verdict(), (401, "unknown_kid"));
    assert_eq!(stage.ask(&after).await.status, 200);
    assert_eq!((old.requests(), new.requests(), stage.keys.requests()), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_cannot_remove_the_pool_of_the_account_api() {
    let their_keys = their_keys().await;
    let account = "account: {pool: partners}";
    let with = format!("{}\n{account}", partners(&their_keys, "partner"));
    let stage = Stage::new(PolicyFile::new(&text("1", &with))).await;
    stage.file.replace(&text("2", ""));
    stage.program.signal("HUP");
    eventually("the reload is rejected", PATIENCE, async || {
        stage.error().await.contains("the account API speaks for the pool partners")
    })
    .await;
    assert_eq!((stage.version().await, stage.ask(&their_token("partner")).await.status), ("1".to_owned(), 200));
    stage.reload("3", &with).await;
}
