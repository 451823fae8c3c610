//! The last refusals, for the status page ([`Refusals`]).
//!
//! A refusal is recorded without waiting: if another worker records one at the same moment, it is only counted. Allowed
//! checks do not come here. What is kept has fixed bounds, and is free of identities and of text that a client can choose.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crate::authz::{Denial, Ruleset, Trace};
use crate::clock::since_1970;

/// Number of refusals that are kept.
pub(crate) const CAPACITY: usize = 100;
/// Maximum number of characters that are kept of a requirement.
const MAX_REQUIREMENT: usize = 128;

/// A refused check, or one that a policy in shadow mode allowed and would have refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Time since 1970.
    pub(crate) at: Duration,
    pub(crate) denial: Denial,
    /// `true` if the request was forwarded, because its policy is in shadow mode.
    pub(crate) is_shadow: bool,
    /// Name of the policy, if one was chosen.
    pub(crate) policy: Option<Box<str>>,
    /// Name of the pool, if the issuer was known.
    pub(crate) pool: Option<Box<str>>,
    /// Position of the route in the policy file, and the version of the rules that have it.
    pub(crate) route: Option<(u64, usize)>,
    /// Requirement of the policy that the token does not meet, as the policy file spells it.
    pub(crate) requirement: Option<Box<str>>,
    /// `x-request-id`, if it is well-formed.
    pub(crate) request_id: Option<Box<str>>,
}

impl Refusal {
    /// Describes the refusal of a check that ended now. `request_id` has to be well-formed.
    pub(super) fn new(
        (denial, is_shadow): (Denial, bool),
        trace: &Trace,
        rules: &Ruleset,
        request_id: Option<&str>,
    ) -> Self {
        let policy = trace.policy.and_then(|policy| rules.policies.get(policy));
        let pool = trace.pool.and_then(|pool| rules.pools.get(pool));
        let requirement = trace.requirement.as_deref();
        Self {
            at: since_1970(),
            denial,
            is_shadow,
            policy: policy.map(|policy| policy.name.clone()),
            pool: pool.map(|pool| pool.name.clone()),
            route: trace.route.map(|position| (rules.version, position)),
            requirement: requirement.map(|text| text.chars().take(MAX_REQUIREMENT).collect::<String>().into()),
            request_id: request_id.map(Into::into),
        }
    }
}

/// The last refusals.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    kept: Mutex<Kept>,
    /// Number of refusals that were not recorded, because another one was being recorded.
    skipped: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    /// In order of arrival.
    all: VecDeque<Refusal>,
    /// Number of these by denial.
    of_each: [usize; Denial::ALL.len()],
}

impl Default for Kept {
    fn default() -> Self {
        Self { all: VecDeque::with_capacity(CAPACITY), of_each: [0; Denial::ALL.len()] }
    }
}

impl Refusals {
    /// Keeps a refusal. Never waits.
    pub(super) fn record(&self, refusal: Refusal) {
        let mut kept = match self.kept.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(kept)) => kept.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let replaced = kept.push(refusal);
        drop(kept);
        drop(replaced); // frees its memory without the lock
    }

    /// Returns the refusals that are kept, the newest first.
    pub(crate) fn newest_first(&self) -> Vec<Refusal> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.all.iter().rev().cloned().collect()
    }

    /// Number of refusals since the start that were not recorded, because another one was being recorded.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

impl Kept {
    /// Adds a refusal. If there is no room, it replaces the oldest one of the most frequent reason, so that a flood of one
    /// reason does not push out all others.
    fn push(&mut self, refusal: Refusal) -> Option<Refusal> {
        let replaced = if self.all.len() < CAPACITY { None } else { self.remove_oldest_of_most() };
        self.change(refusal.denial, |count| count + 1);
        self.all.push_back(refusal);
        replaced
    }

    fn remove_oldest_of_most(&mut self) -> Option<Refusal> {
        let most = self.of_each.iter().max().copied().unwrap_or_default();
        let is_of_most = |refusal: &Refusal| self.of_each.get(refusal.denial as usize) == Some(&most);
        let position = self.all.iter().position(is_of_most).unwrap_or_default();
        let removed = self.all.remove(position)?;
        self.change(removed.denial, |count| count.saturating_sub(1));
        Some(removed)
    }

    fn change(&mut self, denial: Denial, change: impl FnOnce(usize) -> usize) {
        if let Some(count) = self.of_each.get_mut(denial as usize) {
            *count = change(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(denial: Denial, number: u64) -> Refusal {
        Refusal {
            at: Duration::from_secs(number),
            denial,
            is_shadow: false,
            policy: None,
            pool: None,
            route: None,
            requirement: None,
            request_id: None,
        }
    }

    fn times(refusals: &Refusals, denial: Denial) -> Vec<u64> {
        let newest = refusals.newest_first();
        newest.iter().filter(|kept| kept.denial == denial).map(|kept| kept.at.as_secs()).collect()
    }

    #[test]
    fn the_last_hundred_are_kept_newest_first() {
        let refusals = Refusals::default();
        for number in 0..250 {
            refusals.record(refusal(Denial::Expired, number));
        }
        assert_eq!(times(&refusals, Denial::Expired), (150..250).rev().collect::<Vec<_>>());
        assert_eq!(refusals.skipped(), 0);
    }

    #[test]
    fn a_flood_of_one_reason_does_not_push_out_the_others() {
        let refusals = Refusals::default();
        for number in 0..3 {
            refusals.record(refusal(Denial::InsufficientScope, number));
        }
        for number in 3..10_000 {
            refusals.record(refusal(Denial::MissingCredential, number));
        }
        assert_eq!(times(&refusals, Denial::InsufficientScope), [2, 1, 0]);
        assert_eq!(times(&refusals, Denial::MissingCredential), (9_903..10_000).rev().collect::<Vec<_>>());
        // Rare reasons share the room.
        for number in 10_000..10_100 {
            refusals.record(refusal(Denial::InsufficientScope, number));
        }
        let of = |denial| times(&refusals, denial).len();
        assert_eq!(refusals.newest_first().len(), CAPACITY);
        assert!(of(Denial::InsufficientScope).abs_diff(of(Denial::MissingCredential)) <= 2);
        assert_eq!(refusals.newest_first()[0].at.as_secs(), 10_099);
    }

    #[test]
    fn a_refusal_is_recorded_without_waiting() {
        let refusals = Refusals::default();
        let held = refusals.kept.lock().unwrap();
        for number in 0..3 {
            refusals.record(refusal(Denial::Expired, number));
        }
        drop(held);
        refusals.record(refusal(Denial::Expired, 3));
        assert_eq!((times(&refusals, Denial::Expired), refusals.skipped()), (vec![3], 3));
    }
}
