//! One call of `envoy.service.auth.v3.Authorization/Check`: convert, decide, count, log, answer.
//!
//! Messages pass this room as bytes: [`request`](super::request) reads them where they lie and
//! [`response`](super::response) writes them, so that a cached check neither decodes nor builds a message.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Request, Response};
use http_body::Body as HttpBody;
use prost::bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::in_flight::ConnectionRoom;
use super::request;
use super::response::{self, Answers};
use super::unary::{self, AnswerBody};
use crate::authz::{Authorizer, Decision, Denial, RequestContext, Verdict};
use crate::metrics::{CheckLabels, CheckOutcome, Metrics};

/// Full name of the service.
pub const SERVICE_NAME: &str = "envoy.service.auth.v3.Authorization";
/// Path of its one method.
pub const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Most time for a call, its body included; a shorter `grpc-timeout` counts instead.
pub const MAX_CALL: Duration = Duration::from_secs(5);

/// The service.
#[derive(Clone, Debug)]
pub struct CheckService {
    shared: Arc<Shared>,
    max_message_bytes: usize,
}

#[derive(Debug)]
struct Shared {
    authorizer: Arc<Authorizer>,
    answers: Answers,
    metrics: Arc<Metrics>,
}

impl CheckService {
    /// A service that reads messages of at most `max_message_bytes`.
    pub fn new(authorizer: Arc<Authorizer>, answers: Answers, metrics: Arc<Metrics>, max_message_bytes: usize) -> Self {
        Self { shared: Arc::new(Shared { authorizer, answers, metrics }), max_message_bytes }
    }
}

impl CheckService {
    /// Size of the largest message that is read.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Serves one call over a connection with this room for messages.
    ///
    /// # Errors
    /// None: what goes wrong is an answer, too.
    pub fn call<B>(
        &self,
        http: Request<B>,
        room: Arc<ConnectionRoom>,
    ) -> impl Future<Output = Result<Response<AnswerBody>, Infallible>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes> + Unpin + Send,
        B::Error: std::fmt::Display + Send,
    {
        let (shared, max_message_bytes) = (Arc::clone(&self.shared), self.max_message_bytes);
        let deadline = deadline(http.headers());
        let encoding = unary::check_encoding(http.headers());
        // The head is not kept: it can be larger than the message.
        let body = http.into_body();
        async move {
            // Reading the body is inside: a slow one must not hold a stream for longer.
            let call = async {
                encoding?;
                let message = unary::read(body, max_message_bytes, &room).await?;
                shared.check(&message, deadline).await
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

impl Shared {
    /// A decision, framed, for every message that can be decoded.
    async fn check(&self, message: &[u8], deadline: Instant) -> Result<Bytes, Status> {
        let start = Instant::now();
        let _in_flight = InFlight::new(&self.metrics);
        let context = request::read(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let verdict = self.authorizer.authorize(context.as_ref(), now, deadline).await;

        let policy = verdict.policy();
        let (answer, denial) = match (&verdict.decision, policy) {
            (Decision::Allow { token, identity }, Some(policy)) => {
                let headers = context.as_ref().map_or(&[][..], |context| &context.headers);
                let claims = token.as_ref().map(|token| &token.claims);
                (response::allow(&verdict.rules.headers, identity, claims, policy, headers), None)
            }
            (decision, policy) => {
                let denial = match decision {
                    Decision::Deny(denial) => *denial,
                    // Nobody passes without a policy.
                    Decision::Allow { .. } => Denial::UnknownPolicy,
                };
                let given = context.as_ref().and_then(|context| context.policy);
                let name =
                    policy.map_or_else(|| verdict.rules.policies.name_without_choice(given), |policy| &policy.name);
                (self.answers.deny(denial, name, policy, verdict.requirement.as_deref()), Some(denial))
            }
        };
        let (outcome, reason) = match denial {
            None => (CheckOutcome::Allow, ""),
            Some(denial) if denial.is_ours() => (CheckOutcome::Error, denial.reason()),
            Some(denial) => (CheckOutcome::Deny, denial.reason()),
        };
        let took = start.elapsed();
        verdict.rules.counters.count(CheckLabels { outcome, reason, pool: verdict.pool, policy: verdict.policy });
        self.metrics.took(outcome, took.as_secs_f64());
        log(outcome, reason, &verdict, context.as_ref(), took);
        Ok(answer)
    }
}

/// One event per check. Nothing of the request stands in it but a well-formed request id and, where the key was the
/// trouble, the `kid`, which the formatter escapes.
fn log(
    outcome: CheckOutcome,
    reason: &'static str,
    verdict: &Verdict,
    context: Option<&RequestContext<'_>>,
    took: Duration,
) {
    macro_rules! event {
        ($level:ident) => {{
            let pool = verdict.pool.and_then(|pool| verdict.rules.pools.get(pool)).map(|pool| &*pool.name);
            let policy = verdict.policy().map(|policy| &*policy.name);
            let requirement = verdict.requirement.as_deref();
            let request_id = context.and_then(request_id);
            let decision = outcome.as_str();
            let reason = Some(reason).filter(|reason| !reason.is_empty());
            let kid = verdict.kid.as_deref();
            let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            tracing::$level!(decision, reason, requirement, pool, policy, kid, request_id, duration_us, "check");
        }};
    }
    match outcome {
        CheckOutcome::Allow => {
            if tracing::enabled!(tracing::Level::DEBUG) {
                event!(debug);
            }
        }
        CheckOutcome::Deny => event!(info),
        CheckOutcome::Error => event!(warn),
    }
}

/// `x-request-id`, if it is one and nothing else: it is the client's text.
fn request_id<'r>(context: &RequestContext<'r>) -> Option<&'r str> {
    let id = std::str::from_utf8(context.header_values("x-request-id").next()?).ok()?;
    let is_plain = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_plain.then_some(id)
}

/// Counts a check that is running, also when it is dropped half-way.
struct InFlight<'m>(&'m Metrics);

impl<'m> InFlight<'m> {
    fn new(metrics: &'m Metrics) -> Self {
        metrics.checks_in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.checks_in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Header;

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

    #[test]
    fn a_request_id_is_shown_only_if_it_is_one() {
        for (value, shown) in [
            ("4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11", true),
            ("a", true),
            (&*"a".repeat(64), true),
            (&*"a".repeat(65), false),
            ("", false),
            ("a b", false),
            ("a\n", false),
            ("eyJhbGciOi.x", false),
            ("é", false),
        ] {
            let context = RequestContext {
                headers: vec![Header { name: b"X-Request-Id", value: value.as_bytes() }],
                ..Default::default()
            };
            assert_eq!(request_id(&context).is_some(), shown, "{value}");
        }
    }
}
