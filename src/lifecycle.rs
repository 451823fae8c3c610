//! The life of the process: what it still waits for ([`Readiness`]), and how it ends ([`Shutdown`]).
//!
//! A part that has to come up first holds a [`BlockReady`]; dropping it *is* reporting ready. The end comes in
//! two steps that everything that serves can see: *draining* (still serving, but told off), then *closing*, and
//! a deadline behind them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether the process can do its work, and what it waits for if not.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<BTreeMap<u64, String>>,
    ready: watch::Sender<bool>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { pending: Mutex::default(), ready: watch::Sender::new(true) }) }
    }
}

impl Readiness {
    /// Says that `what` has to come up first.
    pub fn block(&self, what: String) -> BlockReady {
        let key = self.shared.change(|pending| {
            let key = pending.last_key_value().map_or(0, |(last, _)| last + 1);
            pending.insert(key, what);
            key
        });
        BlockReady { shared: Arc::clone(&self.shared), key }
    }

    /// What has not come up, in the order in which it was announced; nothing when ready.
    pub fn pending(&self) -> Vec<String> {
        self.shared.change(|pending| pending.values().cloned().collect())
    }

    /// Changes between ready and not ready.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.shared.ready.subscribe()
    }
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<u64, String>) -> T) -> T {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut pending);
        let is_ready = pending.is_empty();
        self.ready.send_if_modified(|ready| std::mem::replace(ready, is_ready) != is_ready);
        result
    }
}

/// Keeps the process from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it reports ready"]
pub struct BlockReady {
    shared: Arc<Shared>,
    key: u64,
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        self.shared.change(|pending| pending.remove(&self.key));
    }
}

/// The way to the end. Clones are the same way.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// The end has been announced: readiness and health say no, everything else goes on.
    pub draining: CancellationToken,
    /// Nothing new is taken on; what is running finishes.
    pub closing: CancellationToken,
    /// Time is up; what is still running is cut off.
    pub cut: CancellationToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_is_pending() {
        let readiness = Readiness::default();
        let mut watcher = readiness.subscribe();
        assert!(*watcher.borrow_and_update());
        let first = readiness.block("keys of a".into());
        let second = readiness.block("keys of b".into());
        assert_eq!(readiness.pending(), ["keys of a", "keys of b"]);
        assert!(!*watcher.borrow_and_update());
        drop(first);
        assert_eq!(readiness.pending(), ["keys of b"]);
        assert!(!watcher.has_changed().unwrap());
        drop(second);
        assert!(readiness.pending().is_empty());
        assert!(*watcher.borrow_and_update());
    }
}
