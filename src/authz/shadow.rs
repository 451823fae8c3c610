//! Shadow mode: a request that the policy would deny is forwarded, and the denial is only reported.
//!
//! The upstream gets identity headers only from a token that was verified and is not revoked, that is, if the token failed
//! the requirements of the policy. After any other denial the request is forwarded like one without a token. Start from
//! [`Refused::decision`].

use std::sync::Arc;

use super::cache::Verified;
use super::denial::Denial;
use super::identity::{Caller, Identity};
use super::verdict::{Allowed, Decision, Trace};
use super::{Ruleset, policy::Policy};

/// Denial, with the caller if the token was verified before.
pub(super) struct Refused {
    denial: Denial,
    /// Verified token that is not revoked, with its text. `None` if the denial precedes that, or is final.
    caller: Option<(Arc<Verified>, Box<str>)>,
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self { denial, caller: None }
    }
}

impl Refused {
    /// Denial by `policy` of a request whose token was verified and is not revoked. Only a policy in shadow mode needs the
    /// caller afterwards.
    pub(super) fn by_policy(denial: Denial, policy: &Policy, verified: &Arc<Verified>, token: &str) -> Self {
        let caller = policy.is_shadow().then(|| (Arc::clone(verified), token.into()));
        Self { denial, caller }
    }

    /// Decision about the request: a denial, unless its policy is in shadow mode.
    ///
    /// A denial that means that the request or its policy is not known (such as `unsafe_path`) is always a denial. For a
    /// call in the body, the policy of the request counts.
    pub(super) fn decision<'r>(self, rules: &'r Ruleset, trace: &Trace) -> Decision<'r> {
        let policy = trace.chosen().and_then(|policy| rules.policies.get(policy));
        let Some(policy) = policy.filter(|policy| policy.is_shadow() && !self.denial.precedes_policy()) else {
            return Decision::Deny(self.denial);
        };
        let denial = self.denial;
        match self.forwarded(rules, policy) {
            Ok(allowed) => Decision::Allow(Allowed { shadow: Some(denial), ..allowed }),
            // The fixed headers of the policy alone exceed the limit.
            Err(denial) => Decision::Deny(denial),
        }
    }

    /// Request as it is forwarded. If the identity headers exceed their limit, none is set.
    fn forwarded<'r>(self, rules: &'r Ruleset, policy: &'r Policy) -> Result<Allowed<'r>, Denial> {
        if let Some((verified, token)) = self.caller {
            let caller = Caller { claims: &verified.claims, token: &token };
            if let Ok(identity) = Identity::new(&rules.headers, Some(caller), &policy.headers) {
                let identity = Arc::new(identity.into());
                return Ok(Allowed { policy, token: Some(verified), identity, shadow: None });
            }
        }
        Allowed::anonymous(&rules.headers, policy)
    }
}
