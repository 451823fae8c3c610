//! Verifies a token: form, header, claims, signature.
//!
//! Each state of a token is a type: [`Decoded`], then [`UnverifiedToken`], then [`CandidateToken`] (only the signature is
//! left to verify), then [`Claims`]. Each type can only be created from the one before, so no check can be left out. Tests
//! have no other way either: they sign real tokens.

pub(crate) mod claims;
mod json;
mod raw_claims;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use self::claims::{Claims, WantedClaims};
use self::json::object;
use self::raw_claims::{CheckedClaims, Claim, RawClaims};
use super::denial::Denial;
use super::verdict::Step;
use crate::clock::UnixTime;
use crate::jwks::VerifyingKey;
use crate::revocation::{MarkedClaims, Marks};
use crate::user_pool::{AcceptedUse, Clients, PoolIndex, UserPool, UserPoolId, UserPools};

/// Maximum length of a token, in bytes. A longer one is [`Denial::TokenTooLarge`].
pub(crate) const MAX_TOKEN_BYTES: usize = 16_384;

/// Decoded segments of a compact JWS (RFC 7515 section 7.1). Not `Debug`, because a token must not be logged.
pub struct Decoded<'t> {
    token: &'t str,
    signing_input: &'t str,
    header: String,
    payload: String,
    signature: Vec<u8>,
}

impl<'t> Decoded<'t> {
    /// Decodes a token: three segments of unpadded, canonical base64url, of which the first two are UTF-8.
    ///
    /// # Errors
    /// [`Denial::TokenTooLarge`], which is checked before decoding; [`Denial::MalformedToken`].
    pub fn new(token: &'t str) -> Result<Self, Denial> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }
        let malformed = Denial::MalformedToken;
        let (signing_input, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(malformed)?;
        // With a fourth segment, one of the three contains a dot, which is not a character of base64url.
        let bytes = |segment: &str| URL_SAFE_NO_PAD.decode(segment).map_err(|_| malformed);
        let text = |segment: &str| String::from_utf8(bytes(segment)?).map_err(|_| malformed);
        Ok(Self { token, signing_input, header: text(header)?, payload: text(payload)?, signature: bytes(signature)? })
    }

    /// Header and payload, not verified, for a report to the holder of the token; null if it is not JSON.
    pub(crate) fn content(&self) -> (Value, Value) {
        let read = |text: &str| serde_json::from_str(text).unwrap_or_default();
        (read(&self.header), read(&self.payload))
    }

    /// Parses both JSON objects.
    ///
    /// # Errors
    /// [`Denial::MalformedToken`], also for an object that two parsers could read differently (see `token/json.rs`).
    pub fn read(&self) -> Result<UnverifiedToken<'_>, Denial> {
        let malformed = |_| Denial::MalformedToken;
        Ok(UnverifiedToken {
            decoded: self,
            header: object(&self.header).map_err(malformed)?,
            claims: object(&self.payload).map_err(malformed)?,
        })
    }
}

/// Parsed token. Any client can choose its content: trust none of it.
pub struct UnverifiedToken<'t> {
    decoded: &'t Decoded<'t>,
    header: Header<'t>,
    claims: RawClaims<'t>,
}

/// Members of a JOSE header that checks use. `jku`, `jwk`, `x5u` and `x5c` are not read: all keys come from the configured
/// pool.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Header<'t> {
    #[serde(borrow)]
    alg: Claim<'t>,
    #[serde(borrow)]
    kid: Claim<'t>,
    crit: Presence,
    b64: Presence,
}

/// `true` if a member is present, even if it is `null`.
#[derive(Default)]
struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Self(true))
    }
}

