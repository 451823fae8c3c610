//! The store that replicas share ([`Store`]): Redis or Valkey.
//!
//! Replicas write what they revoke into one [`stream`], and each follows it ([`follow`]). Checks never wait for the store:
//! they read the table, and one time stamp. A replica that finds that the store has lost records appends what it knows
//! again ([`append`]), so the store is empty at most until then.

mod append;
mod books;
mod follow;
mod link;
mod stream;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::books::Books;
use self::link::Link;
use super::settings::StoreSettings;
use super::table::Table;
use crate::lifecycle::{BlockReady, Readiness};
use crate::metrics::revocation::RevocationMetrics;

/// Time after the last answer of the store from which on `--revocation-required` makes checks fail.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Time that the start waits for the content of the store.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

/// The shared store.
pub(super) struct Store {
    settings: StoreSettings,
    /// Maximum number of entries that are taken from the store: twice the number up to which replicas record, so that
    /// what others have confirmed is not missed while the table fills up.
    capacity: usize,
    metrics: RevocationMetrics,
    /// What the store lacks.
    books: Books,
    /// Connection for writes.
    writer: Mutex<Option<Link>>,
    /// One attempt to open that connection at a time.
    opening: tokio::sync::Mutex<()>,
    /// Start of the time that `synced` counts.
    start: Instant,
    /// Time of the last answer that reached the end of the stream, in milliseconds since `start`; 0 before the first.
    synced: AtomicU64,
    /// `true` while everything in the stream is known, so that what was not read is not there.
    is_at_end: AtomicBool,
    /// Server's time of the newest record that was seen, in milliseconds.
    newest: AtomicU64,
    /// Longest time in seconds that a record matters: that of this replica's settings, or of a record that was seen.
    longest: AtomicI64,
    /// Makes the service not ready until the content is loaded.
    block: Mutex<Option<BlockReady>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Store {
    /// Creates the store without connecting to it. `life` is the time in seconds that entries of this replica live.
    pub(super) fn new(settings: StoreSettings, capacity: usize, life: i64, metrics: RevocationMetrics) -> Self {
        Self {
            settings,
            capacity: capacity.saturating_mul(2),
            metrics,
            books: Books::default(),
            writer: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            start: Instant::now(),
            synced: AtomicU64::new(0),
            is_at_end: AtomicBool::new(false),
            newest: AtomicU64::new(0),
            longest: AtomicI64::new(life),
            block: Mutex::default(),
        }
    }

    /// `false` if checks must fail because the store is lost (`--revocation-required`). Never waits.
    pub(super) fn is_sound(&self) -> bool {
        if !self.settings.required {
            return true;
        }
        let synced = self.synced.load(Ordering::Acquire);
        synced > 0 && self.start.elapsed().saturating_sub(Duration::from_millis(synced)) < MAX_AGE
    }

    /// Makes the service not ready until the content is loaded.
    pub(super) fn block(&self, readiness: &Readiness) {
        let block = readiness.block("the store of revocations".into());
        *lock(&self.block) = Some(block);
    }

    fn unblock(&self) -> Option<BlockReady> {
        lock(&self.block).take()
    }

    /// Keeps the table in step with the store. Does not return.
    pub(super) async fn run(&self, table: &Table) {
        tokio::join!(self.follow(table), self.put_back(table), self.stop_waiting());
    }

    /// Ends the wait of the start, unless the store is required.
    async fn stop_waiting(&self) {
        tokio::time::sleep(LOAD_LIMIT).await;
        if !self.settings.required && self.unblock().is_some() {
            tracing::warn!(
                store = %self.settings.url,
                "the store of revocations is not loaded after {}s; going on without the revocations of other replicas",
                LOAD_LIMIT.as_secs()
            );
        }
    }

    /// Notes that everything in the store is known.
    fn is_synced(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.synced.store(elapsed.max(1), Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random time up to `limit`.
fn jitter(limit: Duration) -> Duration {
    limit.mul_f64(fastrand::f64())
}
