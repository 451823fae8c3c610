//! Every metric of the program, in one struct. Names and labels are a contract: dashboards and alerts use them.
//!
//! Labels come from enums or from our own configuration, never from a request. Every series that can be known
//! beforehand is there from the start, at zero: `rate` misses the first error otherwise.

pub mod account;

use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Seconds: a cached check takes microseconds, and Envoy's patience ends at 200 or 250 ms.
const CHECK_BUCKETS: [f64; 15] =
    [25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0];
/// Seconds: up to the time limit of a fetch.
const FETCH_BUCKETS: [f64; 9] = [5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 5.0];

/// How a check ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Allowed.
    Allow,
    /// Refused.
    Deny,
    /// Could not be decided (503).
    Error,
}

impl CheckOutcome {
    const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Error];

    /// The value of the label `decision`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
        }
    }
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    checks: IntCounterVec,
    durations: [Histogram; 3],
    /// Checks being decided.
    pub checks_in_flight: IntGauge,
    jwks: JwksFamilies,
    /// Of the verified-token cache.
    pub token_cache: TokenCacheMetrics,
    /// Tokens in the cache, set when metrics are read.
    pub token_cache_entries: IntGauge,
    reloads: IntCounterVec,
    /// 1 if the policy file in force is the one on disk, as far as is known; also without a file.
    pub config_last_reload_successful: IntGauge,
}

/// Counters of checks for one set of pools and policies.
#[derive(Debug)]
pub struct CheckCounters {
    checks: IntCounterVec,
    pools: Vec<Box<str>>,
    policies: Vec<Box<str>>,
    /// The counter of allowed checks, by policy and pool; the last one of a policy is for nobody's pool. The hot path
    /// does not look labels up, or only the first time.
    allowed: Vec<Vec<OnceLock<IntCounter>>>,
}

/// What the verified-token cache counts.
#[derive(Clone, Debug)]
pub struct TokenCacheMetrics {
    /// Tokens that were known.
    pub hits: IntCounter,
    /// Tokens that were not.
    pub misses: IntCounter,
    /// Tokens that made room for others.
    pub evictions: IntCounter,
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

/// What one pool's keys count.
#[derive(Clone, Debug)]
pub struct JwksMetrics {
    pool: Box<str>,
    fetches: IntCounterVec,
    /// Seconds per fetch.
    pub fetch_duration: Histogram,
    /// Keys in force.
    pub keys: IntGauge,
    /// Keys of the document that are not used.
    pub skipped_keys: IntGauge,
    /// Checks whose `kid` was not in the set in force.
    pub unknown_kid: IntCounter,
    /// Unix time of the last fetch that brought keys; 0 before the first.
    pub last_success: Gauge,
}

impl JwksMetrics {
    /// The pool's name.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// Counts a fetch by its result, a word of a closed list.
    pub fn fetched(&self, result: &'static str) {
        self.fetches.with_label_values(&[&*self.pool, result]).inc();
    }
}

/// What a check is counted under.
#[derive(Clone, Copy, Debug)]
pub struct CheckLabels {
    /// How it ended.
    pub outcome: CheckOutcome,
    /// Why, or empty.
    pub reason: &'static str,
    /// Index of the pool, if one was known.
    pub pool: Option<usize>,
    /// Index of the policy, if one was known.
    pub policy: Option<usize>,
}

/// Most series that are there before they are needed. With 200 pools and a policy for each there would be a million.
const PREPARED_SERIES: usize = 10_000;

impl CheckCounters {
    /// Counts an ended check.
    pub fn count(&self, labels: CheckLabels) {
        let name = |names: &[Box<str>], index: Option<usize>| {
            index.and_then(|index| names.get(index).cloned()).unwrap_or_default()
        };
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
}

/// How a reload ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The file is in force.
    Success,
    /// It is not; the one before it is.
    Failure,
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
    /// All metrics that do not depend on pools and policies, at zero.
    ///
    /// # Errors
    /// Never in practice: a name would have to be taken twice or be malformed.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let checks = register(
            &registry,
            IntCounterVec::new(
                opts("checks_total", "Authorization checks by decision, reason, user pool and policy."),
                &["decision", "reason", "pool", "policy"],
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
            evictions: counter("token_cache_evictions_total", "Tokens that made room for others in the cache.")?,
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
            IntCounterVec::new(opts("config_reloads_total", "Reloads of the policy file by result."), &["result"])?,
        )?;
        for result in [Reload::Success, Reload::Failure] {
            reloads.with_label_values(&[result.as_str()]);
        }
        let reloaded = IntGauge::with_opts(opts(
            "config_last_reload_successful",
            "Whether the policy file in force is the one on disk.",
        ))?;
        reloaded.set(1);
        Ok(Self {
            checks,
            durations: CheckOutcome::ALL.map(|outcome| durations.with_label_values(&[outcome.as_str()])),
            checks_in_flight: register(&registry, in_flight)?,
            jwks,
            token_cache,
            token_cache_entries: register(&registry, entries)?,
            reloads,
            config_last_reload_successful: register(&registry, reloaded)?,
            registry,
        })
    }

