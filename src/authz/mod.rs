//! The decision: may this request pass? No gRPC, no HTTP, no clock: callers hand over a [`RequestContext`] and the
//! time, and get a [`Verdict`].
//!
//! Start from [`Authorizer::authorize`]: the order of the checks stands there on one screen.

pub mod cache;
mod claim;
pub mod claims;
pub mod denial;
pub mod identity;
pub mod policy;
pub mod token;

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

pub use self::cache::{TokenCache, Verified};
pub use self::claims::{Claims, Expected, TokenUse, UnixTime};
pub use self::denial::{Challenge, Denial};
pub use self::identity::{Identity, IdentityHeaders};
pub use self::policy::{Policies, PolicyIndex};
use self::token::{Decoded, MAX_TOKEN_BYTES};
use crate::jwks::store::{KeyMiss, KeyStore};
use crate::user_pool::{PoolIndex, UserPools};

/// What of a request a decision may depend on, borrowed from the bytes that brought it.
#[derive(Default)]
pub struct RequestContext<'r> {
    /// The policy that the route names.
    pub policy: Option<&'r [u8]>,
    /// The request's headers, in no particular order and in any case.
    pub headers: Vec<Header<'r>>,
}

/// A header of a request. Values are bytes: HTTP does not promise text (RFC 9110 section 5.5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'r> {
    /// The name.
    pub name: &'r [u8],
    /// The value.
    pub value: &'r [u8],
}

impl fmt::Debug for Header<'_> {
    /// Without the value: one of the headers holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("name", &String::from_utf8_lossy(self.name)).finish_non_exhaustive()
    }
}

impl<'r> RequestContext<'r> {
    /// The values of the headers called `name` in any case.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &'r [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|header| header.value)
    }
}

/// The answer.
pub enum Decision {
    /// The request may pass, as this caller.
    Allow {
        /// The token that was presented.
        token: Arc<Verified>,
        /// What upstream is told.
        identity: Identity,
    },
    /// It may not.
    Deny(Denial),
}

/// A decision, and what is known for counting and logging it.
pub struct Verdict {
    /// The answer.
    pub decision: Decision,
    /// The pool, once the token's issuer named one.
    pub pool: Option<PoolIndex>,
    /// The policy, once the route had one.
    pub policy: Option<PolicyIndex>,
    /// `kid` of a token whose key was the trouble: the caller's text, cut to [`LOGGED_KID_CHARS`], to be escaped.
    pub kid: Option<String>,
}

impl Verdict {
    /// Nothing is known, and nobody may pass.
    fn undecided() -> Self {
        Self { decision: Decision::Deny(Denial::NoHttpRequest), pool: None, policy: None, kid: None }
    }
}

/// How much of a `kid` is kept for the log.
pub const LOGGED_KID_CHARS: usize = 64;

/// Decides.
#[derive(Debug)]
pub struct Authorizer {
    pools: UserPools,
    policies: Policies,
    keys: KeyStore,
    cache: TokenCache,
    leeway: i64,
}

impl Authorizer {
    /// An authorizer. `leeway` is the clock skew allowed for `exp` and `nbf`, in seconds.
    pub fn new(pools: UserPools, policies: Policies, keys: KeyStore, cache: TokenCache, leeway: i64) -> Self {
        Self { pools, policies, keys, cache, leeway }
    }

    /// Decides about one request at the time `now`, and before `deadline`; `None` is a check that brought no request.
    pub async fn authorize(&self, request: Option<&RequestContext<'_>>, now: UnixTime, deadline: Instant) -> Verdict {
        let mut verdict = Verdict::undecided();
        if let Some(request) = request {
            verdict.decision = match self.decide(request, now, deadline, &mut verdict).await {
                Ok((token, identity)) => Decision::Allow { token, identity },
                Err(denial) => Decision::Deny(denial),
            };
        }
        verdict
    }

    /// The order of the checks. The first one that fails names the reason.
    async fn decide(
        &self,
        request: &RequestContext<'_>,
        now: UnixTime,
        deadline: Instant,
        known: &mut Verdict,
    ) -> Result<(Arc<Verified>, Identity), Denial> {
        let (policy, _) = self.policies.for_route(request.policy).ok_or(Denial::UnknownPolicy)?;
        known.policy = Some(policy);

        // A value that is not even text is no token; the bare scheme stands for it and is refused as one.
        let as_text = |value| std::str::from_utf8(value).unwrap_or("Bearer");
        let token = token::credential(request.header_values("authorization").map(as_text))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }

        let digest = TokenCache::digest(token);
        let verified = if let Some(seen) = self.cache.get(&digest) {
            seen
        } else {
            // Boxed, so that checks that are answered from the cache do not carry room for it.
            let verified = Arc::new(Box::pin(self.verify(token, None, now, deadline, known)).await?);
            self.cache.insert(digest, Arc::clone(&verified));
            verified
        };
        known.pool = Some(verified.pool);
        // Judged at every use: what was alive when it was verified need not be alive now.
        if !claims::is_alive(verified.claims.expires(), now, self.leeway) {
            self.cache.remove(&digest);
            return Err(Denial::Expired);
        }

        let identity = Identity::new(&verified.claims)?;
        Ok((verified, identity))
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
        self.verify(token, Some(expected), now, deadline, &mut Verdict::undecided()).await
    }

    /// From text to claims: form, header, claims, key, signature.
    async fn verify(
        &self,
        token: &str,
        expected: Option<Expected<'_>>,
        now: UnixTime,
        deadline: Instant,
        known: &mut Verdict,
    ) -> Result<Verified, Denial> {
        let decoded = Decoded::new(token)?;
        let unverified = decoded.read()?;
        let checked = unverified.check_as(&self.pools, expected, now, self.leeway);
        // Steps before the issuer fail without a pool, whatever the token says.
        if !matches!(
            checked,
            Err(Denial::UnsupportedAlgorithm | Denial::UnsupportedHeader | Denial::MissingKid | Denial::UnknownIssuer)
        ) {
            known.pool = unverified.pool(&self.pools).map(|(pool, _)| pool);
        }
        let candidate = checked?;
        let pool = candidate.pool();
        let verified = match self.keys.key(pool, candidate.kid(), deadline).await {
            Ok(key) => candidate.verify(&key).map(|claims| Verified { claims, pool, key }),
            Err(KeyMiss::Unknown) => Err(Denial::UnknownKid),
            Err(KeyMiss::Unavailable) => Err(Denial::KeysUnavailable),
        };
        if verified.is_err() {
            known.kid = unverified.kid().map(|kid| kid.chars().take(LOGGED_KID_CHARS).collect());
        }
        verified
    }

    /// The pools, in the order of their index.
    pub fn pools(&self) -> &UserPools {
        &self.pools
    }

    /// The policies, in the order of their index.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The cache of verified tokens.
    pub fn cache(&self) -> &TokenCache {
        &self.cache
    }
}
