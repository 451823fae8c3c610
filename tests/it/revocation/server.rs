//! States of a server: a read-only replica, full, with foreign records, and old ones.

use super::{Replica, Writer, users};
use crate::support::client::get;
use crate::support::eventually;
use crate::support::redis::{KEY, REDIS, Redis};
use crate::support::service::PATIENCE;

#[tokio::test]
async fn a_read_only_server_can_be_followed_but_confirms_nothing() {
    let primary = Redis::start().await;
    let port = primary.port.to_string();
    let copy =
        Redis::with(REDIS, &["--replicaof", &format!("127.0.0.1 {port}"), "--repl-diskless-sync-delay", "0"]).await;
    let (replica, writer) = (Replica::start(&copy.url()).await, Writer::start(&copy.url()));
    Writer::start(&primary.url()).confirms("at-the-primary").await;
    replica.learns("at-the-primary").await;
    assert!(!writer.revokes("at-the-copy").await);
    assert_eq!(replica.metric("revocation_store_up").await, 1.0);
    // Promoted: it takes what it refused before.
    let _: String = copy.command(&["REPLICAOF", "NO", "ONE"]).await;
    replica.learns("at-the-copy").await;
    writer.confirms("later").await;
}

#[tokio::test]
async fn a_full_server_confirms_nothing_until_it_has_room() {
    let redis = Redis::start().await;
    let (replica, writer) = (Replica::start(&redis.url()).await, Writer::start(&redis.url()));
    writer.confirms("before").await;
    replica.learns("before").await;
    let _: String = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(!writer.revokes("while-full").await);
    assert_eq!(replica.metric("revocation_store_up").await, 1.0, "reading goes on");
    assert!(replica.refuses("before").await && !replica.refuses("while-full").await);
    let _: String = redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    replica.learns("while-full").await;
}

#[tokio::test]
async fn records_that_are_not_readable_are_skipped() {
    let redis = Redis::start().await;
    let writer = Writer::start(&redis.url());
    let foreign: [&[&str]; 5] =
        [&["x", "y"], &["r", ""], &["r", "\u{2}\u{1}\u{1}later version"], &["r", "a", "r", "b"], &["r", "\u{1}\u{1}"]];
    for fields in foreign {
        let _: String = redis.command(&[&["XADD", KEY, "*"], fields].concat()).await;
    }
    let replica = Replica::start(&redis.url()).await;
    writer.confirms("readable").await;
    replica.learns("readable").await;
    for fields in foreign {
        let _: String = redis.command(&[&["XADD", KEY, "*"], fields].concat()).await;
    }
    writer.confirms("readable-too").await;
    replica.learns("readable-too").await;
    assert_eq!(replica.metric("revocation_store_up").await, 1.0);
    assert!(Replica::start(&redis.url()).await.refuses("readable-too").await);
}

#[tokio::test]
async fn another_value_in_place_of_the_stream_counts_as_lost() {
    let redis = Redis::start().await;
    let (replica, writer) = (Replica::start(&redis.url()).await, Writer::start(&redis.url()));
    writer.confirms("before").await;
    replica.learns("before").await;
    let _: String = redis.command(&["SET", KEY, "text"]).await;
    replica.sees_store(false).await;
    assert!(!writer.revokes("meanwhile").await);
    let _: i64 = redis.command(&["DEL", KEY]).await;
    replica.sees_store(true).await;
    replica.learns("meanwhile").await;
    eventually("put back", PATIENCE, async || redis.records().await >= 2).await;
}

#[tokio::test]
async fn a_store_with_more_than_a_replica_may_hold_counts_as_lost() {
    let redis = Redis::start().await;
    let limit = ["--revocation-capacity", "10"];
    let required = Replica::with(&redis.url(), &["--revocation-capacity", "10", "--revocation-required"]).await;
    required.becomes_ready().await;
    let plain = Replica::with(&redis.url(), &limit).await;
    let (small, large) = (Writer::with(&redis.url(), &limit), Writer::start(&redis.url()));
    let users = users("flood", 30);
    // Above the capacity, so that nothing is missed that others have confirmed.
    for user in &users[..20] {
        large.confirms(user).await;
        required.learns(user).await;
    }
    assert!(!small.revokes("one-more").await, "the replica is full");
    assert_eq!(required.verdict("other").await.0, 200);
    for user in &users[20..] {
        large.confirms(user).await;
    }
    eventually("503", PATIENCE, async || required.verdict("other").await.0 == 503).await;
    assert_eq!(required.metric("revocations{kind=\"sub\"}").await, 20.0);
    assert!(required.refuses(&users[0]).await);
    plain.learns(&users[0]).await;
    assert_eq!((plain.verdict("other").await.0, plain.metric("revocations{kind=\"sub\"}").await), (200, 20.0));
    let late = Replica::with(&redis.url(), &["--revocation-capacity", "10", "--revocation-required"]).await;
    late.sees_store(true).await;
    assert_eq!(get(&late.app.admin, "/readyz").await.0, 503, "not all is loaded");
}

#[tokio::test]
async fn records_are_trimmed_once_they_no_longer_matter() {
    let redis = Redis::with(REDIS, &["--stream-node-max-entries", "10"]).await;
    let two_days_ago = (crate::support::token::unix_now() - 48 * 3600) * 1000;
    for number in 0..50 {
        let id = format!("{two_days_ago}-{number}");
        let _: String = redis.command(&["XADD", KEY, &id, "x", "y"]).await;
    }
    let (replica, writer) = (Replica::start(&redis.url()).await, Writer::start(&redis.url()));
    for user in users("trim", 3) {
        writer.confirms(&user).await;
        replica.learns(&user).await;
    }
    assert!(redis.records().await < 15, "{}", redis.records().await);
    // Many, because the server trims whole nodes of its stream.
    for user in users("young", 25) {
        writer.confirms(&user).await;
        replica.learns(&user).await;
    }
    // A server whose clock was far ahead for a while trims nothing that our clock knows to be young.
    let _: String = redis.command(&["XADD", KEY, "32503680000000-0", "x", "y"]).await;
    for user in users("ahead", 30) {
        writer.confirms(&user).await;
        replica.learns(&user).await;
    }
    let new = Replica::start(&redis.url()).await;
    for user in [users("trim", 3), users("young", 25), users("ahead", 30)].concat() {
        assert!(new.refuses(&user).await, "{user}");
    }
}
