//! Tokens that were verified before: bounded in number and bytes, and never trusted for longer than their key.
//!
//! The key is the SHA-256 of the whole token, so two tokens that differ anywhere are two entries. An entry is
//! only half the answer: whoever takes one out judges `exp` and policy again.

use std::sync::Arc;

use aws_lc_rs::digest;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::claims::Claims;
use crate::jwks::VerifyingKey;
use crate::metrics::TokenCacheMetrics;
use crate::user_pool::PoolIndex;

/// What is known of a verified token.
#[derive(Debug)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// The pool that signed it.
    pub pool: PoolIndex,
    /// The version of that pool's rules under which it was verified.
    pub stamp: PoolStamp,
    /// The key it was verified with.
    pub key: Arc<VerifyingKey>,
}

/// Tells versions of a pool apart: one whose issuers, clients, token use or kept claims have changed has another one.
/// No two pools of a process share one.
pub type PoolStamp = u64;

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// The cache. With a bound of 0 it keeps nothing.
#[derive(Debug)]
pub struct TokenCache {
    entries: Option<Cache<TokenDigest, Arc<Verified>>>,
    metrics: TokenCacheMetrics,
}

/// Bytes of an entry beside its claims: the entry itself, its key, and the cache's books. Measured by
/// `cargo bench --bench footprint`, which fills the cache.
const ENTRY_BYTES: usize = 512;

impl TokenCache {
    /// A cache of at most `capacity` tokens and about `max_bytes` bytes.
    ///
    /// One weigher enforces both: each entry weighs its bytes, but at least the share of the bytes that one of
    /// `capacity` entries has.
    pub fn new(capacity: u64, max_bytes: u64, metrics: TokenCacheMetrics) -> Self {
        let share = max_bytes.checked_div(capacity).filter(|_| max_bytes > 0);
        let entries = share.map(|share| {
            let share = u32::try_from(share.max(1)).unwrap_or(u32::MAX);
            let evictions = metrics.evictions.clone();
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(move |_: &TokenDigest, verified: &Arc<Verified>| {
                    u32::try_from(ENTRY_BYTES + verified.claims.heap_bytes()).unwrap_or(u32::MAX).max(share)
                })
                // The default policy keeps what was asked for often, and so would keep a generation of expired
                // tokens and admit no new ones.
                .eviction_policy(EvictionPolicy::lru())
                .eviction_listener(move |_, _, cause| {
                    if cause == RemovalCause::Size {
                        evictions.inc();
                    }
                })
                .build()
        });
        Self { entries, metrics }
    }

    /// The digest under which `token` is kept.
    pub fn digest(token: &str) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        bytes
    }

    /// What is known of the token, unless its key has left the pool since, or the pool is no longer what it was:
    /// `stamps` are those of the pools in force.
    pub fn get(&self, digest: &TokenDigest, stamps: &[PoolStamp]) -> Option<Arc<Verified>> {
        let entries = self.entries.as_ref()?;
        let found = entries.get(digest);
        let stands =
            |verified: &Verified| verified.key.is_current() && stamps.get(verified.pool) == Some(&verified.stamp);
        if found.as_ref().is_some_and(|verified| !stands(verified)) {
            entries.invalidate(digest);
            self.metrics.misses.inc();
            return None;
        }
        match found {
            Some(_) => self.metrics.hits.inc(),
            None => self.metrics.misses.inc(),
        }
        found
    }

    /// Keeps a verified token.
    pub fn insert(&self, digest: TokenDigest, verified: Arc<Verified>) {
        if let Some(entries) = &self.entries {
            entries.insert(digest, verified);
        }
    }

    /// Forgets a token: it has expired.
    pub fn remove(&self, digest: &TokenDigest) {
        if let Some(entries) = &self.entries {
            entries.invalidate(digest);
        }
    }

    /// How many tokens are kept; exact once pending work is done, which this does.
    pub fn entry_count(&self) -> u64 {
        self.entries.as_ref().map_or(0, |entries| {
            entries.run_pending_tasks();
            entries.entry_count()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::authz::token::tests::{claims, shared_key};
    use crate::metrics::Metrics;

    fn cache(capacity: u64, max_bytes: u64) -> TokenCache {
        TokenCache::new(capacity, max_bytes, Metrics::new().unwrap().token_cache)
    }

    fn verified(sub: &str) -> Arc<Verified> {
        Arc::new(Verified { claims: claims(&json!({ "sub": sub })), pool: 0, stamp: 7, key: shared_key() })
    }

    fn digest(number: u32) -> TokenDigest {
        TokenCache::digest(&number.to_string())
    }

    /// How many of 20,000 distinct tokens stay.
    fn stay(capacity: u64, max_bytes: u64, sub: &str) -> u64 {
        let (cache, verified) = (cache(capacity, max_bytes), verified(sub));
        for number in 0..20_000 {
            cache.insert(digest(number), Arc::clone(&verified));
        }
        let count = cache.entry_count();
        assert_eq!(cache.metrics.evictions.get() > 0, count > 0 && count < 20_000);
        count
    }

    #[test]
    fn both_bounds_hold() {
        assert_eq!(stay(1000, 64 << 20, "s"), 1000);
        assert_eq!(stay(30_000, 64 << 20, "s"), 20_000);
        let bytes = stay(30_000, 1 << 20, "s");
        assert!((1000..=2048).contains(&bytes), "{bytes} tokens in 1 MiB");
        let long = stay(30_000, 1 << 20, &"s".repeat(4000));
        assert!((200..=262).contains(&long), "{long} long tokens in 1 MiB");
        assert_eq!((stay(0, 1 << 20, "s"), stay(1000, 0, "s")), (0, 0));
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let (cache, verified) = (cache(100, 1 << 20), verified("s"));
        for number in 0..1000 {
            cache.insert(digest(number), Arc::clone(&verified));
            cache.entry_count(); // does the pending work, so that the order is exact
        }
        assert!(cache.get(&digest(999), &[7]).is_some());
        assert!(cache.get(&digest(0), &[7]).is_none());
        assert_eq!((cache.metrics.hits.get(), cache.metrics.misses.get()), (1, 1));
    }

    #[test]
    fn a_token_of_a_pool_that_has_changed_is_not_served() {
        for stamps in [&[8][..], &[], &[8, 7]] {
            let cache = cache(100, 1 << 20);
            cache.insert(digest(1), verified("s"));
            assert!(cache.get(&digest(1), &[7]).is_some());
            assert!(cache.get(&digest(1), stamps).is_none());
            assert_eq!(cache.entry_count(), 0);
        }
    }
}
