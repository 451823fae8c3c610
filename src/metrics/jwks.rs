//! Metrics of the keys of user pools.

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{Metrics, histogram, opts, register};

/// Upper bounds in seconds, up to the time limit of a fetch.
const FETCH_BUCKETS: [f64; 9] = [5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 5.0];

#[derive(Debug)]
pub(super) struct JwksFamilies {
    fetches: IntCounterVec,
    fetch_duration: Histogram,
    keys: IntGaugeVec,
    skipped_keys: IntGaugeVec,
    unknown_kid: IntCounterVec,
    last_success: GaugeVec,
}

/// Metrics of one pool's keys.
#[derive(Clone, Debug)]
pub(crate) struct JwksMetrics {
    pool: Box<str>,
    fetches: IntCounterVec,
    /// Duration of each fetch in seconds.
    pub(crate) fetch_duration: Histogram,
    /// Number of keys in use.
    pub(crate) keys: IntGauge,
    /// Number of keys of the document that are not used.
    pub(crate) skipped_keys: IntGauge,
    /// Number of checks whose `kid` was not among the keys in use.
    pub(crate) unknown_kid: IntCounter,
    /// Unix time of the last successful fetch, in seconds; 0 before the first.
    pub(crate) last_success: Gauge,
}

impl JwksMetrics {
    pub(crate) fn pool(&self) -> &str {
        &self.pool
    }

    /// Counts a fetch. `result` is one of the values given to [`Metrics::jwks`].
    pub(crate) fn fetched(&self, result: &'static str) {
        self.fetches.with_label_values(&[&*self.pool, result]).inc();
    }
}

impl JwksFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let pool = &["pool"];
        let duration = histogram("jwks_fetch_duration_seconds", "Time to fetch a pool's keys.", &FETCH_BUCKETS);
        Ok(Self {
            fetches: register(
                registry,
                IntCounterVec::new(
                    opts("jwks_fetches_total", "Fetches of a pool's keys by result."),
                    &["pool", "result"],
                )?,
            )?,
            fetch_duration: register(registry, Histogram::with_opts(duration)?)?,
            keys: register(registry, IntGaugeVec::new(opts("jwks_keys", "Keys in use."), pool)?)?,
            skipped_keys: register(
                registry,
                IntGaugeVec::new(opts("jwks_skipped_keys", "Keys of the document that are not used."), pool)?,
            )?,
            unknown_kid: register(
                registry,
                IntCounterVec::new(
                    opts("jwks_unknown_kid_total", "Checks whose kid was not among the keys in use."),
                    pool,
                )?,
            )?,
            last_success: register(
                registry,
                GaugeVec::new(
                    opts(
                        "jwks_last_success_timestamp_seconds",
                        "Unix time of the last successful fetch of a pool's keys; 0 before the first.",
                    ),
                    pool,
                )?,
            )?,
        })
    }
}

impl Metrics {
    /// Removes the gauges of a pool that is no longer configured. Its counters stay: they count past events.
    pub(crate) fn forget_pool(&self, pool: &str) {
        let jwks = &self.jwks;
        // An error means that the series does not exist.
        drop(jwks.keys.remove_label_values(&[pool]));
        drop(jwks.skipped_keys.remove_label_values(&[pool]));
        drop(jwks.last_success.remove_label_values(&[pool]));
    }

    /// Creates the metrics of one pool's keys, with the value zero. `results` are all results that a fetch can have.
    pub(crate) fn jwks(&self, pool: &str, results: &[&'static str]) -> JwksMetrics {
        for result in results {
            self.jwks.fetches.with_label_values(&[pool, result]);
        }
        JwksMetrics {
            pool: pool.into(),
            fetches: self.jwks.fetches.clone(),
            fetch_duration: self.jwks.fetch_duration.clone(),
            keys: self.jwks.keys.with_label_values(&[pool]),
            skipped_keys: self.jwks.skipped_keys.with_label_values(&[pool]),
            unknown_kid: self.jwks.unknown_kid.with_label_values(&[pool]),
            last_success: self.jwks.last_success.with_label_values(&[pool]),
        }
    }
}
