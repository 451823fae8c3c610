//! Metrics of the export of traces.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{opts, register};

/// Reason why a span was dropped (label `reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The queue was full: the collector takes fewer spans than there are.
    QueueFull,
    /// The collector could not be reached, or did not take the batch in time.
    Failed,
    /// The collector refused it.
    Rejected,
}

impl Dropped {
    const ALL: [Self; 3] = [Self::QueueFull, Self::Failed, Self::Rejected];

    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
        }
    }
}

/// Metrics of the export of traces. All are 0 while traces are off.
#[derive(Clone, Debug)]
pub(crate) struct TelemetryMetrics {
    exported: IntCounter,
    dropped: IntCounterVec,
}

impl TelemetryMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let exported = opts("spans_exported_total", "Spans that the collector has taken.");
        let dropped = opts("spans_dropped_total", "Spans that were not exported, by reason.");
        let metrics = Self {
            exported: register(registry, IntCounter::with_opts(exported)?)?,
            dropped: register(registry, IntCounterVec::new(dropped, &["reason"])?)?,
        };
        for reason in Dropped::ALL {
            metrics.dropped(reason, 0);
        }
        Ok(metrics)
    }

    /// Counts spans that the collector has taken.
    pub(crate) fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    /// Counts spans that were dropped.
    pub(crate) fn dropped(&self, reason: Dropped, spans: u64) {
        self.dropped.with_label_values(&[reason.as_str()]).inc_by(spans);
    }
}
