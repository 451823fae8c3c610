//! gRPC's wire format for a call of one message each way (gRPC over HTTP2, "Requests" and "Responses").
//!
//! tonic does the same for any kind of call, and pays for it with buffers of 8 KiB in both directions and a future
//! of several; a check has 2 KiB and is made for every request that passes Envoy. Only the check is served by this.

use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use prost::bytes::{Buf, Bytes, BytesMut};
use tonic::Status;
use tonic::body::Body;

use super::in_flight::{ConnectionRoom, Held};

/// A frame's head: one byte of flags, four of length.
const PREFIX_BYTES: usize = 5;

/// A message that has been read.
#[derive(Debug)]
pub struct Message {
    bytes: Bytes,
    /// Its room, if it came in pieces.
    _held: Option<Held>,
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Judges the encoding of a call's messages.
///
/// # Errors
/// `UNIMPLEMENTED`, unless it is `identity`.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    if headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("compressed messages are not supported"));
    }
    Ok(())
}

/// Reads the one message of a call.
///
/// # Errors
/// The gRPC status to answer with.
pub async fn read<B>(mut body: B, max_bytes: usize, room: &ConnectionRoom) -> Result<Message, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    // Nearly always all of it is the first frame, and nothing is copied or counted.
    let mut first = next(&mut body).await?.unwrap_or_default();
    if body.is_end_stream() && message_bytes(&first, max_bytes)?.is_some_and(|bytes| bytes == first.len()) {
        first.advance(PREFIX_BYTES);
        return Ok(Message { bytes: first, _held: None });
    }
    // Copied, because a frame keeps all of the buffer that it was received in.
    let mut read = BytesMut::from(&*first);
    drop(first);
    let mut held = None;
    loop {
        if let Some(bytes) = message_bytes(&read, max_bytes)? {
            if held.is_none() {
                held = Some(room.take(bytes).await?);
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
            Ok(Message { bytes: read.freeze(), _held: held })
        }
        _ => Err(Status::internal("the message is missing or cut off")),
    }
}

/// The next data of a body.
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

/// Bytes of a whole frame, once its head is there. Refused as soon as it is known: a message that is too long is not
/// collected first.
fn message_bytes(frame: &[u8], max_bytes: usize) -> Result<Option<usize>, Status> {
    match announced_length(frame)? {
        Some(length) if length > max_bytes => Err(Status::resource_exhausted("the message is too large")),
        length => Ok(length.map(|length| length.saturating_add(PREFIX_BYTES))),
    }
}

/// The length that a frame's head announces, once the head is there.
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

/// Writes a message in its frame.
pub fn frame(capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX_BYTES + capacity);
    frame.extend_from_slice(&[0; PREFIX_BYTES]);
    write(&mut frame);
    let length = u32::try_from(frame.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
    if let Some(place) = frame.get_mut(1..PREFIX_BYTES) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    frame.into()
}

/// The answer of a call: a framed message and status OK, or another status.
pub fn answer(result: Result<Bytes, Status>) -> Response<AnswerBody> {
    match result {
        Ok(frame) => {
            let mut response = Response::new(AnswerBody::Message(frame));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http().map(AnswerBody::Tonic),
    }
}

/// A response body.
#[derive(Debug)]
pub enum AnswerBody {
    /// A framed message is still to be sent, then the status.
    Message(Bytes),
    /// The status is still to be sent.
    Trailers,
    /// All has been sent.
    Done,
    /// A body that tonic has made.
    Tonic(Body),
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, next) = match &mut *self {
            Self::Tonic(body) => return Pin::new(body).poll_frame(cx),
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Trailers),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                (Frame::trailers(trailers), Self::Done)
            }
            Self::Done => return Poll::Ready(None),
        };
        *self = next;
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
            Self::Message(message) => SizeHint::with_exact(message.len() as u64),
            Self::Trailers | Self::Done => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Arc;

    use super::super::in_flight::ProcessRoom;
    use super::*;

    /// A body that comes in these pieces.
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
        let room = ConnectionRoom::new(Arc::new(ProcessRoom::new(8)));
        let message = read(pieces, 8, &room).await.map_err(|status| status.code() as i32)?;
        Ok(message.bytes)
    }

    #[tokio::test]
    async fn one_message_in_any_number_of_pieces() {
        let message = frame(0, |out| out.extend_from_slice(b"abcdefgh"));
        assert_eq!(read_pieces(&[&message]).await.unwrap(), "abcdefgh");
        for cut in 0..=message.len() {
            let (start, end) = message.split_at(cut);
            assert_eq!(read_pieces(&[start, &[], end]).await.unwrap(), "abcdefgh", "{cut}");
        }
        let bytes: Vec<&[u8]> = message.chunks(1).collect();
        assert_eq!(read_pieces(&bytes).await.unwrap(), "abcdefgh");
        assert_eq!(read_pieces(&[&[0; 5]]).await.unwrap(), "", "an empty message is one");
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
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
