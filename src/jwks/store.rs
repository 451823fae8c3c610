//! Keys in effect and their refresh: one task per pool fetches the keys; checks read them and may request a fetch.
//!
//! Only a successfully parsed key set replaces another one. Tokens with unknown `kid`s cause at most one fetch per pool
//! and [`REQUEST_SPACING`], whatever callers send. Start from [`KeyStore::key`]; [`Refresher`] is the task.
//! [`fetch`](super::fetch) downloads the documents.

mod refresher;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};
use url::Url;

pub(crate) use self::refresher::Refresher;
use super::fetch::FetchError;
use super::{KeySet, VerifyingKey};
use crate::clock::UnixTime;
use crate::metrics::JwksMetrics;
use crate::telemetry::SpanIds;
use crate::user_pool::PoolIndex;

/// Longest time that a check waits for a fetch that may return its key.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(100);
/// Time after a successful fetch during which a `kid` that is not in the set counts as unknown, without another fetch.
const FRESH: Duration = Duration::from_secs(10);
/// Shortest time between two fetches that checks request.
const REQUEST_SPACING: Duration = Duration::from_secs(10);
/// The keys of every pool.
#[derive(Debug)]
pub(crate) struct KeyStore {
    pools: Vec<Arc<PoolKeys>>,
}

/// Reason why no key was found for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyMiss {
    /// The key is not in a set that was fetched at most ten seconds ago.
    Unknown,
    /// It is not known whether the key exists: the keys could not be fetched, or not in time.
    Unavailable,
}

/// Time for which a check waited for keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waited {
    from: Instant,
    to: Instant,
}

impl Waited {
    /// Start and end.
    pub(crate) fn times(self) -> (Instant, Instant) {
        (self.from, self.to)
    }
}

impl KeyStore {
    /// Creates a store. `pools` are in the order of their [`PoolIndex`].
    pub(crate) fn new(pools: Vec<Arc<PoolKeys>>) -> Self {
        Self { pools }
    }

    /// Returns the state of the keys of a pool.
    pub(crate) fn state(&self, pool: PoolIndex) -> Option<KeysState> {
        self.pools.get(pool).map(|pool| pool.state())
    }

    /// `kid` of each key of a pool, sorted.
    pub(crate) fn kids(&self, pool: PoolIndex) -> Vec<String> {
        let set = self.pools.get(pool).map(|keys| keys.set.load());
        set.iter().flat_map(|set| set.kids()).map(str::to_owned).collect()
    }

    /// Returns why the last fetch of a pool's keys failed; `None` if it succeeded, or there was none.
    pub(crate) fn failure(&self, pool: PoolIndex) -> Option<Arc<FetchFailure>> {
        self.pools.get(pool)?.failure.load_full()
    }

    /// Returns the key `kid` of a pool. If the current set lacks it, waits for the running fetch or requests one, for
    /// at most [`MAX_WAIT`] and not past `deadline`, and sets `waited`.
    ///
    /// # Errors
    /// [`KeyMiss`] if there is no such key, or none could be fetched in time.
    pub(crate) async fn key(
        &self,
        pool: PoolIndex,
        kid: &str,
        deadline: Instant,
        waited: &mut Option<Waited>,
    ) -> Result<Arc<VerifyingKey>, KeyMiss> {
        let pool = self.pools.get(pool).ok_or(KeyMiss::Unavailable)?;
        if let Some(key) = pool.get(kid) {
            return Ok(key);
        }
        let from = Instant::now();
        let result = pool.wait_for(kid, deadline.min(from + MAX_WAIT)).await;
        *waited = Some(Waited { from, to: Instant::now() });
        result
    }

    /// Span of the last fetch of a pool's keys that has begun, if fetches are traced.
    pub(crate) fn last_fetch(&self, pool: PoolIndex) -> Option<SpanIds> {
        self.pools.get(pool)?.state.borrow().fetch
    }
}

/// State of the keys of one pool, for operators.
#[derive(Debug)]
pub(crate) struct KeysState {
    /// `kid` of each key in use, and the time since the service first saw the key.
    pub(crate) keys: Vec<(Box<str>, Duration)>,
    /// Number of keys of the document that are not used.
    pub(crate) skipped: usize,
    /// Time since the last successful fetch; `None` before the first.
    pub(crate) fetched: Option<Duration>,
    /// `true` while a fetch is running, or about to run.
    pub(crate) is_fetching: bool,
}

