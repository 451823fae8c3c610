//! The gRPC form of a check: `envoy.service.auth.v3.Authorization/Check`. Reads the message, asks [`Checks`], writes the
//! answer.
//!
//! Messages are bytes here: [`request`](super::request) reads them where they lie and [`response`](super::response)
//! writes them, so that a cached check neither decodes nor builds a message.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use prost::bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::in_flight::ConnectionRoom;
use super::request;
use super::response;
use super::unary::{self, AnswerBody};
use crate::check::Checks;

/// Full name of the service.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";
/// Path of its one method.
pub const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Most time for a call, its body included; a shorter `grpc-timeout` counts instead.
pub const MAX_CALL: Duration = Duration::from_secs(5);

/// The service.
#[derive(Clone, Debug)]
pub struct CheckService {
    checks: Arc<Checks>,
    max_message_bytes: usize,
}

impl CheckService {
    /// Creates a service that reads messages of at most `max_message_bytes`.
    pub fn new(checks: Arc<Checks>, max_message_bytes: usize) -> Self {
        Self { checks, max_message_bytes }
    }

    /// Size of the largest message that is read, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Serves one call over a connection with this room for messages.
    ///
    /// # Errors
    /// None: a failed call is a response with a gRPC status.
    pub fn call<B>(
        &self,
        http: Request<B>,
        room: Arc<ConnectionRoom>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: std::fmt::Display + Send,
    {
        let (checks, max_message_bytes) = (Arc::clone(&self.checks), self.max_message_bytes);
        let deadline = deadline(http.headers());
        let encoding = unary::check_encoding(http.headers());
        // The head is not kept: it can be larger than the message.
        let body = http.into_body();
        async move {
            // The deadline covers the body: a slow one must not hold a stream for longer.
            let call = async {
                encoding?;
                let message = unary::read(body, max_message_bytes, &room).await?;
                let context = request::read(&message).map_err(|error| Status::invalid_argument(error.to_string()))?;
                Ok(checks.check(context.as_ref(), deadline, response::write).await)
            };
            let result = timeout_at(deadline, call).await;
            Ok(unary::answer(result.unwrap_or_else(|_| Err(Status::deadline_exceeded("the call took too long")))))
        }
    }
}

/// When a call has to be over: [`MAX_CALL`] from now, or what `grpc-timeout` asks for if that is less.
pub fn deadline(headers: &http::HeaderMap) -> Instant {
    let asked = headers.get("grpc-timeout").and_then(|value| grpc_timeout(value.to_str().ok()?));
    Instant::now() + asked.map_or(MAX_CALL, |asked| asked.min(MAX_CALL))
}

/// `TimeoutValue TimeoutUnit`, at most eight digits (gRPC over HTTP2, "Requests"). What is malformed counts as absent.
fn grpc_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_the_grpc_wire_format() {
        for (value, expected) in [
            ("250m", Some(Duration::from_millis(250))),
            ("1S", Some(Duration::from_secs(1))),
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("m", None),
            ("5", None),
            ("5s", None),
            ("-5m", None),
            ("+5m", None),
            ("123456789m", None),
            ("5 m", None),
            ("5µ", None),
        ] {
            assert_eq!(grpc_timeout(value), expected, "{value}");
        }
    }
}
