//! Readiness of the service ([`Readiness`]) and the phases of its shutdown (`Shutdown`).
//!
//! A part that has to start first holds a `BlockReady` and drops it when it is ready. The shutdown has three phases:
//! *draining* (health checks fail, requests are still served), *closing* (nothing new is accepted), and at the deadline
//! *cut* (whatever still runs is ended).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Readiness of the service, with the parts that it waits for. Clones share their state.
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
    /// Makes the service not ready until the returned guard is dropped. `what` names the part for `/readyz`.
    pub(crate) fn block(&self, what: String) -> BlockReady {
        let key = self.shared.change(|pending| {
            let key = pending.last_key_value().map_or(0, |(last, _)| last + 1);
            pending.insert(key, what);
            key
        });
        BlockReady { shared: Arc::clone(&self.shared), key }
    }

    /// Returns the parts that are not ready, in the order of their [`block`](Self::block) calls.
    pub(crate) fn pending(&self) -> Vec<String> {
        self.shared.change(|pending| pending.values().cloned().collect())
    }

    /// Returns a receiver that is `true` while the service is ready.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
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

/// Guard of a part that has to start first. While it exists the service is not ready.
#[derive(Debug)]
#[must_use = "dropping it reports ready"]
pub(crate) struct BlockReady {
    shared: Arc<Shared>,
    key: u64,
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        self.shared.change(|pending| pending.remove(&self.key));
    }
}

/// Phases of the shutdown, as one token each, cancelled in the order of the fields. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// `/readyz` and gRPC health report that the service is not ready. Requests are still served.
    pub(crate) draining: CancellationToken,
    /// No connection or request is accepted any more. Running requests finish.
    pub(crate) closing: CancellationToken,
    /// The deadline has passed. Running requests are ended.
    pub(crate) cut: CancellationToken,
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
