//! The `state` of a sign-in at the hosted pages (RFC 6749 section 10.12): made by us, bound to one request, good for one use,
//! and kept by nobody.
//!
//! A state is a random number, when it ends, and an HMAC over both and over what it is bound to: the challenge of the code
//! verifier, the redirect URI, the browser where cookies are on. So it cannot be made up, moved to another request, or
//! used with another verifier, and no store has to be shared. What was used is remembered until it would have ended.
//!
//! Replicas understand each other's states if they have one key: it is derived from a file, or from the app client's
//! secret. Without either it is this process's own. A used state is known to the replica that saw it; the code that goes
//! with it is good for one use at Cognito, whichever replica asks.

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::{AccountError, random};
use crate::authz::UnixTime;

/// Seconds from the URL to the exchange: time for a second factor, or for signing up and finding a mail.
pub const LIFETIME: UnixTime = 15 * 60;
/// Used states that are remembered, at about 100 bytes each. When there are more, the oldest are forgotten: what is left
/// then is that a code is good for one use at Cognito.
const MAX_USED: u64 = 100_000;
/// What keys are derived for, so that a secret that is used elsewhere, too, gives another key here.
const LABEL: &[u8] = b"cognito-authz oauth state 1";

/// What states are proven with. Its `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct StateKey(hmac::Key);

impl StateKey {
    /// The key that every replica with this secret has, for this app client.
    pub fn derived(secret: &[u8], client: &str) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
        context.update(LABEL);
        context.update(client.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref()))
    }

    /// A key of this process, or `None` if the system has no random numbers.
    pub fn random() -> Option<Self> {
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>().ok()?)))
    }
}

/// What a state is good for.
#[derive(Clone, Copy)]
pub(super) struct Bound<'b> {
    /// The challenge of the code verifier.
    pub(super) challenge: &'b str,
    /// Where the code goes.
    pub(super) redirect_uri: &'b str,
    /// Which browser; empty without cookies.
    pub(super) browser: &'b str,
}

const ID_BYTES: usize = 16;
/// The number, and the time when it ends.
const HEAD_BYTES: usize = ID_BYTES + 8;

/// A state that was used: its number.
pub(super) struct Used([u8; ID_BYTES]);

/// Makes states, and takes each of them once.
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

    /// A new state that ends at `expires`.
    ///
    /// # Errors
    /// [`AccountError`] 503: the system has no random numbers at the moment.
    pub(super) fn issue(&self, bound: &Bound<'_>, expires: UnixTime) -> Result<String, AccountError> {
        let mut state = random::<ID_BYTES>()?.to_vec();
        state.extend(expires.to_be_bytes());
        let tag = self.tag(&state, bound);
        state.extend_from_slice(tag.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(state))
    }

    /// Uses a state up, if it is one of ours, for this, alive at `now`, and not used before.
    pub(super) fn redeem(&self, state: &str, bound: &Bound<'_>, now: UnixTime) -> Option<Used> {
        let bytes = URL_SAFE_NO_PAD.decode(state).ok()?;
        let (head, tag) = bytes.split_at_checked(HEAD_BYTES)?;
        constant_time::verify_slices_are_equal(tag, self.tag(head, bound).as_ref()).ok()?;
        let (id, expires) = head.split_first_chunk::<ID_BYTES>()?;
        if now >= UnixTime::from_be_bytes(expires.try_into().ok()?) {
            return None;
        }
        self.used.entry(*id).or_insert(()).is_fresh().then_some(Used(*id))
    }

    /// Makes a used state good again: nothing came of it.
    pub(super) fn give_back(&self, used: &Used) {
        self.used.invalidate(&used.0);
    }

    fn tag(&self, head: &[u8], bound: &Bound<'_>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(head);
        for part in [bound.challenge, bound.redirect_uri, bound.browser] {
            // With its length, so that nothing can move from one part to the next.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUND: Bound<'_> = Bound { challenge: "c", redirect_uri: "https://a/b", browser: "" };

    fn states(secret: &[u8], client: &str) -> States {
        States::new(&StateKey::derived(secret, client))
    }

    #[test]
    fn a_state_is_good_once_for_what_it_was_made_for() {
        let states = states(b"secret", "client");
        let state = states.issue(&BOUND, 100).unwrap();
        assert!(state.len() < 100 && state.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        for other in [
            Bound { challenge: "d", ..BOUND },
            Bound { redirect_uri: "https://a/", ..BOUND },
            Bound { browser: "x", ..BOUND },
            Bound { challenge: "ch", redirect_uri: "ttps://a/b", ..BOUND },
        ] {
            assert!(states.redeem(&state, &other, 0).is_none());
        }
        assert!(states.redeem(&state, &BOUND, 100).is_none(), "it has ended");
        let used = states.redeem(&state, &BOUND, 99).unwrap();
        assert!(states.redeem(&state, &BOUND, 99).is_none(), "it was used");
        states.give_back(&used);
        assert!(states.redeem(&state, &BOUND, 99).is_some());
        assert_ne!(states.issue(&BOUND, 100).unwrap(), states.issue(&BOUND, 100).unwrap());
    }

    #[test]
    fn replicas_with_one_secret_understand_each_other() {
        let state = states(b"secret", "client").issue(&BOUND, 100).unwrap();
        assert!(states(b"secret", "client").redeem(&state, &BOUND, 0).is_some());
        assert!(states(b"secret", "other").redeem(&state, &BOUND, 0).is_none());
        assert!(states(b"other", "client").redeem(&state, &BOUND, 0).is_none());
        let [one, other] = [(); 2].map(|()| States::new(&StateKey::random().unwrap()));
        let state = one.issue(&BOUND, 100).unwrap();
        assert!(other.redeem(&state, &BOUND, 0).is_none() && one.redeem(&state, &BOUND, 0).is_some());
    }

    proptest! {
        #[test]
        fn what_was_changed_is_refused(at in 0_usize..75, to in "[A-Za-z0-9_-]", noise in ".{0,120}") {
            let states = states(b"secret", "client");
            let state = states.issue(&BOUND, 100).unwrap();
            let mut changed = state.clone();
            changed.replace_range(at..=at, &to);
            prop_assert!(changed == state || states.redeem(&changed, &BOUND, 0).is_none());
            prop_assert!(states.redeem(&noise, &BOUND, 0).is_none());
            prop_assert!(states.redeem(&state[..at], &BOUND, 0).is_none());
        }
    }
}
