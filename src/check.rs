//! Runs one check for any protocol: decides, counts and logs.
//!
//! A protocol module such as `ext_authz/grpc.rs` decodes a [`RequestContext`], calls [`Checks::check`], and encodes the
//! [`Answer`]. It contains no rule, text, metric or log line.

pub(crate) mod refusals;
mod report;
pub(crate) mod series;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use self::refusals::Refusals;
use self::report::Report;
use crate::authz::denial::Realm;
use crate::authz::{Answer, Authorizer, Decision, Denial, Fault, Recent, RequestContext};
use crate::clock::unix_now;
use crate::metrics::{CheckOutcome, Metrics};
use crate::request_id::{self, RequestId};
use crate::telemetry::{CheckSpan, Door, Parent, Tracer};

/// Maximum time for one check, including reading the request.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Runs checks: decides, counts and logs.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    authorizer: Arc<Authorizer>,
    metrics: Arc<Metrics>,
    realm: Realm,
    /// `None` if traces are off.
    tracer: Option<Arc<Tracer>>,
    refusals: Arc<Refusals>,
}

impl Checks {
    /// Creates a runner. `authorizer` decides; `realm` is the realm of challenges; `tracer` traces checks, if it is set.
    pub(crate) fn new(
        authorizer: Arc<Authorizer>,
        metrics: Arc<Metrics>,
        realm: Realm,
        tracer: Option<Arc<Tracer>>,
    ) -> Self {
        Self { authorizer, metrics, realm, tracer, refusals: Arc::default() }
    }

    /// Begins the span of a check that came through `door`, if traces are on. `metadata` is that of a gRPC call.
    pub(crate) fn begin(&self, door: &'static Door, metadata: Option<&HeaderMap>) -> CheckSpan {
        self.tracer.as_ref().map_or(CheckSpan::No, |tracer| tracer.begin_check(door, metadata))
    }

    /// The last refusals.
    pub(crate) fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Decides about one request before `deadline`, counts and logs the verdict, and returns the answer as encoded by
    /// `write`. A `request` of `None` stands for a check without an HTTP request. `recent` is the memory of the worker that
    /// asks, if it has one; all workers with a memory must have the same `write`. `span` is that of [`Self::begin`].
    pub(crate) async fn check<T>(
        &self,
        request: Option<&RequestContext<'_>>,
        recent: Option<&Recent>,
        deadline: Instant,
        span: &mut CheckSpan,
        write: impl FnOnce(&Answer<'_>) -> T,
    ) -> T {
        let start = Instant::now();
        if let Some(tracer) = &self.tracer {
            tracer.decide(span, || request.and_then(trace_context));
        }
        let _in_flight = InFlight::new(&self.metrics);
        let rules = self.authorizer.rules_now();
        let verdict = self.authorizer.authorize(&rules, request, recent, unix_now(), deadline).await;
        // Users quote the id of a refusal, so each has one. A pass needs none, unless it is logged.
        let is_refused = matches!(verdict.decision, Decision::Deny(_));
        let sent = request.filter(|_| is_refused).and_then(request_id);
        let made = (is_refused && sent.is_none()).then(RequestId::random);
        let id = sent.or(made.as_ref().map(RequestId::as_str));
        let written = write(&Answer::new(&verdict, &rules, request, &self.realm).with_request_id(id));
        let report = Report::new(&verdict, &rules, request, id, start.elapsed());
        let span = span.span();
        let ids = span.as_ref().map(|span| span.ids());
        report.count(&self.metrics, ids);
        report.keep(&self.refusals);
        report.log(ids);
        if let Some(span) = span {
            report.describe(span);
        }
        written
    }
}

/// Outcome that a denied check is counted as.
fn outcome(denial: Denial) -> CheckOutcome {
    match denial.fault() {
        Fault::Caller => CheckOutcome::Deny,
        Fault::Service => CheckOutcome::Error,
    }
}

/// Returns the context in the headers of a request, which a client can send as well.
fn trace_context(request: &RequestContext<'_>) -> Option<Parent> {
    Parent::read(request.header_values("traceparent"), request.header_values("tracestate"))
}

/// Returns the id that the proxy sent, if it is well-formed.
fn request_id<'r>(request: &RequestContext<'r>) -> Option<&'r str> {
    request_id::sent(request.header_values(request_id::NAME.as_str()))
}

/// Guard that counts a running check in the gauge, until it ends or is dropped.
struct InFlight<'m>(&'m Metrics);

impl<'m> InFlight<'m> {
    fn new(metrics: &'m Metrics) -> Self {
        metrics.checks_in_flight().inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.checks_in_flight().dec();
    }
}
