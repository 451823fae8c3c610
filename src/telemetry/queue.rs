//! The bounded queue between the threads that trace and the thread that exports. Putting a span in never waits: when the
//! queue is full, or its reader is gone, the span is dropped and counted.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::settings::Batches;
use super::span::Record;
use crate::metrics::telemetry::{Dropped, TelemetryMetrics};

/// Entry of the queue.
#[derive(Debug)]
pub(super) struct Queue {
    sender: Sender<Box<Record>>,
    /// Capacity that is left when a batch is full.
    full_at: usize,
    full: Arc<Notify>,
    metrics: TelemetryMetrics,
}

/// Exit of the queue.
#[derive(Debug)]
pub(super) struct Exit {
    receiver: Receiver<Box<Record>>,
    full: Arc<Notify>,
    batch: usize,
}

/// Makes a queue.
pub(super) fn queue(batches: Batches, metrics: TelemetryMetrics) -> (Queue, Exit) {
    let (sender, receiver) = mpsc::channel(batches.queue.max(1));
    let full = Arc::new(Notify::new());
    let full_at = batches.queue.saturating_sub(batches.size);
    (Queue { sender, full_at, full: Arc::clone(&full), metrics }, Exit { receiver, full, batch: batches.size })
}

impl Queue {
    /// Puts a span in, or drops it.
    pub(super) fn put(&self, record: Box<Record>) {
        match self.sender.try_send(record) {
            // The reader does not wait for single spans, so a span costs no system call.
            Ok(()) if self.sender.capacity() <= self.full_at => self.full.notify_one(),
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => self.metrics.dropped(Dropped::QueueFull, 1),
        }
    }
}

impl Exit {
    /// Waits until there are enough spans for a batch.
    pub(super) async fn is_full(&self) {
        self.full.notified().await;
    }

    /// Takes up to one batch of spans, without waiting.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::iter::from_fn(|| self.receiver.try_recv().ok().map(|record| *record)).take(self.batch).collect()
    }
}