impl<'t> UnverifiedToken<'t> {
    /// `kid`, not verified. To log it, escape it and limit its length.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.header.kid.as_text()
    }

    /// `exp`, not verified. Only for uses that need no proof, such as `expiresIn` of the account API.
    pub(crate) fn expires(&self) -> Option<UnixTime> {
        self.claims.expires()
    }

    /// Pool that `iss` belongs to, not verified.
    pub(crate) fn pool<'p>(&self, pools: &'p UserPools) -> Option<(PoolIndex, &'p UserPool)> {
        pools.by_issuer(self.claims.issuer().ok()?)
    }

    /// What the token can be revoked by, not verified. `None` if it has no `sub`.
    pub(crate) fn marks(&self, pool: &UserPoolId) -> Option<Marks> {
        Some(Marks::new(pool, &self.claims.marked()?, self.decoded.token))
    }

    /// Runs every check that needs no key, in this order: `alg`, `crit`, `kid`, `iss`, `token_use`, `sub`, app client,
    /// `exp`, `nbf`, life, types. Sets `step` to the step that runs. A passed check proves nothing before the signature is
    /// verified.
    ///
    /// # Errors
    /// The [`Denial`] of the first check that fails.
    pub fn check(
        &'t self,
        pools: &'t UserPools,
        purpose: Purpose<'t>,
        now: UnixTime,
        limits: TimeLimits,
        step: &mut Step,
    ) -> Result<CandidateToken<'t>, Denial> {
        *step = Step::Algorithm;
        if self.header.alg.as_text() != Some("RS256") {
            return Err(Denial::UnsupportedAlgorithm);
        }
        *step = Step::Critical;
        if self.header.crit.0 || self.header.b64.0 {
            return Err(Denial::UnsupportedHeader);
        }
        *step = Step::Kid;
        let kid = self.kid().filter(|kid| !kid.is_empty()).ok_or(Denial::MissingKid)?;
        *step = Step::Issuer;
        let (pool_index, pool) = pools.by_issuer(self.claims.issuer()?).ok_or(Denial::UnknownIssuer)?;
        let expected = match purpose {
            Purpose::Check | Purpose::Session => {
                Expected { pool: &pool.name, token_use: pool.token_use, clients: &pool.clients }
            }
            Purpose::Account(expected) => expected,
        };
        if expected.pool != &*pool.name {
            return Err(Denial::UnknownIssuer);
        }
        if matches!(purpose, Purpose::Session) {
            *step = Step::TokenUse;
            self.claims.token_use(AcceptedUse::Access)?;
        }
        let claims = self.claims.check(expected, now, limits, step)?;
        Ok(CandidateToken { decoded: self.decoded, pool: pool_index, pool_id: &pool.id, kid, claims })
    }
}

/// Limits of the times in a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// Clock skew allowed for `exp` and `nbf`, in seconds.
    pub leeway: i64,
    /// Maximum of `exp - iat`, in seconds: revocations are not kept for longer.
    pub max_life: i64,
}

/// Use of a token, which determines the accepted tokens.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'e> {
    /// Bearer token of a check. The settings of its pool apply.
    Check,
    /// Session cookie of a check. Must be an access token, even if the pool accepts ID tokens.
    Session,
    /// Token of the account API: the caller's access token, or a token that it returns. The settings of the pool for checks
    /// do not apply.
    Account(Expected<'e>),
}

/// Tokens that the account API accepts for one use.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'e> {
    /// Name of the pool.
    pub(crate) pool: &'e str,
    /// Accepted kinds of token.
    pub(crate) token_use: AcceptedUse,
    /// Accepted app clients.
    pub(crate) clients: &'e Clients,
}

/// Token that has passed every check but that of its signature.
pub struct CandidateToken<'t> {
    decoded: &'t Decoded<'t>,
    pool: PoolIndex,
    pool_id: &'t UserPoolId,
    kid: &'t str,
    claims: CheckedClaims<'t>,
}

impl CandidateToken<'_> {
    /// Pool whose key must verify the signature.
    pub(crate) fn pool(&self) -> PoolIndex {
        self.pool
    }

    /// `kid` of the key that must verify the signature, never empty.
    pub fn kid(&self) -> &str {
        self.kid
    }

    /// Verifies the signature and returns the standard claims and the `wanted` ones.
    ///
    /// # Errors
    /// [`Denial::BadSignature`]. [`Denial::MalformedToken`] if the payload cannot be parsed, which [`Decoded::read`] has
    /// ruled out.
    pub fn verify(self, key: &VerifyingKey, wanted: &WantedClaims) -> Result<Claims, Denial> {
        let proof = key.verify(self.decoded.signing_input.as_bytes(), &self.decoded.signature);
        let proof = proof.ok_or(Denial::BadSignature)?;
        let extra = wanted.pick(&self.decoded.payload)?;
        let CheckedClaims { sub, origin_jti, jti, signed_in, .. } = self.claims;
        let marked = MarkedClaims { sub, origin_jti, jti, since: signed_in };
        let marks = Marks::new(self.pool_id, &marked, self.decoded.token);
        Ok(Claims::new(&self.claims, proof, marks, extra))
    }
}

#[cfg(test)]
pub(crate) mod tests;
