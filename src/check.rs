//! Runs one check for any protocol: decides, counts and logs.
//!
//! A protocol module such as `ext_authz/grpc.rs` decodes a [`RequestContext`], calls [`Checks::check`], and encodes the
//! [`Answer`]. It contains no rule, text, metric or log line.

pub(crate) mod refusals;
pub(crate) mod series;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use self::refusals::{Refusal, Refusals};
use crate::authz::denial::Realm;
use crate::authz::{Answer, Authorizer, Decision, Denial, Fault, Recent, RequestContext, Ruleset, Trace};
use crate::clock::unix_now;
use crate::metrics::{CheckLabels, CheckOutcome, Metrics};
use crate::request_id::{self, RequestId};
use crate::telemetry::{CheckSpan, Door, Parent, Span, SpanIds, Tracer};

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
        let refused = matches!(verdict.decision, Decision::Deny(_));
        let sent = request.filter(|_| refused).and_then(request_id);
        let made = (refused && sent.is_none()).then(RequestId::random);
        let id = sent.or(made.as_ref().map(RequestId::as_str));
        let written = write(&Answer::new(&verdict, &rules, request, &self.realm).with_request_id(id));
        let (outcome, reason, shadow) = match &verdict.decision {
            Decision::Allow(allowed) => (CheckOutcome::Allow, "", allowed.shadow),
            Decision::Deny(denial) => (outcome(*denial), denial.reason(), None),
        };
        let refused = match &verdict.decision {
            Decision::Allow(allowed) => allowed.shadow.map(|denial| (denial, true)),
            Decision::Deny(denial) => Some((*denial, false)),
        };
        let took = start.elapsed();
        let trace = &verdict.trace;
        rules.counters.count(CheckLabels { outcome, reason, pool: trace.pool, policy: trace.policy });
        if let Some(denial) = shadow {
            rules.counters.count_shadow_denial(denial.reason(), trace.pool, trace.policy);
        }
        let span = span.span();
        let ids = span.as_ref().map(|span| span.ids());
        self.metrics.took(outcome, took, ids.map(|ids| ids.trace.to_be_bytes()));
        if let Some(refused) = refused {
            self.refusals.record(Refusal::new(refused, trace, &rules, id.or_else(|| request.and_then(request_id))));
        }
        log((outcome, reason, shadow), trace, &rules, (request, id), took, ids);
        if let Some(span) = span {
            describe(span, (outcome, reason, shadow), trace, &rules, (request, id));
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

/// Logs one event per check. Of the request it contains only a well-formed request id and, if the key or the signature
/// failed, the `kid`, which the formatter escapes. `id` is the id of a refusal.
fn log(
    (outcome, reason, shadow): (CheckOutcome, &'static str, Option<Denial>),
    trace: &Trace,
    rules: &Ruleset,
    (request, id): (Option<&RequestContext<'_>>, Option<&str>),
    took: Duration,
    span: Option<SpanIds>,
) {
    macro_rules! event {
        ($level:ident) => {
            // Evaluates the fields only if the line is written.
            tracing::$level!(
                decision = outcome.as_str(),
                reason = Some(reason).filter(|reason| !reason.is_empty()),
                shadow_reason = shadow.map(Denial::reason),
                requirement = trace.requirement.as_deref(),
                pool = trace.pool.and_then(|pool| rules.pools.get(pool)).map(|pool| &*pool.name),
                policy = trace.policy.and_then(|policy| rules.policies.get(policy)).map(|policy| &*policy.name),
                kid = trace.kid.as_deref(),
                request_id = id.or_else(|| request.and_then(request_id)),
                trace_id = span.map(|span| tracing::field::display(span.trace_id())),
                span_id = span.map(|span| tracing::field::display(span.span_id())),
                duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                "check"
            )
        };
    }
    // A denial that is only reported (shadow mode) is logged at the level that it would have.
    match shadow.map_or(outcome, self::outcome) {
        CheckOutcome::Allow => event!(debug),
        CheckOutcome::Deny => event!(info),
        CheckOutcome::Error => event!(warn),
    }
}

/// Describes a check in its span, with what its log line has except the `kid`. A check that waited for keys has a span
/// below it, which points to that of the fetch.
fn describe(
    span: &mut Span,
    (outcome, reason, shadow): (CheckOutcome, &'static str, Option<Denial>),
    trace: &Trace,
    rules: &Ruleset,
    (request, id): (Option<&RequestContext<'_>>, Option<&str>),
) {
    let pool = trace.pool.and_then(|pool| rules.pools.get(pool)).map(|pool| pool.name.to_string());
    let policy = trace.policy.and_then(|policy| rules.policies.get(policy)).map(|policy| policy.name.to_string());
    span.set("cognito_authz.decision", outcome.as_str());
    span.set_some("cognito_authz.reason", Some(reason).filter(|reason| !reason.is_empty()));
    span.set_some("cognito_authz.shadow_reason", shadow.map(Denial::reason));
    span.set_some("cognito_authz.requirement", trace.requirement.as_deref().map(str::to_owned));
    span.set_some("cognito_authz.pool", pool.clone());
    span.set_some("cognito_authz.policy", policy);
    let request_id = id.or_else(|| request.and_then(request_id));
    span.set_some("cognito_authz.request_id", request_id.map(str::to_owned));
    if outcome == CheckOutcome::Error {
        span.fail(reason);
    }
    if let (Some(wait), Some(index)) = (trace.key_wait, trace.pool) {
        let mut child = span.past_child("wait for keys", wait.times());
        child.set_some("cognito_authz.pool", pool);
        child.link(rules.keys.last_fetch(index));
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
