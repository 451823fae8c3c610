//! Result of a check: the decision, and the steps that led to it.

use std::sync::Arc;

use super::cache::Verified;
use super::denial::Denial;
use super::headers::OwnedHeaders;
use super::identity::Identity;
use super::policy::{Policy, PolicyIndex, RefusedCall};
use super::recent::Prepared;
use crate::jwks::store::Waited;
use crate::user_pool::PoolIndex;

/// Decision about one request, and how it was reached.
pub struct Verdict<'r> {
    /// Decision about the request.
    pub(crate) decision: Decision<'r>,
    /// Findings of the check.
    pub(crate) trace: Trace,
}

/// Decision about one request.
pub(crate) enum Decision<'r> {
    /// The request may reach the upstream.
    Allow(Allowed<'r>),
    /// The request must not reach the upstream.
    Deny(Denial),
}

/// Request that may reach the upstream.
pub(crate) struct Allowed<'r> {
    /// Policy that allows the request.
    pub(crate) policy: &'r Policy,
    /// Verified token; `None` if the policy allows the request without one.
    pub(crate) token: Option<Arc<Verified>>,
    /// Values of the identity headers.
    pub(crate) identity: Arc<Prepared>,
    /// Denial that the policy only reports, because it is in shadow mode.
    pub(crate) shadow: Option<Denial>,
}

impl<'r> Allowed<'r> {
    /// Allows a request without a token.
    ///
    /// # Errors
    /// Those of [`Identity::new`].
    pub(super) fn anonymous(headers: &OwnedHeaders, policy: &'r Policy) -> Result<Self, Denial> {
        let identity = Arc::new(Identity::new(headers, None, &policy.headers)?.into());
        Ok(Self { policy, token: None, identity, shadow: None })
    }
}

/// Findings of a check, for metrics, the log and `explain`.
#[derive(Default)]
pub(crate) struct Trace {
    /// Pool that the issuer of the token belongs to; `None` before that step.
    pub(crate) pool: Option<PoolIndex>,
    /// Policy that the result is reported with: the one of the request or, if a call in its body is refused, the one of
    /// the call. `None` if none was chosen.
    pub(crate) policy: Option<PolicyIndex>,
    /// Call in the request's body that is refused.
    pub(crate) call: Option<RefusedCall>,
    /// Position in the file, from 0, of the route that chose the policy.
    pub(crate) route: Option<usize>,
    /// Last step that was started. If the request is denied, this step failed.
    pub(crate) step: Step,
    /// Requirement of the policy that the token does not meet.
    pub(crate) requirement: Option<Box<str>>,
    /// `kid` of a token whose key or signature failed, cut to [`LOGGED_KID_CHARS`]. Any client can choose it: escape it.
    pub(crate) kid: Option<String>,
    /// Time for which the check waited for the keys of its pool; `None` if the pool had the key.
    pub(crate) key_wait: Option<Waited>,
}

impl Trace {
    /// Returns the policy of the request, which was chosen for its route.
    pub(crate) fn chosen(&self) -> Option<PolicyIndex> {
        self.call.map(|call| call.of).or(self.policy)
    }

    /// Notes the requirement that the token does not meet, and the call that has it.
    pub(super) fn refuse(&mut self, requirement: &str, call: Option<RefusedCall>) {
        self.requirement = Some(requirement.into());
        self.call = call;
        self.policy = call.map(|call| call.policy).or(self.policy);
    }
}

/// Maximum length of a logged `kid`, in characters.
pub(super) const LOGGED_KID_CHARS: usize = 64;

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// Step of a check. The command `explain` shows which steps a request passed and which one failed.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step {
            $($(#[$doc])* $name,)*
        }

        impl Step {
            /// Every step, in order.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name of the step, as the documentation spells it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

steps! {
    /// A policy is chosen, by Envoy's route or by a route of the policy file.
    #[default]
    Route = "route";
    /// The request carries exactly one credential.
    Credential = "credential";
    /// The token is not too long.
    Size = "size";
    /// The token is a compact JWS of two JSON objects (RFC 7515 section 7.1).
    Form = "form";
    /// `alg` is `RS256`.
    Algorithm = "alg";
    /// The header requires no extension (`crit`, `b64`).
    Critical = "crit";
    /// The header has a `kid`.
    Kid = "kid";
    /// `iss` names a configured pool.
    Issuer = "iss";
    /// `token_use` is accepted.
    TokenUse = "token_use";
    /// The token has a `sub`.
    Subject = "sub";
    /// `client_id` or `aud` is an accepted app client.
    Client = "client";
    /// `exp` has not passed, allowing for clock skew.
    Expiry = "exp";
    /// `nbf` is not in the future, allowing for clock skew.
    NotBefore = "nbf";
    /// The token's life is not longer than revocations are kept.
    Life = "life";
    /// The remaining claims have the right types.
    Types = "types";
    /// The pool has the key that `kid` names.
    Key = "key";
    /// The signature is valid.
    Signature = "signature";
    /// Neither the token nor its session is revoked, and its user has not signed out since the sign-in.
    Revocation = "revocation";
    /// The token meets the requirements of the policy.
    Policy = "policy";
    /// The identity headers for the upstream fit their limit.
    Identity = "identity";
}
