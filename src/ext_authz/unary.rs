//! gRPC wire format of a unary call: one message in each direction (gRPC over HTTP/2, "Requests" and "Responses").
//!
//! Only checks use this module. tonic handles every kind of call, which costs buffers of 8 KiB in each direction and a
//! future of several KiB, while a check has about 2 KiB and is made for every request that passes Envoy.

use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use prost::bytes::{Buf, Bytes, BytesMut};
use tonic::Status;
use tonic::body::Body;

use super::message_memory::{ConnectionMemory, Reservation};

/// Size of the prefix of a message: one byte of flags and four bytes of length.
const PREFIX_BYTES: usize = 5;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Maximum size of a DATA frame of an answer.
///
/// The HTTP/2 library copies a smaller frame into its buffer, and so writes the answers that are ready at the same time
/// with one system call. A larger frame is written at once, without a copy, with a call of its own
/// (`CHAIN_THRESHOLD_WITHOUT_VECTORED_IO` in h2).
const MAX_FRAME_BYTES: usize = 1023;

/// A complete message. Dereferences to its bytes, without the prefix.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Bytes,
    /// Set if the message arrived in several pieces.
    _reservation: Option<Reservation>,
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Checks that the messages of a call are not compressed.
///
/// # Errors
/// `UNIMPLEMENTED` if `grpc-encoding` is anything but `identity`.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    if headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("compressed messages are not supported"));
    }
    Ok(())
}

/// Reads the message of a call.
///
/// # Errors
/// The gRPC status to answer with.
pub(super) async fn read<B>(mut body: B, max_bytes: usize, memory: &ConnectionMemory) -> Result<Message, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    // Almost always the first piece is the whole message. Then nothing is copied or reserved.
    let mut first = next(&mut body).await?.unwrap_or_default();
    if body.is_end_stream() && message_bytes(&first, max_bytes)?.is_some_and(|bytes| bytes == first.len()) {
        first.advance(PREFIX_BYTES);
        return Ok(Message { bytes: first, _reservation: None });
    }
    // Boxed, because its future is large, and rarely needed.
    Box::pin(collect(first, body, max_bytes, memory)).await
}

/// Reads a message that begins with `first` and arrives in several pieces.
async fn collect<B>(first: Bytes, mut body: B, max_bytes: usize, memory: &ConnectionMemory) -> Result<Message, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    // Copied, because a piece keeps the whole buffer alive that it was received in.
    let mut read = BytesMut::from(&*first);
    drop(first);
    let mut reservation = None;
    loop {
        if let Some(bytes) = message_bytes(&read, max_bytes)? {
            if reservation.is_none() {
                reservation = Some(memory.reserve(bytes).await?);
                read.reserve(bytes.saturating_sub(read.len()));
            }
            if read.len() > bytes {
                return Err(Status::internal("more than one message"));
            }
        }
        let Some(data) = next(&mut body).await? else { break };
        read.extend_from_slice(&data);
    }
    match message_bytes(&read, max_bytes)? {
        Some(bytes) if bytes == read.len() => {
            read.advance(PREFIX_BYTES);
            Ok(Message { bytes: read.freeze(), _reservation: reservation })
        }
        _ => Err(Status::internal("the message is missing or cut off")),
    }
}

/// Reads the next piece of data of a body. Returns `None` at its end.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| Status::cancelled(error.to_string()))?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Returns the size of a message with its prefix, or `None` if the prefix is not complete.
///
/// # Errors
/// `RESOURCE_EXHAUSTED` if it exceeds `max_bytes`. The prefix alone decides, so a message that is too large is never
/// collected.
fn message_bytes(frame: &[u8], max_bytes: usize) -> Result<Option<usize>, Status> {
    match announced_length(frame)? {
        Some(length) if length > max_bytes => Err(Status::resource_exhausted("the message is too large")),
        length => Ok(length.map(|length| length.saturating_add(PREFIX_BYTES))),
    }
}

/// Returns the length in the prefix, or `None` if the prefix is not complete.
fn announced_length(frame: &[u8]) -> Result<Option<usize>, Status> {
    match frame.get(..PREFIX_BYTES) {
        Some([0, length @ ..]) => {
            let length = length.iter().fold(0_u32, |length, byte| length << 8 | u32::from(*byte));
            Ok(Some(usize::try_from(length).unwrap_or(usize::MAX)))
        }
        Some(_) => Err(Status::unimplemented("compressed messages are not supported")),
        None => Ok(None),
    }
}

