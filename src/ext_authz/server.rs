//! The gRPC port: connections, their limits, and the threads that serve them.
//!
//! One task accepts and hands each connection to the worker that has fewest; a worker is a thread with a runtime of
//! its own, so that a check never moves between cores. Sharing the listening socket between the workers instead
//! (`SO_REUSEPORT`) does not work for Unix sockets and spreads the few connections that Envoy opens unevenly.
//!
//! Limits are set here because the libraries' defaults have none: see the constants.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tonic_reflection::server::Builder as ReflectionBuilder;

use super::grpc::{CHECK_PATH, CheckService, SERVICE_NAME};
use super::in_flight::{CONNECTION_WINDOW_BYTES, ConnectionRoom, ProcessRoom, STREAM_WINDOW_BYTES};
use super::preface::{self, Prefaced};
use super::unary::AnswerBody;
use crate::lifecycle::Shutdown;
use crate::listen::{Listener, Stream};
use crate::progress::{Patience, Progress};

/// From accept to the client's whole connection preface, its SETTINGS frame included. HTTP/2 keep-alive begins
/// only after it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// Header list of a request.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Time between pings, and time to answer one.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Limits on waiting for a client to read. A proxy that is always behind a little is no reason to end its connection.
const PATIENCE: Patience = Patience { stall: Duration::from_secs(10), backlog: None, closing: Duration::from_secs(1) };
/// Size of a message of health or reflection: names.
const MAX_OTHER_MESSAGE_BYTES: usize = 4 * 1024;

/// Descriptors of what can be asked for by reflection: `external_auth.proto` and what it imports, from the
/// descriptor set of envoy-types. A test compares them.
pub const DESCRIPTORS: &[u8] = include_bytes!("authorization.descriptors.bin");

/// The services behind the port.
#[derive(Clone)]
pub struct Services {
    check: CheckService,
    health: HealthServer<HealthService>,
    reflection: Arc<Reflection>,
    room: Arc<ProcessRoom>,
    closing: CancellationToken,
}

type ReflectionV1 = Box<dyn Fn(http::Request<Incoming>) -> Answer + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

/// Both versions of `grpc.reflection`; clients ask for the older one, too.
struct Reflection {
    v1: ReflectionV1,
    v1alpha: ReflectionV1,
}

impl Services {
    /// The check, health and reflection. Streams of the latter two end when `closing` is cancelled: a watch
    /// lasts as long as its client likes and must not hold up a drain.
    ///
    /// # Errors
    /// When the descriptors cannot be read, which a test rules out.
    pub fn new(
        check: CheckService,
        health: HealthServer<HealthService>,
        closing: CancellationToken,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let builder = || {
            ReflectionBuilder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(SERVICE_NAME)
                .with_service_name("grpc.health.v1.Health")
        };
        let v1 = builder().build_v1()?.max_decoding_message_size(MAX_OTHER_MESSAGE_BYTES);
        let v1alpha = builder().build_v1alpha()?.max_decoding_message_size(MAX_OTHER_MESSAGE_BYTES);
        let health = health.max_decoding_message_size(MAX_OTHER_MESSAGE_BYTES);
        let room = Arc::new(ProcessRoom::new(check.max_message_bytes()));
        let reflection = Reflection {
            v1: Box::new(move |request| answer(v1.clone(), request)),
            v1alpha: Box::new(move |request| answer(v1alpha.clone(), request)),
        };
        Ok(Self { check, health, reflection: Arc::new(reflection), room, closing })
    }

    /// The future is boxed here, and only once: hyper moves it about before it runs, and all of it is copied each time.
    fn call(
        &self,
        request: http::Request<Incoming>,
        room: &Arc<ConnectionRoom>,
    ) -> BoxFuture<http::Response<AnswerBody>, Infallible> {
        if request.uri().path() == CHECK_PATH {
            return Box::pin(self.check.call(request, Arc::clone(room)));
        }
        let services = self.clone();
        Box::pin(async move { Ok(services.call_other(request).await.map(AnswerBody::Tonic)) })
    }

    async fn call_other(self, request: http::Request<Incoming>) -> http::Response<Body> {
        let deadline = super::grpc::deadline(request.headers());
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
        let answer = match service {
            "grpc.health.v1.Health" => answer(self.health, request),
            "grpc.reflection.v1.ServerReflection" => (self.reflection.v1)(request),
            "grpc.reflection.v1alpha.ServerReflection" => (self.reflection.v1alpha)(request),
            _ => return Status::unimplemented("no such service or method").into_http(),
        };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(response) => response.map(|body| Body::new(UntilClosing::new(body, self.closing))),
            Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
        }
    }
}

fn answer<S>(mut service: S, request: http::Request<Incoming>) -> Answer
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    Box::pin(async move {
        match service.call(request).await {
            Ok(response) => response,
        }
    })
}

/// A response body that ends, with status UNAVAILABLE, when the port closes.
struct UntilClosing {
    body: Option<Body>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl UntilClosing {
    fn new(body: Body, closing: CancellationToken) -> Self {
        Self { body: Some(body), closing: Box::pin(closing.cancelled_owned()) }
    }
}

impl HttpBody for UntilClosing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.closing.as_mut().poll(cx));
        self.body = None;
        let mut trailers = http::HeaderMap::new();
        // Cannot fail for a fixed text; if it did, the stream would end without a status, which is an error, too.
        drop(Status::unavailable("shutting down").add_header(&mut trailers));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

