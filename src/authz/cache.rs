//! Cache of verified tokens, limited in number and bytes. A token is served only while its key is in the pool's key
//! set.
//!
//! Entries are keyed by the SHA-256 of the whole token, so two tokens that differ anywhere are two entries. A cached
//! token has a valid signature, but nothing more: the caller has to check `exp` and the policy again for each request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use lru::LruCache;

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

/// Cache of verified tokens. The least recently used ones are evicted.
///
/// It consists of parts, each with a lock of its own, so that workers seldom wait for each other.
#[derive(Debug)]
pub struct TokenCache {
    parts: Box<[Mutex<Part>]>,
    /// Limits of each part.
    capacity: usize,
    max_bytes: usize,
    metrics: TokenCacheMetrics,
}

/// Tokens whose digests belong to one part of the cache.
#[derive(Debug)]
struct Part {
    tokens: LruCache<TokenDigest, Arc<Verified>>,
    /// Bytes of all tokens.
    bytes: usize,
}

/// Number of parts of a cache that is not small.
const PARTS: u64 = 16;
/// Capacities below which a cache has a single part. Tokens spread over the parts at random, so a part that could hold only a
/// few would be full long before the others.
const SMALL: u64 = 64 * PARTS;
const SMALL_BYTES: u64 = SMALL * 4096;

/// Bytes of an entry in addition to its claims: the entry itself, its key, and the cache's own data. Measured with
/// `cargo bench --bench load -- memory`, which fills the cache.
const ENTRY_BYTES: usize = 512;

impl Part {
    fn remove(&mut self, digest: &TokenDigest) {
        let removed = self.tokens.pop(digest);
        self.bytes -= removed.map_or(0, |verified| bytes(&verified));
    }
}

/// Bytes of a token in the cache, about.
fn bytes(verified: &Verified) -> usize {
    ENTRY_BYTES + verified.claims.heap_bytes()
}

impl TokenCache {
    /// Creates a cache of at most `capacity` tokens and about `max_bytes` bytes. If one of them is 0, it stores nothing.
    pub fn new(capacity: u64, max_bytes: u64, metrics: TokenCacheMetrics) -> Self {
        let parts = if capacity < SMALL || max_bytes < SMALL_BYTES { 1 } else { PARTS };
        let limit = |limit: u64| usize::try_from(limit / parts).unwrap_or(usize::MAX);
        let part = |_| Mutex::new(Part { tokens: LruCache::unbounded(), bytes: 0 });
        Self { parts: (0..parts).map(part).collect(), capacity: limit(capacity), max_bytes: limit(max_bytes), metrics }
    }

    /// The part that this digest belongs to. `None` is impossible: there is at least one.
    fn part(&self, digest: &TokenDigest) -> Option<MutexGuard<'_, Part>> {
        let [first, ..] = digest;
        let index = usize::from(*first) % self.parts.len().max(1);
        Some(self.parts.get(index)?.lock().unwrap_or_else(PoisonError::into_inner))
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

    /// Returns the token if it is cached and [is current](Verified::is_current). One that is not is removed.
    pub(crate) fn get(&self, digest: &TokenDigest, stamps: &[PoolStamp]) -> Option<Arc<Verified>> {
        let mut part = self.part(digest)?;
        let found = part.tokens.get(digest).cloned();
        let current = found.filter(|verified| verified.is_current(stamps));
        if let Some(verified) = &current {
            verified.is_used_again.store(true, Ordering::Relaxed);
            self.metrics.hits.inc();
        } else {
            part.remove(digest);
            self.metrics.misses.inc();
        }
        current
    }

