//! HTTP/1.1 over a listener, with limits: what the operators' port and the account API have in common.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::listen::{Listener, Stream};

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Limits of a port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Time for a request's head to arrive, also on a connection that is kept.
    pub head: Duration,
}

/// Bytes of a request's head, and of what is read ahead.
const MAX_BUFFER: usize = 64 * 1024;

/// Serves `listener` until `closing`; running requests finish. `answer` gets the peer's address, if it has one.
pub async fn serve<F, R>(listener: Listener, limits: Limits, closing: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>, Option<IpAddr>) -> R + Clone + Send + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let running = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(limits.connections));
    let accept = listener.accept_all(|stream| {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { return };
        let (answer, closing) = (answer.clone(), closing.clone());
        running.spawn(async move {
            match stream {
                Stream::Tcp(stream) => {
                    let peer = stream.peer_addr().ok().map(|peer| peer.ip());
                    connection(stream, peer, limits, closing, answer).await;
                }
                Stream::Unix(stream) => connection(stream, None, limits, closing, answer).await,
            }
            drop(permit);
        });
    });
    closing.run_until_cancelled(accept).await;
    running.close();
    running.wait().await;
}

async fn connection<F, R>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Option<IpAddr>,
    limits: Limits,
    closing: CancellationToken,
    answer: F,
) where
    F: Fn(Request<Incoming>, Option<IpAddr>) -> R,
    R: Future<Output = Answer>,
{
    let service = service_fn(move |request| {
        let response = answer(request, peer);
        async move { Ok::<_, Infallible>(response.await) }
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
