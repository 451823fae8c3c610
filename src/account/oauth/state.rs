//! The `state` of a sign-in at the hosted pages (RFC 6749 section 10.12): made here, bound to one request, usable once,
//! and not stored.
//!
//! A state consists of a random number, its expiry, and an HMAC over both and over its binding: the challenge of the
//! code verifier, the redirect URI, the kind of sign-in, and, with cookies, the browser. So a state cannot be forged, moved to another
//! request, or used with another verifier, and replicas do not have to share a store. Used states are remembered until
//! they expire.
//!
//! Replicas accept each other's states if they have the same key, which is derived from a file or from the app client's
//! secret. Without either, the key is random and belongs to one process. Only the replica that redeemed a state knows
//! that it was used; Cognito makes sure that the code is used once.

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::AccountError;
use crate::authz::UnixTime;

/// Lifetime of a state in seconds: enough for a second factor, or to sign up and confirm an address.
pub(crate) const LIFETIME: UnixTime = 15 * 60;
/// Maximum number of used states that are remembered, at about 100 bytes each. Beyond it the oldest are forgotten; then
/// only Cognito prevents a second use of the code.
const MAX_USED: u64 = 100_000;
/// Context of the key derivation, so that a secret that is also used elsewhere gives a different key here.
const LABEL: &[u8] = b"cognito-authz oauth state 1";

/// Key that authenticates states. Its `Debug` output does not contain the key.
#[derive(Clone, Debug)]
pub struct StateKey(hmac::Key);

impl StateKey {
    /// Derives the key that all replicas with this secret share, for this app client.
    pub(crate) fn derived(secret: &[u8], client: &str) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(LABEL);
        context.update(client.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref()))
    }

    /// Creates a key for this process, or `None` if the system has no random numbers.
    pub(crate) fn random() -> Option<Self> {
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>().ok()?)))
    }
}

/// Kind of sign-in that a state belongs to. A state of one kind is not valid for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A page with scripts, which sends the code to `/oauth/token`.
    Script,
    /// A navigation, which ends at `/oauth/callback`.
    Navigation,
}

/// Request that a state is bound to.
#[derive(Clone, Copy)]
pub(super) struct Binding<'b> {
    pub(super) purpose: Purpose,
    /// Challenge of the code verifier.
    pub(super) challenge: &'b str,
    pub(super) redirect_uri: &'b str,
    /// Anything else that must not change until the sign-in ends. For scripts, it is the identifier of the browser,
    /// which is empty without cookies.
    pub(super) holder: &'b str,
}

const ID_BYTES: usize = 16;
/// Length of the random number and the expiry.
const HEAD_BYTES: usize = ID_BYTES + 8;

/// Random number of a used state.
pub(in crate::account) struct Used([u8; ID_BYTES]);

/// Issues states and redeems each of them once.
#[derive(Debug)]
pub(super) struct States {
    key: hmac::Key,
    used: Cache<[u8; ID_BYTES], ()>,
}

impl States {
    pub(super) fn new(key: &StateKey) -> Self {
        let lifetime = Duration::from_secs(LIFETIME.unsigned_abs());
        let used =
            Cache::builder().max_capacity(MAX_USED).time_to_live(lifetime).eviction_policy(EvictionPolicy::lru());
        Self { key: key.0.clone(), used: used.build() }
    }

    /// Creates a state that expires at `expires`.
    ///
    /// # Errors
    /// [`AccountError`] 503 if the system has no random numbers at the moment.
    pub(super) fn issue(&self, binding: &Binding<'_>, expires: UnixTime) -> Result<String, AccountError> {
        let mut state = random::<ID_BYTES>()?.to_vec();
        state.extend(expires.to_be_bytes());
        let tag = self.tag(&state, binding);
        state.extend_from_slice(tag.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(state))
    }

