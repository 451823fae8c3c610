//! Memory of one worker: the tokens that it checked lately, each with the identity headers and the answer that it encoded.
//!
//! It stands before the cache of verified tokens ([`TokenCache`](super::TokenCache)), which all workers share, and saves
//! the digest of a token, the search in a large table, and the encoding of the same answer. It decides nothing: a token
//! from this memory passes every step of a check that a token from the cache passes.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use quick_cache::unsync::Cache;
use quick_cache::{Equivalent, Weighter};

use super::Ruleset;
use super::cache::{PoolStamp, Verified};
use super::denial::Denial;
use super::headers::HeaderIndex;
use super::identity::Identity;
use super::policy::PolicyIndex;
use crate::clock::UnixTime;

/// Seconds after which a token is looked up in the shared cache again. The cache otherwise would not notice that it is used,
/// and would evict it first.
const MAX_AGE: i64 = 10;

/// Maximum bytes for the memories of all workers together: some ten thousand tokens.
const MAX_BYTES: u64 = 32 << 20;

/// Bytes of an entry in addition to its token, its identity headers and its answer.
const ENTRY_BYTES: usize = 400;

/// Bytes of an answer in addition to two encodings of each claim: the names of headers and metadata.
const ANSWER_BYTES: usize = 900;

/// Number of entries that a memory is prepared for. It grows beyond.
const EXPECTED_ENTRIES: usize = 64;

/// Tokens that one worker checked lately.
#[derive(Debug)]
pub struct Recent {
    /// Only one worker uses it, so the lock is free.
    entries: Mutex<Cache<TokenText, Entry, ByBytes>>,
}

/// Token of a request, with what the worker remembers of it.
pub(crate) struct Presented<'t> {
    /// Text of the token, not verified.
    pub(super) token: &'t str,
    recent: Option<&'t Recent>,
    entry: Option<Entry>,
}

/// Identity headers of a request, and a place for the answer that contains them.
#[derive(Default)]
pub(crate) struct Prepared {
    identity: Identity,
    answer: OnceLock<Bytes>,
    /// Maximum size of an answer that is kept.
    max_answer_bytes: usize,
}

#[derive(Clone)]
struct Entry {
    verified: Arc<Verified>,
    prepared: Arc<Prepared>,
    /// Rules and policy that the identity headers and the answer depend on.
    made_for: (RulesVersion, PolicyIndex),
    /// Time of the last look-up in the shared cache.
    looked_up: UnixTime,
}

/// Version of a [`Ruleset`]. No two of a process have the same.
pub(crate) type RulesVersion = PoolStamp;

impl Recent {
    /// Creates a memory of about `max_bytes` bytes.
    pub fn new(max_bytes: u64) -> Self {
        Self { entries: Mutex::new(Cache::with_weighter(EXPECTED_ENTRIES, max_bytes, ByBytes)) }
    }

    /// Bytes for the memories of all workers together, beside a cache of at most `cache_bytes`.
    pub(crate) fn budget(cache_bytes: u64) -> u64 {
        MAX_BYTES.min(cache_bytes / 2)
    }

    fn find(&self, token: &str, now: UnixTime) -> Option<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |entry: &&Entry| (entry.looked_up..entry.looked_up + MAX_AGE).contains(&now);
        entries.get(&TokenRef(token)).filter(is_fresh).cloned()
    }
}

impl<'t> Presented<'t> {
    /// Token of a caller that has no memory.
    pub(crate) fn new(token: &'t str) -> Self {
        Self { token, recent: None, entry: None }
    }

    /// Token of a request at the time `now`, as the worker with this memory remembers it.
    pub(super) fn recalled(token: &'t str, recent: Option<&'t Recent>, now: UnixTime) -> Self {
        Self { token, recent, entry: recent.and_then(|recent| recent.find(token, now)) }
    }

    /// The token, if the worker has checked it lately. The caller has to check it again for everything but its signature.
    pub(super) fn verified(&self) -> Option<&Arc<Verified>> {
        self.entry.as_ref().map(|entry| &entry.verified)
    }

    /// Returns the identity headers of the token's caller. `encode` is called unless they are remembered; what it returns is
    /// remembered from the second use of the token on.
    ///
    /// # Errors
    /// That of `encode`.
    pub(super) fn identity(
        self,
        (rules, policy): (&Ruleset, PolicyIndex),
        verified: &Arc<Verified>,
        now: UnixTime,
        encode: impl FnOnce() -> Result<Identity, Denial>,
    ) -> Result<Arc<Prepared>, Denial> {
        let made_for = (rules.version, policy);
        let is_same = |entry: &Entry| entry.made_for == made_for && Arc::ptr_eq(&entry.verified, verified);
        if let Some(entry) = self.entry.filter(is_same) {
            return Ok(entry.prepared);
        }
        let prepared = Prepared::from(encode()?);
        let Some(recent) = self.recent.filter(|_| verified.is_used_again()) else {
            return Ok(Arc::new(prepared));
        };
        let max_answer_bytes = ANSWER_BYTES + 2 * prepared.identity.text_bytes();
        let prepared = Arc::new(Prepared { max_answer_bytes, ..prepared });
        let entry = Entry { verified: Arc::clone(verified), prepared: Arc::clone(&prepared), made_for, looked_up: now };
        let mut entries = recent.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(TokenText(self.token.into()), entry);
        Ok(prepared)
    }
}

impl From<Identity> for Prepared {
    /// Nothing is kept.
    fn from(identity: Identity) -> Self {
        Self { identity, ..Self::default() }
    }
}

impl Prepared {
    /// Values of the headers, in the order of [`HeaderIndex`].
    pub(super) fn values(&self) -> impl Iterator<Item = (HeaderIndex, &str)> {
        self.identity.values()
    }

    /// Returns the answer that was encoded before, or what `encode` returns, which is kept for the next time. The answer must
    /// depend on nothing but the rules, the policy and the token, and all callers must encode in the same format.
    pub(crate) fn answer(&self, encode: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(answer) = self.answer.get() {
            return answer.clone();
        }
        let answer = encode();
        if answer.len() <= self.max_answer_bytes {
            // Copied, because a buffer that was written to is larger than its content.
            drop(self.answer.set(Bytes::copy_from_slice(&answer)));
        }
        answer
    }
}

/// Text of a token that is remembered. It is equal to another only if all bytes are.
///
/// Only its end is hashed: a part of the signature, and so as good as random. A client cannot choose tokens with equal hashes,
/// because only verified ones are remembered.
#[derive(PartialEq, Eq)]
struct TokenText(Box<str>);

/// Text of a token that is looked up.
struct TokenRef<'t>(&'t str);

impl Hash for TokenText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        TokenRef(&self.0).hash(state);
    }
}

impl Hash for TokenRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bytes = self.0.as_bytes();
        bytes.last_chunk::<32>().map_or(bytes, |end| end).hash(state);
    }
}

impl Equivalent<TokenText> for TokenRef<'_> {
    fn equivalent(&self, key: &TokenText) -> bool {
        *self.0 == *key.0
    }
}

/// Weighs entries by their size in bytes. The claims of a token are not counted: the shared cache has them as well.
#[derive(Clone)]
struct ByBytes;

impl Weighter<TokenText, Entry> for ByBytes {
    fn weight(&self, token: &TokenText, entry: &Entry) -> u64 {
        let Prepared { identity, max_answer_bytes, .. } = &*entry.prepared;
        (ENTRY_BYTES + token.0.len() + identity.bytes() + max_answer_bytes) as u64
    }
}
