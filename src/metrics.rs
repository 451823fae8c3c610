//! All metrics of the program. Dashboards and alerts depend on their names and labels.
//!
//! Label values come from enums or from the configuration, never from a request. Every series that is known in advance
//! exists from the start with the value zero; otherwise `rate` would miss the first error.

pub(crate) mod account;
pub(crate) mod log;
pub(crate) mod revocation;

use std::sync::{Mutex, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Content type of [`Metrics::render`].
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Upper bounds in seconds. A cached check takes microseconds; Envoy waits for 200 ms by default, and for 250 ms as
/// configured in `deploy/`.
const CHECK_BUCKETS: [f64; 15] =
    [25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0];
/// Upper bounds in seconds, up to the time limit of a fetch.
const FETCH_BUCKETS: [f64; 9] = [5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 5.0];

/// Outcome of a check (label `decision`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    /// The request may pass.
    Allow,
    /// The request is denied, and the caller is at fault.
    Deny,
    /// The service could not decide (503).
    Error,
}

impl CheckOutcome {
    const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Error];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
        }
    }
}

/// Registry of all metrics, and the metrics that do not depend on pools, policies or the account API.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    checks: IntCounterVec,
    shadow_denials: IntCounterVec,
    durations: [Histogram; 3],
    /// Number of checks that are running.
    pub(crate) checks_in_flight: IntGauge,
    jwks: JwksFamilies,
    /// Metrics of the verified-token cache.
    pub token_cache: TokenCacheMetrics,
    /// Number of tokens in the cache. It is set when metrics are read.
    pub(crate) token_cache_entries: IntGauge,
    reloads: IntCounterVec,
    /// 1 if the last reload of each part of the configuration succeeded, or nothing was reloaded yet; else 0.
    config_last_reload_successful: IntGauge,
    /// Parts whose last reload failed.
    failed_reloads: Mutex<Vec<Reloaded>>,
    tls_certificate_expiry: GaugeVec,
    /// Lines of the log that were not written.
    pub(crate) log: log::LogMetrics,
}

/// Counters of checks for one set of pools and policies.
#[derive(Debug)]
pub(crate) struct CheckCounters {
    checks: IntCounterVec,
    shadow_denials: IntCounterVec,
    pools: Vec<Box<str>>,
    policies: Vec<Box<str>>,
    /// Counters of allowed checks by policy and pool; the last counter of each policy counts requests without a pool.
    /// They save the hot path the lookup of labels, except the first time.
    allowed: Vec<Vec<OnceLock<IntCounter>>>,
}

/// Counters of the verified-token cache.
#[derive(Clone, Debug)]
pub struct TokenCacheMetrics {
    /// Number of lookups that found the token.
    pub(crate) hits: IntCounter,
    /// Number of lookups that did not find the token, or found it outdated.
    pub(crate) misses: IntCounter,
    /// Number of tokens removed because the cache was full.
    pub(crate) evictions: IntCounter,
}

#[derive(Debug)]
struct JwksFamilies {
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

/// Labels of a finished check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckLabels {
    pub(crate) outcome: CheckOutcome,
    /// Reason of the denial; empty if the check was allowed.
    pub(crate) reason: &'static str,
    /// Index of the pool; `None` if the check ended before a pool was known.
    pub(crate) pool: Option<usize>,
    /// Index of the policy; `None` if the check ended before a policy was known.
    pub(crate) policy: Option<usize>,
}

/// Largest number of series that are created in advance. 200 pools with a policy each would be a million series.
const PREPARED_SERIES: usize = 10_000;

/// Name with this index; empty for `None`.
fn name(names: &[Box<str>], index: Option<usize>) -> Box<str> {
    index.and_then(|index| names.get(index).cloned()).unwrap_or_default()
}

impl CheckCounters {
    /// Counts a finished check.
    pub(crate) fn count(&self, labels: CheckLabels) {
        let counter = || {
            let (pool, policy) = (name(&self.pools, labels.pool), name(&self.policies, labels.policy));
            self.checks.with_label_values(&[labels.outcome.as_str(), labels.reason, &*pool, &*policy])
        };
        let known = || self.allowed.get(labels.policy?)?.get(labels.pool.unwrap_or(self.pools.len()));
        match known().filter(|_| labels.outcome == CheckOutcome::Allow) {
            Some(allowed) => allowed.get_or_init(counter).inc(),
            None => counter().inc(),
        }
    }

    /// Counts a denial that a policy in shadow mode only reports. The check itself counts as allowed.
    pub(crate) fn count_shadow_denial(&self, reason: &'static str, pool: Option<usize>, policy: Option<usize>) {
        let (pool, policy) = (name(&self.pools, pool), name(&self.policies, policy));
        self.shadow_denials.with_label_values(&[reason, &*pool, &*policy]).inc();
    }

