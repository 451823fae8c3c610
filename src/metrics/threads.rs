//! Metrics of the threads, and of the memory for messages that arrive on the gRPC port.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::RuntimeMetrics;

use super::{Kind, Metrics};

/// Number that one thread changes and others read.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnNumber(Arc<AtomicUsize>);

impl OwnNumber {
    /// Adds one. Only the thread that owns the number may change it.
    pub(crate) fn increase(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Relaxed);
    }

    /// Subtracts one. Only the thread that owns the number may change it.
    pub(crate) fn decrease(&self) {
        self.0.store(self.get().wrapping_sub(1), Ordering::Relaxed);
    }

    /// Returns the number.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Thread that serves checks.
#[derive(Debug)]
pub(crate) struct WorkerNumbers {
    /// Name of the thread (label `worker`).
    pub(crate) name: String,
    /// Metrics of its runtime.
    pub(crate) runtime: RuntimeMetrics,
    /// Number of its connections.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Number of calls that it serves.
    pub(crate) streams: OwnNumber,
}

/// Memory for messages of one size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MessageNumbers {
    /// Memory that is reserved for messages that are not complete yet, in bytes.
    pub(crate) reserved_bytes: usize,
    /// Maximum of the reserved memory, in bytes.
    pub(crate) limit_bytes: usize,
    /// Number of messages that wait for memory.
    pub(crate) waiting: usize,
    /// Number of messages that were refused, because too many waited already.
    pub(crate) refused: usize,
}

/// Label value for the thread that runs everything except checks.
const MAIN: &str = "main";

#[expect(clippy::cast_precision_loss, reason = "numbers are below 2^53")]
fn number(number: usize) -> f64 {
    number as f64
}

impl Metrics {
    /// Shows how busy the threads are. `main` is the runtime of everything except checks.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn observe_threads(
        &self,
        main: RuntimeMetrics,
        workers: Vec<WorkerNumbers>,
    ) -> Result<(), prometheus::Error> {
        let workers = Arc::new(workers);
        let busy = |runtime: &RuntimeMetrics| {
            (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64()).sum()
        };
        let all = Arc::clone(&workers);
        self.observe_each(
            Kind::Counter,
            (
                "worker_busy_seconds_total",
                "Time that a thread was not idle: check-N serves checks, main everything else. Near 1 second a second, \
                 the thread is saturated.",
            ),
            "worker",
            move || {
                let workers = all.iter().map(|worker| (worker.name.clone(), busy(&worker.runtime)));
                workers.chain([(MAIN.to_owned(), busy(&main))]).collect()
            },
        )?;
        let all = Arc::clone(&workers);
        self.observe_each(
            Kind::Gauge,
            ("worker_connections", "Open gRPC connections of a thread that serves checks."),
            "worker",
            move || {
                let connections = |worker: &WorkerNumbers| number(worker.connections.load(Ordering::Relaxed));
                all.iter().map(|worker| (worker.name.clone(), connections(worker))).collect()
            },
        )?;
        self.observe_each(
            Kind::Gauge,
            (
                "worker_streams",
                "gRPC calls that a thread serves: checks being decided, and those whose message has not arrived yet.",
            ),
            "worker",
            move || workers.iter().map(|worker| (worker.name.clone(), number(worker.streams.get()))).collect(),
        )
    }

    /// Shows the memory for messages that are not complete yet. `read` returns the numbers for each size.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn observe_messages(
        &self,
        read: impl Fn() -> [(&'static str, MessageNumbers); 2] + Clone + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        let each = |part: fn(&MessageNumbers) -> usize| {
            let read = read.clone();
            move || read().iter().map(|(size, numbers)| ((*size).to_owned(), number(part(numbers)))).collect()
        };
        self.observe_each(
            Kind::Gauge,
            (
                "grpc_message_memory_bytes",
                "Memory reserved for gRPC messages that are not complete yet, by their size: small (up to 64 KiB), large.",
            ),
            "size",
            each(|numbers| numbers.reserved_bytes),
        )?;
        self.observe_each(
            Kind::Gauge,
            ("grpc_message_memory_limit_bytes", "Maximum of that memory."),
            "size",
            each(|numbers| numbers.limit_bytes),
        )?;
        self.observe_each(
            Kind::Gauge,
            ("grpc_messages_waiting", "gRPC messages that wait for memory; their senders are held back."),
            "size",
            each(|numbers| numbers.waiting),
        )?;
        self.observe_each(
            Kind::Counter,
            (
                "grpc_messages_refused_total",
                "gRPC messages refused with RESOURCE_EXHAUSTED, because too many waited for memory already.",
            ),
            "size",
            each(|numbers| numbers.refused),
        )
    }

    /// Shows if the service is ready, and the part of the token cache that is used.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn observe_state(
        &self,
        is_ready: impl Fn() -> bool + Send + Sync + 'static,
        cache_used: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        self.observe(
            Kind::Gauge,
            ("ready", "1 if the service is ready, as /readyz and gRPC health report it, else 0."),
            move || f64::from(u8::from(is_ready())),
        )?;
        self.observe(
            Kind::Gauge,
            (
                "token_cache_used_ratio",
                "Part of the cache of verified tokens that is used; at 1, tokens are removed to make room.",
            ),
            cache_used,
        )
    }
}
