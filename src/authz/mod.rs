//! The decision: may this request pass? No gRPC, no HTTP, no clock: callers hand over a [`RequestContext`] and the
//! time, and get a [`Verdict`].
//!
//! Start from [`Authorizer::authorize`]: the order of the checks stands there on one screen.

pub mod browser_session;
pub mod cache;
mod claim;
pub mod claims;
pub mod denial;
pub mod extra_claims;
pub mod headers;
pub mod identity;
mod json;
pub mod opening;
pub mod path;
pub mod pattern;
pub mod policy;
pub mod request;
pub mod requirement;
pub mod route;
pub mod ruleset;
pub mod step;
pub mod token;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use self::cache::{TokenCache, Verified};
pub use self::claims::{Claims, Expected, TokenUse, UnixTime};
pub use self::denial::{Challenge, Denial};
pub use self::headers::OwnedHeaders;
pub use self::identity::{Caller, Identity};
pub use self::policy::{Access, Policies, Policy, PolicyIndex};
pub use self::request::{Header, RequestContext};
pub use self::requirement::Requirements;
pub use self::ruleset::{Credential, Ruleset};
pub use self::step::Step;
use self::token::{Decoded, MAX_TOKEN_BYTES, Purpose};
use crate::jwks::store::KeyMiss;
use crate::user_pool::PoolIndex;

/// The answer.
pub enum Decision {
    /// The request may pass.
    Allow {
        /// The token that was presented; none where the policy lets everybody pass.
        token: Option<Arc<Verified>>,
        /// What upstream is told.
        identity: Identity,
    },
    /// It may not.
    Deny(Denial),
}

/// A decision, and what is known for answering, counting, logging and explaining it.
pub struct Verdict {
    /// The rules by which it was made.
    pub rules: Arc<Ruleset>,
    /// The answer.
    pub decision: Decision,
    /// The pool, once the token's issuer named one.
    pub pool: Option<PoolIndex>,
    /// The policy, once the request has chosen one.
    pub policy: Option<PolicyIndex>,
    /// Place in the file, from 0, of the route that chose it.
    pub route: Option<usize>,
    /// The last step that was taken: of a denial, the one that failed.
    pub step: Step,
    /// What the policy asks for and the token does not meet.
    pub requirement: Option<Box<str>>,
    /// `kid` of a token whose key was the trouble: the caller's text, cut to [`LOGGED_KID_CHARS`], to be escaped.
    pub kid: Option<String>,
}

impl Verdict {
    /// Nothing is known, and nobody may pass.
    fn undecided(rules: Arc<Ruleset>) -> Self {
        Self {
            rules,
            decision: Decision::Deny(Denial::NoHttpRequest),
            pool: None,
            policy: None,
            route: None,
            step: Step::Route,
            requirement: None,
            kid: None,
        }
    }

    /// The policy, once the request has chosen one.
    pub fn policy(&self) -> Option<&Policy> {
        self.rules.policies.get(self.policy?)
    }
}

/// How much of a `kid` is kept for the log.
pub const LOGGED_KID_CHARS: usize = 64;

/// Decides.
#[derive(Debug)]
pub struct Authorizer {
    rules: ArcSwap<Ruleset>,
    cache: TokenCache,
    leeway: i64,
}

/// What is known so far of a decision in the making.
#[derive(Default)]
struct Known {
    pool: Option<PoolIndex>,
    policy: Option<PolicyIndex>,
    route: Option<usize>,
    step: Step,
    requirement: Option<Box<str>>,
    kid: Option<String>,
}

