//! How often: per address, per address and user for what could be guessed, per user from everywhere, and per user for
//! what sends mail.
//!
//! A limit `N/duration` is a bucket of N that fills up again within the duration (GCRA, from `governor`). Buckets are
//! kept under a keyed hash, so that no address and no name is kept, and in a cache of a fixed size: when it
//! is full, what was asked for least makes room, which is not whoever tries hardest.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;

use super::address::Address;
use super::table;
use crate::metrics::account::AccountMetrics;

/// So many within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a rate such as 75/1m";
        let (count, per) = text.split_once('/').ok_or(wrong)?;
        let is_number = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        let count =
            count.parse::<NonZeroU32>().ok().filter(|count| is_number && count.get() <= 1_000_000).ok_or(wrong)?;
        let per = humantime::parse_duration(per).map_err(|_| wrong)?;
        let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
        if range.contains(&per) { Ok(Self { count, per }) } else { Err("the time of a rate is between 1s and 1d") }
    }
}

impl Rate {
    /// `times` as many within the same time, but at least one.
    fn times(self, numerator: u32, denominator: u32) -> Self {
        let count = self.count.get().saturating_mul(numerator) / denominator;
        Self { count: NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN), ..self }
    }

    /// A full bucket of `burst` that fills up at this rate.
    fn limiter(self, burst: NonZeroU32) -> DefaultDirectRateLimiter {
        // At most a million within at least a second: a share of it is never nothing.
        let quota = Quota::with_period(self.per / self.count.get()).unwrap_or(Quota::per_second(self.count));
        RateLimiter::direct(quota.allow_burst(burst))
    }
}

/// The limits that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Requests of an address.
    pub address: Rate,
    /// Attempts of an address at a user's password or code.
    pub user: Rate,
    /// Messages to a user.
    pub sends: Rate,
}

/// Buckets of each kind that are kept; about 200 bytes each.
const MAX_BUCKETS: u64 = 50_000;
/// How many addresses all requests are limited as when nobody knows where they come from.
const GLOBAL: u32 = 10;

/// Values of the label `limit`.
pub const LABELS: [&str; 5] = ["address", "address_user", "user", "sends", "global"];

/// The limits.
#[derive(Debug)]
pub struct RateLimits {
    address: Buckets,
    address_user: Buckets,
    user: Buckets,
    sends: Buckets,
    global: DefaultDirectRateLimiter,
    metrics: AccountMetrics,
}

impl RateLimits {
    /// Limits of these rates. A user alone has a larger bucket than a user from one address, so that one attacker does
    /// not lock a user out from everywhere; it fills more slowly, so that many attackers together get no more
    /// attempts in the first `duration` than one of them could have: two buckets of `--limit-user`.
    pub fn new(rates: Rates, metrics: AccountMetrics) -> Self {
        let global = rates.address.times(GLOBAL, 1);
        Self {
            address: Buckets::new(rates.address),
            address_user: Buckets::new(rates.user),
            user: Buckets::with_burst(rates.user.times(2, 3), rates.user.times(4, 3).count),
            sends: Buckets::new(rates.sends),
            global: global.limiter(global.count),
            metrics,
        }
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn request(&self, address: &Address) -> Result<(), u64> {
        match address {
            Address::Known(address) => self.judge("address", self.address.take(&network(*address))),
            Address::Unknown => self.judge("global", take(&self.global)),
        }
    }

    /// Counts what a request does to a user, whether there is one of this name or not.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn user(&self, limit: table::Limit, address: &Address, user: &str) -> Result<(), u64> {
        let user = user.trim().to_lowercase();
        match limit {
            table::Limit::Address => Ok(()),
            table::Limit::Send | table::Limit::SendIf(_) => self.judge("sends", self.sends.take(&user)),
            table::Limit::Guess => {
                if let Address::Known(address) = address {
                    self.judge("address_user", self.address_user.take(&(network(*address), &user)))?;
                }
                self.judge("user", self.user.take(&user))
            }
        }
    }

