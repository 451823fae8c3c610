//! Limits the memory for incoming messages that are not complete yet.
//!
//! A message that arrives in one piece needs no reservation. For any other, its whole length is reserved before it is
//! collected, from the budgets of its connection and of the process. While a budget is exhausted the message waits and
//! is not read, so HTTP/2 flow control stops its sender. Small messages have budgets of their own and never wait for
//! large ones.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::metrics::{MessageNumbers, OwnNumber};

/// Maximum size of a small message, including the gRPC prefix.
const SMALL_BYTES: usize = 64 * 1024;
/// HTTP/2 flow-control window of a stream: the maximum number of bytes that are sent but not read. The streams of all
/// messages that may wait ([`CONNECTION`]) fit into three quarters of the connection's window, so other streams always
/// make progress.
pub(super) const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2 flow-control window of a connection. See [`STREAM_WINDOW_BYTES`].
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Maximum number of messages of each size that may wait.
struct MaxWaiting {
    small: usize,
    large: usize,
}

const CONNECTION: MaxWaiting = MaxWaiting { small: 8, large: 16 };
const PROCESS: MaxWaiting = MaxWaiting { small: 256, large: 256 };

/// Budget for small messages, in bytes.
const SMALL_OF_CONNECTION: usize = 2 * 1024 * 1024;
const SMALL_OF_PROCESS: usize = 16 * 1024 * 1024;
/// Budget for large messages, as a number of messages of the maximum size.
const LARGE_OF_CONNECTION: usize = 2;
const LARGE_OF_PROCESS: usize = 4;

/// Bytes per semaphore permit.
const UNIT: usize = 1024;

/// Budget for messages of one size.
#[derive(Debug)]
struct Budget {
    permits: Arc<Semaphore>,
    /// Number of permits.
    size: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Number of messages of one size that wait for memory, of their connection or of the process, and that were refused.
#[derive(Debug, Default)]
struct Held {
    waiting: AtomicUsize,
    refused: AtomicUsize,
}

impl Budget {
    fn new(bytes: usize, max_waiting: usize) -> Self {
        let permits = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let waiting = AtomicUsize::new(0);
        Self { permits: Arc::new(Semaphore::new(permits)), size: permits, waiting, max_waiting }
    }

    /// Reserves this number of units. Waiting messages are served in the order of their arrival.
    async fn reserve(&self, units: u32, held: &Held) -> Result<OwnedSemaphorePermit, Status> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_many_owned(units) {
            return Ok(permit);
        }
        let full = || {
            held.refused.fetch_add(1, Ordering::Relaxed);
            Status::resource_exhausted("too many bytes of messages are on their way")
        };
        let _waiting = self.start_waiting().ok_or_else(full)?;
        held.waiting.fetch_add(1, Ordering::Relaxed);
        let _held = Waiting(&held.waiting);
        Arc::clone(&self.permits).acquire_many_owned(units).await.map_err(|_| full())
    }

    /// Counts one more waiting message, or returns `None` if the maximum waits already.
    fn start_waiting(&self) -> Option<Waiting<'_>> {
        let waiting = Waiting(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < self.max_waiting).then_some(waiting)
    }

    fn numbers(&self, held: &Held) -> MessageNumbers {
        MessageNumbers {
            reserved_bytes: self.size.saturating_sub(self.permits.available_permits()) * UNIT,
            limit_bytes: self.size * UNIT,
            waiting: held.waiting.load(Ordering::Relaxed),
            refused: held.refused.load(Ordering::Relaxed),
        }
    }
}

/// Guard that counts one waiting message, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Budgets of one gRPC port, for all its connections.
#[derive(Debug)]
pub(super) struct ProcessMemory {
    small: Budget,
    large: Budget,
    held_small: Held,
    held_large: Held,
    max_message_bytes: usize,
}

impl ProcessMemory {
    /// Creates budgets for messages of at most `max_message_bytes`.
    pub(super) fn new(max_message_bytes: usize) -> Self {
        Self {
            small: Budget::new(SMALL_OF_PROCESS, PROCESS.small),
            large: Budget::new(large_bytes(LARGE_OF_PROCESS, max_message_bytes), PROCESS.large),
            held_small: Held::default(),
            held_large: Held::default(),
            max_message_bytes,
        }
    }

    /// Use of the budgets, by the size of the messages.
    pub(super) fn numbers(&self) -> [(&'static str, MessageNumbers); 2] {
        [("small", self.small.numbers(&self.held_small)), ("large", self.large.numbers(&self.held_large))]
    }
}

/// Returns the bytes for this number of large messages, including gRPC prefixes and rounding.
fn large_bytes(messages: usize, max_message_bytes: usize) -> usize {
    max_message_bytes.max(SMALL_BYTES).saturating_add(SMALL_BYTES).saturating_mul(messages)
}

/// Budgets of one connection. A reservation counts against those of the process as well.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    process: Arc<ProcessMemory>,
    small: Budget,
    large: Budget,
    /// Number of calls that the worker of the connection serves.
    streams: OwnNumber,
}