impl Authorizer {
    /// An authorizer. `leeway` is the clock skew allowed for `exp` and `nbf`, in seconds.
    pub fn new(rules: Ruleset, cache: TokenCache, leeway: i64) -> Self {
        Self { rules: ArcSwap::from_pointee(rules), cache, leeway }
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Ruleset> {
        self.rules.load_full()
    }

    /// Puts other rules in force. Checks that are running end by the ones with which they began.
    pub fn replace_rules(&self, rules: Ruleset) {
        self.rules.store(Arc::new(rules));
    }

    /// Decides about one request at the time `now`, and before `deadline`; `None` is a check that brought no request.
    pub async fn authorize(&self, request: Option<&RequestContext<'_>>, now: UnixTime, deadline: Instant) -> Verdict {
        let mut verdict = Verdict::undecided(self.rules());
        if let Some(request) = request {
            let mut known = Known::default();
            let decided = self.decide(&verdict.rules, request, now, deadline, &mut known).await;
            verdict.decision = match decided {
                Ok((token, identity)) => Decision::Allow { token, identity },
                Err(denial) => Decision::Deny(denial),
            };
            let Known { pool, policy, route, step, requirement, kid } = known;
            verdict = Verdict { pool, policy, route, step, requirement, kid, ..verdict };
        }
        verdict
    }

    /// The order of the checks. The first one that fails names the reason.
    async fn decide(
        &self,
        rules: &Ruleset,
        request: &RequestContext<'_>,
        now: UnixTime,
        deadline: Instant,
        known: &mut Known,
    ) -> Result<(Option<Arc<Verified>>, Identity), Denial> {
        let chosen = rules.policies.choose(request)?;
        let policy = chosen.policy;
        known.policy = Some(chosen.index);
        known.route = chosen.route.map(|(place, _)| place);
        let anonymous = || Ok((None, Identity::new(&rules.headers, None, &policy.headers)?));
        if policy.allows_preflight && request.is_cors_preflight() {
            return anonymous();
        }

        known.step = Step::Credential;
        let (credential, requirements) = match &policy.access {
            Access::Public => return anonymous(),
            Access::Optional => match rules.credential(request) {
                Err(Denial::MissingCredential) => return anonymous(),
                credential => (credential?, None),
            },
            Access::Required(requirements) => (rules.credential(request)?, Some(requirements)),
        };
        let Credential { token, is_session } = &credential;
        known.step = Step::Size;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }

        let digest = TokenCache::digest(token);
        let verified = if let Some(seen) = self.cache.get(&digest, &rules.stamps) {
            seen
        } else {
            // Boxed, so that checks that are answered from the cache do not carry room for it.
            let purpose = if *is_session { Purpose::Session } else { Purpose::Check };
            let verified = Arc::new(Box::pin(self.verify(rules, token, purpose, now, deadline, known)).await?);
            self.cache.insert(digest, Arc::clone(&verified));
            verified
        };
        known.pool = Some(verified.pool);
        // The cache holds what checks accept, sessions or not.
        if *is_session && verified.claims.token_use() != TokenUse::Access {
            known.step = Step::TokenUse;
            return Err(Denial::WrongTokenUse);
        }
        // Judged at every use: what was alive when it was verified need not be alive now.
        if !claims::is_alive(verified.claims.expires(), now, self.leeway) {
            known.step = Step::Expiry;
            self.cache.remove(&digest);
            return Err(Denial::Expired);
        }

        known.step = Step::Policy;
        if let Some(requirements) = requirements {
            requirements.judge(&verified, |name| chosen.segment(name), now).map_err(|unmet| {
                known.requirement = Some(unmet.requirement.into());
                unmet.denial
            })?;
        }
        known.step = Step::Identity;
        let caller = Caller { claims: &verified.claims, token };
        let identity = Identity::new(&rules.headers, Some(caller), &policy.headers)?;
        Ok((Some(verified), identity))
    }

    /// Verifies a token that is not the credential of a check, with every step that a check takes; what it has to be is
    /// `expected`, whatever the pool expects of checks.
    ///
    /// The cache is left out: what stands in it are tokens that checks accept.
    ///
    /// # Errors
    /// The [`Denial`] of the first step that fails.
    pub async fn verify_token(
        &self,
        token: &str,
        expected: Expected<'_>,
        now: UnixTime,
        deadline: Instant,
    ) -> Result<Verified, Denial> {
        let purpose = Purpose::Other(expected);
        self.verify(&self.rules(), token, purpose, now, deadline, &mut Known::default()).await
    }

    /// From text to claims: form, header, claims, key, signature.
    async fn verify(
        &self,
        rules: &Ruleset,
        token: &str,
        purpose: Purpose<'_>,
        now: UnixTime,
        deadline: Instant,
        known: &mut Known,
    ) -> Result<Verified, Denial> {
        known.step = Step::Form;
        let decoded = Decoded::new(token)?;
        let unverified = decoded.read()?;
        let checked = unverified.check_as(&rules.pools, purpose, now, self.leeway, &mut known.step);
        // Steps up to the issuer fail without a pool, whatever the token says.
        if checked.is_ok() || known.step > Step::Issuer {
            known.pool = unverified.pool(&rules.pools).map(|(pool, _)| pool);
        }
        let candidate = checked?;
        let pool = candidate.pool();
        known.step = Step::Key;
        let stamp = rules.stamps.get(pool).copied().unwrap_or_default();
        let verified = match rules.keys.key(pool, candidate.kid(), deadline).await {
            Ok(key) => {
                known.step = Step::Signature;
                candidate.verify(&key, &rules.wanted).map(|claims| Verified { claims, pool, stamp, key })
            }
            Err(KeyMiss::Unknown) => Err(Denial::UnknownKid),
            Err(KeyMiss::Unavailable) => Err(Denial::KeysUnavailable),
        };
        if verified.is_err() {
            known.kid = unverified.kid().map(|kid| kid.chars().take(LOGGED_KID_CHARS).collect());
        }
        verified
    }

    /// The cache of verified tokens.
    pub fn cache(&self) -> &TokenCache {
        &self.cache
    }
}