    /// Uses up a state. Returns `None` if it was not issued here, is bound to another request, has expired at `now`, or
    /// was used before.
    pub(super) fn redeem(&self, state: &str, binding: &Binding<'_>, now: UnixTime) -> Option<Used> {
        let bytes = URL_SAFE_NO_PAD.decode(state).ok()?;
        let (head, tag) = bytes.split_at_checked(HEAD_BYTES)?;
        constant_time::verify_slices_are_equal(tag, self.tag(head, binding).as_ref()).ok()?;
        let (id, expires) = head.split_first_chunk::<ID_BYTES>()?;
        if now >= UnixTime::from_be_bytes(expires.try_into().ok()?) {
            return None;
        }
        self.used.entry(*id).or_insert(()).is_fresh().then_some(Used(*id))
    }

    /// Makes a used state usable again, because its code was not sent to Cognito.
    pub(super) fn give_back(&self, used: &Used) {
        self.used.invalidate(&used.0);
    }

    fn tag(&self, head: &[u8], binding: &Binding<'_>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(head);
        let purpose = match binding.purpose {
            Purpose::Script => "script",
            Purpose::Navigation => "navigation",
        };
        for part in [purpose, binding.challenge, binding.redirect_uri, binding.holder] {
            // Prefixed with its length, so that no byte can move from one part to the next.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign()
    }
}

/// Returns random bytes that cannot be guessed.
///
/// # Errors
/// [`AccountError`] 503 if the system has no random numbers at the moment.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AccountError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| AccountError::unavailable())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BINDING: Binding<'_> =
        Binding { purpose: Purpose::Script, challenge: "c", redirect_uri: "https://a/b", holder: "" };

    fn states(secret: &[u8], client: &str) -> States {
        States::new(&StateKey::derived(secret, client))
    }

    #[test]
    fn a_state_is_usable_once_for_its_own_request() {
        let states = states(b"secret", "client");
        let state = states.issue(&BINDING, 100).unwrap();
        assert!(state.len() < 100 && state.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        for other in [
            Binding { challenge: "d", ..BINDING },
            Binding { redirect_uri: "https://a/", ..BINDING },
            Binding { holder: "x", ..BINDING },
            Binding { purpose: Purpose::Navigation, ..BINDING },
            Binding { challenge: "ch", redirect_uri: "ttps://a/b", ..BINDING },
        ] {
            assert!(states.redeem(&state, &other, 0).is_none());
        }
        assert!(states.redeem(&state, &BINDING, 100).is_none(), "expired");
        let used = states.redeem(&state, &BINDING, 99).unwrap();
        assert!(states.redeem(&state, &BINDING, 99).is_none(), "used");
        states.give_back(&used);
        assert!(states.redeem(&state, &BINDING, 99).is_some());
        assert_ne!(states.issue(&BINDING, 100).unwrap(), states.issue(&BINDING, 100).unwrap());
    }

    #[test]
    fn replicas_with_the_same_secret_accept_each_others_states() {
        let state = states(b"secret", "client").issue(&BINDING, 100).unwrap();
        assert!(states(b"secret", "client").redeem(&state, &BINDING, 0).is_some());
        assert!(states(b"secret", "other").redeem(&state, &BINDING, 0).is_none());
        assert!(states(b"other", "client").redeem(&state, &BINDING, 0).is_none());
        let [one, other] = [(); 2].map(|()| States::new(&StateKey::random().unwrap()));
        let state = one.issue(&BINDING, 100).unwrap();
        assert!(other.redeem(&state, &BINDING, 0).is_none() && one.redeem(&state, &BINDING, 0).is_some());
    }

    proptest! {
        #[test]
        fn changed_states_are_rejected(at in 0_usize..75, to in "[A-Za-z0-9_-]", noise in ".{0,120}") {
            let states = states(b"secret", "client");
            let state = states.issue(&BINDING, 100).unwrap();
            let mut changed = state.clone();
            changed.replace_range(at..=at, &to);
            prop_assert!(changed == state || states.redeem(&changed, &BINDING, 0).is_none());
            prop_assert!(states.redeem(&noise, &BINDING, 0).is_none());
            prop_assert!(states.redeem(&state[..at], &BINDING, 0).is_none());
        }
    }
}
