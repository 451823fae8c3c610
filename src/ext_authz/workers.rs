//! Threads that serve the gRPC port.
//!
//! One task accepts connections and passes each to the worker with the fewest. A worker is a thread with a runtime of
//! its own, so a check never moves between cores. The workers do not share the listening socket: `SO_REUSEPORT` does
//! not exist for Unix sockets, and it spreads the few connections that Envoy opens unevenly.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection;
use super::services::Services;
use crate::lifecycle::Shutdown;
use crate::logging::foreign;
use crate::metrics::{OpenConnection, OwnNumber, PortMetrics, RefusedConnection, WorkerNumbers};
use crate::net::listen::{Listener, Stream};
use crate::net::tls::Acceptor;

/// Limits of the port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of simultaneous connections.
    pub(crate) connections: usize,
    /// Maximum number of simultaneous streams of one connection.
    pub(crate) streams: u32,
    /// Bytes for the memories of all workers together.
    pub(crate) recent_bytes: u64,
}

/// Senders of connections to the worker threads. After this is dropped, each worker ends once it is idle.
#[derive(Debug)]
pub(crate) struct Workers {
    all: Vec<Worker>,
    permits: Arc<Semaphore>,
    metrics: PortMetrics,
}

#[derive(Debug)]
struct Worker {
    connections: mpsc::UnboundedSender<Connection>,
    /// Number of connections that the worker serves.
    serving: Arc<AtomicUsize>,
}

/// Handles to the worker threads, to wait for their end.
#[derive(Debug)]
pub(crate) struct WorkerThreads(Vec<oneshot::Receiver<()>>);

/// An accepted connection for a worker, with the guards that count it until it ends.
struct Connection {
    stream: DetachedStream,
    tls: Option<Acceptor>,
    _open: OpenConnection,
    _serving: Serving,
    _permit: OwnedSemaphorePermit,
}

/// Guard that counts one connection of a worker, until it is dropped.
struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that is registered with no runtime, so it can move to another thread.
enum DetachedStream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Workers {
    /// Starts this number of worker threads. Also returns their numbers for the metrics.
    ///
    /// # Errors
    /// If a thread or its runtime cannot be created.
    pub(crate) fn start(
        threads: usize,
        limits: Limits,
        services: &Services,
        metrics: PortMetrics,
        shutdown: &Shutdown,
    ) -> io::Result<(Self, WorkerThreads, Vec<WorkerNumbers>)> {
        let start = |index| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (sender, receiver) = mpsc::unbounded_channel();
            let (finished, done) = oneshot::channel();
            let numbers = WorkerNumbers {
                name: format!("check-{index}"),
                runtime: runtime.metrics(),
                connections: Arc::default(),
                streams: OwnNumber::default(),
            };
            let services = services.for_worker(limits.recent_bytes / threads.max(1) as u64, numbers.streams.clone());
            let (metrics, shutdown) = (metrics.clone(), shutdown.clone());
            thread::Builder::new().name(numbers.name.clone()).spawn(move || {
                runtime.block_on(work(receiver, limits, services, metrics, shutdown));
                // A panic drops the sender instead, so the receiver can tell the two apart. Sending fails if the
                // shutdown deadline has passed and the receiver is dropped.
                finished.send(()).ok();
            })?;
            Ok((Worker { connections: sender, serving: Arc::clone(&numbers.connections) }, (done, numbers)))
        };
        let (workers, started): (_, Vec<_>) = (0..threads).map(start).collect::<io::Result<(_, _)>>()?;
        let (threads, numbers) = started.into_iter().unzip();
        let permits = Arc::new(Semaphore::new(limits.connections));
        Ok((Self { all: workers, permits, metrics }, WorkerThreads(threads), numbers))
    }

    /// Accepts connections until `closing` is cancelled.
    pub(crate) async fn accept(&self, listener: &Listener, closing: &CancellationToken) {
        closing.run_until_cancelled(listener.accept_all(|stream| self.hand_over(stream, listener.tls()))).await;
    }

    fn hand_over(&self, stream: Stream, tls: Option<&Acceptor>) {
        // Over the limit, the connection is closed at once, so the client notices and can try another instance.
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return self.metrics.refused(RefusedConnection::Limit);
        };
        let Some(worker) = self.all.iter().min_by_key(|worker| worker.serving.load(Ordering::Relaxed)) else {
            return;
        };
        let stream = match stream {
            Stream::Tcp(stream) => stream.into_std().map(DetachedStream::Tcp),
            Stream::Unix(stream) => stream.into_std().map(DetachedStream::Unix),
        };
        match stream {
            Ok(stream) => {
                worker.serving.fetch_add(1, Ordering::Relaxed);
                let serving = Serving(Arc::clone(&worker.serving));
                // Fails if the worker has died; then the process is about to end.
                let tls = tls.cloned();
                let open = self.metrics.accepted();
                drop(worker.connections.send(Connection {
                    stream,
                    tls,
                    _open: open,
                    _serving: serving,
                    _permit: permit,
                }));
            }
            Err(error) => tracing::warn!(%error, "a connection could not be passed to a worker"),
        }
    }
}

impl WorkerThreads {
    /// Waits until all threads have finished.
    ///
    /// # Errors
    /// If a thread has died.
    pub(crate) async fn finish(self) -> Result<(), oneshot::error::RecvError> {
        for done in self.0 {
            done.await?;
        }
        Ok(())
    }

    /// Waits until a thread ends. Before [`Workers`] is dropped, that means it has died.
    pub(crate) async fn one_dies(&mut self) {
        std::future::poll_fn(|cx| {
            let is_dead = self.0.iter_mut().any(|done| Pin::new(done).poll(cx).is_ready());
            if is_dead { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Serves the connections of one worker until [`Workers`] is dropped and all of them have ended, or until
/// `shutdown.cut`.
async fn work(
    mut connections: mpsc::UnboundedReceiver<Connection>,
    limits: Limits,
    services: Services,
    metrics: PortMetrics,
    shutdown: Shutdown,
) {
    let running = TaskTracker::new();
    let serve_all = async {
        while let Some(accepted) = connections.recv().await {
            let (services, metrics, closing) = (services.clone(), metrics.clone(), shutdown.closing.clone());
            running.spawn(async move {
                let Connection { stream, tls, _open, _serving, _permit } = accepted;
                let result = match stream {
                    DetachedStream::Tcp(stream) => match tokio::net::TcpStream::from_std(stream) {
                        Ok(stream) => connection::serve(stream, tls, limits.streams, services, &metrics, closing).await,
                        Err(error) => Err(error.into()),
                    },
                    DetachedStream::Unix(stream) => match tokio::net::UnixStream::from_std(stream) {
                        Ok(stream) => connection::serve(stream, tls, limits.streams, services, &metrics, closing).await,
                        Err(error) => Err(error.into()),
                    },
                };
                if let Err(error) = result {
                    // Without its sources: the last words of a client are among them.
                    tracing::debug!(error = foreign(&error), "connection ended with an error");
                }
            });
        }
        running.close();
        running.wait().await;
    };
    shutdown.cut.run_until_cancelled(serve_all).await;
}
