//! Stores that are lost, that lose their data, and networks that fail.

use std::time::{Duration, Instant};

use super::{Replica, Writer, token, users};
use crate::support::eventually;
use crate::support::redis::{KEY, Network, Proxy, REDIS, Redis};
use crate::support::service::PATIENCE;

#[tokio::test]
async fn a_lost_store_changes_no_check_and_gets_back_what_replicas_know() {
    let mut redis = Redis::start().await;
    let (plain, required) =
        (Replica::start(&redis.url()).await, Replica::with(&redis.url(), &["--revocation-required"]).await);
    required.becomes_ready().await;
    let gone = Writer::start(&redis.url());
    gone.confirms("before").await;
    plain.learns("before").await;
    required.learns("before").await;
    drop(gone);
    let writer = Writer::start(&redis.url());
    writer.confirms("before-too").await;
    plain.learns("before-too").await;
    required.learns("before-too").await;

    redis.kill();
    plain.sees_store(false).await;
    assert!(plain.refuses("before").await && !plain.refuses("other").await);
    assert!(!writer.revokes("meanwhile").await, "the store did not take it");
    eventually("503", PATIENCE, async || required.verdict("other").await == (503, "revocation_unavailable".into()))
        .await;
    assert!(required.refuses("before").await, "what is known to be revoked is refused as such");

    redis.resume().await.unwrap();
    eventually("200", PATIENCE, async || required.verdict("other").await.0 == 200).await;
    for replica in [&plain, &required] {
        replica.sees_store(true).await;
        replica.learns("meanwhile").await;
    }
    // A replica that knew nothing before gets everything from the store. Two replicas may put back the same record at
    // the same time, so the number of records does not tell that all are there.
    let new = Replica::start(&redis.url()).await;
    for user in ["before", "before-too", "meanwhile"] {
        new.learns(user).await;
    }
}

#[tokio::test]
async fn replicas_that_put_back_the_same_revocations_share_the_work() {
    let mut redis = Redis::start().await;
    let count = 5000;
    let writer = Writer::start(&redis.url());
    writer.confirms("first").await;
    redis.fill(count).await;
    let replicas =
        [Replica::start(&redis.url()).await, Replica::start(&redis.url()).await, Replica::start(&redis.url()).await];
    redis.restart_empty().await;
    eventually("put back", PATIENCE, async || redis.records().await > count).await;
    let new = Replica::start(&redis.url()).await;
    assert_eq!(new.entries().await, count + 1);
    for replica in &replicas {
        replica.sees_store(true).await;
    }
    // Without sharing, each of the four would append everything.
    let records = redis.records().await;
    assert!(records < 3 * count, "{records}");
}

#[tokio::test]
async fn a_flush_is_noticed_even_if_a_record_follows_at_once() {
    let redis = Redis::start().await;
    let (replica, writer) = (Replica::start(&redis.url()).await, Writer::start(&redis.url()));
    for user in users("flushed", 5) {
        writer.confirms(&user).await;
        replica.learns(&user).await;
    }
    let flush = "redis.call('FLUSHALL') return redis.call('XADD', KEYS[1], '*', 'x', 'y')";
    let _: String = redis.command(&["EVAL", flush, "1", KEY]).await;
    eventually("put back", PATIENCE, async || redis.records().await >= 6).await;
    drop((replica, writer));
    let new = Replica::start(&redis.url()).await;
    for user in users("flushed", 5) {
        assert!(new.refuses(&user).await, "{user}");
    }
}

#[tokio::test]
async fn records_after_the_snapshot_that_a_server_starts_from_are_put_back() {
    let mut redis = Redis::start().await;
    let (replica, writer) = (Replica::start(&redis.url()).await, Writer::start(&redis.url()));
    writer.confirms("saved").await;
    let _: String = redis.command(&["SAVE"]).await;
    writer.confirms("not-saved").await;
    replica.learns("not-saved").await;
    drop(writer);
    redis.kill();
    redis.resume().await.unwrap();
    eventually("put back", PATIENCE, async || redis.records().await >= 2).await;
    let new = Replica::start(&redis.url()).await;
    assert!(new.refuses("saved").await && new.refuses("not-saved").await);
}

async fn partition(network: Network) {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port).await;
    let (apart, near) = (Replica::start(&proxy.url()).await, Replica::start(&redis.url()).await);
    let (far_writer, near_writer) = (Writer::start(&proxy.url()), Writer::start(&redis.url()));
    far_writer.confirms("before").await;
    near.learns("before").await;
    apart.learns("before").await;
    token("by-near");
    token("by-far");

    let start = Instant::now();
    proxy.set(network);
    near_writer.confirms("by-near").await;
    let write = Instant::now();
    assert!(!far_writer.revokes("by-far").await, "not confirmed");
    // The limit of a write is two seconds, and a loss is noticed within five. The rest allows for a busy machine.
    assert!(write.elapsed() < Duration::from_secs(5), "{:?}", write.elapsed());
    apart.sees_store(false).await;
    assert!(start.elapsed() < Duration::from_secs(10), "noticed after {:?}", start.elapsed());
    while start.elapsed() < Duration::from_secs(5) {
        assert!(apart.refuses("before").await && !apart.refuses("by-near").await);
        assert!(!near.refuses("by-far").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    proxy.set(Network::Open);
    apart.learns("by-near").await;
    near.learns("by-far").await;
    apart.learns("by-far").await;
    far_writer.confirms("after").await;
    near.learns("after").await;
}

#[tokio::test]
async fn replicas_converge_after_a_network_that_closed_connections() {
    partition(Network::Closed).await;
}

#[tokio::test]
async fn replicas_converge_after_a_network_that_froze() {
    partition(Network::Frozen).await;
}

#[tokio::test]
async fn another_server_at_the_same_address_gets_what_replicas_know() {
    let (first, second) = (Redis::start().await, Redis::with(REDIS, &[]).await);
    Writer::start(&second.url()).confirms("of-the-second").await;
    let switch = Proxy::start(first.port).await;
    let replica = Replica::start(&switch.url()).await;
    let writer = Writer::start(&first.url());
    writer.confirms("of-the-first").await;
    replica.learns("of-the-first").await;
    switch.redirect(second.port);
    replica.learns("of-the-second").await;
    eventually("put back", PATIENCE, async || second.records().await >= 2).await;
    let new = Replica::start(&second.url()).await;
    assert!(new.refuses("of-the-first").await);
}
