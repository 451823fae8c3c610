//! Keys in effect and their refresh: one task per pool fetches the keys; checks read them and may request a fetch.
//!
//! Only a successfully parsed key set replaces another one. Tokens with unknown `kid`s cause at most one fetch per pool
//! and [`REQUEST_SPACING`], whatever callers send. Start from [`KeyStore::key`]; [`Refresher`] is the task.
//! [`fetch`](super::fetch) downloads the documents.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};
use url::Url;

use super::fetch::{FetchError, Fetched};
use super::{KeySet, VerifyingKey, hint};
use crate::clock::{UnixTime, since_1970, unix_now};
use crate::lifecycle::BlockReady;
use crate::metrics::JwksMetrics;
use crate::telemetry::{Kind, Span, SpanIds, Tracer};
use crate::user_pool::{PoolIndex, UserPool};

/// Longest time that a check waits for a fetch that may return its key.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(100);
/// Time after a successful fetch during which a `kid` that is not in the set counts as unknown, without another fetch.
const FRESH: Duration = Duration::from_secs(10);
/// Shortest time between two fetches that checks request.
const REQUEST_SPACING: Duration = Duration::from_secs(10);
/// Delay before each retry while a pool has no keys. The last one repeats.
const RETRIES_WITHOUT_KEYS: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(10),
];
/// Delay before a retry while a pool has keys of an earlier fetch.
const RETRY_WITH_KEYS: Duration = Duration::from_secs(30);

/// Maximum number of lines about keys of one document that are not used. The metric has their number.
const SKIPPED_LINES: usize = 10;

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

/// Task that fetches the keys of one pool, periodically and on request.
#[derive(Debug)]
pub(crate) struct Refresher {
    keys: Arc<PoolKeys>,
    pool: UserPool,
    interval: Duration,
    ready: Option<BlockReady>,
    last_document: Option<Vec<u8>>,
    /// Tracer for the fetches, and the host that they ask.
    traced: Option<(Arc<Tracer>, String)>,
}

impl Refresher {
    /// Creates a task that fetches the `keys` of `pool` every `interval` (±10 %) and drops `ready` once there are keys.
    pub(crate) fn new(keys: Arc<PoolKeys>, pool: UserPool, interval: Duration, ready: Option<BlockReady>) -> Self {
        let ready = ready.filter(|_| !keys.has_keys());
        Self { keys, pool, interval, ready, last_document: None, traced: None }
    }

    /// Traces the fetches, which ask `host`.
    pub(crate) fn traced(self, tracer: Option<&Arc<Tracer>>, host: &str) -> Self {
        Self { traced: tracer.map(|tracer| (Arc::clone(tracer), host.to_owned())), ..self }
    }

