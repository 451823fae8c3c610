//! The gRPC method `envoy.service.auth.v3.Authorization/Check`: reads the message, runs the check, encodes the answer.
//!
//! Messages stay bytes: [`request`](super::request) borrows from them and [`response`](super::response) writes them
//! directly. A cached check therefore neither decodes nor builds a message.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as HttpBody;
use prost::bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::message_memory::Stream;
use super::request;
use super::response;
use super::unary::{self, AnswerBody};
use crate::authz::Recent;
use crate::check::{Checks, TIME_LIMIT};
use crate::telemetry::Door;

/// Full name of the service.
pub(super) const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";
/// Path of its only method.
pub(super) const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Span of a check, as the semantic conventions for gRPC want it.
const DOOR: Door = Door {
    name: "envoy.service.auth.v3.Authorization/Check",
    attributes: &[("rpc.system", "grpc"), ("rpc.service", SERVICE_NAME), ("rpc.method", "Check")],
};

/// The authorization service.
#[derive(Clone, Debug)]
pub(crate) struct CheckService {
    checks: Arc<Checks>,
    max_message_bytes: usize,
    /// Memory of the worker that this clone of the service belongs to.
    recent: Option<Arc<Recent>>,
}

impl CheckService {
    /// Creates a service that accepts messages of at most `max_message_bytes`.
    pub(crate) fn new(checks: Arc<Checks>, max_message_bytes: usize) -> Self {
        Self { checks, max_message_bytes, recent: None }
    }

    /// The service for one worker, with a memory of at most `recent_bytes`.
    pub(super) fn for_worker(&self, recent_bytes: u64) -> Self {
        // A copy of its own, so that workers do not count references to the same one.
        let checks = Arc::new(Checks::clone(&self.checks));
        Self { checks, max_message_bytes: self.max_message_bytes, recent: Some(Arc::new(Recent::new(recent_bytes))) }
    }

    /// Maximum size of a message.
    pub(super) fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Serves one call. `memory` is the budget of its connection. A failed call is a response with a gRPC status.
    pub(super) fn call<B>(
        &self,
        http: Request<B>,
        memory: Stream,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: std::fmt::Display + Send,
    {
        let Self { checks, max_message_bytes, recent } = self.clone();
        let deadline = deadline(http.headers());
        let encoding = unary::check_encoding(http.headers());
        let mut span = checks.begin(&DOOR, Some(http.headers()));
        // The request head is dropped here, because it can be larger than the message.
        let body = http.into_body();
        async move {
            let result = {
                // The deadline includes reading the body, so that a slow one does not keep the stream open.
                let call = async {
                    encoding?;
                    let message = unary::read(body, max_message_bytes, &memory).await?;
                    let context =
                        request::read(&message).map_err(|error| Status::invalid_argument(error.to_string()))?;
                    let recent = recent.as_deref();
                    Ok(checks.check(context.as_ref(), recent, deadline, &mut span, response::write).await)
                };
                let mut call = std::pin::pin!(call);
                // Almost every call ends at once. A timer is made only for one that does not.
                match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
                    Poll::Ready(result) => Ok(result),
                    Poll::Pending => timeout_at(deadline, call).await,
                }
            };
            let result = result.unwrap_or_else(|_| Err(Status::deadline_exceeded("the call took too long")));
            if let Some(span) = span.span() {
                let code = result.as_ref().err().map_or(Code::Ok, Status::code);
                span.set("rpc.grpc.status_code", i64::from(i32::from(code)));
                if code != Code::Ok {
                    span.fail(i32::from(code).to_string());
                }
            }
            Ok(unary::answer(result))
        }
    }
}

/// Returns the deadline of a call that starts now: [`TIME_LIMIT`], or the time in `grpc-timeout` if that is shorter.
pub(super) fn deadline(headers: &http::HeaderMap) -> Instant {
    let requested = headers.get("grpc-timeout").and_then(|value| grpc_timeout(value.to_str().ok()?));
    Instant::now() + requested.map_or(TIME_LIMIT, |requested| requested.min(TIME_LIMIT))
}

/// Parses `TimeoutValue TimeoutUnit`, with at most eight digits (gRPC over HTTP/2, "Requests"). Returns `None` if the
/// value is malformed; the header is then ignored.
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
    fn timeouts_follow_the_grpc_wire_format() {
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
