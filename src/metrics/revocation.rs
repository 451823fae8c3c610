//! Metrics of revocation.

use prometheus::{Gauge, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{opts, register};

/// Kinds of revocations (label `kind`): the claim that each is about, and `token` for a token without such a claim.
pub(crate) const KINDS: [&str; 4] = ["sub", "origin_jti", "jti", "token"];

/// Result of a write (label `result`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteResult {
    /// Recorded, in the file or the store as well.
    Success,
    /// The file or the store did not take it.
    Unwritten,
    /// The table is full.
    Full,
}

impl WriteResult {
    const ALL: [Self; 3] = [Self::Success, Self::Unwritten, Self::Full];

    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Unwritten => "unwritten",
            Self::Full => "full",
        }
    }
}

/// Metrics of revocation.
#[derive(Clone, Debug)]
pub struct RevocationMetrics {
    entries: IntGaugeVec,
    writes: IntCounterVec,
    /// Maximum number of entries.
    pub(crate) capacity: IntGauge,
    /// Age in seconds of the newest entry of the store when it was applied; 0 once there was nothing new for a second.
    pub(crate) lag: Gauge,
    /// 1 while the store answers; 0 otherwise, also without a store.
    pub(crate) store_up: IntGauge,
    /// Unix time of the last answer of the store that said what is new, in seconds; 0 before the first.
    pub(crate) last_sync: Gauge,
}

impl RevocationMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| register(registry, Gauge::with_opts(opts(name, help))?);
        let metrics = Self {
            entries: register(
                registry,
                IntGaugeVec::new(
                    opts("revocations", "Revocations that are known, by the claim that they are about."),
                    &["kind"],
                )?,
            )?,
            writes: register(
                registry,
                IntCounterVec::new(
                    opts("revocation_writes_total", "Revocations that this replica recorded, or failed to, by result."),
                    &["kind", "result"],
                )?,
            )?,
            capacity: register(
                registry,
                IntGauge::with_opts(opts(
                    "revocation_capacity",
                    "Maximum number of revocations; further ones are refused.",
                ))?,
            )?,
            lag: gauge(
                "revocation_lag_seconds",
                "Age of the newest revocation of the store when it was applied; 0 while there is nothing new.",
            )?,
            store_up: register(
                registry,
                IntGauge::with_opts(opts("revocation_store_up", "1 while the shared store answers, else 0."))?,
            )?,
            last_sync: gauge(
                "revocation_last_sync_timestamp_seconds",
                "Unix time of the last answer of the shared store; 0 before the first.",
            )?,
        };
        for kind in KINDS {
            metrics.entries.with_label_values(&[kind]);
            for result in WriteResult::ALL {
                metrics.writes.with_label_values(&[kind, result.as_str()]);
            }
        }
        Ok(metrics)
    }

    /// Number of entries of one kind.
    pub(crate) fn entries(&self, kind: &'static str) -> IntGauge {
        self.entries.with_label_values(&[kind])
    }

    /// Counts a write.
    pub(crate) fn wrote(&self, kind: &'static str, result: WriteResult) {
        self.writes.with_label_values(&[kind, result.as_str()]).inc();
    }
}
