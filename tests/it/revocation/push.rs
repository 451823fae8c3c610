//! Push to other replicas, catch-up after a restart, and the start.

use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use super::{Replica, Writer, summary, token, users};
use crate::support::client::get;
use crate::support::eventually;
use crate::support::redis::{Network, Proxy, REDIS, Redis, VALKEY};
use crate::support::service::{PATIENCE, run_with_input};
use crate::support::token::{CLIENT, POOL, SigningKey, jwks};

/// A revocation has to reach every replica within this time. One in ten may take longer, because the machine may be busy now
/// and then.
const WITHIN: Duration = Duration::from_secs(1);

#[expect(clippy::print_stdout, reason = "a measurement")]
async fn rounds(program: &'static str, count: usize) {
    let redis = Redis::with(program, &[]).await;
    let (first, second, writer) =
        (Replica::start(&redis.url()).await, Replica::start(&redis.url()).await, Writer::start(&redis.url()));
    let users = users(program, count);
    for user in &users {
        token(user);
        assert!(!first.refuses(user).await && !second.refuses(user).await);
    }
    let mut times = Vec::new();
    for user in &users {
        let start = Instant::now();
        assert!(writer.revokes(user).await);
        while !(first.refuses(user).await && second.refuses(user).await) {
            assert!(start.elapsed() < PATIENCE, "{user} is not refused");
        }
        times.push(start.elapsed());
    }
    let late = times.iter().filter(|time| **time >= WITHIN).count();
    let (median, worst) = summary(times);
    println!("{program}: refused at two other replicas, {count} rounds: median {median:?}, worst {worst:?}");
    assert!(late <= count / 10, "{late} of {count} are late: median {median:?}, worst {worst:?}");
    assert!(first.metric("revocation_lag_seconds").await < PATIENCE.as_secs_f64());
    assert_eq!(first.entries().await, users.len());
    assert!(first.metric("revocation_last_sync_timestamp_seconds").await > 1e9);
    assert_eq!(redis.records().await, count, "each is one record");
}

#[tokio::test]
async fn a_revocation_reaches_other_replicas_within_a_second() {
    rounds(REDIS, 100).await;
}

#[tokio::test]
async fn the_store_can_be_valkey() {
    rounds(VALKEY, 20).await;
}

#[tokio::test]
async fn a_replica_that_was_away_knows_what_was_revoked_meanwhile() {
    let redis = Redis::start().await;
    let writer = Writer::start(&redis.url());
    let replica = Replica::start(&redis.url()).await;
    writer.confirms("before").await;
    replica.learns("before").await;
    drop(replica);
    writer.confirms("meanwhile").await;
    let replica = Replica::start(&redis.url()).await;
    for user in ["before", "meanwhile"] {
        assert!(replica.refuses(user).await, "known when it is ready: {user}");
    }
    assert!(!replica.refuses("other").await);
}

#[tokio::test]
async fn the_start_waits_ten_seconds_for_the_store() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port).await;
    proxy.set(Network::Frozen);
    let start = Instant::now();
    let replica = Replica::with(&proxy.url(), &[]).await;
    let (status, body) = get(&replica.app.admin, "/readyz").await;
    assert!(status == 503 && body.contains("the store of revocations"), "{body}");
    assert!(!replica.refuses("anyone").await, "checks are answered with what is known");
    replica.becomes_ready().await;
    assert!((9.0..15.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    proxy.set(Network::Open);
    Writer::start(&redis.url()).confirms("later").await;
    replica.learns("later").await;
}

#[tokio::test]
async fn with_a_required_store_nothing_is_allowed_before_it_is_loaded() {
    let mut redis = Redis::start().await;
    redis.kill();
    let replica = Replica::with(&redis.url(), &["--revocation-required"]).await;
    assert_eq!(replica.verdict("anyone").await, (503, "revocation_unavailable".into()));
    // Longer than the start waits otherwise.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(get(&replica.app.admin, "/readyz").await.0, 503);
    redis.resume().await.unwrap();
    replica.becomes_ready().await;
    assert!(!replica.refuses("anyone").await);
}

#[tokio::test]
async fn a_long_stream_is_loaded_before_the_replica_is_ready() {
    let redis = Redis::start().await;
    let count = 25_000;
    let writer = Writer::start(&redis.url());
    writer.confirms("first").await;
    redis.fill(count).await;
    writer.confirms("last").await;
    assert_eq!(redis.records().await, count + 2);
    let start = Instant::now();
    // Ready only when all is loaded, however long that takes.
    let replica = Replica::with(&redis.url(), &["--revocation-required"]).await;
    replica.becomes_ready().await;
    println!("{count} revocations: ready after {:?}", start.elapsed());
    assert!(replica.refuses("first").await && replica.refuses("last").await);
    assert_eq!(replica.entries().await, count + 2);
    eventually("the store answers", PATIENCE, async || replica.metric("revocation_store_up").await == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_asks_the_store() {
    let mut redis = Redis::start().await;
    let writer = Writer::start(&redis.url());
    assert!(writer.revokes("explained").await);
    let keys = NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), jwks(&[SigningKey::shared()])).unwrap();
    let (url, keys) = (redis.url(), keys.path().to_str().unwrap());
    let flags = ["explain", "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-file", keys];
    let flags = [&flags[..], &["--jwks-url", "http://127.0.0.1:9/", "--revocation-url", &url]].concat();
    let step = |user: &str| {
        let (code, output, error) = run_with_input(&flags, token(user).as_bytes());
        let line = output.lines().find_map(|line| line.strip_prefix("revocation"));
        (code, line.unwrap_or_else(|| panic!("{output} {error}")).trim().to_owned())
    };
    assert_eq!(step("explained"), (Some(1), "failed: revoked".into()));
    assert_eq!(step("another"), (Some(0), "passed".into()));
    redis.kill();
    let (code, result) = step("explained");
    assert!(code == Some(0) && result.starts_with(&format!("skipped: {url}: ")), "{code:?} {result}");
}
