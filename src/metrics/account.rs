//! Metrics of the account API and of its calls to Cognito.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry};

use super::{histogram, opts, register};

/// Upper bounds in seconds: a refusal without a call to Cognito takes milliseconds, and a request takes at most 10 s.
const BUCKETS: [f64; 11] = [5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0];

/// All values of each label. They come from enums and tables of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'l> {
    /// Routes of the account API (`operation` of the request metrics).
    pub(crate) routes: &'l [&'static str],
    /// Outcomes of a request.
    pub(crate) outcomes: &'l [&'static str],
    /// Names of the rate limits.
    pub(crate) limits: &'l [&'static str],
    /// Operations of the user-pool API (`operation` of the Cognito metrics).
    pub(crate) operations: &'l [&'static str],
    /// Outcomes of a call to Cognito.
    pub(crate) results: &'l [&'static str],
}

/// Metrics of the account API.
#[derive(Clone, Debug)]
pub(crate) struct AccountMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    rate_limited: IntCounterVec,
    /// Number of requests with an `X-Forwarded-For` while `--trusted-hops` is unset.
    pub(crate) unknown_addresses: IntCounter,
    /// Metrics of the calls to Cognito.
    pub(crate) cognito: CognitoMetrics,
}

/// Metrics of the calls to Cognito.
#[derive(Clone, Debug)]
pub(crate) struct CognitoMetrics {
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
                    histogram(
                        "account_request_duration_seconds",
                        "Time to answer a request to the account API.",
                        &BUCKETS,
                    ),
                    &["operation"],
                )?,
            )?,
            rate_limited: register(
                registry,
                IntCounterVec::new(
                    opts("rate_limited_total", "Requests to the account API that a rate limit refused."),
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

    /// Creates metrics in a registry of their own.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&Registry::new(), &Labels { routes: &[], outcomes: &[], limits: &[], operations: &[], results: &[] })
            .unwrap()
    }

    /// Counts a request that took `seconds`.
    pub(crate) fn answered(&self, route: &'static str, outcome: &'static str, seconds: f64) {
        self.requests.with_label_values(&[route, outcome]).inc();
        self.durations.with_label_values(&[route]).observe(seconds);
    }

    /// Counts a request that a limit refused.
    pub(crate) fn limited(&self, limit: &'static str) {
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
                    histogram("cognito_request_duration_seconds", "Duration of a call to the user-pool API.", &BUCKETS),
                    &["operation"],
                )?,
            )?,
        })
    }

    /// Creates metrics in a registry of their own.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&Registry::new()).unwrap()
    }

    /// Counts a call to Cognito.
    pub(crate) fn counted(&self, operation: &'static str, outcome: &'static str) {
        self.requests.with_label_values(&[operation, outcome]).inc();
    }

    /// Records the duration of a call to Cognito in seconds.
    pub(crate) fn took(&self, operation: &'static str, seconds: f64) {
        self.durations.with_label_values(&[operation]).observe(seconds);
    }
}
