//! Series of the metrics of checks that can occur with a set of policies. They exist from the start.
//!
//! They follow from the access of each policy, from its requirements, and from what is known when a denial is decided
//! ([`PoolKnown`]). Any other result still counts; its series appears then.

use std::collections::HashSet;

use super::outcome;
use crate::authz::policy::json_rpc::JsonRpc;
use crate::authz::{Access, Denial, Policies, Policy, PoolKnown};
use crate::metrics::{CheckOutcome, CheckSeries};

/// Returns the series of these policies. `has_sessions` says if session cookies are a credential.
pub(crate) fn series(policies: &Policies, has_sessions: bool) -> Vec<CheckSeries> {
    let before = Denial::ALL.iter().filter(|denial| denial.precedes_policy());
    let mut series: Vec<_> = before.map(|denial| denied(*denial, None, PoolKnown::Never)).collect();
    for (index, policy) in policies.iter().enumerate() {
        series.push(allowed(policy, index));
        let possible = Denial::ALL.iter().filter(|denial| is_possible(**denial, policy, has_sessions));
        let denials = possible.map(|denial| denied(*denial, Some(index), pool_known(*denial, policy)));
        if policy.is_shadow() {
            series.extend(denials.clone().map(reported));
            // These remain denials: the messages of the body are not known, or the fixed headers exceed their limit.
            series.extend(denials.filter(|denied| is_final(denied.reason, policy)));
            series.extend(of_calls(policies, policy.json_rpc.as_ref()));
        } else {
            series.extend(denials);
        }
    }
    let mut unique = HashSet::with_capacity(series.len());
    series.retain(|series| unique.insert(*series));
    series
}

fn denied(denial: Denial, policy: Option<usize>, known: PoolKnown) -> CheckSeries {
    CheckSeries {
        outcome: Some(outcome(denial)),
        reason: denial.reason(),
        policy,
        without_pool: known != PoolKnown::Always,
        with_pool: known != PoolKnown::Never,
    }
}

/// The same denial, by a policy that only reports it.
fn reported(series: CheckSeries) -> CheckSeries {
    CheckSeries { outcome: None, ..series }
}

fn allowed(policy: &Policy, index: usize) -> CheckSeries {
    let is_required = matches!(policy.access, Access::Required(_));
    CheckSeries {
        outcome: Some(CheckOutcome::Allow),
        reason: "",
        policy: Some(index),
        without_pool: !is_required || policy.allows_preflight || policy.is_shadow(),
        with_pool: !matches!(policy.access, Access::Public),
    }
}

/// `true` if requests of this policy can be denied for this reason.
fn is_possible(denial: Denial, policy: &Policy, has_sessions: bool) -> bool {
    match (denial, &policy.access) {
        (Denial::NoHttpRequest, _) => policy.json_rpc.is_some(),
        (denial, _) if denial.precedes_policy() => false,
        // Only headers that the policy itself sets.
        (Denial::IdentityTooLarge, Access::Public) => !policy.headers.is_empty(),
        (_, Access::Public) => false,
        (Denial::CrossSite, _) => has_sessions,
        (Denial::MissingCredential, access) => matches!(access, Access::Required(_)),
        (
            Denial::InsufficientScope | Denial::InsufficientGroup | Denial::ClaimMismatch | Denial::AuthTooOld,
            access,
        ) => matches!(access, Access::Required(requirements) if requirements.can_deny(denial)),
        _ => true,
    }
}

/// Says if the pool is known when a request of this policy is denied.
fn pool_known(denial: Denial, policy: &Policy) -> PoolKnown {
    match denial {
        _ if matches!(policy.access, Access::Public) => PoolKnown::Never,
        // The body is read once the token is verified.
        Denial::NoHttpRequest => PoolKnown::Always,
        // Requests without a token have only the fixed headers of the policy.
        Denial::IdentityTooLarge if policy.headers.is_empty() => PoolKnown::Always,
        denial => denial.pool_known(),
    }
}

/// `true` if a policy in shadow mode denies requests for this reason.
fn is_final(reason: &str, policy: &Policy) -> bool {
    reason == Denial::NoHttpRequest.reason()
        || reason == Denial::IdentityTooLarge.reason() && !policy.headers.is_empty()
}

/// Series of the calls in the bodies of a policy in shadow mode: they are counted with the policy of the call.
fn of_calls(policies: &Policies, json_rpc: Option<&JsonRpc>) -> Vec<CheckSeries> {
    let calls = json_rpc.into_iter().flat_map(|json_rpc| &json_rpc.calls).map(|call| call.policy);
    let required = calls.filter_map(|index| match &policies.get(index)?.access {
        Access::Required(requirements) => Some((index, requirements)),
        Access::Public | Access::Optional => None,
    });
    let denials = required.flat_map(|(index, requirements)| {
        let denials = Denial::ALL.iter().filter(|denial| requirements.can_deny(**denial));
        denials.map(move |denial| reported(denied(*denial, Some(index), PoolKnown::Always)))
    });
    denials.collect()
}
