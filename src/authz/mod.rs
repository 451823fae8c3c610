//! Decides whether a request may reach the upstream. Independent of protocols: no gRPC, no HTTP, no clock.
//!
//! The caller passes a [`RequestContext`] and the current time to [`Authorizer::authorize`] and gets a [`Verdict`].
//! `Authorizer::decide` shows the order of the checks on one screen.

pub(crate) mod answer;
pub(crate) mod cache;
pub(crate) mod credential;
pub(crate) mod denial;
pub(crate) mod headers;
mod identity;
pub(crate) mod policy;
pub(crate) mod protected_resource;
pub(crate) mod recent;
pub(crate) mod request;
mod shadow;
pub(crate) mod sign_in;
pub(crate) mod token;
mod verdict;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::time::Instant;

pub use self::answer::Answer;
use self::cache::PoolStamp;
pub use self::cache::TokenCache;
pub(crate) use self::cache::Verified;
use self::credential::{BrowserSessions, Credential};
pub(crate) use self::denial::PoolKnown;
pub use self::denial::{Challenge, Denial, Fault};
pub(crate) use self::headers::OwnedHeaders;
pub(crate) use self::identity::{Caller, Identity, MAX_IDENTITY_BYTES};
pub(crate) use self::policy::requirement::Requirements;
pub(crate) use self::policy::{Access, Policies, Policy};
pub(crate) use self::protected_resource::ProtectedResources;
pub(crate) use self::recent::Presented;
pub use self::recent::Recent;
use self::recent::RulesVersion;
pub(crate) use self::request::Header;
pub use self::request::RequestContext;
use self::shadow::Refused;
pub use self::sign_in::SignIn;
pub(crate) use self::token::Expected;
use self::token::MAX_TOKEN_BYTES;
pub(crate) use self::token::claims::TokenUse;
pub use self::token::claims::{Claims, WantedClaims};
pub use self::token::{Decoded, Purpose, TimeLimits};
pub(crate) use self::verdict::{Allowed, Decision, Trace};
pub use self::verdict::{Step, Verdict};
pub use crate::clock::UnixTime;
use crate::jwks::store::{KeyMiss, KeyStore};
use crate::metrics::CheckCounters;
use crate::revocation::{Revocations, Standing};
use crate::user_pool::UserPools;

/// Configuration that decisions depend on: pools, keys and policies.
///
/// A check loads the current ruleset once, when it starts, and uses it to the end, for the answer and the metrics as well.
/// A reload replaces the ruleset as a whole. Both rulesets share what has not changed, such as the keys of an unchanged
/// pool.
#[derive(Debug)]
pub struct Ruleset {
    /// Version of these rules.
    pub(crate) version: RulesVersion,
    /// User pools whose tokens are accepted.
    pub(crate) pools: UserPools,
    /// Keys of the pools, in the same order.
    pub(crate) keys: KeyStore,
    /// Versions of the pools, in the same order.
    pub(crate) stamps: Vec<PoolStamp>,
    /// Policies, and the routes that choose them.
    pub(crate) policies: Policies,
    /// Identity headers, which only this service may set.
    pub(crate) headers: OwnedHeaders,
    /// Claims that policies and identity headers need in addition to the standard ones.
    pub(crate) wanted: WantedClaims,
    /// Settings for session cookies; `None` if they are not accepted as a credential.
    pub(crate) browser_sessions: Option<BrowserSessions>,
    /// Protected resources whose metadata the account API serves.
    pub(crate) resources: ProtectedResources,
    /// Counters of checks, by pool and policy.
    pub(crate) counters: CheckCounters,
}

impl Ruleset {
    /// Finds the credential of a request that has this policy. Without browser sessions and further places, only a Bearer
    /// token is one.
    ///
    /// # Errors
    /// Those of [`credential::find_in`] and [`BrowserSessions::access_token`].
    pub(crate) fn credential<'r>(
        &self,
        request: &RequestContext<'r>,
        policy: &Policy,
    ) -> Result<Option<Credential<'r>>, Denial> {
        let session = || self.browser_sessions.as_ref().map_or(Ok(None), |sessions| sessions.access_token(request));
        credential::find_in(request, &policy.places, session)
    }
}