    /// Counters for these pools and policies, at zero. `reasons` are the reasons of checks that end badly, and whether
    /// they do so before there is a policy.
    ///
    /// Those that fail before a pool is known have all their series from the start; the others only as long as they are
    /// not too many, and else when they first happen.
    pub fn checks(
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
        CheckCounters { checks: self.checks.clone(), pools, policies, allowed }
    }

    /// Notes how long a check took, in seconds.
    pub fn took(&self, outcome: CheckOutcome, seconds: f64) {
        let [allow, deny, error] = &self.durations;
        let duration = match outcome {
            CheckOutcome::Allow => allow,
            CheckOutcome::Deny => deny,
            CheckOutcome::Error => error,
        };
        duration.observe(seconds);
    }

    /// Counts a reload of the policy file.
    pub fn reloaded(&self, result: Reload) {
        self.reloads.with_label_values(&[result.as_str()]).inc();
        self.config_last_reload_successful.set(i64::from(result == Reload::Success));
    }

    /// Takes away what a pool that is no more showed of its keys. Its counters stay: they are history.
    pub fn forget_pool(&self, pool: &str) {
        let jwks = &self.jwks;
        // Errors only say that there was nothing to take away.
        drop(jwks.keys.remove_label_values(&[pool]));
        drop(jwks.skipped_keys.remove_label_values(&[pool]));
        drop(jwks.last_success.remove_label_values(&[pool]));
    }

    /// The metrics of one pool's keys, at zero; fetches end as `results` say.
    pub fn jwks(&self, pool: &str, results: &[&'static str]) -> JwksMetrics {
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

    /// The metrics of the account API, at zero for all of these labels.
    ///
    /// # Errors
    /// As [`Metrics::new`], and when they are there already.
    pub fn account(&self, labels: &account::Labels<'_>) -> Result<account::AccountMetrics, prometheus::Error> {
        account::AccountMetrics::new(&self.registry, labels)
    }

    /// All of it in Prometheus' text format.
    ///
    /// # Errors
    /// Never in practice: every series has its labels.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
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
            keys: register(registry, IntGaugeVec::new(opts("jwks_keys", "Keys in force."), pool)?)?,
            skipped_keys: register(
                registry,
                IntGaugeVec::new(opts("jwks_skipped_keys", "Keys of the document that are not used."), pool)?,
            )?,
            unknown_kid: register(
                registry,
                IntCounterVec::new(
                    opts("jwks_unknown_kid_total", "Checks whose kid was not among the keys in force."),
                    pool,
                )?,
            )?,
            last_success: register(
                registry,
                GaugeVec::new(
                    opts(
                        "jwks_last_success_timestamp_seconds",
                        "Time of the last fetch that brought keys; 0 before it.",
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
    fn series_are_there_before_they_are_needed_unless_they_are_too_many() {
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
