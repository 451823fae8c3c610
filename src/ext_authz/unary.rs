//! gRPC's wire format for a call of one message each way (gRPC over HTTP2, "Requests" and "Responses").
//!
//! tonic does the same for any kind of call, and pays for it with buffers of 8 KiB in both directions and a future
//! of several; a check has 2 KiB and is made for every request that passes Envoy. Only the check is served by this.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use prost::bytes::{Buf, Bytes, BytesMut};
use tonic::Status;
use tonic::body::Body;

/// A frame's head: one byte of flags, four of length.
const PREFIX_BYTES: usize = 5;

/// Reads the one message of a call.
///
/// # Errors
/// The gRPC status to answer with.
pub async fn read<B>(headers: &HeaderMap, mut body: B, max_bytes: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    if headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("compressed messages are not supported"));
    }
    // Nearly always all of it is the first frame, and nothing is copied.
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| Status::cancelled(error.to_string()))?.into_data() else { continue };
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        // Checked as it comes: a message that is too long is not collected first.
        let read = if rest.is_empty() { &first[..] } else { &rest[..] };
        if let Some(length) = announced_length(read)? {
            if length > max_bytes {
                return Err(Status::resource_exhausted("the message is too large"));
            }
            if read.len() > PREFIX_BYTES + length {
                return Err(Status::internal("more than one message"));
            }
        }
    }
    let mut message = if rest.is_empty() { first } else { rest.freeze() };
    match announced_length(&message)? {
        Some(length) if message.len() == PREFIX_BYTES + length => {
            message.advance(PREFIX_BYTES);
            Ok(message)
        }
        _ => Err(Status::internal("the message is missing or cut off")),
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

    use super::*;

    /// A body that comes in these pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece.into()))))
        }
    }

    async fn read_pieces(pieces: &[&[u8]]) -> Result<Bytes, i32> {
        let pieces = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
        read(&HeaderMap::new(), pieces, 8).await.map_err(|status| status.code() as i32)
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
        assert_eq!(read(&gzip, Pieces(VecDeque::new()), 8).await.unwrap_err().code() as i32, unimplemented);
    }
}
