//! Metrics of the log.

use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{opts, register};

/// Metrics of the log. Its counters are set when metrics are read.
#[derive(Debug)]
pub(crate) struct LogMetrics {
    rate: IntCounter,
    queue: IntCounter,
    /// Held while the counters are raised.
    raising: Mutex<()>,
}

impl LogMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = "log_lines_dropped_total";
        let help = "Lines of the log that were not written: above their rate, or because the reader did not keep up.";
        let dropped = register(registry, IntCounterVec::new(opts(name, help), &["cause"])?)?;
        let [rate, queue] = ["rate", "queue"].map(|cause| dropped.with_label_values(&[cause]));
        Ok(Self { rate, queue, raising: Mutex::default() })
    }

    /// Shows these numbers of lines since the start.
    pub(crate) fn show(&self, rate: u64, queue: u64) {
        let _raising = self.raising.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, total) in [(&self.rate, rate), (&self.queue, queue)] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
