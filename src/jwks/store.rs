//! The keys in force, and how they stay so: one task per pool fetches them, checks read them and may ask for a fetch.
//!
//! A good set is replaced by another good set and by nothing else. Who asks with unknown `kid`s causes one fetch
//! per pool and [`REQUEST_SPACING`], whatever they send. Start from [`KeyStore::key`]; [`Refresher`] is the task.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::{self, Instant};
use url::Url;

use super::{JwksError, KeySet, VerifyingKey};
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
    pub fn new(keys: Arc<PoolKeys>, interval: Duration, ready: BlockReady) -> Self {
        let ready = Some(ready).filter(|_| !keys.has_keys());
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

/// Fetches JWKS documents over HTTP.
#[derive(Debug, Default)]
pub struct JwksClient {
    /// Made at the first fetch, away from the start: reading the system's CA certificates takes its time.
    client: OnceCell<reqwest::Client>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_DOCUMENT_BYTES: usize = 512 * 1024;

impl JwksClient {
    /// The document at the first of `urls`; at the next one where a server answers 403 or 404. All of it within five
    /// seconds.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, urls: &[Url]) -> Result<Vec<u8>, FetchError> {
        let attempt = async {
            let client = self.client().await?;
            let mut result = Err(FetchError::Status(404));
            for url in urls {
                result = get(client, url).await;
                if !matches!(result, Err(FetchError::Status(403 | 404))) {
                    break;
                }
            }
            result
        };
        time::timeout(FETCH_TIMEOUT, attempt).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn client(&self) -> Result<&reqwest::Client, FetchError> {
        let build = || {
            reqwest::Client::builder()
                .user_agent(concat!("cognito-authz/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()
        };
        self.client
            .get_or_try_init(|| async {
                match tokio::task::spawn_blocking(build).await {
                    Ok(Ok(client)) => Ok(client),
                    Ok(Err(error)) => Err(FetchError::Tls(innermost(&error))),
                    Err(_) => Err(FetchError::Tls("the client could not be made".into())),
                }
            })
            .await
    }
}

async fn get(client: &reqwest::Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let failed = |error: reqwest::Error| match error {
        error if error.is_timeout() => FetchError::Timeout,
        error if error.is_connect() => FetchError::Connect(innermost(&error)),
        error => FetchError::Body(innermost(&error)),
    };
    let mut response = client.get(url.clone()).header("accept", "application/json").send().await.map_err(failed)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if document.len() + chunk.len() > MAX_DOCUMENT_BYTES {
            return Err(FetchError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

/// The last cause of an error: the layers above it only say that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Why a fetch brought no keys. For the operator.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FetchError {
    /// Nothing can be fetched over TLS.
    #[error("no TLS client: {0}")]
    Tls(String),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// Not within five seconds, two of them for the connection.
    #[error("no answer in time")]
    Timeout,
    /// Not 200; redirects are not followed.
    #[error("the answer has status {0}")]
    Status(u16),
    /// More than 512 KiB, unpacked.
    #[error("the document is larger than 512 KiB")]
    TooLarge,
    /// Broke off, or could not be unpacked.
    #[error("the answer cannot be read: {0}")]
    Body(String),
    /// No keys in it.
    #[error("{0}")]
    Document(#[from] JwksError),
}

impl FetchError {
    /// Values of the label `result`.
    pub const LABELS: [&'static str; 10] = [
        "success",
        "tls",
        "connect",
        "timeout",
        "status",
        "too_large",
        "body",
        "not_json",
        "not_jwks",
        "no_usable_key",
    ];

    fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Body(_) => "body",
            Self::Document(JwksError::NotJson) => "not_json",
            Self::Document(JwksError::NotJwks) => "not_jwks",
            Self::Document(JwksError::NoUsableKey) => "no_usable_key",
        }
    }
}
