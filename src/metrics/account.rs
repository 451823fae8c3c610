//! What the account API counts, and what its calls to Cognito do.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry};

use super::{histogram, opts, register};

/// Seconds: from a cached refusal to the longest that a client waits.
const BUCKETS: [f64; 11] = [5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0];

/// The values that labels have, each from an enum or a table of ours.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'l> {
    /// Routes of the account API.
    pub routes: &'l [&'static str],
    /// How a request of them ends.
    pub outcomes: &'l [&'static str],
    /// Limits that refuse requests.
    pub limits: &'l [&'static str],
    /// Operations of Cognito.
    pub operations: &'l [&'static str],
    /// How a call of them ends.
    pub results: &'l [&'static str],
}

/// Of the account API.
#[derive(Clone, Debug)]
pub struct AccountMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    rate_limited: IntCounterVec,
    /// Requests with an `X-Forwarded-For` that nobody said how to read.
    pub unknown_addresses: IntCounter,
    /// Of the calls to Cognito.
    pub cognito: CognitoMetrics,
}

/// Of the calls to Cognito.
#[derive(Clone, Debug)]
pub struct CognitoMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl AccountMetrics {
    pub(super) fn new(registry: &Registry, labels: &Labels<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: register(
                registry,
                IntCounterVec::new(
                    opts("account_requests_total", "Requests to the account API by operation and outcome."),
                    &["operation", "outcome"],
                )?,
            )?,
            durations: register(
                registry,
                HistogramVec::new(
                    histogram("account_request_duration_seconds", "Time to answer a request.", &BUCKETS),
                    &["operation"],
                )?,
            )?,
            rate_limited: register(
                registry,
                IntCounterVec::new(
                    opts("rate_limited_total", "Requests to the account API that a limit refused."),
                    &["limit"],
                )?,
            )?,
            unknown_addresses: register(
                registry,
                IntCounter::with_opts(opts(
                    "account_unknown_addresses_total",
                    "Requests to the account API with an X-Forwarded-For while --trusted-hops is unset.",
                ))?,
            )?,
            cognito: CognitoMetrics::new(registry)?,
        };
        for route in labels.routes {
            metrics.durations.with_label_values(&[route]);
            for outcome in labels.outcomes {
                metrics.requests.with_label_values(&[route, outcome]);
            }
        }
        for limit in labels.limits {
            metrics.rate_limited.with_label_values(&[limit]);
        }
        for operation in labels.operations {
            metrics.cognito.durations.with_label_values(&[operation]);
            for result in labels.results {
                metrics.cognito.requests.with_label_values(&[operation, result]);
            }
        }
        Ok(metrics)
    }

    /// Metrics that nobody reads.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&Registry::new(), &Labels { routes: &[], outcomes: &[], limits: &[], operations: &[], results: &[] })
            .unwrap()
    }

    /// Counts a request that took `seconds`.
    pub fn answered(&self, route: &'static str, outcome: &'static str, seconds: f64) {
        self.requests.with_label_values(&[route, outcome]).inc();
        self.durations.with_label_values(&[route]).observe(seconds);
    }

    /// Counts a request that a limit refused.
    pub fn limited(&self, limit: &'static str) {
        self.rate_limited.with_label_values(&[limit]).inc();
    }
}

impl CognitoMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: register(
                registry,
                IntCounterVec::new(
                    opts("cognito_requests_total", "Calls to the user-pool API by operation and outcome."),
                    &["operation", "outcome"],
                )?,
            )?,
            durations: register(
                registry,
                HistogramVec::new(
                    histogram("cognito_request_duration_seconds", "Time of a call to the user-pool API.", &BUCKETS),
                    &["operation"],
                )?,
            )?,
        })
    }

    /// Metrics that nobody reads.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&Registry::new()).unwrap()
    }

    /// Counts a call.
    pub fn counted(&self, operation: &'static str, outcome: &'static str) {
        self.requests.with_label_values(&[operation, outcome]).inc();
    }

    /// Notes how long a call took.
    pub fn took(&self, operation: &'static str, seconds: f64) {
        self.durations.with_label_values(&[operation]).observe(seconds);
    }
}
