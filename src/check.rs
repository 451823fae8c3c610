//! One check, for every door: decides, counts and logs, and hands the answer to the protocol that asked.
//!
//! A door (gRPC, HTTP) reads a [`RequestContext`] from its protocol, calls [`Checks::check`], and writes the
//! [`Answer`] out. Nothing of a rule, a text, a metric or a log line belongs to a door.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::authz::denial::Realm;
use crate::authz::{Answer, Authorizer, Decision, Denial, Fault, RequestContext, Ruleset, Trace, UnixTime};
use crate::metrics::{CheckLabels, CheckOutcome, Metrics};

/// Answers checks.
#[derive(Debug)]
pub struct Checks {
    authorizer: Arc<Authorizer>,
    metrics: Arc<Metrics>,
    realm: Realm,
}

impl Checks {
    /// Checks decided by `authorizer`, with challenges that name `realm`.
    pub fn new(authorizer: Arc<Authorizer>, metrics: Arc<Metrics>, realm: Realm) -> Self {
        Self { authorizer, metrics, realm }
    }

    /// Decides about one request before `deadline`, counts and logs the verdict, and returns what `write` makes of the
    /// answer. `None` is a check that carries no HTTP request.
    pub async fn check<T>(
        &self,
        request: Option<&RequestContext<'_>>,
        deadline: Instant,
        write: impl FnOnce(&Answer<'_>) -> T,
    ) -> T {
        let start = Instant::now();
        let _in_flight = InFlight::new(&self.metrics);
        let rules = self.authorizer.rules();
        let verdict = self.authorizer.authorize(&rules, request, unix_now(), deadline).await;
        let written = write(&Answer::new(&verdict, &rules, request, &self.realm));
        let (outcome, reason) = match verdict.decision {
            Decision::Allow(_) => (CheckOutcome::Allow, ""),
            Decision::Deny(denial) => (outcome(denial), denial.reason()),
        };
        let took = start.elapsed();
        let trace = &verdict.trace;
        rules.counters.count(CheckLabels { outcome, reason, pool: trace.pool, policy: trace.policy });
        self.metrics.took(outcome, took.as_secs_f64());
        log(outcome, reason, trace, &rules, request, took);
        written
    }
}

/// The time, in whole seconds since 1970.
fn unix_now() -> UnixTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// Label under which a denied check is counted.
fn outcome(denial: Denial) -> CheckOutcome {
    match denial.fault() {
        Fault::Caller => CheckOutcome::Deny,
        Fault::Service => CheckOutcome::Error,
    }
}

/// Labels of every denial: outcome, reason, and whether the request has no policy yet.
pub fn denial_labels() -> Vec<(CheckOutcome, &'static str, bool)> {
    Denial::ALL.iter().map(|denial| (outcome(*denial), denial.reason(), denial.precedes_policy())).collect()
}

/// Logs one event per check. It repeats nothing of the request but a well-formed request id and, if the key or the
/// signature failed, the `kid`, which the formatter escapes.
fn log(
    outcome: CheckOutcome,
    reason: &'static str,
    trace: &Trace,
    rules: &Ruleset,
    request: Option<&RequestContext<'_>>,
    took: Duration,
) {
    macro_rules! event {
        ($level:ident) => {{
            let pool = trace.pool.and_then(|pool| rules.pools.get(pool)).map(|pool| &*pool.name);
            let policy = trace.policy.and_then(|policy| rules.policies.get(policy)).map(|policy| &*policy.name);
            let requirement = trace.requirement.as_deref();
            let request_id = request.and_then(request_id);
            let decision = outcome.as_str();
            let reason = Some(reason).filter(|reason| !reason.is_empty());
            let kid = trace.kid.as_deref();
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

/// `x-request-id`, if it has the form of one: the client may have written it.
fn request_id<'r>(request: &RequestContext<'r>) -> Option<&'r str> {
    let id = std::str::from_utf8(request.header_values("x-request-id").next()?).ok()?;
    let is_plain = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_plain.then_some(id)
}

/// Counts a running check. A check that is dropped half-way is no longer counted.
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