    fn judge(&self, limit: &'static str, taken: Result<(), Duration>) -> Result<(), u64> {
        taken.map_err(|wait| {
            self.metrics.limited(limit);
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

/// The network that one customer has: an IPv4 address, or the first 64 bits of an IPv6 one.
fn network(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[derive(Debug)]
struct Buckets {
    rate: Rate,
    burst: NonZeroU32,
    kept: Cache<u64, Arc<DefaultDirectRateLimiter>>,
    hasher: RandomState,
}

impl Buckets {
    fn new(rate: Rate) -> Self {
        Self::with_burst(rate, rate.count)
    }

    fn with_burst(rate: Rate, burst: NonZeroU32) -> Self {
        // A bucket that nobody took from for this long is full, as a new one is.
        let to_fill = (rate.per / rate.count.get()).saturating_mul(burst.get()).max(rate.per);
        let kept = Cache::builder().max_capacity(MAX_BUCKETS).time_to_idle(to_fill).build();
        Self { rate, burst, kept, hasher: RandomState::new() }
    }

    fn take(&self, key: &impl std::hash::Hash) -> Result<(), Duration> {
        let key = self.hasher.hash_one(key);
        take(&self.kept.get_with(key, || Arc::new(self.rate.limiter(self.burst))))
    }
}

fn take(bucket: &DefaultDirectRateLimiter) -> Result<(), Duration> {
    bucket.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::account::AccountMetrics;
    use table::Limit;

    fn limits(address: &str, user: &str, sends: &str) -> RateLimits {
        let rates =
            Rates { address: address.parse().unwrap(), user: user.parse().unwrap(), sends: sends.parse().unwrap() };
        RateLimits::new(rates, AccountMetrics::for_tests())
    }

    fn from(address: &str) -> Address {
        Address::Known(address.parse().unwrap())
    }

    /// How many times in a row it is allowed.
    fn allowed(mut take: impl FnMut(usize) -> Result<(), u64>) -> usize {
        (0..1000).find(|index| take(*index).is_err()).unwrap_or(1000)
    }

    #[test]
    fn rates() {
        assert_eq!("75/1m".parse(), Ok(Rate { count: NonZeroU32::new(75).unwrap(), per: Duration::from_secs(60) }));
        for bad in
            ["", "75", "0/1m", "75/", "/1m", "75/0s", "75/1ms", "75/2d", "-1/1m", "+1/1m", "1.5/1m", "75/m", "x/1m"]
        {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_has_its_own_bucket_and_a_network_shares_one() {
        let limits = limits("5/1h", "1/1h", "1/1h");
        assert_eq!(allowed(|_| limits.request(&from("192.0.2.1"))), 5);
        assert_eq!(limits.request(&from("192.0.2.1")), Err(720));
        assert_eq!(allowed(|_| limits.request(&from("192.0.2.2"))), 5);
        assert_eq!(allowed(|n| limits.request(&from(&format!("2001:db8::{n:x}")))), 5);
        assert_eq!(allowed(|_| limits.request(&from("2001:db8:0:1::1"))), 5);
        assert_eq!(allowed(|_| limits.request(&Address::Unknown)), 50, "ten addresses");
    }

    #[test]
    fn a_user_is_guarded_from_each_address_and_from_all_of_them() {
        let limits = limits("1000/1h", "12/1h", "3/1h");
        let guess = |address: &Address, user: &str| limits.user(Limit::Guess, address, user);
        assert_eq!(allowed(|_| guess(&from("192.0.2.1"), "ada")), 12);
        assert_eq!(allowed(|_| guess(&from("192.0.2.1"), " ADA ")), 0, "names have no case");
        assert_eq!(allowed(|_| guess(&from("192.0.2.2"), "ada")), 4);
        assert_eq!(allowed(|n| guess(&from(&format!("192.0.2.{}", n % 250)), "bob")), 16);
        assert_eq!(allowed(|_| guess(&Address::Unknown, "eve")), 16);
        assert_eq!(allowed(|_| limits.user(Limit::Send, &from("192.0.2.1"), "ada")), 3);
        assert_eq!(allowed(|_| limits.user(Limit::Address, &from("192.0.2.1"), "ada")), 1000);
    }

    #[test]
    fn memory_has_a_bound() {
        let limits = limits("5/1h", "1/1h", "1/1h");
        assert_eq!(allowed(|_| limits.request(&from("192.0.2.1"))), 5);
        for n in 0..(2 * MAX_BUCKETS) {
            limits.sends.take(&n).unwrap();
        }
        limits.sends.kept.run_pending_tasks();
        assert!(limits.sends.kept.entry_count() <= MAX_BUCKETS);
    }
}
