//! Token buckets: a rate, buckets by key in a cache of fixed size, and the pair of buckets that limits attempts at a
//! user.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use moka::sync::Cache;
use tokio::time::Instant;

use super::names::Key;

/// Number of events per duration, such as `75/1m`.
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
    /// Returns a rate with `factor` times as many events.
    pub(super) fn times(self, factor: u32) -> Self {
        let count = NonZeroU32::new(self.count.get().saturating_mul(factor));
        Self { count: count.unwrap_or(self.count), ..self }
    }

    /// Time in which one event is refilled. It is never zero, because a rate is at most a million per second.
    fn period(self) -> Duration {
        self.per / self.count.get()
    }
}

/// Time since a cache of buckets was created, by Tokio's clock, which tests can advance.
#[derive(Clone, Debug)]
struct Ticks(Instant);

impl Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Bucket (GCRA).
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>,
    clock: Ticks,
}

impl Bucket {
    /// Creates a full bucket that refills within the rate's duration.
    pub(super) fn new(rate: Rate) -> Self {
        Self::of(rate.count, rate.period(), &Ticks(Instant::now()))
    }

    fn of(burst: NonZeroU32, period: Duration, clock: &Ticks) -> Self {
        let quota = Quota::with_period(period).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
        Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock: clock.clone() }
    }

    /// Takes one event.
    ///
    /// # Errors
    /// Time until one is available.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// Maximum number of buckets of each kind, at about 200 bytes each.
pub(super) const MAX_BUCKETS: u64 = 50_000;

/// Buckets by key.
#[derive(Debug)]
pub(super) struct Buckets {
    burst: NonZeroU32,
    period: Duration,
    kept: Cache<u64, Arc<Bucket>>,
    hasher: RandomState,
    clock: Ticks,
}

impl Buckets {
    /// Creates buckets that refill within the rate's duration.
    pub(super) fn new(rate: Rate) -> Self {
        Self::of(rate.count, rate.period())
    }

    fn of(burst: NonZeroU32, period: Duration) -> Self {
        // A bucket that was not used for this long is full, like a new one.
        let to_fill = period.saturating_mul(burst.get()).max(Duration::from_secs(1));
        let kept = Cache::builder().max_capacity(MAX_BUCKETS).time_to_idle(to_fill).build();
        Self { burst, period, kept, hasher: RandomState::new(), clock: Ticks(Instant::now()) }
    }

    /// Takes one event from the bucket of `key`.
    ///
    /// # Errors
    /// Time until one is available.
    pub(super) fn take(&self, key: &impl Hash) -> Result<(), Duration> {
        let key = self.hasher.hash_one(key);
        self.kept.get_with(key, || Arc::new(Bucket::of(self.burst, self.period, &self.clock))).take()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.kept.run_pending_tasks();
        self.kept.entry_count()
    }
}

/// Network of a client; `None` is the one for all requests whose address cannot be read.
pub(super) type Network = Option<u128>;

/// Limits of attempts at one user for a rate `N/duration`, from each address and from all addresses.
///
/// One address has N at once, and then a third of N per duration. All addresses together have 4/3 N at once, and then two
/// thirds of N per duration: twice N in the first duration. One address can use up its own bucket and at most half of what
/// the user's bucket refills, so it never locks the user out from all other addresses.
#[derive(Debug)]
pub(super) struct Guard {
    by_address: Buckets,
    by_user: Buckets,
}

/// Limit of a [`Guard`] that is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// Limit of one address.
    Address,
    /// Limit of the user from all addresses.
    User,
}

impl Guard {
    pub(super) fn new(rate: Rate) -> Self {
        let more = rate.count.saturating_add(rate.count.get().div_ceil(3));
        Self {
            by_address: Buckets::of(rate.count, rate.period().saturating_mul(3)),
            by_user: Buckets::of(more, rate.period().saturating_mul(3) / 2),
        }
    }

    /// Takes one event for each of a user's names. The address's bucket comes first, so that an address over its limit
    /// takes nothing from other addresses.
    ///
    /// # Errors
    /// The limit that is exceeded, and the time until it is not.
    pub(super) fn take(&self, from: Option<Network>, names: &[Key]) -> Result<(), (Met, Duration)> {
        if let Some(network) = from {
            for name in names {
                self.by_address.take(&(network, name)).map_err(|wait| (Met::Address, wait))?;
            }
        }
        for name in names {
            self.by_user.take(name).map_err(|wait| (Met::User, wait))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_bounds() {
        assert_eq!("75/1m".parse(), Ok(Rate { count: NonZeroU32::new(75).unwrap(), per: Duration::from_secs(60) }));
        for bad in
            ["", "75", "0/1m", "75/", "/1m", "75/0s", "75/1ms", "75/2d", "-1/1m", "+1/1m", "1.5/1m", "75/m", "x/1m"]
        {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_limited() {
        let buckets = Buckets::new("1/1h".parse().unwrap());
        for n in 0..(2 * MAX_BUCKETS) {
            buckets.take(&n).unwrap();
        }
        assert!(buckets.len() <= MAX_BUCKETS);
    }
}