/// Decides whether a request may reach the upstream.
#[derive(Debug)]
pub struct Authorizer {
    rules: ArcSwap<Ruleset>,
    cache: TokenCache,
    revocations: Arc<Revocations>,
    limits: TimeLimits,
}

impl Authorizer {
    /// Creates an authorizer.
    pub fn new(rules: Ruleset, cache: TokenCache, revocations: Arc<Revocations>, limits: TimeLimits) -> Self {
        Self { rules: ArcSwap::from_pointee(rules), cache, revocations, limits }
    }

    /// Rules in effect.
    pub fn rules(&self) -> Arc<Ruleset> {
        self.rules.load_full()
    }

    /// Rules in effect, for one check. Unlike [`Authorizer::rules`] it counts no reference, which all workers would share.
    pub(crate) fn rules_now(&self) -> arc_swap::Guard<Arc<Ruleset>> {
        self.rules.load()
    }

    /// Replaces the rules. Checks that are running finish with the rules they started with.
    pub(crate) fn replace_rules(&self, rules: Ruleset) {
        self.rules.store(Arc::new(rules));
    }

    /// Cache of verified tokens.
    pub(crate) fn cache(&self) -> &TokenCache {
        &self.cache
    }

    /// Decides about one request according to `rules`, at the Unix time `now` and before `deadline`. A `request` of `None`
    /// stands for a check without an HTTP request. `recent` is the memory of the worker that asks, if it has one.
    pub async fn authorize<'r>(
        &self,
        rules: &'r Ruleset,
        request: Option<&RequestContext<'_>>,
        recent: Option<&Recent>,
        now: UnixTime,
        deadline: Instant,
    ) -> Verdict<'r> {
        let mut trace = Trace::default();
        let decided = match request {
            Some(request) => self.decide(rules, request, recent, now, deadline, &mut trace).await,
            None => Err(Denial::NoHttpRequest.into()),
        };
        let decision = decided.map_or_else(|refused| refused.decision(rules, &trace), Decision::Allow);
        Verdict { decision, trace }
    }

    /// Runs the checks in order. The first one that fails determines the denial.
    async fn decide<'r>(
        &self,
        rules: &'r Ruleset,
        request: &RequestContext<'_>,
        recent: Option<&Recent>,
        now: UnixTime,
        deadline: Instant,
        trace: &mut Trace,
    ) -> Result<Allowed<'r>, Refused> {
        let chosen = rules.policies.choose(request)?;
        let policy = chosen.policy;
        trace.policy = Some(chosen.index);
        trace.route = chosen.route.map(|(position, _)| position);
        if policy.allows_preflight && request.is_cors_preflight() {
            return Ok(Allowed::anonymous(&rules.headers, policy)?);
        }

        trace.step = Step::Credential;
        let requirements = match &policy.access {
            Access::Public => return Ok(Allowed::anonymous(&rules.headers, policy)?),
            Access::Optional => None,
            Access::Required(requirements) => Some(requirements),
        };
        let Credential { token, is_session } = match rules.credential(request, policy)? {
            Some(credential) => credential,
            None if requirements.is_none() => return Ok(Allowed::anonymous(&rules.headers, policy)?),
            None => return Err(Denial::MissingCredential.into()),
        };
        let purpose = if is_session { Purpose::Session } else { Purpose::Check };
        let presented = Presented::recalled(&token, recent, now);
        let verified = self.verify(rules, &presented, purpose, now, deadline, trace).await?;

        trace.step = Step::Policy;
        if let Some(requirements) = requirements {
            rules.policies.check(&chosen, requirements, request, &verified, now).map_err(|insufficient| {
                trace.refuse(insufficient.unmet.requirement, insufficient.call);
                Refused::by_policy(insufficient.unmet.denial, policy, &verified, &token)
            })?;
        }
        trace.step = Step::Identity;
        let identity = presented.identity((rules, chosen.index), &verified, now, || {
            let caller = Caller { claims: &verified.claims, token: &token };
            Identity::new(&rules.headers, Some(caller), &policy.headers)
        })?;
        Ok(Allowed { policy, token: Some(verified), identity, shadow: None })
    }

    /// Verifies a token for `purpose`, or takes it from the worker's memory or the cache. Such a token is checked again for its
    /// key, its pool, `token_use` and `exp`. Every token is checked for its revocation, at every use.
    ///
    /// Only tokens of checks are cached: an ID token of the account API would otherwise pass a check that requires access
    /// tokens.
    ///
    /// # Errors
    /// The [`Denial`] of the first step that fails; `trace.step` names the step.
    pub(crate) async fn verify(
        &self,
        rules: &Ruleset,
        presented: &Presented<'_>,
        purpose: Purpose<'_>,
        now: UnixTime,
        deadline: Instant,
        trace: &mut Trace,
    ) -> Result<Arc<Verified>, Denial> {
        let token = presented.token;
        trace.step = Step::Size;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }
        let cache = match purpose {
            Purpose::Check | Purpose::Session => Some(&self.cache),
            Purpose::Account(_) => None,
        };
        let recalled = cache.zip(presented.verified()).and_then(|(cache, known)| cache.recall(known, &rules.stamps));
        let verified = if let Some(recalled) = recalled {
            recalled
        } else {
            let digest = cache.map(|cache| (cache, TokenCache::digest(token)));
            if let Some(cached) = digest.and_then(|(cache, digest)| cache.get(&digest, &rules.stamps)) {
                cached
            } else {
                // Boxed, so that the future of a check that hits the cache stays small.
                let new = Box::pin(self.verify_uncached(rules, token, purpose, now, deadline, trace));
                let verified = Arc::new(new.await?);
                if let Some((cache, digest)) = digest {
                    cache.insert(digest, Arc::clone(&verified));
                }
                verified
            }
        };
        trace.pool = Some(verified.pool);
        // An ID token that a check accepted as a Bearer token is cached as well; a session must be an access token.
        if matches!(purpose, Purpose::Session) && verified.claims.token_use() != TokenUse::Access {
            trace.step = Step::TokenUse;
            return Err(Denial::WrongTokenUse);
        }
        if !token::claims::is_alive(verified.claims.expires(), now, self.limits.leeway) {
            trace.step = Step::Expiry;
            if let Some(cache) = cache {
                cache.remove(&TokenCache::digest(token));
            }
            return Err(Denial::Expired);
        }
        trace.step = Step::Revocation;
        match self.revocations.judge(verified.claims.marks(), verified.claims.last_judged()) {
            Standing::Valid => Ok(verified),
            Standing::Revoked => Err(Denial::Revoked),
            Standing::Unknown => Err(Denial::RevocationUnavailable),
        }
    }

    /// Verifies the form, the header, the claims and the signature of a token.
    async fn verify_uncached(
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
        let checked = unverified.check(&rules.pools, purpose, now, self.limits, &mut trace.step);
        // A denial up to the step `iss` is counted without a pool, whatever the token claims.
        if checked.is_ok() || trace.step > Step::Issuer {
            trace.pool = unverified.pool(&rules.pools).map(|(pool, _)| pool);
        }
        let candidate = checked?;
        let pool = candidate.pool();
        trace.step = Step::Key;
        let stamp = rules.stamps.get(pool).copied().unwrap_or_default();
        let verified = match rules.keys.key(pool, candidate.kid(), deadline, &mut trace.key_wait).await {
            Ok(key) => {
                trace.step = Step::Signature;
                candidate.verify(&key, &rules.wanted).map(|claims| Verified::new(claims, pool, stamp, key))
            }
            Err(KeyMiss::Unknown) => Err(Denial::UnknownKid),
            Err(KeyMiss::Unavailable) => Err(Denial::KeysUnavailable),
        };
        if verified.is_err() {
            trace.kid = unverified.kid().map(|kid| kid.chars().take(verdict::LOGGED_KID_CHARS).collect());
        }
        verified
    }
}