    /// Fetches at once, then after each interval or retry delay and when a check requests it. Never returns.
    pub(crate) async fn run<F, R>(mut self, fetch: F)
    where
        F: Fn() -> R,
        R: Future<Output = Fetched>,
    {
        let mut failures = 0;
        loop {
            let span = self.span();
            let ids = span.as_ref().map(Span::ids);
            self.keys.state.send_modify(|state| (state.fetching, state.fetch) = (true, ids));
            let result = self.fetch(&fetch, failures).await;
            if let Some(span) = span {
                describe(span, result.as_ref().err());
            }
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
                () = self.keys.requested.notified() => {}
            }
        }
    }

    /// Begins the span of a fetch.
    fn span(&self) -> Option<Span> {
        let (tracer, host) = self.traced.as_ref()?;
        let mut span = tracer.begin_own("fetch keys", Kind::Client);
        span.set("http.request.method", "GET");
        span.set("server.address", host.clone());
        span.set("cognito_authz.pool", self.keys.metrics.pool().to_owned());
        Some(span)
    }

    /// Fetches once. `failures` is the number of fetches that have failed in a row before.
    async fn fetch<F, R>(&mut self, fetch: &F, failures: usize) -> Result<(), FetchError>
    where
        F: Fn() -> R,
        R: Future<Output = Fetched>,
    {
        let start = Instant::now();
        let Fetched { url, result } = fetch().await;
        let result = result.and_then(|document| self.publish(document));
        let metrics = &self.keys.metrics;
        metrics.fetch_duration.observe(start.elapsed().as_secs_f64());
        metrics.fetched(result.as_ref().err().map_or("success", FetchError::label));
        match &result {
            Ok(()) => {
                metrics.last_success.set(since_1970().as_secs_f64());
                self.keys.failure.store(None);
                drop(self.ready.take());
            }
            Err(error) => {
                let failures = u64::try_from(failures + 1).unwrap_or(u64::MAX);
                let (error, hint) = (error.clone(), hint(error, &self.pool));
                let failure = Arc::new(FetchFailure { url, error, hint, time: unix_now(), failures });
                self.keys.failure.store(Some(Arc::clone(&failure)));
                tracing::warn!(
                    pool = metrics.pool(),
                    url = failure.url.as_ref().map(Url::as_str),
                    error = %failure.error,
                    hint = failure.hint,
                    failures,
                    serving = self.keys.has_keys(),
                    "keys could not be fetched"
                );
            }
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
        for skipped in set.skipped().iter().take(SKIPPED_LINES) {
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

/// Describes the result of a fetch in its span, and ends it.
fn describe(mut span: Span, error: Option<&FetchError>) {
    let status = match error {
        Some(FetchError::Status(status)) => Some(*status),
        None | Some(FetchError::Document(_)) => Some(200),
        Some(_) => None,
    };
    span.set_some("http.response.status_code", status.map(i64::from));
    if let Some(error) = error {
        span.fail(error.label());
    }
}

/// Varies `pause` by up to 10 % so that replicas do not fetch at the same moment.
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
    use crate::user_pool::{AcceptedUse, Clients};

    /// Pool whose fetches are answered by a function. Tests run on paused time.
    struct Pool {
        store: KeyStore,
        metrics: JwksMetrics,
        /// Start of each fetch, as time since the start of the test.
        fetches: Arc<Mutex<Vec<Duration>>>,
        readiness: Readiness,
    }

    type Answer = Box<dyn Fn(usize) -> Result<Vec<u8>, FetchError> + Send + Sync>;

    /// Starts a pool. Its fetches take `latency`; `answer` returns the result of the n-th fetch, from 1.
    fn start(seed: KeySet, latency: Duration, answer: Answer) -> Pool {
        let metrics = Metrics::new().unwrap().jwks("default", &FetchError::LABELS);
        let readiness = Readiness::default();
        let keys = PoolKeys::new(seed, metrics.clone());
        let pool = UserPool::new("default", "eu-west-1_A".parse().unwrap(), Clients::Any, AcceptedUse::Any).unwrap();
        let blocked = Some(readiness.block("keys".into()));
        let refresher = Refresher::new(Arc::clone(&keys), pool, Duration::from_secs(900), blocked);
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
                Fetched { url: "https://keys.test/".parse().ok(), result: answer(number) }
            }
        }));
        Pool { store: KeyStore::new(vec![keys]), metrics, fetches, readiness }
    }

    impl Pool {
        async fn ask(&self, kid: &str) -> Result<(), KeyMiss> {
            self.ask_before(kid, Instant::now() + Duration::from_secs(5)).await
        }

        async fn ask_before(&self, kid: &str, deadline: Instant) -> Result<(), KeyMiss> {
            self.store.key(0, kid, deadline, &mut None).await.map(drop)
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
    async fn a_check_waits_at_most_until_its_deadline() {
        let pool = start(KeySet::default(), Duration::from_secs(4), Box::new(|_| Ok(document(SigningKey::shared()))));
        let begin = Instant::now();
        assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unavailable));
        assert_eq!(begin.elapsed(), MAX_WAIT);
        let begin = Instant::now();
        assert_eq!(pool.ask_before(SHARED, begin + Duration::from_millis(30)).await, Err(KeyMiss::Unavailable));
        assert_eq!(begin.elapsed(), Duration::from_millis(30));
        pass(4).await;
        assert_eq!(pool.ask(SHARED).await, Ok(()), "the fetch continues after the check that waited for it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn without_keys_checks_cause_no_fetches() {
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
    async fn a_recent_fetch_answers_for_unknown_kids() {
        let pool = start(KeySet::default(), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
        for _ in 0..100 {
            assert_eq!(pool.ask("unknown").await, Err(KeyMiss::Unknown));
        }
        assert_eq!((pool.fetches(), pool.metrics.unknown_kid.get()), (1, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_kids_cause_at_most_one_fetch_in_ten_seconds() {
        let pool = start(seed(SigningKey::shared()), QUICK, Box::new(|_| Ok(document(SigningKey::shared()))));
        pass(60).await;
        assert_eq!(pool.fetches(), 1, "the periodic fetch");
        for number in 0..1000 {
            assert_eq!(pool.ask(&format!("unknown{number}")).await, Err(KeyMiss::Unknown));
            time::sleep(Duration::from_millis(100)).await;
        }
        assert!((10..=12).contains(&(pool.fetches())), "{}", pool.fetches());
    }

    #[tokio::test(start_paused = true)]
    async fn failing_fetches_are_not_requested_more_often() {
        let pool = start(seed(SigningKey::shared()), QUICK, Box::new(|_| Err(FetchError::Timeout)));
        pass(1).await;
        for number in 0..300 {
            assert_eq!(pool.ask(&format!("unknown{number}")).await, Err(KeyMiss::Unavailable), "fetches fail");
            assert_eq!(pool.ask(SHARED).await, Ok(()), "keys of the seed stay in use");
            time::sleep(Duration::from_millis(100)).await;
        }
        // In 31 seconds: the first fetch, three requested ones, one or two periodic retries.
        assert!((4..=7).contains(&pool.fetches()), "{:?}", pool.fetches);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_fetched_when_a_token_names_it() {
        let rotate = |number| Ok(document(if number < 2 { SigningKey::shared() } else { SigningKey::other() }));
        let pool = start(KeySet::default(), QUICK, Box::new(rotate));
        assert_eq!(pool.ask(SHARED).await, Ok(()));
        let old = pool.store.key(0, SHARED, Instant::now(), &mut None).await.unwrap();
        assert_eq!(pool.ask(OTHER).await, Err(KeyMiss::Unknown), "fetched a moment ago");
        pass(11).await;
        assert_eq!(pool.ask(OTHER).await, Ok(()));
        assert_eq!(pool.fetches(), 2);
        assert!(!old.is_current());
        assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unknown));
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_checks_share_one_fetch() {
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
    async fn a_failed_fetch_keeps_the_keys() {
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
        // Periodic fetches: one after 15 minutes, then a retry every 30 seconds.
        for fetches in 2..=5 {
            while pool.fetches() < fetches {
                pass(1).await;
            }
            pass(1).await;
            assert_eq!((pool.ask(SHARED).await, pool.metrics.keys.get()), (Ok(()), 1));
            let failure = pool.store.failure(0).unwrap();
            assert_eq!(failure.failures, fetches as u64 - 1);
            assert!(failure.to_string().starts_with("https://keys.test/: "), "{failure}");
        }
        let failure = pool.store.failure(0).unwrap();
        assert_eq!(failure.error, FetchError::Connect("refused".into()));
        assert!(failure.to_string().contains("no connection: refused; is the address reachable"), "{failure}");
        pass(60).await;
        assert_eq!(pool.store.failure(0), None);
        assert_eq!(pool.ask(OTHER).await, Ok(()));
        assert_eq!(pool.ask(SHARED).await, Err(KeyMiss::Unknown));
    }
}
