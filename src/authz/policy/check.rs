//! Checks a verified token against the policy of a request and, if the policy has `json_rpc`, against the policies of the
//! calls in the request's body.

use super::json_rpc::CallIndex;
use super::requirement::{Requirements, Unmet};
use super::{Access, Chosen, Policies, PolicyIndex};
use crate::authz::cache::Verified;
use crate::authz::denial::Denial;
use crate::authz::request::RequestContext;
use crate::clock::UnixTime;

/// Call in a request's body whose requirements the token does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefusedCall {
    /// Policy of the request.
    pub(crate) of: PolicyIndex,
    /// Call of that policy.
    pub(crate) index: CallIndex,
    /// Policy of the call.
    pub(crate) policy: PolicyIndex,
}

/// Reason why a token is not sufficient for a request.
pub(crate) struct Insufficient<'r> {
    /// Requirement that is not met.
    pub(crate) unmet: Unmet<'r>,
    /// Call that has the requirement; `None` if the policy of the request has it.
    pub(crate) call: Option<RefusedCall>,
}

impl<'r> From<Unmet<'r>> for Insufficient<'r> {
    fn from(unmet: Unmet<'r>) -> Self {
        Self { unmet, call: None }
    }
}

impl Policies {
    /// Checks the `requirements` of the policy of a request, and then those of the calls in its body.
    ///
    /// # Errors
    /// The first requirement that is not met. [`Denial::NoHttpRequest`] if the policy has `json_rpc` and the messages of
    /// the request are not known for certain.
    pub(crate) fn check<'r>(
        &'r self,
        chosen: &Chosen<'r, '_>,
        requirements: &'r Requirements,
        request: &RequestContext<'_>,
        caller: &Verified,
        now: UnixTime,
    ) -> Result<(), Insufficient<'r>> {
        let check = |requirements: &'r Requirements| requirements.check(caller, |name| chosen.segment(name), now);
        check(requirements)?;
        let Some(json_rpc) = &chosen.policy.json_rpc else { return Ok(()) };
        let unreadable = |requirement| Unmet { denial: Denial::NoHttpRequest, requirement };
        let calls = json_rpc.calls_in(request).map_err(|why| unreadable(why.requirement()))?;
        for (index, call) in calls.into_iter().filter_map(|index| Some((index, json_rpc.calls.get(index)?))) {
            let call = RefusedCall { of: chosen.index, index, policy: call.policy };
            let result = match self.get(call.policy).map(|policy| &policy.access) {
                Some(Access::Required(requirements)) => check(requirements),
                // `config::compile` accepts no other policy for a call.
                _ => Err(Unmet { denial: Denial::UnknownPolicy, requirement: "json_rpc.calls" }),
            };
            result.map_err(|unmet| Insufficient { unmet, call: Some(call) })?;
        }
        Ok(())
    }
}
