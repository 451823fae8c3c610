//! A bearer token on its way from text to [`Claims`]: size, form, header, claims, signature.
//!
//! [`Decoded`] → [`UnverifiedToken`] (trusted for nothing) → [`CandidateToken`] (nothing speaks
//! against it but its signature) → [`Claims`]. Each step consumes the one before it, so none can be left out.
//! There is no way around the signature, also not for tests.

mod claim;
pub mod claims;
pub mod extra_claims;
mod json;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::claim::Claim;
use self::claims::{CheckedClaims, Claims, Expected, RawClaims, UnixTime};
use self::extra_claims::WantedClaims;
use self::json::object;
use super::denial::Denial;
use super::step::Step;
use crate::jwks::VerifyingKey;
use crate::user_pool::{AcceptedUse, PoolIndex, UserPool, UserPools};

/// A token of this many bytes is read, one byte more is [`Denial::TokenTooLarge`].
pub const MAX_TOKEN_BYTES: usize = 16_384;

/// The segments of a compact JWS (RFC 7515 section 7.1), decoded. Like all of a token it has no `Debug`.
pub struct Decoded<'t> {
    signing_input: &'t str,
    header: String,
    payload: String,
    signature: Vec<u8>,
}

impl<'t> Decoded<'t> {
    /// Three segments of unpadded, canonical base64url, of which the first two are text.
    ///
    /// # Errors
    /// [`Denial::TokenTooLarge`] before anything is decoded, else [`Denial::MalformedToken`].
    pub fn new(token: &'t str) -> Result<Self, Denial> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }
        let malformed = Denial::MalformedToken;
        let (signing_input, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signing_input.split_once('.').ok_or(malformed)?;
        // A fourth segment would leave a dot in one of the three, which base64url has not.
        let bytes = |segment: &str| URL_SAFE_NO_PAD.decode(segment).map_err(|_| malformed);
        let text = |segment: &str| String::from_utf8(bytes(segment)?).map_err(|_| malformed);
        Ok(Self { signing_input, header: text(header)?, payload: text(payload)?, signature: bytes(signature)? })
    }

    /// Reads both JSON objects. One that not every reader reads alike is malformed, whatever is wanted of it.
    ///
    /// # Errors
    /// [`Denial::MalformedToken`].
    pub fn read(&self) -> Result<UnverifiedToken<'_>, Denial> {
        let malformed = |_| Denial::MalformedToken;
        Ok(UnverifiedToken {
            decoded: self,
            header: object(&self.header).map_err(malformed)?,
            claims: object(&self.payload).map_err(malformed)?,
        })
    }
}

/// A token that has been read and is trusted for nothing.
pub struct UnverifiedToken<'t> {
    decoded: &'t Decoded<'t>,
    header: Header<'t>,
    claims: RawClaims<'t>,
}

/// The members of a JOSE header that can refuse a token. `jku`, `jwk`, `x5u` and `x5c` are not read at all: keys
/// come from the configured pool and from nowhere else.
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

/// Whether a member stands there, be it `null`.
#[derive(Default)]
struct Presence(bool);

impl<'de> Deserialize<'de> for Presence {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Self(true))
    }
}

impl<'t> UnverifiedToken<'t> {
    /// The `kid`, as text of the caller's: for a log it has to be escaped and cut.
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_text()
    }

    /// `exp`, for what only depends on it by courtesy. Its being there proves nothing.
    pub fn expires(&self) -> Option<UnixTime> {
        self.claims.expires()
    }

    /// The pool whose issuer the token names. Its being named proves nothing.
    pub fn pool<'p>(&self, pools: &'p UserPools) -> Option<(PoolIndex, &'p UserPool)> {
        pools.by_issuer(self.claims.issuer().ok()?)
    }

    /// Every check that needs no key, in this order: `alg`, `crit`, `kid`, `iss`, `token_use`, `sub`,
    /// client, `exp`, `nbf`. These may refuse, and that is all they may do. The pool says what its tokens have to be.
    ///
    /// # Errors
    /// The [`Denial`] of the first check that fails.
    pub fn check(&'t self, pools: &'t UserPools, now: UnixTime, leeway: i64) -> Result<CandidateToken<'t>, Denial> {
        self.check_as(pools, Purpose::Check, now, leeway, &mut Step::Form)
    }

    /// The same for a token with any purpose. `step` is how far it got.
    ///
    /// # Errors
    /// The [`Denial`] of the first check that fails.
    pub fn check_as(
        &'t self,
        pools: &'t UserPools,
        purpose: Purpose<'t>,
        now: UnixTime,
        leeway: i64,
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
            Purpose::Check | Purpose::Session => Expected::by_checks(pool),
            Purpose::Other(expected) => expected,
        };
        if expected.pool != &*pool.name {
            return Err(Denial::UnknownIssuer);
        }
        if matches!(purpose, Purpose::Session) {
            *step = Step::TokenUse;
            self.claims.token_use(AcceptedUse::Access)?;
        }
        let claims = self.claims.check(expected, now, leeway, step)?;
        Ok(CandidateToken { decoded: self.decoded, pool: pool_index, kid, claims })
    }
}

/// What a token is presented for, which decides what it has to be.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'e> {
    /// The credential of a check: what its pool accepts.
    Check,
    /// The same out of a browser's session: an access token, also where its pool accepts ID tokens.
    Session,
    /// Something else, such as a token that the account API hands out.
    Other(Expected<'e>),
}

/// A token against which nothing speaks but, perhaps, its signature.
pub struct CandidateToken<'t> {
    decoded: &'t Decoded<'t>,
    pool: PoolIndex,
    kid: &'t str,
    claims: CheckedClaims<'t>,
}

impl CandidateToken<'_> {
    /// The pool that has to have signed it.
    pub fn pool(&self) -> PoolIndex {
        self.pool
    }

    /// The key it names.
    pub fn kid(&self) -> &str {
        self.kid
    }

    /// Verifies the signature. Of the claims beside the usual ones, the `wanted` ones are kept.
    ///
    /// # Errors
    /// [`Denial::BadSignature`]; [`Denial::MalformedToken`] if the wanted claims cannot be read, which [`Decoded::read`] has
    /// ruled out.
    pub fn verify(self, key: &VerifyingKey, wanted: &WantedClaims) -> Result<Claims, Denial> {
        let proof = key.verify(self.decoded.signing_input.as_bytes(), &self.decoded.signature);
        let proof = proof.ok_or(Denial::BadSignature)?;
        Ok(self.claims.into_verified(proof, wanted.pick(&self.decoded.payload)?))
    }
}

#[cfg(test)]
pub(crate) mod tests;
