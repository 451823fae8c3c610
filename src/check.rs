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

/// Maximum time for one check, including reading the request.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Runs checks: decides, counts and logs.
#[derive(Debug)]
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
        let rules = self.authorizer.rules();
        let verdict = self.authorizer.authorize(&rules, request, recent, unix_now(), deadline).await;
        let written = write(&Answer::new(&verdict, &rules, request, &self.realm));
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
        self.metrics.took(outcome, took.as_secs_f64());
        log((outcome, reason, shadow), trace, &rules, request, took);
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
/// failed, the `kid`, which the formatter escapes.
fn log(
    (outcome, reason, shadow): (CheckOutcome, &'static str, Option<Denial>),
    trace: &Trace,
    rules: &Ruleset,
    request: Option<&RequestContext<'_>>,
    took: Duration,
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
                request_id = request.and_then(request_id),
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

/// Returns `x-request-id` if it is well-formed: 1 to 64 letters, digits and hyphens. A client can send any value.
fn request_id<'r>(request: &RequestContext<'r>) -> Option<&'r str> {
    let id = std::str::from_utf8(request.header_values("x-request-id").next()?).ok()?;
    let is_plain = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_plain.then_some(id)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Header;

    #[test]
    fn only_a_well_formed_request_id_is_logged() {
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
