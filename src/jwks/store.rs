//! The keys in force, and how they stay so: one task per pool fetches them, checks read them and may ask for a fetch.
//!
//! A good set is replaced by another good set and by nothing else. Who asks with unknown `kid`s causes one fetch
//! per pool and [`REQUEST_SPACING`], whatever they send. Start from [`KeyStore::key`]; [`Refresher`] is the task. How a document is
//! fetched is [`fetch`](super::fetch)'s.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use super::fetch::FetchError;
use super::{KeySet, VerifyingKey};
use crate::lifecycle::BlockReady;
use crate::metrics::JwksMetrics;
use crate::user_pool::PoolIndex;

/// How long a check waits for a fetch that may bring its key.
pub const MAX_WAIT: Duration = Duration::from_millis(100);
/// How long a successful fetch answers for every `kid` it did not bring.
const FRESH: Duration = Duration::from_secs(10);
/// Time between two fetches that checks asked for.
pub const REQUEST_SPACING: Duration = Duration::from_secs(10);
/// Time before each retry while a pool has no keys; the last one repeats.
const RETRIES_WITHOUT_KEYS: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(10),
];
/// Time before a retry while older keys still serve.
const RETRY_WITH_KEYS: Duration = Duration::from_secs(30);

/// The keys of every pool.
#[derive(Debug)]
pub struct KeyStore {
    pools: Vec<Arc<PoolKeys>>,
}

/// Why there is no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMiss {
    /// A set fetched within the last ten seconds does not have it.
    Unknown,
    /// Nobody can say: the keys could not be fetched.
    Unavailable,
}

impl KeyStore {
    /// A store of these pools' keys, in the order of their [`PoolIndex`].
    pub fn new(pools: Vec<Arc<PoolKeys>>) -> Self {
        Self { pools }
    }

    /// The key `kid` of a pool. If the set in force lacks it, waits for the running fetch or asks for one, for at most
    /// [`MAX_WAIT`] and not past `deadline`.
    ///
    /// # Errors
    /// [`KeyMiss`].
    pub async fn key(&self, pool: PoolIndex, kid: &str, deadline: Instant) -> Result<Arc<VerifyingKey>, KeyMiss> {
        let pool = self.pools.get(pool).ok_or(KeyMiss::Unavailable)?;
        match pool.get(kid) {
            Some(key) => Ok(key),
            None => pool.wait_for(kid, deadline.min(Instant::now() + MAX_WAIT)).await,
        }
    }
}

/// The keys of one pool.
#[derive(Debug)]
pub struct PoolKeys {
    set: ArcSwap<KeySet>,
    state: watch::Sender<State>,
    /// Wakes the pool's [`Refresher`].
    asked: Notify,
    metrics: JwksMetrics,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// A fetch is running, or has been asked for and will run.
    fetching: bool,
    last_success: Option<Instant>,
    last_asked: Option<Instant>,
}

impl PoolKeys {
    /// The keys of a pool, to begin with those of `seed`.
    pub fn new(seed: KeySet, metrics: JwksMetrics) -> Arc<Self> {
        metrics.keys.set(as_gauge(seed.len()));
        metrics.skipped_keys.set(as_gauge(seed.skipped().len()));
        // Fetching is what a pool begins with.
        let state = watch::Sender::new(State { fetching: true, ..State::default() });
        Arc::new(Self { set: ArcSwap::from_pointee(seed), state, asked: Notify::new(), metrics })
    }

    fn get(&self, kid: &str) -> Option<Arc<VerifyingKey>> {
        self.set.load().get(kid).cloned()
    }

    fn has_keys(&self) -> bool {
        !self.set.load().is_empty()
    }

    /// Waits until there are keys at all.
    pub async fn wait_for_any(&self) {
        let mut state = self.state.subscribe();
        // Keys are published before the state says that the fetch is done.
        while !self.has_keys() && state.changed().await.is_ok() {}
    }

