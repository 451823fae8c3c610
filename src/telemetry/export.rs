//! The thread that exports spans. It has a runtime of its own, so a collector that hangs delays nothing else.
//!
//! A batch is sent when it is full, or when its time has come. It is tried again until the time limit of an export has
//! passed, and then dropped and counted. In the meantime the queue fills up, and drops what does not fit.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{self, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Client, ExportError};
use super::otlp;
use super::queue::Exit;
use super::settings::Settings;
use super::span::Record;
use crate::metrics::telemetry::{Dropped, TelemetryMetrics};

/// Time for the spans that are left at the end of the process.
const LAST_EXPORT: Duration = Duration::from_secs(3);
/// Pause before the first retry of a batch. It doubles with each further one, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Handle to the thread that exports spans. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Exporter {
    stop: DropGuard,
    done: oneshot::Receiver<()>,
}

impl Exporter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread or its runtime cannot be created.
    pub(super) fn start(settings: Settings, exit: Exit, metrics: TelemetryMetrics) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (finished, done) = oneshot::channel();
        let worker = Worker {
            delay: settings.batches.delay,
            timeout: settings.timeout,
            client: Client::new(settings),
            exit,
            metrics,
            stop: stop.clone(),
            is_failing: false,
        };
        thread::Builder::new().name("traces".into()).spawn(move || {
            runtime.block_on(worker.run());
            runtime.shutdown_background();
            // Fails if nothing waits for it.
            finished.send(()).ok();
        })?;
        Ok(Self { stop: stop.drop_guard(), done })
    }

    /// Exports what is left, within three seconds.
    pub(crate) async fn finish(self) {
        drop(self.stop);
        // Ends with an error if the thread has died.
        drop(self.done.await);
    }
}

struct Worker {
    client: Client,
    exit: Exit,
    metrics: TelemetryMetrics,
    delay: Duration,
    timeout: Duration,
    stop: CancellationToken,
    /// `true` if the last batch was not exported.
    is_failing: bool,
}

impl Worker {
    /// Exports spans until it is told to stop, and then the rest, for at most [`LAST_EXPORT`].
    async fn run(mut self) {
        let stop = self.stop.clone();
        let cut = async {
            stop.cancelled().await;
            time::sleep(LAST_EXPORT).await;
        };
        tokio::select! {
            () = self.work() => {}
            () = cut => {}
        }
    }

    async fn work(&mut self) {
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.exit.is_full() => {}
                () = time::sleep(self.delay) => {}
            }
            loop {
                let batch = self.exit.take();
                if batch.is_empty() {
                    break;
                }
                self.export(batch).await;
            }
        }
    }

    /// Exports a batch, or drops it. At the end of the process nothing is tried again.
    async fn export(&mut self, spans: Vec<Record>) {
        let batch = Batch { spans: spans.len() as u64, metrics: self.metrics.clone() };
        let message = otlp::request(self.client.resource(), spans);
        let body = self.client.body(message);
        let limit = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        let result = loop {
            let sent = time::timeout_at(limit, self.client.send(body.clone())).await;
            let error = match sent.unwrap_or(Err(ExportError::Timeout)) {
                Ok(rejected) => break Ok(rejected),
                Err(error) => error,
            };
            if matches!(error, ExportError::Timeout) {
                self.client.disconnect();
            }
            let Some(least) = error.retry_after() else { break Err(error) };
            let wait = pause.mul_f64(0.5 + fastrand::f64()).max(least);
            if Instant::now() + wait >= limit || self.stop.run_until_cancelled(time::sleep(wait)).await.is_none() {
                break Err(error);
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        };
        self.report(result, batch);
    }

    /// Counts a batch, and logs when exports begin to fail and when they succeed again.
    fn report(&mut self, result: Result<u64, ExportError>, batch: Batch) {
        match result {
            Ok(rejected) => {
                batch.arrived(rejected);
                if rejected > 0 {
                    tracing::debug!(rejected, "the collector rejects spans");
                }
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("spans are exported again");
                }
            }
            Err(error) => {
                drop(batch);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "spans could not be exported");
                }
            }
        }
    }
}

/// Spans of a batch. Those that have not arrived when it is dropped are counted as lost: also those of a batch that is cut
/// off by the end of the process.
struct Batch {
    spans: u64,
    metrics: TelemetryMetrics,
}

impl Batch {
    fn arrived(mut self, rejected: u64) {
        let rejected = rejected.min(self.spans);
        self.metrics.exported(self.spans - rejected);
        self.metrics.dropped(Dropped::Rejected, rejected);
        self.spans = 0;
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.metrics.dropped(Dropped::Failed, self.spans);
    }
}