/// Limits that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Streams at a time of one connection.
    pub streams: u32,
}

/// The way to the threads that serve connections. Once it is dropped they end as soon as they are idle.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Worker {
    connections: mpsc::UnboundedSender<Connection>,
    serving: Arc<AtomicUsize>,
}

/// The threads themselves, to wait for.
#[derive(Debug)]
pub struct Threads(Vec<oneshot::Receiver<()>>);

/// An accepted connection on its way to its worker, and what it holds until it is over.
struct Connection {
    stream: DetachedStream,
    _serving: Serving,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// One of the connections that a worker serves.
struct Serving(Arc<AtomicUsize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that belongs to no runtime.
enum DetachedStream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Workers {
    /// Starts `threads` workers.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(
        threads: usize,
        limits: Limits,
        services: &Services,
        shutdown: &Shutdown,
    ) -> io::Result<(Self, Threads)> {
        let start = |index| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (sender, receiver) = mpsc::unbounded_channel();
            let (finished, done) = oneshot::channel();
            let (services, shutdown) = (services.clone(), shutdown.clone());
            thread::Builder::new().name(format!("check-{index}")).spawn(move || {
                runtime.block_on(work(receiver, limits, services, shutdown));
                // A panic drops the sender instead: whoever waits can tell the two apart. Nobody waits any more when
                // the deadline has passed.
                finished.send(()).ok();
            })?;
            Ok((Worker { connections: sender, serving: Arc::default() }, done))
        };
        let (workers, threads) = (0..threads).map(start).collect::<io::Result<(_, _)>>()?;
        Ok((Self { workers, permits: Arc::new(Semaphore::new(limits.connections)) }, Threads(threads)))
    }

    /// Accepts connections until the port closes.
    pub async fn accept(&self, listener: &Listener, closing: &CancellationToken) {
        closing.run_until_cancelled(listener.accept_all(|stream| self.hand_over(stream))).await;
    }

    fn hand_over(&self, stream: Stream) {
        // Over the limit: closed at once, so that the client knows and may go elsewhere.
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return };
        let Some(worker) = self.workers.iter().min_by_key(|worker| worker.serving.load(Ordering::Relaxed)) else {
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
                // Fails when the worker has died, and then the process is about to end.
                drop(worker.connections.send(Connection { stream, _serving: serving, _permit: permit }));
            }
            Err(error) => tracing::warn!(%error, "connection lost"),
        }
    }
}

impl Threads {
    /// Waits until all have finished what they were serving.
    ///
    /// # Errors
    /// When one has died.
    pub async fn finish(self) -> Result<(), oneshot::error::RecvError> {
        for done in self.0 {
            done.await?;
        }
        Ok(())
    }

    /// Waits until one ends, which none should before [`Workers`] is dropped.
    pub async fn one_dies(&mut self) {
        std::future::poll_fn(|cx| {
            let is_dead = self.0.iter_mut().any(|done| Pin::new(done).poll(cx).is_ready());
            if is_dead { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A worker's life: serves what it is handed, until there is nobody left to hand it anything, and what it has is done.
async fn work(
    mut connections: mpsc::UnboundedReceiver<Connection>,
    limits: Limits,
    services: Services,
    shutdown: Shutdown,
) {
    let running = TaskTracker::new();
    let serve_all = async {
        while let Some(connection) = connections.recv().await {
            let (services, closing) = (services.clone(), shutdown.closing.clone());
            running.spawn(async move {
                let Connection { stream, _serving, _permit } = connection;
                let result = match stream {
                    DetachedStream::Tcp(stream) => match tokio::net::TcpStream::from_std(stream) {
                        Ok(stream) => serve(stream, limits, services, closing).await,
                        Err(error) => Err(error.into()),
                    },
                    DetachedStream::Unix(stream) => match tokio::net::UnixStream::from_std(stream) {
                        Ok(stream) => serve(stream, limits, services, closing).await,
                        Err(error) => Err(error.into()),
                    },
                };
                if let Err(error) = result {
                    tracing::debug!(error = &*error, "connection ended with an error");
                }
            });
        }
        running.close();
        running.wait().await;
    };
    shutdown.cut.run_until_cancelled(serve_all).await;
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// Serves one connection until it ends; when the port closes, until its running calls have ended.
async fn serve<T>(
    mut stream: T,
    limits: Limits,
    services: Services,
    closing: CancellationToken,
) -> Result<(), ConnectionError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(preface) = closing.run_until_cancelled(timeout(PREFACE_TIMEOUT, preface::read(&mut stream))).await else {
        return Ok(());
    };
    let stream = Progress::new(stream, PATIENCE, closing.clone());
    let io = TokioIo::new(Prefaced { preface: preface??, stream });
    let room = Arc::new(ConnectionRoom::new(Arc::clone(&services.room)));
    let service = service_fn(move |request| services.call(request, &room));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .auto_date_header(false) // gRPC has no use for it
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return Ok(result?),
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}
