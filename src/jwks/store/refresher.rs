//! The task that fetches the keys of one pool.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use url::Url;

use super::{FetchFailure, PoolKeys, REQUEST_SPACING, as_gauge};
use crate::clock::{since_1970, unix_now};
use crate::jwks::fetch::{FetchError, Fetched};
use crate::jwks::{KeySet, hint};
use crate::lifecycle::BlockReady;
use crate::telemetry::{Kind, Span, Tracer};
use crate::user_pool::UserPool;

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

/// Target of the log lines about keys. It is not this module, because filters of operators name it.
const LOG_TARGET: &str = "cognito_authz::jwks::store";
/// Maximum number of lines about keys of one document that are not used. The metric has their number.
const SKIPPED_LINES: usize = 10;

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
                    target: LOG_TARGET,
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
            tracing::warn!(target: LOG_TARGET, pool = metrics.pool(), position = skipped.position, reason = skipped.why, "key is not used");
        }
        tracing::info!(
            target: LOG_TARGET,
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
