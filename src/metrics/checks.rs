//! Metrics of checks: results by reason, pool and policy, durations, and checks that run.
//!
//! Every check changes them, so they are kept per thread ([`sharded`]).

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::proto::Metric;
use prometheus::{IntCounterVec, Registry};

use super::sharded::{self, Exemplar, TraceId};
use super::{Metrics, opts, register};

/// Upper bounds in seconds. A cached check takes microseconds; Envoy waits for 200 ms by default, and for 250 ms as
/// configured in `deploy/`.
const CHECK_BUCKETS: [f64; sharded::BUCKETS] =
    [25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0];

/// Largest number of series with a pool that are created in advance. 200 pools with a policy each would be a million
/// series.
const PREPARED_SERIES: usize = 10_000;

/// Outcome of a check (label `decision`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Series that checks can have: one for no pool, one for each pool, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CheckSeries {
    /// Outcome of the checks; `None` for denials that a policy in shadow mode only reports.
    pub(crate) outcome: Option<CheckOutcome>,
    /// Reason of the denial; empty for checks that are allowed.
    pub(crate) reason: &'static str,
    /// Index of the policy; `None` for checks that end before a policy is known.
    pub(crate) policy: Option<usize>,
    /// `true` if checks can end before a pool is known.
    pub(crate) without_pool: bool,
    /// `true` if checks can end when a pool is known.
    pub(crate) with_pool: bool,
}

/// Families of checks.
#[derive(Debug)]
pub(super) struct CheckFamilies {
    checks: sharded::CounterVec,
    shadow_denials: IntCounterVec,
    durations: sharded::Durations<3>,
    in_flight: sharded::Gauge,
}

/// Counters of checks for one set of pools and policies.
#[derive(Debug)]
pub(crate) struct CheckCounters {
    checks: sharded::CounterVec,
    shadow_denials: IntCounterVec,
    pools: Vec<Box<str>>,
    policies: Vec<Box<str>>,
    /// Counters of allowed checks by policy and pool; the last counter of each policy counts requests without a pool.
    /// They save the hot path the lookup of labels, except the first time. Those of a policy exist from its first check
    /// on: a file can have thousands of pools and of policies.
    allowed: Vec<OnceLock<Box<[OnceLock<sharded::Counter>]>>>,
}

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
        let by_pool = || (0..=self.pools.len()).map(|_| OnceLock::new()).collect();
        let of_policy = || Some(self.allowed.get(labels.policy?)?.get_or_init(by_pool));
        let known = || of_policy()?.get(labels.pool.unwrap_or(self.pools.len()));
        match (labels.outcome == CheckOutcome::Allow).then(known).flatten() {
            Some(allowed) => allowed.get_or_init(counter).inc(),
            None => counter().inc(),
        }
    }

    /// Counts a denial that a policy in shadow mode only reports. The check itself counts as allowed.
    pub(crate) fn count_shadow_denial(&self, reason: &'static str, pool: Option<usize>, policy: Option<usize>) {
        let (pool, policy) = (name(&self.pools, pool), name(&self.policies, policy));
        self.shadow_denials.with_label_values(&[reason, &*pool, &*policy]).inc();
    }

    /// Creates series with the value zero.
    fn prepare(&self, series: &[CheckSeries]) {
        let with_pool = series.iter().filter(|series| series.with_pool).count();
        let are_few = with_pool.saturating_mul(self.pools.len()) <= PREPARED_SERIES;
        for CheckSeries { outcome, reason, policy, without_pool, with_pool } in series {
            let policy = name(&self.policies, *policy);
            let pools = self.pools.iter().map(|pool| &**pool).filter(|_| *with_pool && are_few);
            for pool in pools.chain(without_pool.then_some("")) {
                match outcome {
                    Some(outcome) => drop(self.checks.with_label_values(&[outcome.as_str(), reason, pool, &*policy])),
                    None => drop(self.shadow_denials.with_label_values(&[*reason, pool, &*policy])),
                }
            }
        }
    }
}

impl CheckFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let in_flight = sharded::Gauge::with_opts(opts("checks_in_flight", "Authorization checks being decided."))?;
        Ok(Self {
            checks: register(
                registry,
                sharded::CounterVec::new(
                    opts("checks_total", "Authorization checks by decision, reason, user pool and policy."),
                    &["decision", "reason", "pool", "policy"],
                )?,
            )?,
            shadow_denials: register(
                registry,
                IntCounterVec::new(
                    opts("shadow_denials_total", "Checks that a policy in shadow mode allowed and would have denied."),
                    &["reason", "pool", "policy"],
                )?,
            )?,
            durations: register(
                registry,
                sharded::Durations::new(
                    &opts("check_duration_seconds", "Time to decide a check."),
                    "decision",
                    CheckOutcome::ALL.map(CheckOutcome::as_str),
                    CHECK_BUCKETS,
                )?,
            )?,
            in_flight: register(registry, in_flight)?,
        })
    }

    /// Last check in a bucket of a histogram that a trace belongs to.
    pub(super) fn exemplar(&self, family: &str, metric: &Metric, bucket: usize) -> Option<Exemplar> {
        self.durations.exemplar(family, metric, bucket)
    }
}

