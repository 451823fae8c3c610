//! Cache of verified tokens, limited in number and bytes. A token is served only while its key is in the pool's key
//! set.
//!
//! Entries are keyed by the SHA-256 of the whole token, so two tokens that differ anywhere are two entries. A cached
//! token has a valid signature, but nothing more: the caller has to check `exp` and the policy again for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::token::claims::Claims;
use crate::jwks::VerifyingKey;
use crate::metrics::TokenCacheMetrics;
use crate::user_pool::PoolIndex;

/// Verified token.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Claims that later steps of a check read.
    pub(crate) claims: Claims,
    /// Pool that issued the token.
    pub(crate) pool: PoolIndex,
    /// Version of that pool's rules when the token was verified.
    pub(crate) stamp: PoolStamp,
    /// Key that verified the signature.
    pub(crate) key: Arc<VerifyingKey>,
    /// `true` once the token was taken from the cache.
    is_used_again: AtomicBool,
}

impl Verified {
    pub(crate) fn new(claims: Claims, pool: PoolIndex, stamp: PoolStamp, key: Arc<VerifyingKey>) -> Self {
        Self { claims, pool, stamp, key, is_used_again: AtomicBool::new(false) }
    }

    /// `true` if the token was used more than once.
    pub(super) fn is_used_again(&self) -> bool {
        self.is_used_again.load(Ordering::Relaxed)
    }

    /// `true` if the key is still in the pool's key set, and the pool's rules have not changed. `stamps` are the versions in
    /// effect, by [`PoolIndex`].
    fn is_current(&self, stamps: &[PoolStamp]) -> bool {
        self.key.is_current() && stamps.get(self.pool) == Some(&self.stamp)
    }
}

/// Version of a pool's rules. It changes when issuers, clients, token use or kept claims change. No two pools of a
/// process have the same version.
pub(crate) type PoolStamp = u64;

/// SHA-256 of a complete token, signature included.
pub(crate) type TokenDigest = [u8; 32];

/// Cache of verified tokens. If one of its limits is 0, it stores nothing.
#[derive(Debug)]
pub struct TokenCache {
    entries: Option<Cache<TokenDigest, Arc<Verified>>>,
    metrics: TokenCacheMetrics,
}

/// Bytes of an entry in addition to its claims: the entry itself, its key, and the cache's own data. Measured with
/// `cargo bench --bench load -- memory`, which fills the cache.
const ENTRY_BYTES: usize = 512;

impl TokenCache {
    /// Creates a cache of at most `capacity` tokens and about `max_bytes` bytes.
    ///
    /// One weigher enforces both limits: the weight of an entry is its size in bytes, but at least
    /// `max_bytes / capacity`.
    pub fn new(capacity: u64, max_bytes: u64, metrics: TokenCacheMetrics) -> Self {
        let least_weight = max_bytes.checked_div(capacity).filter(|_| max_bytes > 0);
        let entries = least_weight.map(|weight| {
            let least_weight = u32::try_from(weight.max(1)).unwrap_or(u32::MAX);
            let evictions = metrics.evictions.clone();
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(move |_: &TokenDigest, verified: &Arc<Verified>| {
                    u32::try_from(ENTRY_BYTES + verified.claims.heap_bytes()).unwrap_or(u32::MAX).max(least_weight)
                })
                // The default policy (TinyLFU) prefers entries that were read often: it would keep expired tokens and
                // not admit new ones.
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

    /// Computes the digest of `token`.
    pub(crate) fn digest(token: &str) -> TokenDigest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        bytes
    }

    /// Returns a token that a worker remembers, if it [is current](Verified::is_current). It counts as a hit.
    pub(super) fn recall(&self, known: &Arc<Verified>, stamps: &[PoolStamp]) -> Option<Arc<Verified>> {
        known.is_current(stamps).then(|| {
            self.metrics.hits.inc();
            Arc::clone(known)
        })
    }

    /// Returns the token if it is cached and [is current](Verified::is_current).
    pub(crate) fn get(&self, digest: &TokenDigest, stamps: &[PoolStamp]) -> Option<Arc<Verified>> {
        let entries = self.entries.as_ref()?;
        let found = entries.get(digest);
        match &found {
            Some(verified) if verified.is_current(stamps) => {
                verified.is_used_again.store(true, Ordering::Relaxed);
                self.metrics.hits.inc();
                return found;
            }
            Some(_) => entries.invalidate(digest),
            None => {}
        }
        self.metrics.misses.inc();
        None
    }

    /// Adds a verified token.
    pub(crate) fn insert(&self, digest: TokenDigest, verified: Arc<Verified>) {
        if let Some(entries) = &self.entries {
            entries.insert(digest, verified);
        }
    }

    /// Removes a token, for example because it has expired.
    pub(crate) fn remove(&self, digest: &TokenDigest) {
        if let Some(entries) = &self.entries {
            entries.invalidate(digest);
        }
    }

    /// Number of cached tokens. Runs the cache's pending tasks first, so that the number is exact.
    pub(crate) fn entry_count(&self) -> u64 {
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
        Arc::new(Verified::new(claims(&json!({ "sub": sub })), 0, 7, shared_key()))
    }

    fn digest(number: u32) -> TokenDigest {
        TokenCache::digest(&number.to_string())
    }

    /// Returns how many of 20,000 distinct tokens a cache keeps.
    fn kept(capacity: u64, max_bytes: u64, sub: &str) -> u64 {
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
        assert_eq!(kept(1000, 64 << 20, "s"), 1000);
        assert_eq!(kept(30_000, 64 << 20, "s"), 20_000);
        let bytes = kept(30_000, 1 << 20, "s");
        assert!((1000..=2048).contains(&bytes), "{bytes} tokens in 1 MiB");
        let long = kept(30_000, 1 << 20, &"s".repeat(4000));
        assert!((200..=262).contains(&long), "{long} long tokens in 1 MiB");
        assert_eq!((kept(0, 1 << 20, "s"), kept(1000, 0, "s")), (0, 0));
    }

    #[test]
    fn the_least_recently_used_tokens_are_evicted() {
        let (cache, verified) = (cache(100, 1 << 20), verified("s"));
        for number in 0..1000 {
            cache.insert(digest(number), Arc::clone(&verified));
            cache.entry_count(); // runs pending tasks, so that the order is exact
        }
        assert!(cache.get(&digest(999), &[7]).is_some());
        assert!(cache.get(&digest(0), &[7]).is_none());
        assert_eq!((cache.metrics.hits.get(), cache.metrics.misses.get()), (1, 1));
    }

    #[test]
    fn tokens_of_a_changed_pool_are_not_served() {
        for stamps in [&[8][..], &[], &[8, 7]] {
            let cache = cache(100, 1 << 20);
            cache.insert(digest(1), verified("s"));
            assert!(cache.get(&digest(1), &[7]).is_some());
            assert!(cache.get(&digest(1), stamps).is_none());
            assert_eq!(cache.entry_count(), 0);
        }
    }
}
