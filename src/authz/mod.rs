//! The decision: may this request pass? No gRPC, no HTTP, no clock: callers hand over a [`RequestContext`] and the
//! time, and get a [`Verdict`].
//!
//! Start from [`Authorizer::authorize`]: the order of the checks stands there on one screen.

pub mod answer;
pub mod cache;
pub mod credential;
pub mod denial;
pub mod headers;
pub mod identity;
pub mod policy;
pub mod request;
pub mod ruleset;
pub mod step;
pub mod token;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use self::answer::Answer;
pub use self::cache::{TokenCache, Verified};
pub use self::credential::Credential;
pub use self::denial::{Challenge, Denial, Fault};
pub use self::headers::OwnedHeaders;
pub use self::identity::{Caller, Identity};
pub use self::policy::requirement::Requirements;
pub use self::policy::{Access, Policies, Policy, PolicyIndex};
pub use self::request::{Header, RequestContext};
pub use self::ruleset::Ruleset;
pub use self::step::Step;
pub use self::token::claims::{Claims, Expected, TokenUse, UnixTime};
use self::token::{Decoded, MAX_TOKEN_BYTES, Purpose};
use crate::jwks::store::KeyMiss;
use crate::user_pool::PoolIndex;

/// The decision about one request.
pub enum Decision<'r> {
    /// The request may reach the upstream.
    Allow(Allowed<'r>),
    /// It may not.
    Deny(Denial),
}

/// A request that may reach the upstream.
pub struct Allowed<'r> {
    /// The policy by which it passes.
    pub policy: &'r Policy,
    /// The verified token; `None` where the policy lets requests pass without one.
    pub token: Option<Arc<Verified>>,
    /// Values of the identity headers.
    pub identity: Identity,
}

impl<'r> Allowed<'r> {
    /// A request that passes without a token.
    fn anonymous(rules: &Ruleset, policy: &'r Policy) -> Result<Self, Denial> {
        Ok(Self { policy, token: None, identity: Identity::new(&rules.headers, None, &policy.headers)? })
    }
}

/// Findings on the way to a decision, for counting, logging and explaining it.
#[derive(Default)]
pub struct Trace {
    /// The pool, once the token's issuer has named one.
    pub pool: Option<PoolIndex>,
    /// The policy, once the request has one.
    pub policy: Option<PolicyIndex>,
    /// Position in the file, from 0, of the route that chose the policy.
    pub route: Option<usize>,
    /// The last step that was taken. If the request is denied, the step that failed.
    pub step: Step,
    /// The requirement of the policy that the token does not meet.
    pub requirement: Option<Box<str>>,
    /// `kid` of a token whose key or signature failed, cut to [`LOGGED_KID_CHARS`]. The caller wrote it: escape it.
    pub kid: Option<String>,
}

/// A decision, and how it was reached.
pub struct Verdict<'r> {
    /// The decision.
    pub decision: Decision<'r>,
    /// How it was reached.
    pub trace: Trace,
}

/// Characters of a `kid` that are kept for the log.
pub const LOGGED_KID_CHARS: usize = 64;

/// Decides whether a request may reach the upstream.
#[derive(Debug)]
pub struct Authorizer {
    rules: ArcSwap<Ruleset>,
    cache: TokenCache,
    leeway: i64,
}

impl Authorizer {
    /// Creates an authorizer. `leeway` is the clock skew allowed for `exp` and `nbf`, in seconds.
    pub fn new(rules: Ruleset, cache: TokenCache, leeway: i64) -> Self {
        Self { rules: ArcSwap::from_pointee(rules), cache, leeway }
    }

    /// The rules in effect.
    pub fn rules(&self) -> Arc<Ruleset> {
        self.rules.load_full()
    }

    /// Puts other rules into effect. Checks that are running finish by the rules with which they began.
    pub fn replace_rules(&self, rules: Ruleset) {
        self.rules.store(Arc::new(rules));
    }