    /// Adds a verified token, unless it is larger than a part of the cache.
    pub(crate) fn insert(&self, digest: TokenDigest, verified: Arc<Verified>) {
        let added = bytes(&verified);
        let Some(mut part) = self.part(&digest).filter(|_| self.capacity > 0 && added <= self.max_bytes) else {
            return;
        };
        part.remove(&digest); // another check may have verified the same token at the same time
        part.tokens.put(digest, verified);
        part.bytes += added;
        while part.tokens.len() > self.capacity || part.bytes > self.max_bytes {
            let Some((_, evicted)) = part.tokens.pop_lru() else { break };
            part.bytes -= bytes(&evicted);
            self.metrics.evictions.inc();
        }
    }

    /// Removes a token, for example because it has expired.
    pub(crate) fn remove(&self, digest: &TokenDigest) {
        if let Some(mut part) = self.part(digest) {
            part.remove(digest);
        }
    }

    /// Number of cached tokens.
    pub(crate) fn entry_count(&self) -> u64 {
        let count = |part: &Mutex<Part>| part.lock().unwrap_or_else(PoisonError::into_inner).tokens.len() as u64;
        self.parts.iter().map(count).sum()
    }

    /// Part of the cache that is used, from 0 to 1: of its tokens or of its bytes, whichever is nearer to the limit.
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are below 2^53")]
    pub(crate) fn used_ratio(&self) -> f64 {
        let used = |part: &Mutex<Part>| {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let of = |used: usize, limit: usize| if limit == 0 { 0.0 } else { used as f64 / limit as f64 };
            of(part.tokens.len(), self.capacity).max(of(part.bytes, self.max_bytes))
        };
        self.parts.iter().map(used).sum::<f64>() / self.parts.len().max(1) as f64
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
        assert!((0.0..=1.0).contains(&cache.used_ratio()), "{}", cache.used_ratio());
        assert_eq!(cache.metrics.evictions.get() > 0, count > 0 && count < 20_000);
        count
    }

    #[test]
    fn both_bounds_hold() {
        assert_eq!(kept(1000, 64 << 20, "s"), 1000);
        assert_eq!(kept(30_000, 64 << 20, "s"), 20_000);
        let in_parts = kept(10_000, 64 << 20, "s");
        assert!((9_900..=10_000).contains(&in_parts), "{in_parts} of 10,000 tokens");
        let bytes = kept(30_000, 1 << 20, "s");
        assert!((1000..=2048).contains(&bytes), "{bytes} tokens in 1 MiB");
        let long = kept(30_000, 1 << 20, &"s".repeat(4000));
        assert!((200..=262).contains(&long), "{long} long tokens in 1 MiB");
        assert_eq!((kept(0, 1 << 20, "s"), kept(1000, 0, "s"), kept(1000, 300, "s")), (0, 0, 0));
        assert_eq!(kept(1, 1 << 20, "s"), 1);
    }

    #[test]
    fn the_least_recently_used_tokens_are_evicted() {
        let cache = cache(100, 1 << 20);
        for number in 0..1000 {
            cache.insert(digest(number), verified("s"));
            assert!(cache.get(&digest(0), &[7]).is_some(), "a token in use");
        }
        assert!(cache.get(&digest(901), &[7]).is_some());
        assert!(cache.get(&digest(900), &[7]).is_none());
        assert_eq!((cache.metrics.hits.get(), cache.metrics.misses.get()), (1001, 1));
        assert_eq!(cache.metrics.evictions.get(), 900);
    }

    #[test]
    fn bytes_of_removed_and_replaced_tokens_are_free_again() {
        let cache = cache(100, 1 << 20);
        for _ in 0..3 {
            cache.insert(digest(1), verified("s"));
            cache.insert(digest(2), verified(&"s".repeat(1000)));
        }
        let bytes = || cache.parts[0].lock().unwrap().bytes;
        assert_eq!(bytes(), super::bytes(&verified("s")) + super::bytes(&verified(&"s".repeat(1000))));
        cache.remove(&digest(1));
        cache.remove(&digest(1));
        assert!(cache.get(&digest(2), &[8]).is_none(), "outdated");
        assert_eq!((bytes(), cache.entry_count(), cache.metrics.evictions.get()), (0, 0, 0));
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
