//! HTTP/1.1 over a listener, with limits: what the operators' port and the account API have in common.
//!
//! Every wait for a client has an end: for a head ([`Limits::head`]), for a response to be read ([`PATIENCE`]), and for
//! anything at all once the port closes. The time for a body is up to the reader of it.

mod peers;

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::peers::Peers;
use crate::listen::{Listener, Stream};
use crate::progress::{Activity, Patience, Progress};

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Limits of a port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Connections of one peer at a time: an IPv4 address, or the /64 of an IPv6 address. Unix sockets have no peers.
    pub peer: usize,
    /// Time for a request's head to arrive, also on a connection that is kept.
    pub head: Duration,
}

impl Limits {
    /// Limits of a port with so many connections. A peer gets a quarter of them: a proxy, from which all connections
    /// come, has enough, and no address can take all. On a small port it gets up to 64, but never more than half.
    pub fn of(connections: usize, head: Duration) -> Self {
        let peer = (connections / 4).max(64).min(connections / 2).max(1);
        Self { connections, peer, head }
    }
}

/// Bytes of a request's head, and of what is read ahead.
const MAX_BUFFER: usize = 64 * 1024;
/// Bytes of responses that the kernel keeps for a client; it would take megabytes otherwise.
const SEND_BUFFER: usize = 128 * 1024;
/// Limits on waiting for a client to read a response.
const PATIENCE: Patience = Patience {
    stall: Duration::from_secs(10),
    backlog: Some(Duration::from_secs(30)),
    closing: Duration::from_secs(1),
};
/// Least time between two lines of the log about refused connections.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Serves `listener` until `closing`; running requests finish. `answer` gets the peer's address, if it has one.
pub async fn serve<F, R>(listener: Listener, limits: Limits, closing: CancellationToken, answer: F)
where
    F: Fn(Request<RequestBody>, Option<IpAddr>) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let running = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(limits.connections));
    let peers = Arc::new(Peers::default());
    let mut refusals = Refusals::default();
    let accept = listener.accept_all(|stream| {
        let peer = peer(&stream);
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            return refusals.count(&listener, "the port has no more connections");
        };
        let place = peer.map(|peer| peers.enter(peer, limits.peer));
        if let Some(None) = place {
            return refusals.count(&listener, "an address has its share of the port's connections");
        }
        let (answer, closing) = (answer.clone(), closing.clone());
        running.spawn(async move {
            match stream {
                Stream::Tcp(stream) => {
                    if let Err(error) = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER) {
                        tracing::debug!(%error, "the send buffer stays as it is");
                    }
                    connection(stream, peer, limits, closing, answer).await;
                }
                Stream::Unix(stream) => connection(stream, None, limits, closing, answer).await,
            }
            drop((permit, place));
        });
    });
    closing.run_until_cancelled(accept).await;
    running.close();
    running.wait().await;
}

fn peer(stream: &Stream) -> Option<IpAddr> {
    match stream {
        Stream::Tcp(stream) => stream.peer_addr().ok().map(|peer| peer.ip()),
        Stream::Unix(_) => None,
    }
}

/// Connections that were refused since the log has said so.
#[derive(Default)]
struct Refusals {
    count: u64,
    reported: Option<Instant>,
}

impl Refusals {
    fn count(&mut self, listener: &Listener, why: &'static str) {
        self.count += 1;
        if self.reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            tracing::warn!(address = listener.address(), refused = self.count, why, "connections refused");
            *self = Self { count: 0, reported: Some(Instant::now()) };
        }
    }
}

async fn connection<F, R>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Option<IpAddr>,
    limits: Limits,
    closing: CancellationToken,
    answer: F,
) where
    F: Fn(Request<RequestBody>, Option<IpAddr>) -> R,
    R: Future<Output = Answer>,
{
    let activity = Arc::new(Activity::default());
    let stream = Progress::new(stream, PATIENCE, closing.clone()).with_activity(Arc::clone(&activity));
    let service = service_fn(move |request: Request<Incoming>| {
        let working = Working::new(&activity);
        let response = answer(request.map(|body| RequestBody { body, activity: Arc::clone(&activity) }), peer);
        async move {
            let response = response.await;
            drop(working);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "HTTP connection ended with an error");
    }
}

/// A request is being answered, until this is dropped.
struct Working(Arc<Activity>);

impl Working {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.set_busy(true);
        Self(Arc::clone(activity))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.set_busy(false);
    }
}

/// The body of a request. While it is waited for, the connection waits for its client.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    activity: Arc<Activity>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.activity.set_busy(frame.is_ready());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