    async fn wait_for(&self, kid: &str, deadline: Instant) -> Result<Arc<VerifyingKey>, KeyMiss> {
        self.metrics.unknown_kid.inc();
        let mut state = self.state.subscribe();
        loop {
            // State first, keys second: a fetch publishes its keys before it says that it is done.
            let seen = *state.borrow_and_update();
            if let Some(key) = self.get(kid) {
                return Ok(key);
            }
            if seen.last_success.is_some_and(|at| at.elapsed() < FRESH) {
                return Err(KeyMiss::Unknown);
            }
            if !seen.fetching && !self.ask() {
                return Err(KeyMiss::Unavailable);
            }
            if !matches!(time::timeout_at(deadline, state.changed()).await, Ok(Ok(()))) {
                return Err(KeyMiss::Unavailable);
            }
        }
    }

    /// Asks for a fetch, unless it is not time for one. While a pool has no keys its own retries are all there is.
    fn ask(&self) -> bool {
        let asked = self.has_keys()
            && self.state.send_if_modified(|state| {
                let spaced = state.last_asked.is_none_or(|at| at.elapsed() >= REQUEST_SPACING);
                if spaced && !state.fetching {
                    *state = State { fetching: true, last_asked: Some(Instant::now()), ..*state };
                    self.asked.notify_one();
                }
                spaced
            });
        asked || self.state.borrow().fetching
    }
}

/// The task that keeps the keys of one pool.
#[derive(Debug)]
pub struct Refresher {
    keys: Arc<PoolKeys>,
    interval: Duration,
    ready: Option<BlockReady>,
    last_document: Option<Vec<u8>>,
}

impl Refresher {
    /// A task for `keys` that fetches every `interval`, give or take a tenth, and drops `ready` once there are keys.
    pub fn new(keys: Arc<PoolKeys>, interval: Duration, ready: Option<BlockReady>) -> Self {
        let ready = ready.filter(|_| !keys.has_keys());
        Self { keys, interval, ready, last_document: None }
    }

    /// Fetches for ever: at once, when it is time, and when a check asks.
    pub async fn run<F, R>(mut self, fetch: F)
    where
        F: Fn() -> R,
        R: Future<Output = Result<Vec<u8>, FetchError>>,
    {
        let mut failures = 0;
        loop {
            self.keys.state.send_modify(|state| state.fetching = true);
            let result = self.fetch(&fetch).await;
            failures = if result.is_ok() { 0 } else { failures + 1 };
            self.keys.state.send_modify(|state| {
                state.fetching = false;
                if result.is_ok() {
                    state.last_success = Some(Instant::now());
                }
            });
            let pause = jittered(self.pause(failures));
            tokio::select! {
                () = time::sleep(pause) => {}
                () = self.keys.asked.notified() => {}
            }
        }
    }

    async fn fetch<F, R>(&mut self, fetch: &F) -> Result<(), FetchError>
    where
        F: Fn() -> R,
        R: Future<Output = Result<Vec<u8>, FetchError>>,
    {
        let start = Instant::now();
        let result = fetch().await.and_then(|document| self.publish(document));
        let metrics = &self.keys.metrics;
        metrics.fetch_duration.observe(start.elapsed().as_secs_f64());
        metrics.fetched(result.as_ref().err().map_or("success", FetchError::label));
        match &result {
            Ok(()) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                metrics.last_success.set(now.as_secs_f64());
                drop(self.ready.take());
            }
            Err(error) => tracing::warn!(
                pool = metrics.pool(),
                error = %error,
                serving = self.keys.has_keys(),
                "keys could not be fetched"
            ),
        }
        result
    }

    fn publish(&mut self, document: Vec<u8>) -> Result<(), FetchError> {
        let changed = self.last_document.as_ref() != Some(&document);
        if !changed {
            return Ok(());
        }
        let previous = self.keys.set.load_full();
        let set = Arc::new(KeySet::parse(&document, &previous)?);
        let metrics = &self.keys.metrics;
        metrics.keys.set(as_gauge(set.len()));
        metrics.skipped_keys.set(as_gauge(set.skipped().len()));
        for skipped in set.skipped() {
            tracing::warn!(pool = metrics.pool(), position = skipped.position, reason = skipped.why, "key is not used");
        }
        tracing::info!(
            pool = metrics.pool(),
            keys = set.len(),
            skipped = set.skipped().len(),
            "keys have been replaced"
        );
        self.keys.set.store(Arc::clone(&set));
        previous.retire_for(&set);
        self.last_document = Some(document);
        Ok(())
    }

    fn pause(&self, failures: usize) -> Duration {
        match failures {
            0 => self.interval,
            _ if self.keys.has_keys() => RETRY_WITH_KEYS.min(self.interval),
            count => {
                RETRIES_WITHOUT_KEYS.get(count - 1).or(RETRIES_WITHOUT_KEYS.last()).copied().unwrap_or(REQUEST_SPACING)
            }
        }
    }
}

