//! Rate limits: requests per address, attempts per user and address, attempts per user from all addresses, and messages
//! per recipient.
//!
//! A limit `N/duration` is a bucket of N that refills within the duration (GCRA, from `governor`); the limit of a user
//! is a pair of buckets ([`bucket::Guard`]). Buckets are stored under a keyed hash, so that no address and no name is
//! stored, in a cache of fixed size. When it is full, the least used bucket is evicted, which is not the one of an
//! attacker.
//! [`names`] maps the names of a user to each other.

mod bucket;
mod names;

use std::net::IpAddr;
use std::time::Duration;

pub(crate) use self::bucket::Rate;
use self::bucket::{Bucket, Buckets, Guard, Met, Network};
use self::names::Names;
use super::caller::Address;
use crate::metrics::account::AccountMetrics;

/// Configurable rates.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Requests per address.
    pub address: Rate,
    /// Attempts at a user's password or code, per address.
    pub user: Rate,
    /// Messages per recipient.
    pub sends: Rate,
}

/// Multiplier of `--limit-address` for all requests over a Unix socket together, because their clients have no address.
const GLOBAL: u32 = 10;

/// Values of the label `limit`.
pub(crate) const LABELS: [&str; 5] = ["address", "address_user", "user", "sends", "global"];

/// The rate limits and their state.
#[derive(Debug)]
pub(super) struct RateLimits {
    address: Buckets,
    guesses: Guard,
    sends: Buckets,
    sign_in_messages: Guard,
    global: Bucket,
    names: Names,
    metrics: AccountMetrics,
}

impl RateLimits {
    /// Creates limits with full buckets.
    pub(super) fn new(rates: Rates, metrics: AccountMetrics) -> Self {
        Self {
            address: Buckets::new(rates.address),
            guesses: Guard::new(rates.user),
            sends: Buckets::new(rates.sends),
            sign_in_messages: Guard::new(rates.sends),
            global: Bucket::new(rates.address.times(GLOBAL)),
            names: Names::default(),
            metrics,
        }
    }

    /// Counts a request from an address.
    ///
    /// # Errors
    /// Seconds to wait.
    pub(super) fn request(&self, address: &Address) -> Result<(), u64> {
        match network(address) {
            Some(network) => {
                let is_known = matches!(address, Address::Client(_));
                self.judge(if is_known { "address" } else { "global" }, self.address.take(&network))
            }
            None => self.judge("global", self.global.take()),
        }
    }

    /// Counts an attempt at the password or a code of `user`, for this name and for the user that it is known to belong
    /// to. Names that do not exist are counted in the same way.
    ///
    /// # Errors
    /// Seconds to wait.
    pub(super) fn guess(&self, address: &Address, user: &str) -> Result<(), u64> {
        self.guesses.take(network(address), &self.names.of(user)).or_else(|(met, wait)| {
            let limit = match met {
                Met::Address => "address_user",
                Met::User => "user",
            };
            self.judge(limit, Err(wait))
        })
    }

    /// Counts a message to these users and addresses, once per recipient.
    ///
    /// # Errors
    /// Seconds to wait.
    pub(super) fn send(&self, to: &[&str]) -> Result<(), u64> {
        let recipients = self.names.recipients(to);
        self.judge("sends", recipients.iter().try_for_each(|recipient| self.sends.take(recipient)))
    }

    /// Counts the message of a sign-in, in addition to the attempt. It has buckets of its own, of the same kind as
    /// those for attempts: an attacker who uses up a user's messages must not keep the user from signing in.
    ///
    /// # Errors
    /// Seconds to wait.
    pub(super) fn sign_in_message(&self, address: &Address, user: &str) -> Result<(), u64> {
        let taken = self.sign_in_messages.take(network(address), &self.names.of(user));
        self.judge("sends", taken.map_err(|(_, wait)| wait))
    }

    /// Learns that `name` belongs to `user`, after an attempt from `address` that was counted for the name only. If
    /// that is new, the attempt counts for the user, too.
    pub(super) fn names_user(&self, address: &Address, name: &str, user: &str) {
        if let Some(user) = self.names.learn(name, user) {
            // The attempt is over, so an exceeded limit affects only later attempts.
            let _ = self.guesses.take(network(address), &[user]);
        }
    }

    /// Learns that `name` is another name of `user`.
    pub(super) fn is_name_of(&self, name: &str, user: &str) {
        self.names.learn(name, user);
    }

    /// Learns that messages to `user` go to these addresses.
    pub(super) fn sends_to<'a>(&self, user: &str, addresses: impl Iterator<Item = &'a str>) {
        self.names.send_to(user, addresses);
    }

    fn judge(&self, limit: &'static str, taken: Result<(), Duration>) -> Result<(), u64> {
        taken.map_err(|wait| {
            self.metrics.limited(limit);
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

/// Returns the network that a request counts for: the one of its address, or one for all requests whose address cannot
/// be read. `None` for Unix sockets.
fn network(address: &Address) -> Option<Network> {
    match address {
        Address::Client(address) | Address::Peer(address) => Some(Some(prefix(*address))),
        Address::Unreadable => Some(None),
        Address::Unknown => None,
    }
}

/// Returns the network that one customer of a provider usually has: an IPv4 address, or the first 64 bits of an IPv6
/// address.
fn prefix(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests;