/// The keys of one pool.
#[derive(Debug)]
pub(crate) struct PoolKeys {
    set: ArcSwap<KeySet>,
    state: watch::Sender<State>,
    /// Wakes the pool's [`Refresher`] for a fetch that a check requested.
    requested: Notify,
    /// The last fetch, if it failed.
    failure: ArcSwapOption<FetchFailure>,
    metrics: JwksMetrics,
}

/// Failed fetch of a pool's keys, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchFailure {
    /// URL that was asked last; `None` if no request could be made.
    pub(crate) url: Option<Url>,
    /// Error.
    pub(crate) error: FetchError,
    /// Likely cause.
    pub(crate) hint: String,
    /// Unix time of the fetch.
    pub(crate) time: UnixTime,
    /// Number of fetches that have failed in a row.
    pub(crate) failures: u64,
}

impl fmt::Display for FetchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_ref().map(|url| format!("{url}: ")).unwrap_or_default();
        write!(f, "{url}{}; {}", self.error, self.hint)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// `true` if a fetch is running, or is requested and about to run.
    fetching: bool,
    last_success: Option<Instant>,
    last_requested: Option<Instant>,
    /// Span of the last fetch that has begun.
    fetch: Option<SpanIds>,
}

impl PoolKeys {
    /// Creates the keys of a pool. `seed` is used until the first successful fetch; it may be empty.
    pub(crate) fn new(seed: KeySet, metrics: JwksMetrics) -> Arc<Self> {
        metrics.keys.set(as_gauge(seed.len()));
        metrics.skipped_keys.set(as_gauge(seed.skipped().len()));
        // The refresher fetches as soon as it runs, so checks can wait from the start.
        let state = watch::Sender::new(State { fetching: true, ..State::default() });
        Arc::new(Self {
            set: ArcSwap::from_pointee(seed),
            state,
            requested: Notify::new(),
            failure: ArcSwapOption::empty(),
            metrics,
        })
    }

    /// State for operators.
    fn state(&self) -> KeysState {
        let (set, state) = (self.set.load(), *self.state.borrow());
        KeysState {
            keys: set.ages(),
            skipped: set.skipped().len(),
            fetched: state.last_success.map(|at| at.elapsed()),
            is_fetching: state.fetching,
        }
    }

    fn get(&self, kid: &str) -> Option<Arc<VerifyingKey>> {
        self.set.load().get(kid).cloned()
    }

    fn has_keys(&self) -> bool {
        !self.set.load().is_empty()
    }

    /// Waits until the pool has at least one key.
    pub(crate) async fn wait_for_any(&self) {
        let mut state = self.state.subscribe();
        // A fetch publishes its keys before it sets `fetching` to false.
        while !self.has_keys() && state.changed().await.is_ok() {}
    }

    async fn wait_for(&self, kid: &str, deadline: Instant) -> Result<Arc<VerifyingKey>, KeyMiss> {
        self.metrics.unknown_kid.inc();
        let mut state = self.state.subscribe();
        loop {
            // Read the state first and the keys second: a fetch publishes its keys before it sets `fetching` to false.
            let seen = *state.borrow_and_update();
            if let Some(key) = self.get(kid) {
                return Ok(key);
            }
            if seen.last_success.is_some_and(|at| at.elapsed() < FRESH) {
                return Err(KeyMiss::Unknown);
            }
            if !seen.fetching && !self.request() {
                return Err(KeyMiss::Unavailable);
            }
            if !matches!(time::timeout_at(deadline, state.changed()).await, Ok(Ok(()))) {
                return Err(KeyMiss::Unavailable);
            }
        }
    }

    /// Requests a fetch, at most one per [`REQUEST_SPACING`]. A pool without keys ignores requests and relies on its
    /// retries. Returns `true` if a fetch is running or about to run.
    fn request(&self) -> bool {
        let requested = self.has_keys()
            && self.state.send_if_modified(|state| {
                let spaced = state.last_requested.is_none_or(|at| at.elapsed() >= REQUEST_SPACING);
                if spaced && !state.fetching {
                    *state = State { fetching: true, last_requested: Some(Instant::now()), ..*state };
                    self.requested.notify_one();
                }
                spaced
            });
        requested || self.state.borrow().fetching
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