/// `pause`, give or take a tenth, so that replicas do not fetch in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + 0.2 * fastrand::f64())
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::lifecycle::Readiness;
    use crate::metrics::Metrics;
    use crate::token_builder::{SigningKey, jwks};

    /// A pool whose fetches are answered by a function, on paused time.
    struct Pool {
        store: KeyStore,
        metrics: JwksMetrics,
        /// When each fetch began, since the start.
        fetches: Arc<Mutex<Vec<Duration>>>,
        readiness: Readiness,
    }

    type Answer = Box<dyn Fn(usize) -> Result<Vec<u8>, FetchError> + Send + Sync>;

    /// Starts a pool; its fetches take `latency` and end as `answer` says about their number.
    fn start(seed: KeySet, latency: Duration, answer: Answer) -> Pool {
        let metrics = Metrics::new().unwrap().jwks("default", &FetchError::LABELS);
        let readiness = Readiness::default();
        let keys = PoolKeys::new(seed, metrics.clone());
        let refresher =
            Refresher::new(Arc::clone(&keys), Duration::from_secs(900), Some(readiness.block("keys".into())));
        let fetches = Arc::new(Mutex::new(Vec::new()));
        let (log, begin, answer) = (Arc::clone(&fetches), Instant::now(), Arc::new(answer));
        tokio::spawn(refresher.run(move || {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(begin.elapsed());
                    log.len()
                };
                time::sleep(latency).await;
                answer(number)
            }
        }));
        Pool { store: KeyStore::new(vec![keys]), metrics, fetches, readiness }
    }

    impl Pool {
        async fn ask(&self, kid: &str) -> Result<(), KeyMiss> {
            self.ask_before(kid, Instant::now() + Duration::from_secs(5)).await
        }

        async fn ask_before(&self, kid: &str, deadline: Instant) -> Result<(), KeyMiss> {
            self.store.key(0, kid, deadline).await.map(drop)
        }

        fn fetches(&self) -> usize {
            self.fetches.lock().unwrap().len()
        }
    }

    fn document(key: &SigningKey) -> Vec<u8> {
        jwks(&[key]).into_bytes()
    }

    fn seed(key: &SigningKey) -> KeySet {
        KeySet::parse(&document(key), &KeySet::default()).unwrap()
    }

    const SHARED: &str = "c2hhcmVk+/=";
    const OTHER: &str = "b3RoZXI=";
    const QUICK: Duration = Duration::from_millis(20);

    async fn pass(seconds: u64) {
        time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_waits_for_the_first_fetch() {
        let pool = start(KeySet::default(), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
        assert_eq!(pool.readiness.pending(), ["keys"]);
        assert_eq!(pool.ask(SHARED).await, Ok(()));
        assert!(pool.readiness.pending().is_empty());
        assert_eq!((pool.metrics.keys.get(), pool.fetches()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_waits_for_no_longer_than_it_may() {
        let pool = start(KeySet::default(), Duration::from_secs(4), Box::new(|_| Ok(document(SigningKey::shared()))));
        let begin = Instant::now();
        assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unavailable));
        assert_eq!(begin.elapsed(), MAX_WAIT);
        let begin = Instant::now();
        assert_eq!(pool.ask_before(SHARED, begin + Duration::from_millis(30)).await, Err(KeyMiss::Unavailable));
        assert_eq!(begin.elapsed(), Duration::from_millis(30));
        pass(4).await;
        assert_eq!(pool.ask(SHARED).await, Ok(()), "the fetch went on without its check");
    }

    #[tokio::test(start_paused = true)]
    async fn without_keys_only_the_clock_causes_fetches() {
        let pool = start(KeySet::default(), QUICK, Box::new(|_| Err(FetchError::Status(500))));
        for _ in 0..600 {
            assert_eq!(pool.ask("any").await, Err(KeyMiss::Unavailable));
            time::sleep(Duration::from_millis(100)).await;
        }
        let at = pool.fetches.lock().unwrap().clone();
        let pauses: Vec<f64> = at.windows(2).map(|pair| pair[1].as_secs_f64() - pair[0].as_secs_f64()).collect();
        for (pause, expected) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]) {
            assert!((expected * 0.9..=expected * 1.1 + 0.03).contains(pause), "{pauses:?}");
        }
        assert!((8..=12).contains(&at.len()), "{at:?}");
        assert_eq!(pool.readiness.pending(), ["keys"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_answers_for_unknown_kids_for_a_while() {
        let pool = start(KeySet::default(), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
        for _ in 0..100 {
            assert_eq!(pool.ask("unknown").await, Err(KeyMiss::Unknown));
        }
        assert_eq!((pool.fetches(), pool.metrics.unknown_kid.get()), (1, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_kids_cause_one_fetch_in_ten_seconds() {
        let pool = start(seed(SigningKey::shared()), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
        pass(60).await;
        assert_eq!(pool.fetches(), 1, "the background's");
        for number in 0..1000 {
            assert_eq!(pool.ask(&format!("unknown{number}")).await, Err(KeyMiss::Unknown));
            time::sleep(Duration::from_millis(100)).await;
        }
        assert!((10..=12).contains(&(pool.fetches())), "{}", pool.fetches());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_fetch_is_not_asked_for_more_often_than_a_good_one() {
        let pool = start(seed(SigningKey::shared()), QUICK, Box::new(|_| Err(FetchError::Timeout)));
        pass(1).await;
        for number in 0..300 {
            assert_eq!(pool.ask(&format!("unknown{number}")).await, Err(KeyMiss::Unavailable), "nobody can say");
            assert_eq!(pool.ask(SHARED).await, Ok(()), "the seed serves");
            time::sleep(Duration::from_millis(100)).await;
        }
        // In 31 seconds: the first one, three that were asked for, one or two retries of the background.
        assert!((4..=7).contains(&pool.fetches()), "{:?}", pool.fetches);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_works_as_soon_as_a_check_asks_for_it() {
        let rotate = |number| Ok(document(if number < 2 { SigningKey::shared() } else { SigningKey::other() }));
        let pool = start(KeySet::default(), QUICK, Box::new(rotate));
        assert_eq!(pool.ask(SHARED).await, Ok(()));
        let old = pool.store.key(0, SHARED, Instant::now()).await.unwrap();
        assert_eq!(pool.ask(OTHER).await, Err(KeyMiss::Unknown), "fetched a moment ago");
        pass(11).await;
        assert_eq!(pool.ask(OTHER).await, Ok(()));
        assert_eq!(pool.fetches(), 2);
        assert!(!old.is_current());
        assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn many_checks_share_one_fetch() {
        let rotate = |number| Ok(document(if number < 2 { SigningKey::shared() } else { SigningKey::other() }));
        let pool = Arc::new(start(KeySet::default(), QUICK, Box::new(rotate)));
        pass(11).await;
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move { pool.ask(OTHER).await })
            })
            .collect();
        for asked in asking {
            assert_eq!(asked.await.unwrap(), Ok(()));
        }
        assert_eq!(pool.fetches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn good_keys_are_replaced_by_good_keys_only() {
        let answers = |number| match number {
            1 => Ok(document(SigningKey::shared())),
            2 => Ok(b"<html>".to_vec()),
            3 => Ok(b"{\"keys\":[]}".to_vec()),
            4 => Ok(Vec::new()),
            5 => Err(FetchError::Connect("refused".into())),
            _ => Ok(document(SigningKey::other())),
        };
        let pool = start(KeySet::default(), QUICK, Box::new(answers));
        pass(1).await;
        // The background's fetches: one after 15 minutes, then a retry each half minute.
        for fetches in 2..=5 {
            while pool.fetches() < fetches {
                pass(1).await;
            }
            pass(1).await;
            assert_eq!((pool.ask(SHARED).await, pool.metrics.keys.get()), (Ok(()), 1));
        }
        pass(60).await;
        assert_eq!(pool.ask(OTHER).await, Ok(()));
        assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unknown));
    }
}
