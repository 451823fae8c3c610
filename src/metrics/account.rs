//! Metrics of the account API and of its calls to Cognito.

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use super::{histogram, opts, register};

/// Upper bounds in seconds: a refusal without a call to Cognito takes milliseconds, and a request takes at most 10 s.
const BUCKETS: [f64; 11] = [5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0, 10.0];

/// Values of the labels that are known in advance. They come from enums and tables of the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    /// Operations of the account API, and the outcomes that each can have.
    pub(crate) requests: Vec<(&'static str, Vec<&'static str>)>,
    /// Names of the rate limits.
    pub(crate) limits: &'static [&'static str],
    /// Operations of Cognito that are called, and the outcomes that each can have.
    pub(crate) calls: Vec<(&'static str, Vec<&'static str>)>,
}

/// Metrics of the account API.
#[derive(Clone, Debug)]
pub(crate) struct AccountMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    in_flight: IntGauge,
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
    /// 1 while calls fail at once because Cognito failed too often, else 0.
    pub(crate) circuit_open: IntGauge,
}

/// Guard that counts a request as running, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl AccountMetrics {
    pub(super) fn new(registry: &Registry, labels: &Labels) -> Result<Self, prometheus::Error> {
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
            in_flight: register(
                registry,
                IntGauge::with_opts(opts("account_requests_in_flight", "Requests to the account API being answered."))?,
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
        for (operation, outcomes) in &labels.requests {
            metrics.durations.with_label_values(&[operation]);
            for outcome in outcomes {
                metrics.requests.with_label_values(&[operation, outcome]);
            }
        }
        for limit in labels.limits {
            metrics.rate_limited.with_label_values(&[limit]);
        }
        for (operation, outcomes) in &labels.calls {
            metrics.cognito.durations.with_label_values(&[operation]);
            for outcome in outcomes {
                metrics.cognito.requests.with_label_values(&[operation, outcome]);
            }
        }
        Ok(metrics)
    }

    /// Creates metrics in a registry of their own.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&Registry::new(), &Labels::default()).unwrap()
    }

    /// Counts a request that begins.
    pub(crate) fn begun(&self) -> Running {
        self.in_flight.inc();
        Running(self.in_flight.clone())
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
            circuit_open: register(
                registry,
                IntGauge::with_opts(opts(
                    "cognito_circuit_open",
                    "1 while calls to Cognito fail at once, because ten failed in a row; one in five seconds is tried.",
                ))?,
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
