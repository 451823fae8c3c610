//! All metrics of the program. Dashboards and alerts depend on their names and labels.
//!
//! Label values come from enums or from the configuration, never from a request. Every series that is known in advance
//! exists from the start with the value zero; otherwise `rate` would miss the first error.

pub(crate) mod account;
mod checks;
mod jwks;
pub(crate) mod log;
mod observed;
mod open_metrics;
mod ports;
pub(crate) mod readings;
mod reload;
pub(crate) mod revocation;
pub(crate) mod sharded;
pub(crate) mod telemetry;
mod threads;

use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{Encoder, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use self::checks::CheckFamilies;
pub(crate) use self::checks::{CheckCounters, CheckLabels, CheckOutcome, CheckSeries};
use self::jwks::JwksFamilies;
pub(crate) use self::jwks::JwksMetrics;
pub(crate) use self::observed::Kind;
pub(crate) use self::open_metrics::Format;
use self::ports::PortFamilies;
pub(crate) use self::ports::{OpenConnection, PortMetrics, RefusedConnection};
use self::reload::ReloadFamilies;
pub(crate) use self::reload::{Reload, Reloaded};
pub(crate) use self::threads::{MessageNumbers, OwnNumber, WorkerNumbers};

/// First part of the names of all metrics except those of the process.
const NAMESPACE: &str = "cognito_authz";

/// Registry of all metrics, and the metrics that do not depend on pools, policies or the account API.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    checks: CheckFamilies,
    jwks: JwksFamilies,
    /// Metrics of the verified-token cache.
    pub token_cache: TokenCacheMetrics,
    /// Number of tokens in the cache. It is set when metrics are read.
    pub(crate) token_cache_entries: IntGauge,
    /// Metrics of the export of traces.
    pub(crate) telemetry: telemetry::TelemetryMetrics,
    /// Lines of the log that were not written.
    pub(crate) log: log::LogMetrics,
    reloads: ReloadFamilies,
    /// Metrics of the listeners.
    pub(crate) ports: PortFamilies,
}

/// Counters of the verified-token cache.
#[derive(Clone, Debug)]
pub struct TokenCacheMetrics {
    /// Number of lookups that found the token.
    pub(crate) hits: sharded::Counter,
    /// Number of lookups that did not find the token, or found it outdated.
    pub(crate) misses: sharded::Counter,
    /// Number of tokens removed because the cache was full.
    pub(crate) evictions: sharded::Counter,
}

impl Metrics {
    /// Creates all metrics that do not depend on pools and policies, with the value zero.
    ///
    /// # Errors
    /// If a metric name is malformed or registered twice, which is a bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let sharded = |name, help| register(&registry, sharded::Counter::with_opts(opts(name, help))?);
        let token_cache = TokenCacheMetrics {
            hits: sharded("token_cache_hits_total", "Tokens found in the cache of verified tokens.")?,
            misses: sharded("token_cache_misses_total", "Tokens not found in the cache of verified tokens.")?,
            evictions: sharded("token_cache_evictions_total", "Tokens removed from the cache because it was full.")?,
        };
        let entries = IntGauge::with_opts(opts("token_cache_entries", "Tokens in the cache of verified tokens."))?;
        let build = register(
            &registry,
            IntGaugeVec::new(opts("build_info", "The running build; always 1."), &["version", "revision"])?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), crate::REVISION]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;

        Ok(Self {
            checks: CheckFamilies::new(&registry)?,
            jwks: JwksFamilies::new(&registry)?,
            token_cache,
            token_cache_entries: register(&registry, entries)?,
            telemetry: telemetry::TelemetryMetrics::new(&registry)?,
            log: log::LogMetrics::new(&registry)?,
            reloads: ReloadFamilies::new(&registry)?,
            ports: PortFamilies::new(&registry)?,
            registry,
        })
    }

    /// Creates the metrics of the account API, with the value zero for each of these labels.
    ///
    /// # Errors
    /// As [`Metrics::new`], and if this was called before.
    pub(crate) fn account(&self, labels: &account::Labels) -> Result<account::AccountMetrics, prometheus::Error> {
        account::AccountMetrics::new(&self.registry, labels)
    }

    /// Creates the metrics of revocation, with the value zero.
    ///
    /// # Errors
    /// As [`Metrics::new`], and if this was called before.
    pub fn revocation(&self) -> Result<revocation::RevocationMetrics, prometheus::Error> {
        revocation::RevocationMetrics::new(&self.registry)
    }

    /// Encodes all metrics.
    ///
    /// # Errors
    /// If a series lacks a label, which is a bug.
    pub(crate) fn render(&self, format: Format) -> Result<Vec<u8>, prometheus::Error> {
        let families = self.registry.gather();
        match format {
            Format::Text => {
                let mut text = Vec::with_capacity(64 * 1024);
                TextEncoder::new().encode(&families, &mut text)?;
                Ok(text)
            }
            Format::OpenMetrics => {
                let exemplar = |family: &str, metric: &Metric, bucket| self.checks.exemplar(family, metric, bucket);
                Ok(open_metrics::encode(&families, exemplar).into_bytes())
            }
        }
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace(NAMESPACE)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets.to_vec())
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
