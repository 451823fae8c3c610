//! Bounds the memory for messages that are on their way in.
//!
//! A message that arrives whole is never counted. One that arrives in pieces is counted with its whole length before
//! anything of it is collected, for its connection and for the process; while there is no room it waits and is not read.
//! Small messages have room of their own, so that none of them waits for a large one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// Bytes of a small message, its frame's head included.
pub const SMALL_BYTES: usize = 64 * 1024;
/// HTTP/2 window of a stream: bytes that its client may have sent and that have not been read. All streams that may wait
/// ([`CONNECTION`]) fit into three quarters of the connection's window, so that the others always move.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// HTTP/2 window of a connection. See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Messages that may wait for room, of each size.
struct Waiting {
    small: usize,
    large: usize,
}

const CONNECTION: Waiting = Waiting { small: 8, large: 16 };
const PROCESS: Waiting = Waiting { small: 256, large: 256 };

/// Room for small messages.
const SMALL_OF_CONNECTION: usize = 2 * 1024 * 1024;
const SMALL_OF_PROCESS: usize = 16 * 1024 * 1024;
/// Room for large messages: so many of the largest that is accepted.
const LARGE_OF_CONNECTION: usize = 2;
const LARGE_OF_PROCESS: usize = 4;

/// Bytes of one permit.
const UNIT: usize = 1024;

/// Room for messages of one size.
#[derive(Debug)]
struct Room {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
}

impl Room {
    fn new(bytes: usize, most_waiting: usize) -> Self {
        let permits = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(permits)), waiting: AtomicUsize::new(0), most_waiting }
    }

    /// Takes room for so many units, and waits for it in the order of coming.
    async fn take(&self, units: u32) -> Result<OwnedSemaphorePermit, Status> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_many_owned(units) {
            return Ok(permit);
        }
        let full = || Status::resource_exhausted("too many bytes of messages are on their way");
        let _waiting = self.wait().ok_or_else(full)?;
        Arc::clone(&self.permits).acquire_many_owned(units).await.map_err(|_| full())
    }

    fn wait(&self) -> Option<WaitingFor<'_>> {
        let waiting = WaitingFor(&self.waiting);
        (self.waiting.fetch_add(1, Ordering::Relaxed) < self.most_waiting).then_some(waiting)
    }
}

/// One that waits, until it is dropped.
struct WaitingFor<'a>(&'a AtomicUsize);

impl Drop for WaitingFor<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room of the whole process.
#[derive(Debug)]
pub struct ProcessRoom {
    small: Room,
    large: Room,
    max_message_bytes: usize,
}

impl ProcessRoom {
    /// Room for messages of which none is longer than `max_message_bytes`.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            small: Room::new(SMALL_OF_PROCESS, PROCESS.small),
            large: Room::new(large(LARGE_OF_PROCESS, max_message_bytes), PROCESS.large),
            max_message_bytes,
        }
    }
}

/// Bytes of so many messages, with their frames' heads and what rounding takes.
fn large(messages: usize, max_message_bytes: usize) -> usize {
    max_message_bytes.max(SMALL_BYTES).saturating_add(SMALL_BYTES).saturating_mul(messages)
}

/// Room of one connection, within that of the process.
#[derive(Debug)]
pub struct ConnectionRoom {
    process: Arc<ProcessRoom>,
    small: Room,
    large: Room,
}

/// Room that a message takes, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub struct Held {
    _connection: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

impl ConnectionRoom {
    /// Room of a new connection.
    pub fn new(process: Arc<ProcessRoom>) -> Self {
        let large = large(LARGE_OF_CONNECTION, process.max_message_bytes);
        Self {
            process,
            small: Room::new(SMALL_OF_CONNECTION, CONNECTION.small),
            large: Room::new(large, CONNECTION.large),
        }
    }

    /// Takes room for a message of so many bytes, and waits until there is some.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`: as many as may wait are waiting.
    pub async fn take(&self, bytes: usize) -> Result<Held, Status> {
        let too_large = |_| Status::resource_exhausted("the message is too large");
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(too_large)?;
        let (connection, process) =
            if bytes <= SMALL_BYTES { (&self.small, &self.process.small) } else { (&self.large, &self.process.large) };
        // In this order everywhere, and nobody who holds room takes more: no two wait for each other.
        let connection = connection.take(units).await?;
        let process = process.take(units).await?;
        Ok(Held { _connection: connection, _process: process })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MIB: usize = 1024 * 1024;

    /// What there is at once: room, nothing yet, or a refusal.
    fn now(room: impl Future<Output = Result<Held, Status>>) -> Option<Result<Held, i32>> {
        match pin!(room).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result.map_err(|status| status.code() as i32)),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_connection_and_the_process_have_room_for_some_of_the_largest() {
        let process = Arc::new(ProcessRoom::new(16 * MIB));
        let connections = [(); 3].map(|()| ConnectionRoom::new(Arc::clone(&process)));
        let take = |connection: usize| now(connections[connection].take(16 * MIB + 5));
        let mut held: Vec<_> = [0, 0, 1, 1].map(|connection| take(connection).unwrap().unwrap()).into();
        assert!(take(0).is_none(), "the connection has no more");
        assert!(take(2).is_none(), "the process has no more");
        for connection in &connections {
            assert!(now(connection.take(SMALL_BYTES)).unwrap().is_ok(), "small ones have room of their own");
        }
        drop(held.remove(0));
        assert!(take(2).unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_waits_gets_its_turn_and_only_some_may_wait() {
        let connection = Arc::new(ConnectionRoom::new(Arc::new(ProcessRoom::new(MIB))));
        let held = [now(connection.take(MIB)).unwrap().unwrap(), now(connection.take(MIB)).unwrap().unwrap()];
        let waiting: Vec<_> = (0..CONNECTION.large)
            .map(|_| {
                let connection = Arc::clone(&connection);
                tokio::spawn(async move { connection.take(MIB).await.map(drop).is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(now(connection.take(MIB)).unwrap().unwrap_err(), 8, "RESOURCE_EXHAUSTED");
        drop(held);
        for turn in waiting {
            assert!(turn.await.unwrap());
        }
        assert!(now(connection.take(MIB)).unwrap().is_ok(), "all room is back, and nobody waits");
    }
}
