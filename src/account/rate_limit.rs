//! How often: per address, per address and user for what could be guessed, per user from everywhere, and per recipient
//! for what sends messages.
//!
//! A limit `N/duration` is a bucket of N that fills up again within the duration (GCRA, from `governor`); that of a user
//! is a pair of buckets ([`bucket::Guard`]). Buckets are kept under a keyed hash, so that no address and no name is
//! kept, and in a cache of a fixed size: when it is full, what was asked for least makes room, which is not whoever
//! tries hardest. A user's names are brought together in [`names`].

mod bucket;
mod names;

use std::net::IpAddr;
use std::time::Duration;

pub use self::bucket::Rate;
use self::bucket::{Bucket, Buckets, Guard, Met, Network};
use self::names::Names;
use super::address::Address;
use crate::metrics::account::AccountMetrics;

/// The limits that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Requests of an address.
    pub address: Rate,
    /// Attempts of an address at a user's password or code.
    pub user: Rate,
    /// Messages to a recipient.
    pub sends: Rate,
}

/// Multiplier of `--limit-address` for all requests over a Unix socket, where clients have no address.
const GLOBAL: u32 = 10;

/// Values of the label `limit`.
pub const LABELS: [&str; 5] = ["address", "address_user", "user", "sends", "global"];

/// The limits.
#[derive(Debug)]
pub struct RateLimits {
    address: Buckets,
    guesses: Guard,
    sends: Buckets,
    sign_in_messages: Guard,
    global: Bucket,
    names: Names,
    metrics: AccountMetrics,
}

impl RateLimits {
    /// Limits of these rates.
    pub fn new(rates: Rates, metrics: AccountMetrics) -> Self {
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

    /// Counts a request of an address.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn request(&self, address: &Address) -> Result<(), u64> {
        match network(address) {
            Some(network) => {
                let is_known = matches!(address, Address::Client(_));
                self.judge(if is_known { "address" } else { "global" }, self.address.take(&network))
            }
            None => self.judge("global", self.global.take()),
        }
    }

    /// Counts an attempt at the password or a code of `user`, for this name and for the user that it is known to
    /// belong to. Names that do not exist count in the same way.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn guess(&self, address: &Address, user: &str) -> Result<(), u64> {
        self.guesses.take(network(address), &self.names.of(user)).or_else(|(met, wait)| {
            let limit = match met {
                Met::Address => "address_user",
                Met::User => "user",
            };
            self.judge(limit, Err(wait))
        })
    }

    /// Counts a message to these users and addresses, once for each recipient.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn send(&self, to: &[&str]) -> Result<(), u64> {
        let recipients = self.names.recipients(to);
        self.judge("sends", recipients.iter().try_for_each(|recipient| self.sends.take(recipient)))
    }

    /// Counts a sign-in that sends a message, beside its being an attempt. It has buckets of its own, and those of a
    /// user: whoever uses up the messages of a user's must not keep the user from signing in.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn sign_in_message(&self, address: &Address, user: &str) -> Result<(), u64> {
        let taken = self.sign_in_messages.take(network(address), &self.names.of(user));
        self.judge("sends", taken.map_err(|(_, wait)| wait))
    }

    /// Takes in that Cognito calls the user of this name `user`, after an attempt from `address` that was counted for
    /// the name alone: it counts for the user, too.
    pub fn names_user(&self, address: &Address, name: &str, user: &str) {
        if let Some(user) = self.names.learn(name, user) {
            // It is over already; what it leaves is for those that follow.
            let _ = self.guesses.take(network(address), &[user]);
        }
    }

    /// Takes in that `name` is another name of `user`.
    pub fn is_name_of(&self, name: &str, user: &str) {
        self.names.learn(name, user);
    }

    /// Takes in that messages to `user` go to these addresses.
    pub fn sends_to<'a>(&self, user: &str, addresses: impl Iterator<Item = &'a str>) {
        self.names.send_to(user, addresses);
    }

    fn judge(&self, limit: &'static str, taken: Result<(), Duration>) -> Result<(), u64> {
        taken.map_err(|wait| {
            self.metrics.limited(limit);
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

/// The network that a request counts for: that of its address, or the one of all whose address cannot be read.
fn network(address: &Address) -> Option<Network> {
    match address {
        Address::Client(address) | Address::Peer(address) => Some(Some(prefix(*address))),
        Address::Unreadable => Some(None),
        Address::Unknown => None,
    }
}

/// The network that one customer has: an IPv4 address, or the first 64 bits of an IPv6 one.
fn prefix(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests;