    /// Decides about one request by `rules`, at the time `now` and before `deadline`. `None` is a check that carries no
    /// HTTP request.
    pub async fn authorize<'r>(
        &self,
        rules: &'r Ruleset,
        request: Option<&RequestContext<'_>>,
        now: UnixTime,
        deadline: Instant,
    ) -> Verdict<'r> {
        let mut trace = Trace::default();
        let decided = match request {
            Some(request) => self.decide(rules, request, now, deadline, &mut trace).await,
            None => Err(Denial::NoHttpRequest),
        };
        let decision = match decided {
            Ok(allowed) => Decision::Allow(allowed),
            Err(denial) => Decision::Deny(denial),
        };
        Verdict { decision, trace }
    }

    /// The order of the checks. The first one that fails names the reason.
    async fn decide<'r>(
        &self,
        rules: &'r Ruleset,
        request: &RequestContext<'_>,
        now: UnixTime,
        deadline: Instant,
        trace: &mut Trace,
    ) -> Result<Allowed<'r>, Denial> {
        let chosen = rules.policies.choose(request)?;
        let policy = chosen.policy;
        trace.policy = Some(chosen.index);
        trace.route = chosen.route.map(|(position, _)| position);
        if policy.allows_preflight && request.is_cors_preflight() {
            return Allowed::anonymous(rules, policy);
        }

        trace.step = Step::Credential;
        let requirements = match &policy.access {
            Access::Public => return Allowed::anonymous(rules, policy),
            Access::Optional => None,
            Access::Required(requirements) => Some(requirements),
        };
        let credential = match rules.credential(request)? {
            Some(credential) => credential,
            None if requirements.is_none() => return Allowed::anonymous(rules, policy),
            None => return Err(Denial::MissingCredential),
        };
        let verified = self.verified(rules, &credential, now, deadline, trace).await?;

        trace.step = Step::Policy;
        if let Some(requirements) = requirements {
            requirements.judge(&verified, |name| chosen.segment(name), now).map_err(|unmet| {
                trace.requirement = Some(unmet.requirement.into());
                unmet.denial
            })?;
        }
        trace.step = Step::Identity;
        let caller = Caller { claims: &verified.claims, token: &credential.token };
        let identity = Identity::new(&rules.headers, Some(caller), &policy.headers)?;
        Ok(Allowed { policy, token: Some(verified), identity })
    }

    /// The verified token behind a credential: from the cache, or verified now. A cached one is checked again for its key,
    /// its pool and `exp`.
    async fn verified(
        &self,
        rules: &Ruleset,
        credential: &Credential<'_>,
        now: UnixTime,
        deadline: Instant,
        trace: &mut Trace,
    ) -> Result<Arc<Verified>, Denial> {
        let Credential { token, is_session } = credential;
        trace.step = Step::Size;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }
        let digest = TokenCache::digest(token);
        let verified = if let Some(seen) = self.cache.get(&digest, &rules.stamps) {
            seen
        } else {
            // Boxed, so that checks that are answered from the cache do not carry room for it.
            let purpose = if *is_session { Purpose::Session } else { Purpose::Check };
            let verified = Arc::new(Box::pin(self.verify(rules, token, purpose, now, deadline, trace)).await?);
            self.cache.insert(digest, Arc::clone(&verified));
            verified
        };
        trace.pool = Some(verified.pool);
        // The cache holds every token that checks accept, whether it came in a cookie or not.
        if *is_session && verified.claims.token_use() != TokenUse::Access {
            trace.step = Step::TokenUse;
            return Err(Denial::WrongTokenUse);
        }
        if !token::claims::is_alive(verified.claims.expires(), now, self.leeway) {
            trace.step = Step::Expiry;
            self.cache.remove(&digest);
            return Err(Denial::Expired);
        }
        Ok(verified)
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
        self.verify(&self.rules(), token, purpose, now, deadline, &mut Trace::default()).await
    }

    /// From text to claims: form, header, claims, key, signature.
    async fn verify(
        &self,
        rules: &Ruleset,
        token: &str,
        purpose: Purpose<'_>,
        now: UnixTime,
        deadline: Instant,
        trace: &mut Trace,
    ) -> Result<Verified, Denial> {
        trace.step = Step::Form;
        let decoded = Decoded::new(token)?;
        let unverified = decoded.read()?;
        let checked = unverified.check_as(&rules.pools, purpose, now, self.leeway, &mut trace.step);
        // Steps up to the issuer fail without a pool, whatever the token says.
        if checked.is_ok() || trace.step > Step::Issuer {
            trace.pool = unverified.pool(&rules.pools).map(|(pool, _)| pool);
        }
        let candidate = checked?;
        let pool = candidate.pool();
        trace.step = Step::Key;
        let stamp = rules.stamps.get(pool).copied().unwrap_or_default();
        let verified = match rules.keys.key(pool, candidate.kid(), deadline).await {
            Ok(key) => {
                trace.step = Step::Signature;
                candidate.verify(&key, &rules.wanted).map(|claims| Verified { claims, pool, stamp, key })
            }
            Err(KeyMiss::Unknown) => Err(Denial::UnknownKid),
            Err(KeyMiss::Unavailable) => Err(Denial::KeysUnavailable),
        };
        if verified.is_err() {
            trace.kid = unverified.kid().map(|kid| kid.chars().take(LOGGED_KID_CHARS).collect());
        }
        verified
    }

    /// The cache of verified tokens.
    pub fn cache(&self) -> &TokenCache {
        &self.cache
    }
}
