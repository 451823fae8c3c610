//! One connection of the gRPC port: HTTP/2 with limits. The defaults of the libraries set none.
//!
//! The client's connection preface is read before hyper gets the connection, so that it has a time limit, which includes
//! the TLS handshake.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::message_memory::{CONNECTION_WINDOW_BYTES, ConnectionMemory, STREAM_WINDOW_BYTES};
use super::services::Services;
use crate::metrics::PortMetrics;
use crate::net::progress::{Patience, Progress};
use crate::net::tls::Acceptor;

/// Time from the accept to the end of the client's connection preface, including the TLS handshake before it and its
/// SETTINGS frame. HTTP/2 keep-alive starts only after it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a request's header list.
const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// Time between keep-alive pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time for the client to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Time limits for a client to read. There is none for the whole backlog: a proxy that always lags a little behind
/// keeps its connection.
const PATIENCE: Patience = Patience { stall: Duration::from_secs(10), backlog: None, closing: Duration::from_secs(1) };

/// Client connection preface (RFC 9113 section 3.4): these 24 bytes, followed by a SETTINGS frame.
const MAGIC: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const SETTINGS_FRAME: u8 = 4;
/// Maximum size of a frame before the server allows more (RFC 9113 section 4.2).
const MAX_FIRST_FRAME_BYTES: usize = 16_384;

pub(super) type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// Performs the handshake if there is a `tls`, and serves the connection until it ends. When `closing` is cancelled,
/// running calls finish and the connection ends. The limits of [`PATIENCE`] apply below TLS, to the bytes on the network.
pub(super) async fn serve<T>(
    stream: T,
    tls: Option<Acceptor>,
    max_streams: u32,
    services: Services,
    metrics: &PortMetrics,
    closing: CancellationToken,
) -> Result<(), ConnectionError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let deadline = Instant::now() + PREFACE_TIMEOUT;
    let stream = Progress::new(stream, PATIENCE, closing.clone());
    match tls {
        None => serve_http2(stream, deadline, max_streams, services, closing).await,
        Some(tls) => match closing.run_until_cancelled(tls.accept(stream, deadline)).await {
            Some(Some((stream, _))) => serve_http2(stream, deadline, max_streams, services, closing).await,
            Some(None) => {
                metrics.handshake_failed();
                Ok(())
            }
            None => Ok(()),
        },
    }
}

async fn serve_http2<T>(
    mut stream: T,
    deadline: Instant,
    max_streams: u32,
    services: Services,
    closing: CancellationToken,
) -> Result<(), ConnectionError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let preface = timeout_at(deadline, read_preface(&mut stream));
    let Some(preface) = closing.run_until_cancelled(preface).await else { return Ok(()) };
    let io = TokioIo::new(Prefaced { preface: preface??, stream });
    let memory = Arc::new(ConnectionMemory::new(Arc::clone(services.memory()), services.streams().clone()));
    let service = service_fn(move |request| services.call(request, &memory));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_streams)
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

/// Reads at least the whole preface. Returns the bytes read, which may contain more.
async fn read_preface(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut read = Vec::with_capacity(256);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if read.iter().zip(MAGIC).any(|(theirs, ours)| theirs != ours) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2 with prior knowledge"));
        }
        let frame = read.get(MAGIC.len()..).unwrap_or_default();
        if let Some([a, b, c, kind, ..]) = frame.get(..FRAME_HEADER_BYTES) {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if *kind != SETTINGS_FRAME || length > MAX_FIRST_FRAME_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not SETTINGS"));
            }
            if frame.len() >= FRAME_HEADER_BYTES + length {
                return Ok(read.into());
            }
        }
    }
}

/// A stream whose first bytes have already been read.
struct Prefaced<T> {
    preface: Bytes,
    stream: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefaced<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.preface.len().min(buffer.remaining());
        let start = self.preface.split_to(length);
        buffer.put_slice(start.chunk());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefaced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// `false`, so that the HTTP/2 library collects small frames instead of writing each one on its own: it copies frames
    /// of up to 1 KiB, and with vectored writes only those of up to 256 bytes. An answer has more.
    fn is_write_vectored(&self) -> bool {
        false
    }
}
