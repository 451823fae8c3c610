//! File descriptors: the limit on them, and how the ports divide it.
//!
//! Every connection takes one. Without a division the port that strangers reach can take all of them, and then no check
//! and no probe is accepted any more.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one, and returns the limit in effect.
///
/// # Errors
/// The kernel refuses; the limit stays as it is.
pub fn raise_limit() -> io::Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(limit())
}

/// The limit in effect.
pub fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The parts of the program that need descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Most connections of the gRPC port, as configured.
    pub grpc: usize,
    /// Threads that serve checks.
    pub threads: usize,
    /// User pools.
    pub pools: usize,
    /// `true` if there is an account API.
    pub account: bool,
}

/// Connections at a time of each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Of the gRPC port.
    pub grpc: usize,
    /// Of the admin port.
    pub admin: usize,
    /// Of the account API; 0 without one.
    pub account: usize,
    /// `false` if the limit is too low for the least that each port gets.
    pub is_enough: bool,
}

/// Most connections of the admin port. Operators and their tools are few.
const MOST_ADMIN: usize = 256;
/// Most connections of the account API.
const MOST_ACCOUNT: usize = 4096;
/// The least that a port gets, however low the limit is.
const LEAST_GRPC: usize = 64;
const LEAST_HTTP: usize = 16;

/// Divides `limit`. What the program needs for itself comes first, then the admin port, then checks, which get half of
/// the rest if they want it; the account API gets what is left. Each of its connections takes two descriptors, as it can
/// cause one to Cognito.
pub fn share(limit: usize, wanted: Wanted) -> Shares {
    // Files, listeners, runtimes and their pipes, name look-ups, key fetches.
    let own = 128 + 4 * wanted.threads + 2 * wanted.pools;
    let rest = limit.saturating_sub(own);
    let admin = (rest / 8).clamp(LEAST_HTTP, MOST_ADMIN);
    let rest = rest.saturating_sub(admin);
    let least_grpc = LEAST_GRPC.min(wanted.grpc);
    let (grpc, account) = if wanted.account {
        let first = wanted.grpc.min(rest / 2).max(least_grpc);
        let account = (rest.saturating_sub(first) / 2).clamp(LEAST_HTTP, MOST_ACCOUNT);
        (wanted.grpc.min(rest.saturating_sub(2 * account)).max(least_grpc), account)
    } else {
        (wanted.grpc.min(rest).max(least_grpc), 0)
    };
    Shares { grpc, admin, account, is_enough: own + admin + grpc + 2 * account <= limit }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Wanted = Wanted { grpc: 10_000, threads: 2, pools: 1, account: true };

    #[test]
    fn a_high_limit_gives_everything() {
        for limit in [20_000, 1 << 20, usize::MAX] {
            let expected = Shares { grpc: 10_000, admin: 256, account: 4096, is_enough: true };
            assert_eq!(share(limit, WANTED), expected, "{limit}");
        }
    }

    #[test]
    fn a_usual_low_limit_is_divided() {
        assert_eq!(share(1024, WANTED), Shares { grpc: 388, admin: 110, account: 194, is_enough: true });
        let few = Wanted { grpc: 100, ..WANTED };
        assert_eq!(share(1024, few), Shares { grpc: 100, admin: 110, account: 338, is_enough: true });
        let none = Wanted { account: false, ..WANTED };
        assert_eq!(share(1024, none), Shares { grpc: 776, admin: 110, account: 0, is_enough: true });
        assert!(!share(200, WANTED).is_enough);
    }

    proptest! {
        #[test]
        fn what_is_given_is_there(
            limit in 0_usize..100_000, grpc in 1_usize..20_000, threads in 1_usize..64, pools in 0_usize..50,
            account: bool,
        ) {
            let wanted = Wanted { grpc, threads, pools, account };
            let shares = share(limit, wanted);
            let all = 128 + 4 * threads + 2 * pools + shares.grpc + shares.admin + 2 * shares.account;
            prop_assert_eq!(shares.is_enough, all <= limit);
            prop_assert!(shares.is_enough || limit < 128 + 4 * threads + 2 * pools + 64 + 32 + 32 + 32);
            prop_assert!(shares.grpc <= grpc && shares.grpc >= grpc.min(64));
            prop_assert!(shares.admin >= 16 && (shares.account >= 16) == account);
        }
    }
}