impl Metrics {
    /// Creates the counters of these pools and policies. `series` are those that checks can have; they exist from now on,
    /// with the value zero. Any other appears with its first check.
    ///
    /// Series with a pool are created in advance if there are at most [`PREPARED_SERIES`] of them.
    pub(crate) fn checks(
        &self,
        pools: Vec<Box<str>>,
        policies: Vec<Box<str>>,
        series: &[CheckSeries],
    ) -> CheckCounters {
        let counters = CheckCounters {
            checks: self.checks.checks.clone(),
            shadow_denials: self.checks.shadow_denials.clone(),
            allowed: policies.iter().map(|_| OnceLock::new()).collect(),
            pools,
            policies,
        };
        counters.prepare(series);
        counters
    }

    /// Records the duration of a check. `trace` is the trace that it belongs to, if that is sampled.
    pub(crate) fn took(&self, outcome: CheckOutcome, duration: Duration, trace: Option<TraceId>) {
        self.checks.durations.observe(outcome as usize, duration, trace);
    }

    /// Number of checks that are running.
    pub(crate) fn checks_in_flight(&self) -> &sharded::Gauge {
        &self.checks.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn series_are_created_in_advance_unless_there_are_too_many() {
        let names = |count: usize, what: &str| (0..count).map(|number| format!("{what}{number}").into()).collect();
        for (pools, policies, expected) in [(2, 3, 1 + 3 * (3 + 2)), (200, 200, 1 + 200)] {
            let metrics = Metrics::new().unwrap();
            let denied = |reason, policy, without_pool, with_pool| CheckSeries {
                outcome: Some(CheckOutcome::Deny),
                reason,
                policy,
                without_pool,
                with_pool,
            };
            let allowed =
                |policy| CheckSeries { outcome: Some(CheckOutcome::Allow), ..denied("", policy, false, true) };
            let of_policy = |policy| [denied("expired", Some(policy), true, true), allowed(Some(policy))];
            let series: Vec<_> =
                (0..policies).flat_map(of_policy).chain([denied("unsafe_path", None, true, false)]).collect();
            let counters = metrics.checks(names(pools, "pool"), names(policies, "policy"), &series);
            let text = || String::from_utf8(metrics.render(Format::Text).unwrap()).unwrap();
            let series = || text().lines().filter(|line| line.starts_with("cognito_authz_checks_total{")).count();
            assert_eq!(series(), expected);
            let allowed = CheckLabels { outcome: CheckOutcome::Allow, reason: "", pool: Some(1), policy: Some(2) };
            counters.count(allowed);
            counters.count(allowed);
            counters.count(CheckLabels { pool: None, ..allowed });
            assert!(series() <= expected + 2);
            let text = text();
            assert!(text.contains("checks_total{decision=\"allow\",policy=\"policy2\",pool=\"pool1\",reason=\"\"} 2"));
            assert!(text.contains("checks_total{decision=\"allow\",policy=\"policy2\",pool=\"\",reason=\"\"} 1"));
        }
    }

    #[test]
    fn only_open_metrics_has_exemplars() {
        let metrics = Metrics::new().unwrap();
        metrics.took(CheckOutcome::Allow, Duration::from_micros(30), None);
        metrics.took(CheckOutcome::Deny, Duration::from_micros(30), Some([0xab; 16]));
        metrics.took(CheckOutcome::Deny, Duration::from_micros(40), Some([0xcd; 16]));
        metrics.took(CheckOutcome::Deny, Duration::from_secs(3), Some([0xef; 16]));
        metrics.took(CheckOutcome::Deny, Duration::from_micros(41), None);
        let text = |format| String::from_utf8(metrics.render(format).unwrap()).unwrap();
        assert!(!text(Format::Text).contains("trace_id"));
        let rendered = text(Format::OpenMetrics);
        let with_trace: Vec<_> = rendered.lines().filter(|line| line.contains("trace_id")).collect();
        let [first, last] = &*with_trace else { panic!("{with_trace:?}") };
        let start = format!(
            "cognito_authz_check_duration_seconds_bucket{{decision=\"deny\",le=\"5e-05\"}} 3.0 # {{trace_id=\"{}\"}} 4e-05 ",
            "cd".repeat(16)
        );
        let time: f64 = first.strip_prefix(&start).unwrap_or_else(|| panic!("{first}")).parse().unwrap();
        assert!(time > 1e9);
        assert!(last.contains(&format!("le=\"+Inf\"}} 4.0 # {{trace_id=\"{}\"}} 3.0 ", "ef".repeat(16))), "{last}");
    }
}
