//! The preface of an HTTP/2 connection, read before hyper gets the connection, so that there can be a limit on its time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The client's connection preface (RFC 9113 section 3.4): 24 fixed bytes and a SETTINGS frame.
const MAGIC: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
const SETTINGS_FRAME: u8 = 4;
/// No frame may be larger before the server has allowed it (RFC 9113 section 4.2).
const MAX_FIRST_FRAME_BYTES: usize = 16_384;

/// Reads the whole preface, and perhaps more.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
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

/// A stream whose first bytes have been read already.
pub(super) struct Prefaced<T> {
    pub(super) preface: Bytes,
    pub(super) stream: T,
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