/// A call of a connection, which counts as served until this is dropped, on the thread of its worker.
#[derive(Debug)]
pub(super) struct Stream(Arc<ConnectionMemory>);

impl Stream {
    /// Counts a call of the connection with these budgets.
    pub(super) fn open(memory: &Arc<ConnectionMemory>) -> Self {
        memory.streams.increase();
        Self(Arc::clone(memory))
    }
}

impl Deref for Stream {
    type Target = ConnectionMemory;

    fn deref(&self) -> &ConnectionMemory {
        &self.0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.decrease();
    }
}

/// Memory reserved for one message, until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the reservation"]
pub(super) struct Reservation {
    _connection: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

impl ConnectionMemory {
    /// Creates the budgets of a new connection. Its calls are counted in `streams`.
    pub(super) fn new(process: Arc<ProcessMemory>, streams: OwnNumber) -> Self {
        let large = large_bytes(LARGE_OF_CONNECTION, process.max_message_bytes);
        Self {
            process,
            small: Budget::new(SMALL_OF_CONNECTION, CONNECTION.small),
            large: Budget::new(large, CONNECTION.large),
            streams,
        }
    }

    /// Reserves memory for a message of this length, and waits until there is enough.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if the maximum number of messages waits already.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reservation, Status> {
        let too_large = |_| Status::resource_exhausted("the message is too large");
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(too_large)?;
        let all = &self.process;
        let (connection, process, held) = if bytes <= SMALL_BYTES {
            (&self.small, &all.small, &all.held_small)
        } else {
            (&self.large, &all.large, &all.held_large)
        };
        // No deadlock: every reservation takes the budgets in this order, and a message reserves only once.
        let connection = connection.reserve(units, held).await?;
        let process = process.reserve(units, held).await?;
        Ok(Reservation { _connection: connection, _process: process })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MIB: usize = 1024 * 1024;

    /// Polls once: the reservation or the status code, or `None` if it has to wait.
    fn now(reservation: impl Future<Output = Result<Reservation, Status>>) -> Option<Result<Reservation, i32>> {
        match pin!(reservation).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result.map_err(|status| status.code() as i32)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_budgets_hold_several_messages_of_the_maximum_size() {
        let process = Arc::new(ProcessMemory::new(16 * MIB));
        let connections = [(); 3].map(|()| ConnectionMemory::new(Arc::clone(&process), OwnNumber::default()));
        let reserve = |connection: usize| now(connections[connection].reserve(16 * MIB + 5));
        let mut held: Vec<_> = [0, 0, 1, 1].map(|connection| reserve(connection).unwrap().unwrap()).into();
        assert!(reserve(0).is_none(), "the budget of the connection is exhausted");
        assert!(reserve(2).is_none(), "the budget of the process is exhausted");
        for connection in &connections {
            assert!(now(connection.reserve(SMALL_BYTES)).unwrap().is_ok(), "small messages have their own budget");
        }
        drop(held.remove(0));
        assert!(reserve(2).unwrap().is_ok());
    }

    #[tokio::test]
    async fn waiting_messages_are_served_and_their_number_is_limited() {
        let connection = Arc::new(ConnectionMemory::new(Arc::new(ProcessMemory::new(MIB)), OwnNumber::default()));
        let held = [now(connection.reserve(MIB)).unwrap().unwrap(), now(connection.reserve(MIB)).unwrap().unwrap()];
        let waiting: Vec<_> = (0..CONNECTION.large)
            .map(|_| {
                let connection = Arc::clone(&connection);
                tokio::spawn(async move { connection.reserve(MIB).await.map(drop).is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(now(connection.reserve(MIB)).unwrap().unwrap_err(), 8, "RESOURCE_EXHAUSTED");
        let [(_, small), (_, large)] = connection.process.numbers();
        assert_eq!((small.reserved_bytes, small.waiting, small.refused), (0, 0, 0));
        assert_eq!((large.reserved_bytes, large.waiting, large.refused), (2 * MIB, CONNECTION.large, 1));
        assert!(large.limit_bytes >= 4 * MIB, "{large:?}");
        drop(held);
        for turn in waiting {
            assert!(turn.await.unwrap());
        }
        assert!(now(connection.reserve(MIB)).unwrap().is_ok(), "all memory is free, and no message waits");
        let [_, (_, large)] = connection.process.numbers();
        assert_eq!((large.reserved_bytes, large.waiting), (0, 0));
    }
}