    /// Creates the counters of these policies, which are in shadow mode, with the value zero. With many pools, series with
    /// a pool appear with their first denial.
    pub(crate) fn prepare_shadow_denials(&self, policies: &[&str], reasons: &[&'static str]) {
        let are_few = reasons.len() * policies.len() * self.pools.len() <= PREPARED_SERIES;
        for policy in policies {
            for pool in self.pools.iter().map(|pool| &**pool).filter(|_| are_few).chain([""]) {
                for reason in reasons {
                    self.shadow_denials.with_label_values(&[*reason, pool, *policy]);
                }
            }
        }
    }
}

/// Result of a reload (label `result`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// The new files are in effect.
    Success,
    /// The new files are not valid; the previous ones stay in effect.
    Failure,
}

/// Part of the configuration that is reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Policy file.
    Policy,
    /// Certificates of the listeners.
    Certificates,
}

impl Reload {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

impl Metrics {
    /// Creates all metrics that do not depend on pools and policies, with the value zero.
    ///
    /// # Errors
    /// If a metric name is malformed or registered twice, which is a bug.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let checks = register(
            &registry,
            IntCounterVec::new(
                opts("checks_total", "Authorization checks by decision, reason, user pool and policy."),
                &["decision", "reason", "pool", "policy"],
            )?,
        )?;
        let shadow_denials = register(
            &registry,
            IntCounterVec::new(
                opts("shadow_denials_total", "Checks that a policy in shadow mode allowed and would have denied."),
                &["reason", "pool", "policy"],
            )?,
        )?;
        let durations = register(
            &registry,
            HistogramVec::new(
                histogram("check_duration_seconds", "Time to decide a check.", &CHECK_BUCKETS),
                &["decision"],
            )?,
        )?;
        let in_flight = IntGauge::with_opts(opts("checks_in_flight", "Authorization checks being decided."))?;
        let jwks = JwksFamilies::new(&registry)?;
        let counter = |name, help| register(&registry, IntCounter::with_opts(opts(name, help))?);
        let token_cache = TokenCacheMetrics {
            hits: counter("token_cache_hits_total", "Tokens found in the cache of verified tokens.")?,
            misses: counter("token_cache_misses_total", "Tokens not found in the cache of verified tokens.")?,
            evictions: counter("token_cache_evictions_total", "Tokens removed from the cache because it was full.")?,
        };
        let entries = IntGauge::with_opts(opts("token_cache_entries", "Tokens in the cache of verified tokens."))?;
        let build = register(
            &registry,
            IntGaugeVec::new(opts("build_info", "The running build; always 1."), &["version", "revision"])?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), crate::REVISION]).set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;

        let reloads = register(
            &registry,
            IntCounterVec::new(
                opts("config_reloads_total", "Reloads of the policy file and of certificates by result."),
                &["result"],
            )?,
        )?;
        for result in [Reload::Success, Reload::Failure] {
            reloads.with_label_values(&[result.as_str()]);
        }
        let reloaded = IntGauge::with_opts(opts(
            "config_last_reload_successful",
            "1 if the policy file and the certificates in effect are those on disk, else 0.",
        ))?;
        reloaded.set(1);
        let expiry = opts(
            "tls_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate in effect of a listener with TLS expires.",
        );
        Ok(Self {
            checks,
            shadow_denials,
            durations: CheckOutcome::ALL.map(|outcome| durations.with_label_values(&[outcome.as_str()])),
            checks_in_flight: register(&registry, in_flight)?,
            jwks,
            token_cache,
            token_cache_entries: register(&registry, entries)?,
            reloads,
            config_last_reload_successful: register(&registry, reloaded)?,
            failed_reloads: Mutex::default(),
            log: log::LogMetrics::new(&registry)?,
            tls_certificate_expiry: register(&registry, GaugeVec::new(expiry, &["listener"])?)?,
            registry,
        })
    }

    /// Creates the counters of these pools and policies, with the value zero. `reasons` are the labels of all denials;
    /// the third member is `true` for denials that happen before the request has a policy.
    ///
    /// Series without a pool are always created. Series with a pool are created if there are at most
    /// [`PREPARED_SERIES`] of them; otherwise each one appears with its first check.
    pub(crate) fn checks(
        &self,
        pools: Vec<Box<str>>,
        policies: Vec<Box<str>>,
        reasons: &[(CheckOutcome, &'static str, bool)],
    ) -> CheckCounters {
        let prepare = |outcome: CheckOutcome, reason: &str, pool: &str, policy: &str| {
            self.checks.with_label_values(&[outcome.as_str(), reason, pool, policy])
        };
        let are_few = reasons.len() * policies.len() * pools.len() <= PREPARED_SERIES;
        for (outcome, reason, without_policy) in reasons {
            if *without_policy {
                prepare(*outcome, reason, "", "");
                continue;
            }
            for policy in &policies {
                prepare(*outcome, reason, "", policy);
                for pool in pools.iter().filter(|_| are_few) {
                    prepare(*outcome, reason, pool, policy);
                }
            }
        }
        let allowed = |policy: &str, pool: &str| {
            if are_few { OnceLock::from(prepare(CheckOutcome::Allow, "", pool, policy)) } else { OnceLock::new() }
        };
        let by_pool =
            |policy: &str| pools.iter().map(|pool| allowed(policy, pool)).chain([allowed(policy, "")]).collect();
        let allowed = policies.iter().map(|policy| by_pool(policy)).collect();
        let (checks, shadow_denials) = (self.checks.clone(), self.shadow_denials.clone());
        CheckCounters { checks, shadow_denials, pools, policies, allowed }
    }

    /// Records the duration of a check in seconds.
    pub(crate) fn took(&self, outcome: CheckOutcome, seconds: f64) {
        let [allow, deny, error] = &self.durations;
        let duration = match outcome {
            CheckOutcome::Allow => allow,
            CheckOutcome::Deny => deny,
            CheckOutcome::Error => error,
        };
        duration.observe(seconds);
    }

    /// Counts a reload of one part of the configuration.
    pub(crate) fn reloaded(&self, part: Reloaded, result: Reload) {
        self.reloads.with_label_values(&[result.as_str()]).inc();
        let mut failed = self.failed_reloads.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|other| *other != part);
        if result == Reload::Failure {
            failed.push(part);
        }
        self.config_last_reload_successful.set(i64::from(failed.is_empty()));
    }

    /// Shows the Unix time at which the certificate of this listener expires.
    #[expect(clippy::cast_precision_loss, reason = "times are below 2^53")]
    pub(crate) fn tls_certificate_expires(&self, listener: &str, time: u64) {
        self.tls_certificate_expiry.with_label_values(&[listener]).set(time as f64);
    }

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

    /// Creates the metrics of the account API, with the value zero for each of these labels.
    ///
    /// # Errors
    /// As [`Metrics::new`], and if this was called before.
    pub(crate) fn account(&self, labels: &account::Labels<'_>) -> Result<account::AccountMetrics, prometheus::Error> {
        account::AccountMetrics::new(&self.registry, labels)
    }

    /// Creates the metrics of revocation, with the value zero.
    ///
    /// # Errors
    /// As [`Metrics::new`], and if this was called before.
    pub fn revocation(&self) -> Result<revocation::RevocationMetrics, prometheus::Error> {
        revocation::RevocationMetrics::new(&self.registry)
    }

    /// Encodes all metrics in the Prometheus text format.
    ///
    /// # Errors
    /// If a series lacks a label, which is a bug.
    pub(crate) fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl JwksFamilies {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
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

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("cognito_authz")
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace("cognito_authz").buckets(buckets.to_vec())
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_created_in_advance_unless_there_are_too_many() {
        let names = |count: usize, what: &str| (0..count).map(|number| format!("{what}{number}").into()).collect();
        let reasons = [(CheckOutcome::Deny, "expired", false), (CheckOutcome::Deny, "unsafe_path", true)];
        for (pools, policies, expected) in [(2, 3, 1 + 3 * 3 * 2), (200, 200, 1 + 200)] {
            let metrics = Metrics::new().unwrap();
            let counters = metrics.checks(names(pools, "pool"), names(policies, "policy"), &reasons);
            let series = || {
                let text = String::from_utf8(metrics.render().unwrap()).unwrap();
                text.lines().filter(|line| line.starts_with("cognito_authz_checks_total{")).count()
            };
            assert_eq!(series(), expected);
            let allowed = CheckLabels { outcome: CheckOutcome::Allow, reason: "", pool: Some(1), policy: Some(2) };
            counters.count(allowed);
            counters.count(allowed);
            counters.count(CheckLabels { pool: None, ..allowed });
            assert!(series() <= expected + 2);
            let text = String::from_utf8(metrics.render().unwrap()).unwrap();
            assert!(text.contains("checks_total{decision=\"allow\",policy=\"policy2\",pool=\"pool1\",reason=\"\"} 2"));
            assert!(text.contains("checks_total{decision=\"allow\",policy=\"policy2\",pool=\"\",reason=\"\"} 1"));
        }
    }
}
