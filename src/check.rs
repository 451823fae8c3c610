//! Runs one check for any protocol: decides, counts and logs.
//!
//! A protocol module such as `ext_authz/grpc.rs` decodes a [`RequestContext`], calls [`Checks::check`], and encodes the
//! [`Answer`]. It contains no rule, text, metric or log line.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::authz::denial::Realm;
use crate::authz::{Answer, Authorizer, Decision, Denial, Fault, Recent, RequestContext, Ruleset, Trace};
use crate::clock::unix_now;
use crate::metrics::{CheckLabels, CheckOutcome, Metrics};
use crate::request_id::{self, RequestId};

/// Maximum time for one check, including reading the request.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Runs checks: decides, counts and logs.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    authorizer: Arc<Authorizer>,
    metrics: Arc<Metrics>,
    realm: Realm,
}

impl Checks {
    /// Creates a runner. `authorizer` decides; `realm` is the realm of challenges.
    pub(crate) fn new(authorizer: Arc<Authorizer>, metrics: Arc<Metrics>, realm: Realm) -> Self {
        Self { authorizer, metrics, realm }
    }

    /// Decides about one request before `deadline`, counts and logs the verdict, and returns the answer as encoded by
    /// `write`. A `request` of `None` stands for a check without an HTTP request. `recent` is the memory of the worker that
    /// asks, if it has one; all workers with a memory must have the same `write`.
    pub(crate) async fn check<T>(
        &self,
        request: Option<&RequestContext<'_>>,
        recent: Option<&Recent>,
        deadline: Instant,
        write: impl FnOnce(&Answer<'_>) -> T,
    ) -> T {
        let start = Instant::now();
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
        let took = start.elapsed();
        let trace = &verdict.trace;
        rules.counters.count(CheckLabels { outcome, reason, pool: trace.pool, policy: trace.policy });
        if let Some(denial) = shadow {
            rules.counters.count_shadow_denial(denial.reason(), trace.pool, trace.policy);
        }
        self.metrics.took(outcome, took);
        log((outcome, reason, shadow), trace, &rules, (request, id), took);
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

/// Metric labels of every denial: outcome, reason, and `true` if the denial precedes the policy.
pub(crate) fn denial_labels() -> Vec<(CheckOutcome, &'static str, bool)> {
    Denial::ALL.iter().map(|denial| (outcome(*denial), denial.reason(), denial.precedes_policy())).collect()
}

/// Reasons of the denials that a policy in shadow mode only reports.
pub(crate) fn shadow_reasons() -> Vec<&'static str> {
    let reported = Denial::ALL.iter().filter(|denial| !denial.precedes_policy());
    reported.map(|denial| denial.reason()).collect()
}

/// Logs one event per check. Of the request it contains only a well-formed request id and, if the key or the signature
/// failed, the `kid`, which the formatter escapes. `id` is the id of a refusal.
fn log(
    (outcome, reason, shadow): (CheckOutcome, &'static str, Option<Denial>),
    trace: &Trace,
    rules: &Ruleset,
    (request, id): (Option<&RequestContext<'_>>, Option<&str>),
    took: Duration,
) {
    macro_rules! event {
        ($level:ident) => {{
            let pool = trace.pool.and_then(|pool| rules.pools.get(pool)).map(|pool| &*pool.name);
            let policy = trace.policy.and_then(|policy| rules.policies.get(policy)).map(|policy| &*policy.name);
            let requirement = trace.requirement.as_deref();
            let request_id = id.or_else(|| request.and_then(request_id));
            let decision = outcome.as_str();
            let reason = Some(reason).filter(|reason| !reason.is_empty());
            let shadow_reason = shadow.map(Denial::reason);
            let kid = trace.kid.as_deref();
            let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            tracing::$level!(
                decision,
                reason,
                shadow_reason,
                requirement,
                pool,
                policy,
                kid,
                request_id,
                duration_us,
                "check"
            );
        }};
    }
    // A denial that is only reported (shadow mode) is logged at the level that it would have.
    match shadow.map_or(outcome, self::outcome) {
        CheckOutcome::Allow => {
            if tracing::enabled!(tracing::Level::DEBUG) {
                event!(debug);
            }
        }
        CheckOutcome::Deny => event!(info),
        CheckOutcome::Error => event!(warn),
    }
}

/// Returns the id that the proxy sent, if it is well-formed.
fn request_id<'r>(request: &RequestContext<'r>) -> Option<&'r str> {
    request_id::sent(request.header_values(request_id::NAME.as_str()))
}

/// Guard that counts a running check in the gauge, until it ends or is dropped.
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
