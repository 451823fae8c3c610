//! HTTP/1.1 server with limits, used by the admin port, the account API and the HTTP form of the check.
//!
//! Every wait for a client is limited: for a TLS handshake ([`HANDSHAKE_TIMEOUT`]), for a request head
//! ([`Limits::head`]), for the client to read a response ([`PATIENCE`]), and for any progress once the port closes. The
//! code that reads a request body limits the time for it.

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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::callers::Callers;
use super::listen::{Listener, Stream};
use super::occasional::Occasional;
use super::peers::Peers;
use super::progress::{Activity, Patience, Progress};
use super::tls::{Acceptor, ClientCertificate, VerifiedClient};
use crate::metrics::{PortMetrics, RefusedConnection};

/// Response with a body that is known as a whole.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Limits of a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of simultaneous connections. Further ones are closed at once.
    pub(crate) connections: usize,
    /// Maximum number of simultaneous connections of one peer: an IPv4 address, or the /64 of an IPv6 address. It does
    /// not apply to Unix sockets.
    pub(crate) peer: usize,
    /// Time for a request head to arrive. It also limits the idle time of a kept-alive connection.
    pub(crate) head: Duration,
}

/// Response to a peer that may not use the port.
const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 37\r\nconnection: close\r\n\r\nthis address may not use this server\n";
/// Time for such a peer to receive that response.
const FAREWELL: Duration = Duration::from_secs(1);
/// Maximum number of such peers that are waited for at the same time. Further ones may lose the response.
const MAX_FAREWELLS: usize = 64;

impl Limits {
    /// Creates the limits of a port with this number of connections. One peer may have a quarter of them: enough for a
    /// proxy that all connections come from, and no address can take them all. On a small port a peer may have up to
    /// 64, but never more than half.
    pub(crate) fn of(connections: usize, head: Duration) -> Self {
        let peer = (connections / 4).max(64).min(connections / 2).max(1);
        Self { connections, peer, head }
    }
}

/// Maximum size of a request head, and of the read buffer.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// Size of the kernel's send buffer for a connection. The kernel's default can grow to megabytes.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Time limits for a client to read a response.
const PATIENCE: Patience = Patience {
    stall: Duration::from_secs(10),
    backlog: Some(Duration::from_secs(30)),
    closing: Duration::from_secs(1),
};
/// Time from the accept to the end of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Client of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Address of the client; `None` on a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Certificate of the client, which the handshake has verified. `None` unless the listener is `mtls:`.
    pub(crate) certificate: VerifiedClient,
}

impl Peer {
    /// Returns the name of the verified client certificate. `None` means that the client has not authenticated.
    pub(crate) fn certificate_name(&self) -> Option<&str> {
        self.certificate.as_deref().map(ClientCertificate::name)
    }
}

/// Serves `listener` until `closing` is cancelled, and then finishes running requests. `answer` is called with each
/// request and its client.
pub(crate) async fn serve<F, R>(
    listener: Listener,
    limits: Limits,
    metrics: PortMetrics,
    closing: CancellationToken,
    answer: F,
) where
    F: Fn(Request<RequestBody>, Peer) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    serve_callers(listener, limits, Callers::All, metrics, closing, answer).await;
}

