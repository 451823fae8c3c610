//! What operators learn of a finished check: counters, the log line, the span, and the list of the last refusals.

use std::time::Duration;

use super::refusals::{Refusal, Refusals};
use super::{outcome, request_id};
use crate::authz::{Decision, Denial, RequestContext, Ruleset, Trace, Verdict};
use crate::metrics::{CheckLabels, CheckOutcome, Metrics};
use crate::telemetry::{Span, SpanIds};

/// Target of the log line. It is not this module, because filters of operators name it.
const LOG_TARGET: &str = "cognito_authz::check";

/// A finished check.
pub(super) struct Report<'c, 'r> {
    outcome: CheckOutcome,
    /// Denial of the request.
    denial: Option<Denial>,
    /// Denial that the policy, in shadow mode, only reports. The request passed.
    shadow: Option<Denial>,
    trace: &'c Trace,
    rules: &'c Ruleset,
    request: Option<&'c RequestContext<'r>>,
    /// Id of a refusal.
    id: Option<&'c str>,
    took: Duration,
}

impl<'c, 'r> Report<'c, 'r> {
    /// Creates the report. `id` is that of a refusal, and `took` the time that the check took.
    pub(super) fn new(
        verdict: &'c Verdict<'_>,
        rules: &'c Ruleset,
        request: Option<&'c RequestContext<'r>>,
        id: Option<&'c str>,
        took: Duration,
    ) -> Self {
        let (denial, shadow) = match &verdict.decision {
            Decision::Allow(allowed) => (None, allowed.shadow),
            Decision::Deny(denial) => (Some(*denial), None),
        };
        let outcome = denial.map_or(CheckOutcome::Allow, outcome);
        Self { outcome, denial, shadow, trace: &verdict.trace, rules, request, id, took }
    }

    /// Reason of the denial; `None` if the check was allowed.
    fn reason(&self) -> Option<&'static str> {
        self.denial.map(Denial::reason)
    }

    fn pool(&self) -> Option<&'c str> {
        self.trace.pool.and_then(|pool| self.rules.pools.get(pool)).map(|pool| &*pool.name)
    }

    fn policy(&self) -> Option<&'c str> {
        self.trace.policy.and_then(|policy| self.rules.policies.get(policy)).map(|policy| &*policy.name)
    }

    fn request_id(&self) -> Option<&str> {
        self.id.or_else(|| self.request.and_then(request_id))
    }

    /// Counts the check. `span` is its span, if it has one.
    pub(super) fn count(&self, metrics: &Metrics, span: Option<SpanIds>) {
        let Self { outcome, trace, .. } = *self;
        let reason = self.reason().unwrap_or_default();
        let counters = &self.rules.counters;
        counters.count(CheckLabels { outcome, reason, pool: trace.pool, policy: trace.policy });
        if let Some(denial) = self.shadow {
            counters.count_shadow_denial(denial.reason(), trace.pool, trace.policy);
        }
        metrics.took(outcome, self.took, span.map(|span| span.trace.to_be_bytes()));
    }

    /// Adds a refusal to the last ones.
    pub(super) fn keep(&self, refusals: &Refusals) {
        if let Some(denial) = self.denial.or(self.shadow) {
            let is_shadow = self.denial.is_none();
            refusals.record(Refusal::new((denial, is_shadow), self.trace, self.rules, self.request_id()));
        }
    }

    /// Logs the check as one event. Of the request it contains only a well-formed request id and, if the key or the
    /// signature failed, the `kid`, which the formatter escapes.
    pub(super) fn log(&self, span: Option<SpanIds>) {
        macro_rules! event {
            ($level:ident) => {
                // Evaluates the fields only if the line is written.
                tracing::$level!(
                    target: LOG_TARGET,
                    decision = self.outcome.as_str(),
                    reason = self.reason(),
                    shadow_reason = self.shadow.map(Denial::reason),
                    requirement = self.trace.requirement.as_deref(),
                    pool = self.pool(),
                    policy = self.policy(),
                    kid = self.trace.kid.as_deref(),
                    request_id = self.request_id(),
                    trace_id = span.map(|span| tracing::field::display(span.trace_id())),
                    span_id = span.map(|span| tracing::field::display(span.span_id())),
                    duration_us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
                    "check"
                )
            };
        }
        // A denial that is only reported (shadow mode) is logged at the level that it would have.
        match self.shadow.map_or(self.outcome, outcome) {
            CheckOutcome::Allow => event!(debug),
            CheckOutcome::Deny => event!(info),
            CheckOutcome::Error => event!(warn),
        }
    }

    /// Describes the check in its span, with what its log line has except the `kid`. A check that waited for keys has a
    /// span below it, which points to that of the fetch.
    pub(super) fn describe(&self, span: &mut Span) {
        let trace = self.trace;
        span.set("cognito_authz.decision", self.outcome.as_str());
        span.set_some("cognito_authz.reason", self.reason());
        span.set_some("cognito_authz.shadow_reason", self.shadow.map(Denial::reason));
        span.set_some("cognito_authz.requirement", trace.requirement.as_deref().map(str::to_owned));
        span.set_some("cognito_authz.pool", self.pool().map(str::to_owned));
        span.set_some("cognito_authz.policy", self.policy().map(str::to_owned));
        span.set_some("cognito_authz.request_id", self.request_id().map(str::to_owned));
        if let Some(reason) = self.reason().filter(|_| self.outcome == CheckOutcome::Error) {
            span.fail(reason);
        }
        if let (Some(wait), Some(index)) = (trace.key_wait, trace.pool) {
            let mut child = span.past_child("wait for keys", wait.times());
            child.set_some("cognito_authz.pool", self.pool().map(str::to_owned));
            child.link(self.rules.keys.last_fetch(index));
        }
    }
}