/// Returns a message with its prefix. `write` appends the message; `capacity` is an estimate of its size.
pub(super) fn frame(capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX_BYTES + capacity);
    frame.extend_from_slice(&[0; PREFIX_BYTES]);
    write(&mut frame);
    let length = u32::try_from(frame.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    if let Some(place) = frame.get_mut(1..PREFIX_BYTES) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    frame.into()
}

/// Returns the response to a call: a message with its prefix and status OK, or an error status.
pub(super) fn answer(result: Result<Bytes, Status>) -> Response<AnswerBody> {
    match result {
        Ok(frame) => {
            let mut response = Response::new(AnswerBody::Message(frame));
            *response.headers_mut() = one_header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http().map(AnswerBody::Tonic),
    }
}

/// Returns a map with one header. It takes less memory than a map that is created empty, which has space for eight.
fn one_header(name: HeaderName, value: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(name, value);
    headers
}

/// Response body. The first three variants are the states of a successful check.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// This part of the message, and the status, remain to be sent.
    Message(Bytes),
    /// The status remains to be sent.
    Trailers,
    /// Everything has been sent.
    Done,
    /// Body created by tonic.
    Tonic(Body),
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match &mut *self {
            Self::Tonic(body) => return Pin::new(body).poll_frame(cx),
            Self::Message(rest) => {
                let piece = rest.split_to(rest.len().min(MAX_FRAME_BYTES));
                if rest.is_empty() {
                    *self = Self::Trailers;
                }
                Frame::data(piece)
            }
            Self::Trailers => {
                *self = Self::Done;
                Frame::trailers(one_header(GRPC_STATUS, HeaderValue::from_static("0")))
            }
            Self::Done => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Tonic(body) => body.is_end_stream(),
            Self::Done => true,
            Self::Message(_) | Self::Trailers => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Tonic(body) => body.size_hint(),
            // An exact size would add a `content-length`, which gRPC does not use.
            Self::Message(_) | Self::Trailers => SizeHint::default(),
            Self::Done => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Arc;

    use super::super::message_memory::ProcessMemory;
    use super::*;
    use crate::metrics::OwnNumber;

    /// A body that arrives in these pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    async fn read_pieces(pieces: &[&[u8]]) -> Result<Bytes, i32> {
        let pieces = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
        let memory = ConnectionMemory::new(Arc::new(ProcessMemory::new(8)), OwnNumber::default());
        let message = read(pieces, 8, &memory).await.map_err(|status| status.code() as i32)?;
        Ok(message.bytes)
    }

    #[tokio::test]
    async fn one_message_arrives_in_any_number_of_pieces() {
        let message = frame(0, |out| out.extend_from_slice(b"abcdefgh"));
        assert_eq!(read_pieces(&[&message]).await.unwrap(), "abcdefgh");
        for cut in 0..=message.len() {
            let (start, end) = message.split_at(cut);
            assert_eq!(read_pieces(&[start, &[], end]).await.unwrap(), "abcdefgh", "{cut}");
        }
        let bytes: Vec<&[u8]> = message.chunks(1).collect();
        assert_eq!(read_pieces(&bytes).await.unwrap(), "abcdefgh");
        assert_eq!(read_pieces(&[&[0; 5]]).await.unwrap(), "", "an empty message is valid");
    }

    #[tokio::test]
    async fn anything_but_one_whole_message_is_rejected() {
        let (unimplemented, exhausted, internal) = (12, 8, 13);
        for (pieces, code) in [
            (&[][..], internal),
            (&[&[0, 0, 0, 0][..]], internal),
            (&[&[0, 0, 0, 0, 2, 1]], internal),
            (&[&[0, 0, 0, 0, 1, 1, 1]], internal),
            (&[&[0, 0, 0, 0, 0], &[0, 0, 0, 0, 0]], internal),
            (&[&[0, 0, 0, 0, 9]], exhausted),
            (&[&[0, 0xff, 0xff, 0xff, 0xff, 1]], exhausted),
            (&[&[1, 0, 0, 0, 1, 1]], unimplemented),
        ] {
            assert_eq!(read_pieces(pieces).await, Err(code), "{pieces:?}");
        }
        let mut gzip = HeaderMap::new();
        gzip.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        assert_eq!(check_encoding(&gzip).unwrap_err().code() as i32, unimplemented);
        assert!(check_encoding(&HeaderMap::new()).is_ok());
    }
}