/// As [`serve`], for these `callers` only. Other TCP peers get 403, and nothing that they send is interpreted. The file
/// mode of a Unix socket decides who may use it.
pub(crate) async fn serve_callers<F, R>(
    listener: Listener,
    limits: Limits,
    callers: Callers,
    metrics: PortMetrics,
    closing: CancellationToken,
    answer: F,
) where
    F: Fn(Request<RequestBody>, Peer) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let farewells = Arc::new(Semaphore::new(MAX_FAREWELLS));
    let running = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(limits.connections));
    let peers = Arc::new(Peers::default());
    let mut refusals = Occasional::default();
    let mut refuse = |reason: RefusedConnection| {
        metrics.refused(reason);
        let why = match reason {
            RefusedConnection::Caller => "the address of the peer is not among the callers of the port",
            RefusedConnection::Limit => "the port has reached its limit on connections",
            RefusedConnection::PeerLimit => "an address has reached its share of the port's connections",
        };
        if let Some(refused) = refusals.count() {
            tracing::warn!(address = listener.address(), refused, why, "connections refused");
        }
    };
    let accept = listener.accept_all(|stream| {
        let address = address(&stream);
        let stream = match stream {
            Stream::Tcp(stream) if !callers.admit(address) => {
                // With TLS there is no response before a handshake, which such a peer does not get.
                let farewell = Arc::clone(&farewells).try_acquire_owned().ok().filter(|_| listener.tls().is_none());
                if let Some(permit) = farewell {
                    running.spawn(async move {
                        forbid(stream).await;
                        drop(permit);
                    });
                }
                return refuse(RefusedConnection::Caller);
            }
            stream => stream,
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            return refuse(RefusedConnection::Limit);
        };
        let counted = address.map(|address| peers.enter(address, limits.peer));
        if let Some(None) = counted {
            return refuse(RefusedConnection::PeerLimit);
        }
        let (tls, closing, answer) = (listener.tls().cloned(), closing.clone(), answer.clone());
        let open = metrics.accepted();
        let connection = Connection { address, limits, metrics: metrics.clone(), closing, answer };
        running.spawn(async move {
            match stream {
                Stream::Tcp(stream) => {
                    if let Err(error) = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES) {
                        tracing::debug!(%error, "the size of the send buffer cannot be set");
                    }
                    connection.serve(stream, tls).await;
                }
                Stream::Unix(stream) => connection.serve(stream, tls).await,
            }
            drop((permit, counted, open));
        });
    });
    closing.run_until_cancelled(accept).await;
    running.close();
    running.wait().await;
}

fn address(stream: &Stream) -> Option<IpAddr> {
    match stream {
        Stream::Tcp(stream) => stream.peer_addr().ok().map(|peer| peer.ip()),
        Stream::Unix(_) => None,
    }
}

/// Tells a peer that it may not use the port, and closes the connection.
async fn forbid(mut stream: TcpStream) {
    let farewell = async {
        stream.write_all(FORBIDDEN).await?;
        stream.shutdown().await?;
        // The kernel resets a connection that is closed while it has unread data, and the peer could lose the response.
        // So data is discarded until the peer closes.
        copy(&mut stream.take(MAX_BUFFER_BYTES as u64), &mut sink()).await
    };
    if let Ok(Err(error)) = timeout(FAREWELL, farewell).await {
        tracing::debug!(%error, "connection of a peer that may not use the port ended with an error");
    }
}

/// An accepted connection, without its stream.
struct Connection<F> {
    address: Option<IpAddr>,
    limits: Limits,
    metrics: PortMetrics,
    closing: CancellationToken,
    answer: F,
}

impl<F, R> Connection<F>
where
    F: Fn(Request<RequestBody>, Peer) -> R,
    R: Future<Output = Answer>,
{
    /// Performs the handshake if the listener has TLS, and serves the connection until it ends. The limits of
    /// [`PATIENCE`] apply below TLS, to the bytes on the network.
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin, tls: Option<Acceptor>) {
        let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
        let activity = Arc::new(Activity::default());
        let stream = Progress::new(stream, PATIENCE, self.closing.clone()).with_activity(Arc::clone(&activity));
        match tls {
            None => self.answer_all(stream, None, activity).await,
            Some(tls) => match self.closing.run_until_cancelled(tls.accept(stream, deadline)).await {
                Some(Some((stream, certificate))) => self.answer_all(stream, certificate, activity).await,
                Some(None) => self.metrics.handshake_failed(),
                None => {}
            },
        }
    }

    async fn answer_all(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        certificate: VerifiedClient,
        activity: Arc<Activity>,
    ) {
        let Self { address, limits, closing, answer, .. } = self;
        let peer = Peer { address, certificate };
        let client = peer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let working = Working::new(&activity);
            let request = request.map(|body| RequestBody { body, activity: Arc::clone(&activity) });
            let response = answer(request, peer.clone());
            async move {
                let response = response.await;
                drop(working);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(MAX_BUFFER_BYTES)
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
            tracing::debug!(%error, client = client.certificate_name(), "HTTP connection ended with an error");
        }
    }
}

/// Guard that marks the connection as busy, until it is dropped.
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

/// Body of a request. While its reader waits for data, the connection counts as idle.
#[derive(Debug)]
pub(crate) struct RequestBody {
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
